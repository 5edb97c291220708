"""What became of the pieces of a job: who did them, when, and how each run ended.

A span is one run of a piece, or of a bundle of short ones, on one worker. A recorder
keeps a bounded number of them: beyond it, what a worker does is taken together over
stretches of time that grow with the job, so that a long job is still seen as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OUTCOMES = ("done", "failed", "retried", "cancelled")
DONE, FAILED, RETRIED, CANCELLED = range(len(OUTCOMES))
MAX_ERRORS = 100
"""Kinds of errors that are told apart; the others are counted with the last."""
MAX_TEXT = 2000
MAX_TRACEBACK = 8000
"""Characters of a message and of a traceback."""
STRETCHES = 500
"""Into so many parts the time of a job is cut, once its spans are taken together."""
SLOWEST = 20
LOOK_BACK = 1000
"""Spans among which the one is looked for that an error belongs to."""


@dataclass
class Timeline:
    """The spans of a job, in columns of equal length.

    Attributes
    ----------
    job : dict
        The job as `opencluster status` shows it, and who ran it, where.
    workers, hosts : list of str
        The lanes: names of workers, and their computers.
    types : list of str
        Types of workers.
    start_s, duration_s : list of float
        When each began, in seconds since the job's ``started_at``, and how long it ran.
    worker, type : list of int
        Its lane, and the place of its type.
    pieces : list of int
        How many pieces it was.
    outcome : list of int
        The place in `OUTCOMES`.
    number : list of int
        The number of its first piece.
    error : list of int
        The place in `errors`, or -1.
    errors : list of dict
        ``kind``, ``message``, ``traceback``, ``count``, ``first_piece``, ``worker``.
    is_merged : bool
        There were too many spans: some stand for what a worker did over some time.
    """

    job: dict[str, Any] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    duration_s: list[float] = field(default_factory=list)
    worker: list[int] = field(default_factory=list)
    type: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    outcome: list[int] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    error: list[int] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    is_merged: bool = False

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def length_s(self) -> float:
        """How long it took, from the job's beginning to the end of the last span."""
        ends = map(sum, zip(self.start_s, self.duration_s, strict=True))
        return max(ends, default=0.0)


Span = tuple[float, float, int, int, int, int, int]
"""Start, duration, lane, type, pieces, outcome, number."""


class Recorder:
    """Takes in the spans of one job as they come.

    Parameters
    ----------
    started_at : float
        When the job began, seconds since 1970.
    max_spans : int
        How many are kept as they are, of those with a result; and as many others.
    """

    def __init__(self, started_at: float, max_spans: int) -> None:
        self._started_at = started_at
        self._max_spans = max_spans
        self._counts = [0, 0]
        self._failures = 0
        self._lanes: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._groups: list[dict[str, Any]] = []
        self._new: dict[str, list[Any]] = _nothing()
        self._changed_errors: set[int] = set()
        self._open: dict[tuple[int, int, int], Span] = {}

    def span(
        self,
        ended_at: float,
        duration_s: float,
        worker: str,
        host: str,
        type: str,
        pieces: int,
        outcome: int,
        number: int,
    ) -> None:
        """Take in a run that ended.

        Parameters
        ----------
        ended_at : float
            When, seconds since 1970.
        duration_s : float
            How long it ran; what is no time counts as none.
        worker, host, type : str
            Who, where, and as what.
        pieces : int
            How many pieces it was.
        outcome : int
            The place in `OUTCOMES`.
        number : int
            Of the first piece.
        """
        if not 0.0 <= duration_s < math.inf:
            duration_s = 0.0
        lane = self._lanes.get(worker)
        if lane is None:
            lane = self._lanes[worker] = len(self._lanes)
            self._new["lanes"].append([worker, host])
        place = self._types.get(type)
        if place is None:
            place = self._types[type] = len(self._types)
            self._new["types"].append(type)
        start_s = max(0.0, ended_at - duration_s - self._started_at)
        self._counts[outcome == DONE] += 1
        one = (start_s, duration_s, lane, place, pieces, outcome, number)
        if self._counts[outcome == DONE] <= self._max_spans:
            self._new["spans"].append(one)
        else:
            self._merge(one)

    def error(
        self, number: int, kind: str, message: str, traceback: str, worker: str
    ) -> None:
        """Take in why a piece failed; alike ones are counted.

        Parameters
        ----------
        number : int
            The piece.
        kind, message, traceback : str
            The error.
        worker : str
            Who had it, or empty.
        """
        key = (kind, message[:200])
        place = self._errors.get(key)
        if place is None and len(self._groups) >= MAX_ERRORS:
            place = MAX_ERRORS - 1
        if place is None:
            place = self._errors[key] = len(self._groups)
            self._groups.append(
                {
                    "kind": kind,
                    "message": message[:MAX_TEXT],
                    "traceback": traceback[-MAX_TRACEBACK:],
                    "count": 0,
                    "first_piece": number,
                    "worker": worker,
                }
            )
        self._groups[place]["count"] += 1
        self._changed_errors.add(place)
        self._failures += 1
        if self._failures <= self._max_spans:
            self._new["failures"].append([number, place])

    def take(self, is_over: bool) -> dict[str, list[Any]] | None:
        """Return what is new since the last call, or ``None``.

        Parameters
        ----------
        is_over : bool
            Nothing follows: what is still being taken together is told as well.
        """
        if is_over:
            self._new["merged"] += self._open.values()
            self._open.clear()
        for place in sorted(self._changed_errors):
            self._new["errors"].append([place, dict(self._groups[place])])
        self._changed_errors.clear()
        if not any(self._new.values()):
            return None
        taken, self._new = self._new, _nothing()
        return taken

    def _merge(self, one: Span) -> None:
        key = one[2], one[3], one[5]
        known = self._open.get(key)
        if known is None:
            self._open[key] = one
            return
        start_s, pieces = known[0], known[4] + one[4]
        busy_s = known[1] + one[1]
        end_s = one[0] + one[1]
        self._open[key] = (start_s, busy_s, *known[2:4], pieces, known[5], known[6])
        if end_s - start_s > end_s / STRETCHES:
            self._new["merged"].append(self._open.pop(key))


def extend(timeline: Timeline, news: Mapping[str, Any]) -> None:
    """Add to a timeline what a `Recorder` told.

    Raises
    ------
    ValueError, TypeError, KeyError, IndexError
        When it makes no sense.
    """
    for name, host in news.get("lanes", ()):
        timeline.workers.append(str(name))
        timeline.hosts.append(str(host))
    timeline.types.extend(map(str, news.get("types", ())))
    timeline.is_merged |= bool(news.get("merged"))
    known = len(timeline)
    for kind in ("spans", "merged"):
        for start_s, duration_s, *places in news.get(kind, ()):
            lane, type, pieces, outcome, number = map(int, places)
            is_known = 0 <= lane < len(timeline.workers) and 0 <= outcome < len(
                OUTCOMES
            )
            if not is_known or not 0 <= type < len(timeline.types):
                raise ValueError("a span of nobody")
            timeline.start_s.append(float(start_s))
            timeline.duration_s.append(float(duration_s))
            timeline.worker.append(lane)
            timeline.type.append(type)
            timeline.pieces.append(pieces)
            timeline.outcome.append(outcome)
            timeline.number.append(number)
            timeline.error.append(-1)
    for place, group in news.get("errors", ()):
        if place == len(timeline.errors):
            timeline.errors.append({})
        timeline.errors[place] = dict(group)
    failures = {int(number): int(place) for number, place in news.get("failures", ())}
    if failures:
        oldest = max(0, known - LOOK_BACK)
        for index in range(len(timeline) - 1, oldest - 1, -1):
            place = failures.pop(timeline.number[index], None)
            if place is not None and timeline.outcome[index] != DONE:
                timeline.error[index] = place
            if not failures:
                break
    if "job" in news:
        timeline.job.update(news["job"])


def summary(timeline: Timeline) -> dict[str, Any]:
    """Return the figures of a job.

    Returns
    -------
    dict
        ``pieces``, ``spans``, ``length_s``, ``busy_s``; ``types`` and ``workers``: for
        each its ``pieces``, ``failed``, ``busy_s``, and the ``mean_s``, ``median_s``,
        ``p95_s`` and ``longest_s`` of a piece; ``slowest``: the longest runs; ``rate``:
        pieces per second over 100 equal parts of the time; ``errors``.
    """
    length_s = timeline.length_s
    slots = [0.0] * 100
    for start_s, duration_s, pieces in zip(
        timeline.start_s, timeline.duration_s, timeline.pieces, strict=True
    ):
        end_s = start_s + duration_s
        slots[min(99, int(100 * end_s / length_s)) if length_s else 0] += pieces
    order = sorted(range(len(timeline)), key=lambda i: -timeline.duration_s[i])
    return {
        "pieces": sum(timeline.pieces),
        "spans": len(timeline),
        "is_merged": timeline.is_merged,
        "length_s": length_s,
        "busy_s": sum(timeline.duration_s),
        "types": _figures(timeline, timeline.type, timeline.types),
        "workers": _figures(timeline, timeline.worker, timeline.workers),
        "slowest": [_told(timeline, i) for i in order[:SLOWEST]],
        "rate": [count * 100 / length_s if length_s else 0.0 for count in slots],
        "errors": sorted(timeline.errors, key=lambda group: -group["count"]),
    }


def rows(timeline: Timeline) -> Iterable[dict[str, Any]]:
    """Yield each span with words in the place of numbers, as tables show it."""
    return (_told(timeline, index) for index in range(len(timeline)))


def _told(timeline: Timeline, index: int) -> dict[str, Any]:
    error = timeline.error[index]
    lane = timeline.worker[index]
    return {
        "piece": timeline.number[index],
        "pieces": timeline.pieces[index],
        "type": timeline.types[timeline.type[index]],
        "worker": timeline.workers[lane],
        "host": timeline.hosts[lane],
        "start_s": timeline.start_s[index],
        "duration_s": timeline.duration_s[index],
        "outcome": OUTCOMES[timeline.outcome[index]],
        "error": timeline.errors[error]["message"] if error >= 0 else "",
    }


def _figures(
    timeline: Timeline, places: list[int], names: list[str]
) -> dict[str, dict[str, float]]:
    lengths: list[list[float]] = [[] for _ in names]
    counts, failed, busy_s = ([0.0] * len(names) for _ in range(3))
    for place, duration_s, pieces, outcome in zip(
        places, timeline.duration_s, timeline.pieces, timeline.outcome, strict=True
    ):
        counts[place] += pieces
        failed[place] += pieces if outcome == FAILED else 0
        busy_s[place] += duration_s
        lengths[place].append(duration_s / max(1, pieces))
    found = {}
    for place, name in enumerate(names):
        each = sorted(lengths[place])
        found[name] = {
            "pieces": counts[place],
            "failed": failed[place],
            "busy_s": busy_s[place],
            "mean_s": busy_s[place] / counts[place] if counts[place] else 0.0,
            "median_s": each[len(each) // 2] if each else 0.0,
            "p95_s": each[min(len(each) - 1, int(0.95 * len(each)))] if each else 0.0,
            "longest_s": each[-1] if each else 0.0,
        }
    return found


def _nothing() -> dict[str, list[Any]]:
    names = ("lanes", "types", "spans", "merged", "failures", "errors")
    return {name: [] for name in names}
