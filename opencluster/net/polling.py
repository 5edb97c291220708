"""Which sockets and files have input, at the price of few system calls.

All that can be waited for is one epoll descriptor. A socket of ZeroMQ shows in its
descriptor only that its state may have changed since it was last looked at: every
send and every receive looks, and may leave input behind of which the descriptor does
not tell. So there are two questions: `hidden` must be asked, by whoever holds the
sockets, before `wait` may sleep; `wait` touches no socket, and may be called by a
thread that holds nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable
from typing import Any

import zmq

_INPUT = int(zmq.POLLIN)


class Polling:
    """Waits for a transport and for files.

    Parameters
    ----------
    pollables : iterable
        Sockets of ZeroMQ, or whatever else has a file descriptor that can be read
        while there is input.
    """

    def __init__(self, pollables: Iterable[Any]) -> None:
        self._epoll = select.epoll()
        self._pollables: dict[int, Any] = {}
        self._all: list[tuple[Any, int]] = []
        self._busy: list[tuple[Any, int]] = []
        # at a monitor (a PAIR) nothing is sent, so that only reading it hides input
        self._monitors: set[Any] = set()
        self._was_monitor_read = True
        for pollable in pollables:
            fd = pollable.fileno()
            self._epoll.register(fd, select.EPOLLIN)
            self._pollables[fd] = pollable
            if isinstance(pollable, zmq.Socket):
                self._all.append((pollable, _INPUT))
                if pollable.type == zmq.PAIR:
                    self._monitors.add(pollable)
                else:
                    self._busy.append((pollable, _INPUT))

    def watch(self, fd: int) -> None:
        """Wait for a file, too."""
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Wait for a file no longer."""
        # one that was closed is not there any more
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def fileno(self) -> int:
        """Return a descriptor that can be read when `wait` would not sleep."""
        return self._epoll.fileno()

    def hidden(self) -> list[Any]:
        """Return the sockets that have input, whether their descriptors tell or not."""
        sockets = self._all if self._was_monitor_read else self._busy
        if not sockets:
            return []
        return [sock for sock, _ in zmq.zmq_poll(sockets, 0)]

    def wait(self, limit_s: float) -> list[tuple[int, int]]:
        """Sleep until there is input; return the descriptors, for `sort`."""
        return self._epoll.poll(limit_s)

    def sort(
        self, hidden: Iterable[Any], found: Iterable[tuple[int, int]]
    ) -> tuple[set[Any], list[int]]:
        """Return which pollables have input, and which other files."""
        ready = set(hidden)
        files = []
        for fd, _ in found:
            pollable = self._pollables.get(fd)
            if pollable is None:
                files.append(fd)
            else:
                ready.add(pollable)
        self._was_monitor_read = not ready.isdisjoint(self._monitors)
        return ready, files

    def close(self) -> None:
        """Wait for nothing any more."""
        self._epoll.close()


class Bell:
    """Wakes a thread that sleeps; rung any number of times, it wakes once."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._is_closed = False

    def fileno(self) -> int:
        """Return a descriptor that can be read once the bell was rung."""
        return self._fd

    def ring(self) -> None:
        """Wake whoever waits, or whoever waits next; a closed bell is silent."""
        if not self._is_closed:
            with contextlib.suppress(OSError):
                os.eventfd_write(self._fd, 1)

    def hush(self) -> bool:
        """Take back what was rung, and return whether it was."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def wait(self, limit_s: float | None = None) -> bool:
        """Sleep until the bell rings, and return whether it did."""
        is_rung = bool(self._poll.poll(None if limit_s is None else limit_s * 1000))
        return is_rung and self.hush()

    def wait_beside(self, fd: int, limit_s: float) -> None:
        """Sleep until the bell rings, or a file can be read."""
        self._poll.register(fd, select.POLLIN)
        try:
            self._poll.poll(limit_s * 1000)
        finally:
            self._poll.unregister(fd)
        self.hush()

    def close(self) -> None:
        """Ring no more."""
        self._is_closed = True
        os.close(self._fd)
