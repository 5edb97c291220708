"""Who may come in, how fast, and what is let go of when there is too much.

Each object here keeps one rule:

- A `Gate` lets in so many connections, and so many from one address.
- An `Allowance` is of bytes a second; who took more waits until it is made good.
- A `Pace` tells when a sender has been silent, or slow with something unfinished, for
  too long.
- A `Sampler` thins out what comes while what waits grows.

Owns decisions and the counts that they need. The time is given with each question.
"""

from __future__ import annotations

from collections import Counter

BURST_S = 1.0
"""An allowance may be used up ahead of time by as much as comes in so long."""
THIN_OUT = ((0.9, 8), (0.75, 4), (0.5, 2))
"""From which part of the room on one of how many items is kept."""


class Gate:
    """Counts connections, and says whether one more may come in.

    Parameters
    ----------
    most, most_per_address : int
        So many at a time.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._of.total()

    def enter(self, address: str) -> str:
        """Let a connection in, or return why it is kept out."""
        if len(self) >= self._most:
            return "too many connections"
        if self._of[address] >= self._most_per_address:
            return "too many connections of one address"
        self._of[address] += 1
        return ""

    def leave(self, address: str) -> None:
        """Take note that a connection that was let in has ended."""
        self._of[address] -= 1
        if self._of[address] <= 0:
            del self._of[address]


class Allowance:
    """So many bytes a second, of which a second's may come at once.

    Parameters
    ----------
    rate : float
        Bytes a second; 0 for no bound.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._owed = 0.0
        self._seen_at: float | None = None

    def take(self, count: int, now: float) -> float:
        """Take bytes that are here already, and return for how many seconds to wait."""
        if not self._rate:
            return 0.0
        since = 0.0 if self._seen_at is None else max(0.0, now - self._seen_at)
        self._seen_at = now
        self._owed = max(0.0, self._owed - since * self._rate) + count
        return max(0.0, self._owed / self._rate - BURST_S)


class Pace:
    """Tells of one sender whether it is still worth a connection.

    Parameters
    ----------
    idle_s : float
        Longest silence.
    window_s : float
        Time in which a sender with something unfinished must send enough.
    least : float
        Bytes a second that are enough.
    now : float
        Seconds, as for every other question.
    """

    def __init__(self, idle_s: float, window_s: float, least: float, now: float):
        self._idle_s = idle_s
        self._window_s = window_s
        self._enough = least * window_s
        self._heard_at = now
        self._since = now
        self._count = 0

    def received(self, count: int, now: float) -> None:
        """Take note of bytes."""
        self._heard_at = now
        self._count += count

    def excuse(self, now: float) -> None:
        """Begin anew: nothing was read meanwhile, which is not the sender's fault."""
        self._heard_at = self._since = now
        self._count = 0

    def verdict(self, is_unfinished: bool, now: float) -> str:
        """Return why the connection should end, or nothing."""
        if now - self._heard_at >= self._idle_s:
            return "idle"
        if now - self._since < self._window_s:
            return ""
        is_slow = is_unfinished and self._count < self._enough
        self._since, self._count = now, 0
        return "slow" if is_slow else ""


class Sampler:
    """Keeps one of so many items, the more there waits the fewer."""

    def __init__(self) -> None:
        self._passed = 0

    def keeps(self, filled: float) -> bool:
        """Decide on the next item, given how much of the room is taken (0 to 1)."""
        one_of = next((n for part, n in THIN_OUT if filled >= part), 1)
        self._passed += 1
        if self._passed < one_of:
            return False
        self._passed = 0
        return True
