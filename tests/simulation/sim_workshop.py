"""A workshop: `core.supervision` and a link, as ``workshop.py`` and ``node`` join them.

It sees its processes end at once, and speaks for them to the factory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sim_link import SimLink
from sim_process import Process
from sim_worker import SimWorker

from opencluster.core.entries import Entry
from opencluster.core.piece_names import is_meant
from opencluster.core.supervision import (
    Effect,
    KillProcess,
    ReportRecovery,
    ReportStartFailure,
    StartProcess,
    Supervision,
    TerminateProcess,
)
from opencluster.errors import DeathEvidence
from opencluster.workshop import ANSWERED_HEARTBEATS

if TYPE_CHECKING:
    from sim_wires import Wire
    from sim_world import World

    from opencluster.testing.virtual import VirtualClock

RESTART_DELAY_S = 0.2
RESTART_DELAY_MAX_S = 1.0
STOP_GRACE_S = 1.0
GOODBYE_S = 1.0
"""How long the answer to the last word may take."""
START_S = (0.05, 0.3)
"""How long a worker takes until it is ready."""


class SimWorkshop(Process):
    """One life of a workshop.

    Parameters
    ----------
    world : World
        Where it lives.
    name : str
        Its own, which is also its node.
    catalogue : mapping of str to int
        How many workers of each type it runs.
    """

    def __init__(
        self, world: World, name: str, catalogue: dict[str, int], clock: VirtualClock
    ) -> None:
        super().__init__(world, name, name, clock)
        self.catalogue = catalogue
        self.workers: dict[str, SimWorker] = {}
        self.failures: dict[str, Entry] = {}
        self.supervision = Supervision(
            RESTART_DELAY_S, RESTART_DELAY_MAX_S, 3, STOP_GRACE_S
        )
        self._own = Entry(
            id=self.identity,
            kind="workshop",
            name=name,
            endpoints=(f"tcp://{name}",),
            attributes={"catalogue": dict.fromkeys(catalogue, "worker")},
        )
        self._next_at: float | None = None
        world.wires.listen(f"tcp://{name}", self)
        self.link = SimLink(
            self,
            world.draw_list(),
            self._leader_found,
            on_forgotten=self._register_forgotten,
        )
        self._heartbeats = 0
        self._is_registered = False
        self._is_leaving = False
        self.take(self._begin)

    def check(self) -> None:
        """Check the rules of workshops."""
        self.world.ledger.check_client(self, self.link)

    def _begin(self) -> None:
        self.log("starts")
        self.every(self.world.setup.heartbeat_s, self._heartbeat)
        for type, count in self.catalogue.items():
            self._do(self.supervision.want(self.now(), type, count))

    def crash(self) -> None:
        """End it, and its workers with it."""
        for worker in list(self.workers.values()):
            worker.crash()
        super().crash()

    # --- the registry ---------------------------------------------------------

    def entries(self) -> dict[str, Entry]:
        """Return what should stand in the registry."""
        entries = {self.identity: self._own}
        for worker in self.workers.values():
            if worker.is_ready:
                entries[worker.identity] = worker.entry
        for entry in self.failures.values():
            entries[entry.id] = entry
        return entries

    def _leader_found(self) -> None:
        """Register with the first leader; those after it know us, or ask for it."""
        if self._is_registered:
            self._heartbeats = -1
            self._heartbeat()
        else:
            arguments = {"entries": list(self.entries().values())}
            self.link.request("register", arguments, self._all_registered)

    def _all_registered(self, error: Exception | None, body: Any) -> None:
        self._is_registered = self._is_registered or error is None

    def _register(self, entries: list[Entry]) -> None:
        if entries and self.link.is_up:
            self._ask("register", {"entries": entries})

    def _heartbeat(self) -> None:
        if not self.link.is_up:
            return
        ids = list(self.entries())
        self._heartbeats += 1
        if self._heartbeats % ANSWERED_HEARTBEATS:
            self.link.tell(("renew", ids))
        else:
            self.link.request("renew", {"ids": ids}, self._renewed)

    def _renewed(self, error: Exception | None, unknown: Any) -> None:
        if error is None:
            self._register_forgotten(unknown)

    def _register_forgotten(self, ids: Sequence[str]) -> None:
        """Register what the factory does not know (any more)."""
        entries = self.entries()
        self._register([entries[i] for i in ids if i in entries])

    def _ask(self, operation: str, arguments: dict[str, Any]) -> None:
        self.link.request(operation, arguments, _nothing)

    # --- processes ------------------------------------------------------------

    def worker_ready(self, worker: SimWorker) -> None:
        """Register a worker that is ready for work."""
        self._register([worker.entry])
        self._do(self.supervision.registered(self.now(), worker.slot))

    def worker_ended(self, worker: SimWorker, evidence: DeathEvidence) -> None:
        """Take a worker out of the registry, and start another."""
        if self.workers.get(worker.slot) is not worker:
            return
        del self.workers[worker.slot]
        self.log("sees the end of %s: %s", worker.name, evidence.reason)
        if worker.is_ready:
            arguments = {"id": worker.identity, "cause": asdict(evidence)}
            self._ask("deregister", arguments)
        is_recycled = evidence.exit_code == 0 and not evidence.piece
        self._do(self.supervision.exited(self.now(), worker.slot, is_recycled))
        self._leave_if_empty()

    def restart(self, slot: str) -> None:
        """End one worker in good order, and start another."""
        self._do(self.supervision.restart(self.now(), slot))

    def scale(self, type: str, count: int) -> None:
        """Set how many workers of a type run."""
        if self._is_leaving:
            return
        self.log("is to run %d of type %s", count, type)
        self._do(self.supervision.want(self.now(), type, count))

    def leave(self) -> None:
        """End all workers, then say goodbye to the factory and end."""
        self.log("stops")
        self._is_leaving = True
        self._do(self.supervision.stop_all(self.now()))
        self._leave_if_empty()

    def _leave_if_empty(self) -> None:
        is_empty = not self.workers and not any(self.supervision.slots())
        if self._is_leaving and is_empty:
            self.after(GOODBYE_S, self.crash)
            arguments = {"id": self.identity}
            self.link.request("deregister", arguments, lambda *_: self.crash())

    def heard(self, key: str, message: tuple[Any, ...]) -> None:
        """End a worker that ignores its interrupt, as a manager asks."""
        _, identity, piece = message
        for worker in list(self.workers.values()):
            if worker.identity == identity and is_meant(worker.piece(), piece):
                worker.end_by_signal("was interrupted and did not stop")

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartProcess(slot):
                    self._start(slot)
                case TerminateProcess(slot):
                    if slot in self.workers:
                        self.workers[slot].take(self.workers[slot].drain)
                case KillProcess(slot):
                    if slot in self.workers:
                        self.workers[slot].end_by_signal("asked to end")
                case ReportStartFailure():
                    self._start_failed(effect)
                case ReportRecovery(type):
                    failure = self.failures.pop(type, None)
                    if failure is not None:
                        self._ask("deregister", {"id": failure.id})
        self.supervision.check_invariants()
        self._plan()

    def _start(self, slot: str) -> None:
        type = slot.rpartition("-")[0]
        self.supervision.started(slot)
        self.workers[slot] = worker = SimWorker(self, slot, type)
        chance = self.world.chance
        if chance.random() < self.world.start_failures.get(type, 0.0):
            worker.after(chance.uniform(*START_S), worker.fail_to_start)
        else:
            worker.after(chance.uniform(*START_S), worker.be_ready)

    def _start_failed(self, failure: ReportStartFailure) -> None:
        entry = Entry(
            id=f"failure:{self.identity}:{failure.type}",
            kind="failure",
            type=failure.type,
            name=failure.slot,
            workshop=self.identity,
            attributes={
                "of_kind": "worker",
                "failures": failure.failures,
                "is_failing": failure.is_failing,
            },
        )
        self.failures[failure.type] = entry
        self._register([entry])

    def _plan(self) -> None:
        at = self.supervision.next_time()
        if at is not None and (self._next_at is None or at < self._next_at):
            self._next_at = at
            self.after(at - self.now(), self._tick)

    def _tick(self) -> None:
        self._next_at = None
        self._do(self.supervision.tick(self.now()))

    # --- connections ----------------------------------------------------------

    def answered(self, wire: Wire, message: tuple[Any, ...]) -> None:
        """Take a message of a factory."""
        self.link.answered(wire, message)

    def lost(self, wire: Wire) -> None:
        """Take note that a connection to a factory broke."""
        self.link.lost(wire)


def _nothing(error: Exception | None, body: Any) -> None:
    """Do nothing about an answer."""
