"""Which processes a workshop should run: counts, restarts with delay, failing types.

Rules that this module keeps:

1. As many slots of a type exist as are wanted; each slot has at most one process. Of
   too many those go first that are not running yet, and then the newest.
2. A process that ended is replaced: at once when it ended on purpose or had run well,
   else after a delay that doubles with each failure in a row up to a limit.
3. A process that ended before it registered, and not on purpose, failed to start, and
   is tried again after `RETRY_S` at the earliest, even if no process could be made;
   after ``failing_after`` of those in a row the type is failing, until one of them
   registers.
4. Stopping asks first (SIGTERM) and insists after a grace (SIGKILL), which is longer
   by ``hand_over_s`` for a process that hands over what it keeps.
5. While it is drained nothing is started: what runs is asked to end, what is wanted is
   remembered, and starts when the drain is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

HEALTHY_AFTER_S = 10.0
"""A process that lived this long after registering starts with a clean record."""
RETRY_S = 0.1
"""Shortest time from a start that failed to the next one, whatever the settings say."""


class SlotState(Enum):
    """What a slot is doing."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass
class Slot:
    """A place for one process of a type.

    Attributes
    ----------
    name : str
        For people: ``WordCount-3``.
    type : str
        The catalogue entry that it runs.
    state : SlotState
        What it is doing.
    failures : int
        Ends in a row without a healthy time between.
    restart_at : float
        When it starts again, while `SlotState.WAITING`.
    """

    name: str
    type: str
    state: SlotState = SlotState.WAITING
    failures: int = 0
    restart_at: float = 0.0
    registered_at: float | None = None
    kill_at: float | None = None
    is_wanted: bool = True
    is_restart: bool = False
    is_handing_over: bool = False


@dataclass
class _Kind:
    slots: dict[str, Slot] = field(default_factory=dict)
    start_failures: int = 0
    last_number: int = 0


# --- effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartProcess:
    """Start a process in this slot."""

    slot: str


@dataclass(frozen=True, slots=True)
class TerminateProcess:
    """Ask the process of this slot to end."""

    slot: str


@dataclass(frozen=True, slots=True)
class KillProcess:
    """End the process of this slot without asking."""

    slot: str


@dataclass(frozen=True, slots=True)
class ReportStartFailure:
    """Say that a process of the type ended before it registered."""

    slot: str
    type: str
    failures: int
    is_failing: bool


@dataclass(frozen=True, slots=True)
class ReportRecovery:
    """Say that a type that did not start starts again."""

    type: str


Effect = (
    StartProcess | TerminateProcess | KillProcess | ReportStartFailure | ReportRecovery
)


class Supervision:
    """Decides what runs on one computer.

    Parameters
    ----------
    restart_delay_s, restart_delay_max_s : float
        First and longest delay before an ended process is replaced.
    failing_after : int
        Failed starts in a row that make a type failing.
    stop_grace_s : float
        Time between SIGTERM and SIGKILL.
    hand_over_s : float
        How much more a process gets that hands over what it keeps.
    """

    def __init__(
        self,
        restart_delay_s: float = 0.5,
        restart_delay_max_s: float = 60.0,
        failing_after: int = 3,
        stop_grace_s: float = 10.0,
        hand_over_s: float = 0.0,
    ) -> None:
        self.restart_delay_s = restart_delay_s
        self.restart_delay_max_s = restart_delay_max_s
        self.failing_after = failing_after
        self.stop_grace_s = stop_grace_s
        self.hand_over_s = hand_over_s
        self.is_drained = False
        self._kinds: dict[str, _Kind] = {}
        self._slots: dict[str, Slot] = {}

    # --- events --------------------------------------------------------------

    def want(self, now: float, type: str, count: int) -> list[Effect]:
        """Set how many processes of a type should run."""
        count = max(0, count)
        kind = self._kinds.setdefault(type, _Kind())
        wanted = [slot for slot in kind.slots.values() if slot.is_wanted]
        effects: list[Effect] = []
        for _ in range(count - len(wanted)):
            kind.last_number += 1
            slot = Slot(f"{type}-{kind.last_number}", type, restart_at=now)
            kind.slots[slot.name] = self._slots[slot.name] = slot
        wanted.sort(key=lambda slot: slot.state is not SlotState.RUNNING)
        for slot in wanted[count:]:
            effects += self.stop(now, slot.name)
        return effects + self.tick(now)

    def stop(self, now: float, name: str) -> list[Effect]:
        """End one slot for good."""
        slot = self._slots.get(name)
        if slot is None:
            return []
        slot.is_wanted = False
        return self._terminate(now, slot)

    def restart(self, now: float, name: str) -> list[Effect]:
        """End the process of a slot and start another one at once."""
        slot = self._slots.get(name)
        if slot is None:
            return []
        slot.is_restart = slot.state is not SlotState.WAITING
        return self._terminate(now, slot)

    def stop_all(self, now: float) -> list[Effect]:
        """End every slot for good."""
        return [effect for name in list(self._slots) for effect in self.stop(now, name)]

    def drain(self, now: float) -> list[Effect]:
        """End every process, and start none until `resume`."""
        self.is_drained = True
        effects: list[Effect] = []
        for name, slot in list(self._slots.items()):
            if slot.is_wanted:
                effects += self.restart(now, name)
        return effects

    def resume(self, now: float) -> list[Effect]:
        """Start what is wanted, after `drain`."""
        self.is_drained = False
        for slot in self._slots.values():
            if slot.state is SlotState.WAITING:
                slot.restart_at = now
        return self.tick(now)

    def started(self, name: str) -> None:
        """Note that a process was started in a slot, even if nobody asked for it."""
        slot = self._slots.get(name)
        if slot is not None and slot.state is SlotState.WAITING:
            slot.state = SlotState.STARTING

    def registered(self, now: float, name: str) -> list[Effect]:
        """Note that the process of a slot is ready for work."""
        slot = self._slots.get(name)
        if slot is None or slot.state is not SlotState.STARTING:
            return []
        slot.state = SlotState.RUNNING
        slot.registered_at = now
        kind = self._kinds[slot.type]
        was_failing, kind.start_failures = kind.start_failures, 0
        return [ReportRecovery(slot.type)] if was_failing else []

    def handing_over(self, name: str) -> None:
        """Note that a process that ends hands over what it keeps, which takes time."""
        slot = self._slots.get(name)
        if slot is None or slot.kill_at is None or slot.is_handing_over:
            return
        slot.is_handing_over = True
        slot.kill_at += self.hand_over_s

    def exited(self, now: float, name: str, is_recycled: bool) -> list[Effect]:
        """Note that the process of a slot ended.

        Parameters
        ----------
        now : float
            The time, in seconds.
        name : str
            The slot.
        is_recycled : bool
            It ended on purpose, to be replaced by a fresh one.
        """
        slot = self._slots.get(name)
        if slot is None or slot.state is SlotState.WAITING:
            return []
        if not slot.is_wanted:
            self._drop(slot)
            return []
        effects: list[Effect] = []
        shortest_s = 0.0
        if slot.state is SlotState.STARTING and not is_recycled:
            effects.append(self._start_failed(slot))
            shortest_s = RETRY_S
        is_clean = is_recycled or slot.is_restart or _has_run_well(slot, now)
        slot.failures = 0 if is_clean else slot.failures + 1
        slot.state = SlotState.WAITING
        slot.restart_at = now + max(shortest_s, self._delay_s(slot))
        slot.registered_at = None
        slot.kill_at = None
        slot.is_restart = slot.is_handing_over = False
        return effects + self.tick(now)

    def tick(self, now: float) -> list[Effect]:
        """Do what only the passing of time brings about."""
        effects: list[Effect] = []
        for slot in self._slots.values():
            if self._may_start(slot) and now >= slot.restart_at:
                slot.state = SlotState.STARTING
                effects.append(StartProcess(slot.name))
            elif slot.kill_at is not None and now >= slot.kill_at:
                slot.kill_at = None
                effects.append(KillProcess(slot.name))
        return effects

    # --- questions -----------------------------------------------------------

    def slots(self) -> Iterator[Slot]:
        """Iterate over the slots."""
        yield from self._slots.values()

    def count(self, type: str) -> int:
        """Return how many processes of a type are wanted."""
        kind = self._kinds.get(type)
        return sum(slot.is_wanted for slot in kind.slots.values()) if kind else 0

    def next_time(self) -> float | None:
        """Return when `tick` has something to do next, or ``None``."""
        slots = self._slots.values()
        times = [s.restart_at for s in slots if self._may_start(s)]
        times += [s.kill_at for s in slots if s.kill_at is not None]
        return min(times, default=None)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        for name, slot in self._slots.items():
            assert slot.name == name
            assert self._kinds[slot.type].slots[name] is slot
            assert slot.kill_at is None or slot.state is SlotState.STOPPING
            assert slot.is_wanted or slot.state is SlotState.STOPPING
            assert slot.is_restart <= (slot.state is SlotState.STOPPING)
            assert slot.is_handing_over <= (slot.state is SlotState.STOPPING)
            if self.is_drained:
                assert slot.state in (SlotState.WAITING, SlotState.STOPPING)
            if slot.state is not SlotState.STOPPING:
                is_registered = slot.registered_at is not None
                assert is_registered == (slot.state is SlotState.RUNNING)
        assert sum(len(kind.slots) for kind in self._kinds.values()) == len(self._slots)

    # --- inside --------------------------------------------------------------

    def _may_start(self, slot: Slot) -> bool:
        return slot.state is SlotState.WAITING and not self.is_drained

    def _terminate(self, now: float, slot: Slot) -> list[Effect]:
        if slot.state is SlotState.WAITING:
            if slot.is_wanted:
                slot.restart_at = now
                return self.tick(now)
            self._drop(slot)
            return []
        if slot.state is SlotState.STOPPING:
            return []
        slot.state = SlotState.STOPPING
        slot.kill_at = now + self.stop_grace_s
        return [TerminateProcess(slot.name)]

    def _start_failed(self, slot: Slot) -> ReportStartFailure:
        kind = self._kinds[slot.type]
        kind.start_failures += 1
        failures = kind.start_failures
        is_failing = failures >= self.failing_after
        return ReportStartFailure(slot.name, slot.type, failures, is_failing)

    def _delay_s(self, slot: Slot) -> float:
        if slot.failures == 0:
            return 0.0
        delay_s = self.restart_delay_s * 2.0 ** min(slot.failures - 1, 30)
        return min(delay_s, self.restart_delay_max_s)

    def _drop(self, slot: Slot) -> None:
        del self._slots[slot.name]
        del self._kinds[slot.type].slots[slot.name]


def _has_run_well(slot: Slot, now: float) -> bool:
    since = slot.registered_at
    return since is not None and now - since >= HEALTHY_AFTER_S
