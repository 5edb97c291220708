"""What a factory has on disk: what it wrote last, if the disk let it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from opencluster.core.epochs import NO_EPOCH, Epoch

if TYPE_CHECKING:
    from sim_process import Process

Content = tuple[int, Epoch]
NOTHING: Content = (0, NO_EPOCH)
Write = tuple["Process", Content, Callable[[bool], None]]
"""By whom, what, and what is then called with whether it worked."""


class Disk:
    """One factory's disk, which outlives it.

    Attributes
    ----------
    content : tuple of int and Epoch
        The highest number seen, and the newest epoch known to have led.
    led : Epoch or None
        The last epoch with which its factory led, as the world knows.
    is_full : bool
        Nothing can be written.
    latency_s : float
        How long writing takes at most; 0 for at once.
    is_torn_by_crashes : bool
        A file that is written while its process ends may be unreadable after.
    """

    def __init__(self, randomness: Random) -> None:
        self.content = NOTHING
        self.led: Epoch | None = None
        self.is_full = False
        self.latency_s = 0.0
        self.is_torn_by_crashes = False
        self._random = randomness
        self._idle_at = 0.0
        self._writing: deque[Write] = deque()

    def write(
        self, process: Process, content: Content, done: Callable[[bool], None]
    ) -> None:
        """Write, then call back with whether that worked."""
        if not self.latency_s and not self._writing:
            if not self.is_full:
                self.content = content
            done(not self.is_full)
            return
        loop = process.world.loop
        latency_s = self._random.uniform(0.0, self.latency_s)
        # one after the other
        self._idle_at = max(self._idle_at, loop.now) + latency_s
        self._writing.append((process, content, done))
        loop.at(self._idle_at, self._written)

    def hurry(self) -> None:
        """Be quick again, also with what is being written."""
        self.latency_s = 0.0
        while self._writing:
            self._written()
        self._idle_at = 0.0

    def _written(self) -> None:
        if not self._writing:
            return
        process, content, done = self._writing.popleft()
        if not process.is_alive:
            return
        if not self.is_full:
            self.content = content
        process.take(done, not self.is_full)

    def crashed(self) -> None:
        """Take note that the process that may be writing ended."""
        is_torn = bool(self._writing) and self.is_torn_by_crashes
        if is_torn and self._random.random() < 0.5:
            self.lose()

    def lose(self) -> None:
        """Be empty, as a new one."""
        self.content = NOTHING
        self.led = None
