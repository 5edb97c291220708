"""The engine on a Dask cluster that is there already.

A worker type is a resource of Dask workers, a piece is a task that needs one of it, and
an instance of the Worker class stays in the process of the Dask worker. What a manager
sees is as on OpenCluster: same values, same errors, same options. Needs the package
`distributed` here and OpenCluster on the Dask workers, nothing on the scheduler.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from opencluster.config import Config
from opencluster.core.chunks import Moved
from opencluster.engines.base import Done, Job, Options, Where, WorkerInfo
from opencluster.engines.dask import runs, scheduler
from opencluster.engines.dask.census import Census
from opencluster.engines.dask.flights import Flights
from opencluster.engines.dask.messages import Parts, topic_of
from opencluster.engines.dask.services import Caller, aside
from opencluster.engines.dask.tasks import Flight
from opencluster.engines.dask.values import DaskValues
from opencluster.engines.dask.worker import end_session
from opencluster.engines.tickets import Ticket, piece_of
from opencluster.references import DataRef
from opencluster.wire import codec
from opencluster.wire.batches import check_size

CLOSE_S = 5.0
"""How long the Dask workers may take to hear that this program ends."""


class DaskEngine:
    """Sends pieces to Dask workers.

    Parameters
    ----------
    config : Config
        The settings.
    client : distributed.Client
        The way to the Dask cluster.
    is_ours : bool
        The client ends with the engine.
    """

    is_immediate = False

    def __init__(self, config: Config, client: Any, is_ours: bool) -> None:
        self.config = config
        self._client = client
        self._is_ours = is_ours
        self._session = str(client.id)
        self._census = Census(client, config.dask.resources, self._greet)
        self._values = DaskValues(client)
        self._caller = Caller(self._session, {}, lambda: client, self._values.resolve)
        self._flights = Flights(config, client, self._census, self._values)
        # the client of a Dask worker may have had an engine before
        self._numbers = itertools.count(1 if is_ours else time.time_ns())
        self._census.ask_now()

    # --- pieces --------------------------------------------------------------

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        """Take pieces, and return their numbers; `done` may be called before.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; nothing of this call is submitted then.
        """
        flights = []
        now = time.monotonic()
        refs: list[DataRef] = []
        for value, options in pieces:
            payload, buffers = codec.encode(value, "piece", refs)
            nbytes = check_size(payload, buffers, self.config.network.max_message_bytes)
            ticket = Ticket(payload, buffers, nbytes, options, done, job, tuple(refs))
            refs = []
            piece = piece_of(next(self._numbers), type, options, job)
            flights.append(Flight(piece, ticket, now))
            if job is not None:
                job.statistics.pieces_submitted += 1
                job.statistics.bytes_sent += nbytes
        self._wait_for_room()
        self._census.use(type)
        self._flights.submit(type, flights)
        return [flight.piece.id for flight in flights]

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something holds that a `Done` brings about; tell whether it does.

        Raises
        ------
        RuntimeError
            When a `Done` calls it: what it waits for could never come.
        """
        return self._flights.wait(is_over, timeout_s)

    def nudge(self) -> None:
        """Have whoever waits look again at what it waits for."""
        self._flights.nudge()

    def cancel(self, pieces: Iterable[int]) -> None:
        """Give up pieces: drop what waits, interrupt what runs."""
        self._flights.cancel(pieces)

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Interrupt pieces that run; those that do not run yet are cancelled."""
        self._flights.interrupt(pieces)

    def interrupt_worker(self, worker: str) -> None:
        """Interrupt what this manager's piece an instance runs."""
        type = worker.partition("@")[0]
        found = self._census.infos(type).get(worker)
        if found is None:
            return

        async def stop() -> None:
            await self._client.run(
                runs.stop_worker,
                self._session,
                worker,
                workers=[found[1]],
                on_error="ignore",
            )

        self._client.loop.add_callback(stop)

    # --- workers and services ------------------------------------------------

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the instances of a type, the least loaded first, at least one.

        Raises
        ------
        NoSuitableWorker
            When none came within the time allowed.
        """
        self._census.use(type)
        self._census.wait_for(type, wait_s)
        loads = self._flights.loads()
        infos = [info for info, _, _ in self._census.infos(type).values()]
        return sorted(infos, key=lambda info: loads.get(info.id, 0))

    def types(self) -> Mapping[str, int]:
        """Return the worker types that Dask workers offer, with how many of each."""
        if self._census.is_stale and not self._client.asynchronous:
            with suppress(OSError, RuntimeError, TimeoutError):
                self._census.ask_now()
        return self._census.types()

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, which is made on some Dask worker."""
        return self._caller.call(service, method, args, kwargs)

    # --- values --------------------------------------------------------------

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Give values to Dask workers to hold, and wait until they do.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; none is given to anybody then.
        NoSuitableWorker
            When there is nobody to hold them.
        """
        encoded = []
        for value in values:
            refs: list[DataRef] = []
            payload, buffers = codec.encode(value, "value", refs)
            encoded.append((Parts(payload, buffers), refs))
        if not encoded:
            return []
        holders = self._census.holders(where, self.config.manager.worker_wait_s)
        turns = itertools.cycle(holders)
        names = [next(turns) for _ in encoded]
        ids = [self._values.new_id() for _ in encoded]
        parts = {
            f"value-{id.hex()}": row[0] for id, row in zip(ids, encoded, strict=True)
        }
        by_address: dict[str, dict[str, Parts]] = {}
        for key, name in zip(parts, names, strict=True):
            by_address.setdefault(holders[name], {})[key] = parts[key]
        if where.everywhere:
            addresses = self._census.one_of_each_host(list(holders.values()))
            with aside():
                held = self._client.scatter(
                    parts, workers=addresses, broadcast=True, hash=False
                )
        else:
            with aside():
                held = self._client.sync(self._scatter_all, by_address)
        return [
            self._values.hold(id, held[key], parts[key].nbytes, name, refs)
            for id, key, name, (_, refs) in zip(ids, parts, names, encoded, strict=True)
        ]

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return the values that references stand for, and wait for them."""
        if not refs:
            return []
        with aside():
            return self._values.fetch(refs)

    def release(self, refs: Sequence[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        self._values.release(refs)

    # --- the rest ------------------------------------------------------------

    def moved(self) -> Moved:
        """Return zeros: Dask does not tell how far it is."""
        return Moved()

    def report(self, job: Job) -> None:
        """Nobody is there to be told: a Dask cluster has no factories."""

    def close(self) -> None:
        """Give up what is unfinished, and end what was made on the Dask workers."""
        self._flights.close()
        if self._client.status == "running":
            with suppress(Exception):
                self._client.unsubscribe_topic(topic_of(self._session))
                self._client.sync(self._say_goodbye, callback_timeout=CLOSE_S)
        if self._is_ours:
            with suppress(Exception):
                self._client.close(CLOSE_S)

    async def _scatter_all(
        self, by_address: Mapping[str, dict[str, Parts]]
    ) -> dict[str, Any]:
        held: dict[str, Any] = {}
        calls = (
            self._client.scatter(parts, workers=[address], hash=False)
            for address, parts in by_address.items()
        )
        for part in await asyncio.gather(*calls):
            held.update(part)
        return held

    async def _greet(self) -> None:
        """Have a scheduler send what concerns this program, and care for its pieces."""
        self._client.subscribe_topic(topic_of(self._session), self._flights.event)
        await self._client.register_plugin(scheduler.plugin())

    async def _say_goodbye(self) -> None:
        addresses = {
            address
            for type in self._flights.types
            for address in self._census.addresses(type)
        }
        if addresses:
            await self._client.run(
                end_session, self._session, workers=list(addresses), on_error="ignore"
            )

    def _wait_for_room(self) -> None:
        bound = self.config.manager.max_pending
        if len(self._flights) >= bound and not self._flights.is_current:
            self.wait(lambda: len(self._flights) < bound)
