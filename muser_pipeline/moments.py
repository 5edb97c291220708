"""Times and durations as people write them, in nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_time(text: str) -> int:
    """Return a time of ISO 8601 as nanoseconds since 1970.

    It is UTC unless it says otherwise; fractions of a second may have nine digits.

    Raises
    ------
    ValueError
        When it is no time.
    """
    found = re.fullmatch(r"(.*?:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", text)
    whole, fraction, zone = found.groups() if found else (text, None, None)
    try:
        moment = datetime.fromisoformat(whole + (zone or ""))
    except ValueError:
        raise ValueError(f"{text!r} is no time such as 2015-11-01T04:00:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))


def parse_duration(text: str) -> int:
    """Return a number with a unit, such as 25ms, 10s or 2min, as nanoseconds.

    Raises
    ------
    ValueError
        When it is no duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", text.strip())
    if not found or (found[2] or "s") not in _UNITS_S:
        raise ValueError(f"{text!r} is no duration such as 25ms, 10s or 2min")
    return round(float(found[1]) * _UNITS_S[found[2] or "s"] * 1e9)
