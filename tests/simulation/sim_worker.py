"""A worker: `core.inbox` and pieces that take virtual time, as ``serving/station.py``
joins it to sockets and threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from sim_process import Process

from opencluster.core.entries import Entry
from opencluster.core.inbox import (
    CUT_SHORT,
    INTERRUPT,
    TIME_LIMIT,
    CutBundle,
    Effect,
    Inbox,
    Key,
    MakeWay,
    RaiseException,
    RaiseFlag,
    ReturnPiece,
    Waiting,
)
from opencluster.errors import DeathEvidence

if TYPE_CHECKING:
    from sim_workshop import SimWorkshop

INTERRUPT_GRACE_S = 0.3
KILL_GRACE_S = 0.4
MAX_QUEUED = 6
MAX_QUEUED_BYTES = 1000
DRAIN_TIMEOUT_S = 0.6
"""A piece that runs when its worker drains gets this long, which is less than the
workshop waits."""
STOP_S = 0.005
"""How long a piece takes to stop once it sees that it should."""


ALONE_AFTER_S = 0.05
"""How long the pieces of a bundle may run before it is cut."""


class Nature(Enum):
    """How a piece behaves."""

    GOOD = "good"
    RAISES = "raises"
    POISON = "poison"
    DEAF = "deaf"
    """Stops at an exception, not at a flag."""
    STUBBORN = "stubborn"
    """Stops at nothing."""


LISTENS = (Nature.GOOD, Nature.RAISES, Nature.POISON)
"""Natures of pieces that stop when they see that they should."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What a piece carries.

    Attributes
    ----------
    nature : Nature
        How it behaves.
    takes_s : float
        For how long it runs.
    nbytes : int
        How large it is.
    progress_s : float
        Time between two moments at which it sees that it should make way; 0 for never.
    """

    nature: Nature
    takes_s: float
    nbytes: int
    progress_s: float = 0.0


class SimWorker(Process):
    """One life of a worker."""

    def __init__(self, workshop: SimWorkshop, slot: str, type: str) -> None:
        world = workshop.world
        name = f"{workshop.name}/{slot}"
        super().__init__(world, name, workshop.node, workshop.clock)
        self.workshop = workshop
        self.slot = slot
        self.is_ready = False
        self.inbox = Inbox(
            MAX_QUEUED, INTERRUPT_GRACE_S, KILL_GRACE_S, MAX_QUEUED_BYTES
        )
        port = slot if world.setup.are_ports_reused else self.identity
        endpoint = f"tcp://{workshop.name}/{port}"
        self.entry = Entry(
            id=self.identity,
            kind="worker",
            type=type,
            name=slot,
            pid=world.new_pid(),
            endpoints=(endpoint,),
            workshop=workshop.identity,
        )
        self._payload = Payload(Nature.GOOD, 0.0, 0)
        self._pieces_done = 0
        self._running: Waiting | None = None
        self._statuses: list[str] = []
        self._run = 0
        self._begun_at = 0.0
        self._makes_way = False
        self._tick_at: float | None = None
        self._exceeded = ""
        world.workers.append(self)
        world.wires.listen(endpoint, self)

    def be_ready(self) -> None:
        """Tell the workshop that pieces can come."""
        self.is_ready = True
        self.every(self.world.setup.heartbeat_s, self._beat)
        self.workshop.take(self.workshop.worker_ready, self)

    def fail_to_start(self) -> None:
        """End before it was ready."""
        self.end(DeathEvidence("it does not start", exit_code=1))

    def check(self) -> None:
        """Check the rules of workers."""
        self.world.ledger.check_worker(self)

    # --- its end --------------------------------------------------------------

    def piece(self) -> str:
        """Return the piece that runs, as it stands on a scoreboard."""
        if self._running is None:
            return ""
        name = f"{self._running.manager.decode()}:{self._running.piece}"
        return f"{name}+{len(self._statuses)}" if self._is_bundle else name

    @property
    def _is_bundle(self) -> bool:
        return self._running is not None and self._running.members > 1

    def end_by_signal(self, reason: str) -> None:
        """Let a signal end it."""
        self.end(
            DeathEvidence(
                reason,
                signal="SIGKILL",
                piece=self.piece(),
                exceeded=self._exceeded,
            )
        )

    def end(self, evidence: DeathEvidence) -> None:
        """End it; its workshop sees how."""
        if self.is_alive:
            self.crash()
            self.workshop.take(self.workshop.worker_ended, self, evidence)

    # --- connections ----------------------------------------------------------

    def heard(self, key: str, message: tuple[Any, ...]) -> None:
        """Take a message of a manager."""
        kind, content = message
        manager = key.encode()
        if kind == "pieces":
            worker, rows = content
            if worker == self.identity:
                self._take_in(manager, rows)
            else:
                self._send(manager, ("gone", worker))
        elif kind == "withdraw":
            self._do(self.inbox.withdraw(manager, content))
        elif kind == "cancel":
            self._do(self.inbox.cancel(self.now(), manager, content))
        elif kind == "interrupt":
            self._do(self.inbox.interrupt(self.now(), manager, content))
        self._start_next()

    def _take_in(
        self, manager: bytes, rows: list[tuple[int, Any, float, list[Payload]]]
    ) -> None:
        if self.inbox.is_draining:
            self._send(manager, ("draining",))
        pieces = []
        for n, urgency, timeout_s, data in rows:
            priority, *wait = [urgency] if isinstance(urgency, int) else urgency
            wait_s = wait[0] if wait else None
            pieces.append(
                Waiting(
                    *(manager, n, priority, timeout_s, _size(data), data, len(data)),
                    due_at=None if wait_s is None else self.now() + wait_s,
                    may_be_cut=not wait,
                )
            )
        self._do(self.inbox.receive(pieces))
        for piece in pieces:
            if piece.due_at is not None:
                self._expect_way(piece)
        self._tick_now()

    def _beat(self) -> None:
        """Find out which managers are gone."""
        for manager in sorted(self.inbox.managers()):
            self._send(manager, ("alive",))

    def _send(self, manager: bytes, message: tuple[Any, ...]) -> None:
        if not self.world.wires.answer(self, manager.decode(), message):
            self.log("misses manager %s", manager.decode())
            effects = self.inbox.manager_lost(self.now(), manager)
            self._do(effects)

    # --- pieces ---------------------------------------------------------------

    def drain(self) -> None:
        """Finish what runs, give back the rest, and end."""
        if self.inbox.is_draining:
            return
        self.log("drains")
        managers = sorted(self.inbox.managers())
        effects = self.inbox.drain()
        for manager in managers:
            self._send(manager, ("draining",))
        self._do(effects)
        self.after(DRAIN_TIMEOUT_S, self._interrupt_for_drain)
        self._end_when_drained()

    def _interrupt_for_drain(self) -> None:
        self._do(self.inbox.interrupt_running(self.now()))

    def _end_when_drained(self) -> None:
        if self.inbox.is_draining and self._running is None:
            self.end(DeathEvidence("it left", exit_code=0))

    def _start_next(self) -> None:
        if self._running is not None or self.inbox.is_draining or not self.is_alive:
            return
        waiting = self.inbox.start(self.now())
        if waiting is None:
            return
        self.world.ledger.chose_piece(self, waiting)
        self._running = waiting
        self._statuses = []
        self._makes_way = False
        if waiting.members > 1:
            self.after(ALONE_AFTER_S, self._look_at_bundle, waiting)
        self._perform(waiting.data[0])
        if waiting.timeout_s:
            self._plan_tick()

    def _perform(self, payload: Payload) -> None:
        assert self._running is not None
        self._run += 1
        self._begun_at = self.now()
        self._payload = payload
        number = self._running.piece + len(self._statuses)
        self.world.ledger.started_piece(self, self._running, number)
        if payload.nature is Nature.POISON:
            self.after(payload.takes_s, self._die_of_poison, self._run)
        else:
            self.after(payload.takes_s, self._finish, self._run, "")

    def _die_of_poison(self, run: int) -> None:
        if run == self._run and self._running is not None:
            self.end_by_signal("killed by signal SIGSEGV")

    def _finish(self, run: int, stopped_by: str) -> None:
        waiting = self._running
        if run != self._run or waiting is None:
            return
        payload, status = self._payload, stopped_by
        if not status:
            status = "failed" if payload.nature is Nature.RAISES else "done"
        number = waiting.piece + len(self._statuses)
        self.log("ends piece %s: %s", number, status)
        if self._is_bundle:
            self.world.ledger.finished_piece(waiting.manager, number, status)
            self._statuses.append(status)
            if self._goes_on(waiting, stopped_by):
                self._pieces_done += 1
                self._perform(waiting.data[len(self._statuses)])
                return
            if self.inbox.finish(waiting.key, payload.takes_s):
                row: Any = (waiting.piece, self._statuses, 0.0)
                self._send(waiting.manager, ("results", [row]))
        elif self.inbox.finish(
            waiting.key, payload.takes_s if status == "done" else None
        ):
            self.world.ledger.finished_piece(waiting.manager, number, status)
            row = (waiting.piece, status, payload.takes_s)
            self._send(waiting.manager, ("results", [row]))
        self._running = None
        self._pieces_done += status != CUT_SHORT
        if self._pieces_done == self.world.setup.max_pieces:
            self.drain()
        self._end_when_drained()
        self._start_next()

    def _goes_on(self, bundle: Waiting, stopped_by: str) -> bool:
        """Return whether the next piece of a bundle is performed."""
        is_done = len(self._statuses) == bundle.members
        is_enough = self._pieces_done + 1 == self.world.setup.max_pieces
        is_last = is_done or is_enough or self._makes_way
        return not (is_last or stopped_by or self.inbox.is_draining)

    def _look_at_bundle(self, bundle: Waiting) -> None:
        if self._running is bundle:
            self._cut_bundle(bundle.key)

    def _cut_bundle(self, key: Key) -> None:
        """Answer what is done of a bundle, and let the piece that runs be alone."""
        bundle = self._running
        if bundle is None or not self._is_bundle or bundle.key != key:
            return
        place = len(self._statuses)
        alone = self.inbox.leave_alone(key, place, [bundle.data[place]])
        self._running = alone or bundle._replace(members=1)
        statuses, self._statuses = self._statuses, []
        if alone is not None:
            row = (bundle.piece, statuses, -1.0)
            self._send(bundle.manager, ("results", [row]))
        self._makes_way = False
        self._tick_now()

    def _do(self, effects: Iterable[Effect]) -> None:
        returns: dict[bytes, list[int]] = {}
        for effect in effects:
            match effect:
                case ReturnPiece((manager, piece)):
                    returns.setdefault(manager, []).append(piece)
                case RaiseFlag(key, reason, enforce_at):
                    self._flagged(key, reason, enforce_at)
                case RaiseException(key, reason):
                    self._stop(key, reason, (Nature.DEAF,))
                case CutBundle(key):
                    self._cut_bundle(key)
                case MakeWay(key):
                    self._make_way(key)
        for manager, pieces in returns.items():
            self._send(manager, ("returned", pieces))

    def _flagged(self, key: Key, reason: str, enforce_at: float) -> None:
        self._stop(key, reason, LISTENS)
        delay_s = enforce_at - self.now()
        self.after(delay_s, self._enforce, self._run, reason)
        self._plan_tick()

    def _stop(self, key: Key, reason: str, natures: tuple[Nature, ...]) -> None:
        running = self._running
        if running is None or running.key != key:
            return
        if self._payload.nature in natures:
            status = {TIME_LIMIT: "timeout", INTERRUPT: "interrupted"}
            self.after(STOP_S, self._finish, self._run, status.get(reason, reason))

    def _enforce(self, run: int, reason: str) -> None:
        if run == self._run and self._running is not None:
            self._exceeded = "time" if reason == TIME_LIMIT else ""
            self.end_by_signal("was interrupted and did not stop")

    def _plan_tick(self) -> None:
        at = self.inbox.next_time()
        if at is not None and (self._tick_at is None or at < self._tick_at):
            self._tick_at = at
            self.after(at - self.now(), self._tick)

    def _make_way(self, key: Key) -> None:
        """Stop for a real-time piece: at the next moment when that can be."""
        running = self._running
        if running is None or running.key != key:
            return
        self.log("is to make way")
        self._makes_way = True
        step_s = self._payload.progress_s
        if not self._is_bundle and step_s and self._payload.nature in LISTENS:
            delay_s = step_s - (self.now() - self._begun_at) % step_s
            self.after(delay_s, self._finish, self._run, CUT_SHORT)

    def _expect_way(self, urgent: Waiting) -> None:
        """Have it looked whether what runs makes way in time, if it is to."""
        running, payload = self._running, self._payload
        if running is None or self._is_bundle or not running.may_be_cut:
            return
        is_cuttable = payload.progress_s > 0.0 and payload.nature in LISTENS
        if running.due_at is not None or not is_cuttable or urgent.due_at is None:
            return
        latest_s = urgent.due_at - self.now() + payload.progress_s + STOP_S
        self.after(latest_s, self._look_at_way, urgent, self._run)

    def _look_at_way(self, urgent: Waiting, run: int) -> None:
        if run == self._run and self._running is not None:
            self.world.ledger.kept_waiting(self, urgent)

    def _tick(self) -> None:
        self._tick_at = None
        self._tick_now()

    def _tick_now(self) -> None:
        self._do(self.inbox.tick(self.now()))
        self._plan_tick()


def _size(payloads: list[Payload]) -> int:
    return sum(payload.nbytes for payload in payloads)
