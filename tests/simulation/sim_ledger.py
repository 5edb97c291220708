"""The books of a simulated world, and the promises that are checked against them.

Checked after every event of the process that it happened to; what is expensive, only
when something changed that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from sim_worker import Nature, Payload

from opencluster.core.dispatch import EndPiece, Piece, Verdict
from opencluster.core.election import Quorum, Role
from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import Epoch
from opencluster.core.inbox import CUT_SHORT, Waiting
from opencluster.core.pieces import MAX_CUTS
from opencluster.core.replica import Replica

if TYPE_CHECKING:
    from sim_factory import SimFactory
    from sim_link import SimLink
    from sim_manager import SimManager
    from sim_process import Process
    from sim_wires import Wire
    from sim_worker import SimWorker
    from sim_world import World


class Broken(AssertionError):
    """A promise was broken.

    Attributes
    ----------
    rule : str
        Which one.
    """

    def __init__(self, rule: str, details: str) -> None:
        super().__init__(f"{rule}: {details}")
        self.rule = rule


@dataclass(slots=True)
class History:
    """What the registry of one leader was at each revision, as digests."""

    leader: str
    marks: dict[str, int]
    digest: int
    digests: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """What is known of one piece."""

    piece: Piece
    payload: Payload
    verdict: Verdict | None = None
    is_unwanted: bool = False
    done_runs: int = 0
    sent_over: dict[str, tuple[Wire, int]] = field(default_factory=dict)
    """By worker: the connection over which it was sent there, and its life."""


class Ledger:
    """What happened in a world so far."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_majority = world.setup.quorum is Quorum.MAJORITY
        self.histories: dict[Epoch, History] = {}
        self.leading: dict[SimFactory, None] = {}
        self._records: dict[tuple[str, int], Record] = {}
        self._marks: dict[int, tuple[Entry, int]] = {}
        self._newest: dict[object, Epoch] = {}
        self._states: dict[SimFactory, tuple[object, ...]] = {}

    def broken(self, rule: str, details: str) -> NoReturn:
        """Report a broken promise."""
        raise Broken(rule, details)

    # --- factories ------------------------------------------------------------

    def started(self, factory: SimFactory) -> None:
        """Take note of a factory that begins."""
        self._newest[factory] = factory.election.led

    def ended(self, factory: SimFactory) -> None:
        """Take note of a factory that ended."""
        self.leading.pop(factory, None)

    def leads(self, factory: SimFactory, epoch: Epoch) -> None:
        """Take note of a new leader."""
        if epoch in self.histories:
            earlier = self.histories[epoch].leader
            details = f"{epoch} of {factory.name} was that of {earlier}"
            self.broken("no two leaders share an epoch", details)
        disk = factory.disk
        if disk.content[0] < epoch.number:
            details = f"{factory.name} uses {epoch}, {disk.content} is on disk"
            self.broken("an epoch is on disk before it is used", details)
        if disk.led is not None and not epoch.is_newer_than(disk.led):
            details = f"{factory.name} led with {disk.led} before {epoch}"
            self.broken("epochs never go back", details)
        disk.led = epoch
        entries = factory.registry.find()
        marks = {entry.id: self._mark(entry) for entry in entries}
        digest = self._digest(entries)
        history = History(factory.name, marks, digest)
        history.digests[factory.registry.revision] = digest
        self.histories[epoch] = history
        self.leading[factory] = None

    def leads_no_more(self, factory: SimFactory) -> None:
        """Take note that a factory follows, or looks for a leader."""
        self.leading.pop(factory, None)

    def changed(self, factory: SimFactory, epoch: Epoch, delta: Delta) -> None:
        """Take note of a change that a leader publishes."""
        history = self.histories.get(epoch)
        if factory not in self.leading or history is None:
            self.broken("only a leader changes the registry", f"{factory.name}")
        if delta.revision != next(reversed(history.digests)) + 1:
            self.broken("each change raises the revision by one", f"{delta}")
        setup, now = self._world.setup, factory.now()
        is_expiry = delta.cause is not None and "expired" in delta.cause
        if is_expiry and now - factory.led_at < setup.lease_s:
            self.broken("a new leader gives everyone a whole lease", f"{delta.id}")
        is_alone = len(factory.election.names) == 1
        if not is_alone and now - factory.ticked_at > setup.timeout_s:
            self.broken("a leader that stood still steps down first", factory.name)
        history.digest ^= history.marks.pop(delta.id, 0)
        if delta.entry is not None:
            mark = history.marks[delta.id] = self._mark(delta.entry)
            history.digest ^= mark
        history.digests[delta.revision] = history.digest

    def check_factory(self, factory: SimFactory) -> None:
        """Check one factory, and all that lead."""
        election = factory.election
        election.check_invariants()
        led = election.led
        if led is not self._newest[factory]:
            self._grows(factory, factory.name, led)
        registry = factory.registry
        state = (election.role, led, registry.revision, factory.core.is_in_step)
        if state != self._states.get(factory):
            self._states[factory] = state
            factory.core.check_invariants()
            is_leading = election.role is Role.LEADING
            if is_leading != (factory in self.leading):
                self.broken("every change of role is told", factory.name)
            if is_leading or factory.core.is_in_step:
                self._check_copy(factory.name, led, registry.revision, registry.find())
        if self._is_majority and len(self.leading) > 1:
            self._check_writers()

    def _check_writers(self) -> None:
        writers = [
            factory
            for factory in self.leading
            if not factory.is_paused and factory.election.may_write(factory.now())
        ]
        if len(writers) > 1:
            self.broken(
                "with a majority, no two leaders accept writes",
                ", ".join(f"{f.name} {f.election.led}" for f in writers),
            )

    def _check_copy(
        self, who: str, epoch: Epoch, revision: int, entries: Iterable[Entry]
    ) -> None:
        history = self.histories.get(epoch)
        digest = None if history is None else history.digests.get(revision)
        if digest is None or digest != self._digest(entries):
            self.broken(
                "a copy is what the leader's registry was at that revision",
                f"{who} at revision {revision} of {epoch}",
            )

    def _mark(self, entry: Entry) -> int:
        """Return a number that stands for an entry."""
        known = self._marks.get(id(entry))
        if known is None:
            made = hash(
                (
                    entry.id,
                    entry.kind,
                    entry.type,
                    entry.name,
                    entry.pid,
                    entry.endpoints,
                    entry.workshop,
                    entry.attributes.get("failures"),
                )
            )
            # with the entry, so that no other one gets its address
            known = self._marks[id(entry)] = (entry, made)
        return known[1]

    def _digest(self, entries: Iterable[Entry]) -> int:
        digest = 0
        for entry in entries:
            digest ^= self._mark(entry)
        return digest

    def _grows(self, key: object, who: str, epoch: Epoch) -> None:
        newest = self._newest.get(key)
        if newest is not None and newest.is_newer_than(epoch):
            self.broken("epochs never go back", f"{who} from {newest} to {epoch}")
        self._newest[key] = epoch

    # --- clients --------------------------------------------------------------

    def check_client(self, process: Process, link: SimLink) -> None:
        """Check one client's way to the factories."""
        seeker = link.seeker
        if seeker.epoch is not self._newest.get(seeker):
            seeker.check_invariants()
            self._grows(seeker, process.name, seeker.epoch)

    def copied(self, process: Process, replica: Replica) -> None:
        """Check a client's copy of the registry, which has changed."""
        self._grows(replica, process.name, replica.epoch)
        entries = replica.entries.values()
        self._check_copy(process.name, replica.epoch, replica.revision, entries)

    # --- pieces ---------------------------------------------------------------

    def submitted(
        self, manager: SimManager, pieces: Iterable[tuple[Piece, Payload]]
    ) -> None:
        """Take note of new pieces."""
        for piece, payload in pieces:
            self._records[manager.identity, piece.id] = Record(piece, payload)

    def unwanted(self, manager: SimManager, numbers: Iterable[int]) -> None:
        """Take note that pieces are cancelled or interrupted."""
        for number in numbers:
            self._records[manager.identity, number].is_unwanted = True

    def sent(self, manager: SimManager, worker: str, pieces: Iterable[Piece]) -> None:
        """Take note that pieces go to a worker."""
        contact = manager.roster.directory.contacts.get(worker)
        if contact is None:
            self.broken("pieces go to workers that are here", worker)
        for number, piece in ((n, unit) for unit in pieces for n in unit.numbers):
            record = self._records[manager.identity, number]
            if record.verdict is not None:
                self.broken("what is over is not sent again", f"piece {number}")
            if len(piece.deaths) >= self._world.setup.max_kills:
                self.broken("quarantined pieces never run again", f"{number} is sent")
            if piece.cuts > MAX_CUTS:
                self.broken("no piece is cut short too often", f"{number} is sent")
            if piece.losses > piece.retries or piece.errors > piece.error_retries:
                self.broken("no piece is tried too often", f"{number} is sent")
            if record.is_unwanted:
                self.broken("what was interrupted does not run again", f"{number}")
            wire: Wire = contact.peer  # type: ignore[assignment]
            record.sent_over[worker] = (wire, wire.life)

    def chose_piece(self, worker: SimWorker, chosen: Waiting) -> None:
        """Take note of what a worker performs next."""
        urgent = [w for w in worker.inbox.waiting() if w.due_at is not None]
        if urgent and chosen.due_at is None:
            self.broken("real-time pieces go before batch pieces", f"{chosen}")

    def kept_waiting(self, worker: SimWorker, urgent: Waiting) -> None:
        """Take note that a piece still runs that should have made way for another."""
        if urgent in worker.inbox.waiting():
            self.broken("what runs makes way in time", f"{worker.name}: {urgent}")

    def started_piece(self, worker: SimWorker, waiting: Waiting, number: int) -> None:
        """Take note that a worker begins a piece, by itself or of a bundle."""
        worker.log("begins piece %s of %s", number, waiting.manager.decode())
        record = self._records.get((waiting.manager.decode(), number))
        if record is None:
            self.broken("only what was submitted runs", f"{waiting}")
        if record.verdict is not Verdict.POISONED:
            return
        wire, life = record.sent_over[worker.identity]
        # a worker that its manager lost cannot know yet
        if wire.is_up and wire.life == life:
            self.broken("quarantined pieces never run again", f"{waiting}")

    def finished_piece(self, manager: bytes, number: int, status: str) -> None:
        """Take note that a worker answers a piece."""
        record = self._records[manager.decode(), number]
        record.done_runs += status == "done"
        if status == CUT_SHORT and record.piece.wait_s is not None:
            self.broken("real-time pieces make way for none", f"piece {number}")

    def delivered(self, manager: SimManager, number: int, end: EndPiece) -> None:
        """Take note of a verdict that the user gets on one piece."""
        record = self._records[manager.identity, number]
        record.piece = end.piece
        who = f"piece {number} of {manager.name}, a {record.payload.nature.value} one"
        if record.verdict is not None:
            details = f"{who}, is {end.verdict} after {record.verdict}"
            self.broken("a result is delivered at most once", details)
        record.verdict = end.verdict
        if not self._is_deserved(record, end.verdict):
            self.broken("a verdict has its reason", f"{who}, is {end.verdict}")

    def _is_deserved(self, record: Record, verdict: Verdict) -> bool:
        piece, nature = record.piece, record.payload.nature
        match verdict:
            case Verdict.DONE:
                return record.done_runs > 0
            case Verdict.FAILED:
                is_tried = piece.errors >= piece.error_retries or record.is_unwanted
                return nature is Nature.RAISES and is_tried
            case Verdict.POISONED:
                alive = {w.identity for w in self._world.workers if w.is_alive}
                killed = len(record.sent_over.keys() - alive)
                return min(killed, len(piece.deaths)) >= self._world.setup.max_kills
            case Verdict.DIED:
                return piece.losses > piece.retries and bool(piece.deaths)
            case Verdict.TIMED_OUT:
                return piece.timeout_s > 0.0
            case Verdict.NO_WORKER:
                return piece.type in self._world.types_that_failed
            case _:
                return record.is_unwanted

    def check_manager(self, manager: SimManager) -> None:
        """Check one manager."""
        self.check_client(manager, manager.link)
        self.check_pieces(manager)

    def check_pieces(self, manager: SimManager) -> None:
        """Check all that a manager knows of its pieces."""
        manager.dispatch.check_invariants()
        left = sum(piece.count for piece in manager.dispatch._pieces.values())
        if left < len(manager.tickets):
            self.broken("no piece is lost while its manager lives", manager.name)
        if "realtime" in self._world.setup.faults:
            self._check_urgent(manager)

    def _check_urgent(self, manager: SimManager) -> None:
        dispatch = manager.dispatch
        urgent = {
            number: piece
            for crew in dispatch._crews.values()
            for number, piece in ((p.id, p) for p in crew.waiting())
            if piece.wait_s is not None
        }
        for number, piece in urgent.items():
            for worker in dispatch._crews[piece.type].workers:
                held = dispatch._workers[worker].pieces.values()
                is_passed = all(other.wait_s is None for other in held)
                is_resting = dispatch._workers[worker].rests_until is not None
                if is_passed and not is_resting:
                    self.broken(
                        "real-time pieces wait for no credit", f"{number} at {worker}"
                    )

    def check_worker(self, worker: SimWorker) -> None:
        """Check one worker."""
        worker.inbox.check_invariants()
        if len(worker.inbox.running) > 1:
            self.broken("one piece runs at a time", worker.name)
