"""Callbacks that run later: the timers of a reactor.

Must not sleep: who asks is told how long there is to sleep.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable

MIN_COMPACTION = 64
"""Timers that may wait, cancelled ones included, before the cancelled are dropped."""


class Timer:
    """A callback that runs later, once or again and again, until it is cancelled."""

    __slots__ = ("callback", "interval_s", "is_cancelled")

    def __init__(self, callback: Callable[[], None], interval_s: float) -> None:
        self.callback = callback
        self.interval_s = interval_s
        self.is_cancelled = False

    def cancel(self) -> None:
        """Run no more."""
        self.is_cancelled = True


class Timers:
    """Timers in the order of their times; for use while holding the reactor.

    Attributes
    ----------
    next_at : float
        When the next one is due, by ``time.monotonic()``.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._compact_at = MIN_COMPACTION
        self._count = itertools.count()
        self.next_at = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def schedule(self, delay_s: float, timer: Timer) -> Timer:
        """Have a timer run after a delay."""
        if len(self._heap) >= self._compact_at:
            self._heap = [item for item in self._heap if not item[2].is_cancelled]
            heapq.heapify(self._heap)
            # in proportion to what is left, so that it costs little per timer
            self._compact_at = max(MIN_COMPACTION, 2 * len(self._heap))
        at = time.monotonic() + delay_s
        heapq.heappush(self._heap, (at, next(self._count), timer))
        self.next_at = self._heap[0][0]
        return timer

    def run(self, guarded: Callable[[Callable[[], None]], None]) -> None:
        """Run those that are due, each through `guarded`."""
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.is_cancelled:
                continue
            guarded(timer.callback)
            if timer.interval_s and not timer.is_cancelled:
                self.schedule(timer.interval_s, timer)
        self.next_at = self._heap[0][0] if self._heap else math.inf
