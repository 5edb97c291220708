"""What time it is for a batch system, which ends jobs by its own clock.

Owns how far this computer's clock is believed: as long as the batch system does not
say what time it has. A step of our clock is no matter, once it has said so.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from opencluster.errors import LaunchFailed

log = logging.getLogger(__name__)

AGAIN_S = 3600.0
"""How often the batch system is asked for its time: clocks drift slowly."""
RETRY_S = 60.0
"""How soon it is asked again when it did not answer."""
TOLD_S = 10.0
"""Clocks that differ by more are told of."""


class HasClock(Protocol):
    """Whoever knows what time it is for the batch system."""

    def clock_s(self) -> float:
        """Return its time, in seconds since 1970; may raise `LaunchFailed`."""


class SystemClock:
    """The time of a batch system, which is asked for it now and then.

    Parameters
    ----------
    system : HasClock
        The batch system.
    first_after_s : float
        How long it is not asked: of many computers each begins at another time.
    """

    def __init__(self, system: HasClock, first_after_s: float = 0.0) -> None:
        self._system = system
        self._ask_at = time.monotonic() + first_after_s
        self._offset_s: float | None = None

    def now(self) -> float:
        """Return what time it is for the batch system, in seconds since 1970."""
        if time.monotonic() >= self._ask_at:
            self._ask()
        if self._offset_s is None:
            return time.time()
        return time.monotonic() + self._offset_s

    def _ask(self) -> None:
        before = time.monotonic()
        try:
            told_s = self._system.clock_s()
        except (LaunchFailed, OSError) as error:
            # what was heard before holds
            log.warning("the time of the batch system is not known now: %s", error)
            self._ask_at = before + RETRY_S
            return
        after = time.monotonic()
        self._ask_at = after + AGAIN_S
        self._offset_s = told_s - (before + after) / 2.0
        ahead_s = time.time() - self._offset_s - after
        if abs(ahead_s) > TOLD_S:
            log.warning(
                "the clock of this computer is %.0f s %s that of the batch system, "
                "which ends jobs by its own",
                abs(ahead_s),
                "ahead of" if ahead_s > 0 else "behind",
            )
