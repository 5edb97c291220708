"""How pieces are called on scoreboards, in logs and in what is said of the dead.

The name of a piece is the identity of its manager in hexadecimal, a colon, and its
number there. Of a piece in a bundle the number of the bundle stands there, a plus sign,
and its place in the bundle: ``1f2e3d4c:17+3`` is the piece with the number 20.
"""

from __future__ import annotations

IN_BUNDLE = "+"
"""What the name of a bundle ends with; the place follows."""
MOST_DIGITS = 20
"""Digits of a number; more are none of ours."""


def piece_name(manager: bytes, piece: int, is_bundle: bool = False) -> str:
    """Return the name of a piece, or how those of the pieces of a bundle begin."""
    return f"{manager[1:5].hex()}:{piece}{IN_BUNDLE if is_bundle else ''}"


def number_in(name: str, manager: str) -> int | None:
    """Return the number of a piece by its name, if it is one of this manager's."""
    of, _, numbers = name.partition(":")
    first, plus, place = numbers.partition(IN_BUNDLE)
    if of != manager or not (_is_number(first) and (_is_number(place) or not plus)):
        return None
    return int(first) + int(place or 0)


def is_meant(name: str, asked: str) -> bool:
    """Return whether a piece is the one that is asked for, whatever it is called."""
    manager = asked.partition(":")[0]
    number = number_in(asked, manager)
    return name == asked or (number is not None and number_in(name, manager) == number)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
