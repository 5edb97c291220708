"""Whoever waits serves the sockets of the process: events in, callbacks out.

The reactor knows nothing of what messages mean. It polls a transport and any file
descriptors that were given to it, runs timers, and runs what other threads posted.

One thread at a time holds the reactor, and is "the I/O thread" for that while. A
thread that waits for something holds it meanwhile (`Reactor.wait_until`), so that
what it waits for crosses no other thread. The background thread does the rest: it
sleeps until a socket has input, holding nothing, and stands aside for as long as
others drive. So four things must be true whenever somebody lets go of the reactor:

- What was posted is run soon: by the next who holds it, or the background thread.
- The background thread, if it sleeps on the sockets, does so on what holds still:
  no input that the descriptors do not tell of, and no timer before it wakes.
- Somebody who waits to drive is called.
- Somebody who may not drive is not left alone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from opencluster.net.interrupts import Deferral, MainThread, has_handlers, has_room
from opencluster.net.polling import Bell, Polling
from opencluster.net.timers import Timer as Timer
from opencluster.net.timers import Timers
from opencluster.net.transport import Transport, TransportEvent

log = logging.getLogger(__name__)

MAX_POLL_S = 60.0
"""Longest sleep; a bound, so that a clock that jumps cannot stop timers for long."""
FATAL_STATUS = 70
"""Exit status of a process whose sockets cannot be served any more."""
GRACE_S = 0.002
"""How long nobody must have driven before the background thread takes over."""
LONGEST_NAP_S = 0.02
"""How long it sleeps before it looks again, when they did so time after time: each
wake-up takes the interpreter from whoever is at work."""
PARK_AFTER_S = 0.1
"""A background thread that stood aside this long for one driver sleeps until it leaves.
Before, it would cost whoever comes and goes a wake-up each time; it naps instead."""
VISITS_OF_DRIVER = 4
"""What a driver counts for, against one of who serves a single turn and goes."""
MANY_VISITS = 3
"""More than this while the background thread slept on the sockets, and it stands
aside: others serve them so often that it would only be in the way."""

NOBODY = 0
"""Holds the reactor once it has ended; no thread has this identity."""


class _Waiter:
    """A thread that waits while another one drives."""

    __slots__ = ("bell", "error", "is_over", "is_satisfied", "may_drive")

    def __init__(self, is_over: Callable[[], bool], may_drive: bool) -> None:
        self.is_over = is_over
        self.may_drive = may_drive
        self.is_satisfied = False
        self.error: Exception | None = None
        self.bell = threading.Lock()
        self.bell.acquire()


class Reactor:
    """Runs a transport.

    Parameters
    ----------
    transport : Transport
        What carries the messages; the reactor closes it at the end.
    on_event : callable
        Called with each `TransportEvent`, by the thread that holds the reactor.
    on_fatal : callable, optional
        Called with what ended the reactor, when that was not `stop`.
    is_vital : bool
        The process is of no use without this reactor: an error that ends the reactor
        ends the process, with `FATAL_STATUS`.
    linger_s : float
        How long the end may wait for what was sent to leave.
    handlers_return : bool
        No handler of a signal raises while the main thread waits here, so that it may
        serve the sockets whatever handlers there are.
    grace_s : float
        How long nobody may have served the sockets before the background thread does.
    spin_s : float
        How long a thread that waits looks for input again and again before it sleeps.
    """

    def __init__(
        self,
        transport: Transport,
        on_event: Callable[[TransportEvent], None],
        on_fatal: Callable[[BaseException], None] | None = None,
        is_vital: bool = True,
        linger_s: float = 1.0,
        handlers_return: bool = False,
        grace_s: float = GRACE_S,
        spin_s: float = 0.0,
    ) -> None:
        self.transport = transport
        self._on_event = on_event
        self._on_fatal = on_fatal
        self._is_vital = is_vital
        self._linger_s = linger_s
        self._handlers_return = handlers_return
        self._grace_s = grace_s
        self._on_idle: list[Callable[[], None]] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._timers = Timers()
        self._readers: dict[int, Callable[[], None]] = {}
        self._polling = Polling(transport.pollables(), spin_s)
        self._wait, self._pollables = self._polling.wait, self._polling.pollables
        self._sleep = self._polling.sleep
        self._was_posted = False
        self._is_stopping = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        # whoever holds it may touch the transport; again and again, to close it after
        # whatever went wrong
        self._serving = threading.RLock()
        self._holder: int | None = None
        self._visits = 0
        self._waiters: dict[_Waiter, bool] = {}
        self._deferral = Deferral(self._note_interrupt)
        # of the thread that holds the reactor and sleeps
        self._alarm = Bell()
        self.watch(self._alarm.fileno(), self._alarm.hush)
        self._is_sleeping = False
        # of the background thread
        self._bell = Bell()
        self._sleeps_until: float | None = None
        self._is_parked = False
        self._is_asked = False

    # --- from any thread -----------------------------------------------------

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run by whoever holds the reactor, soon and in order."""
        self._posted.append(callback)
        if self._is_sleeping or self._sleeps_until is not None:
            self._rouse()

    def prepare(self, callback: Callable[[], None]) -> None:
        """Have a callback run like one that was posted, by a thread that waits next.

        Nobody is woken for it: to be followed at once by `wait_until` or `serve_turn`
        in the same thread.
        """
        self._posted.append(callback)

    def wait_until(
        self, is_over: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait for something, and serve the sockets meanwhile if nobody else does.

        Parameters
        ----------
        is_over : callable
            Whether it has come; looked at before the first turn and after every one,
            by whoever holds the reactor then. It must be quick, and only look.
        timeout_s : float, optional
            How long to wait, in seconds; by default for ever.

        Returns
        -------
        bool
            Whether it has come; if not, the time is up or the reactor has ended.

        Raises
        ------
        RuntimeError
            When called by a callback of this reactor, for which everything waits.
        """
        me = threading.get_ident()
        if self._holder == me:
            raise RuntimeError("cannot wait inside a callback of the reactor")
        until = None if timeout_s is None else time.monotonic() + timeout_s
        may_raise = me == MainThread.ident and not self._handlers_return
        waiter: _Waiter | None = None
        try:
            while True:
                may_drive = self._handlers_return or (
                    has_room() and not (may_raise and has_handlers())
                )
                if may_drive:
                    drive = self._drive_undisturbed if may_raise else self._drive
                    over = drive(me, is_over, until, waiter)
                    if over is not None:
                        return over
                if waiter is None:
                    waiter = _Waiter(is_over, may_drive)
                    self._waiters[waiter] = True
                    # and try again: who drove may have left and not seen this one
                    continue
                over = self._wait_aside(waiter, until)
                if over is not None:
                    return over
                waiter = None
        finally:
            if waiter is not None:
                self._waiters.pop(waiter, None)

    def serve_turn(self, callback: Callable[[], None] | None = None) -> bool:
        """Serve the sockets once, without waiting, if nobody else does.

        Parameters
        ----------
        callback : callable, optional
            Run as one that was posted: in this turn, or soon by whoever serves.

        Returns
        -------
        bool
            Whether this thread did; ``False`` means that another one does.
        """
        if callback is not None:
            self._posted.append(callback)
        me = threading.get_ident()
        if self._holder == me:
            return False
        if self._handlers_return:
            has_served = self._visit(me)
        elif not has_room():
            has_served = False
        elif me != MainThread.ident:
            has_served = self._visit(me)
        elif has_handlers():
            has_served = False
        else:
            self._deferral.begin()
            try:
                has_served = self._visit(me)
            finally:
                self._deferral.end()
        if not has_served:
            self._rouse()
        return has_served

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
        """Whether the caller holds the reactor, as every callback does."""
        return self._holder == threading.get_ident()

    # --- while holding the reactor -------------------------------------------

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback once, after a delay."""
        return self._timers.schedule(delay_s, Timer(callback, 0.0))

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback again and again."""
        return self._timers.schedule(interval_s, Timer(callback, interval_s))

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Run a callback whenever a file descriptor can be read."""
        self._readers[fd] = callback
        self._polling.watch(fd)

    def unwatch(self, fd: int) -> None:
        """Watch a file descriptor no longer."""
        if self._readers.pop(fd, None) is not None:
            self._polling.unwatch(fd)

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Run a callback at the end of every turn, after all events of that turn."""
        self._on_idle.append(callback)

    # --- the background thread -----------------------------------------------

    def run(self) -> None:
        """Handle events until `stop`, then close the transport.

        An error of the transport is fatal, as half a message may have been read: it
        is logged, told to `on_fatal`, and ends the process when the reactor is vital.
        """
        is_in_thread_of_caller = self._thread is None
        try:
            self._serve()
            if self._failure is not None and is_in_thread_of_caller:
                raise self._failure
        except BaseException as error:
            # an interrupt there is the caller's affair
            is_ours = isinstance(error, Exception) or not is_in_thread_of_caller
            if is_ours and error is not self._failure:
                self._die(error)
            if is_in_thread_of_caller:
                raise
        finally:
            self._is_stopping = True
            # for ever: nobody may touch the transport after this
            self._serving.acquire()
            self._holder = NOBODY
            self._call_all()
            self.transport.close(self._linger_s)
            self._polling.close()
            self._alarm.close()
            self._bell.close()

    def _serve(self) -> None:
        while not self._is_stopping:
            if not self._serving.acquire(False):
                self._stand_aside()
                continue
            self._holder = threading.get_ident()
            self._turn(0.0)
            self._look_at_waiters()
            until = self._sleeps_until = self._timers.next_at
            seen = self._visits
            is_driven = self._let_go()
            if not is_driven:
                limit_s = min(until - time.monotonic(), MAX_POLL_S)
                self._bell.wait_beside(self._polling.fileno(), max(0.0, limit_s))
            self._sleeps_until = None
            if is_driven or self._visits - seen > MANY_VISITS:
                self._stand_aside()

    def _stand_aside(self) -> None:
        """Sleep until nobody has driven for a while, or until asked to serve."""
        seen, since, nap_s = self._visits, time.monotonic(), self._grace_s
        while not (self._is_stopping or self._is_asked):
            if self._holder is not None and time.monotonic() - since > PARK_AFTER_S:
                self._park()
            was_rung = self._bell.wait(nap_s)
            if self._visits != seen:
                seen, since = self._visits, time.monotonic()
                nap_s = max(nap_s, min(2 * nap_s, LONGEST_NAP_S))
            elif self._holder is None and not was_rung:
                break
        self._is_asked = False

    def _park(self) -> None:
        """Sleep until whoever drives leaves, so that an idle process does nothing."""
        self._is_parked = True
        if self._holder is not None and not self._is_asked:
            self._bell.wait()
        self._is_parked = False

    # --- those who drive -----------------------------------------------------

    def _drive_undisturbed(
        self,
        me: int,
        is_over: Callable[[], bool],
        until: float | None,
        waiter: _Waiter | None,
    ) -> bool | None:
        """Drive with Ctrl-C held back, in the thread where it would be raised."""
        self._deferral.begin()
        try:
            return self._drive(me, is_over, until, waiter)
        finally:
            self._deferral.end()

    def _drive(
        self,
        me: int,
        is_over: Callable[[], bool],
        until: float | None,
        waiter: _Waiter | None,
    ) -> bool | None:
        """Serve until something is over; ``None`` if another thread does, or Ctrl-C."""
        if not self._serving.acquire(False):
            return None
        self._holder = me
        is_in_turn = has_served = False
        try:
            if waiter is not None:
                self._waiters.pop(waiter, None)
            limit_s, is_late = MAX_POLL_S, False
            while not is_over():
                if self._is_stopping or is_late:
                    return False
                if self._deferral.is_due and me == MainThread.ident:
                    return None
                if until is not None:
                    limit_s = min(until - time.monotonic(), MAX_POLL_S)
                    is_late = limit_s <= 0.0
                is_in_turn = has_served = True
                self._turn(limit_s)
                if self._waiters:
                    self._look_at_waiters()
                is_in_turn = False
            return True
        except BaseException as error:
            if not is_in_turn:
                raise
            self._fail(error)
            return False
        finally:
            if has_served:
                self._visits += VISITS_OF_DRIVER
            self._let_go()

    def _visit(self, me: int) -> bool:
        if not self._serving.acquire(False):
            return False
        self._holder = me
        try:
            if not self._is_stopping:
                self._turn(0.0)
                self._look_at_waiters()
        except BaseException as error:
            self._fail(error)
        finally:
            self._visits += 1
            self._let_go()
        return True

    def _fail(self, error: BaseException) -> None:
        """End the reactor, from a thread that is not its own."""
        self._failure = error
        self._die(error)
        self._stop()

    def _let_go(self) -> bool:
        """Let others hold the reactor; return whether one of them was called."""
        until = self._sleeps_until
        is_stale = until is not None and self._is_stale(until)
        self._holder = None
        self._serving.release()
        is_called = bool(self._waiters) and self._call_one()
        if self._sleeps_until is not None:
            if is_stale or self._posted or self._is_stopping:
                self._ring()
        elif self._is_parked or self._is_stopping:
            self._is_parked = False
            self._bell.ring()
        return is_called

    def _is_stale(self, until: float) -> bool:
        """Return whether the background thread would sleep over what is to be done."""
        return self._timers.next_at < until or bool(self._polling.hidden())

    def _note_interrupt(self) -> None:
        self.post(_nothing)

    # --- those who wait while another one drives -----------------------------

    def _wait_aside(self, waiter: _Waiter, until: float | None) -> bool | None:
        """Sleep until something is over; ``None`` if this thread is called to drive."""
        if self._is_stopping:
            return waiter.is_over()
        if self._holder is None:
            self._ask()
        # so that whoever serves looks at the condition at once
        self.post(_nothing)
        left_s = -1.0
        if until is not None:
            left_s = min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)
        is_called = waiter.bell.acquire(timeout=left_s)
        if waiter.error is not None:
            raise waiter.error
        if is_called and not waiter.is_satisfied:
            return None
        return waiter.is_satisfied or waiter.is_over()

    def _look_at_waiters(self) -> None:
        if not self._waiters:
            return
        for waiter in list(self._waiters):
            try:
                waiter.is_satisfied = waiter.is_over()
            except Exception as error:
                waiter.error = error
            if waiter.is_satisfied or waiter.error is not None:
                self._call(waiter)

    def _call_one(self) -> bool:
        """Call one who may drive; if there is none, the background thread."""
        if self._is_stopping:
            self._call_all()
            return False
        for waiter in list(self._waiters):
            if waiter.may_drive and self._call(waiter):
                return True
        if self._waiters:
            self._ask()
        return False

    def _call_all(self) -> None:
        for waiter in list(self._waiters):
            self._call(waiter)

    def _call(self, waiter: _Waiter) -> bool:
        is_waiting = self._waiters.pop(waiter, False)
        if is_waiting:
            waiter.bell.release()
        return is_waiting

    def _ask(self) -> None:
        """Have the background thread take over at once, if it stands aside."""
        if self._sleeps_until is None:
            self._is_asked = True
            self._bell.ring()

    # --- inside --------------------------------------------------------------

    def _turn(self, limit_s: float) -> None:
        """Handle what was posted, or else what comes; sleep, if there is nothing.

        Every message costs a turn or two, and each line here a good part of a
        microsecond when another process had the core meanwhile: hence no more calls
        than need be.
        """
        if self._posted:
            self._run_posted()
            self._was_posted = not self._was_posted
            if self._was_posted:
                # somebody may be waiting for what was just done; but not twice in a
                # row, or nothing would come in for as long as there is something posted
                if self._on_idle:
                    self._run_idle()
                return
            limit_s = 0.0
        self._was_posted = False
        ready: list[Any] = self._polling.hidden()
        if ready or limit_s <= 0.0:
            found = self._wait(0.0)
        else:
            if self._sleeps_until is not None:
                # or the background thread would be woken by everything that comes
                self._ring()
            timer_s = self._timers.next_at - time.monotonic()
            if timer_s < limit_s:
                limit_s = timer_s if timer_s > 0.0 else 0.0
            # set before looking: a post that comes after the look will wake us
            self._is_sleeping = True
            found = self._sleep(0.0 if self._posted else limit_s)
            self._is_sleeping = False
        readers = []
        for fd, _ in found:
            pollable = self._pollables.get(fd)
            if pollable is None:
                readers.append(fd)
            elif pollable not in ready:
                ready.append(pollable)
        if ready:
            for event in self.transport.receive(ready):
                try:
                    self._on_event(event)
                except Exception:
                    self._note_error()
        for fd in readers:
            reader = self._readers.get(fd)
            if reader is not None:
                self._guarded(reader)
        if self._timers.next_at <= time.monotonic():
            self._timers.run(self._guarded)
        if self._on_idle:
            self._run_idle()

    def _run_posted(self) -> None:
        posted = self._posted
        for _ in range(len(posted)):
            try:
                posted.popleft()()
            except Exception:
                self._note_error()

    def _run_idle(self) -> None:
        for callback in self._on_idle:
            self._guarded(callback)

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Run a callback; what it raises must not end the service of all sockets."""
        try:
            callback()
        except Exception:
            self._note_error()

    def _note_error(self) -> None:
        log.exception("an error in OpenCluster itself; the process goes on")

    def _die(self, error: BaseException) -> None:
        try:
            log.critical("the input and output of OpenCluster ended", exc_info=error)
            if self._on_fatal is not None:
                self._guarded(partial(self._on_fatal, error))
            if self._is_vital:
                logging.shutdown()
                sys.stderr.flush()
        finally:
            # whatever fails above: others would wait for this process for ever
            if self._is_vital:
                os._exit(FATAL_STATUS)

    def _stop(self) -> None:
        self._is_stopping = True

    def _rouse(self) -> None:
        """Wake who serves, if it sleeps: it has not seen what was posted."""
        if self._is_sleeping:
            self._is_sleeping = False
            self._alarm.ring()
        elif self._holder is None and self._sleeps_until is not None:
            self._ring()

    def _ring(self) -> None:
        """Wake the background thread, which sleeps on the sockets."""
        self._sleeps_until = None
        self._bell.ring()


def _nothing() -> None:
    """Do nothing; whoever runs it has had a turn."""
