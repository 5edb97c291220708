"""The error that a manager sees for each way in which a piece can end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opencluster.core.dispatch import Piece, Verdict
from opencluster.errors import (
    Interrupted,
    NoSuitableWorker,
    PieceCancelled,
    PieceFailed,
    PieceTimeout,
    PoisonPiece,
    WorkerDied,
    WorkError,
    indent,
)


def error_for(
    piece: Piece,
    verdict: Verdict,
    detail: str,
    failure: Mapping[str, Any] | None,
    worker: str,
    types: Mapping[str, int],
) -> WorkError:
    """Return what to raise for a piece that ended without a result.

    Parameters
    ----------
    piece : Piece
        The piece, with the deaths that it caused.
    verdict : Verdict
        How it ended.
    detail : str
        What the dispatcher adds.
    failure : mapping or None
        What the worker sent: type, message and traceback of an exception.
    worker : str
        Name of the worker that had it last.
    types : mapping of str to int
        Worker types that are here, for a message that helps.
    """
    match verdict:
        case Verdict.FAILED:
            return failed(failure or {}, worker)
        case Verdict.TIMED_OUT:
            limit = f"{piece.timeout_s:g} s"
            return PieceTimeout(
                f"the piece ran longer than its time limit of {limit} on {worker}; "
                "give it a longer timeout_s, or cut the task into smaller pieces"
            )
        case Verdict.INTERRUPTED:
            return Interrupted(f"the piece was interrupted on {worker}")
        case Verdict.CANCELLED:
            return PieceCancelled("the piece was withdrawn before a result came")
        case Verdict.NO_WORKER:
            return no_worker(piece.type, detail, types)
        case Verdict.POISONED:
            return _poisoned(piece, worker)
        case _:
            return _died(piece, worker)


def failed(failure: Mapping[str, Any], worker: str) -> PieceFailed:
    """Return the error for an exception that was raised in a worker or service."""
    return PieceFailed(
        str(failure.get("message", "")),
        exception_type=str(failure.get("type", "")),
        remote_traceback=str(failure.get("traceback", "")),
        worker=worker,
    )


def no_worker(type: str, detail: str, types: Mapping[str, int]) -> NoSuitableWorker:
    """Return the error for a type that nobody performs."""
    here = ", ".join(f"{name} ({count})" for name, count in sorted(types.items()))
    message = f"no worker of type {type!r} is here; there are: {here or 'none at all'}"
    if detail:
        return NoSuitableWorker(f"{message}. Its workers fail to start:\n{detail}")
    return NoSuitableWorker(
        f"{message}. Start one with `opencluster worker MODULE:CLASS --type {type}`, "
        "or wait longer with [manager] worker_wait_s"
    )


def _poisoned(piece: Piece, worker: str) -> PoisonPiece:
    count = len(piece.deaths)
    last = piece.deaths[-1].describe()
    return PoisonPiece(
        f"the piece ended {count} workers of type {piece.type!r} and is quarantined; "
        f"it will not be run again. The last end:\n{indent(last)}",
        piece.deaths,
        worker,
    )


def _died(piece: Piece, worker: str) -> WorkerDied:
    evidence = piece.deaths[-1]
    times = "once" if piece.losses == 1 else f"{piece.losses} times"
    return WorkerDied(
        f"{worker or 'a worker'} was lost with the piece ({times}, "
        f"{piece.retries} retries allowed):\n{indent(evidence.describe())}",
        evidence,
        worker,
    )
