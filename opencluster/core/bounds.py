"""How large what others tell about themselves may be: texts, levels and bytes.

What a factory takes in it keeps, copies to other factories and sends to everyone who
follows it, so that one entry without bounds would be a burden to all. Owns the check
of values that came in a message; must not know what they mean.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from opencluster.errors import RegistryError

MAX_LEVELS = 16
"""Containers inside each other, with room for our own ones. Far less than a message
may have, as what is kept travels on inside other messages."""

_SCALARS = frozenset({type(None), bool, int, float})
_SCALAR_BYTES = 9
_HEADER_BYTES = 5
_WIDE_BYTES = 4
"""Most that a character takes."""


class Bounds(NamedTuple):
    """What is taken of one entry, one set of figures or one report.

    Attributes
    ----------
    max_text : int
        Characters of a text such as a name or an endpoint.
    max_bytes : int
        Size of all of it, as it would travel, in bytes; text that is not ASCII counts
        as if it took the most that it can.
    """

    max_text: int = 4096
    max_bytes: int = 256 << 10

    def is_text(self, value: Any) -> bool:
        """Return whether a value is text that is not too long, and valid Unicode."""
        if not isinstance(value, str) or len(value) > self.max_text:
            return False
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True

    def check(self, what: str, value: Any) -> None:
        """Refuse a value that is too large, too deep or not plain.

        Parameters
        ----------
        what : str
            What the message calls it.
        value : object
            What came.

        Raises
        ------
        RegistryError
            The message names the setting to raise.
        """
        room = self.max_bytes
        level = [value]
        for _ in range(MAX_LEVELS + 1):
            deeper: list[Any] = []
            for item in level:
                kind = type(item)
                if kind in _SCALARS:
                    room -= _SCALAR_BYTES
                elif kind is str:
                    room -= _HEADER_BYTES + _width(item)
                elif kind is dict:
                    room -= _HEADER_BYTES * (1 + len(item)) + _width(_keys(what, item))
                    deeper.extend(item.values())
                elif kind is list or kind is tuple:
                    room -= _HEADER_BYTES + len(item)
                    deeper.extend(item)
                elif kind is bytes:
                    room -= _HEADER_BYTES + len(item)
                else:
                    raise RegistryError(
                        f"{what} holds a {kind.__name__}, and only plain values are "
                        "taken: None, numbers, text, bytes, lists and mappings"
                    )
            if room < 0:
                raise RegistryError(
                    f"{what} is larger than {self.max_bytes} bytes; say less, or "
                    "raise [limits] max_entry_bytes"
                )
            if not deeper:
                return
            level = deeper
        raise RegistryError(f"{what} is nested deeper than {MAX_LEVELS} levels")


def _width(text: str) -> int:
    return len(text) if text.isascii() else _WIDE_BYTES * len(text)


def _keys(what: str, mapping: dict[Any, Any]) -> str:
    try:
        return "".join(mapping)
    except TypeError:
        raise RegistryError(f"{what} has keys that are no text") from None


UNBOUNDED = Bounds(1 << 62, 1 << 62)
"""For what a factory passes on, which it has checked by its own settings."""
