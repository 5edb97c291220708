"""Pyro5: a daemon for each worker.

A call waits for its answer, so calls overlap in threads, one for each worker. Arrays
travel as bytes in msgpack, the fastest serializer that Pyro5 has.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from bench.peers.base import Peer, Sums
from bench.tasks import echo, fresh_block, touch_bytes

BATCH = 200
"""Trivial calls in one message."""
MAX_MESSAGE_BYTES = 1 << 30


class Pyro5(Peer):
    """A proxy and a thread for each worker; whoever is done takes the next piece."""

    note = f"maps in batches of {BATCH} calls, which are made by its user"

    def start(self, workers: int) -> None:
        """Start the daemons."""
        self._api = _configured()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        spawn = multiprocessing.get_context("spawn")
        pipes = []
        for _ in range(workers):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            self._processes.append(process)
            pipes.append(here)
        self._addresses = [pipe.recv() for pipe in pipes]
        self._proxy = self._api.Proxy(self._addresses[0])
        self._threads = ThreadPoolExecutor(workers)

    def noop(self) -> None:
        """Call the first worker."""
        self._proxy.echo(1)

    def noops(self, count: int) -> int:
        """Call in batches, each of them one message."""

        def call(proxy: Any, numbers: list[int]) -> list[int]:
            batch = self._api.BatchProxy(proxy)
            for number in numbers:
                batch.echo(number)
            return list(batch())

        return len(self._share(count, BATCH, call))

    def submits(self, count: int) -> int:
        """Make a call for each."""
        return len(self._share(count, 1, lambda proxy, n: [proxy.echo(n[0])]))

    def blocks(self, count: int, size: int) -> Sums:
        """Call with the bytes of a block each."""

        def call(proxy: Any, numbers: list[int]) -> list[tuple[int, int]]:
            data = fresh_block(numbers[0], size).tobytes()
            return [(numbers[0], proxy.touch(data))]

        return self._share(count, 1, call)

    def results(self, count: int, size: int) -> Sums:
        """Call for the bytes of a block each."""

        def call(proxy: Any, numbers: list[int]) -> list[tuple[int, int]]:
            return [(numbers[0], touch_bytes(proxy.make(numbers[0], size)))]

        return self._share(count, 1, call)

    def worker_pids(self) -> list[int]:
        """Return the processes that were started."""
        return [process.pid or 0 for process in self._processes]

    def close(self) -> None:
        """End the daemons."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _share(
        self, count: int, batch: int, call: Callable[[Any, list[int]], list[Any]]
    ) -> list[Any]:
        """Have each worker's thread take numbers until there are no more."""
        numbers = iter(range(count))

        def work(address: str) -> list[Any]:
            answers: list[Any] = []
            with self._api.Proxy(address) as proxy:
                # one thread at a time runs Python, so taking from it needs no lock
                while taken := list(islice(numbers, batch)):
                    answers += call(proxy, taken)
            return answers

        return sum(self._threads.map(work, self._addresses), [])


class Servant:
    """What a daemon has."""

    def echo(self, number: int) -> int:
        """Return the number."""
        return echo(number)

    def touch(self, data: bytes) -> int:
        """Read from every page."""
        return touch_bytes(data)

    def make(self, number: int, size: int) -> bytes:
        """Return a fresh block."""
        return fresh_block(number, size).tobytes()


def _configured() -> Any:
    import Pyro5
    import Pyro5.api

    Pyro5.config.SERIALIZER = "msgpack"
    Pyro5.config.MAX_MESSAGE_SIZE = MAX_MESSAGE_BYTES
    return Pyro5.api


def _serve(pipe: Connection) -> None:
    """Answer until ended."""
    api = _configured()
    daemon = api.Daemon(host="127.0.0.1")
    pipe.send(str(daemon.register(api.expose(Servant)())))
    daemon.requestLoop()
