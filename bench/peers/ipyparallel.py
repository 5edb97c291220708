"""ipyparallel: a controller and engines, through a load-balanced view."""

from __future__ import annotations

import logging
import os
from typing import Any

from bench.peers.base import Peer, Sums
from bench.peers.window import windowed
from bench.tasks import echo, fresh_block, touch

BLOCKS_AHEAD = 4
RESULTS_AHEAD = 2
"""Blocks on their way to, or from, each engine."""


class Ipyparallel(Peer):
    """Functions applied by whichever engine is free."""

    def start(self, workers: int) -> None:
        """Start a controller and engines, and connect."""
        import ipyparallel

        self._workers = workers
        self._cluster = ipyparallel.Cluster(n=workers, log_level=logging.ERROR)
        self._client = self._cluster.start_and_connect_sync(activate=False)
        self._view = self._client.load_balanced_view()

    def noop(self) -> None:
        """Apply the function once."""
        self._view.apply_sync(echo, 1)

    def noops(self, count: int) -> int:
        """Map the function."""
        answers = len(self._view.map_sync(echo, range(count)))
        self._forget()
        return answers

    def submits(self, count: int) -> int:
        """Apply the function again and again, then get all results."""
        futures = [self._view.apply_async(echo, number) for number in range(count)]
        answers = sum(1 for future in futures if future.get() is not None)
        self._forget()
        return answers

    def blocks(self, count: int, size: int) -> Sums:
        """Apply a function to a block each, a few ahead."""
        apply = self._view.apply_async
        calls = (apply(touch, fresh_block(number, size)) for number in range(count))
        sums = list(windowed(calls, BLOCKS_AHEAD * self._workers, _result))
        self._forget()
        return sums

    def results(self, count: int, size: int) -> Sums:
        """Apply a function that returns a block each, a few ahead."""
        apply = self._view.apply_async
        calls = (apply(fresh_block, number, size) for number in range(count))
        results = windowed(calls, RESULTS_AHEAD * self._workers, _result)
        sums = [(number, touch(block)) for number, block in results]
        self._forget()
        return sums

    def worker_pids(self) -> list[int]:
        """Ask the engines."""
        return list(self._client[:].apply_sync(os.getpid))

    def close(self) -> None:
        """End the engines and the controller."""
        self._client.close()
        self._cluster.stop_cluster_sync()

    def _forget(self) -> None:
        """Have client and controller forget results, which they would keep."""
        self._client.purge_everything()


def _result(call: Any) -> Any:
    return call.get()
