"""How many trivial pieces a second one manager gets performed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from bench.figures import Figure
from bench.workers import TARGET, TYPE
from opencluster import Manager, WorkPiece
from opencluster.testing.local_cluster import LocalCluster

WORKERS = (2, 16)
JOIN_TIMEOUT_S = 60.0


def measure(is_quick: bool) -> list[Figure]:
    """Measure `Manager.map`, and `Manager.submit` with the futures all awaited."""
    runs, count = (3, 1000) if is_quick else (7, 20_000)
    return [figure for n in WORKERS for figure in _with_workers(n, runs, count)]


def _with_workers(workers: int, runs: int, count: int) -> list[Figure]:
    ways = {"map": _map, "submit": _submit}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with LocalCluster({TARGET: workers}):
        manager = Manager()
        _wait_for(manager, workers)
        _map(manager, count // 10)
        for _ in range(runs):
            for name, way in ways.items():
                rates[name].append(_rate(way, manager, count))
    return [
        Figure("throughput", f"{name}, {workers} workers", "pieces/s", values)
        for name, values in rates.items()
    ]


def _rate(way: Callable[[Manager, int], None], manager: Manager, count: int) -> float:
    started = time.perf_counter()
    way(manager, count)
    return count / (time.perf_counter() - started)


def _map(manager: Manager, count: int) -> None:
    for _ in manager.map(TYPE, _pieces(count), progress=False):
        pass


def _submit(manager: Manager, count: int) -> None:
    futures = [manager.submit(TYPE, piece) for piece in _pieces(count)]
    for future in futures:
        future.result()


def _pieces(count: int) -> Iterator[WorkPiece]:
    return (WorkPiece(number=number) for number in range(count))


def _wait_for(manager: Manager, workers: int) -> None:
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while (here := len(manager.get_available_workers(TYPE))) < workers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {here} of {workers} workers came")
        time.sleep(0.05)
