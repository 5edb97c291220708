"""The engine on Dask beside Dask itself: same scheduler, same workers, same run.

Dask is used as its pages advise: `Client.map` for many small calls, and large blocks
scattered straight to the workers before they are used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from bench.figures import Figure
from bench.peers.window import windowed
from bench.tasks import LARGE, check, echo, fresh_block, touch
from bench.workers import TYPE, EchoWorker
from opencluster import Manager, WorkPiece
from opencluster.engines.choice import close_engines

WORKERS = 2
AHEAD = 4 * WORKERS
"""Blocks on their way, as the map of a manager has about so many."""
RUNS, PIECES, BLOCKS = 3, 1000, 20
QUICK_RUNS, QUICK_PIECES, QUICK_BLOCKS = 1, 100, 4


def measure(is_quick: bool) -> list[Figure]:
    """Measure trivial pieces a second, and blocks of 5 MB to the workers and back."""
    runs = QUICK_RUNS if is_quick else RUNS
    pieces = QUICK_PIECES if is_quick else PIECES
    blocks = QUICK_BLOCKS if is_quick else BLOCKS
    with _site() as client:
        peer, ours = _Dask(client), _Ours()
        figures = []
        for what, unit, size, amount in (
            ("noops", "pieces/s", pieces, float(pieces)),
            ("blocks", "MB/s", blocks, blocks * LARGE / 1e6),
            ("results", "MB/s", blocks, blocks * LARGE / 1e6),
        ):
            ways = {"dask": getattr(peer, what), "OpenCluster": getattr(ours, what)}
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(runs):
                for name, way in ways.items():
                    rates[name].append(amount / _seconds(way, size))
            figures += [Figure(what, name, unit, rates[name]) for name in ways]
            pairs = zip(rates["OpenCluster"], rates["dask"], strict=True)
            figures.append(Figure(what, "ratio", "", [a / b for a, b in pairs]))
    return figures


class _Dask:
    """Plain Dask."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.noops(QUICK_PIECES)

    def noops(self, count: int) -> None:
        """Map the trivial call, and gather the results."""
        self._client.gather(self._client.map(echo, range(count), pure=False))

    def blocks(self, count: int) -> None:
        """Scatter each block, and have it read, a few ahead."""
        client = self._client

        def send(number: int) -> Any:
            held = client.scatter(fresh_block(number, LARGE), direct=True, hash=False)
            return client.submit(touch, held, pure=False)

        futures = windowed(map(send, range(count)), AHEAD, lambda f: f.result())
        check(futures, count, LARGE)

    def results(self, count: int) -> None:
        """Have blocks made, and gather them, a few ahead."""
        calls = (
            self._client.submit(fresh_block, number, LARGE, pure=False)
            for number in range(count)
        )
        blocks = windowed(calls, AHEAD, lambda f: f.result())
        check(((number, touch(block)) for number, block in blocks), count, LARGE)


class _Ours:
    """A manager on the engine."""

    def __init__(self) -> None:
        self._manager = Manager("dask")
        self.noops(QUICK_PIECES)

    def noops(self, count: int) -> None:
        """Map the trivial piece."""
        pieces = (WorkPiece(number=number) for number in range(count))
        for _ in self._manager.map(TYPE, pieces):
            pass

    def blocks(self, count: int) -> None:
        """Map blocks that are read."""
        pieces = (WorkPiece(block=fresh_block(n, LARGE)) for n in range(count))
        results = self._manager.map(TYPE, pieces)
        check(((n, result["sum"]) for n, result in enumerate(results)), count, LARGE)

    def results(self, count: int) -> None:
        """Map pieces whose results are blocks."""
        pieces = (WorkPiece(make="fresh", number=n, size=LARGE) for n in range(count))
        results = self._manager.map(TYPE, pieces)
        sums = ((n, touch(result["block"])) for n, result in enumerate(results))
        check(sums, count, LARGE)


@contextmanager
def _site() -> Iterator[Any]:
    """Start a Dask cluster, have the engine use it, and yield a plain client."""
    import dask
    from distributed import Client, LocalCluster

    settings = {"distributed.scheduler.active-memory-manager.start": False}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=":0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            resources={TYPE: 1},
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster, direct_to_workers=True, set_as_default=False) as client,
        patch.dict(os.environ, {"OPENCLUSTER_DASK_ADDRESS": client.scheduler.address}),
    ):
        assert EchoWorker.worker_type in ("", TYPE)
        try:
            yield client
        finally:
            close_engines()


def _seconds(way: Callable[[int], None], count: int) -> float:
    started = time.perf_counter()
    way(count)
    return time.perf_counter() - started
