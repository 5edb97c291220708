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
from typing import Any, NamedTuple, Protocol

from opencluster.engines.base import Engine, Job, Options, Outcome
from opencluster.errors import WorkError
from opencluster.stream import Stream
from opencluster.workpiece import WorkPiece

BATCH = 64
"""Pieces handed to the engine at a time, when there is room for them."""
BATCH_S = 0.005
"""A batch from a slow source is handed over after this long, however small it is."""
WINDOW = 1000
"""Pieces between submission and taking,"""
AHEAD = 32
"""or so many for each worker, where there are so many that this is more."""
AHEAD_BYTES = 16 << 20
"""Pieces under way for each worker, beyond two. With less, both sides sleep too often;
with more, the memory has left the processor's cache when it is used again."""
FEELERS = 16
"""Pieces under way, or two for each worker, before the size of a result is known."""
LOOK_S = 0.2
"""How often a look is taken for new workers."""
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
    piece: Any
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
        Most pieces (0 for `WINDOW`, or as many as many workers need), and most bytes
        of pieces and results, between submission and taking.
    progress : str
        ``auto``, ``always`` or ``never``.
    return_errors : bool
        Yield errors instead of raising the first.
    keeps_pieces : bool
        Yield pieces with their results. Else there is ``None`` for them: they are
        dropped when they were submitted, so that their memory serves for the next.
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
        keeps_pieces: bool = True,
    ) -> None:
        self._engine = engine
        self._type = type
        self._total = len(pieces) if isinstance(pieces, Sized) else None
        self._pieces = iter(pieces)
        self._options = options
        self._job = job
        self._window = 1 if engine.is_immediate else window or WINDOW
        self._may_widen = not (window or engine.is_immediate)
        self._buffer_bytes = buffer_bytes
        self._progress = progress
        self._return_errors = return_errors
        self._keeps_pieces = keeps_pieces
        self._done: deque[tuple[int, Outcome]] = deque()
        self._flying: dict[int, _Flight] = {}
        self._order: deque[_Flight] | None = None
        self._nbytes = 0
        self._result_nbytes: float | None = None
        self._piece_nbytes = 0.0
        self._count = 0
        self._worker_count = 0
        self._count_again_at = 0.0
        self._is_exhausted = False
        # of what comes by itself no more is read than is there, so that nobody waits
        # for the next piece while there are results
        self._stream: Stream | None = None
        if isinstance(self._pieces, Stream) and not engine.is_immediate:
            self._stream = self._pieces
            self._stream.when_ready(engine.nudge)

    def run(self, ordered: bool) -> Iterator[Completed]:
        """Yield the results; what is unfinished when the loop is left is cancelled."""
        self._order = deque() if ordered else None
        self._note_coming()
        try:
            with self._bar() as bar:
                for flight in self._landed():
                    bar.advance()
                    yield Completed(flight.number, flight.piece, self._value(flight))
        finally:
            if self._flying:
                self._engine.cancel(list(self._flying))
            self._job.coming.pop(id(self), None)
            if self._stream is not None:
                self._stream.close()

    # --- inside --------------------------------------------------------------

    def _landed(self) -> Iterator[_Flight]:
        while self._refill() or self._is_due():
            if self._is_due():
                yield from self._due()
                continue
            # before the first result is there, new workers may have come meanwhile
            is_feeling = self._result_nbytes is None and not self._is_exhausted
            self._engine.wait(self._is_moving, LOOK_S if is_feeling else None)

    def _due(self) -> Iterator[_Flight]:
        """Yield what is there; one only, if so few are held that more must be read."""
        for _ in range(BATCH):
            flight = self._land() if self._order is None else self._order.popleft()
            self._nbytes -= flight.nbytes
            yield flight
            if self._held < 2 * BATCH or not self._is_due():
                break

    def _is_due(self) -> bool:
        """Return whether the next result to be yielded is there."""
        if self._order is None:
            return bool(self._done)
        while self._done:
            self._land()
        return bool(self._order) and self._order[0].outcome is not None

    def _is_moving(self) -> bool:
        """Return whether results came, or pieces of a stream that there is room for."""
        if self._done or self._stream is None or self._is_exhausted:
            return bool(self._done)
        return self._stream.is_ready and self._room() > 0

    def _land(self) -> _Flight:
        number, outcome = self._done.popleft()
        flight = self._flying.pop(number)
        nbytes = outcome.nbytes
        mean = self._result_nbytes
        if mean is None:
            self._result_nbytes = nbytes
            self._widen()
        else:
            self._result_nbytes = mean + SMOOTHING * (nbytes - mean)
        flight.outcome = outcome
        flight.nbytes += nbytes
        self._nbytes += nbytes
        return flight

    def _widen(self) -> None:
        """Keep more under way for many workers, unless the number is set."""
        if self._may_widen:
            self._window = max(self._window, AHEAD * self._workers())

    def _refill(self) -> bool:
        """Submit what there is room for; ``False`` when nothing is left to wait for.

        Filling a large window from a slow source must not delay the results that are
        there, so no more than a batch is read while one is ready to be yielded.
        """
        while not self._is_exhausted and (room := self._room()) > 0:
            batch = self._next_batch(min(room, BATCH))
            if batch:
                self._submit(batch)
            if not batch or self._is_due():
                break
        return bool(self._flying) or not self._is_exhausted

    def _next_batch(self, most: int) -> list[_Flight]:
        """Read pieces for which there is room, fewer when they come slowly."""
        batch: list[_Flight] = []
        if self._stream is not None and not self._stream.is_ready:
            return batch
        until = time.monotonic() + BATCH_S
        left_bytes = AHEAD_BYTES * max(1, self._workers())
        for piece in self._pieces:
            nbytes = checked_piece(piece).nbytes
            batch.append(_Flight(self._count, piece, nbytes))
            weight = SMOOTHING if self._count else 1.0
            self._piece_nbytes += weight * (nbytes - self._piece_nbytes)
            self._nbytes += nbytes
            self._count += 1
            left_bytes -= nbytes
            is_enough = len(batch) == most or self._is_full(len(batch))
            if is_enough or left_bytes <= 0 or time.monotonic() > until:
                break
            if self._stream is not None and not self._stream.is_ready:
                break
        else:
            self._is_exhausted = True
        self._note_coming()
        return batch

    def _note_coming(self) -> None:
        """Tell how many pieces are yet to be read, where that is known."""
        if self._total is not None:
            left = max(0, self._total - self._count)
            self._job.coming[id(self)] = (self._type, left)

    def _room(self) -> int:
        """Return how many pieces more are to be submitted, one at least if none are.

        When enough are under way, that is none until there is room for many.
        """
        held = self._held
        if held and self._is_full(0):
            return 0
        most = self._most_flying()
        if self._result_nbytes is None:
            feelers = min(max(FEELERS, 2 * self._workers()), most)
            return min(feelers - len(self._flying), self._window - held)
        room = min(self._window - held, most - len(self._flying))
        return room if room >= min(BATCH, most // 2) else 0

    def _most_flying(self) -> int:
        """Return how many pieces may be under way."""
        if self._piece_nbytes * self._window <= AHEAD_BYTES:
            return self._window
        most = max(2.0, AHEAD_BYTES / self._piece_nbytes) * max(1, self._workers())
        return min(self._window, int(most))

    def _workers(self) -> int:
        """Return how many workers there are, or were a moment ago."""
        now = time.monotonic()
        if now >= self._count_again_at:
            self._count_again_at = now + LOOK_S
            self._worker_count = self._engine.types().get(self._type, 0)
        return self._worker_count

    @property
    def _held(self) -> int:
        """How many pieces were submitted, and their results not taken."""
        return len(self._flying if self._order is None else self._order)

    def _is_full(self, more: int) -> bool:
        """Return whether so many bytes are held, or will be, that it is enough."""
        # what is under way comes back, however slowly it is taken then
        expected = (len(self._flying) + more) * (self._result_nbytes or 0.0)
        return self._nbytes + expected >= self._buffer_bytes

    def _submit(self, batch: list[_Flight]) -> None:
        rows = [(flight.piece, self._options) for flight in batch]
        numbers = self._engine.submit(self._type, rows, self._note_done, self._job)
        self._flying.update(zip(numbers, batch, strict=True))
        if not self._keeps_pieces:
            for flight in batch:
                flight.piece = None
        if self._order is not None:
            self._order.extend(batch)

    def _note_done(self, number: int, outcome: Outcome) -> None:
        self._done.append((number, outcome))

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

        return bar(self._type, self._total, self._engine.moved)


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
