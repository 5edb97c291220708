"""Kinds of values and the text that stands for them.

Owns the two directions between the text of a setting and its typed value, and the
range that a value must keep. Knows neither files nor sections nor key names.
"""

from __future__ import annotations

import ast
import math
import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

_UNITS = {
    "TiB": 1024**4,
    "TB": 1000**4,
    "GiB": 1024**3,
    "GB": 1000**3,
    "MiB": 1024**2,
    "MB": 1000**2,
    "KiB": 1024,
    "kB": 1000,
    "B": 1,
}
_UNITS_FOLDED = {name.lower(): factor for name, factor in _UNITS.items()}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_ENDPOINT = re.compile(r"(?:tcp://)?(\[[0-9a-f:]+\]|[^\s:/\[\]*]+):(\d{1,5})", re.I)
_TARGET = re.compile(r"[^\s:][^:]*:[A-Za-z_]\w*")
_SHOWN_CHARACTERS = 80
_MAX_CPU = 65535
_MAX_PORT = 65535
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class Kind(NamedTuple):
    """How values of one kind are read and written.

    Attributes
    ----------
    name : str
        What the reference calls it.
    expected : str
        What an error message says was expected.
    parse : callable
        Text to value; raises `ValueError` for text that stands for none.
    render : callable
        Value to a text that `parse` reads back.
    """

    name: str
    expected: str
    parse: Callable[[str], Any]
    render: Callable[[Any], str] = str


class Setting(NamedTuple):
    """One key: its kind, its range and what it is for.

    Attributes
    ----------
    kind : Kind
        How its text is read.
    explanation : str
        One line, with the unit.
    minimum, maximum : float or None
        The range that a number must keep, both ends included.
    """

    kind: Kind
    explanation: str
    minimum: float | None = None
    maximum: float | None = None

    def read(self, text: str) -> Any:
        """Return the value that a text stands for.

        Raises
        ------
        ValueError
            The message says what was seen and what was expected.
        """
        try:
            value = self.kind.parse(text)
        except (ValueError, OverflowError):
            raise ValueError(self._refusal(text)) from None
        if self.minimum is not None and value < self.minimum:
            raise ValueError(self._refusal(text))
        if self.maximum is not None and value > self.maximum:
            raise ValueError(self._refusal(text))
        return value

    def range_text(self) -> str:
        """Return the range in words, empty when every value of the kind will do."""
        low = "" if self.minimum is None else self.kind.render(self.minimum)
        high = "" if self.maximum is None else self.kind.render(self.maximum)
        if low and high:
            return f"from {low} to {high}"
        return f"at least {low}" if low else f"at most {high}" if high else ""

    def _refusal(self, text: str) -> str:
        expected = ", ".join(filter(None, [self.kind.expected, self.range_text()]))
        return f"got {shown(text)}, expected {expected}"


def shown(text: str) -> str:
    """Quote a text for a message, shortened when it is long."""
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return repr(text)


def unquote(text: str) -> str:
    """Take off one pair of quotes that surrounds the whole text."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def parse_literal(text: str) -> object:
    """Return the Python literal that a text spells, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _parse_seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _parse_fraction(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError("not between 0 and 1")
    return value


def _parse_boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError from None


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError
    number, unit = match.groups()
    factor = _UNITS_FOLDED.get(unit.lower() or "b")
    if factor is None:
        raise ValueError
    return int(number) * factor if number.isdigit() else round(float(number) * factor)


def _render_size(size_bytes: float) -> str:
    count = int(size_bytes)
    for unit, factor in _UNITS.items():
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return str(count)


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _parse_endpoints(text: str) -> tuple[str, ...]:
    return tuple(_parse_endpoint(item) for item in _split(text))


def _parse_endpoint(text: str) -> str:
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError
    return f"tcp://{match[1]}:{int(match[2])}"


def _parse_cpus(text: str) -> tuple[int, ...]:
    cpus: dict[int, None] = {}
    for item in _split(text):
        first, dash, last = item.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high <= _MAX_CPU:
            raise ValueError
        cpus.update(dict.fromkeys(range(low, high + 1)))
    return tuple(cpus)


def _parse_ports(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    first, dash, last = text.partition("-")
    low, high = int(first), int(last if dash else first)
    if not 0 < low <= high <= _MAX_PORT:
        raise ValueError
    return low, high


def _parse_target(text: str) -> str:
    if text and not _TARGET.fullmatch(text):
        raise ValueError
    return text


def _join(items: tuple[object, ...]) -> str:
    return ", ".join(str(item) for item in items)


TEXT = Kind("text", "text", unquote)
INTEGER = Kind("integer", "an integer", int, lambda value: str(int(value)))
SECONDS = Kind("seconds", "a number of seconds", _parse_seconds)
FRACTION = Kind("fraction", "a number between 0 and 1", _parse_fraction)
HOURS = Kind("hours", "a number of hours", _parse_seconds)
BOOLEAN = Kind(
    "boolean",
    "true or false (yes, no, on and off will do)",
    _parse_boolean,
    lambda value: str(value).lower(),
)
SIZE = Kind(
    "size",
    "a number of bytes, plain or with a unit such as 64 MB or 2 GiB",
    _parse_size,
    _render_size,
)
ENDPOINTS = Kind(
    "endpoints",
    "a list such as node1:9000, tcp://node2:9000",
    _parse_endpoints,
    _join,
)
CPUS = Kind("cpus", "a list of CPU numbers such as 0-3, 8", _parse_cpus, _join)
PORTS = Kind(
    "ports",
    "a range of ports such as 9200-9399",
    _parse_ports,
    lambda value: "-".join(map(str, value)),
)
COMMAND = Kind(
    "command",
    "a command line with balanced quotes",
    lambda text: tuple(shlex.split(text)),
    shlex.join,
)
TARGET = Kind("target", "module:Class or path.py:Class", _parse_target)


def choice(*names: str) -> Kind:
    """Return the kind of a setting that takes one of a few words, in any case."""
    by_folded = {name.lower(): name for name in names}

    def parse(text: str) -> str:
        try:
            return by_folded[text.lower()]
        except KeyError:
            raise ValueError from None

    listed = ", ".join(names[:-1]) + " or " + names[-1]
    return Kind(" / ".join(names), listed, parse)
