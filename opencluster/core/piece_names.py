"""How pieces are called on scoreboards, in logs and in what is said of the dead.

The name of a piece is the identity of its manager in hexadecimal, a colon, and its
number there. Of a piece in a bundle the number of the bundle stands there, a plus sign,
and its place in the bundle: ``1f2e3d4c:17+3`` is the piece with the number 20.
"""

from __future__ import annotations

IN_BUNDLE = "+"
"""What the name of a bundle ends with; the place follows."""


def piece_name(manager: bytes, piece: int, is_bundle: bool = False) -> str:
    """Return the name of a piece, or how those of the pieces of a bundle begin."""
    return f"{manager[1:5].hex()}:{piece}{IN_BUNDLE if is_bundle else ''}"


def number_in(name: str, manager: str) -> int | None:
    """Return the number of a piece by its name, if it is one of this manager's."""
    of, _, numbers = name.partition(":")
    first, plus, place = numbers.partition(IN_BUNDLE)
    if of != manager or not first.isdigit() or not (place.isdigit() if plus else True):
        return None
    return int(first) + int(place or 0)


def is_meant(name: str, asked: str) -> bool:
    """Return whether a piece is the one that is asked for, or of the bundle that is."""
    manager = asked.partition(":")[0]
    number = number_in(asked, manager)
    is_it = number is not None and number_in(name, manager) == number
    return name == asked or is_it or name.partition(IN_BUNDLE)[0] == asked
