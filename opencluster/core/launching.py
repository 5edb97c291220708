"""Whether something may be launched now: a rate, a wait after failures, and a stop.

It owns what is remembered of launches, and launches nothing.

Rules that this module keeps:

1. There are no more than so many launches in any minute, whatever is launched.
2. After a failure nothing of its kind is launched for a while, which doubles with each
   failure in a row.
3. After so many failures in a row nothing of that kind is launched until somebody
   wants it again; that is told once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MINUTE_S = 60.0
MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast is launched, and how often in vain.

    Attributes
    ----------
    launches_per_minute : int
        Launches in any minute.
    failures : int
        Launches in a row that may fail.
    backoff_s, backoff_max_s : float
        How long nothing is launched after a failure, at first and at most.
    """

    launches_per_minute: int = 6
    failures: int = 3
    backoff_s: float = 10.0
    backoff_max_s: float = 600.0


@dataclass
class _Kind:
    failures: int = 0
    waits_until: float = -math.inf
    stopped: str = ""


class Launching:
    """Says what may be launched.

    Parameters
    ----------
    pace : Pace
        How fast.
    kinds : iterable of str
        What is launched, each with failures of its own.
    """

    def __init__(self, pace: Pace, kinds: Iterable[str]) -> None:
        self.pace = pace
        self._kinds = {kind: _Kind() for kind in kinds}
        self._at: deque[float] = deque()
        self._news: list[tuple[str, str]] = []

    def launched(self, now: float, count: int = 1) -> None:
        """Note launches."""
        self._at.extend([now] * count)

    def failed(self, now: float, kind: str, reason: str) -> None:
        """Note that a launch failed."""
        known = self._kinds[kind]
        if known.stopped:
            return
        known.failures += 1
        known.waits_until = now + self._wait_s(known.failures)
        if known.failures >= self.pace.failures:
            times = (
                "once" if known.failures == 1 else f"{known.failures} times in a row"
            )
            known.stopped = f"launching failed {times}: {reason}"
            self._news.append((kind, known.stopped))

    def succeeded(self, kind: str) -> None:
        """Note that what was launched is here."""
        self._kinds[kind].failures = 0

    def resume(self) -> bool:
        """Launch again what was stopped; ``False`` if nothing was."""
        was_stopped = any(known.stopped for known in self._kinds.values())
        self._kinds = {kind: _Kind() for kind in self._kinds}
        return was_stopped

    def take_news(self) -> list[tuple[str, str]]:
        """Return what was stopped since the last time, and why."""
        news, self._news = self._news, []
        return news

    def stopped(self, kind: str) -> str:
        """Return why something is not launched any more, or an empty text."""
        return self._kinds[kind].stopped

    def room(self, now: float) -> int:
        """Return how many launches there may be now, by their rate alone."""
        while self._at and self._at[0] <= now - MINUTE_S:
            self._at.popleft()
        return max(0, self.pace.launches_per_minute - len(self._at))

    def held(self, now: float, kind: str) -> str:
        """Return why nothing of a kind may be launched now, or an empty text."""
        known = self._kinds[kind]
        if known.stopped:
            return f"stopped until `opencluster elastic resume`: {known.stopped}"
        if now < known.waits_until:
            return f"waits {known.waits_until - now:.0f} s more after a failed launch"
        if not self.room(now):
            return f"{len(self._at)} launches in the last minute are the limit"
        return ""

    def _wait_s(self, failures: int) -> float:
        """Return how long nothing is launched after so many failures in a row."""
        wait_s = self.pace.backoff_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
        return min(wait_s, self.pace.backoff_max_s)

    # --- what outlives a process -----------------------------------------------

    def ages(self, now: float) -> list[float]:
        """Return how long ago the launches of the last minute were, in seconds."""
        self.room(now)
        return [now - at for at in self._at]

    def troubles(self) -> dict[str, tuple[int, str]]:
        """Return how often launches failed in a row, and why none are made, by kind."""
        known = self._kinds.items()
        return {kind: (k.failures, k.stopped) for kind, k in known if k.failures}

    def remember_troubles(
        self, now: float, troubles: Mapping[str, tuple[int, str]]
    ) -> None:
        """Count launches that failed before; what was stopped stays so."""
        for kind, (failures, stopped) in troubles.items():
            if kind in self._kinds:
                wait_s = self._wait_s(failures)
                self._kinds[kind] = _Kind(failures, now + wait_s, stopped)

    def remember(self, now: float, ages_s: Iterable[float]) -> None:
        """Count launches that were made before, by how long ago they were.

        Ages that are less than nothing, as after a clock was set, count as none.
        """
        old = sorted((max(0.0, age_s) for age_s in ages_s), reverse=True)
        self._at = deque(sorted([*(now - age_s for age_s in old), *self._at]))
