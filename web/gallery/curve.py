"""The light curve: peak and flux density of each band over time, and its colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median
from typing import Any, Literal

from muser_pipeline.realtime.index import CurvePoint
from opencluster_web.gallery.choice import Choice
from opencluster_web.gallery.source import ImageSource, band_of, key_of

POINTS = 400
"""Of a line, at most: more than a screen shows."""

PAUSE = 5
"""A line is cut where a pause is so many times as long as half of the others."""

Shade = Literal["light", "dark"]
SHADES: tuple[Shade, ...] = ("light", "dark")

_COLOURS = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#b4428f", "#7a5a00", "#3b3b98"),
    "dark": ("#56b4e9", "#ff9d4d", "#3fd6a6", "#e79ccb", "#f0e442", "#a5b4ff"),
}
"""Told apart by the colour blind too (after Okabe and Ito); dashes tell the hands."""
_LIGHTNESS = {"light": 38, "dark": 66}
"""Per cent, of the colours of more bands than these; their hues go by frequency."""
LAST_HUE = 300
"""Degrees: from red by green and blue to magenta."""
_DASHES: dict[str, tuple[int, ...]] = {"RR": (6, 3), "V": (2, 3)}
"""Pixels drawn and left out; other lines are whole."""


@dataclass(frozen=True)
class Series:
    """The points of one band and polarisation, by time."""

    label: str
    points: Sequence[CurvePoint]


def series_of(source: ImageSource, choice: Choice) -> list[Series]:
    """Return the lines that a page is to show, by array, frequency and polarisation."""
    newest = [tile.newest.time_utc_ns for tile in source.tiles(choice)]
    if not newest and not choice.has_range:
        return []
    start, end = choice.range_ns(max(newest, default=0))
    step = max(1, math.ceil((end - start) / POINTS))
    points = source.index.curve(start, end, step, choice.array)
    lines = [list(line) for _, line in groupby(points, key_of)]
    chosen = [line for line in lines if choice.takes(line[0])]
    chosen.sort(key=lambda line: (line[0].array, line[0].frequency_hz))
    has_both = len({line[0].array for line in chosen}) > 1
    return [Series(_label(line[0], has_both), line) for line in chosen]


@dataclass(frozen=True)
class Look:
    """How a line is drawn: a colour for its band and dashes for its polarisation."""

    colour: str
    dashes: tuple[int, ...]


def looks_of(lines: Sequence[Series], shade: Shade) -> list[Look]:
    """Return how each line is drawn on a page that is light or dark."""
    bands = list(dict.fromkeys(line.points[0].frequency_hz for line in lines))
    colours: Sequence[str] = _COLOURS[shade]
    if len(bands) > len(colours):
        step = LAST_HUE / (len(bands) - 1)
        light = _LIGHTNESS[shade]
        colours = [f"hsl({step * n:.0f}, 65%, {light}%)" for n in range(len(bands))]
    return [
        Look(
            colours[bands.index(line.points[0].frequency_hz)],
            _DASHES.get(line.points[0].polarization, ()),
        )
        for line in lines
    ]


def columns(lines: Sequence[Series], shade: Shade) -> dict[str, list[Any]]:
    """Return the light curve as Bokeh's multi-line wants it.

    There is one row for each line, and where nothing was seen for long, the line is cut
    and goes on in another row.

    Parameters
    ----------
    lines : sequence of Series
        The lines.
    shade : str
        What the page looks like.
    """
    rows = [
        (line.label, look, run)
        for line, look in zip(lines, looks_of(lines, shade), strict=True)
        for run in runs_of(line.points)
    ]
    return {
        "time": [[p.time_utc_ns / 1e6 for p in run] for _, _, run in rows],
        "peak": [[p.peak for p in run] for _, _, run in rows],
        "flux": [[p.flux for p in run] for _, _, run in rows],
        "label": [label for label, _, _ in rows],
        "colour": [look.colour for _, look, _ in rows],
        "dash": [look.dashes for _, look, _ in rows],
    }


def runs_of(points: Sequence[CurvePoint]) -> list[list[CurvePoint]]:
    """Return the points in pieces, cut where a pause is much longer than others."""
    pauses = [b.time_utc_ns - a.time_utc_ns for a, b in pairwise(points)]
    longest = PAUSE * median(pauses) if pauses else 0
    runs = [list(points[:1])]
    for pause, point in zip(pauses, points[1:], strict=True):
        if pause > longest:
            runs.append([])
        runs[-1].append(point)
    return runs


def _label(point: CurvePoint, has_both_arrays: bool) -> str:
    label = f"{band_of(point)} {point.polarization}"
    return f"MUSER-{'I' * point.array} {label}" if has_both_arrays else label
