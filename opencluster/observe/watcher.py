"""One look at a cluster each second, for everybody who wants to know.

However many people watch, the factory is asked once. What is seen goes into the
history, and who waits is woken.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opencluster.core.journal import changes
from opencluster.core.sampling import Sample, samples_of
from opencluster.errors import HistoryError, OpenClusterError
from opencluster.observe.trails import Trails
from opencluster.store.history import History

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
SAMPLE_S = 5.0
FORGET_S = 3600.0
"""How often what is old is removed."""
COMPLAIN_S = 600.0
"""How often it is told that nothing can be kept."""

Status = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class View:
    """How a cluster stood at one look.

    Attributes
    ----------
    number : int
        Grows with each look; 0 before the first.
    at : float
        When it was seen last, seconds since 1970; 0 for never.
    status : dict or None
        As ``opencluster status --json`` prints it.
    error : str
        Why the newest look saw nothing; the status is then the one before.
    """

    number: int = 0
    at: float = 0.0
    status: Status | None = None
    error: str = ""


class Watcher:
    """Looks at a cluster again and again, in a thread of its own.

    Parameters
    ----------
    look : callable
        Returns the status, or raises OpenClusterError.
    history : History, optional
        Where it is kept.
    interval_s : float
        Between two looks.
    queued : callable, optional
        Returns how many tasks wait in the queue.

    Attributes
    ----------
    trails : Trails
        What each process used lately.
    samples : mapping
        The newest samples, by the name of the computer; see `core.sampling`.
    looked_at : float
        When the newest look ended, or the watcher was made; seconds of
        `time.monotonic`.
    """

    def __init__(
        self,
        look: Callable[[], Status],
        history: History | None = None,
        interval_s: float = INTERVAL_S,
        queued: Callable[[], int] = lambda: 0,
    ) -> None:
        self.history = history
        self.trails = Trails()
        self.samples: Mapping[str, Sample] = {}
        self.looked_at = time.monotonic()
        self._look = look
        self._queued = queued
        self._interval_s = interval_s
        self._view = View()
        self._changed = threading.Condition()
        self._is_over = False
        self._sampled_at = 0.0
        self._sampled: Status | None = None
        self._forgot_at = 0.0
        self._complained_at = 0.0
        self._thread = threading.Thread(
            target=self._watch, name="opencluster-watcher", daemon=True
        )

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; who waits is woken."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def view(self) -> View:
        """What was seen last."""
        return self._view

    def wait(self, after: int, timeout_s: float) -> View:
        """Wait for a look that is newer than the one with a number, and return it.

        Returns
        -------
        View
            The one seen last, when none comes in time or it is closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or self._view.number > after, timeout_s
            )
            return self._view

    # --- inside --------------------------------------------------------------

    def _watch(self) -> None:
        due = time.monotonic()
        while not self._is_over:
            self._take_in()
            due = max(due + self._interval_s, time.monotonic())
            with self._changed:
                self._changed.wait_for(lambda: self._is_over, due - time.monotonic())

    def _take_in(self) -> None:
        before = self._view
        try:
            status = self._look()
        except OpenClusterError as error:
            view = View(before.number + 1, before.at, before.status, str(error))
        else:
            view = View(before.number + 1, time.time(), status)
            self._sample(status, view.at)
            self._keep(before.status, status, view.at)
        self.looked_at = time.monotonic()
        with self._changed:
            self._view = view
            self._changed.notify_all()

    def _sample(self, status: Status, at: float) -> None:
        elapsed_s = at - self._sampled_at
        # a clock that was set back must not stop it
        if 0 <= elapsed_s < SAMPLE_S:
            return
        self.trails.note(at, [*status["workers"], *status["services"]])
        queued = self._queued()
        self.samples = samples_of(status, self._sampled, elapsed_s, queued)
        self._sampled, self._sampled_at = status, at
        self._try(at, lambda history: history.note(at, self.samples))

    def _keep(self, before: Status | None, status: Status, at: float) -> None:
        def work(history: History) -> None:
            history.record(at, changes(before, status))
            history.finish(_ended(before, status))
            if at - self._forgot_at >= FORGET_S:
                history.forget(at)
                self._forgot_at = at

        self._try(at, work)

    def _try(self, at: float, work: Callable[[History], None]) -> None:
        if self.history is None:
            return
        try:
            work(self.history)
        except HistoryError as error:
            # the pages go on without
            if at - self._complained_at >= COMPLAIN_S:
                log.warning("what happens is not kept: %s", error)
                self._complained_at = at


def _ended(before: Status | None, status: Status) -> list[dict[str, Any]]:
    """Return the jobs that have ended since the look before."""
    old = [] if before is None else before["jobs"]
    known = {job["id"] for job in old if job["state"] != "running"}
    ended = (job for job in status["jobs"] if job["state"] != "running")
    return [job for job in ended if job["id"] not in known]
