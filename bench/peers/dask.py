"""Dask distributed on one computer: worker processes of one thread, tcp on loopback."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.base import Peer, Sums
from bench.peers.window import windowed
from bench.tasks import echo, fresh_block, touch

BLOCKS_AHEAD = 4
RESULTS_AHEAD = 2
"""Blocks on their way to, or from, each worker."""
PACKING = 4
"""Processes that many workers are packed into."""
READY_TIMEOUT_S = 180.0
HOST = "127.0.0.1"


class Dask(Peer):
    """As it comes: a worker holds one or two tasks, the others wait in the scheduler.

    The client and the scheduler share this process, as `LocalCluster` has it.
    """

    saturation = 1.1
    is_direct: bool | None = None

    def start(self, workers: int) -> None:
        """Start a scheduler here and worker processes."""
        self._open(workers)
        self._client.wait_for_workers(workers, timeout=READY_TIMEOUT_S)

    def start_packed(self, workers: int) -> None:
        """Start workers in a few processes, each with its connections."""
        self._open(0)
        address = self._cluster.scheduler_address
        spawn = multiprocessing.get_context("spawn")
        for number in range(PACKING):
            count = len(range(number, workers, PACKING))
            process = spawn.Process(target=_host, args=(address, count), daemon=True)
            process.start()
            self._hosts.append(process)
        self._client.wait_for_workers(workers, timeout=READY_TIMEOUT_S)

    def noop(self) -> None:
        """Submit one function and wait for its result."""
        self._client.submit(echo, 1, pure=False).result()

    def noops(self, count: int) -> int:
        """Map the function and gather the results."""
        futures = self._client.map(echo, range(count), pure=False)
        return len(self._client.gather(futures))

    def submits(self, count: int) -> int:
        """Submit the function again and again, then gather the results."""
        futures = [self._client.submit(echo, n, pure=False) for n in range(count)]
        return len(self._client.gather(futures))

    def blocks(self, count: int, size: int) -> Sums:
        """Submit each block as an argument, a few ahead."""
        calls = (self._send(fresh_block(number, size)) for number in range(count))
        return list(windowed(calls, BLOCKS_AHEAD * self._workers, _result))

    def results(self, count: int, size: int) -> Sums:
        """Submit calls that return a block each, a few ahead."""
        submit = self._client.submit
        calls = (submit(fresh_block, n, size, pure=False) for n in range(count))
        results = windowed(calls, RESULTS_AHEAD * self._workers, _result)
        return [(number, touch(block)) for number, block in results]

    @contextmanager
    def spread(self, block: Any) -> Iterator[list[int]]:
        """Scatter to all workers, and have each read its copy."""
        client = self._client
        held = client.scatter(block, broadcast=True, hash=False)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        calls = [client.submit(touch, held, pure=False, workers=w) for w in workers]
        yield client.gather(calls)

    def worker_pids(self) -> list[int]:
        """Ask the workers."""
        return sorted(set(self._client.run(os.getpid).values()))

    def close(self) -> None:
        """Close the client and the cluster."""
        self._client.close()
        self._cluster.close()
        for process in self._hosts:
            process.terminate()
            process.join()

    def _open(self, workers: int) -> None:
        import dask

        dask.config.set(
            {
                "distributed.scheduler.active-memory-manager.start": False,
                "distributed.scheduler.worker-saturation": self.saturation,
                "distributed.admin.large-graph-warning-threshold": "1GB",
                "distributed.logging.distributed": "error",
            }
        )
        from distributed import Client, LocalCluster

        self._hosts: list[multiprocessing.process.BaseProcess] = []
        self._workers = max(1, workers)
        self._cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=HOST,
            dashboard_address=None,
            memory_limit=0,
        )
        self._client = Client(self._cluster, direct_to_workers=self.is_direct)

    def _send(self, block: Any) -> Any:
        return self._client.submit(touch, block, pure=False)


class TunedDask(Dask):
    """All tasks go to the workers at once, and results come straight from them."""

    saturation = float("inf")
    is_direct = True


class ScatteringDask(TunedDask):
    """Each block goes straight to a worker first, as is advised for large data."""

    def _send(self, block: Any) -> Any:
        future = self._client.scatter(block, direct=True, hash=False)
        return self._client.submit(touch, future, pure=False)


def _result(future: Any) -> Any:
    return future.result()


def _host(address: str, count: int) -> None:
    """Run so many workers in this process, each with a server and connections."""
    from distributed import Worker

    async def run() -> None:
        workers = [
            Worker(
                address,
                nthreads=1,
                dashboard=False,
                memory_limit=0,
                host=HOST,
                name=f"{os.getpid()}-{number}",
            )
            for number in range(count)
        ]
        await asyncio.gather(*workers)
        await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(run())
