"""How long one trivial piece takes, there and back, beside a bare ZeroMQ loop."""

from __future__ import annotations

import statistics
import time

from bench.figures import Figure, percentile
from bench.peers.base import Peer
from bench.peers.opencluster import OpenCluster
from bench.peers.zeromq import ZeroMQ

TRIPS = 100
"""Round trips of one side before the other has its turn."""


def measure(is_quick: bool) -> list[Figure]:
    """Measure round trips through ``WorkerHandle.perform``, one after the other.

    The two sides take turns of `TRIPS` within each run, so that whatever else the
    machine does meanwhile falls on both.
    """
    runs, turns = (3, 5) if is_quick else (7, 30)
    with OpenCluster.started(1) as ours, ZeroMQ.started(1) as bare:
        sides = (ours, bare)
        _run(sides, 2)
        return _figures([_run(sides, turns) for _ in range(runs)])


def _run(sides: tuple[Peer, Peer], turns: int) -> tuple[list[float], list[float]]:
    """Return the times of both sides, in microseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for side, taken in zip(sides, times, strict=True):
            for _ in range(TRIPS):
                started = time.perf_counter()
                side.noop()
                taken.append((time.perf_counter() - started) * 1e6)
    return times


def _figures(runs: list[tuple[list[float], list[float]]]) -> list[Figure]:
    medians = [tuple(map(statistics.median, run)) for run in runs]
    tails = [tuple(percentile(side, 99) for side in run) for run in runs]
    rows = [
        ("round trip of a piece, median", "µs", [m[0] for m in medians]),
        ("round trip of a piece, p99", "µs", [t[0] for t in tails]),
        ("bare ZeroMQ loop, median", "µs", [m[1] for m in medians]),
        ("bare ZeroMQ loop, p99", "µs", [t[1] for t in tails]),
        ("ratio of the medians", "", [m[0] / m[1] for m in medians]),
    ]
    return [Figure("latency", name, unit, values) for name, unit, values in rows]
