"""OpenCluster as its users have it: a cluster of processes, a Manager, a Worker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.machine import ROOT
from bench.peers.base import Peer, Sums
from bench.tasks import Make, block_in_place, fresh_block, touch
from bench.workers import TARGET, TYPE
from opencluster import DataRef, Manager, WorkPiece
from opencluster.testing import LocalCluster

JOIN_TIMEOUT_S = 180.0
PACKING = 4
"""Processes that many workers are packed into."""


class OpenCluster(Peer):
    """Every promise kept: retries, order, errors, results in their places."""

    def __init__(self) -> None:
        self._packed: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int) -> None:
        """Start a factory, a workshop and its workers."""
        self._cluster = LocalCluster({TARGET: workers})
        self._cluster.__enter__()
        self._join(workers)

    def start_packed(self, workers: int) -> None:
        """Start a factory, a workshop, and processes with many workers each."""
        self._cluster = LocalCluster()
        self._cluster.__enter__()
        for number in range(PACKING):
            count = len(range(number, workers, PACKING))
            command = [sys.executable, "-m", "bench.packed", str(count)]
            self._packed.append(subprocess.Popen(command, cwd=ROOT))
        self._join(workers)

    def noop(self) -> None:
        """Have a piece performed by one worker that was chosen."""
        self._worker.perform(WorkPiece(number=1))

    def noops(self, count: int) -> int:
        """Map over the pieces, the results in order."""
        results = self._manager.map(TYPE, _pieces(count), progress=False)
        return sum(1 for _ in results)

    def submits(self, count: int) -> int:
        """Submit each piece; all futures are kept and then awaited."""
        futures = [self._manager.submit(TYPE, piece) for piece in _pieces(count)]
        return sum(1 for future in futures if future.result())

    def blocks(self, count: int, size: int) -> Sums:
        """Map over pieces with a block each."""
        return self._send(count, size, fresh_block)

    def blocks_in_place(self, count: int, size: int) -> Sums:
        """Map over pieces with a block each, in an array of `opencluster.empty`."""
        return self._send(count, size, block_in_place)

    def results(self, count: int, size: int) -> Sums:
        """Map over pieces that ask for a block each."""
        return self._fetch(count, size, "fresh")

    def results_in_place(self, count: int, size: int) -> Sums:
        """Map over pieces whose workers use arrays of `opencluster.empty`."""
        return self._fetch(count, size, "in place")

    @contextmanager
    def spread(self, block: Any) -> Iterator[list[int]]:
        """Broadcast the block, and have each worker read it."""
        ref = self._manager.broadcast(block)
        pieces = [worker.submit(WorkPiece(block=ref)) for worker in self._workers]
        yield [piece.result()["sum"] for piece in pieces]
        self._manager.release(ref)

    def keep_arrays(self, count: int, size: int) -> list[DataRef]:
        """Map over pieces whose results are kept."""
        pieces = _making("array", count, size)
        return list(self._manager.map(TYPE, pieces, keep=True, progress=False))

    def joined(self, arrays: list[DataRef]) -> Any:
        """Reduce in a tree, each worker its share in one piece."""
        arity = max(2, -(-len(arrays) // len(self._workers)))
        result = self._manager.reduce(TYPE, arrays, arity=arity)
        return result["block"]

    def worker_pids(self) -> list[int]:
        """Return what the factory knows of the workers."""
        found = self._cluster.ask_factory("find", {"kind": "worker"})
        return [worker["pid"] for worker in found]

    def close(self) -> None:
        """End the cluster."""
        for process in self._packed:
            process.kill()
            process.wait()
        self._cluster.__exit__()

    def _join(self, workers: int) -> None:
        """Become a manager that knows all the workers."""
        self._manager = Manager()
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while len(found := self._manager.get_available_workers(TYPE)) < workers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(found)} of {workers} workers came")
            time.sleep(0.02)
        self._workers, self._worker = found, found[0]

    def _send(self, count: int, size: int, make: Make) -> Sums:
        pieces = (WorkPiece(block=make(n, size)) for n in range(count))
        results = self._manager.map(TYPE, pieces, progress=False)
        return [(n, result["sum"]) for n, result in enumerate(results)]

    def _fetch(self, count: int, size: int, make: str) -> Sums:
        pieces = _making(make, count, size)
        results = self._manager.map(TYPE, pieces, progress=False)
        return [(n, touch(result["block"])) for n, result in enumerate(results)]


def _pieces(count: int) -> Iterator[WorkPiece]:
    return (WorkPiece(number=number) for number in range(count))


def _making(make: str, count: int, size: int) -> Iterator[WorkPiece]:
    return (WorkPiece(make=make, number=n, size=size) for n in range(count))
