"""A computer of a batch job looks when the job ends, and acts before it.

Owns when its workshop is drained and everything on it ends. Whom it keeps alive, and
how that ends, is not decided here.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opencluster.config import load
from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.errors import LaunchFailed, OpenClusterError
from opencluster.launchers import embedded
from opencluster.launchers.batch.clock import SystemClock
from opencluster.launchers.batch.job_folder import END_MARGIN_S, Job
from opencluster.launchers.batch.watching import System
from opencluster.launchers.order import Order
from opencluster.place import Place

log = logging.getLogger(__name__)

FORSAKEN_S = 300.0
"""After this long without any factory a job is of no use, and ends."""
LOOK_S = 1.0
NEAR_LOOK_S = 10.0
"""How often the batch system is asked at most when the end is near."""
WORK, DRAIN, END = "work", "drain", "end"


def phase_at(now: float, ends_at: float, drain_before_s: float) -> str:
    """Return what a computer of a job does at a time: `WORK`, `DRAIN` or `END`.

    Parameters
    ----------
    now, ends_at : float
        In seconds since 1970, by the clock of whoever ends the job; a job that ends
        at 0 does not end.
    drain_before_s : float
        How long before the end it takes nothing more.
    """
    if not ends_at:
        return WORK
    left_s = ends_at - now
    if left_s <= min(END_MARGIN_S, drain_before_s / 2):
        return END
    return DRAIN if left_s <= drain_before_s else WORK


class Follower:
    """Looks when the job ends, and acts before it.

    Parameters
    ----------
    job : Job
        The job.
    order : Order
        What runs on this computer.
    system : System
        The batch system, which knows when the job ends.
    drain_before_s : float
        How long before the end the workshop takes nothing more.
    look_again_s : float
        How often the batch system is asked for the end, which may be changed.
    """

    def __init__(
        self,
        job: Job,
        order: Order,
        system: System,
        drain_before_s: float,
        look_again_s: float,
    ) -> None:
        self._job = job
        self._system = system
        self._drain_before_s = drain_before_s
        self._look_again_s = look_again_s
        self._place = Place(Path(order.directory))
        self._name = order.sections["workshop"]["name"]
        self._has_factory = FACTORY in order.roles
        # one asks for all
        self._is_asking = job.nodes[0] == order.host
        # many that begin together do not all ask at once for the time
        wait_s = 0.0 if self._is_asking else random.uniform(0.0, look_again_s)
        self._clock = SystemClock(system, wait_s)
        self._look_at = 0.0
        self._heard_at = time.monotonic()
        self._phase = WORK
        self._is_over = False

    def start(self) -> None:
        """Follow the job in a thread of its own, as nobody may answer for long."""
        threading.Thread(target=self._run, name="follower", daemon=True).start()

    def is_over(self, place: Place) -> bool:
        """Return whether this computer is to end now."""
        return self._is_over

    def _run(self) -> None:
        while not self._is_over:
            try:
                self._is_over = self.look()
            except Exception:
                # without another look it would be killed with its work
                log.exception("a look at the job failed")
            time.sleep(LOOK_S)

    def look(self) -> bool:
        """Look and act once; return whether this computer is to end now."""
        if self._job.is_to_end:
            log.warning("the job is asked to end: everything on this computer ends now")
            return True
        now = time.monotonic()
        if now >= self._look_at:
            is_near = self._is_asking and self._phase != WORK
            self._look_at = now + (
                min(NEAR_LOOK_S, self._look_again_s) if is_near else self._look_again_s
            )
            if self._is_asking:
                self._ask_for_end()
            if self._shop() is not None:
                self._heard_at = now
            elif now - self._heard_at >= FORSAKEN_S:
                log.error("no factory has this workshop for %g s: it ends", FORSAKEN_S)
                return True
        phase = phase_at(self._clock.now(), self._job.ends_at, self._drain_before_s)
        if phase == END:
            log.warning("the job ends soon: everything on this computer ends now")
            return True
        if phase != self._phase and self._tell(
            "drain" if phase == DRAIN else "undrain"
        ):
            self._phase = phase
        # who keeps the registry stays for the others
        return self._phase == DRAIN and not self._has_factory and self._is_empty()

    def _ask_for_end(self) -> None:
        """Ask when the job ends, for all its computers."""
        try:
            ends_at = self._system.ends_at(self._job.id)
            if ends_at != self._job.ends_at:
                self._job.note_end(ends_at)
        except (LaunchFailed, OSError) as error:
            # what was heard before holds
            log.warning("when the job ends is not known now: %s", error)

    def _shop(self) -> Mapping[str, Any] | None:
        """Return what our workshop registered, ``None`` when that is not known."""
        wanted = {"kind": WORKSHOP, "name": self._name}
        try:
            with embedded.control_of(load(), self._job.shared) as control:
                found = control.factory("find", wanted)
        except OpenClusterError as error:
            log.warning("the cluster does not answer: %s", error)
            return None
        return found[0] if found else None

    def _tell(self, operation: str) -> bool:
        """Tell our workshop to drain or not; return whether it has heard."""
        shop = self._shop()
        if shop is None:
            return False
        log.warning("the job ends %s: %s", _moment(self._job.ends_at), operation)
        try:
            with embedded.control_of(load(), self._job.shared) as control:
                control.workshop(shop, operation, {})
        except OpenClusterError as error:
            log.warning("the workshop does not hear %s: %s", operation, error)
            return False
        return True

    def _is_empty(self) -> bool:
        """Return whether no process of our workshop is left: each has a scoreboard."""
        return not any(self._place.sockets.glob("*.board"))


def _moment(ends_at: float) -> str:
    if not ends_at:
        return "never"
    return time.strftime("at %H:%M:%S", time.localtime(ends_at))
