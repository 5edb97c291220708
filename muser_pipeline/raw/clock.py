"""The time word of a frame: Beijing time in bit fields, to and from UTC.

Bits from the lowest: 6 of nanoseconds in steps of 20, 10 of microseconds, 10 of
milliseconds, 6 of seconds, 6 of minutes, 5 of hours, 5 of days, 4 of months, 12 of
years since 2000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muser_pipeline.array import BEIJING_OFFSET_NS
from muser_pipeline.errors import FrameValueError

TICK_NS = 20
"""Step of the nanoseconds."""
FIRST_YEAR = 2000
LAST_YEAR = 2261
"""The last whole year that 64 bits of nanoseconds since 1970 can hold."""

_FIELDS = {
    "tick": (0, 6),
    "microsecond": (6, 10),
    "millisecond": (16, 10),
    "second": (26, 6),
    "minute": (32, 6),
    "hour": (38, 5),
    "day": (43, 5),
    "month": (48, 4),
    "year": (52, 12),
}
"""Lowest bit and number of bits."""
_LARGEST = {
    "microsecond": 999,
    "millisecond": 999,
    "second": 59,
    "minute": 59,
    "hour": 23,
}
_SECOND_NS = 10**9
_DAY_NS = 86400 * _SECOND_NS


def decode_time(
    words: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the times of time words in UTC.

    A tick of 50 or more is read as 0, as the observatory's software does.

    Parameters
    ----------
    words : ndarray of uint64, shape (n,)
        As they stand in the frames.

    Returns
    -------
    time_utc_ns : ndarray of int64, shape (n,)
        Nanoseconds since 1970-01-01 UTC; 0 where the word is no time.
    is_valid : ndarray of bool, shape (n,)
        False where a field is out of its range, such as a month 13.
    """
    part = {name: _field(words, name) for name in _FIELDS}
    year = part["year"] + FIRST_YEAR
    is_valid = (year <= LAST_YEAR) & (part["month"] >= 1) & (part["month"] <= 12)
    for name, largest in _LARGEST.items():
        is_valid &= part[name] <= largest
    months = np.where(is_valid, (year - 1970) * 12 + part["month"] - 1, 0)
    first_day = _first_day(months)
    is_valid &= (part["day"] >= 1) & (part["day"] <= _first_day(months + 1) - first_day)
    seconds = (part["hour"] * 60 + part["minute"]) * 60 + part["second"]
    ticks = np.where(part["tick"] < 50, part["tick"], 0)
    fraction_ns = part["millisecond"] * 10**6 + part["microsecond"] * 1000
    fraction_ns += ticks * TICK_NS
    days = np.where(is_valid, first_day + part["day"] - 1, 0)
    beijing_ns = days * _DAY_NS + seconds * _SECOND_NS + fraction_ns
    return np.where(is_valid, beijing_ns - BEIJING_OFFSET_NS, 0), is_valid


def encode_time(time_utc_ns: ArrayLike) -> NDArray[np.uint64]:
    """Return the time words of times.

    Parameters
    ----------
    time_utc_ns : array of int64, shape (n,)
        Nanoseconds since 1970-01-01 UTC, multiples of 20.

    Raises
    ------
    FrameValueError
        When a time is no multiple of 20 ns, or outside the years 2000 to 2261.
    """
    beijing_ns = np.asarray(time_utc_ns, dtype=np.int64) + BEIJING_OFFSET_NS
    first, end = (
        int(np.datetime64(f"{year}-01-01", "D").astype(np.int64)) * _DAY_NS
        for year in (FIRST_YEAR, LAST_YEAR + 1)
    )
    if np.any((beijing_ns < first) | (beijing_ns >= end)):
        raise FrameValueError(
            f"a time is outside the years {FIRST_YEAR} to {LAST_YEAR} that a frame "
            "can hold"
        )
    if np.any(beijing_ns % TICK_NS):
        raise FrameValueError(f"a time is no multiple of {TICK_NS} ns")
    days, of_day_ns = np.divmod(beijing_ns, _DAY_NS)
    seconds, fraction_ns = np.divmod(of_day_ns, _SECOND_NS)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    part = {
        "tick": fraction_ns % 1000 // TICK_NS,
        "microsecond": fraction_ns // 1000 % 1000,
        "millisecond": fraction_ns // 10**6,
        "second": seconds % 60,
        "minute": seconds // 60 % 60,
        "hour": seconds // 3600,
        "day": days - _first_day(months) + 1,
        "month": months % 12 + 1,
        "year": months // 12 + 1970 - FIRST_YEAR,
    }
    words = np.zeros(beijing_ns.shape, dtype=np.uint64)
    for name, values in part.items():
        words |= values.astype(np.uint64) << np.uint64(_FIELDS[name][0])
    return words


def _field(words: NDArray[np.uint64], name: str) -> NDArray[np.int64]:
    lowest, bits = _FIELDS[name]
    moved = words >> np.uint64(lowest) & np.uint64((1 << bits) - 1)
    return moved.astype(np.int64)


def _first_day(months: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the days since 1970-01-01 of the first days of months since then."""
    first = months.astype("datetime64[M]").astype("datetime64[D]")
    return first.astype(np.int64)
