"""By whom workers come and go: by the workshops of computers, or by a batch system.

Both carry out what `opencluster.core.elasticity` orders, in threads of others, and say
what they know that the registry does not. Neither decides how many there should be.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from opencluster.config import Config
from opencluster.core.allotment import Allotment, Listed
from opencluster.core.demand import Seen
from opencluster.core.elastic_report import Work
from opencluster.core.elasticity import (
    ALLOCATIONS,
    Allocate,
    Free,
    Grow,
    Halt,
    Order,
    Shrink,
)
from opencluster.elastic.sight import Hands, Sight, can_start, in_a_line
from opencluster.errors import LaunchFailed, OpenClusterError
from opencluster.launchers.base import Launcher
from opencluster.net.control import Control
from opencluster.observe import actions

log = logging.getLogger(__name__)

READY_WAIT_S = 2.0
"""How long it is waited whether processes that a workshop starts end again at once."""
QUEUE_LOOK_S = 10.0
"""How often a batch system is asked for its jobs: it serves others, too."""
GONE_S = 120.0
"""How long there must be no factory and no job before a cluster has ended: longer than
a new job may be missing in the queue, or either may be away for."""


@dataclass
class Look:
    """What is known at one look.

    Attributes
    ----------
    seen : dict of str to Seen
        How each type stands.
    allocations : int
        Jobs of a batch system that may be given back.
    leaving : int
        Those that are being given back, and stand until they are empty.
    failed : list of (str, str)
        What failed since the last look: of which kind, and why.
    arrived : bool
        A job of a batch system has come to work.
    """

    seen: dict[str, Seen]
    allocations: int = 0
    leaving: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    arrived: bool = False


class Means(Protocol):
    """One way for workers to come and go; for use in one thread."""

    @property
    def each(self) -> Mapping[str, int] | None:
        """Workers of each type that an allocation brings; ``None`` without these."""

    def look(self, now: float, sight: Sight) -> Look:
        """Return how everything stands."""

    def carry_out(self, now: float, order: Order, sight: Sight) -> None:
        """Begin to carry out an order; that it fails is told by a later look."""

    def is_gone(self, now: float, away_since: float) -> bool:
        """Return whether the cluster has ended, whose factories do not answer.

        Parameters
        ----------
        now : float
            The time, in seconds.
        away_since : float
            Since when they do not.
        """

    def to_fields(self) -> Any:
        """Return what `remember` takes after a restart, as plain data."""

    def remember(self, now: float, fields: Any) -> None:
        """Look after what was asked for before a restart."""


class Workshops:
    """Workers are processes of the computers that are there.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    config : Config
        The settings.
    executor : Executor
        Carries out orders.
    """

    each = None

    def __init__(self, control: Control, config: Config, executor: Executor) -> None:
        self._control = control
        self._config = config
        self._executor = executor
        self._orders: dict[Future[Any], str] = {}
        # of what failed before this began nothing is known
        self._failures: dict[str, int] | None = None

    def look(self, now: float, sight: Sight) -> Look:
        """Return how the types stand, and which did not start."""
        look = Look({type: self._seen(type, sight) for type in sight.hands})
        for order in [order for order in self._orders if order.done()]:
            type, error = self._orders.pop(order), order.exception()
            if error is not None:
                look.failed.append((type, _reason(error)))
        counts = {type: count for type, (count, _) in sight.failures.items()}
        known, self._failures = self._failures, counts
        for type, (count, message) in sight.failures.items():
            if known is not None and count > known.get(type, 0):
                look.failed.append((type, message))
        return look

    def carry_out(self, now: float, order: Order, sight: Sight) -> None:
        """Have workshops start processes, or end idle ones."""
        asked: Future[Any]
        if isinstance(order, Grow):
            # those that somebody started by hand are none of the workshops'
            own = [*sight.hands[order.type].staying]
            others = sum(entry["workshop"] not in sight.shops for entry in own)
            asked = self._executor.submit(
                actions.scale,
                self._control,
                order.type,
                max(0, order.count - others),
                wait_s=READY_WAIT_S,
                may_end=False,
            )
        elif isinstance(order, Shrink):
            idle = _that_a_workshop_ends(sight.hands[order.type], sight)
            names = [str(entry["id"]) for entry in idle[: order.count]]
            asked = self._executor.submit(
                actions.stop, self._control, names, self._config, 0.0
            )
        elif isinstance(order, Halt):
            asked = self._executor.submit(self._settle, order.kind, sight)
        else:
            return
        self._orders[asked] = order.kind if isinstance(order, Halt) else order.type

    def is_gone(self, now: float, away_since: float) -> bool:
        """Return ``False``: computers stay where they are, and may come back."""
        return False

    def to_fields(self) -> Any:
        """Return nothing: whoever is there the registry knows."""
        return None

    def remember(self, now: float, fields: Any) -> None:
        """Remember nothing."""

    def _settle(self, type: str, sight: Sight) -> None:
        """Have workshops want no more than run, as they would go on trying."""
        staying = sight.hands[type].staying
        here = Counter((e["workshop"], e["name"].rpartition("-")[0]) for e in staying)
        for id, shop in sight.shops.items():
            if not can_start(shop, type):
                continue
            for row in self._control.workshop(shop, "status", {})["catalogue"]:
                count = here[id, row["name"]]
                if row["type"] == type and count < row["count"]:
                    wanted = {"type": row["name"], "count": count}
                    self._control.workshop(shop, "scale", wanted)

    def _seen(self, type: str, sight: Sight) -> Seen:
        work, hands = sight.work.get(type, Work()), sight.hands[type]
        is_able = any(can_start(shop, type) for shop in sight.shops.values())
        obstacle = "" if is_able else "no computer that is not drained can run it"
        if type in self._orders.values():
            # of two orders at a time the wrong one could be the last
            obstacle = "an order is being carried out"
        idle = _that_a_workshop_ends(hands, sight)
        return Seen(
            work.pieces,
            work.mean_s,
            len(hands.staying),
            len(idle),
            is_holding=hands.is_holding,
            obstacle=obstacle,
        )


class Jobs:
    """Workers come with jobs of a batch system, a computer each.

    Parameters
    ----------
    launcher : Launcher
        Asks the batch system.
    each : mapping of str to int
        Workers of each type that a computer brings.
    config : Config
        The settings.
    executor : Executor
        Carries out orders, and asks for jobs.
    """

    def __init__(
        self,
        launcher: Launcher,
        each: Mapping[str, int],
        config: Config,
        executor: Executor,
    ) -> None:
        elastic = config.elastic
        self.each: Mapping[str, int] | None = each
        self._launcher = launcher
        self._executor = executor
        self._allotment = Allotment(each, elastic.start_timeout_s, elastic.ending_s)
        self._queue: list[Listed] = []
        self._asked_queue: Future[list[Listed]] | None = None
        self._ask_at = 0.0
        self._trouble = "the batch system has not answered yet"
        # the first and the last of the answers in a row by which there is no job
        self._no_job: tuple[float, float] | None = None
        self._submitted: list[Future[str]] = []
        self._given_back: dict[Future[None], str] = {}

    def look(self, now: float, sight: Sight) -> Look:
        """Return how the types stand, and what became of the jobs."""
        failed: list[tuple[str, str]] = []
        self._take_queue(now)
        self._take_submitted(now, failed)
        self._take_given_back(now)
        here = _here(sight)
        queue = None if self._trouble else self._queue
        count = self._allotment.look(now, time.time(), queue, here)
        failed += [(ALLOCATIONS, reason) for reason in count.failed]
        for id in count.overdue:
            self._give_back(now, id)
        leaving = {
            id for id, shop in sight.shops.items() if job_of(shop) in count.ending
        }
        seen = {}
        for type, hands in sight.hands.items():
            work = sight.work.get(type, Work())
            staying = [e for e in hands.staying if e["workshop"] not in leaving]
            idle = [e for e in hands.idle if e["workshop"] not in leaving]
            seen[type] = Seen(
                work.pieces,
                work.mean_s,
                len(staying),
                len(idle),
                count.pending.get(type, 0),
                hands.is_holding,
                self._trouble,
            )
        stand = len(self._allotment.own) + self._allotment.asking
        leaving_jobs = count.leaving | {*self._given_back.values()}
        return Look(seen, stand, len(leaving_jobs), failed, count.arrived)

    def carry_out(self, now: float, order: Order, sight: Sight) -> None:
        """Submit jobs, or give one back."""
        if isinstance(order, Allocate):
            self._allotment.asking += order.count
            for _ in range(order.count):
                self._submitted.append(self._executor.submit(self._submit))
        elif isinstance(order, Free):
            id = self._allotment.to_give_back(self._queue, _idle_jobs(sight))
            if id:
                self._give_back(now, id)

    def is_gone(self, now: float, away_since: float) -> bool:
        """Return whether no job of the cluster stands or waits, and not just now.

        While the batch system does not answer, nobody knows.
        """
        self._take_queue(now)
        is_asking = not all(job.done() for job in self._submitted)
        if self._no_job is None or is_asking:
            return False
        first, last = self._no_job
        return last - max(first, away_since) >= GONE_S

    def to_fields(self) -> Any:
        """Return the jobs that were asked for."""
        return self._allotment.to_fields()

    def remember(self, now: float, fields: Any) -> None:
        """Look after jobs that were asked for before, and those to give back."""
        for id in self._allotment.remember(now, fields):
            self._give_back(now, id)

    # --- inside --------------------------------------------------------------

    def _submit(self) -> str:
        (id,) = self._launcher.add(1)
        return id

    def _ask(self) -> list[Listed]:
        jobs = self._launcher.allocations()
        return [Listed(job.id, job.state, job.nodes, job.ends_at) for job in jobs]

    def _take_queue(self, now: float) -> None:
        """Take in what the batch system says, and ask it again now and then."""
        asked = self._asked_queue
        if asked is not None and asked.done():
            self._asked_queue = None
            error = asked.exception()
            if error is None:
                self._queue, self._trouble = asked.result(), ""
            else:
                self._trouble = f"the batch system cannot be asked: {_reason(error)}"
                log.warning("%s", self._trouble)
            if self._queue or self._trouble:
                self._no_job = None
            else:
                self._no_job = (self._no_job or (now, now))[0], now
        if self._asked_queue is None and now >= self._ask_at:
            self._ask_at = now + QUEUE_LOOK_S
            self._asked_queue = self._executor.submit(self._ask)

    def _take_submitted(self, now: float, failed: list[tuple[str, str]]) -> None:
        for job in [job for job in self._submitted if job.done()]:
            self._submitted.remove(job)
            self._allotment.asking -= 1
            error = job.exception()
            if error is not None:
                failed.append((ALLOCATIONS, _reason(error)))
            else:
                log.info("job %s is submitted", job.result())
                self._allotment.asked(now, [job.result()])

    def _take_given_back(self, now: float) -> None:
        for job in [job for job in self._given_back if job.done()]:
            id, error = self._given_back.pop(job), job.exception()
            if error is not None:
                log.error("job %s cannot be given back now: %s", id, error)
                self._allotment.kept(now, id)

    def _give_back(self, now: float, id: str) -> None:
        log.info("job %s is given back", id)
        self._allotment.given_back(now, id)
        self._given_back[self._executor.submit(self._remove, id)] = id

    def _remove(self, id: str) -> None:
        """Give back a job, unless it has ended: whoever was before did it, or Slurm."""
        if any(job.id == id for job in self._launcher.allocations()):
            self._launcher.remove(id)


def job_of(shop: Mapping[str, Any]) -> str:
    """Return the job that a workshop is in, or an empty text.

    Workshops of jobs are called after their computer and their job.
    """
    return str(shop["name"]).partition(".")[2]


def _here(sight: Sight) -> dict[str, dict[str, int]]:
    """Return the workers of each type, by the jobs whose workshops are there."""
    here: dict[str, dict[str, int]] = {
        job_of(shop): {} for shop in sight.shops.values() if job_of(shop)
    }
    for type, hands in sight.hands.items():
        for entry in hands.staying:
            shop = sight.shops.get(entry["workshop"])
            if shop is not None and job_of(shop):
                counts = here[job_of(shop)]
                counts[type] = counts.get(type, 0) + 1
    return here


def _idle_jobs(sight: Sight) -> set[str]:
    """Return the jobs whose workers all do nothing."""
    busy = {
        entry["workshop"]
        for hands in sight.hands.values()
        for entry in hands.staying
        if entry not in hands.idle
    }
    jobs = {job_of(shop) for shop in sight.shops.values()} - {""}
    return jobs - {job_of(sight.shops[id]) for id in busy if id in sight.shops}


def _that_a_workshop_ends(hands: Hands, sight: Sight) -> list[Mapping[str, Any]]:
    """Return idle workers that were started by workshops, and can be ended by these."""
    return [entry for entry in hands.idle if entry["workshop"] in sight.shops]


def _reason(error: BaseException) -> str:
    """Return in a line why something failed."""
    output = getattr(error, "output", "") or getattr(error, "detail", "")
    is_expected = isinstance(error, OpenClusterError | LaunchFailed)
    return in_a_line(str(error) if is_expected else repr(error), output)
