"""A manager: `core.dispatch`, a link and the real roster, as ``engines/desk.py``
joins them. It submits jobs, and is the user who gets the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sim_link import SimLink
from sim_process import Process
from sim_worker import Payload

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
from opencluster.core.inbox import CUT_SHORT
from opencluster.engines.directory import Contact
from opencluster.engines.roster import Roster
from opencluster.engines.unreached import BROKEN, Unreached

if TYPE_CHECKING:
    from sim_wires import Wire
    from sim_world import World

    from opencluster.testing.virtual import VirtualClock

TICK_S = 0.1
MAX_KILLS = 3
WORKER_WAIT_S = 60.0
INTERRUPT_WAIT_S = 1.2

_VERDICTS = {
    "done": Verdict.DONE,
    "failed": Verdict.FAILED,
    "timeout": Verdict.TIMED_OUT,
    "interrupted": Verdict.INTERRUPTED,
    "cancelled": Verdict.CANCELLED,
}


@dataclass
class Job:
    """Pieces that a user submitted together."""

    id: str
    pieces: list[int] = field(default_factory=list)
    unfinished: int = 0


class _Reactor:
    """What the roster needs of a reactor and its transport."""

    schemes = ("tcp://",)

    def __init__(self, manager: SimManager) -> None:
        self.transport = self
        self._manager = manager
        self._wires: dict[str, Wire] = {}

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._manager.after(delay_s, callback)

    def connect(self, endpoint: str, *_: Any) -> Wire:
        wire = self._wires.get(endpoint)
        if wire is None:
            wire = self._manager.world.wires.open(self._manager, endpoint)
            self._wires[endpoint] = wire
        return wire

    def refusal(self, wire: Wire) -> str:
        return ""

    def disconnect(self, wire: Wire) -> None:
        self._wires.pop(wire.endpoint, None)
        self._manager.world.wires.close(wire)


class NoSockets(Unreached):
    """Finds nothing out on sockets, of which there are none, nor by names of hosts."""

    def await_answer(self, contact: Contact) -> None:
        """Leave it at that."""

    def why_broken(self, contact: Contact) -> str:
        """Return what is known without looking."""
        return BROKEN


class SimManager(Process):
    """One life of a manager."""

    def __init__(self, world: World, name: str, clock: VirtualClock) -> None:
        super().__init__(world, name, name, clock)
        self.dispatch = Dispatch(MAX_KILLS, 8, WORKER_WAIT_S, INTERRUPT_WAIT_S)
        reactor: Any = _Reactor(self)
        self._reactor = reactor
        self.roster = Roster(reactor, self.dispatch, self._do, self.identity)
        self.roster.unreached = NoSockets(reactor, lambda contact: False)
        self.jobs: dict[str, Job] = {}
        self.tickets: dict[int, tuple[Payload, Job]] = {}
        self._number = 0
        self.link = SimLink(
            self, world.draw_list(), _nothing, self.roster.registry_changed
        )
        self.take(self._begin)

    def check(self) -> None:
        """Check the rules of managers."""
        self.world.ledger.check_manager(self)

    def _begin(self) -> None:
        self.log("starts")
        self.every(TICK_S, self._tick)
        self.every(self.world.setup.heartbeat_s, self._report_jobs)

    # --- what its user does ---------------------------------------------------

    def submit(self, pieces: list[tuple[Piece, Payload]]) -> None:
        """Submit a job; the numbers of the pieces are set here."""
        job = Job(f"{self.identity}/{len(self.jobs)}")
        self.jobs[job.id] = job
        for piece, payload in pieces:
            self._number += 1
            piece.id = self._number
            self.tickets[piece.id] = (payload, job)
            job.pieces.append(piece.id)
        job.unfinished = len(pieces)
        self.log("submits %s", [(p.id, p.type, pay.nature.value) for p, pay in pieces])
        self.world.ledger.submitted(self, pieces)
        units = self._bundled([piece for piece, _ in pieces])
        self._do(self.dispatch.submit(self.now(), units))

    def _bundled(self, pieces: list[Piece]) -> list[Piece]:
        """Join pieces that are alike, some of the time."""
        chance = self.world.chance
        if chance.random() < 0.4:
            return pieces
        units: list[Piece] = []
        for piece in pieces:
            last = units[-1] if units else None
            is_plain = not (piece.timeout_s or piece.error_retries)
            is_plain = is_plain and piece.wait_s is None
            if (
                last is not None
                and is_plain
                and not (last.timeout_s or last.error_retries)
                and last.wait_s is None
                and (last.type, last.priority) == (piece.type, piece.priority)
                and last.retries == piece.retries
                and chance.random() < 0.8
            ):
                last.count += 1
            else:
                units.append(replace(piece, deaths=[]))
        return units

    def cancel(self, numbers: list[int]) -> None:
        """Give up some pieces."""
        self.log("cancels %s", numbers)
        self.world.ledger.unwanted(self, numbers)
        self._do(self.dispatch.cancel(self.now(), numbers))

    def interrupt(self, numbers: list[int]) -> None:
        """Interrupt some pieces."""
        self.log("interrupts %s", numbers)
        self.world.ledger.unwanted(self, numbers)
        self._do(self.dispatch.interrupt(self.now(), numbers))

    def leave(self) -> None:
        """Give up everything that is unfinished, and end in good order."""
        self.log("closes")
        self.cancel(list(self.tickets))
        self._report_jobs()
        self.crash()

    def _deliver(self, end: EndPiece) -> None:
        for number in end.piece.numbers:
            # some of a bundle may be over already
            if end.piece.count > 1 and number not in self.tickets:
                continue
            self.log("piece %s is over: %s", number, end.verdict.value)
            self.world.ledger.delivered(self, number, end)
            _, job = self.tickets.pop(number)
            job.unfinished -= 1

    # --- pieces ---------------------------------------------------------------

    def _tick(self) -> None:
        if not self.dispatch.is_idle:
            self._do(self.dispatch.tick(self.now()))

    def _report_jobs(self) -> None:
        if not self.link.is_up:
            return
        for job in list(self.jobs.values()):
            state = "running" if job.unfinished else "done"
            report = {"id": job.id, "state": state, "left": job.unfinished}
            self.link.request("job", {"job": report}, lambda error, body: None)
            if not job.unfinished:
                del self.jobs[job.id]

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendPieces(worker, pieces):
                    self.world.ledger.sent(self, worker, pieces)
                    rows = [self._row(p) for p in pieces]
                    self._tell(worker, "pieces", (worker, rows))
                case EndPiece():
                    self._deliver(effect)
                case WithdrawPieces(worker, numbers):
                    self._tell(worker, "withdraw", numbers)
                case CancelPieces(worker, numbers):
                    self._tell(worker, "cancel", numbers)
                case InterruptPiece(worker, number):
                    self._tell(worker, "interrupt", [number])
                case EnforceInterrupt(worker, number):
                    self._ask_to_enforce(worker, number)
                case WarnNoWorker():
                    self.log("no worker of type %s", effect.type)

    def _row(self, piece: Piece) -> tuple[int, Any, float, list[Payload]]:
        payloads = [self.tickets[number][0] for number in piece.numbers]
        return piece.id, piece.urgency, piece.timeout_s, payloads

    def _tell(self, worker: str, kind: str, content: Any) -> None:
        contact = self.roster.directory.contacts.get(worker)
        if contact is not None:
            wire: Any = contact.peer
            self.log("-> %s: %s %s", contact.entry.name, kind, content)
            wire.send((kind, content))

    def _ask_to_enforce(self, worker: str, number: int) -> None:
        directory = self.roster.directory
        contact = directory.contacts.get(worker)
        shop = directory.workshops.get(contact.entry.workshop) if contact else None
        if shop is not None:
            wire: Any = directory.connect_workshop(shop)
            wire.send(("enforce", worker, f"{self.identity}:{number}"))

    # --- connections ----------------------------------------------------------

    def connected(self, wire: Wire) -> None:
        """Take note that a worker answers."""
        peer: Any = wire
        self.roster.connected(peer)

    def lost(self, wire: Wire) -> None:
        """Take note that a connection broke."""
        peer: Any = wire
        self.link.lost(wire)
        self.roster.disconnected(peer)

    def answered(self, wire: Wire, message: tuple[Any, ...]) -> None:
        """Take a message of a worker or of a factory."""
        peer: Any = wire
        contact = self.roster.directory.by_peer.get(peer)
        kind = message[0]
        if contact is None or kind in ("reply", "delta", "beat", "moved"):
            self.link.answered(wire, message)
        elif kind == "results":
            self._results(contact.id, message[1])
        elif kind == "returned":
            for number in message[1]:
                self._do(self.dispatch.returned(self.now(), contact.id, number))
            self._do(self.dispatch.assign(self.now()))
        elif kind == "gone":
            self.roster.succeeded(contact, message[1])
        elif kind == "draining":
            self._do(self.dispatch.worker_draining(self.now(), contact.id))

    def _bundle_done(
        self, worker: str, first: int, statuses: list[str], is_running: bool
    ) -> None:
        """Take in what came of the pieces of a bundle, as far as they are over."""
        bundle = self.dispatch.bundle_at(worker, first)
        if bundle is None:
            return
        if statuses and statuses[-1] == "drained":
            statuses = statuses[:-1]
        for number, status in zip(bundle.numbers, statuses, strict=False):
            if number in self.tickets:
                self._deliver(EndPiece(bundle.alone(number), _VERDICTS[status]))
        done = len(statuses)
        now = self.now()
        self._do(
            self.dispatch.bundle_done(now, worker, first, done, 0.1 * done, is_running)
        )

    def _results(self, worker: str, rows: list[tuple[int, Any, float]]) -> None:
        now = self.now()
        for number, status, elapsed_s in rows:
            if isinstance(status, list):
                self._bundle_done(worker, number, status, elapsed_s < 0.0)
                continue
            if status == "drained":
                self._do(self.dispatch.returned(now, worker, number))
                continue
            if status == CUT_SHORT:
                self._do(self.dispatch.cut_short(now, worker, number))
                continue
            verdict = _VERDICTS[status]
            self._do(self.dispatch.finished(now, worker, number, verdict, elapsed_s))
        self._do(self.dispatch.assign(now))


def _nothing() -> None:
    """Do nothing about a new leader."""
