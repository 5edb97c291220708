"""How many workers of a type its work asks for, and how many are too many.

It owns what is remembered of a type from look to look: since when there is too much
work, and how many workers were needed or busy lately.

Rules that this module keeps:

1. What is asked for is within minimum and maximum, and no more workers than pieces.
2. What was asked for and is not there yet counts as if it were there.
3. There is too much work only when there was too much all the time for a while; at once
   where nothing is there or coming, or less than the minimum.
4. Too many are those that were idle all the time for a while. Who was busy or needed at
   any moment of that time stays, and of the busy ones a quarter more.
5. As long as workers keep values that somebody refers to, one stays to have them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

SPARE = 1.25
"""How many times as many workers are kept as were busy: on a steady load that varies a
little, nobody would come and go."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is wanted of a type.

    Attributes
    ----------
    minimum, maximum : int
        Workers that are there at least, and at most.
    target_s : float
        Work that may wait for each worker, in seconds.
    """

    minimum: int = 0
    maximum: int = 1
    target_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something must be so before it counts.

    Attributes
    ----------
    rise_s : float
        There is too much work.
    cooldown_s : float
        Workers are idle.
    first_step : int
        Workers of a type of which nobody knows how long its pieces take.
    """

    rise_s: float = 5.0
    cooldown_s: float = 60.0
    first_step: int = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """How a type stands at one look.

    Attributes
    ----------
    pieces : int
        Pieces that are not done, those that run included.
    mean_s : float or None
        How long one takes, in seconds, if that is known.
    running : int
        Workers that are here, and stay for a while.
    idle : int
        Those of them that have done nothing since the last look.
    pending : int
        Workers that will be brought by allocations which were asked for.
    is_holding : bool
        Workers keep values that somebody refers to.
    obstacle : str
        Why nothing can be launched now, or an empty text.
    """

    pieces: int = 0
    mean_s: float | None = None
    running: int = 0
    idle: int = 0
    pending: int = 0
    is_holding: bool = False
    obstacle: str = ""

    @property
    def busy(self) -> int:
        """How many work, or will in a moment."""
        return max(self.running - self.idle, min(self.running, self.pieces))


class Demand:
    """What the work of a type asks for.

    Parameters
    ----------
    aim : Aim
        What is wanted.
    patience : Patience
        How long it takes.

    Attributes
    ----------
    seen : Seen
        The newest look.
    needed : int
        Workers that the work asks for.
    why : str
        Why, in words.
    asked : int
        Workers that there are to be in all, until they are there.
    asked_at : float
        When they were asked for, in seconds.
    """

    def __init__(self, aim: Aim, patience: Patience) -> None:
        self.aim = aim
        self.patience = patience
        self.seen = Seen()
        self.needed = 0
        self.why = ""
        self.asked = 0
        self.asked_at = 0.0
        self._rising_since: float | None = None
        self._steady_since: float | None = None
        # what is to be kept lately: each with what came later and is less
        self._kept: deque[tuple[float, int]] = deque()

    def look(self, now: float, seen: Seen) -> None:
        """Take in how the type stands."""
        self.seen = seen
        self.needed, self.why = self._needed()
        if self.needed <= self.capacity:
            self._rising_since = None
        elif self._rising_since is None:
            self._rising_since = now
        if self._steady_since is None:
            self._steady_since = now
        self._keep(now, max(self.needed, math.ceil(seen.busy * SPARE)))

    def changed(self, now: float) -> None:
        """Note that more were launched, or some let go: all times begin anew."""
        self._rising_since, self._steady_since = None, now

    @property
    def starting(self) -> int:
        """How many were asked for and are not there."""
        return max(0, self.asked - self.seen.running)

    @property
    def coming(self) -> int:
        """How many are not there yet, whoever brings them."""
        return self.starting + self.seen.pending

    @property
    def capacity(self) -> int:
        """How many are there, or come."""
        return self.seen.running + self.coming

    @property
    def is_short(self) -> bool:
        """Whether there is more work than for those that are there, or come."""
        return self.needed > self.capacity

    def short_for_s(self, now: float) -> float:
        """Return how long that has been so, in seconds."""
        return 0.0 if self._rising_since is None else now - self._rising_since

    def is_to_grow(self, now: float) -> bool:
        """Return whether it has been so for long enough."""
        is_urgent = not self.capacity or self.capacity < self.aim.minimum
        is_lasting = self.short_for_s(now) >= self.patience.rise_s
        return self.is_short and (is_urgent or is_lasting)

    def surplus(self, now: float) -> int:
        """Return how many are too many, and have been for long enough."""
        since = self._steady_since
        if since is None or now - since < self.patience.cooldown_s:
            return 0
        return max(0, self.capacity - self._kept[0][1])

    def _keep(self, now: float, count: int) -> None:
        """Note how many are not to be let go for a while."""
        kept = self._kept
        while kept and kept[-1][1] <= count:
            kept.pop()
        kept.append((now, count))
        while kept[0][0] < now - self.patience.cooldown_s:
            kept.popleft()

    def _needed(self) -> tuple[int, str]:
        """Return how many workers the work asks for, and why."""
        aim, seen = self.aim, self.seen
        pieces = f"{seen.pieces} piece{'' if seen.pieces == 1 else 's'}"
        if not seen.pieces and seen.is_holding:
            wanted, why = 1, "nothing waits, but workers keep values"
        elif not seen.pieces:
            wanted, why = 0, "nothing waits"
        elif seen.mean_s is None:
            wanted = min(seen.pieces, max(self.patience.first_step, self.capacity))
            why = f"{pieces}, and nobody knows yet how long one takes"
        else:
            each = seen.pieces * seen.mean_s / aim.target_s
            wanted = max(1, math.ceil(min(each, seen.pieces)))
            why = f"{pieces} of about {seen.mean_s:.3g} s, {aim.target_s:g} s of work"
            why += " for each worker"
        if wanted < aim.minimum:
            return aim.minimum, f"{why}; the minimum"
        if wanted > aim.maximum:
            return aim.maximum, f"{why}; the maximum"
        return wanted, why
