"""What becomes of a piece that ended every worker which took it: a dead letter.

For use while holding the reactor, which waits until the letter is on disk: so whoever
meets the error can rely on what it says.
"""

from __future__ import annotations

import getpass
import logging
import os
import time
from dataclasses import asdict
from typing import Any

from opencluster.config import Config
from opencluster.core.dispatch import Piece
from opencluster.engines.tickets import Ticket
from opencluster.errors import LetterError, PoisonPiece
from opencluster.node.host import host_name
from opencluster.place import Place
from opencluster.store.dead_letters import DeadLetters, new_id

log = logging.getLogger(__name__)

MAX_OUTPUT = 64 << 10
"""Characters of the last output of one worker."""
MAX_REFS = 20


class Quarantine:
    """Keeps pieces that nobody survives, with the evidence.

    Parameters
    ----------
    config : Config
        The settings: ``[manager] letters_kept`` and ``letters_bytes``.
    place : Place or None
        The cluster's directory; ``None`` keeps nothing.
    """

    def __init__(self, config: Config, place: Place | None) -> None:
        self._kept: DeadLetters | None = None
        if place is not None:
            most, nbytes = config.manager.letters_kept, config.manager.letters_bytes
            self._kept = DeadLetters(place.letters, most, nbytes)

    def keep(self, error: PoisonPiece, piece: Piece, ticket: Ticket) -> PoisonPiece:
        """Keep a piece, and return its error with the letter in it, or why none is."""
        id = new_id()
        try:
            if self._kept is None:
                raise LetterError("this program's own workers end with it")
            self._kept.write(
                id, _head(error, piece, ticket), ticket.payload, ticket.buffers
            )
        except LetterError as refusal:
            log.error("a quarantined piece is not kept: %s", refusal)
            message = f"{error}\nIt is not kept as a dead letter: {refusal}"
            return PoisonPiece(message, error.deaths, error.worker)
        message = (
            f"{error}\nIt is kept as dead letter {id}: `opencluster letters show {id}` "
            f"has the evidence, `opencluster letters put-back {id}` runs it again"
        )
        return PoisonPiece(message, error.deaths, error.worker, id)


def _head(error: PoisonPiece, piece: Piece, ticket: Ticket) -> dict[str, Any]:
    options, job = ticket.options, ticket.job
    deaths = [asdict(death) for death in error.deaths]
    for death in deaths:
        death["output"] = death["output"][-MAX_OUTPUT:]
    return {
        "at": time.time(),
        "type": piece.type,
        "number": piece.id,
        "job": {"id": job.id, "name": job.name} if job is not None else {},
        "host": host_name(),
        "user": _user(),
        "pid": os.getpid(),
        "options": {
            "priority": piece.priority,
            "timeout_s": options.timeout_s,
            "retries": options.retries,
            "error_retries": options.error_retries,
            "deadline_s": options.deadline_s,
        },
        "deaths": deaths,
        "message": str(error),
        "refs": [repr(ref) for ref in ticket.refs[:MAX_REFS]],
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
