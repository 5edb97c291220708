"""What makes a majority: promises to hear nobody else, and the lease that they are.

Rules that this module keeps:

1. A factory has promised itself to one at a time. What it promised holds for the
   leader's time-out, however its clock jumps, unless the one that it was given to says
   that it leads no more with the epoch that it was given for.
2. A leader relies on a promise from when it asked for it, and for less time than the
   promise holds: clocks may differ in speed.
"""

from __future__ import annotations

import math

from opencluster.core.epochs import NO_EPOCH, Epoch

LEASE_PART = 0.75
"""Part of the time-out for which a leader relies on a promise: clocks may differ in
speed by this much."""
MAX_BEATS = 64
"""Beats of which it is remembered when they were sent."""
SOMEBODY = "?"
"""To whom something may have been promised before this process began."""


class Promise:
    """Whom one factory has promised to hear alone.

    Parameters
    ----------
    timeout_s : float
        For how long a promise holds.
    step_s : float
        Time that counts at most between two looks at the clock.
    """

    def __init__(self, timeout_s: float, step_s: float) -> None:
        self._timeout_s = timeout_s
        self._step_s = step_s
        # time that only counts as far as it was seen to pass
        self._passed_s = 0.0
        self._until_s = 0.0
        self._name = ""
        self._epoch = NO_EPOCH

    def let_pass(self, step_s: float) -> None:
        """Let time pass; a jump ahead counts for one step, one back for nothing."""
        self._passed_s += min(max(0.0, step_s), self._step_s)

    def give(self, name: str, epoch: Epoch = NO_EPOCH) -> None:
        """Promise to hear nobody else from now on, as long as that one leads so."""
        self._name, self._epoch = name, epoch
        # for a jump ahead, which counts for a step, it holds for a step longer
        self._until_s = self._passed_s + self._timeout_s + self._step_s

    def is_anothers(self, name: str) -> bool:
        """Return whether somebody else has the promise."""
        return self._passed_s < self._until_s and self._name != name

    def end(self, name: str, epoch: Epoch | None = None) -> None:
        """Take the promise back, if this one has it, for this epoch if one is told."""
        if self._name == name and epoch in (None, self._epoch):
            self._until_s = self._passed_s


class Lease:
    """Until when a leader may rely on what it was promised.

    Parameters
    ----------
    needed : int
        Promises of others that it needs.
    timeout_s : float
        For how long a promise holds.
    """

    def __init__(self, needed: int, timeout_s: float) -> None:
        self.needed = needed
        self._timeout_s = timeout_s
        self._sent_at: dict[int, float] = {}
        self._promised_at: dict[str, float] = {}

    def forget(self) -> None:
        """Rely on nothing that was promised so far."""
        self._sent_at.clear()
        self._promised_at.clear()

    def asked(self, now: float, sequence: int) -> None:
        """Take note that a beat with this number is sent now."""
        self._sent_at[sequence] = now
        self._sent_at.pop(sequence - MAX_BEATS, None)

    def answered(self, name: str, sequence: int) -> None:
        """Take in a promise by its answer to a beat; that of an unknown one is none."""
        sent_at = self._sent_at.get(sequence)
        if sent_at is not None:
            self._promised_at[name] = max(sent_at, self._promised_at.get(name, sent_at))

    def granted(self, name: str, asked_at: float) -> None:
        """Take in a promise that was asked for before there were beats."""
        self._promised_at[name] = asked_at

    @property
    def is_enough(self) -> bool:
        """Whether as many have promised as are needed."""
        return len(self._promised_at) >= self.needed

    @property
    def end(self) -> float:
        """Until when enough others hear nobody else; for ever, if none are needed."""
        if not self.needed:
            return math.inf
        times = sorted([*self._promised_at.values(), *[-math.inf] * self.needed])
        return times[-self.needed] + LEASE_PART * self._timeout_s

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert len(self._sent_at) <= MAX_BEATS
