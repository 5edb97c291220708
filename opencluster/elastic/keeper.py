"""One look after another at elastic types: decide, have it carried out, tell.

Owns what is remembered between looks. Its report to the factories is how managers
learn of elastic types, and by which it takes orders. What takes time is carried out by
others, and noticed at a later look.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from opencluster.config import Config
from opencluster.core.demand import Aim, Patience
from opencluster.core.elastic_report import Row, acting, is_report, report_of
from opencluster.core.elasticity import (
    ALLOCATIONS,
    Allocate,
    Elasticity,
    Free,
    Grow,
    Halt,
    Limits,
    Order,
    Shrink,
)
from opencluster.core.job_orders import RESUME, orders_of
from opencluster.core.launching import Pace
from opencluster.elastic.means import Means
from opencluster.elastic.memory import Memory
from opencluster.elastic.sight import Sight, sight_of
from opencluster.errors import ConfigError, FactoryUnreachable, OpenClusterError
from opencluster.net.control import Control
from opencluster.node.host import host_name
from opencluster.observe.status import counted
from opencluster.place import Place

log = logging.getLogger(__name__)

FAREWELL_S = 2.0
"""How long the factories may take to hear that it ends."""


class Keeper:
    """Looks after elastic types.

    Parameters
    ----------
    config : Config
        The settings, with the elastic types.
    place : Place
        The cluster's directory, where it remembers its launches.
    control : Control
        The way to the cluster.
    means : Means
        By whom workers come and go.

    Attributes
    ----------
    types : list of str
        The elastic types.
    report : dict
        What it told the factories last.
    is_over : bool
        The cluster has ended, so that there is nothing more to look after.

    Raises
    ------
    ConfigError
        When no type is elastic.
    """

    def __init__(
        self, config: Config, place: Place, control: Control, means: Means
    ) -> None:
        self.types = [type.type for type in config.elastic_types]
        if not self.types:
            raise ConfigError(
                "no type is elastic: write a section [elastic:TYPE] with its maximum "
                "(docs/elastic.md), or `elastic:` in the cluster file"
            )
        self.report: dict[str, Any] = {}
        self.is_over = False
        self._place = place
        self._away_since: float | None = None
        self._id = uuid.uuid4().hex[:12]
        self._started_at = time.time()
        self._control = control
        self._means = means
        self._policy = policy_of(config, means.each)
        self._sight = Sight()
        self._resumed_at: Any = None
        self._trouble = ""
        self._senior = ""
        self._memory = Memory(place)
        self._is_at_work = False

    def look(self, now: float) -> None:
        """Look once, and do what is to be done."""
        try:
            answer = self._control.factory("status")
            if self._is_to_wait(answer["jobs"]):
                self._is_at_work = False
                return
            if not self._is_at_work:
                self._remember(now)
            self._decide(now, answer)
            self._obey(self._tell("running"))
        except OpenClusterError as error:
            # once, as each look tries it again
            if str(error) != self._trouble:
                log.warning("the cluster cannot be looked at: %s", error)
            self._trouble = str(error)
            if isinstance(error, FactoryUnreachable):
                self._look_whether_over(now)
        else:
            self._trouble, self._away_since = "", None

    def end(self) -> None:
        """Tell the factories that nobody looks after the types any more."""
        if self._is_at_work:
            with suppress(OpenClusterError):
                self._tell("done", FAREWELL_S)

    # --- inside --------------------------------------------------------------

    def _look_whether_over(self, now: float) -> None:
        """Note whether the cluster does not answer as it has ended."""
        # a directory that is away for a while has the notes of jobs in it
        if self._away_since is None or not self._place.path.is_dir():
            self._away_since = now
        if not self.is_over and self._means.is_gone(now, self._away_since):
            self.is_over = True
            log.warning(
                "the cluster of %s has ended: no factory answers, and none of its jobs "
                "stands or waits; this ends as well, and `opencluster up` starts both "
                "anew",
                self._place.path,
            )

    def _is_to_wait(self, rows: Sequence[Row]) -> bool:
        """Return whether another one looks after the types: the one that began first.

        It is followed should it end.
        """
        others = [row for row in rows if is_report(row) and row["id"] != self._id]
        first = acting([report_of(self._id, self._started_at, ()), *others])
        senior = first if first is not None and first["id"] != self._id else {}
        name = str(senior.get("id", ""))
        if name != self._senior and senior:
            where = f"{senior.get('pid')} on {senior.get('host')}"
            log.warning("process %s looks after elastic types, and this waits", where)
        elif name != self._senior:
            log.warning("nobody else looks after elastic types any more: this does")
        self._senior = name
        return bool(senior)

    def _remember(self, now: float) -> None:
        """Take over what whoever was at work here before has launched."""
        known = self._memory.read()
        self._policy.launching.remember(now, known.ages_s)
        self._policy.launching.remember_troubles(now, known.troubles)
        self._means.remember(now, known.means)
        self._is_at_work = True

    def _decide(self, now: float, answer: Mapping[str, Any]) -> None:
        policy = self._policy
        self._sight = sight_of(answer, self.types, self._sight.done)
        look = self._means.look(now, self._sight)
        for kind, reason in look.failed:
            if kind == ALLOCATIONS or policy.is_launching(kind):
                log.warning("a launch failed: %s", reason)
                policy.failed(now, kind, reason)
        if look.arrived:
            policy.launching.succeeded(ALLOCATIONS)
        orders = policy.look(now, look.seen, look.allocations, look.leaving)
        # before they are carried out: one that is killed then has launched them
        self._note(now)
        for order in orders:
            self._carry_out(now, order)
        self._note(now)

    def _note(self, now: float) -> None:
        launching = self._policy.launching
        self._memory.write(
            now, launching.ages(now), launching.troubles(), self._means.to_fields()
        )

    def _carry_out(self, now: float, order: Order) -> None:
        if isinstance(order, Halt):
            cure = "mend that, then run `opencluster elastic resume`"
            log.error("%s; %s", told(order), cure)
        else:
            log.info("%s", told(order))
        self._means.carry_out(now, order, self._sight)

    def _obey(self, answer: Any) -> None:
        """Carry out what is ordered, by what a factory answers to a report."""
        orders = orders_of(answer) if isinstance(answer, Mapping) else {}
        order = orders.get(RESUME)
        if not isinstance(order, Mapping) or order.get("at") == self._resumed_at:
            return
        self._resumed_at = order.get("at")
        self._policy.launching.resume()
        log.warning("launches again, by order of %s", order.get("by") or "somebody")

    def _tell(self, state: str, timeout_s: float | None = None) -> Any:
        """Report to the factories, and return what they answer."""
        about = {"host": host_name(), "pid": os.getpid()}
        self.report = report_of(
            self._id, self._started_at, self._policy.standings(), **about
        )
        self.report["state"] = state
        return self._control.factory("job", {"job": self.report}, timeout_s)


def policy_of(config: Config, each: Mapping[str, int] | None) -> Elasticity:
    """Return the policy that settings ask for."""
    elastic = config.elastic
    aims = {
        type.type: Aim(type.minimum, type.maximum, type.target_s)
        for type in config.elastic_types
    }
    pace = Pace(
        elastic.launches_per_minute,
        elastic.failures,
        elastic.backoff_s,
        elastic.backoff_max_s,
    )
    patience = Patience(elastic.rise_s, elastic.cooldown_s, elastic.first_step)
    limits = Limits(
        elastic.ceiling, elastic.allocations, elastic.start_timeout_s, pace, patience
    )
    return Elasticity(aims, limits, each)


def told(order: Order) -> str:
    """Return in a line what is done, and why."""
    match order:
        case Grow(type, count, reason):
            return f"{type}: {count} in all, since {reason}"
        case Shrink(type, count, reason):
            return f"{type}: {count} fewer, since {reason}"
        case Allocate(count, reason):
            jobs = counted(count, "more job", "more jobs")
            return f"{jobs} of the batch system, since {reason}"
        case Free(reason):
            return f"one job of the batch system fewer, since {reason}"
        case Halt(kind, reason):
            return f"nothing launches {kind or 'jobs'} any more: {reason}"
