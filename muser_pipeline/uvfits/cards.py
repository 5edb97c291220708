"""FITS headers and binary tables as bytes.

Written by hand because a file is written for every frame if asked: what astropy needs
for one header takes longer than the whole frame may. Tests read it all with astropy.

Source: Definition of the Flexible Image Transport System, version 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BLOCK = 2880
Value = bool | int | float | str
Card = tuple[str, Value, str]
"""Keyword of at most 8 characters, value, comment."""

_FORMATS = {"i4": "J", "f4": "E", "f8": "D"}


def card(keyword: str, value: Value, comment: str = "") -> str:
    """Return one line of a header, 80 characters; a long comment is cut."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        quoted = value.replace("'", "''")
        text = f"'{quoted:<8}'"
    elif isinstance(value, int):
        text = f"{value:>20}"
    else:
        text = f"{_real(value):>20}"
    line = f"{keyword:<8}= {text:<20}"
    if len(line) > 80:
        raise ValueError(f"the value of {keyword} is too long for a card: {value!r}")
    if comment:
        line += f" / {comment}"
    return f"{line[:80]:<80}"


def header(cards: Iterable[Card]) -> bytes:
    """Return a header with its END, padded with blanks to whole blocks."""
    text = "".join(card(*each) for each in cards) + f"{'END':<80}"
    return text.encode("ascii").ljust(-(-len(text) // BLOCK) * BLOCK)


def padding(size: int) -> bytes:
    """Return the zeros that fill up data of this size to whole blocks."""
    return bytes(-size % BLOCK)


def table(
    name: str,
    columns: Iterable[tuple[str, str, NDArray[np.generic]]],
    cards: Iterable[Card],
) -> bytes:
    """Return a binary table.

    Parameters
    ----------
    name : str
        Its EXTNAME.
    columns : iterable of (str, str, ndarray)
        Name, unit, and values of shape (row,) or (row, element) in the type that is
        written: int32, float32, float64 or bytes. Columns may have no elements.
    cards : iterable of Card
        After the mandatory ones.
    """
    columns = list(columns)
    fields, described = [], []
    for number, (title, unit, values) in enumerate(columns, 1):
        shape = values.shape[1:]
        if values.dtype.kind == "S":
            form = f"{values.dtype.itemsize}A"
            fields.append((f"c{number}", values.dtype, shape))
        else:
            count = shape[0] if shape else 1
            form = f"{count}{_FORMATS[values.dtype.str[1:]]}"
            fields.append((f"c{number}", values.dtype.newbyteorder(">"), shape))
        described.append((f"TTYPE{number}", title, ""))
        described.append((f"TFORM{number}", form, ""))
        if unit:
            described.append((f"TUNIT{number}", unit, ""))
    rows = np.zeros(len(columns[0][2]), dtype=fields)
    for number, (_, _, values) in enumerate(columns, 1):
        if values.size:
            rows[f"c{number}"] = values
    mandatory: list[Card] = [
        ("XTENSION", "BINTABLE", "binary table"),
        ("BITPIX", 8, ""),
        ("NAXIS", 2, ""),
        ("NAXIS1", rows.dtype.itemsize, "bytes of a row"),
        ("NAXIS2", len(rows), "rows"),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
        ("TFIELDS", len(columns), ""),
    ]
    head = header([*mandatory, *described, ("EXTNAME", name, ""), *cards])
    body = rows.tobytes()
    return head + body + padding(len(body))


def _real(value: float) -> str:
    """Return a number that reads back as the same, with a decimal point."""
    mantissa, _, exponent = repr(float(value)).partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}E{exponent}" if exponent else mantissa
