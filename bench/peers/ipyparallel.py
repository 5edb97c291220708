"""ipyparallel: a controller and engines, through a load-balanced view."""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from bench.peers.base import Peer, Sums
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
        calls = (
            lambda number=number: self._view.apply_async(
                touch, fresh_block(number, size)
            )
            for number in range(count)
        )
        return list(enumerate(self._run(calls, BLOCKS_AHEAD, int)))

    def results(self, count: int, size: int) -> Sums:
        """Apply a function that returns a block each, a few ahead."""
        calls = (
            lambda number=number: self._view.apply_async(fresh_block, number, size)
            for number in range(count)
        )
        return list(enumerate(self._run(calls, RESULTS_AHEAD, touch)))

    def worker_pids(self) -> list[int]:
        """Ask the engines."""
        return list(self._client[:].apply_sync(os.getpid))

    def close(self) -> None:
        """End the engines and the controller."""
        self._client.close()
        self._cluster.stop_cluster_sync()

    def _run(
        self, calls: Iterator[Callable[[], Any]], ahead: int, use: Callable[[Any], int]
    ) -> Iterator[int]:
        """Make the calls, so many under way for each engine; results in order."""
        under_way: collections.deque[Any] = collections.deque()
        for call in calls:
            if len(under_way) >= ahead * self._workers:
                yield use(under_way.popleft().get())
            under_way.append(call())
        while under_way:
            yield use(under_way.popleft().get())
        self._forget()

    def _forget(self) -> None:
        """Have client and controller forget results, which they would keep."""
        self._client.purge_everything()
