"""What the plots of a job draw, as columns: rectangles, bars, and what is said of each.

A page gets them with the plot, and asks for them anew while the job runs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from opencluster.core.timeline import CANCELLED, FAILED, OUTCOMES, Timeline
from opencluster_web.jobs import spans
from opencluster_web.jobs.colours import hues_of
from opencluster_web.jobs.lanes import lanes_of
from opencluster_web.jobs.words import took
from opencluster_web.plots import COLOURS, Columns, Shade

FAINTEST = 0.3
"""How much is seen of a rectangle that was busy for almost none of its time."""


def span_columns(
    timeline: Timeline,
    columns: spans.Columns,
    start: float,
    end: float,
    shade: Shade,
    most: int = spans.MOST,
) -> Columns:
    """Return the rectangles of some time, and what is said of each.

    Parameters
    ----------
    timeline : Timeline
        The job.
    columns : Columns
        Its spans.
    start, end : float
        Which time, in seconds since the job began.
    shade : str
        What the page looks like.
    most : int
        Rectangles at most.
    """
    found = spans.thinned(columns, start, end, most)
    colours = [COLOURS[shade][hue] for hue in hues_of(timeline.types)]
    wrong = COLOURS[shade]["vermillion"]
    began = float(timeline.job.get("started_at", 0.0))
    lanes = lanes_of(timeline)
    outcomes, types = found.outcome.tolist(), found.type.tolist()
    firsts, counts = found.first.tolist(), found.count.tolist()
    fills = [
        wrong if outcome == FAILED else colours[type]
        for outcome, type in zip(outcomes, types, strict=True)
    ]
    alphas = FAINTEST + (1 - FAINTEST) * found.busy
    alphas[found.outcome == CANCELLED] = FAINTEST
    return {
        "left": (1e3 * (began + found.start)).tolist(),
        "right": (1e3 * (began + found.end)).tolist(),
        "lane": [lanes.middle[lane] for lane in found.lane.tolist()],
        "fill": fills,
        "alpha": alphas.round(2).tolist(),
        "middle": (500 * (2 * began + found.start + found.end)).tolist(),
        "what": [
            _what(timeline, first, count, pieces, busy)
            for first, count, pieces, busy in zip(
                *(firsts, counts, found.pieces.tolist(), found.busy.tolist()),
                strict=True,
            )
        ],
        "who": [_who(timeline, lane) for lane in found.lane.tolist()],
        "type": [timeline.types[type] for type in types],
        "outcome": [OUTCOMES[outcome] for outcome in outcomes],
        "began": [_moment(began + s, s) for s in found.start.tolist()],
        "took": [took(s) for s in (found.end - found.start).tolist()],
        "error": [_error(timeline, first) for first in firsts],
    }


def rate_columns(timeline: Timeline, columns: spans.Columns, shade: Shade) -> Columns:
    """Return the bars of the rate over time; the last one ends where the job is."""
    found = spans.rates(columns, length_of(timeline, columns))
    began = float(timeline.job.get("started_at", 0.0))
    edges = (1e3 * (began + found.edges)).tolist()
    count = len(edges) - 1
    return {
        "left": edges[:-1],
        "right": edges[1:],
        "done": found.done.tolist(),
        "all": (found.done + found.failed).tolist(),
        "failed": found.failed.tolist(),
        "fill": [COLOURS[shade]["blue"]] * count,
        "lanes": [len(timeline.workers)] * count,
    }


def histogram_columns(
    timeline: Timeline, columns: spans.Columns, shade: Shade
) -> Columns:
    """Return the bars of how long pieces took, those of all types above each other."""
    found = spans.histogram(columns)
    names = ("left", "right", "bottom", "top", "fill", "type", "pieces", "range")
    rows: list[tuple[Any, ...]] = []
    if found.counts:
        below = np.zeros(len(found.edges) - 1)
        hues = hues_of(timeline.types)
        pairs = list(zip(found.edges[:-1], found.edges[1:], strict=True))
        for type, hue, counts in zip(timeline.types, hues, found.counts, strict=True):
            for place, (left, right) in enumerate(pairs):
                if counts[place]:
                    bottom, top = below[place], below[place] + counts[place]
                    between = f"{took(left)} to {took(right)}"
                    sides = (float(left), float(right), float(bottom), float(top))
                    own = (COLOURS[shade][hue], type, int(counts[place]), between)
                    rows.append((*sides, *own))
            below = below + counts
    lists = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(values) for name, values in zip(names, lists, strict=True)}


def length_of(timeline: Timeline, columns: spans.Columns) -> float:
    """Return for how long a job has run, or did."""
    elapsed_s = float(timeline.job.get("elapsed_s") or 0.0)
    return max(columns.length, elapsed_s, spans.SHORTEST_S)


def _what(timeline: Timeline, first: int, count: int, pieces: int, busy: float) -> str:
    number = timeline.number[first]
    if pieces == 1:
        return f"Piece {number}"
    if count == 1:
        return f"{pieces:,} pieces, the first is {number}"
    return f"{pieces:,} pieces in {count:,} runs, busy {busy:.0%} of the time"


def _who(timeline: Timeline, lane: int) -> str:
    return f"{timeline.workers[lane]} on {timeline.hosts[lane]}"


def _error(timeline: Timeline, first: int) -> str:
    place = timeline.error[first]
    if place < 0:
        return ""
    error = timeline.errors[place]
    line = next(iter(str(error["message"]).splitlines()), "")
    return f"({error['kind']}: {line[:120]})"


def _moment(at: float, after_s: float) -> str:
    clock = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
    return f"{clock} UTC, {took(after_s)} after the job"
