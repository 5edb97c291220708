"""What a worker holds: who refers to each value, and where it lies.

Rules that this module keeps:

1. A value is held as long as a manager refers to it or a piece here uses it. Copies of
   values that others hold stay until their room is needed.
2. When more lies in memory than the budget allows, copies are dropped first, then
   values go to disk; of each those that were used longest ago. What a piece uses stays:
   its memory would not become free.
3. A value is written once at most: it never changes, so a file is as good as ever when
   the value has been used from it.
4. A value lies in memory until its file is whole. When writing fails it stays there,
   and no other is written before a file is removed or `RETRY_S` has passed.
5. What a manager referred to is let go when that is lost, and not heard again for a
   while: a network that was cut for a moment costs no data.
6. A draining worker holds no copies, and holds values until they are released. It
   waits for managers that are there, as long as one of them may yet have its values
   taken by others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

RETRY_S = 30.0
"""After a write failed: how long until one is tried again."""


class Lies(Enum):
    """Where a value lies."""

    MEMORY = "in memory"
    WRITING = "in memory, and being written"
    FILE = "in a file"


@dataclass(slots=True, eq=False)
class Holding:
    """A value that is held.

    Attributes
    ----------
    id : bytes
        Its identity.
    nbytes : int
        Its size.
    managers : set of bytes
        The peers that refer to it; empty for a copy, and for what only a piece uses.
    pins : int
        How many users it has here.
    lies : Lies
        Where.
    is_copy : bool
        Others hold it too, and nobody relies on this one.
    """

    id: bytes
    nbytes: int
    managers: set[bytes] = field(default_factory=set)
    pins: int = 0
    lies: Lies = Lies.MEMORY
    is_copy: bool = False


# --- effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write:
    """Write a value to disk; `Holdings.written` or `write_failed` follows."""

    id: bytes


@dataclass(frozen=True, slots=True)
class LeaveMemory:
    """Forget the memory of a value: its file is whole."""

    id: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a value, and remove its file if it has one."""

    id: bytes


@dataclass(frozen=True, slots=True)
class WarnDiskFull:
    """Say that values stay in memory that should not."""

    excess_bytes: int


Effect = Write | LeaveMemory | Drop | WarnDiskFull


class Holdings:
    """The values of one worker.

    Parameters
    ----------
    budget : int
        Bytes of values that may lie in memory.
    orphan_s : float
        How long values are held for a manager that was lost.
    can_write : bool
        There is a disk to write to.
    """

    def __init__(
        self, budget: int, orphan_s: float = 10.0, can_write: bool = True
    ) -> None:
        self.budget = budget
        self.orphan_s = orphan_s
        self.can_write = can_write
        self.is_draining = False
        self._held: dict[bytes, Holding] = {}
        # what could leave memory, in the order of the last use
        self._idle: OrderedDict[bytes, Holding] = OrderedDict()
        self._idle_copies: OrderedDict[bytes, Holding] = OrderedDict()
        self._by_manager: dict[bytes, set[bytes]] = {}
        self._lost_at: dict[bytes, float] = {}
        self._hopeless: set[bytes] = set()
        self._in_memory = 0
        self._kept_bytes = 0
        self._being_written = 0
        self._retry_at: float | None = None

    # --- events: values ------------------------------------------------------

    def keep(self, id: bytes, nbytes: int, manager: bytes) -> list[Effect]:
        """Take in a value for a manager; one that is here already stays as it is."""
        holding = self._held.get(id) or self._take_in(Holding(id, nbytes))
        self._refer(manager, holding)
        return self._make_room()

    def copy(self, id: bytes, nbytes: int, pins: int = 0) -> list[Effect]:
        """Take in a copy of a value that somebody else holds, with so many users."""
        holding = self._held.get(id)
        if holding is None:
            holding = self._take_in(Holding(id, nbytes, is_copy=True))
        holding.pins += pins
        self._line_up(holding)
        return [*self._settle(holding), *self._make_room()]

    def pin(self, id: bytes) -> bool:
        """Note a use of a value until `unpin`; ``False`` if it is not here."""
        holding = self._held.get(id)
        if holding is None:
            return False
        holding.pins += 1
        self._line_up(holding)
        return True

    def unpin(self, id: bytes) -> list[Effect]:
        """Note that a use is over."""
        holding = self._held.get(id)
        if holding is None or not holding.pins:
            return []
        holding.pins -= 1
        self._line_up(holding)
        return [*self._settle(holding), *self._make_room()]

    def use(self, id: bytes) -> bool:
        """Note that somebody fetches a value; ``False`` if it is not here."""
        holding = self._held.get(id)
        if holding is not None:
            self._line_up(holding)
        return holding is not None

    def written(self, id: bytes) -> list[Effect]:
        """Note that the file of a value is whole."""
        holding = self._held.get(id)
        if holding is None:
            return [Drop(id)]
        if holding.lies is Lies.FILE:
            return []
        self._in_memory -= holding.nbytes
        if holding.lies is Lies.WRITING:
            self._being_written -= holding.nbytes
        holding.lies = Lies.FILE
        self._line_up(holding)
        return [LeaveMemory(id), *self._make_room()]

    def write_failed(self, now: float, id: bytes) -> list[Effect]:
        """Note that a value could not be written."""
        is_first = self._retry_at is None
        self._retry_at = now + RETRY_S
        holding = self._held.get(id)
        if holding is not None and holding.lies is Lies.WRITING:
            holding.lies = Lies.MEMORY
            self._being_written -= holding.nbytes
            self._line_up(holding)
        excess = max(0, self._in_memory - self.budget)
        return [WarnDiskFull(excess)] if is_first else []

    def vanished(self, id: bytes) -> list[Effect]:
        """Note that the file of a value cannot be read any more."""
        holding = self._held.get(id)
        if holding is None or holding.lies is not Lies.FILE:
            return []
        for manager in list(holding.managers):
            self._no_longer(manager, holding)
        return [self._drop(holding), *self._make_room()]

    # --- events: managers ----------------------------------------------------

    def refer(self, manager: bytes, ids: Iterable[bytes]) -> list[bytes]:
        """Note that a manager refers to values too, and return those not here."""
        missing = []
        for id in ids:
            holding = self._held.get(id)
            if holding is None:
                missing.append(id)
            else:
                self._refer(manager, holding)
        return missing

    def refer_to_these(
        self, manager: bytes, ids: Iterable[bytes]
    ) -> tuple[list[bytes], list[Effect]]:
        """Note all that a manager refers to here.

        Returns
        -------
        missing : list of bytes
            Those that are not here.
        effects : list of Effect
            What follows from its referring to nothing else.
        """
        wanted = list(ids)
        missing = self.refer(manager, wanted)
        rest = self._by_manager.get(manager, set()) - set(wanted)
        return missing, self.release(manager, sorted(rest))

    def release(self, manager: bytes, ids: Iterable[bytes]) -> list[Effect]:
        """Note that a manager refers to values no longer; unused copies go as well."""
        effects: list[Effect] = []
        for id in ids:
            holding = self._held.get(id)
            if holding is None:
                continue
            self._no_longer(manager, holding)
            if holding.is_copy and not holding.pins:
                effects.append(self._drop(holding))
            else:
                effects += self._settle(holding)
        return [*effects, *self._make_room()]

    def manager_lost(self, now: float, manager: bytes) -> None:
        """Note that a manager does not answer."""
        if manager in self._by_manager:
            self._lost_at.setdefault(manager, now)

    def manager_heard(self, manager: bytes) -> None:
        """Note that a manager is there."""
        self._lost_at.pop(manager, None)

    def unsaved(self, manager: bytes, count: int) -> None:
        """Note how many values nobody takes that a manager refers to.

        Parameters
        ----------
        manager : bytes
            Who says so.
        count : int
            How many; 0 when somebody takes them after all.
        """
        if count and manager in self._by_manager:
            self._hopeless.add(manager)
        else:
            self._hopeless.discard(manager)

    def drain(self) -> list[Effect]:
        """Hold no copies any more."""
        self.is_draining = True
        return [self._drop(copy) for copy in list(self._idle_copies.values())]

    # --- time ----------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do what only the passing of time brings about."""
        effects: list[Effect] = []
        for manager, at in list(self._lost_at.items()):
            if now - at >= self.orphan_s:
                del self._lost_at[manager]
                ids = sorted(self._by_manager.get(manager, ()))
                effects += self.release(manager, ids)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            effects += self._make_room()
        return effects

    # --- questions -----------------------------------------------------------

    def __contains__(self, id: bytes) -> bool:
        return id in self._held

    def lies(self, id: bytes) -> Lies | None:
        """Return where a value lies, or ``None`` when it is not here."""
        holding = self._held.get(id)
        return holding.lies if holding is not None else None

    def managers(self) -> set[bytes]:
        """Return who refers to values here."""
        return set(self._by_manager)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is gained by waiting.

        Memory is within the budget, or what could go to disk is there.
        """
        return self._in_memory <= self.budget or not self._being_written

    @property
    def is_empty(self) -> bool:
        """Whether nobody refers to anything here."""
        return not self._by_manager

    @property
    def is_awaited(self) -> bool:
        """Whether a manager is there that may yet have values taken by others."""
        gone = self._lost_at.keys() | self._hopeless
        return not self._by_manager.keys() <= gone

    @property
    def awaited(self) -> tuple[int, int]:
        """How many values managers refer to that are there, and the bytes of these."""
        lost = self._lost_at.keys()
        sizes = [each.nbytes for each in self._held.values() if each.managers - lost]
        return len(sizes), sum(sizes)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the values that managers refer to."""
        return self._kept_bytes

    @property
    def in_memory(self) -> int:
        """Bytes of values in memory."""
        return self._in_memory

    @property
    def on_disk(self) -> int:
        """Bytes of values on disk alone."""
        held = self._held.values()
        return sum(holding.nbytes for holding in held if holding.lies is Lies.FILE)

    def __len__(self) -> int:
        return len(self._held)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        held = list(self._held.values())
        in_memory = [h for h in held if h.lies is not Lies.FILE]
        writing = [h for h in held if h.lies is Lies.WRITING]
        assert self._in_memory == sum(h.nbytes for h in in_memory)
        assert self._being_written == sum(h.nbytes for h in writing)
        assert self._kept_bytes == sum(h.nbytes for h in held if h.managers)
        idle = {h.id for h in held if h.lies is Lies.MEMORY and not h.pins}
        assert idle == self._idle.keys() | self._idle_copies.keys()
        assert all(copy.is_copy for copy in self._idle_copies.values())
        assert not any(holding.is_copy for holding in self._idle.values())
        by_manager: dict[bytes, set[bytes]] = {}
        for holding in held:
            assert holding.managers or holding.pins or holding.is_copy
            assert not (holding.managers and holding.is_copy)
            assert holding.pins or not (holding.is_copy and self.is_draining)
            for manager in holding.managers:
                by_manager.setdefault(manager, set()).add(holding.id)
        assert by_manager == self._by_manager
        assert self._lost_at.keys() <= self._by_manager.keys()
        assert self._hopeless <= self._by_manager.keys()
        if self._excess() > 0:
            is_stuck = not self.can_write or self._retry_at is not None
            assert not self._idle_copies and (is_stuck or not self._idle)

    # --- inside --------------------------------------------------------------

    def _take_in(self, holding: Holding) -> Holding:
        self._held[holding.id] = holding
        self._in_memory += holding.nbytes
        self._line_up(holding)
        return holding

    def _line_up(self, holding: Holding) -> None:
        """Let a value be the last to leave memory, or not be among those that could."""
        self._idle.pop(holding.id, None)
        self._idle_copies.pop(holding.id, None)
        if holding.lies is Lies.MEMORY and not holding.pins:
            line = self._idle_copies if holding.is_copy else self._idle
            line[holding.id] = holding

    def _refer(self, manager: bytes, holding: Holding) -> None:
        holding.is_copy = False
        if not holding.managers:
            self._kept_bytes += holding.nbytes
        holding.managers.add(manager)
        self._by_manager.setdefault(manager, set()).add(holding.id)
        self._lost_at.pop(manager, None)
        self._line_up(holding)

    def _no_longer(self, manager: bytes, holding: Holding) -> None:
        if holding.managers == {manager}:
            self._kept_bytes -= holding.nbytes
        holding.managers.discard(manager)
        ids = self._by_manager.get(manager)
        if ids is not None:
            ids.discard(holding.id)
            if not ids:
                del self._by_manager[manager]
                self._lost_at.pop(manager, None)
                self._hopeless.discard(manager)

    def _settle(self, holding: Holding) -> list[Effect]:
        """Let go of a value that nobody refers to or uses."""
        is_kept_as_copy = holding.is_copy and not self.is_draining
        if holding.managers or holding.pins or is_kept_as_copy:
            return []
        return [self._drop(holding)]

    def _drop(self, holding: Holding) -> Drop:
        del self._held[holding.id]
        self._idle.pop(holding.id, None)
        self._idle_copies.pop(holding.id, None)
        if holding.lies is Lies.FILE:
            # there is room on the disk again
            self._retry_at = None
        else:
            self._in_memory -= holding.nbytes
        if holding.lies is Lies.WRITING:
            self._being_written -= holding.nbytes
        return Drop(holding.id)

    def _make_room(self) -> list[Effect]:
        """Drop copies, then have values written, until the rest is within the budget.

        What is being written counts as gone: it will be.
        """
        effects: list[Effect] = []
        while self._excess() > 0 and self._idle_copies:
            effects.append(self._drop(next(iter(self._idle_copies.values()))))
        if not self.can_write or self._retry_at is not None:
            return effects
        while self._excess() > 0 and self._idle:
            holding = next(iter(self._idle.values()))
            holding.lies = Lies.WRITING
            self._being_written += holding.nbytes
            self._line_up(holding)
            effects.append(Write(holding.id))
        return effects

    def _excess(self) -> int:
        return self._in_memory - self._being_written - self.budget
