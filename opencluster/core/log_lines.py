"""Lines of logs: how ours are written, read again, and looked for.

A line begins with the time in UTC, the level, who says it, and, in a worker that is at
it, the piece in brackets::

    2026-11-30T02:10:41.123Z WARNING observatory.clean [1f2e3d4c:17] no beam

What follows of the same message stands on further lines that begin with four blanks.
Every other line was printed by something that knows nothing of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
INDENT = "    "
"""What the further lines of a message begin with."""
PRINTED = "INFO"
"""The level that a line counts for which was only printed."""

_HEAD = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) "
    r"(?P<level>[A-Z]+) (?P<name>\S+)(?: \[(?P<piece>[0-9a-f]+:[\d+]+)\])? "
)


class Head(NamedTuple):
    """What the first line of a message says of it.

    Attributes
    ----------
    time : str
        UTC in ISO 8601, which sorts as it is.
    level : str
        Of `LEVELS`.
    name : str
        Who says it.
    piece : str
        The piece that was at work, or empty.
    """

    time: str
    level: str
    name: str
    piece: str


def head_of(line: str) -> Head | None:
    """Return what the beginning of a line says, or ``None`` if it was only printed."""
    found = _HEAD.match(line)
    if found is None or found["level"] not in LEVELS:
        return None
    return Head(found["time"], found["level"], found["name"], found["piece"] or "")


def written(time: str, level: str, name: str, piece: str, message: str) -> str:
    """Return a message as it is logged."""
    where = f" [{piece}]" if piece else ""
    text = message.replace("\n", f"\n{INDENT}")
    return f"{time} {level} {name}{where} {text}"


@dataclass(frozen=True)
class Wanted:
    """Which messages somebody looks for.

    Attributes
    ----------
    level : str
        The least important one.
    text : str
        What the message holds, large and small letters alike.
    piece : str
        How the name of the piece begins.
    since : str
        UTC from which on; what was printed counts for the time of the message before.
    until : str
        UTC before which; then what was printed before any message is left out.
    """

    level: str = LEVELS[0]
    text: str = ""
    piece: str = ""
    since: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"{self.level!r} is none of {', '.join(LEVELS)}")


@dataclass
class Sieve:
    """Lets through the messages that are wanted; for one log, in its order.

    Parameters
    ----------
    wanted : Wanted
        Which these are.
    """

    wanted: Wanted
    _time: str = field(default="", init=False)

    def through(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the lines of messages that are wanted, each message whole or not."""
        for message in messages(lines):
            if self._is_wanted(message):
                yield from message

    def _is_wanted(self, message: Sequence[str]) -> bool:
        wanted, head = self.wanted, head_of(message[0])
        level, piece = PRINTED, ""
        if head is not None:
            self._time, level, piece = head.time, head.level, head.piece
        text = wanted.text.casefold()
        return (
            LEVELS.index(level) >= LEVELS.index(wanted.level)
            and piece.startswith(wanted.piece)
            and self._time >= wanted.since
            and (not wanted.until or "" < self._time < wanted.until)
            and any(text in line.casefold() for line in message)
        )


def messages(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of each message together."""
    message: list[str] = []
    for line in lines:
        if message and not line.startswith(INDENT):
            yield message
            message = []
        message.append(line)
    if message:
        yield message
