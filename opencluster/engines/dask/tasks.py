"""How pieces are made into Dask tasks.

Short pieces go together, as many to a task as take long enough that Dask's own work for
it is little beside them; large ones go to a Dask worker first, past the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import call
from pkgutil import resolve_name
from typing import Any

from opencluster.core.pieces import Piece
from opencluster.engines.base import Options
from opencluster.engines.dask.messages import Parts
from opencluster.engines.dask.scheduler import MARK
from opencluster.engines.tickets import Ticket

PERFORM = "opencluster.engines.dask.worker:perform"
"""Found by its name on the Dask worker, so that the scheduler need not import it."""
BUNDLE_S = 0.01
"""How long the pieces of a bundle take together, by the mean of their type."""
BUNDLE_PIECES = 64
BUNDLES_AHEAD = 2
"""Bundles there are for each instance, or there would be fewer pieces in one."""
LARGE_BYTES = 128 << 10
"""Pieces from this size go past the graph, which the scheduler reads."""
SMOOTHING = 0.1
"""Weight of the newest piece in the mean time of its type."""
REALTIME = 1 << 40
"""What the priority of real-time pieces is raised by."""


@dataclass(slots=True, eq=False)
class Flight:
    """A piece from its submission to its end.

    Attributes
    ----------
    piece : Piece
        What counts its losses.
    ticket : Ticket
        Its data, and whom to tell.
    since : float
        When it was submitted.
    task : Task or None
        The Dask task that it is in.
    tries : int
        How often it was sent.
    """

    piece: Piece
    ticket: Ticket
    since: float
    task: Task | None = None
    tries: int = 0

    @property
    def is_large(self) -> bool:
        """Whether it goes past the graph."""
        return self.ticket.nbytes >= LARGE_BYTES

    @property
    def may_be_bundled(self) -> bool:
        """Whether it may go with others, as long as nothing happened to it."""
        is_plain = self.ticket.options.may_be_bundled and self.ticket.is_small
        return is_plain and not self.tries and not self.is_large


@dataclass(slots=True, eq=False)
class Task:
    """A Dask task of ours.

    Attributes
    ----------
    id : bytes
        Its identity, and that of the value that it keeps.
    type : str
        The worker type.
    flights : list of Flight
        The pieces that it performs.
    address : str
        The Dask worker that is to have it; empty for any.
    seat : int
        Which instance there; -1 for any.
    future : distributed.Future
        What stands for it.
    data : list of distributed.Future
        Pieces that went to a Dask worker before.
    """

    id: bytes
    type: str
    flights: list[Flight]
    address: str = ""
    seat: int = -1
    future: Any = None
    data: list[Any] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What Dask calls it; from this it takes the type for its pages."""
        return f"{self.type}-{self.id.hex()}"

    @property
    def options(self) -> Options:
        """How its pieces are to be run."""
        return self.flights[0].ticket.options


class Pace:
    """How long pieces of each type take, by which they are put together."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def note(self, type: str, elapsed_s: float) -> None:
        """Take in how long a piece took."""
        mean = self._mean_s.get(type, elapsed_s)
        self._mean_s[type] = mean + SMOOTHING * (elapsed_s - mean)

    def bundles(
        self, type: str, flights: Sequence[Flight], under_way: int, seats: int
    ) -> Iterator[list[Flight]]:
        """Yield the pieces that go together.

        Parameters
        ----------
        type : str
            The worker type.
        flights : sequence of Flight
            Pieces to be sent.
        under_way, seats : int
            All pieces that are under way, and how many are performed at a time.
        """
        mean_s = self._mean_s.get(type)
        most = 1
        if mean_s is not None:
            by_time = BUNDLE_S / max(mean_s, BUNDLE_S / BUNDLE_PIECES)
            by_room = math.ceil(under_way / (BUNDLES_AHEAD * max(1, seats)))
            most = max(1, min(BUNDLE_PIECES, int(by_time), by_room))
        bundle: list[Flight] = []
        for flight in flights:
            if not flight.may_be_bundled:
                yield [flight]
                continue
            bundle.append(flight)
            if len(bundle) == most:
                yield bundle
                bundle = []
        if bundle:
            yield bundle


def in_dask_order(ids: Sequence[bytes]) -> list[bytes]:
    """Return the identities of tasks of one type and graph as Dask would run them.

    It orders what is independent by rules of its own, such as the last one first.
    """
    if len(ids) == 1:
        return list(ids)
    from dask.order import order

    keys = {id.hex(): id for id in ids}
    ranks = order(dict.fromkeys(keys, (call, None)))
    return [keys[key] for key in sorted(keys, key=ranks.__getitem__)]


def submit(
    client: Any,
    rows: Iterable[tuple[Task, bytes, Sequence[Any]]],
    priority: int,
    address: str,
    has_resources: bool,
) -> None:
    """Give tasks of one type to Dask, as one graph; their futures are in them then.

    Parameters
    ----------
    client : distributed.Client
        Whose tasks they are.
    rows : iterable of (Task, bytes, sequence)
        Each with its packed order, and futures of the values that it needs.
    priority : int
        Of all of them.
    address : str
        The Dask worker that is to have them; empty for any.
    has_resources : bool
        The type is a resource.
    """
    import dask

    graph = {}
    tasks = []
    for task, order, values in rows:
        found = (resolve_name, PERFORM)
        graph[task.key] = (call, found, order, list(task.data), list(values))
        tasks.append(task)
    keys = [task.key for task in tasks]
    with dask.annotate(**{MARK: True}):
        futures = client.get(
            graph,
            keys,
            sync=False,
            resources={tasks[0].type: 1} if has_resources else None,
            workers=[address] if address else None,
            priority=priority,
            # those of this graph go after those before: of equal ones that came within
            # this time a Dask worker takes the newest
            fifo_timeout=0,
        )
    for task, future in zip(tasks, futures, strict=True):
        task.future = future


async def scatter(client: Any, task: Task, address: str) -> None:
    """Bring the large piece of a task to a Dask worker, before the task goes there."""
    ticket = task.flights[0].ticket
    parts = Parts(ticket.payload, ticket.buffers)
    workers = [address] if address else None
    held = await client.scatter({f"piece-{task.id.hex()}": parts}, workers, hash=False)
    task.data = list(held.values())


def dask_priority(piece: Piece) -> int:
    """Return the priority of a piece among all tasks of a Dask cluster."""
    own = max(1 - REALTIME, min(REALTIME - 1, piece.priority))
    return own + 2 * REALTIME if piece.wait_s is not None else own
