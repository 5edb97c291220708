"""Pieces that run in this process on a Dask worker, and how they are stopped.

A thread cannot be ended from outside. So a piece that should stop has a flag raised
first, which `Worker.progress` and `Worker.interrupted` look at, then an exception in
its thread; and if it goes on after that, its manager is told that it is over anyway.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opencluster.core.inbox import CUT_SHORT, INTERRUPT, TIME_LIMIT
from opencluster.serving.outcomes import (
    PROGRESS_INTERVAL_S,
    PieceInterrupt,
    status_of,
)

MAX_STOPPED = 10_000
"""Pieces that are remembered which are to stop and have not begun here."""

Key = tuple[str, int]
"""The session, and the number of the piece in it."""
Tell = Callable[[dict[str, Any]], None]


class Run:
    """One piece that an instance performs; the instance asks it whether to stop.

    Parameters
    ----------
    key : (str, int)
        Which piece.
    worker : str
        Identity of the instance.
    timeout_s, interrupt_grace_s, kill_grace_s : float
        Its time limit, 0 for none, and the graces of interrupts.
    is_watched : bool
        Progress is to be told of.
    is_urgent : bool
        It is a real-time piece, which makes way for no other.
    tell : callable
        Tells its manager of something.
    """

    def __init__(
        self,
        key: Key,
        worker: str,
        timeout_s: float,
        interrupt_grace_s: float,
        kill_grace_s: float,
        is_watched: bool,
        is_urgent: bool,
        tell: Tell,
    ) -> None:
        self.key = key
        self.worker = worker
        self.reason = ""
        self.is_urgent = is_urgent
        self.way_for = ""
        self.has_seen_way = False
        self._graces = (interrupt_grace_s, kill_grace_s)
        self._thread = threading.get_ident()
        self._deadline = time.monotonic() + timeout_s if timeout_s else None
        self._raise_at: float | None = None
        self._give_up_at: float | None = None
        self._is_performing = False
        self._is_watched = is_watched
        self._reported_at = 0.0
        self._tell = tell

    # --- for the instance, by the name of what serves workers elsewhere ------

    def progress(self, done: float, total: float) -> None:
        """Report progress, and stop here when the piece should stop."""
        if self.reason and self._is_performing:
            raise PieceInterrupt(self.reason)
        if self.way_for and self._is_performing:
            self.has_seen_way = True
            raise PieceInterrupt(CUT_SHORT)
        now = time.monotonic()
        if self._is_watched and now - self._reported_at > PROGRESS_INTERVAL_S:
            self._reported_at = now
            number = self.key[1]
            self._tell({"progress": [number, float(done), float(total)]})

    def is_interrupted(self) -> bool:
        """Return whether the piece should stop."""
        self.has_seen_way = self.has_seen_way or bool(self.way_for)
        return bool(self.reason) or self.has_seen_way

    # --- for the thread that performs it -------------------------------------

    def perform(self, function: Callable[[Any], Any], piece: Any) -> Any:
        """Call a function, in which an exception may be raised from outside.

        Raises
        ------
        PieceInterrupt
            When the piece is to stop.
        """
        with _watch.lock:
            if self.reason:
                raise PieceInterrupt(self.reason)
            self._is_performing = True
        try:
            return function(piece)
        finally:
            with _watch.lock:
                self._is_performing = False
                # or what is on its way would come up in something else
                _raise_in(self._thread, None)

    # --- for the watch, which holds its lock ---------------------------------

    def flag(self, now: float, reason: str) -> None:
        """Have it stop."""
        if self.reason:
            return
        self.reason = reason
        self._deadline = None
        self._raise_at = now + self._graces[0]
        self._give_up_at = self._raise_at + self._graces[1]

    def look(self, now: float) -> float | None:
        """Do what is due, and return when the next look is."""
        if self._deadline is not None and now >= self._deadline:
            self.flag(now, TIME_LIMIT)
        if self._raise_at is not None and now >= self._raise_at:
            self._raise_at = None
            if self._is_performing:
                _raise_in(self._thread, PieceInterrupt)
        if self._give_up_at is not None and now >= self._give_up_at:
            self._give_up_at = None
            self._tell({"over": [self.key[1], status_of(self.reason)]})
        due = (self._deadline, self._raise_at, self._give_up_at)
        return min((at for at in due if at is not None), default=None)


class _Watch:
    """Knows what runs in this process, and looks at it when something is due."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._runs: dict[Key, Run] = {}
        self._stopped: OrderedDict[Key, str] = OrderedDict()
        self._thread: threading.Thread | None = None

    def begin(self, run: Run) -> None:
        """Take in a piece that begins; it may be stopped already."""
        with self.lock:
            self._runs[run.key] = run
            reason = self._stopped.pop(run.key, "")
            if reason:
                run.flag(time.monotonic(), reason)
            if run.look(time.monotonic()) is not None:
                self._look_soon()

    def end(self, run: Run) -> None:
        """Forget a piece that is over."""
        with self.lock:
            if self._runs.get(run.key) is run:
                del self._runs[run.key]

    def stop(self, session: str, numbers: Iterable[int], reason: str) -> list[int]:
        """Have pieces stop, and return those that run; others will not begin here."""
        now = time.monotonic()
        found = []
        with self.lock:
            for number in numbers:
                key = session, number
                if key in self._runs:
                    self._runs[key].flag(now, reason)
                    found.append(number)
                else:
                    self._stopped[key] = reason
            while len(self._stopped) > MAX_STOPPED:
                self._stopped.popitem(last=False)
            self._look_soon()
        return found

    def stop_worker(self, session: str, worker: str) -> None:
        """Have what an instance performs for a session stop."""
        with self.lock:
            for run in self._runs.values():
                if run.key[0] == session and run.worker == worker:
                    run.flag(time.monotonic(), INTERRUPT)
            self._look_soon()

    def make_way(self, place: str, key: str) -> None:
        """Have a batch piece at a place make way for a task, unless one does."""
        with self.lock:
            runs = [r for r in self._runs.values() if r.worker.startswith(place)]
            if any(run.way_for == key for run in runs):
                return
            for run in runs:
                if not (run.is_urgent or run.reason or run.way_for):
                    run.way_for = key
                    return

    def stop_session(self, session: str, reason: str) -> None:
        """Have all that runs for a session stop."""
        with self.lock:
            numbers = [number for owner, number in self._runs if owner == session]
            self.stop(session, numbers, reason)

    def _look_soon(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._look, name="opencluster-watch", daemon=True
            )
            self._thread.start()
        self._changed.notify_all()

    def _look(self) -> None:
        with self.lock:
            while True:
                now = time.monotonic()
                due = [run.look(now) for run in list(self._runs.values())]
                at = min((at for at in due if at is not None), default=None)
                self._changed.wait(None if at is None else max(0.0, at - now))


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in a thread, or take back one that is on its way."""
    wanted = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), wanted)


_watch = _Watch()
begin, end = _watch.begin, _watch.end


def stop(session: str, numbers: Iterable[int], reason: str) -> list[int]:
    """Have pieces stop, and return those that run; others will not begin here.

    Parameters
    ----------
    session : str
        Whose pieces they are.
    numbers : iterable of int
        Which.
    reason : str
        Why, as the inbox of a worker has it.
    """
    return _watch.stop(session, numbers, reason)


def stop_worker(session: str, worker: str) -> None:
    """Have what an instance performs for a session stop."""
    _watch.stop_worker(session, worker)


WAITING = ("ready", "constrained")
BEGUN = ("executing", "long-running", "memory", "error")
"""States of a task on a Dask worker, as Dask calls them."""


def make_way(type: str, keys: Sequence[str], dask_worker: Any) -> list[str]:
    """Have a batch piece stop for each task that waits on this Dask worker.

    It stops at its next call of `Worker.progress`, and is performed again.

    Parameters
    ----------
    type : str
        The type of all of them.
    keys : sequence of str
        The tasks of real-time pieces.
    dask_worker : distributed.Worker
        Where this runs.

    Returns
    -------
    list of str
        Those of the tasks that were begun here.
    """
    place = dask_worker.address.rpartition("//")[2]
    begun = []
    for key in keys:
        task = dask_worker.state.tasks.get(key)
        if task is not None and task.state in WAITING:
            _watch.make_way(f"{type}@{place}.", key)
        elif task is not None and task.state in BEGUN:
            begun.append(key)
    return begun


def stop_session(session: str, reason: str) -> None:
    """Have all that runs for a session stop."""
    _watch.stop_session(session, reason)
