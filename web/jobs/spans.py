"""What is drawn of a timeline: lanes, so many rectangles, rates and a histogram.

Knows nothing of pages or of Bokeh. A timeline may have a hundred thousand spans, which
no browser draws well: those of a lane that begin in the same short stretch of time are
drawn as one, which is the fainter, the more of it was idle. Who zooms in gets shorter
stretches, until every span stands alone. Failures are never drawn together with others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from opencluster.core.timeline import DONE, FAILED, OUTCOMES, Timeline

MOST = 5000
"""Rectangles that are sent."""
FINEST = 4000
"""Stretches into which the time that is shown is cut at first."""
COARSER = 0.6
PARTS = 120
"""Bars of the rate over time."""
BINS = 40
"""Bars of the histogram."""
SHORTEST_S = 1e-6
"""What is shorter counts as long as this in the histogram, which is logarithmic."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Rectangles, in arrays of equal length; times in seconds since the job began.

    Attributes
    ----------
    start, end : ndarray of float
        When the first of them began, and the last one ended.
    busy : ndarray of float
        For how much of this the worker worked, from 0 to 1.
    lane, type, outcome : ndarray of int
        Places in the timeline's lists.
    pieces, count : ndarray of int
        Pieces, and how many spans are drawn as one.
    first : ndarray of int
        The place of the first one in the timeline.
    """

    start: Floats
    end: Floats
    busy: Floats
    lane: Ints
    type: Ints
    outcome: Ints
    pieces: Ints
    count: Ints
    first: Ints


@dataclass(frozen=True)
class Rates:
    """Pieces per second that ended, over equal parts of the job's time."""

    edges: Floats
    done: Floats
    failed: Floats


@dataclass(frozen=True)
class Histogram:
    """Pieces by how long each took, for each type of the timeline."""

    edges: Floats
    counts: Sequence[Ints]


class Columns:
    """The spans of a timeline as arrays, made once for several questions."""

    def __init__(self, timeline: Timeline) -> None:
        self.start: Floats = np.array(timeline.start_s, float)
        self.duration: Floats = np.array(timeline.duration_s, float)
        self.end = self.start + self.duration
        self.lane: Ints = np.array(timeline.worker, np.int64)
        self.type: Ints = np.array(timeline.type, np.int64)
        self.outcome: Ints = np.array(timeline.outcome, np.int64)
        self.pieces: Ints = np.array(timeline.pieces, np.int64)
        self.types = len(timeline.types)
        self.lanes = len(timeline.workers)

    @property
    def length(self) -> float:
        """Seconds from the beginning of the job to the end of the last span."""
        return float(self.end.max(initial=0.0))


def thinned(columns: Columns, start: float, end: float, most: int = MOST) -> Spans:
    """Return what is drawn of some time.

    Parameters
    ----------
    columns : Columns
        The spans.
    start, end : float
        Which time is seen, in seconds since the job began.
    most : int
        Rectangles at most, unless there are more lanes than that.
    """
    seen = np.flatnonzero((columns.end >= start) & (columns.start <= end))
    if seen.size <= most:
        groups = np.arange(seen.size)
    else:
        groups = _grouped(columns, seen, start, end, most)
    # in the order of time within each group, so the first one is the earliest
    order = np.lexsort((columns.start[seen], groups))
    seen, groups = seen[order], groups[order]
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    if not seen.size:
        begins = np.array([], np.int64)
    first = seen[begins]
    starts = columns.start[first]
    ends = np.maximum.reduceat(columns.end[seen], begins) if first.size else starts
    # several failures are marked at the first, and do not seem to last
    longest = starts + (
        np.maximum.reduceat(columns.duration[seen], begins) if first.size else starts
    )
    ends = np.where(columns.outcome[first] == DONE, ends, longest)
    worked = np.add.reduceat(columns.duration[seen], begins) if first.size else starts
    pieces = np.add.reduceat(columns.pieces[seen], begins) if first.size else first
    lengths = ends - starts
    busy = np.divide(worked, lengths, out=np.ones_like(starts), where=lengths > 0)
    found = Spans(
        starts,
        ends,
        np.minimum(1.0, busy),
        columns.lane[first],
        columns.type[first],
        columns.outcome[first],
        pieces,
        np.diff(begins, append=seen.size),
        first,
    )
    # what did not end well is drawn last, above the others
    above = np.argsort(found.outcome != 0, kind="stable")
    return Spans(*(getattr(found, name)[above] for name in Spans.__annotations__))


def rates(columns: Columns, length: float) -> Rates:
    """Return how many pieces a second ended, over a job of some seconds."""
    length = max(length, SHORTEST_S)
    edges = np.linspace(0.0, length, PARTS + 1)
    has_failed = columns.outcome == FAILED

    def of(chosen: npt.NDArray[np.bool_]) -> Floats:
        counts, _ = np.histogram(
            np.minimum(columns.end[chosen], length),
            edges,
            weights=columns.pieces[chosen],
        )
        return counts * PARTS / length

    return Rates(edges, of(~has_failed), of(has_failed))


def histogram(columns: Columns) -> Histogram:
    """Return how many pieces of each type took how long; edges grow evenly."""
    if not columns.start.size:
        return Histogram(np.array([]), [])
    each = columns.duration / np.maximum(1, columns.pieces)
    each = np.maximum(each, SHORTEST_S)
    least, longest = float(each.min()), float(each.max())
    edges = np.geomspace(least * 0.95, longest * 1.05, BINS + 1)
    counts = [
        np.histogram(each[of], edges, weights=columns.pieces[of])[0].astype(np.int64)
        for of in (columns.type == type for type in range(columns.types))
    ]
    return Histogram(edges, counts)


def in_order(timeline: Timeline) -> list[int]:
    """Return the lanes by computer, and within it by name, Word-9 before Word-10."""
    lanes = range(len(timeline.workers))
    return sorted(
        lanes,
        key=lambda lane: (_parts(timeline.hosts[lane]), _parts(timeline.workers[lane])),
    )


def outcome_counts(timeline: Timeline) -> dict[str, int]:
    """Return how many pieces ended how, of those that did so at all."""
    counts = dict.fromkeys(OUTCOMES, 0)
    for outcome, pieces in zip(timeline.outcome, timeline.pieces, strict=True):
        counts[OUTCOMES[outcome]] += pieces
    return counts


def _grouped(columns: Columns, seen: Ints, start: float, end: float, most: int) -> Ints:
    """Return for each span which of them are drawn as one."""
    kinds = len(OUTCOMES) * max(1, columns.types)
    own = (columns.lane[seen] * kinds) + (
        columns.type[seen] * len(OUTCOMES) + columns.outcome[seen]
    )
    ahead = np.clip((columns.start[seen] - start) / max(end - start, 1e-9), 0.0, 1.0)
    is_done = columns.outcome[seen] == DONE
    rare = ~is_done
    groups: Ints = np.zeros(seen.size, np.int64)
    # what failed is rare, so it is seldom taken together
    groups[rare] = _slotted(own[rare], ahead[rare], most // 3)
    count = int(groups.max()) + 1 if rare.any() else 0
    groups[is_done] = count + _slotted(own[is_done], ahead[is_done], most - count)
    return groups


def _slotted(own: Ints, ahead: Floats, most: int) -> Ints:
    """Return groups of the same kind that begin in the same stretch, not too many."""
    if own.size <= most:
        return np.arange(own.size)
    stretches = min(float(FINEST), 4.0 * most / max(1, np.unique(own).size))
    while True:
        slots = (ahead * stretches).astype(np.int64)
        keys = own * (FINEST + 2) + slots
        groups: Ints = np.unique(keys, return_inverse=True)[1].reshape(-1)
        if groups.max() < most or stretches < 1:
            return groups
        stretches *= COARSER


def _parts(name: str) -> list[tuple[int, str]]:
    parts: list[Any] = re.split(r"(\d{1,18})", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
