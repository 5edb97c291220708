"""What happens in a world, written for people: a line an event, short names for all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from opencluster.core.dispatch import Piece
from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import Epoch

if TYPE_CHECKING:
    from opencluster.testing.virtual import VirtualLoop

MAX_LINES = 100_000
RUN_DIGITS = 3
"""Of the number of a run, so many digits tell it apart well enough."""


class Trace:
    """The lines, the oldest first.

    Parameters
    ----------
    loop : VirtualLoop
        Whose time is written before each.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self._loop = loop

    def write(self, who: str, what: str, details: tuple[Any, ...]) -> None:
        """Add a line."""
        text = what % tuple(map(brief, details)) if details else what
        self.lines.append(f"{self._loop.now:8.3f} {who:<9} {text}")


def brief(value: Any) -> Any:
    """Return what stands for a value in a trace; numbers as they are."""
    match value:
        case Epoch(number, place, run):
            return f"{number}.{place}.{run % 16**RUN_DIGITS:0{RUN_DIGITS}x}"
        case bool():
            return "yes" if value else "no"
        case int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Entry():
            return value.id
        case Delta():
            change = f"has {value.id}"
            if value.entry is None:
                reason = (value.cause or {}).get("reason", "it left")
                change = f"has no {value.id} ({reason})"
            return f"revision {value.revision} {change}"
        case Piece():
            return f"piece {value.id}"
        case Enum():
            return value.value
        case Mapping():
            return _brief_mapping(value)
        case list() | tuple():
            return f"[{' '.join(str(brief(part)) for part in value)}]"
        case _ if is_dataclass(value):
            parts = (f"{f.name}={brief(getattr(value, f.name))}" for f in fields(value))
            return f"{type(value).__name__.lower()} {' '.join(parts)}"
        case _:
            return str(value)


def _brief_mapping(value: Mapping[str, Any]) -> str:
    if "entries" in value:
        ids = [entry["id"] for entry in value["entries"]]
        return f"revision {value['revision']} of {brief(ids)}"
    return f"{{{' '.join(f'{name}={brief(part)}' for name, part in value.items())}}}"
