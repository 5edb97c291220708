"""What is measured, the same for every peer: each workload, how it is timed.

A workload is given a peer that runs already and a number of seconds. It first finds out
how much work fits into them, which also warms the peer up; that is remembered, so that
later slices of the same process begin at once. Answers are checked after the clock has
stopped.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.collectives import (
    broadcast_time,
    copies_in_memory,
    join_memory,
    join_time,
)
from bench.figures import percentile
from bench.peers.base import Peer
from bench.points import Point, Run
from bench.tasks import LARGE, SMALL, WrongAnswer, check

MOST_TRIPS = 5000
WARM_UP = 16
"""So many times what is tried first is done before, so that each worker has some."""
MOST_PIECES = 1_000_000
MOST_GROWTH = 8.0
"""A run is at most so many times as long as the one from which it was foretold."""
ENOUGH = 0.5
"""Of the budget, which the run that counts has to last."""
MEGA = 1e6


@dataclass(frozen=True)
class Workload:
    """Something that is measured.

    Attributes
    ----------
    name : str
        By which it is asked for.
    title : str
        What it is, for people.
    unit : str
        Of its figures.
    asks : str
        The method of `Peer` that it needs.
    is_time : bool
        Whether less is better.
    run : callable or None
        Given a peer, the seconds of a slice and what is known from earlier slices,
        returns figures. ``None`` when the figures come with the start of a peer.
    is_packed : bool
        Whether the many workers share few processes.
    """

    name: str
    title: str
    unit: str
    asks: str
    is_time: bool
    run: Run | None = None
    is_packed: bool = False


# --- how each is timed -----------------------------------------------------------


def _round_trips(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
    """Send one piece and wait for it, again and again; the median is the figure."""
    if not known:
        for _ in range(20):
            peer.noop()
        known["trips"] = 20
    taken: list[float] = []
    until = time.perf_counter() + budget_s
    while len(taken) < MOST_TRIPS and (now := time.perf_counter()) < until:
        peer.noop()
        taken.append((time.perf_counter() - now) * 1e6)
    tail = percentile(taken, 99)
    return [Point(statistics.median(taken), len(taken), extra={"p99": tail})]


def _rate(way: str) -> Run:
    """Return what measures how many pieces a second go through a method."""

    def run(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
        def perform(count: int) -> float:
            started = time.perf_counter()
            answers = getattr(peer, way)(count)
            elapsed_s = time.perf_counter() - started
            if answers != count:
                raise WrongAnswer(f"{answers} of {count} pieces were answered")
            return elapsed_s

        count, elapsed_s = _fill(perform, budget_s, known, first=64)
        return [Point(count / elapsed_s, count)]

    return run


def _bandwidth(way: str, size: int) -> Run:
    """Return what measures how many MB/s of blocks go through a method."""

    def run(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
        def perform(count: int) -> float:
            return _move(peer, way, count, size)

        count, elapsed_s = _fill(perform, budget_s, known, first=4)
        return [Point(count * size / elapsed_s / MEGA, count)]

    return run


def _elapsed(size: int, ladder: tuple[int, ...]) -> Run:
    """Return what measures the time that growing numbers of blocks take."""

    def run(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
        points: list[Point] = []
        if not known:
            known["warm"] = 1
            _move(peer, "blocks", ladder[0], size)
        for count in ladder:
            # of the quickest, as one hiccup must not hide what is to come
            each_s = min((point.value / point.at for point in points), default=0.0)
            if each_s * count > budget_s:
                break
            points.append(Point(_move(peer, "blocks", count, size), count, at=count))
        return points

    return run


def _move(peer: Peer, way: str, count: int, size: int) -> float:
    """Return the seconds that so many blocks took; all answers are right."""
    started = time.perf_counter()
    sums = getattr(peer, way)(count, size)
    elapsed_s = time.perf_counter() - started
    check(sums, count, size)
    return elapsed_s


def _fill(
    perform: Callable[[int], float],
    budget_s: float,
    known: dict[str, int],
    first: int,
) -> tuple[int, float]:
    """Do as much as fits into the budget, or most of it.

    Returns
    -------
    count : int
        How much was done in the last run, the one that counts.
    elapsed_s : float
        How long that took.
    """
    if not known:
        # whatever is imported, opened or learned at first is paid here, by all workers
        perform(WARM_UP * first)
    count = known.get("count", first)
    while True:
        elapsed_s = perform(count)
        fitting = int(count * min(MOST_GROWTH, budget_s / elapsed_s))
        known["count"] = max(1, min(MOST_PIECES, fitting))
        if elapsed_s >= ENOUGH * budget_s or known["count"] <= count:
            return count, elapsed_s
        count = known["count"]


# --- all of them -------------------------------------------------------------------

WORKLOADS = (
    Workload("startup", "start, to the first result", "s", "noop", True),
    Workload("memory", "private memory of an idle worker", "MiB", "worker_pids", True),
    Workload(
        "copies",
        "copies in memory of 100 MB that all workers have",
        "copies",
        "spread",
        True,
        copies_in_memory,
    ),
    Workload(
        "reduce-memory",
        "growth of the manager that joins 64 arrays of 16 MB",
        "MiB",
        "joined",
        True,
        join_memory,
    ),
    Workload(
        "roundtrip",
        "round trip of a trivial piece, median",
        "µs",
        "noop",
        True,
        _round_trips,
    ),
    Workload(
        "pieces",
        "trivial pieces, mapped",
        "pieces/s",
        "noops",
        False,
        _rate("noops"),
    ),
    Workload(
        "submits",
        "trivial pieces, a call for each",
        "pieces/s",
        "submits",
        False,
        _rate("submits"),
    ),
    Workload(
        "blocks-100k",
        "blocks of 100 KB to workers",
        "MB/s",
        "blocks",
        False,
        _bandwidth("blocks", SMALL),
    ),
    Workload(
        "blocks-5m",
        "blocks of 5 MB to workers",
        "MB/s",
        "blocks",
        False,
        _bandwidth("blocks", LARGE),
    ),
    Workload(
        "results-5m",
        "blocks of 5 MB from workers",
        "MB/s",
        "results",
        False,
        _bandwidth("results", LARGE),
    ),
    Workload(
        "inplace-100k",
        "blocks of 100 KB to workers, in place",
        "MB/s",
        "blocks_in_place",
        False,
        _bandwidth("blocks_in_place", SMALL),
    ),
    Workload(
        "inplace-5m",
        "blocks of 5 MB to workers, in place",
        "MB/s",
        "blocks_in_place",
        False,
        _bandwidth("blocks_in_place", LARGE),
    ),
    Workload(
        "inplace-results",
        "blocks of 5 MB from workers, in place",
        "MB/s",
        "results_in_place",
        False,
        _bandwidth("results_in_place", LARGE),
    ),
    Workload(
        "broadcast",
        "broadcast of 100 MB, until all workers have read it",
        "s",
        "spread",
        True,
        broadcast_time,
    ),
    Workload(
        "reduce",
        "64 arrays of 16 MB that workers have, joined into one",
        "s",
        "joined",
        True,
        join_time,
    ),
    Workload(
        "figure8",
        "elapsed time of blocks of 100 KB (the paper's Figure 8)",
        "s",
        "blocks",
        True,
        _elapsed(SMALL, (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)),
    ),
    Workload(
        "figure9",
        "elapsed time of blocks of 5 MB (the paper's Figure 9)",
        "s",
        "blocks",
        True,
        _elapsed(LARGE, (1, 3, 10, 30, 100, 300, 1000)),
    ),
    Workload(
        "crowd",
        "trivial pieces, mapped to many workers in few processes",
        "pieces/s",
        "start_packed",
        False,
        _rate("noops"),
        is_packed=True,
    ),
)
"""In the order in which they are measured and shown."""

_BY_NAME = {workload.name: workload for workload in WORKLOADS}
NAMES = tuple(_BY_NAME)


class UnknownWorkload(Exception):
    """A name that is no workload."""


def find(name: str) -> Workload:
    """Return a workload by its name.

    Raises
    ------
    UnknownWorkload
        When there is none.
    """
    if name not in _BY_NAME:
        raise UnknownWorkload(f"{name!r} is no workload; there are: {', '.join(NAMES)}")
    return _BY_NAME[name]


def choose(words: list[str]) -> list[Workload]:
    """Return the workloads of these names, each once, in the order of the list."""
    wanted: set[Any] = {find(word).name for word in words}
    return [workload for workload in WORKLOADS if workload.name in wanted]
