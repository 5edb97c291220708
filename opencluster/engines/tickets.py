"""What an engine keeps of a piece besides what its dispatcher knows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core.pieces import Piece
from opencluster.engines.base import Done, Job, Options, Outcome
from opencluster.errors import PieceCancelled, RemoteProtocolError
from opencluster.references import DataRef
from opencluster.wire import codec

SMALL_BYTES = 1024
"""Most that a piece in a bundle takes besides its arrays."""
BUNDLE_BYTES = 1 << 20
"""Most that the pieces of a bundle take together: they are sent when all of them are
copied, and while one of them is at work nobody else can have the others."""


@dataclass(slots=True)
class Ticket:
    """What the shell keeps of a piece: its data, and whom to tell."""

    payload: bytes
    buffers: Sequence[Any]
    nbytes: int
    options: Options
    done: Done
    job: Job | None
    refs: tuple[DataRef, ...] = ()
    span: Any = None

    @property
    def is_small(self) -> bool:
        """Whether it may travel in a bundle, if that has room.

        What has values may not, nor what is traced by itself.
        """
        is_plain = not self.refs and self.span is None
        return is_plain and len(self.payload) <= SMALL_BYTES


class Numbers:
    """The numbers of pieces, of values and of orders about these; for any thread."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> list[int]:
        """Return so many numbers that follow each other and that nothing else has."""
        with self._lock:
            first = self._last + 1
            self._last += count
        return list(range(first, first + count))

    def next(self) -> int:
        """Return one that nothing else has."""
        return self.take(1)[0]


def piece_of(number: int, type: str, options: Options, job: Job | None = None) -> Piece:
    """Return a piece as the dispatcher sees it.

    Its priority is that of its job, if somebody ordered one.
    """
    ordered = job.priority if job is not None else None
    return Piece(
        number,
        type,
        options.priority if ordered is None else ordered,
        options.timeout_s,
        options.retries,
        options.error_retries,
        options.worker,
        wait_s=options.deadline_s,
        max_kills=options.max_kills,
    )


def closed(cause: BaseException | None) -> Outcome:
    """Return what becomes of pieces when their engine is closed."""
    error = PieceCancelled("the engine was closed before a result came")
    error.__cause__ = cause
    return Outcome(error=error)


def failure_in(outcome: Outcome) -> Mapping[str, Any]:
    """Return what a worker says about a failure, whatever it sent."""
    with contextlib.suppress(RemoteProtocolError):
        failure = codec.decode(outcome.payload, outcome.buffers)
        if isinstance(failure, Mapping):
            return failure
    return {"message": "the worker sent a failure that cannot be read"}
