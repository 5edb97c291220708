"""How many trivial pieces a second one manager gets performed."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.figures import Figure
from bench.peers.opencluster import OpenCluster

WORKERS = (2, 16)


def measure(is_quick: bool) -> list[Figure]:
    """Measure `Manager.map`, and `Manager.submit` with the futures all awaited."""
    runs, count = (3, 1000) if is_quick else (7, 20_000)
    return [figure for n in WORKERS for figure in _with_workers(n, runs, count)]


def _with_workers(workers: int, runs: int, count: int) -> list[Figure]:
    with OpenCluster.started(workers) as ours:
        ways = {"map": ours.noops, "submit": ours.submits}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        ours.noops(count // 10)
        for _ in range(runs):
            for name, way in ways.items():
                rates[name].append(_rate(way, count))
    return [
        Figure("throughput", f"{name}, {workers} workers", "pieces/s", values)
        for name, values in rates.items()
    ]


def _rate(way: Callable[[int], int], count: int) -> float:
    started = time.perf_counter()
    way(count)
    return count / (time.perf_counter() - started)
