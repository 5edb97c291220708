"""Which sockets and files have input, at the price of few system calls.

All that can be waited for is one epoll descriptor. A socket of ZeroMQ shows in its
descriptor only that something happened since it was last used, whatever for: sending
may swallow the sign that a message came. So there are two questions. `Polling.hidden`
must be asked before sleeping, by whoever holds the sockets, and looks at those that
were used. `Polling.wait` touches no socket, so that a thread may sleep in it while
another one uses them.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

import zmq

_INPUT = int(zmq.POLLIN)
_poll = zmq.zmq_poll


class Edge:
    """A socket of ZeroMQ, as something to poll.

    Parameters
    ----------
    sock : zmq.Socket
        The socket.

    Attributes
    ----------
    is_used : bool
        To be set whenever the socket was used for anything: it must be looked at then.
    has_more : bool
        It was looked at, and has input besides what was read.
    """

    __slots__ = ("has_more", "is_used", "question", "sock")

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.sock = sock
        self.is_used = True
        self.has_more = False
        self.question = (sock, _INPUT)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self.sock.fileno()


MISSES = 4
"""Looks in vain after which it is looked more rarely."""
DOUBLINGS = 8
"""How often the sleeps from one look to the next are doubled where nothing is found."""


class Polling:
    """Waits for a transport and for files.

    Parameters
    ----------
    pollables : iterable
        An `Edge`, or whatever else has a file descriptor that can be read for as long
        as there is input.
    spin_s : float
        How long it is looked for input, again and again, before a sleep.

    Attributes
    ----------
    wait : callable
        Sleeps until there is input, for so many seconds at most; returns pairs of a
        descriptor and what the kernel says of it.
    sleep : callable
        The same, but looks for `spin_s` first.
    pollables : dict
        By their descriptors.
    """

    def __init__(self, pollables: Iterable[Any], spin_s: float = 0.0) -> None:
        self._epoll = select.epoll()
        self._spin_s = spin_s
        self._misses = self._skips = 0
        self.wait: Callable[[float], list[tuple[int, int]]] = self._epoll.poll
        self.sleep = self._spin if spin_s else self.wait
        self.pollables: dict[int, Any] = {}
        self._edges: list[Edge] = []
        for pollable in pollables:
            fd = pollable.fileno()
            self._epoll.register(fd, select.EPOLLIN)
            self.pollables[fd] = pollable
            if isinstance(pollable, Edge):
                self._edges.append(pollable)

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

    def hidden(self) -> list[Edge]:
        """Return the sockets that have input, whether their descriptors tell or not."""
        used: list[Edge] = []
        questions = []
        for edge in self._edges:
            if edge.is_used:
                used.append(edge)
                questions.append(edge.question)
        if not used:
            return used
        found = _poll(questions, 0)
        if not found:
            for edge in used:
                edge.is_used = False
            return []
        sockets = [sock for sock, _ in found]
        for edge in used:
            edge.is_used = edge.has_more = edge.question[0] in sockets
        return [edge for edge in used if edge.has_more]

    def _spin(self, limit_s: float) -> list[tuple[int, int]]:
        """Look for input before a sleep, as long as that mostly finds some.

        Where it does not, since messages come seldom or their senders wait for this
        very processor, it is tried once in a while only.
        """
        if self._skips:
            self._skips -= 1
            return self.wait(limit_s)
        now = time.monotonic()
        until = now + min(limit_s, self._spin_s)
        while now < until:
            found = self.wait(0.0)
            if found:
                self._misses = 0
                return found
            now = time.monotonic()
        self._misses = min(self._misses + 1, MISSES + DOUBLINGS)
        if self._misses >= MISSES:
            self._skips = 1 << (self._misses - MISSES)
        return self.wait(max(0.0, limit_s - self._spin_s))

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

    def hush(self) -> None:
        """Take back what was rung."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def wait(self, limit_s: float | None = None) -> bool:
        """Sleep until the bell rings, and return whether it did."""
        is_rung = bool(self._poll.poll(None if limit_s is None else limit_s * 1000))
        if is_rung:
            self.hush()
        return is_rung

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
