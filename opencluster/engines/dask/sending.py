"""How pieces of a Dask engine are sent."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from opencluster.config import Config
from opencluster.engines.base import Outcome
from opencluster.engines.dask.census import Census
from opencluster.engines.dask.classes import Recipes, digest_of
from opencluster.engines.dask.messages import Order
from opencluster.engines.dask.tasks import (
    Flight,
    Pace,
    Task,
    dask_priority,
    in_dask_order,
    scatter,
    submit,
)
from opencluster.engines.dask.values import DaskValues
from opencluster.errors import DataLost

log = logging.getLogger(__name__)

PAUSE_S = 0.1
"""How long a piece waits whose data could not be sent: that worker is gone then."""


class Sending:
    """Makes Dask tasks of pieces.

    Parameters
    ----------
    config : Config
        The settings.
    client : distributed.Client
        The way to the Dask cluster.
    census, values
        Who is there, and what references stand for.
    sent : callable
        Given the tasks that Dask has now.
    failed : callable
        Given a task that Dask did not take, and why if that is known.
    ended : callable
        Given a piece that cannot be sent, and its outcome.
    again : callable
        Given pieces that did not reach a Dask worker.
    """

    def __init__(
        self,
        config: Config,
        client: Any,
        census: Census,
        values: DaskValues,
        sent: Callable[[Sequence[Task]], None],
        failed: Callable[[Task, BaseException | None], None],
        ended: Callable[[Flight, Outcome], None],
        again: Callable[[Sequence[Flight]], None],
    ) -> None:
        self.recipes = Recipes(config)
        self.pace = Pace()
        self._config = config
        self._client = client
        self._session = str(client.id)
        self._census = census
        self._values = values
        self._sent, self._failed = sent, failed
        self._ended, self._again = ended, again
        self._sent_recipes: set[str] = set()

    def send(self, type: str, flights: Sequence[Flight], under_way: int) -> None:
        """Send pieces of a type; those that cannot be sent end.

        Parameters
        ----------
        type : str
            The worker type.
        flights : sequence of Flight
            The pieces.
        under_way : int
            All pieces of the type that are under way.
        """
        seats = sum(self._census.seats(type).values())
        infos = None
        groups: dict[tuple[int, str], list[Task]] = {}
        bundles = self.pace.bundles(type, flights, under_way, seats)
        for bundle in bundles:
            task = Task(self._values.new_id(), type, bundle)
            named = task.options.worker
            if named:
                infos = infos or self._census.infos(type)
                if named in infos:
                    _, task.address, task.seat = infos[named]
            for flight in bundle:
                flight.task = task
                flight.tries += 1
            priority = dask_priority(bundle[0].piece)
            groups.setdefault((priority, task.address), []).append(task)
        if self._client.status in ("closing", "closed"):
            for task in itertools.chain.from_iterable(groups.values()):
                self._failed(task, None)
            return
        for (priority, address), tasks in groups.items():
            if any(task.flights[0].is_large for task in tasks):
                self._client.loop.add_callback(
                    partial(self._send_large, tasks, priority, address)
                )
            else:
                self._launch(tasks, priority, address)

    async def _send_large(
        self, tasks: Sequence[Task], priority: int, address: str
    ) -> None:
        """Send the data of large pieces, and each of them when that is there."""
        turns = itertools.cycle(self._census.addresses(tasks[0].type) or [""])

        async def send(task: Task, place: str) -> None:
            try:
                await scatter(self._client, task, address or place)
            except (OSError, TimeoutError, KeyError, ValueError) as error:
                log.warning("a piece did not reach %s: %s", place, error)
                # the worker is gone by now, or in a moment
                await asyncio.sleep(PAUSE_S)
                self._again(task.flights)
                return
            self._launch([task], priority, address)

        await asyncio.gather(
            *(send(task, next(turns)) for task in tasks if task.flights[0].is_large)
        )
        small = [task for task in tasks if not task.flights[0].is_large]
        if small:
            self._launch(small, priority, address)

    def _launch(self, tasks: Sequence[Task], priority: int, address: str) -> None:
        rows = []
        ids = in_dask_order([task.id for task in tasks])
        for task, id in zip(tasks, ids, strict=True):
            # of one graph, too, the first is to run first
            task.id = id
            refs = [ref for flight in task.flights for ref in flight.ticket.refs]
            try:
                values = self._values.futures(refs)
            except DataLost as error:
                for flight in task.flights:
                    self._ended(flight, Outcome(error=error))
                continue
            order = self._order(task, list(values))
            rows.append((task, order, list(values.values())))
        if not rows:
            return
        try:
            submit(self._client, rows, priority, address, self._config.dask.resources)
        except Exception as error:
            # such as a client that was closed
            for task, _, _ in rows:
                self._failed(task, error)
            return
        self._sent([task for task, _, _ in rows])

    def _order(self, task: Task, values: Sequence[bytes]) -> bytes:
        recipe, _ = self.recipes.worker(task.type)
        is_first = task.type not in self._sent_recipes
        is_asked = any(flight.tries > 1 for flight in task.flights)
        self._sent_recipes.add(task.type)
        options, grace = task.options, self._config.worker
        tickets = [flight.ticket for flight in task.flights]
        order = Order(
            session=self._session,
            type=task.type,
            seat=task.seat,
            task=task.id,
            is_kept=options.keep,
            is_watched=options.on_progress is not None,
            is_urgent=options.deadline_s is not None,
            numbers=[flight.piece.id for flight in task.flights],
            timeout_s=options.timeout_s,
            interrupt_grace_s=grace.interrupt_grace_s,
            kill_grace_s=grace.kill_grace_s,
            max_bytes=self._config.network.max_message_bytes,
            digest=digest_of(recipe),
            recipe=recipe if is_first or is_asked else b"",
            rows=[
                None if flight.is_large else [t.payload, list(t.buffers)]
                for flight, t in zip(task.flights, tickets, strict=True)
            ],
            values=values,
        )
        return order.pack()
