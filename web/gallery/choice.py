"""What a page was asked to show: array, band, polarisation and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import BadRequest

from muser_pipeline.moments import parse_time
from muser_pipeline.realtime.index import CurvePoint, ImageRecord
from opencluster_web.words import iso

POLARIZATIONS = ("I", "V", "RR", "LL")
SPANS_S = {"10 minutes": 600, "1 hour": 3600, "6 hours": 21_600, "1 day": 86_400}
"""Lengths of time that the light curve may show."""
SPAN_S = 3600
MAX_NUMBER = 10**9
"""Larger numbers in an address are a mistake; a database may not take them."""
_SECOND_NS = 10**9


@dataclass(frozen=True)
class Choice:
    """What is to be shown; None where anything is.

    Attributes
    ----------
    array, band : int or None
        As of an image.
    polarization : str or None
        One of `POLARIZATIONS`.
    start_utc_ns, end_utc_ns : int or None
        A time range, its end not included.
    span_s : int
        How long a time range without a start is.
    """

    array: int | None = None
    band: int | None = None
    polarization: str | None = None
    start_utc_ns: int | None = None
    end_utc_ns: int | None = None
    span_s: int = SPAN_S

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> Choice:
        """Return what an address asks for.

        Raises
        ------
        BadRequest
            When it cannot be; the message says what may be written.
        """
        polarization = arguments.get("pol", "").upper() or None
        if polarization not in (None, *POLARIZATIONS):
            raise BadRequest(f"pol must be one of {', '.join(POLARIZATIONS)}.")
        start, end = _time(arguments, "from"), _time(arguments, "to")
        if start is not None and end is not None and start >= end:
            raise BadRequest("The time range ends before it begins.")
        span = number(arguments, "span", SPAN_S)
        if span is None or not 1 <= span <= max(SPANS_S.values()):
            raise BadRequest(f"span is from 1 to {max(SPANS_S.values())} seconds.")
        return cls(
            number(arguments, "array"),
            number(arguments, "band"),
            polarization,
            start,
            end,
            span,
        )

    @property
    def has_range(self) -> bool:
        """Whether a time range was asked for."""
        return self.start_utc_ns is not None or self.end_utc_ns is not None

    def query(self, **changes: Any) -> dict[str, Any]:
        """Return the part of an address that asks for this, with some changes."""
        asked = {
            "array": self.array,
            "band": self.band,
            "pol": self.polarization,
            "from": self.start_text,
            "to": self.end_text,
            "span": None if self.span_s == SPAN_S else self.span_s,
        } | changes
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def start_text(self) -> str | None:
        """The start as ISO 8601."""
        return None if self.start_utc_ns is None else iso(self.start_utc_ns)

    @property
    def end_text(self) -> str | None:
        """The end as ISO 8601."""
        return None if self.end_utc_ns is None else iso(self.end_utc_ns)

    def takes(self, record: ImageRecord | CurvePoint) -> bool:
        """Return whether an image is of the array, band and polarisation asked for."""
        return (
            self.array in (None, record.array)
            and self.band in (None, record.band)
            and self.polarization in (None, record.polarization)
        )

    def range_ns(self, newest_utc_ns: int) -> tuple[int, int]:
        """Return the time range, which ends with the newest image if it is open."""
        span_ns = self.span_s * _SECOND_NS
        start, end = self.start_utc_ns, self.end_utc_ns
        if end is None:
            end = newest_utc_ns + 1 if start is None else start + span_ns
        return (end - span_ns if start is None else start), end


def number(
    arguments: Mapping[str, str], name: str, default: int | None = None
) -> int | None:
    """Return a whole number of an address, or what stands for one that is not there.

    Raises
    ------
    BadRequest
        When it is none.
    """
    text = arguments.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_NUMBER):
        raise BadRequest(f"{name} must be a whole number.")
    return int(text)


def _time(arguments: Mapping[str, str], name: str) -> int | None:
    text = arguments.get(name, "").strip()
    if not text:
        return None
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name} must be a time such as 2015-11-01T04:00:00."
        ) from None
