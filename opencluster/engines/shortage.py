"""Work for which workers are missing: how much it is, and what is said of it.

Whoever starts workers asks for the first; people read the second, in the log and in
errors. For use while holding the reactor, but for `explained`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from opencluster.core.dispatch import Dispatch
from opencluster.core.elastic_report import Work
from opencluster.engines.roster import Roster
from opencluster.engines.verdicts import alike, wanted
from opencluster.errors import NoSuitableWorker
from opencluster.net.link import FactoryLink

log = logging.getLogger(__name__)


class Shortage:
    """What one engine knows of workers that it would need.

    Parameters
    ----------
    dispatch : Dispatch
        Knows what there is to do.
    roster : Roster
        Knows who is here, and who is waited for.
    link : FactoryLink
        The way to a factory: without one nobody tells of workers.
    take_in : callable
        Has the dispatcher know all that was submitted.
    wait_s : float
        How long pieces wait for a worker of their type.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        roster: Roster,
        link: FactoryLink,
        take_in: Callable[[], None],
        wait_s: float,
    ) -> None:
        self._dispatch = dispatch
        self._roster = roster
        self._link = link
        self._take_in = take_in
        self._wait_s = wait_s
        self._given_up: frozenset[str] = frozenset()

    def expect(self, types: Collection[str]) -> None:
        """Let pieces wait of whose types workers will come."""
        before = self._given_up.union(self._roster.expected)
        self._given_up = before.difference(types)
        self._roster.expected = types
        self._dispatch.expect(time.monotonic(), types)

    def work(self, types: Collection[str]) -> dict[str, Work]:
        """Return how much there is to do; who waits for a worker has a piece for it."""
        self._take_in()
        awaited, now = self._roster.awaited, time.monotonic()
        return {
            type: Work(count or min(1, awaited[type]), mean_s)
            for type, (count, mean_s) in self._dispatch.work(now, types).items()
        }

    def warn(self, type: str, count: int) -> None:
        """Log that so many pieces wait for a worker of a type."""
        wait = f"waiting {self._wait_s:g} s"
        if type in self._roster.expected:
            wait = "one is launched by `opencluster elastic run`"
        log.warning(
            "%d pieces wait for a %s; here are: %s; %s",
            count,
            wanted(type),
            alike(type, self._roster.directory.types()),
            wait,
        )

    def explained(self, error: NoSuitableWorker, type: str) -> NoSuitableWorker:
        """Add why no worker of a type is there, as far as that is known."""
        text = str(error)
        if type in self._given_up:
            text += (
                "\nUntil now such workers were launched when there was work for "
                "them; see `opencluster elastic status`, and whether "
                "`opencluster elastic run` is there"
            )
        if not self._link.is_up:
            text += f". Besides, {self._link.why_down()}"
        return NoSuitableWorker(text)
