"""One run of many pieces through an engine: bounded, ordered, with a progress bar.

A mapping reads its pieces as results are taken, so that neither pieces nor results
pile up: what was submitted and not yet taken is limited in number and in bytes.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from opencluster.engines.base import Engine, Job, Options, Outcome
from opencluster.errors import WorkError
from opencluster.workpiece import WorkPiece

BATCH = 64
"""Pieces handed to the engine at a time, when there is room for them."""
BATCH_S = 0.005
"""A batch from a slow source is handed over after this long, however small it is."""
FEELERS = 16
"""Pieces under way, or two for each worker, before the size of a result is known."""
LOOK_S = 0.2
"""How often a look is taken for new workers while that is so."""
SMOOTHING = 0.2
"""Weight of the newest result in the running mean of their sizes."""


class Completed(NamedTuple):
    """A result that is there.

    Attributes
    ----------
    number : int
        The place of its piece among the pieces, from 0.
    piece : WorkPiece
        The piece.
    result : WorkPiece
        What the worker returned; the `WorkError` when errors are returned.
    """

    number: int
    piece: WorkPiece
    result: WorkPiece


class _Bar(Protocol):
    def advance(self) -> None: ...


@dataclass(slots=True)
class _Flight:
    number: int
    piece: WorkPiece
    nbytes: int
    outcome: Outcome | None = None


class Flow:
    """A run of pieces.

    Parameters
    ----------
    engine : Engine
        What performs them.
    type : str
        Worker type.
    pieces : iterable of WorkPiece
        What to perform.
    options : Options
        How each is to be run.
    job : Job
        Whose pieces they are.
    window, buffer_bytes : int
        Most pieces, and most bytes of pieces and results, between submission and
        taking.
    progress : str
        ``auto``, ``always`` or ``never``.
    return_errors : bool
        Yield errors instead of raising the first.
    """

    def __init__(
        self,
        engine: Engine,
        type: str,
        pieces: Iterable[WorkPiece],
        options: Options,
        job: Job,
        window: int,
        buffer_bytes: int,
        progress: str,
        return_errors: bool,
    ) -> None:
        self._engine = engine
        self._type = type
        self._total = len(pieces) if isinstance(pieces, Sized) else None
        self._pieces = iter(pieces)
        self._options = options
        self._job = job
        self._window = 1 if engine.is_immediate else window
        self._buffer_bytes = buffer_bytes
        self._progress = progress
        self._return_errors = return_errors
        self._done: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        self._flying: dict[int, _Flight] = {}
        self._nbytes = 0
        self._result_nbytes: float | None = None
        self._count = 0
        self._is_exhausted = False

    def run(self, ordered: bool) -> Iterator[Completed]:
        """Yield the results; what is unfinished when the loop is left is cancelled."""
        try:
            with self._bar() as bar:
                taken = self._in_order() if ordered else self._as_done()
                for flight in taken:
                    bar.advance()
                    yield Completed(flight.number, flight.piece, self._value(flight))
        finally:
            if self._flying:
                self._engine.cancel(list(self._flying))

    # --- inside --------------------------------------------------------------

    def _as_done(self) -> Iterator[_Flight]:
        while self._refill():
            done = self._wait()
            if done is not None:
                flight = self._next_done(done)
                self._nbytes -= flight.nbytes
                yield flight

    def _in_order(self) -> Iterator[_Flight]:
        waiting: deque[_Flight] = deque()
        while self._refill(waiting) or waiting:
            while waiting[0].outcome is None:
                done = self._wait()
                if done is not None:
                    self._next_done(done)
                else:
                    self._refill(waiting)
            flight = waiting.popleft()
            self._nbytes -= flight.nbytes
            yield flight

    def _wait(self) -> tuple[int, Outcome] | None:
        """Wait for a result.

        Before the first one, ``None`` says now and then that none has come: there may
        be new workers to get pieces by then.
        """
        if self._result_nbytes is not None or self._is_exhausted:
            return self._done.get()
        try:
            return self._done.get(timeout=LOOK_S)
        except Empty:
            return None

    def _next_done(self, done: tuple[int, Outcome]) -> _Flight:
        number, outcome = done
        flight = self._flying.pop(number)
        mean = outcome.nbytes if self._result_nbytes is None else self._result_nbytes
        self._result_nbytes = mean + SMOOTHING * (outcome.nbytes - mean)
        flight.outcome = outcome
        flight.nbytes += outcome.nbytes
        self._nbytes += outcome.nbytes
        return flight

    def _refill(self, waiting: deque[_Flight] | None = None) -> bool:
        """Submit what there is room for; ``False`` when nothing is under way.

        Filling a large window from a slow source must not delay the results that are
        there, so no more than a batch is read while one is ready to be yielded.
        """
        held = len(self._flying) if waiting is None else len(waiting)
        while not self._is_exhausted and self._has_room(held, len(self._flying)):
            batch = self._next_batch(held)
            if not batch:
                break
            self._submit(batch)
            held += len(batch)
            if waiting is not None:
                waiting.extend(batch)
            if self._is_ready(waiting):
                break
        return bool(self._flying)

    def _is_ready(self, waiting: deque[_Flight] | None) -> bool:
        """Return whether the next result to be yielded is there."""
        if waiting is None:
            return not self._done.empty()
        while waiting[0].outcome is None and not self._done.empty():
            self._next_done(self._done.get())
        return waiting[0].outcome is not None

    def _next_batch(self, held: int) -> list[_Flight]:
        """Read pieces for which there is room, fewer when they come slowly."""
        batch: list[_Flight] = []
        until = time.monotonic() + BATCH_S
        for piece in self._pieces:
            flight = _Flight(self._count, piece, checked_piece(piece).nbytes)
            batch.append(flight)
            self._nbytes += flight.nbytes
            self._count += 1
            under_way = len(self._flying) + len(batch)
            has_room = self._has_room(held + len(batch), under_way)
            if len(batch) == BATCH or not has_room or time.monotonic() > until:
                break
        else:
            self._is_exhausted = True
        return batch

    def _has_room(self, held: int, under_way: int) -> bool:
        """Return whether one more may be submitted, besides so many."""
        if held == 0:
            return True
        if self._result_nbytes is None:
            workers = self._engine.types().get(self._type, 0)
            room, expected = max(FEELERS, 2 * workers) - under_way, 0.0
        else:
            # what is under way comes back, however slowly it is taken then
            room, expected = self._window - held, under_way * self._result_nbytes
        is_full = self._nbytes + expected >= self._buffer_bytes
        return room > 0 and held < self._window and not is_full

    def _submit(self, batch: list[_Flight]) -> None:
        rows = [(flight.piece, self._options) for flight in batch]
        numbers = self._engine.submit(self._type, rows, self._note_done, self._job)
        self._flying.update(zip(numbers, batch, strict=True))

    def _note_done(self, number: int, outcome: Outcome) -> None:
        self._done.put((number, outcome))

    def _value(self, flight: _Flight) -> Any:
        assert flight.outcome is not None
        try:
            return flight.outcome.value()
        except WorkError as error:
            if self._return_errors:
                return error
            raise

    def _bar(self) -> AbstractContextManager[_Bar]:
        is_watched = sys.stderr.isatty() and not self._engine.is_immediate
        if self._progress == "never" or (self._progress == "auto" and not is_watched):
            return nullcontext(_Hidden())
        from opencluster.progress import bar

        return bar(self._type, self._total)


def checked_piece(piece: Any) -> WorkPiece:
    """Return a piece if it is one.

    Raises
    ------
    TypeError
        When it is something else, with how to make one of it.
    """
    if not isinstance(piece, WorkPiece):
        raise TypeError(
            f"a piece must be a WorkPiece, not {type(piece).__name__}; "
            "write WorkPiece(name=value)"
        )
    return piece


class _Hidden:
    def advance(self) -> None:
        """Show nothing."""
