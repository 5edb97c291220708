"""The error that a manager sees for each way in which a piece can end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from opencluster.service import SERVICE_PREFIX

UNREACHED_TOLD = 3
"""Workers of which an error says why they are not reached."""


def error_for(
    piece: Piece,
    verdict: Verdict,
    detail: str,
    failure: Mapping[str, Any] | None,
    worker: str,
    types: Mapping[str, int],
    unreached: Sequence[str] = (),
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
    unreached : sequence of str
        Why those of the type are not reached that stand in the registry.
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
            return no_worker(piece.type, detail, types, unreached)
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


def no_worker(
    type: str, detail: str, types: Mapping[str, int], unreached: Sequence[str] = ()
) -> NoSuitableWorker:
    """Return the error for a type that nobody performs.

    Parameters
    ----------
    type : str
        The type.
    detail : str
        Why workers of it do not start, if they do not.
    types : mapping of str to int
        Worker types that are here.
    unreached : sequence of str
        Why those are not reached that stand in the registry.
    """
    is_service = type.startswith(SERVICE_PREFIX)
    name = type.removeprefix(SERVICE_PREFIX)
    message = f"no {wanted(type)} is here; there are: {alike(type, types)}"
    if unreached:
        message += f". Not reached, of those in the registry: {len(unreached)}"
        message += "".join(f"\n{indent(text)}" for text in unreached[:UNREACHED_TOLD])
    if detail:
        message += "\n" if unreached else ". "
        return NoSuitableWorker(f"{message}What should be fails to start:\n{detail}")
    if unreached:
        return NoSuitableWorker(message)
    command = f"worker MODULE:CLASS --type {name}"
    if is_service:
        command = f"service MODULE:CLASS --name {name}"
    return NoSuitableWorker(
        f"{message}. Start one with `opencluster {command}`, or wait longer with "
        "[manager] worker_wait_s"
    )


def wanted(type: str) -> str:
    """Return in words what pieces of a type are performed by."""
    if type.startswith(SERVICE_PREFIX):
        return f"service {type.removeprefix(SERVICE_PREFIX)!r}"
    return f"worker of type {type!r}" if type else "worker of any type"


def alike(type: str, types: Mapping[str, int]) -> str:
    """Return which worker types there are, or which services, with how many of each."""
    is_service = type.startswith(SERVICE_PREFIX)
    listed = [
        f"{name.removeprefix(SERVICE_PREFIX)} ({count})"
        for name, count in sorted(types.items())
        if name.startswith(SERVICE_PREFIX) == is_service
    ]
    return ", ".join(listed) or "none at all"


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
