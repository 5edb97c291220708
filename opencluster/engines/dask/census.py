"""Which Dask workers are there, and what they offer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from opencluster.engines.base import Where, WorkerInfo
from opencluster.engines.dask.worker import seat_id
from opencluster.engines.verdicts import alike
from opencluster.errors import NoSuitableWorker

FRESH_S = 1.0
"""What was asked for so long ago is asked for again; for many workers less often."""
WORKERS_A_SECOND = 500
LOOK_S = 0.1
"""How often a look is taken for a first worker of a type."""


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
    greet : callable
        Awaited when there is a scheduler that was not there before.

    Attributes
    ----------
    address : str
        That of the scheduler.
    """

    def __init__(
        self, client: Any, has_resources: bool, greet: Callable[[], Awaitable[None]]
    ) -> None:
        self._client = client
        self._greet = greet
        self.address = str(client.scheduler.address)
        self._scheduler = ""
        self._has_resources = has_resources
        self._workers: dict[str, DaskWorker] = {}
        self._asked_at = float("-inf")
        self._used: set[str] = set()

    async def ask(self) -> None:
        """Ask the scheduler."""
        self._asked_at = time.monotonic()
        if self._client.scheduler is None:
            # it was lost for good
            self._workers = {}
            return
        identity = await self._client.scheduler.identity()
        if identity["id"] != self._scheduler:
            self._scheduler = identity["id"]
            await self._greet()
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
        others = (w for w in self._workers.values() if w.address != address)
        self._workers = {worker.address: worker for worker in others}

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

    def wait_for(self, type: str, wait_s: float) -> dict[str, int]:
        """Return who performs a type, waiting for the first one."""
        until = time.monotonic() + wait_s
        while True:
            seats = self.seats(type)
            if self.is_stale or not seats:
                self.ask_now()
                seats = self.seats(type)
            if seats:
                return seats
            if time.monotonic() >= until:
                raise self.nobody(type)
            time.sleep(LOOK_S)

    def holders(self, where: Where, wait_s: float) -> dict[str, str]:
        """Return who may hold values, with their addresses."""
        if where.workers:
            found = {}
            for id in where.workers:
                info = self.infos(id.partition("@")[0]).get(id)
                if info is not None:
                    found[id] = info[1]
            if found:
                return found
            names = ", ".join(where.workers)
            raise NoSuitableWorker(f"none of these workers is there any more: {names}")
        if where.type:
            self.use(where.type)
            self.wait_for(where.type, wait_s)
            infos = self.infos(where.type)
            return {id: address for id, (_, address, _) in infos.items()}
        if self.is_stale:
            self.ask_now()
        addresses = self.addresses("")
        if not addresses:
            raise NoSuitableWorker(
                f"no Dask worker is there to hold a value, at the scheduler "
                f"{self.address}"
            )
        return {f"Dask@{a.rpartition('//')[2]}.0": a for a in addresses}

    def nobody(self, type: str) -> NoSuitableWorker:
        """Return the error for a type that nobody performs."""
        address = self.address
        if not self._has_resources:
            return NoSuitableWorker(
                f"no worker of type {type!r} is here: no Dask worker is at all, at the "
                f"scheduler {address}"
            )
        return NoSuitableWorker(
            f"no worker of type {type!r} is here: no Dask worker offers a resource of "
            f"that name. There are: {alike(type, self.types())}. Start one "
            f'with `dask worker {address} --resources "{type}=1"`, wait longer with '
            "[manager] worker_wait_s, or have every Dask worker perform every type "
            "with [dask] resources = no"
        )
