"""The engine that OpenCluster itself is: workers found in a registry.

This shell joins `core.dispatch` to the net. One thread owns the sockets and the
dispatcher; callers hand over encoded pieces and get encoded outcomes back, so that
their own threads encode, and may decode.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from opencluster.config import Config
from opencluster.core.chunks import Moved
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
from opencluster.core.elastic_report import Work
from opencluster.core.inbox import CUT_SHORT
from opencluster.core.roles import ASKER, MANAGER, WORKER, check
from opencluster.engines.base import (
    Done,
    Job,
    Options,
    Outcome,
    Where,
    WorkerInfo,
    perform,
)
from opencluster.engines.bonds import Bonds
from opencluster.engines.directory import Contact
from opencluster.engines.job_orders import CANCELLED, JobOrders, cancelled
from opencluster.engines.quarantine import Quarantine
from opencluster.engines.reports import Reports
from opencluster.engines.roster import Roster, Runs
from opencluster.engines.sharing import Sharing
from opencluster.engines.tickets import (
    BUNDLE_BYTES,
    Ticket,
    closed,
    failure_in,
    piece_of,
)
from opencluster.engines.timelines import Timelines
from opencluster.engines.traces import accompany, follow
from opencluster.engines.values import VALUE_KINDS, Recipe, Values
from opencluster.engines.verdicts import alike, error_for, wanted
from opencluster.errors import (
    NoSuitableWorker,
    PieceFailed,
    PoisonPiece,
    RemoteProtocolError,
    WorkError,
)
from opencluster.net.joined import open_transport
from opencluster.net.keys import Keyring
from opencluster.net.link import FactoryLink
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.transport import (
    PeerConnected,
    PeerLost,
    Received,
    TransportEvent,
)
from opencluster.place import Place, factories, keys_directory
from opencluster.references import DataRef
from opencluster.service import SERVICE_PREFIX
from opencluster.tracing import tracing_of
from opencluster.wire import codec, frames, kinds
from opencluster.wire.batches import (
    Row,
    batches,
    check_size,
    numbers_in,
    results_in,
)

log = logging.getLogger(__name__)

TICK_S = 0.1
"""How often the dispatcher looks at the time while work is under way."""
SEND_AT = 64
"""Pieces that may be submitted before somebody must look after them."""

_VERDICTS = {
    "done": Verdict.DONE,
    "failed": Verdict.FAILED,
    "timeout": Verdict.TIMED_OUT,
    "interrupted": Verdict.INTERRUPTED,
    "cancelled": Verdict.CANCELLED,
    "kept": Verdict.DONE,
    "missing": Verdict.MISSING,
}
_ENDED_BY_ORDER = (Verdict.INTERRUPTED, Verdict.CANCELLED)
_OF_BONDS = ("kept", "missing")
"""What makes sense of pieces alone that are tied to values."""


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
    """

    is_immediate = False

    def __init__(self, config: Config, place: Place) -> None:
        manager, worker = config.manager, config.worker
        self.config = config
        self._max_bytes = config.network.max_message_bytes
        self._tracing = tracing_of(config.tracing, "opencluster-manager")
        keys = Keyring.load(keys_directory(config, place), MANAGER, WORKER)
        self._transport = open_transport(config, keys)
        self._reactor = Reactor(
            self._transport,
            self._event,
            on_fatal=self._end_all,
            is_vital=False,
            spin_s=config.network.spin_us * 1e-6,
        )
        self._rejections = Rejections(self._transport.counts, log)
        self._dispatch = Dispatch(
            manager.max_kills,
            manager.max_credit,
            manager.worker_wait_s,
            worker.interrupt_grace_s + worker.kill_grace_s + 1.0,
        )
        self._roster = Roster(
            self._reactor,
            self._dispatch,
            self._do,
            self._transport.identity[:4].hex(),
        )
        self._directory = self._roster.directory
        self._values = Values(
            self._reactor,
            self._directory,
            lambda: self._next_numbers(1)[0],
            lambda number: self._bonds.resume(number),
            lambda number: self._bonds.ask_again(number),
            self._end_with,
            self._remake,
        )
        self._bonds = Bonds(self._values, self._dispatch_one)
        self._sharing = Sharing(
            self._values,
            self.wait,
            self._next_numbers,
            self._max_bytes,
        )
        self._roster.watcher = self._values
        self._roster.on_lost = self._runs_lost
        self._link = FactoryLink(
            self._reactor,
            lambda: factories(config, place),
            config.factory.request_timeout_s,
            # it answers for which types workers will come, however they fail now
            on_up=lambda hello: self._reports.report(),
            patience_s=config.factory.leader_timeout_s,
            keys=keys,
        )
        self._tickets: dict[int, Ticket] = {}
        self._incoming: deque[tuple[int, str, Ticket]] = deque()
        self._orders = JobOrders(
            self._tickets,
            lambda numbers: self._stop(numbers, self._dispatch.cancel),
            self._prioritise,
            lambda job: self._reports.note(job),
        )
        self._reports = Reports(
            self._link,
            self._obey,
            self._expect,
            self._work,
            self._roster.unreached.texts,
        )
        self._timelines = Timelines(
            self._durable(place), manager.timeline_spans, manager.timeline_records
        )
        self._quarantine = Quarantine(config, self._durable(place))
        self._number = 0
        self._number_lock = threading.Lock()
        self._is_closed = False
        self._is_ended = False
        self._ended = threading.Event()
        self._link.subscribe(self._roster.registry_changed)
        self._reactor.post(self._start)
        self._reactor.start()

    def _durable(self, place: Place) -> Place | None:
        """Return where to keep what is to outlive this program, if it may."""
        return place

    # --- from any thread -----------------------------------------------------

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
        numbers = self._next_numbers(len(tickets))
        if self._tracing is not None:
            follow(self._tracing, type, zip(numbers, tickets, strict=True))
        incoming = self._incoming
        incoming.extend(zip(numbers, repeat(type), tickets))
        if is_awaited:
            self._reactor.prepare(self._take_in)
        elif len(incoming) >= SEND_AT or not self._tickets:
            self._reactor.serve_turn(self._take_in)
        else:
            # whoever waits next sends them, many to a message
            self._reactor.post(self._take_in)
        if self._is_ended:
            self._refuse_incoming()
        if job is not None and job.state == CANCELLED:
            self._reactor.post(lambda: self._end_pieces(job))
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

    def _next_numbers(self, count: int) -> list[int]:
        with self._number_lock:
            first = self._number + 1
            self._number += count
        return list(range(first, first + count))

    def _wait_for_room(self) -> None:
        """Slow down whoever submits faster than pieces are done."""
        bound = self.config.manager.max_pending
        if len(self._tickets) >= bound and not self._reactor.is_current:
            self._reactor.wait_until(lambda: len(self._tickets) < bound)

    def cancel(self, pieces: Iterable[int]) -> None:
        """Give up pieces: drop what waits, interrupt what runs."""
        wanted = list(pieces)
        self._soon(lambda: self._stop(wanted, self._dispatch.cancel))

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Interrupt pieces that run."""
        wanted = list(pieces)
        self._soon(lambda: self._stop(wanted, self._dispatch.interrupt))

    def interrupt_worker(self, worker: str) -> None:
        """Interrupt what this manager's piece a worker runs."""
        self._soon(lambda: self._do(self._dispatch.interrupt_at(_now(), worker)))

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the workers of a type, the least loaded first, at least one.

        Raises
        ------
        NoSuitableWorker
            When none came within the time allowed.
        """
        try:
            return self._roster.wait_for(type, wait_s)
        except NoSuitableWorker as error:
            raise self._explained(error) from None

    def types(self) -> Mapping[str, int]:
        """Return the worker types that are here, with how many of each."""
        return self._directory.types()

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
        self._values.release(refs)

    def moved(self) -> Moved:
        """Return how far the large pieces and results are that are under way."""
        return self._transport.moved

    def report(self, job: Job) -> None:
        """Let the cluster know how a job stands."""
        self._soon(lambda: self._note(job))

    def _note(self, job: Job) -> None:
        self._reports.note(job)
        if job.state != "running":
            self._timelines.flush()

    def _soon(self, callback: Callable[[], None]) -> None:
        """Do something for which nobody may be waiting, in this thread if possible."""
        self._reactor.serve_turn(callback)

    def close(self) -> None:
        """Give up everything that is unfinished, and release what the engine has."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reactor.post(self._give_up)
        # one turn later, as giving up posts the last reports
        self._reactor.post(self._reactor.stop)
        self._reactor.join(timeout_s=5.0)
        self._end_all()
        if self._tracing is not None:
            self._tracing.close()

    def _end_all(self, cause: BaseException | None = None) -> None:
        """End everything that nobody will attend to any more."""
        self._is_ended = True
        while self._tickets:
            number, ticket = self._tickets.popitem()
            ticket.done(number, closed(cause))
        self._refuse_incoming(cause)
        self._ended.set()

    def _refuse_incoming(self, cause: BaseException | None = None) -> None:
        """End what was submitted too late for the I/O thread to see it."""
        while self._incoming:
            with contextlib.suppress(IndexError):
                number, _, ticket = self._incoming.popleft()
                ticket.done(number, closed(cause))

    # --- in the I/O thread: pieces -------------------------------------------

    def _start(self) -> None:
        self._reactor.when_idle(self._values.flush)
        self._reactor.every(TICK_S, self._tick)
        interval_s = self.config.cluster.heartbeat_interval_s
        self._reactor.every(interval_s, self._reports.report)
        self._reactor.every(interval_s, self._timelines.flush)

    def _take_in(self) -> None:
        incoming, tickets = self._incoming, self._tickets
        pieces: list[Piece] = []
        last: Piece | None = None
        bundled: Options | None = None
        room = room_bytes = 0
        while incoming:
            number, type, ticket = incoming.popleft()
            tickets[number] = ticket
            options, job = ticket.options, ticket.job
            if job is not None:
                job.statistics.pieces_submitted += 1
            if room > 0 and last is not None and type == last.type:
                # the pieces of a bundle have one manner of being run, and follow
                # each other
                is_like = options is bundled and number == last.id + last.count
                if is_like and ticket.nbytes <= room_bytes and ticket.is_small:
                    last.count += 1
                    room -= 1
                    room_bytes -= ticket.nbytes
                    continue
            if ticket.refs or options.keep:
                data = (ticket.payload, ticket.buffers)
                piece = piece_of(number, type, options, job)
                self._bonds.tie(piece, ticket.refs, options, data)
                continue
            last = piece_of(number, type, options, job)
            pieces.append(last)
            bundled, room = options, 0
            if incoming and options.may_be_bundled and ticket.is_small:
                room = self._dispatch.bundle_size(type) - 1
                room_bytes = BUNDLE_BYTES - ticket.nbytes
        if pieces:
            self._do(self._dispatch.submit(_now(), pieces))

    def _dispatch_one(self, piece: Piece) -> None:
        self._do(self._dispatch.submit(_now(), [piece]))

    def _remake(self, id: bytes, recipe: Recipe) -> None:
        """Run the piece again that makes a value."""
        options = recipe.options

        def done(number: int, outcome: Outcome) -> None:
            if outcome.error is not None:
                self._values.not_made(id, outcome.error)

        (number,) = self._next_numbers(1)
        # of no job, so that nobody asks how much of it is sent
        self._tickets[number] = Ticket(
            recipe.payload, recipe.buffers, 0, options, done, None
        )
        self._bonds.tie_again(piece_of(number, recipe.type, options), id, recipe)

    def _stop(
        self,
        numbers: list[int],
        decide: Callable[[float, Iterable[int]], Iterable[Effect]],
    ) -> None:
        """Have pieces stopped; those that the dispatcher has not seen just end."""
        for piece in self._bonds.parked(numbers):
            self._end_badly(piece, Verdict.CANCELLED, "", None)
        self._do(decide(_now(), numbers))

    def _obey(self, job: Job, answer: Any) -> None:
        """Carry out an order for a job, whose pieces are all known then."""
        self._take_in()
        self._orders.obey(job, answer)

    def _expect(self, types: Collection[str]) -> None:
        """Let pieces wait of whose types workers will come."""
        self._roster.expected = types
        self._dispatch.expect(_now(), types)

    def _work(self, types: Collection[str]) -> dict[str, Work]:
        """Return how much there is to do; who waits for a worker has a piece for it."""
        self._take_in()
        awaited = self._roster.awaited
        return {
            type: Work(count or min(1, awaited[type]), mean_s)
            for type, (count, mean_s) in self._dispatch.work(_now(), types).items()
        }

    def _end_pieces(self, job: Job) -> None:
        self._take_in()
        self._orders.end_pieces(job)

    def _prioritise(self, numbers: list[int], priority: int) -> None:
        self._bonds.prioritise(numbers, priority)
        self._dispatch.prioritise(numbers, priority)

    def _tick(self) -> None:
        self._values.tick()
        if not self._dispatch.is_idle:
            self._do(self._dispatch.tick(_now()))

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendPieces(worker, pieces):
                    self._send_pieces(worker, pieces)
                case EndPiece(piece, verdict, detail):
                    self._end_badly(piece, verdict, detail, None)
                case WithdrawPieces(worker, numbers):
                    self._tell(worker, frames.pack(kinds.WITHDRAW, numbers))
                case CancelPieces(worker, numbers):
                    self._tell(worker, frames.pack(kinds.CANCEL, numbers))
                case InterruptPiece(worker, number):
                    self._tell(worker, frames.pack(kinds.INTERRUPT, [number]))
                case EnforceInterrupt(worker, number):
                    self._roster.ask_to_enforce(self._link.requests, worker, number)
                case WarnNoWorker(type, count):
                    self._warn_no_worker(type, count)

    def _send_pieces(self, worker: str, pieces: list[Piece]) -> None:
        for rows, buffers in batches(map(self._row, pieces)):
            fields: list[Any] = [rows, worker]
            if self._bonds or self._tracing is not None:
                extras = self._bonds.extras(worker, (row[0] for row in rows))
                if self._tracing is not None:
                    tickets = {row[0]: self._tickets[row[0]] for row in rows}
                    accompany(self._tracing, worker, tickets, extras)
                fields.append(extras)
            self._tell(worker, frames.pack(kinds.PIECES, *fields), buffers)

    def _row(self, piece: Piece) -> Row:
        if piece.count > 1:
            return self._row_of_bundle(piece)
        ticket = self._tickets[piece.id]
        payload, buffers = ticket.payload, ticket.buffers
        if ticket.job is not None:
            ticket.job.statistics.bytes_sent += ticket.nbytes
        row = [piece.id, piece.urgency, piece.timeout_s, payload, len(buffers)]
        return row, len(payload), buffers

    def _row_of_bundle(self, piece: Piece) -> Row:
        members: list[Any] = []
        buffers: list[Any] = []
        nbytes = 0
        for number in piece.numbers:
            ticket = self._tickets[number]
            payload, own = ticket.payload, ticket.buffers
            if own:
                members.append([payload, len(own)])
                buffers += own
            else:
                members.append(payload)
            nbytes += len(payload)
            if ticket.job is not None:
                ticket.job.statistics.bytes_sent += ticket.nbytes
        row = [piece.id, piece.urgency, piece.timeout_s, members, len(buffers)]
        return row, nbytes, buffers

    def _tell(self, worker: str, header: bytes, buffers: Sequence[Any] = ()) -> None:
        contact = self._directory.contacts.get(worker)
        if contact is None or not self._transport.send(contact.peer, header, buffers):
            # the loss itself is on its way as an event of its own
            log.debug("could not send to %s", worker)

    def _results(self, contact: Contact, rows: Any, buffers: Sequence[Any]) -> None:
        now = _now()
        worker, name = contact.id, contact.entry.name
        finished, records = self._dispatch.finished, self._timelines.is_on
        if records:
            self._timelines.answered([row[4] for row in rows])
        for (number, status, payload, _, elapsed_s), own in results_in(rows, buffers):
            ticket = self._tickets.get(number) if records else None
            job = None if ticket is None else ticket.job
            if isinstance(payload, list):
                if job is not None:
                    done = len(payload)
                    self._timelines.span(job, contact, number, status, elapsed_s, done)
                self._bundle_results(
                    contact, number, status == "cut", payload, own, elapsed_s
                )
                continue
            if status == "drained":
                self._do(self._dispatch.returned(now, worker, number))
                continue
            if status == CUT_SHORT:
                self._cut_short(now, worker, number)
                continue
            # of a status that this version does not know we know that it is no result
            verdict = _VERDICTS.get(status, Verdict.FAILED)
            if status in _OF_BONDS and number not in self._bonds:
                verdict = Verdict.FAILED
            effects = finished(now, worker, number, verdict, elapsed_s)
            if job is not None:
                has_ended = bool(effects)
                self._timelines.span(
                    *(job, contact, number, status, elapsed_s),
                    is_retried=not has_ended,
                )
            for effect in effects:
                if isinstance(effect, EndPiece):
                    outcome = Outcome(payload, own, None, elapsed_s, name)
                    self._deliver(effect, outcome, contact)
            if not effects and status == "kept":
                self._values.unwanted(contact, payload)
        self._do(self._dispatch.assign(now))

    def _runs_lost(self, contact: Contact, runs: Runs, effects: list[Effect]) -> None:
        """Record what a worker ran that is gone."""
        ends = {e.piece.id: e.verdict for e in effects if isinstance(e, EndPiece)}
        for number, since in runs if self._timelines.is_on else ():
            ticket = self._tickets.get(number)
            if ticket is not None and ticket.job is not None:
                elapsed_s, verdict = _now() - since, ends.get(number)
                self._timelines.answered([elapsed_s])
                status = "cancelled" if verdict in _ENDED_BY_ORDER else "lost"
                is_retried = verdict is None
                self._timelines.span(
                    *(ticket.job, contact, number, status, elapsed_s),
                    is_retried=is_retried,
                )

    def _cut_short(self, now: float, worker: str, number: int) -> None:
        """Take back a piece that made way for a real-time piece, and count that."""
        ticket = self._tickets.get(number)
        is_held = number in self._dispatch.pieces_at(worker)
        if is_held and ticket is not None and ticket.job is not None:
            ticket.job.statistics.pieces_cut += 1
        self._do(self._dispatch.cut_short(now, worker, number))

    def _bundle_results(
        self,
        contact: Contact,
        first: int,
        is_running: bool,
        rows: list[Any],
        buffers: Sequence[Any],
        elapsed_s: float,
    ) -> None:
        """Take in what came of the pieces of a bundle, as far as they are over."""
        bundle = self._dispatch.bundle_at(contact.id, first)
        if bundle is None:
            return
        del rows[bundle.count - is_running :]
        if rows and type(rows[-1]) is list and rows[-1][0] == "drained":
            # it was given up for the end of the worker, and runs again
            rows.pop()
        name, each_s, taken = contact.entry.name, elapsed_s / max(1, len(rows)), 0
        for number, row in zip(bundle.numbers, rows, strict=False):
            status, payload, count = ("done", row, 0) if type(row) is bytes else row
            own = buffers[taken : taken + count] if count else ()
            taken += count
            if number not in self._tickets:
                continue
            outcome = Outcome(payload, own, None, each_s, name)
            verdict = _VERDICTS.get(status, Verdict.FAILED)
            if status in _OF_BONDS:
                verdict = Verdict.FAILED
            if verdict is Verdict.DONE:
                self._done_with(number, outcome)
            else:
                self._end_badly(bundle.alone(number), verdict, "", outcome)
        self._do(
            self._dispatch.bundle_done(
                _now(), contact.id, first, len(rows), elapsed_s, is_running
            )
        )

    def _deliver(self, end: EndPiece, outcome: Outcome, contact: Contact) -> None:
        number = end.piece.id
        is_bound = bool(self._bonds) and number in self._bonds
        try:
            if end.verdict is Verdict.MISSING and is_bound:
                if end.piece.interrupted_at is None:
                    self._bonds.not_found(number, outcome.payload)
                    return
            elif end.verdict is Verdict.DONE and is_bound:
                outcome = self._bonds.delivered(contact, number, outcome)
        except RemoteProtocolError as error:
            self._end_with(number, PieceFailed(str(error), worker=outcome.worker))
            return
        if end.verdict is Verdict.MISSING:
            self._end_badly(end.piece, Verdict.INTERRUPTED, end.detail, None)
            return
        if end.verdict is not Verdict.DONE:
            self._end_badly(end.piece, end.verdict, end.detail, outcome)
            return
        self._done_with(number, outcome, end.piece.losses + end.piece.errors)

    def _done_with(self, number: int, outcome: Outcome, retried: int = 0) -> None:
        outcome.on_ref = self._values.adopt
        ticket = self._tickets.pop(number)
        if ticket.job is not None:
            statistics = ticket.job.statistics
            statistics.pieces_done += 1
            statistics.pieces_retried += retried
            statistics.bytes_received += outcome.nbytes
        ticket.done(number, outcome)

    def _end_with(self, number: int, error: WorkError) -> None:
        """End a piece that is not with the dispatcher."""
        ticket = self._tickets.pop(number, None)
        if ticket is None:
            return
        self._bonds.over(number, False)
        if ticket.job is not None:
            ticket.job.statistics.pieces_failed += 1
        ticket.done(number, Outcome(error=error))

    def _end_badly(
        self, piece: Piece, verdict: Verdict, detail: str, outcome: Outcome | None
    ) -> None:
        failure = failure_in(outcome) if outcome is not None else None
        worker = outcome.worker if outcome is not None else piece.last_worker
        for number in piece.numbers:
            ticket = self._tickets.pop(number, None)
            if ticket is None:
                # of a bundle, and over already
                continue
            unreached = self._roster.unreached.of(piece.type)
            types = self.types()
            error = error_for(piece, verdict, detail, failure, worker, types, unreached)
            if isinstance(error, NoSuitableWorker):
                error = self._explained(error)
            job = ticket.job
            if job is not None and job.state == CANCELLED:
                error = cancelled(job)
            elif isinstance(error, PoisonPiece):
                error = self._quarantine.keep(error, piece, ticket)
            self._bonds.over(number, False)
            if job is not None:
                self._timelines.failed(job, number, error)
                statistics = job.statistics
                statistics.pieces_failed += 1
                was_lost = verdict in (Verdict.DIED, Verdict.POISONED)
                statistics.pieces_retried += piece.losses + piece.errors - was_lost
            ticket.done(number, Outcome(error=error, worker=worker))

    def _explained(self, error: NoSuitableWorker) -> NoSuitableWorker:
        """Add why no factory is there, if that is why no worker is."""
        if self._link.is_up:
            return error
        return NoSuitableWorker(f"{error}. Besides, {self._link.why_down()}")

    # --- in the I/O thread: workers --------------------------------------------

    def _warn_no_worker(self, type: str, count: int) -> None:
        wait = f"waiting {self.config.manager.worker_wait_s:g} s"
        if type in self._roster.expected:
            wait = "one is launched by `opencluster elastic run`"
        log.warning(
            "%d pieces wait for a %s; here are: %s; %s",
            count,
            wanted(type),
            alike(type, self.types()),
            wait,
        )

    # --- in the I/O thread: the rest -----------------------------------------

    def _event(self, event: TransportEvent) -> None:
        match event:
            case Received():
                try:
                    self._message(event)
                except MALFORMED as error:
                    self._rejections.note(error)
            case PeerConnected(peer):
                self._roster.connected(peer)
            case PeerLost(peer):
                self._link.peer_lost(peer)
                self._roster.disconnected(peer)

    def _message(self, event: Received) -> None:
        fields = frames.unpack(event.header, self.config.limits.max_nesting)
        contact = self._directory.by_peer.get(event.peer)
        kind = fields[0]
        is_for_link = contact is None or kind in (kinds.REPLY, kinds.DELTA, kinds.BEAT)
        check(ASKER if is_for_link else MANAGER, kind, event.who)
        if contact is None or is_for_link:
            if not self._link.received(event.peer, fields):
                raise RemoteProtocolError(f"unexpected {kind!r} message")
        elif kind == kinds.RESULTS:
            self._results(contact, fields[1], event.buffers)
        elif kind == kinds.RETURNED:
            for number in numbers_in(fields[1]):
                self._do(self._dispatch.returned(_now(), contact.id, number))
            self._do(self._dispatch.assign(_now()))
        elif kind == kinds.DRAINING:
            self._do(self._dispatch.worker_draining(_now(), contact.id))
            self._values.draining(contact)
        elif kind in VALUE_KINDS:
            self._values.received(contact, fields, event.buffers)
        elif kind == kinds.GONE:
            self._roster.succeeded(contact, fields[1])
        elif kind == kinds.PROGRESS:
            self._progress(*fields[1:4])
        elif kind != kinds.ALIVE:
            raise RemoteProtocolError(f"a manager takes no {kind!r} message")

    def _progress(self, number: Any, done: Any, total: Any) -> None:
        if (type(number), type(done), type(total)) != (int, float, float):
            raise RemoteProtocolError("a message of progress is malformed")
        ticket = self._tickets.get(number)
        if ticket is not None and ticket.options.on_progress is not None:
            ticket.options.on_progress(done, total)

    def _give_up(self) -> None:
        self._take_in()
        is_all_done = not self._tickets
        self._do(self._dispatch.cancel(_now(), list(self._tickets)))
        self._reports.end(is_all_done)
        self._timelines.flush()
        self._values.close()


def _nothing() -> None:
    """Do nothing: the turn in which it is done is what was wanted."""


def _now() -> float:
    return time.monotonic()
