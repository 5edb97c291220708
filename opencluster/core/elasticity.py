"""How many workers are launched and let go, by the work that waits: the policy.

It owns the decision and says why in words. What a launch is decides whoever carries it
out: one order to workshops, for any number of processes of a type; or one allocation of
a batch system, which brings workers of several types at once.

Rules that this module keeps, besides those of `core.demand` and `core.launching`:

1. No type gets more workers than its maximum, all together no more than the ceiling;
   and no more allocations stand or wait than are allowed.
2. A launch at most doubles what is there, but for the first ones.
3. Half of the workers that are too many are let go at a time, or one allocation.
4. What was launched and is not there in time has failed.
5. The same events lead to the same orders, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from opencluster.core.demand import Aim, Demand, Patience, Seen
from opencluster.core.launching import Launching, Pace

ALLOCATIONS = ""
"""What is launched where allocations bring all types."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for all types together.

    Attributes
    ----------
    ceiling : int
        Workers of all elastic types.
    allocations : int
        Allocations that stand or wait.
    start_timeout_s : float
        How long workers may take to be ready, in seconds.
    pace : Pace
        How fast is launched.
    patience : Patience
        How long something must be so before it counts.
    """

    ceiling: int = 1000
    allocations: int = 10
    start_timeout_s: float = 300.0
    pace: Pace = Pace()
    patience: Patience = Patience()


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a type at the last look, for people.

    Attributes
    ----------
    type : str
        The type.
    state : str
        ``steady``, ``growing``, ``shrinking``, ``held`` (more would be launched, but
        for a limit) or ``stopped``.
    pieces : int
        What waits and runs.
    mean_s : float or None
        How long one takes, in seconds.
    running, coming : int
        Workers that are here, and those that were asked for.
    wanted : int
        How many there should be.
    reason : str
        Why, in one line.
    """

    type: str
    state: str
    pieces: int
    mean_s: float | None
    running: int
    coming: int
    wanted: int
    reason: str


# --- orders -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grow:
    """Have so many workers of a type in all."""

    type: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shrink:
    """Let go of so many idle workers of a type."""

    type: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Allocate:
    """Ask the batch system for so many allocations more."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Free:
    """Give back one allocation."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Tell everybody that nothing of a kind is launched any more, and why."""

    kind: str
    reason: str


Order = Grow | Shrink | Allocate | Free | Halt


# --- the policy -------------------------------------------------------------


class Elasticity:
    """Decides how many workers there are to be.

    Parameters
    ----------
    aims : mapping of str to Aim
        What is wanted of each type.
    limits : Limits
        What holds for all together.
    each : mapping of str to int, optional
        How many workers of each type an allocation brings, where these come by
        allocations; by default workshops are asked for any number.

    Attributes
    ----------
    launching : Launching
        What is remembered of launches.
    """

    def __init__(
        self,
        aims: Mapping[str, Aim],
        limits: Limits,
        each: Mapping[str, int] | None = None,
    ) -> None:
        self.limits = limits
        self._each = {} if each is None else {name: each.get(name, 0) for name in aims}
        self._is_batch = each is not None
        self._demands = {n: Demand(aim, limits.patience) for n, aim in aims.items()}
        kinds = [ALLOCATIONS] if self._is_batch else list(aims)
        self.launching = Launching(limits.pace, kinds)
        self._standings: dict[str, Standing] = {}

    # --- events --------------------------------------------------------------

    def look(
        self,
        now: float,
        seen: Mapping[str, Seen],
        allocations: int = 0,
        leaving: int = 0,
    ) -> list[Order]:
        """Take in how everything stands, and return what is to be done about it.

        Parameters
        ----------
        now : float
            The time, in seconds.
        seen : mapping of str to Seen
            How each type stands; one that is missing has no work and no workers.
        allocations : int
            Allocations that stand or wait, and may be given back.
        leaving : int
            Allocations that are being given back, and stand until they are empty.
        """
        for name, demand in self._demands.items():
            demand.look(now, seen.get(name, Seen()))
            self._note_arrivals(now, name, demand)
            self._stand(name, *self._calm(now, name, demand))
        halts = [Halt(kind, why) for kind, why in self.launching.take_news()]
        orders: list[Order] = [*halts]
        if self._is_batch:
            orders += self._look_at_all(now, allocations, leaving)
        else:
            for name, demand in self._demands.items():
                orders += self._look_at(now, name, demand)
        return orders

    def failed(self, now: float, kind: str, reason: str) -> None:
        """Note that a launch failed: of a type, or of `ALLOCATIONS`."""
        self.launching.failed(now, kind, reason)
        if kind in self._demands:
            self._demands[kind].asked = 0

    # --- questions -----------------------------------------------------------

    def standings(self) -> list[Standing]:
        """Return what became of each type at the last look."""
        return list(self._standings.values())

    def is_launching(self, type: str) -> bool:
        """Return whether workers of a type were asked for and are not all there."""
        return type in self._demands and bool(self._demands[type].asked)

    def is_stopped(self, type: str) -> bool:
        """Return whether a type is not launched any more, as that failed too often."""
        return bool(self.launching.stopped(self._kind(type)))

    # --- workshops -----------------------------------------------------------

    def _note_arrivals(self, now: float, name: str, demand: Demand) -> None:
        """Note whether what workshops were asked for has come."""
        if not demand.asked:
            return
        missing, asked = demand.starting, demand.asked
        if not missing:
            demand.asked = 0
            self.launching.succeeded(name)
        elif now - demand.asked_at >= self.limits.start_timeout_s:
            limit = f"{self.limits.start_timeout_s:g} s"
            late = f"{missing} of {asked} {name} were not ready after {limit}"
            self.failed(now, name, late)

    def _look_at(self, now: float, name: str, demand: Demand) -> list[Order]:
        """Decide about a type that workshops start."""
        if demand.is_to_grow(now):
            return self._grow(now, name, demand)
        surplus = demand.surplus(now)
        # who comes may be needed, and who is idle for the moment may be busy
        count = min(demand.seen.idle, (surplus + 1) // 2)
        if not count or demand.starting:
            return []
        idle_s = self.limits.patience.cooldown_s
        reason = f"{surplus} of {demand.capacity} were idle for {idle_s:g} s"
        self._stand(name, "shrinking", reason, demand.capacity - count)
        demand.changed(now)
        return [Shrink(name, count, reason)]

    def _grow(self, now: float, name: str, demand: Demand) -> list[Order]:
        capacity = demand.capacity
        room = self.limits.ceiling - sum(d.capacity for d in self._demands.values())
        first = max(self.limits.patience.first_step, demand.aim.minimum)
        count = min(demand.needed, max(2 * capacity, first), capacity + room)
        held = self._held(now, name, demand)
        if not held and count <= capacity:
            held = f"there may be {self.limits.ceiling} workers in all, the ceiling"
        if held:
            self._hold(name, held, demand)
            return []
        self.launching.launched(now)
        demand.changed(now)
        demand.asked, demand.asked_at = count, now
        self._stand(name, "growing", demand.why, count)
        return [Grow(name, count, demand.why)]

    # --- allocations ---------------------------------------------------------

    def _look_at_all(self, now: float, allocations: int, leaving: int) -> list[Order]:
        """Decide about all types, which allocations bring."""
        short = {n: d for n, d in self._demands.items() if d.is_short}
        for name in short:
            if not self._each[name]:
                self._hold(name, f"no node brings a {name}", short[name])
        growing = {
            n: d for n, d in short.items() if self._each[n] and d.is_to_grow(now)
        }
        if growing:
            return self._allocate(now, growing, allocations + leaving)
        brought = {n: d for n, d in self._demands.items() if self._each[n]}
        is_surplus = all(d.surplus(now) >= self._each[n] for n, d in brought.items())
        if not (is_surplus and allocations and brought):
            return []
        idle_s = self.limits.patience.cooldown_s
        reason = f"as many as an allocation brings were idle for {idle_s:g} s"
        for name, demand in brought.items():
            left = demand.capacity - self._each[name]
            self._stand(name, "shrinking", reason, left)
            demand.changed(now)
        return [Free(reason)]

    def _allocate(
        self, now: float, growing: Mapping[str, Demand], allocations: int
    ) -> list[Order]:
        each = self._each
        lacking = {
            n: math.ceil((d.needed - d.capacity) / each[n]) for n, d in growing.items()
        }
        name = max(lacking, key=lambda name: lacking[name])
        room, full = self._room(allocations)
        held = self._held(now, ALLOCATIONS, growing[name]) or ("" if room else full)
        if held:
            for own, demand in growing.items():
                self._hold(own, held, demand)
            return []
        as_many = max(1, growing[name].capacity // each[name])
        count = min(lacking[name], as_many, room, self.launching.room(now))
        self.launching.launched(now, count)
        for own, demand in growing.items():
            wanted = demand.capacity + count * each[own]
            self._stand(own, "growing", demand.why, wanted)
            demand.changed(now)
        return [Allocate(count, f"{name}: {growing[name].why}")]

    def _room(self, allocations: int) -> tuple[int, str]:
        """Return how many allocations more there may be, and what the limit is."""
        limits, demands = self.limits, self._demands
        most = limits.allocations
        rooms = [
            (most - allocations, f"{most} allocations may stand or wait at a time")
        ]
        for name, demand in demands.items():
            if self._each[name]:
                room = (demand.aim.maximum - demand.capacity) // self._each[name]
                one = f"one allocation more would bring {name} beyond its maximum"
                rooms.append((room, f"{one} of {demand.aim.maximum}"))
        left = limits.ceiling - sum(demand.capacity for demand in demands.values())
        one = f"one allocation more would go beyond the ceiling of {limits.ceiling}"
        rooms.append((left // sum(self._each.values()), f"{one} workers"))
        room, full = min(rooms)
        return max(0, room), full

    # --- inside --------------------------------------------------------------

    def _kind(self, type: str) -> str:
        return ALLOCATIONS if self._is_batch else type

    def _calm(self, now: float, name: str, demand: Demand) -> tuple[str, str, int]:
        """Return state, reason and number of a type about which nothing is done."""
        stopped = self.launching.stopped(self._kind(name))
        if stopped:
            return "stopped", self.launching.held(now, self._kind(name)), demand.needed
        if not demand.is_short:
            return "steady", demand.why, demand.capacity
        left_s = max(0.0, self.limits.patience.rise_s - demand.short_for_s(now))
        soon = f"{demand.why}; more come if that lasts for {left_s:.0f} s"
        return "steady", soon, demand.needed

    def _held(self, now: float, kind: str, demand: Demand) -> str:
        """Return why nothing is launched: first what somebody has to mend."""
        held = self.launching.held(now, kind)
        return held if self.launching.stopped(kind) else demand.seen.obstacle or held

    def _hold(self, name: str, held: str, demand: Demand) -> None:
        state = "stopped" if self.is_stopped(name) else "held"
        self._stand(name, state, f"{held}; {demand.why}", demand.needed)

    def _stand(self, name: str, state: str, reason: str, wanted: int) -> None:
        demand = self._demands[name]
        seen = demand.seen
        self._standings[name] = Standing(
            name,
            state,
            seen.pieces,
            seen.mean_s,
            seen.running,
            demand.coming,
            wanted,
            reason,
        )
