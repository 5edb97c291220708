"""How numbers, times, lengths of time and commands are written on pages: filters."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime

from flask import Flask
from markupsafe import Markup, escape

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_PREFIXES = (*_LARGE, (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_SCALED = ("Jy", "K", "Hz")
"""Units that may have a prefix."""
_SECOND_NS = 10**9
_COMMAND = re.compile(r"`([^`\n]+)`")


def register(app: Flask) -> None:
    """Give the templates of an application these filters."""
    for filter in (
        *(ago, clock, commands, day, endpoint, frequency, iso),
        *(quantity, significant, since, size, stamp),
    ):
        app.add_template_filter(filter)


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many digits that mean something, never as 1e+05."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    before = math.floor(math.log10(abs(value))) + 1
    if not -3 < before < 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - before)}f}"


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """Return a number with its unit, with a prefix where that unit may have one."""
    if not unit.startswith(_SCALED) or not math.isfinite(value) or value == 0:
        return f"{significant(value, digits)} {unit}".rstrip()
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{significant(value / factor, digits)} {prefix}{unit}"
    return f"{value:.{digits - 1}e} {unit}"


def frequency(frequency_hz: float) -> str:
    """Return a frequency in gigahertz, with megahertz as the last digit."""
    return f"{frequency_hz / 1e9:.3f} GHz"


def ago(seconds: float) -> str:
    """Return a length of time in the unit that people read best."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def size(size_bytes: float) -> str:
    """Return a number of bytes in the unit that people read best."""
    for factor, prefix in _LARGE:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {prefix}B"
    return f"{size_bytes:.0f} B"


def commands(text: str) -> Markup:
    """Return a text in which what stands between backticks is set as code."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))


def endpoint(address: str) -> str:
    """Return an address as people name it: without what it begins with."""
    return address.removeprefix("tcp://").removeprefix("ipc://")


def since(published_at: float) -> str:
    """Return how long ago something was, given seconds since 1970."""
    return ago(time.time() - published_at)


def iso(time_ns: int) -> str:
    """Return a time as ISO 8601 with milliseconds, UTC."""
    return f"{day(time_ns)}T{clock(time_ns)}Z"


def day(time_ns: int) -> str:
    """Return the day of a time, UTC."""
    return _moment(time_ns).strftime("%Y-%m-%d")


def clock(time_ns: int, digits: int = 3) -> str:
    """Return the time of day with parts of a second, UTC."""
    part = f"{time_ns % _SECOND_NS:09}"[:digits]
    return _moment(time_ns).strftime("%H:%M:%S") + (f".{part}" if part else "")


def stamp(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601, UTC."""
    return iso(round(seconds * _SECOND_NS))


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // _SECOND_NS, UTC)
