"""Where an engine's dispatcher meets the net: what happens while the reactor is held.

`core.dispatch` decides; here its decisions are carried out, and it is told of what
comes in. For use while holding the reactor. Must not wait for anything, as the sockets
would wait too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from opencluster.config import Config
from opencluster.core.dispatch import (
    CancelPieces,
    Dispatch,
    Effect,
    EndPiece,
    EnforceInterrupt,
    InterruptPiece,
    Piece,
    SendPieces,
    Verdict,
    WarnNoWorker,
    WithdrawPieces,
)
from opencluster.core.roles import ASKER, MANAGER, check
from opencluster.engines.base import Job, Outcome
from opencluster.engines.bonds import Bonds
from opencluster.engines.endings import Endings
from opencluster.engines.intake import Intake
from opencluster.engines.job_orders import JobOrders
from opencluster.engines.quarantine import Quarantine
from opencluster.engines.reports import Reports
from opencluster.engines.results import Results
from opencluster.engines.roster import Roster
from opencluster.engines.sending import Sending
from opencluster.engines.shortage import Shortage
from opencluster.engines.tickets import Numbers, Ticket, piece_of
from opencluster.engines.timelines import Timelines
from opencluster.engines.values import VALUE_KINDS, Recipe, Values
from opencluster.errors import RemoteProtocolError
from opencluster.net.link import FactoryLink
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.transport import (
    PeerConnected,
    PeerLost,
    Received,
    TransportEvent,
)
from opencluster.place import Place
from opencluster.tracing import Tracing
from opencluster.wire import frames, kinds

log = logging.getLogger(__name__)

TICK_S = 0.1
"""How often the dispatcher looks at the time while work is under way."""


class Desk:
    """Joins the dispatcher of one engine to the net.

    Parameters
    ----------
    config : Config
        The settings.
    reactor : Reactor
        The sockets.
    link : FactoryLink
        The way to a factory.
    identity : str
        How pieces of this process begin on scoreboards.
    numbers : Numbers
        Numbers what has none.
    records : Place or None
        Where to keep what is to outlive this program.
    tracing : Tracing or None
        What traces pieces, if anything does.

    Attributes
    ----------
    tickets : dict of int to Ticket
        All pieces that are not over.
    dispatch : Dispatch
        Decides who gets which.
    roster : Roster
        Who is here.
    values : Values
        What is held for this program.
    bonds : Bonds
        What ties pieces to values.
    intake : Intake
        Where pieces are left that are submitted.
    shortage : Shortage
        What is known of workers that are missing.
    orders : JobOrders
        Carries out what is ordered for jobs from outside.
    reports : Reports
        What factories are told of jobs.
    """

    def __init__(
        self,
        config: Config,
        reactor: Reactor,
        link: FactoryLink,
        identity: str,
        numbers: Numbers,
        records: Place | None,
        tracing: Tracing | None,
    ) -> None:
        manager, worker, transport = config.manager, config.worker, reactor.transport
        self._config = config
        self._reactor = reactor
        self._link = link
        self._numbers = numbers
        self._rejections = Rejections(transport.counts, log)
        self.tickets = tickets = dict[int, Ticket]()
        self.dispatch = dispatch = Dispatch(
            manager.max_kills,
            manager.max_credit,
            manager.worker_wait_s,
            worker.interrupt_grace_s + worker.kill_grace_s + 1.0,
        )
        self.roster = roster = Roster(reactor, dispatch, self._do, identity)
        self.values = values = Values(
            reactor,
            roster.directory,
            numbers.next,
            lambda number: self.bonds.resume(number),
            lambda number: self.bonds.ask_again(number),
            lambda number, error: self._endings.with_error(number, error),
            self._remake,
        )
        self.bonds = bonds = Bonds(values, self._submit)
        self.intake = Intake(tickets, dispatch, bonds, self._do)
        take_in = self.intake.take_in
        self.shortage = Shortage(dispatch, roster, link, take_in, manager.worker_wait_s)
        self._sending = Sending(transport, roster.directory, tickets, bonds, tracing)
        self._timelines = timelines = Timelines(
            records, manager.timeline_spans, manager.timeline_records
        )
        self._endings = Endings(
            *(tickets, bonds, values.adopt, roster, self.shortage.explained),
            timelines,
            Quarantine(config, records),
        )
        self._results = Results(
            *(tickets, dispatch, self._do, self._endings, bonds, values, timelines)
        )
        self.orders = JobOrders(
            *(tickets, take_in, self.cancel, self._prioritise),
            lambda job: self.reports.note(job),
        )
        self.reports = Reports(
            *(link, self.orders.obey, self.shortage.expect, self.shortage.work),
            roster.unreached.texts,
        )
        roster.watcher = values
        roster.on_lost = self._results.runs_lost
        link.subscribe(roster.registry_changed)

    def open(self) -> None:
        """Begin to attend to everything that needs it time and again."""
        self._reactor.when_idle(self.values.flush)
        self._reactor.every(TICK_S, self._tick)
        interval_s = self._config.cluster.heartbeat_interval_s
        self._reactor.every(interval_s, self.reports.report)
        self._reactor.every(interval_s, self._timelines.flush)

    def give_up(self) -> None:
        """Have everything stopped, and say farewell."""
        self.intake.take_in()
        is_all_done = not self.tickets
        self._do(self.dispatch.cancel(_now(), list(self.tickets)))
        self.reports.end(is_all_done)
        self._timelines.flush()
        self.values.close()

    def end_all(self, cause: BaseException | None) -> None:
        """End every piece, when there is no reactor any more; from any thread."""
        self._endings.end_all(cause)
        self.intake.refuse(cause)

    # --- what the program wants ----------------------------------------------

    def cancel(self, numbers: Sequence[int]) -> None:
        """Give up pieces: drop what waits, interrupt what runs."""
        self._stop(numbers, self.dispatch.cancel)

    def interrupt(self, numbers: Sequence[int]) -> None:
        """Interrupt pieces that run."""
        self._stop(numbers, self.dispatch.interrupt)

    def interrupt_at(self, worker: str) -> None:
        """Interrupt the piece that a worker runs."""
        self._do(self.dispatch.interrupt_at(_now(), worker))

    def report(self, job: Job) -> None:
        """Let the cluster know how a job stands."""
        self.reports.note(job)
        if job.state != "running":
            self._timelines.flush()

    def _submit(self, piece: Piece) -> None:
        self._do(self.dispatch.submit(_now(), [piece]))

    def _remake(self, id: bytes, recipe: Recipe) -> None:
        """Run the piece again that makes a value."""
        options = recipe.options

        def done(number: int, outcome: Outcome) -> None:
            if outcome.error is not None:
                self.values.not_made(id, outcome.error)

        number = self._numbers.next()
        # of no job, so that nobody asks how much of it is sent
        self.tickets[number] = Ticket(
            recipe.payload, recipe.buffers, 0, options, done, None
        )
        self.bonds.tie_again(piece_of(number, recipe.type, options), id, recipe)

    def _stop(
        self,
        numbers: Sequence[int],
        decide: Callable[[float, Iterable[int]], Iterable[Effect]],
    ) -> None:
        """Have pieces stopped; those that the dispatcher has not seen just end."""
        for piece in self.bonds.parked(numbers):
            self._endings.badly(piece, Verdict.CANCELLED)
        self._do(decide(_now(), numbers))

    def _prioritise(self, numbers: Sequence[int], priority: int) -> None:
        self.bonds.prioritise(numbers, priority)
        self.dispatch.prioritise(numbers, priority)

    # --- what the dispatcher decides -----------------------------------------

    def _tick(self) -> None:
        self.values.tick()
        if not self.dispatch.is_idle:
            self._do(self.dispatch.tick(_now()))

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendPieces(worker, pieces):
                    self._sending.pieces(worker, pieces)
                case EndPiece(piece, verdict, detail):
                    self._endings.badly(piece, verdict, detail)
                case WithdrawPieces(worker, numbers):
                    self._sending.order(worker, kinds.WITHDRAW, numbers)
                case CancelPieces(worker, numbers):
                    self._sending.order(worker, kinds.CANCEL, numbers)
                case InterruptPiece(worker, number):
                    self._sending.order(worker, kinds.INTERRUPT, [number])
                case EnforceInterrupt(worker, number):
                    self.roster.ask_to_enforce(self._link.requests, worker, number)
                case WarnNoWorker(type, count):
                    self.shortage.warn(type, count)

    # --- what comes in -------------------------------------------------------

    def event(self, event: TransportEvent) -> None:
        """Take in what a transport tells."""
        match event:
            case Received():
                try:
                    self._message(event)
                except MALFORMED as error:
                    self._rejections.note(error)
            case PeerConnected(peer):
                self.roster.connected(peer)
            case PeerLost(peer):
                self._link.peer_lost(peer)
                self.roster.disconnected(peer)

    def _message(self, event: Received) -> None:
        fields = frames.unpack(event.header, self._config.limits.max_nesting)
        contact = self.roster.directory.by_peer.get(event.peer)
        kind = fields[0]
        is_for_link = contact is None or kind in (kinds.REPLY, kinds.DELTA, kinds.BEAT)
        check(ASKER if is_for_link else MANAGER, kind, event.who)
        if contact is None or is_for_link:
            if not self._link.received(event.peer, fields):
                raise RemoteProtocolError(f"unexpected {kind!r} message")
        elif kind == kinds.RESULTS:
            self._results.received(contact, fields[1], event.buffers)
        elif kind == kinds.RETURNED:
            self._results.returned(contact, fields[1])
        elif kind == kinds.DRAINING:
            self._do(self.dispatch.worker_draining(_now(), contact.id))
            self.values.draining(contact)
        elif kind in VALUE_KINDS:
            self.values.received(contact, fields, event.buffers)
        elif kind == kinds.GONE:
            self.roster.succeeded(contact, fields[1])
        elif kind == kinds.PROGRESS:
            self._results.progress(*fields[1:4])
        elif kind != kinds.ALIVE:
            raise RemoteProtocolError(f"a manager takes no {kind!r} message")


def _now() -> float:
    return time.monotonic()
