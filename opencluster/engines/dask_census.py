"""Which Dask workers are there, and what they offer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from opencluster.engines.base import WorkerInfo
from opencluster.engines.dask_worker import seat_id

FRESH_S = 1.0
"""What was asked for so long ago is asked for again; for many workers less often."""
WORKERS_A_SECOND = 500


@dataclass(frozen=True, slots=True)
class DaskWorker:
    """A Dask worker.

    Attributes
    ----------
    address, host : str
        Where it is.
    threads : int
        Tasks that it runs at a time.
    resources : mapping of str to float
        What it offers.
    """

    address: str
    host: str
    threads: int
    resources: dict[str, float]


class Census:
    """The Dask workers, as of a moment ago.

    Parameters
    ----------
    client : distributed.Client
        Who is asked.
    has_resources : bool
        A worker type is a resource; otherwise every thread performs every type.
    """

    def __init__(self, client: Any, has_resources: bool) -> None:
        self._client = client
        self._has_resources = has_resources
        self._workers: dict[str, DaskWorker] = {}
        self._asked_at = float("-inf")
        self._used: set[str] = set()

    async def ask(self) -> None:
        """Ask the scheduler."""
        self._asked_at = time.monotonic()
        identity = await self._client.scheduler.identity()
        self._workers = {
            address: DaskWorker(
                address,
                str(row["host"]),
                int(row["nthreads"]),
                dict(row["resources"]),
            )
            for address, row in identity["workers"].items()
        }

    @property
    def is_stale(self) -> bool:
        """Whether it is time to ask again."""
        age_s = max(FRESH_S, len(self._workers) / WORKERS_A_SECOND)
        return time.monotonic() - self._asked_at > age_s

    def ask_now(self) -> None:
        """Ask the scheduler, and wait for it; not in the thread of Dask's loop."""
        self._client.sync(self.ask)

    def use(self, type: str) -> None:
        """Note that pieces of a type are performed, if any worker may do that."""
        self._used.add(type)

    def forget(self, address: str) -> None:
        """Count a Dask worker no more, whatever the scheduler says next."""
        self._workers.pop(address, None)

    def seats(self, type: str) -> dict[str, int]:
        """Return how many pieces of a type each Dask worker performs at a time."""
        if not self._has_resources:
            return {w.address: w.threads for w in self._workers.values()}
        found = ((w.address, w.resources.get(type, 0)) for w in self._workers.values())
        return {address: int(count) for address, count in found if count >= 1}

    def types(self) -> dict[str, int]:
        """Return the worker types, with how many pieces are performed at a time."""
        if not self._has_resources:
            threads = sum(w.threads for w in self._workers.values())
            return dict.fromkeys(self._used, threads) if threads else {}
        counts: dict[str, int] = {}
        for worker in self._workers.values():
            for name, count in worker.resources.items():
                counts[name] = counts.get(name, 0) + int(count)
        return counts

    def addresses(self, type: str) -> list[str]:
        """Return the Dask workers that perform a type, or all if none is named."""
        return list(self.seats(type) if type else self._workers)

    def one_of_each_host(self, addresses: list[str]) -> list[str]:
        """Return one Dask worker of each computer among some."""
        by_host = {self._workers[a].host: a for a in addresses if a in self._workers}
        return list(by_host.values())

    def infos(self, type: str) -> dict[str, tuple[WorkerInfo, str, int]]:
        """Return the instances of a type, by identity, with their address and number.

        They need not be made yet.
        """
        found = {}
        for address, count in self.seats(type).items():
            for number in range(count):
                id = seat_id(type, address, number)
                name = id.rpartition(".")[0]
                host = self._workers[address].host
                found[id] = (WorkerInfo(id, name, type, host), address, number)
        return found
