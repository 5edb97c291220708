"""Whether it pays to compress what goes to a peer, and how: decided by measurement.

Rules that this module keeps:

1. How fast a line is, is measured while nothing on it is compressed: at the beginning,
   and again when the last measurement is old.
2. A way of compressing is chosen when with it the slower of the two, compressing and
   sending, takes clearly less time than sending as it is.
3. What data are like is tried anew after every `TRY_AGAIN_BYTES`.
"""

from __future__ import annotations

from typing import NamedTuple

PROBE_BYTES = 16 << 20
"""Sent as they are to measure a line."""
STALE_S = 60.0
"""After this long a line is measured again, when something large is sent."""
TRY_AGAIN_BYTES = 256 << 20
"""After so much other data may have come."""
GAIN = 0.8
"""What time must remain for compressing to be worth its processor time."""
AS_IT_IS = 0
"""The code of data that are not compressed."""


class _Trial(NamedTuple):
    seconds_per_byte: float
    ratio: float


class Payoff:
    """What is known of one peer."""

    def __init__(self) -> None:
        self._line_s: float | None = None
        self._measured_at = 0.0
        self._began_at: float | None = None
        self._probed = 0
        self._trials: dict[int, _Trial] = {}
        self._since_trial = 0

    def begin(self, now: float) -> None:
        """Note that something large begins to leave, and that nothing did before."""
        self._began_at = None
        self._probed = 0
        if now - self._measured_at > STALE_S:
            self._line_s = None

    def taken(self, now: float, nbytes: int) -> None:
        """Note that the peer has taken so much."""
        if self._line_s is not None:
            return
        if self._began_at is None:
            # the time before this one is that of the way there and back
            self._began_at = now
            return
        self._probed += nbytes
        if self._probed >= PROBE_BYTES and now > self._began_at:
            self._line_s = (now - self._began_at) / self._probed
            self._measured_at = now

    @property
    def wants_trial(self) -> bool:
        """Whether the next data should be compressed in every way, to see."""
        is_old = not self._trials or self._since_trial >= TRY_AGAIN_BYTES
        return self._line_s is not None and is_old

    def tried(self, code: int, nbytes: int, compressed: int, seconds: float) -> None:
        """Note what compressing did: to how many bytes, and in what time."""
        self._trials[code] = _Trial(seconds / nbytes, compressed / nbytes)
        self._since_trial = 0

    def sent(self, nbytes: int) -> None:
        """Note that so much leaves, in whatever form."""
        self._since_trial += nbytes

    def best(self) -> int:
        """Return the code of how data should leave."""
        line_s = self._line_s
        if line_s is None:
            return AS_IT_IS
        best, least_s = AS_IT_IS, GAIN * line_s
        for code, trial in self._trials.items():
            takes_s = max(trial.seconds_per_byte, trial.ratio * line_s)
            if takes_s < least_s:
                best, least_s = code, takes_s
        return best
