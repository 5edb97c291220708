"""The engine that OpenCluster itself is: workers found in a registry.

What a program calls, from any of its threads. One of them at a time, or one of the
engine's own, holds the sockets and the `Desk` behind them; callers hand over encoded
pieces and get encoded outcomes back, so that their threads encode, and may decode.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opencluster.config import Config
from opencluster.core.chunks import Moved
from opencluster.core.roles import MANAGER, WORKER
from opencluster.engines.base import (
    Done,
    Job,
    Options,
    Where,
    WorkerInfo,
    perform,
)
from opencluster.engines.desk import Desk
from opencluster.engines.job_orders import CANCELLED
from opencluster.engines.sharing import Sharing
from opencluster.engines.tickets import Numbers, Ticket
from opencluster.engines.traces import follow
from opencluster.errors import NoSuitableWorker
from opencluster.net.joined import open_transport
from opencluster.net.keys import Keyring
from opencluster.net.link import FactoryLink
from opencluster.net.reactor import Reactor
from opencluster.place import Place, factories, keys_directory
from opencluster.references import DataRef
from opencluster.service import SERVICE_PREFIX
from opencluster.tracing import tracing_of
from opencluster.wire import codec
from opencluster.wire.batches import check_size

SEND_AT = 64
"""Pieces that may be submitted before somebody must look after them."""


def connect(config: Config, place: Place) -> ClusterEngine:
    """Return an engine on the cluster that the configuration and the place name."""
    return ClusterEngine(config, place)


class ClusterEngine:
    """Sends pieces to the workers of a cluster.

    Parameters
    ----------
    config : Config
        The settings.
    place : Place
        The cluster's directory, when the settings name no factories.
    has_records : bool
        What outlives this program is kept there: records of jobs, and dead letters.
    """

    is_immediate = False

    def __init__(self, config: Config, place: Place, has_records: bool = True) -> None:
        self.config = config
        self._max_bytes = config.network.max_message_bytes
        self._tracing = tracing_of(config.tracing, "opencluster-manager")
        self._numbers = Numbers()
        self._is_closed = False
        self._is_ended = False
        self._ended = threading.Event()
        keys = Keyring.load(keys_directory(config, place), MANAGER, WORKER)
        self._transport = open_transport(config, keys)
        self._reactor = Reactor(
            self._transport,
            lambda event: self._desk.event(event),
            on_fatal=self._end_all,
            is_vital=False,
            spin_s=config.network.spin_us * 1e-6,
        )
        self._link = FactoryLink(
            self._reactor,
            lambda: factories(config, place),
            config.factory.request_timeout_s,
            # it answers for which types workers will come, however they fail now
            on_up=lambda hello: self._desk.reports.report(),
            patience_s=config.factory.leader_timeout_s,
            keys=keys,
        )
        records = place if has_records else None
        self._desk = Desk(
            config,
            self._reactor,
            self._link,
            self._transport.identity[:4].hex(),
            self._numbers,
            records,
            self._tracing,
        )
        self._sharing = Sharing(
            self._desk.values, self.wait, self._numbers.take, self._max_bytes
        )
        self._reactor.post(self._desk.open)
        self._reactor.start()

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        """Take pieces, and return their numbers; `done` may be called before.

        Who says that they are awaited calls `wait` next, which sends them.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; nothing of this call is submitted then.
        """
        tickets = []
        refs: list[DataRef] = []
        for value, options in pieces:
            payload, buffers = codec.encode(value, "piece", refs)
            nbytes = check_size(payload, buffers, self._max_bytes)
            ticket = Ticket(payload, buffers, nbytes, options, done, job)
            if refs:
                ticket.refs, refs = tuple(refs), []
            tickets.append(ticket)
        self._wait_for_room()
        numbers = self._numbers.take(len(tickets))
        if self._tracing is not None:
            follow(self._tracing, type, zip(numbers, tickets, strict=True))
        desk = self._desk
        intake = desk.intake
        intake.add(type, numbers, tickets)
        if is_awaited:
            self._reactor.prepare(intake.take_in)
        elif len(intake) >= SEND_AT or not desk.tickets:
            self._reactor.serve_turn(intake.take_in)
        else:
            # whoever waits next sends them, many to a message
            self._reactor.post(intake.take_in)
        if self._is_ended:
            intake.refuse()
        if job is not None and job.state == CANCELLED:
            self._reactor.post(lambda: desk.orders.end_pieces(job))
        return numbers

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something holds, serving the sockets meanwhile."""
        if self._reactor.wait_until(is_over, timeout_s):
            return True
        if timeout_s is None:
            # there is no reactor any more: whoever ends it ends what is waited for
            self._ended.wait()
        return is_over()

    def nudge(self) -> None:
        """Have whoever waits look again at what it waits for."""
        self._reactor.post(_nothing)

    def _wait_for_room(self) -> None:
        """Slow down whoever submits faster than pieces are done."""
        bound = self.config.manager.max_pending
        tickets = self._desk.tickets
        if len(tickets) >= bound and not self._reactor.is_current:
            self._reactor.wait_until(lambda: len(tickets) < bound)

    def cancel(self, pieces: Iterable[int]) -> None:
        """Give up pieces: drop what waits, interrupt what runs."""
        wanted = list(pieces)
        self._soon(lambda: self._desk.cancel(wanted))

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Interrupt pieces that run."""
        wanted = list(pieces)
        self._soon(lambda: self._desk.interrupt(wanted))

    def interrupt_worker(self, worker: str) -> None:
        """Interrupt what this manager's piece a worker runs."""
        self._soon(lambda: self._desk.interrupt_at(worker))

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the workers of a type, the least loaded first, at least one.

        Raises
        ------
        NoSuitableWorker
            When none came within the time allowed.
        """
        try:
            return self._desk.roster.wait_for(type, wait_s)
        except NoSuitableWorker as error:
            raise self._desk.shortage.explained(error, type) from None

    def types(self) -> Mapping[str, int]:
        """Return the worker types that are here, with how many of each."""
        return self._desk.roster.directory.types()

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, and wait for what it returns."""
        call = [method, list(args), dict(kwargs)]
        return perform(self, SERVICE_PREFIX + service, call, Options(retries=0))

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Give values to workers to hold, and wait until they do.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; none is given to anybody then.
        WorkError
            When nobody holds one in the end.
        """
        # whatever an engine that is built on this one does to have workers
        ClusterEngine.workers(self, where.type, self.config.manager.worker_wait_s)
        return self._sharing.scatter(values, where)

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return the values that references stand for, and wait for them.

        Raises
        ------
        DataLost
            When one is gone, and cannot be made again.
        """
        return self._sharing.fetch(refs)

    def release(self, refs: Sequence[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        self._desk.values.release(refs)

    def moved(self) -> Moved:
        """Return how far the large pieces and results are that are under way."""
        return self._transport.moved

    def report(self, job: Job) -> None:
        """Let the cluster know how a job stands."""
        self._soon(lambda: self._desk.report(job))

    def _soon(self, callback: Callable[[], None]) -> None:
        """Do something for which nobody may be waiting, in this thread if possible."""
        self._reactor.serve_turn(callback)

    def close(self) -> None:
        """Give up everything that is unfinished, and release what the engine has."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reactor.post(self._desk.give_up)
        # one turn later, as giving up posts the last reports
        self._reactor.post(self._reactor.stop)
        self._reactor.join(timeout_s=5.0)
        self._end_all()
        if self._tracing is not None:
            self._tracing.close()

    def _end_all(self, cause: BaseException | None = None) -> None:
        """End everything that nobody will attend to any more."""
        self._is_ended = True
        self._desk.end_all(cause)
        self._ended.set()


def _nothing() -> None:
    """Do nothing: the turn in which it is done is what was wanted."""
