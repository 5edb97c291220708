"""The one thread that owns a process's sockets: events in, callbacks out.

The reactor knows nothing of what messages mean. It polls a transport and any file
descriptors that were given to it, runs timers, and runs what other threads posted.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from opencluster.net.transport import Transport, TransportEvent

log = logging.getLogger(__name__)

MAX_POLL_S = 60.0
"""Longest sleep; a bound, so that a clock that jumps cannot stop timers for long."""
FATAL_STATUS = 70
"""Exit status of a process whose sockets cannot be served any more."""
MIN_COMPACTION = 64
"""Timers that may wait, cancelled ones included, before the cancelled are dropped."""


class Timer:
    """A callback that runs later, once or again and again, until it is cancelled."""

    __slots__ = ("callback", "interval_s", "is_cancelled")

    def __init__(self, callback: Callable[[], None], interval_s: float) -> None:
        self.callback = callback
        self.interval_s = interval_s
        self.is_cancelled = False

    def cancel(self) -> None:
        """Run no more."""
        self.is_cancelled = True


class Reactor:
    """Runs a transport.

    Parameters
    ----------
    transport : Transport
        What carries the messages; the reactor closes it at the end.
    on_event : callable
        Called in the reactor's thread with each `TransportEvent`.
    on_fatal : callable, optional
        Called with what ended the reactor, when that was not `stop`.
    is_vital : bool
        The process is of no use without this reactor: an error that ends the reactor
        ends the process, with `FATAL_STATUS`.
    linger_s : float
        How long the end may wait for what was sent to leave.
    """

    def __init__(
        self,
        transport: Transport,
        on_event: Callable[[TransportEvent], None],
        on_fatal: Callable[[BaseException], None] | None = None,
        is_vital: bool = True,
        linger_s: float = 1.0,
    ) -> None:
        self.transport = transport
        self._on_event = on_event
        self._on_fatal = on_fatal
        self._is_vital = is_vital
        self._linger_s = linger_s
        self._on_idle: list[Callable[[], None]] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._compact_at = MIN_COMPACTION
        self._count = itertools.count()
        self._readers: dict[int, Callable[[], None]] = {}
        self._wake_fd, self._waker_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self._waker_fd, False)
        self._is_sleeping = False
        self._is_stopping = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._poller = zmq.Poller()
        self._poller.register(self._wake_fd, zmq.POLLIN)
        self._transport_keys = set()
        for pollable in transport.pollables():
            self._poller.register(pollable, zmq.POLLIN)
            self._transport_keys.add(pollable)

    # --- from any thread -----------------------------------------------------

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in the reactor's thread, soon and in order."""
        self._posted.append(callback)
        if self._is_sleeping:
            self._wake()

    def stop(self) -> None:
        """Make `run` return after what was posted so far."""
        self.post(self._stop)

    def start(self, name: str = "opencluster-io") -> None:
        """Run in a thread of its own, that does not keep the process alive."""
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the reactor's thread has ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    @property
    def is_current(self) -> bool:
        """Whether the caller is the reactor's thread."""
        return self._thread is threading.current_thread()

    # --- from the reactor's thread -------------------------------------------

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback once, after a delay."""
        return self._schedule(delay_s, Timer(callback, 0.0))

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback again and again."""
        return self._schedule(interval_s, Timer(callback, interval_s))

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Run a callback whenever a file descriptor can be read."""
        self._readers[fd] = callback
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Watch a file descriptor no longer."""
        if self._readers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Run a callback at the end of every turn, after all events of that turn."""
        self._on_idle.append(callback)

    def run(self) -> None:
        """Handle events until `stop`, then close the transport.

        An error of the transport is fatal, as half a message may have been read: it
        is logged, told to `on_fatal`, and ends the process when the reactor is vital.
        """
        try:
            while not self._is_stopping:
                self._turn()
        except BaseException as error:
            is_in_thread_of_caller = self._thread is None
            # an interrupt there is the caller's affair
            if isinstance(error, Exception) or not is_in_thread_of_caller:
                self._die(error)
            if is_in_thread_of_caller:
                raise
        finally:
            self._is_closed = True
            self.transport.close(self._linger_s)
            os.close(self._wake_fd)
            os.close(self._waker_fd)

    # --- inside --------------------------------------------------------------

    def _turn(self) -> None:
        ready = self._poll()
        self._run_posted()
        if not self._transport_keys.isdisjoint(ready):
            for event in self.transport.receive(ready):
                self._guarded(self._on_event, event)
        for fd in ready:
            if fd in self._readers:
                self._guarded(self._readers[fd])
        self._run_timers()
        for callback in self._on_idle:
            self._guarded(callback)

    def _poll(self) -> dict[Any, int]:
        timeout_s = MAX_POLL_S
        if self._timers:
            timeout_s = max(0.0, self._timers[0][0] - time.monotonic())
        # set before looking: a post that comes after the look will wake us
        self._is_sleeping = True
        if self._posted:
            timeout_s = 0.0
        milliseconds = min(timeout_s, MAX_POLL_S) * 1000
        ready = dict(self._poller.poll(int(milliseconds) + (milliseconds % 1 > 0)))
        self._is_sleeping = False
        if self._wake_fd in ready:
            os.read(self._wake_fd, 4096)
        return ready

    def _run_posted(self) -> None:
        for _ in range(len(self._posted)):
            self._guarded(self._posted.popleft())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.is_cancelled:
                continue
            self._guarded(timer.callback)
            if timer.interval_s and not timer.is_cancelled:
                self._schedule(timer.interval_s, timer)

    def _schedule(self, delay_s: float, timer: Timer) -> Timer:
        if len(self._timers) >= self._compact_at:
            self._timers = [item for item in self._timers if not item[2].is_cancelled]
            heapq.heapify(self._timers)
            # in proportion to what is left, so that it costs little per timer
            self._compact_at = max(MIN_COMPACTION, 2 * len(self._timers))
        at = time.monotonic() + delay_s
        heapq.heappush(self._timers, (at, next(self._count), timer))
        return timer

    def _guarded(self, callback: Callable[..., None], *args: Any) -> None:
        """Run a callback; what it raises must not end the thread of all sockets."""
        try:
            callback(*args)
        except Exception:
            log.exception("an error in OpenCluster itself; the process goes on")

    def _die(self, error: BaseException) -> None:
        try:
            log.critical("the input and output of OpenCluster ended", exc_info=error)
            if self._on_fatal is not None:
                self._guarded(self._on_fatal, error)
            if self._is_vital:
                logging.shutdown()
                sys.stderr.flush()
        finally:
            # whatever fails above: others would wait for this process for ever
            if self._is_vital:
                os._exit(FATAL_STATUS)

    def _stop(self) -> None:
        self._is_stopping = True

    def _wake(self) -> None:
        if self._is_closed:
            return
        # full means that it will wake anyway; closed, that nobody is left to wake
        with contextlib.suppress(OSError):
            os.write(self._waker_fd, b"!")
