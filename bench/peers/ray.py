"""Ray on one computer: tasks without state, and actors."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.base import Peer, Sums
from bench.peers.window import windowed
from bench.tasks import echo, fresh_block, touch

BLOCKS_AHEAD = 4
RESULTS_AHEAD = 2
"""Blocks on their way to, or from, each worker."""
STORE_BYTES = 2 << 30

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class RayTasks(Peer):
    """A function made remote; a worker process for each core that Ray is given."""

    def start(self, workers: int) -> None:
        """Start Ray, and a worker process for each CPU that it is told of."""
        os.environ.update(_QUIET)
        import ray

        self._ray = ray
        self._workers = workers
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
        self._prepare()

    def noop(self) -> None:
        """Call once and get the result."""
        self._ray.get(self._echo(1))

    def noops(self, count: int) -> int:
        """Call again and again, then get all results."""
        return len(self._ray.get([self._echo(number) for number in range(count)]))

    def submits(self, count: int) -> int:
        """Do the same: there is no other way."""
        return self.noops(count)

    def blocks(self, count: int, size: int) -> Sums:
        """Call with a block each, a few ahead."""
        calls = (self._touch(fresh_block(number, size)) for number in range(count))
        return list(windowed(calls, BLOCKS_AHEAD * self._workers, self._ray.get))

    def results(self, count: int, size: int) -> Sums:
        """Call for a block each, a few ahead."""
        calls = (self._make(number, size) for number in range(count))
        results = windowed(calls, RESULTS_AHEAD * self._workers, self._ray.get)
        return [(number, touch(block)) for number, block in results]

    def worker_pids(self) -> list[int]:
        """Return the processes of Ray that run Python of ours."""
        import psutil

        children = psutil.Process().children(recursive=True)
        return [p.pid for p in children if p.name().startswith("ray::")]

    def close(self) -> None:
        """End Ray."""
        self._ray.shutdown()

    def _prepare(self) -> None:
        self._echo = self._ray.remote(echo).remote
        self._touch = self._ray.remote(touch).remote
        self._make = self._ray.remote(fresh_block).remote


class RayActors(RayTasks):
    """An actor for each worker, called in turn: the fastest way that Ray has."""

    @contextmanager
    def spread(self, block: Any) -> Iterator[list[int]]:
        """Put it into the store of the computer, where each actor reads it."""
        held = self._ray.put(block)
        yield self._ray.get([actor.touch.remote(held) for actor in self._actors])

    def _prepare(self) -> None:
        actor = self._ray.remote(num_cpus=1)(_Worker)
        actors = [actor.remote() for _ in range(self._workers)]
        self._ray.get([actor.echo.remote(0) for actor in actors])
        self._actors = actors
        self._echo = _in_turn([actor.echo.remote for actor in actors])
        self._touch = _in_turn([actor.touch.remote for actor in actors])
        self._make = _in_turn([actor.make.remote for actor in actors])


class _Worker:
    """The actor."""

    def echo(self, number: int) -> int:
        return echo(number)

    def touch(self, block: Any) -> int:
        return touch(block)

    def make(self, number: int, size: int) -> Any:
        return fresh_block(number, size)


def _in_turn(calls: list[Callable[..., Any]]) -> Callable[..., Any]:
    """Return a call that is each of these in turn."""
    turns = collections.deque(calls)

    def call(*arguments: Any) -> Any:
        turns.rotate(-1)
        return turns[0](*arguments)

    return call
