"""The daemon that looks after elastic types: look, decide, have it carried out, tell.

One thread looks at the cluster again and again and owns the policy. What takes time is
done by others, and noticed at a later look. Its report to the factories is how managers
learn of elastic types, and by which it takes orders.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from opencluster.config import Config
from opencluster.core.demand import Aim, Patience
from opencluster.core.elastic_report import (
    Row,
    acting,
    is_report,
    metrics_of,
    report_of,
)
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
from opencluster.core.metrics import Metric
from opencluster.elastic.means import Means
from opencluster.elastic.sight import Sight, sight_of
from opencluster.errors import ConfigError, OpenClusterError
from opencluster.net.control import Control
from opencluster.node.host import host_name
from opencluster.node.notify import Notifier
from opencluster.place import Place

log = logging.getLogger(__name__)

THREADS = 8
"""Orders that are carried out at a time, and a question to a batch system."""
FAREWELL_S = 2.0
"""How long the factories may take to hear that it ends."""


class Elastic:
    """Has workers come and go until it is stopped.

    Parameters
    ----------
    config : Config
        The settings, with the elastic types.
    place : Place
        The cluster's directory, where it remembers its launches.
    control : Control
        The way to the cluster, which is closed at the end of `run`.
    means_of : callable
        Returns by whom workers come and go, given what carries out orders.

    Raises
    ------
    ConfigError
        When no type is elastic.
    """

    def __init__(
        self,
        config: Config,
        place: Place,
        control: Control,
        means_of: Callable[[ThreadPoolExecutor], Means],
    ) -> None:
        if not config.elastic_types:
            raise ConfigError(
                "no type is elastic: write a section [elastic:TYPE] with its maximum "
                "(docs/elastic.md), or `elastic:` in the cluster file"
            )
        self.config = config
        self.id = uuid.uuid4().hex[:12]
        self._control = control
        self._memory = _Memory(place)
        self._started_at = time.time()
        self._executor = ThreadPoolExecutor(THREADS, "opencluster-elastic")
        self._means = means_of(self._executor)
        self._policy = policy_of(config, self._means.each)
        self._types = [type.type for type in config.elastic_types]
        self._sight = Sight()
        self._report: dict[str, Any] = {}
        self._resumed_at: Any = None
        self._trouble = ""
        self._senior = ""
        self._is_stopping = False
        self._posted: deque[Callable[[], None]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watched = [self._wake_fd]
        self._notifier = Notifier({})

    # --- life ----------------------------------------------------------------

    def run(self) -> None:
        """Look after the types until `stop`; what runs then stays."""
        now = time.monotonic()
        launches, means = self._memory.read()
        self._policy.launching.remember(now, launches)
        self._means.remember(now, means)
        log.info("looks after %s", ", ".join(self._types))
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            self._end()

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._is_stopping = True
        self._wake()

    def end_with(self, pidfd: int) -> None:
        """Stop when the process that a file descriptor stands for has ended."""
        self._watched.append(pidfd)

    def report_to(self, notifier: Notifier) -> None:
        """Tell the service manager that it is ready, and in each turn that it lives."""
        self._notifier = notifier
        notifier.ready()

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in its loop."""
        self._posted.append(callback)
        self._wake()

    def metrics(self) -> list[Metric]:
        """Return numbers by which it is watched; call it from its loop, see `post`."""
        return metrics_of([self._report] if self._report else [])

    # --- turns ---------------------------------------------------------------

    def _turn(self) -> None:
        if self._notifier.interval_s:
            self._notifier.alive()
        self._look()
        deadline = time.monotonic() + self.config.elastic.interval_s
        while not self._is_stopping:
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select(self._watched, [], [], max(0.0, left_s))
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            while self._posted:
                self._posted.popleft()()
            self._is_stopping |= any(fd != self._wake_fd for fd in ready)
            if left_s <= 0:
                break

    def _look(self) -> None:
        """Look once, and do what is to be done."""
        try:
            answer = self._control.factory("status")
            if self._is_to_wait(answer["jobs"]):
                return
            self._decide(answer)
            row = self._tell("running")
            self._obey(orders_of(row if isinstance(row, Mapping) else {}))
        except OpenClusterError as error:
            # once, as each look tries it again
            if str(error) != self._trouble:
                log.warning("the cluster cannot be looked at: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _is_to_wait(self, rows: Sequence[Row]) -> bool:
        """Return whether another one looks after the types: the one that began first.

        It is followed should it end.
        """
        others = [row for row in rows if is_report(row) and row["id"] != self.id]
        first = acting([report_of(self.id, self._started_at, ()), *others])
        senior = first if first is not None and first["id"] != self.id else {}
        name = str(senior.get("id", ""))
        if name != self._senior and senior:
            where = f"{senior.get('pid')} on {senior.get('host')}"
            log.warning("process %s looks after elastic types, and this waits", where)
        elif name != self._senior:
            log.warning("nobody else looks after elastic types any more: this does")
        self._senior = name
        return bool(senior)

    def _decide(self, answer: Mapping[str, Any]) -> None:
        now, policy = time.monotonic(), self._policy
        self._sight = sight_of(answer, self._types, self._sight.done)
        look = self._means.look(now, self._sight)
        for kind, reason in look.failed:
            if kind == ALLOCATIONS or policy.is_launching(kind):
                log.warning("a launch failed: %s", reason)
                policy.failed(now, kind, reason)
        if look.arrived:
            policy.launching.succeeded(ALLOCATIONS)
        for order in policy.look(now, look.seen, look.allocations):
            self._carry_out(now, order)
        self._memory.write(policy.launching.ages(now), self._means.to_fields())

    def _carry_out(self, now: float, order: Order) -> None:
        if isinstance(order, Halt):
            cure = "mend that, then run `opencluster elastic resume`"
            log.error("%s; %s", told(order), cure)
            return
        log.info("%s", told(order))
        self._means.carry_out(now, order, self._sight)

    def _obey(self, orders: Mapping[str, Any]) -> None:
        order = orders.get(RESUME)
        at = order.get("at") if isinstance(order, Mapping) else None
        if at is None or at == self._resumed_at:
            return
        self._resumed_at = at
        by = order.get("by") if isinstance(order, Mapping) else ""
        self._policy.launching.resume()
        log.warning("resumed, by order of %s", by or "somebody")

    def _tell(self, state: str, timeout_s: float | None = None) -> Any:
        """Report to the factories, and return what they answer."""
        about = {"host": host_name(), "pid": os.getpid()}
        self._report = report_of(
            self.id, self._started_at, self._policy.standings(), **about
        )
        self._report["state"] = state
        return self._control.factory("job", {"job": self._report}, timeout_s)

    # --- inside --------------------------------------------------------------

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _end(self) -> None:
        if self._report and not self._senior:
            with suppress(OpenClusterError):
                self._tell("done", FAREWELL_S)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._control.close()
        os.close(self._wake_fd)
        log.info("looks after nothing any more; what runs stays")


class _Memory:
    """What outlives the daemon, in the cluster's directory."""

    def __init__(self, place: Place) -> None:
        self._path = place.path / "elastic.json"
        self._written: tuple[int, Any] = (-1, None)
        place.make()

    def read(self) -> tuple[list[float], Any]:
        """Return how long ago the last launches were, and what the means remember."""
        try:
            content = json.loads(self._path.read_text())
            launches = [time.time() - float(at) for at in content["launches"]]
            return launches, content.get("means")
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return [], None

    def write(self, ages_s: Sequence[float], means: Any) -> None:
        """Keep both, if they have changed."""
        if self._written == (len(ages_s), means):
            return
        now = time.time()
        content = {"launches": [now - age_s for age_s in ages_s], "means": means}
        draft = self._path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(content))
        draft.replace(self._path)
        self._written = len(ages_s), means


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
            return f"{count} more jobs of the batch system, since {reason}"
        case Free(reason):
            return f"one job of the batch system fewer, since {reason}"
        case Halt(kind, reason):
            return f"nothing launches {kind or 'jobs'} any more: {reason}"
