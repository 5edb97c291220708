"""What a manager is told of a piece: a status, and a result or failure, encoded.

Must not know how a piece is performed, nor where: whatever performs pieces tells of
them in these words.
"""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

from opencluster.core.inbox import INTERRUPT, TIME_LIMIT
from opencluster.inputs import Escaped
from opencluster.node.scoreboard import LastError
from opencluster.references import DataRef
from opencluster.wire import codec
from opencluster.wire.batches import check_size
from opencluster.workpiece import WorkPiece

ERRORS = ("failed", "timeout")
"""How pieces end that the scoreboard keeps for people to look at."""
PROGRESS_INTERVAL_S = 0.2
"""Progress is reported to the manager at most this often."""
_OWN_FOLDERS = {
    Path(__file__).parents[1] / name
    for name in ("", "engines", "engines/dask", "serving", "wire")
}
"""Whose frames at the head of a traceback say nothing to users."""


class PieceInterrupt(BaseException):
    """Raised inside ``perform()`` when its piece is interrupted or out of time.

    It is no `Exception`, so that ``except Exception`` does not swallow it.
    """


def status_of(reason: str) -> str:
    """Return the status of a piece that was stopped for a reason."""
    return {TIME_LIMIT: "timeout", INTERRUPT: "interrupted"}.get(reason, reason)


def checked(result: Any) -> WorkPiece:
    """Return the result of ``perform()`` if it is one."""
    if not isinstance(result, WorkPiece):
        raise TypeError(
            f"perform() must return a WorkPiece, not {type(result).__name__}; "
            "write `return WorkPiece(name=value)`"
        )
    return result


def encoded(
    status: str, value: Any, max_bytes: int, escaped: Escaped | None = None
) -> tuple[bytes, list[Any], str]:
    """Encode an outcome; one that cannot be sent becomes the failure that says so."""
    refs: list[DataRef] = []
    try:
        payload, buffers = codec.encode(value, "result", refs)
        if buffers or len(payload) > codec.SMALL_BYTES:
            check_size(payload, buffers, max_bytes)
        if refs and escaped is not None:
            escaped.note(refs)
    except Exception as error:
        payload, buffers = codec.encode(failure_of(error))
        status = "failed"
    return payload, buffers, status


def failure_of(error: BaseException) -> dict[str, str]:
    """Describe an exception for the manager, with its traceback below our frames."""
    try:
        message = str(error)
    except Exception as worse:
        message = f"(its text cannot be had: {type(worse).__name__})"
    if isinstance(error, SystemExit):
        message = f"the code called exit: {message}"
    trace = error.__traceback__
    while (
        trace is not None
        and trace.tb_next is not None
        and Path(trace.tb_frame.f_code.co_filename).parent in _OWN_FOLDERS
    ):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace, limit=-50)
    return {
        "type": type(error).__name__,
        "message": message,
        "traceback": "".join(lines)[-20_000:].encode(errors="replace").decode(),
    }


def last_error(piece: str, payload: bytes) -> LastError:
    """Return what is shown of a piece that failed, from its encoded outcome."""
    failure = codec.decode(payload, ())
    told = (failure["type"], failure["message"], failure["traceback"])
    return LastError(time.time(), piece, *told)
