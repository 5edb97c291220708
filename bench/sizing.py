"""What a site has to know of its computers: workers for each core, and what idles.

Pieces that compute take a fixed amount of work, so that workers which share a core slow
each other down as they do in life. Pieces that wait, as for a disk or an instrument,
compute half of their time.
"""

from __future__ import annotations

import os
import time

from bench.figures import Figure
from bench.processes import cpu_seconds, private_mib
from bench.workers import TARGET, TYPE
from opencluster import Manager, WorkPiece
from opencluster.testing.local_cluster import LocalCluster

PIECE_S = 0.01
"""About what the computing of a piece takes on an idle core."""
PER_CORE = (0.5, 1, 2, 4)
IDLE_WORKERS = 8


def measure(is_quick: bool) -> list[Figure]:
    """Measure pieces a second for each core, and what an idle cluster takes."""
    runs, span_s, idle_s = (2, 0.2, 0.2) if is_quick else (5, 2.0, 5.0)
    cores = len(os.sched_getaffinity(0))
    loops = _loops()
    figures = []
    for per_core in PER_CORE:
        workers = max(1, int(per_core * cores))
        figures += _rates(workers, cores, loops, runs, span_s)
    return figures + _idle(runs, idle_s)


def _loops() -> int:
    """Return how much work an idle core does in `PIECE_S`."""
    loops, best_s = 100_000, 1.0
    for _ in range(10):
        started = time.perf_counter()
        sum(range(loops))
        best_s = min(best_s, time.perf_counter() - started)
    return int(loops * PIECE_S / best_s)


def _rates(
    workers: int, cores: int, loops: int, runs: int, span_s: float
) -> list[Figure]:
    """Return the rates of both kinds of pieces with so many workers."""
    kinds = {"that compute": 0.0, "that wait half of the time": PIECE_S}
    with LocalCluster({TARGET: workers}):
        return [
            Figure(
                "workers per core",
                f"pieces {name}, {workers} workers on {cores} cores",
                "pieces/s",
                [_rate(loops, wait_s, workers, span_s) for _ in range(runs)],
            )
            for name, wait_s in kinds.items()
        ]


def _rate(loops: int, wait_s: float, workers: int, span_s: float) -> float:
    """Return how many pieces a second are done of about what fills a time span."""
    at_once = min(workers, len(os.sched_getaffinity(0)))
    count = max(2 * workers, int(at_once * span_s / (PIECE_S + wait_s)))
    pieces = [WorkPiece(loops=loops, wait_s=wait_s) for _ in range(count)]
    started = time.perf_counter()
    done = sum(1 for _ in Manager().map(TYPE, pieces, ordered=False, progress=False))
    return done / (time.perf_counter() - started)


def _idle(runs: int, idle_s: float) -> list[Figure]:
    """Return processor time and memory of daemons and workers that do nothing."""
    with LocalCluster({TARGET: IDLE_WORKERS}) as cluster:
        daemons = cluster.place.read()
        workers = [e["pid"] for e in cluster.ask_factory("find", {"kind": "worker"})]
        groups = {
            "factory": [daemons["factories"][0]["pid"]],
            f"workshop of {IDLE_WORKERS} workers": [daemons["workshops"][0]["pid"]],
            "worker": workers,
        }
        time.sleep(idle_s / 2)
        shares = _shares(groups, runs, idle_s)
        memory = {name: [*map(private_mib, pids)] for name, pids in groups.items()}
    units = {"processor": ("% of a core", shares), "private memory": ("MiB", memory)}
    return [
        Figure("idle", f"{name}, {what}", unit, values[name])
        for what, (unit, values) in units.items()
        for name in groups
    ]


def _shares(
    groups: dict[str, list[int]], runs: int, span_s: float
) -> dict[str, list[float]]:
    """Return which share of a core each process takes, in percent."""
    shares: dict[str, list[float]] = {name: [] for name in groups}
    for _ in range(runs):
        started = time.perf_counter()
        before_s = {name: cpu_seconds(pids) for name, pids in groups.items()}
        time.sleep(span_s)
        elapsed_s = time.perf_counter() - started
        for name, pids in groups.items():
            used_s = cpu_seconds(pids) - before_s[name]
            shares[name].append(100 * used_s / elapsed_s / len(pids))
    return shares
