"""Hold bouts: start, measure slice by slice, end, and take note of failures.

A peer that fails, hangs or leaves processes behind is noted and left out of what it
failed at from then on; all else goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from bench.contestant import Contestant, PeerFailed
from bench.outcome import Outcome
from bench.peers import catalogue
from bench.plan import Bout, of_workers
from bench.points import Point
from bench.workloads import Workload

OnBout = Callable[[Bout], None]
"""Told before each bout begins."""


class Contest:
    """One run of all bouts.

    Parameters
    ----------
    bouts : sequence of Bout
        What to do.
    budget_s : float
        Seconds of a slice: one workload on one side in one bout.

    Attributes
    ----------
    bouts : sequence of Bout
        As given.
    outcome : Outcome
        What has been measured so far.
    """

    def __init__(self, bouts: Sequence[Bout], budget_s: float) -> None:
        self.bouts = bouts
        self._budget_s = budget_s
        self.outcome = Outcome()
        self._failed: set[tuple[str, int, bool, str]] = set()

    def run(
        self, on_bout: OnBout = lambda bout: None, limit_s: float = math.inf
    ) -> None:
        """Measure everything; an interrupt ends it, with what there is so far.

        After the first round no bout begins that would not end within `limit_s`, were
        it as long as the longest until then.
        """
        began = time.monotonic()
        longest_s = 0.0
        for bout in self.bouts:
            started = time.monotonic()
            if bout.round > 1 and started + longest_s > began + limit_s:
                return
            on_bout(bout)
            self._hold(bout)
            longest_s = max(longest_s, time.monotonic() - started)

    def _hold(self, bout: Bout) -> None:
        listings = [catalogue.find(catalogue.OURS)]
        if bout.opponent is not None:
            listings.append(bout.opponent)
        sides = [Contestant(x, bout.workers, bout.is_packed) for x in listings]
        if not bout.is_ours_first:
            sides.reverse()
        try:
            for side in sides:
                self._start(bout, side)
            for workload in bout.workloads:
                for side in sides:
                    self._slice(bout, side, workload)
                sides.reverse()
        except BaseException:
            # nobody's fault: who is interrupted may leave anything behind
            for side in sides:
                side.close()
            raise
        for side in sides:
            if complaint := side.close():
                self._note(bout, side, "the end", complaint)

    def _start(self, bout: Bout, side: Contestant) -> None:
        if self._has_failed(bout, side, ""):
            return
        wanted = {workload.name for workload in bout.workloads}
        name = side.listing.name
        try:
            point = Point(side.start(), 1)
            if "startup" in wanted:
                self.outcome.add(bout, name, "startup", point)
            if "memory" in wanted and (mib := side.memory_mib()):
                self.outcome.add(bout, name, "memory", Point(mib, 1))
        except PeerFailed as error:
            self._fail(bout, side, "", str(error))

    def _slice(self, bout: Bout, side: Contestant, workload: Workload) -> None:
        if workload.run is None or not side.is_alive:
            return
        if self._has_failed(bout, side, workload.name):
            return
        try:
            points, load = side.run(workload.name, self._budget_s)
        except PeerFailed as error:
            self._fail(bout, side, workload.name, str(error))
            return
        for point in points:
            self.outcome.add(
                bout,
                side.listing.name,
                workload.name,
                point,
                others_percent=load.others_percent,
                steal_percent=load.steal_percent,
            )

    # --- failures --------------------------------------------------------------

    def _has_failed(self, bout: Bout, side: Contestant, workload: str) -> bool:
        key = (side.listing.name, bout.workers, bout.is_packed, workload)
        return key in self._failed

    def _fail(self, bout: Bout, side: Contestant, workload: str, why: str) -> None:
        key = (side.listing.name, bout.workers, bout.is_packed, workload)
        self._failed.add(key)
        self._note(bout, side, workload or "the start", why)

    def _note(self, bout: Bout, side: Contestant, what: str, why: str) -> None:
        where = f"{what} with {of_workers(bout.workers)}"
        self.outcome.leave_out(side.listing.name, where, why)
