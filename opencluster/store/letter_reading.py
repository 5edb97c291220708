"""What a workshop answers about the dead letters of its computer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opencluster.errors import RequestRefused
from opencluster.store.dead_letters import DeadLetters, check_id

ROW_BYTES = 2048
"""About what a row of a list takes at most."""


def letters(
    kept: DeadLetters, arguments: Mapping[str, Any], max_bytes: int
) -> dict[str, Any]:
    """Return all letters without their work, or one with all evidence.

    Parameters
    ----------
    kept : DeadLetters
        The letters.
    arguments : mapping
        ``id`` for one.
    max_bytes : int
        Size of an answer; of more letters than that the newest are told.
    """
    if "id" in arguments:
        return {"letters": [kept.head(check_id(arguments["id"]))]}
    return {"letters": kept.rows()[: max(1, max_bytes // ROW_BYTES)]}


def work(kept: DeadLetters, arguments: Mapping[str, Any], max_bytes: int) -> bytes:
    """Return a part of the work of a letter, from ``offset`` on."""
    offset, length = arguments["offset"], arguments["length"]
    if type(offset) is not int or type(length) is not int:
        raise RequestRefused("a part of a letter is told by two integers")
    return kept.work(check_id(arguments["id"]), offset, min(length, max_bytes))


def delete(kept: DeadLetters, arguments: Mapping[str, Any]) -> None:
    """Remove a letter."""
    kept.delete(check_id(arguments["id"]))
