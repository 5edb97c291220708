"""How the jobs of this process stand, told to a factory while there is one.

A factory answers with what is ordered for a job, and of which types workers will come
when there is work for them. As long as there are such types, one of the reports tells
how much of that work this process has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

from opencluster.core.elastic_report import QUEUED, Work
from opencluster.engines.base import Job
from opencluster.net.link import FactoryLink

MAX_JOBS = 1000
"""Jobs that wait to be reported to a factory."""
MAX_TYPES = 1000
"""Types that a factory may ask about."""


class Reports:
    """The jobs that are to be reported; for use while holding the reactor.

    Parameters
    ----------
    link : FactoryLink
        The way to a factory.
    obey : callable
        Carries out what a factory says that somebody orders for a job.
    expect : callable
        Is told of which types workers will come, when that changes.
    work : callable
        Returns how much there is to do of such types.
    unreached : callable, optional
        Returns which workers this process does not reach, and why.
    """

    def __init__(
        self,
        link: FactoryLink,
        obey: Callable[[Job, Any], None],
        expect: Callable[[Collection[str]], None],
        work: Callable[[Collection[str]], Mapping[str, Work]],
        unreached: Callable[[], list[str]] = list,
    ) -> None:
        self._link = link
        self._obey = obey
        self._expect = expect
        self._work = work
        self._unreached = unreached
        self._expected: list[str] = []
        self._jobs: dict[str, Job] = {}

    def note(self, job: Job) -> None:
        """Report a job, now if that is possible, and then again and again."""
        self._jobs[job.id] = job
        if len(self._jobs) > MAX_JOBS:
            # no factory has been there for long: the oldest goes unreported
            del self._jobs[next(iter(self._jobs))]
        if self._link.is_up:
            self._report(job)

    def report(self) -> None:
        """Report all of them."""
        if self._expected and self._first_running() is None:
            # nobody would hear what is waited for
            self._take_expected([])
        if self._link.is_up:
            for job in list(self._jobs.values()):
                self._report(job)

    def end(self, is_all_done: bool) -> None:
        """Report that those which still run are over."""
        for job in self._jobs.values():
            job.end("done" if is_all_done else "failed")
        self.report()

    def _report(self, job: Job) -> None:
        fields = {n: getattr(job, n) for n in ("id", "name", "state")}
        fields |= {"started_at": job.started_at, "ended_at": job.ended_at}
        fields |= job.statistics.to_fields()
        fields["elapsed_s"] = (job.ended_at or time.time()) - job.started_at
        fields["priority"] = job.priority
        fields["unreached"] = self._unreached()
        if self._expected and job is self._first_running():
            fields[QUEUED] = self._queued()
        asked = self._link.request("job", {"job": fields})
        asked.add_done_callback(lambda answer: self._answered(job, answer))
        if job.state != "running":
            self._jobs.pop(job.id, None)

    def _first_running(self) -> Job | None:
        """Return the job whose report tells of the work of all of them."""
        running = (job for job in self._jobs.values() if job.state == "running")
        return next(running, None)

    def _queued(self) -> dict[str, list[Any]]:
        """Return how much there is to do, with what mappings will hand in yet."""
        coming: Counter[str] = Counter()
        for job in self._jobs.values():
            # who writes it is another thread
            for type, count in job.coming.copy().values():
                coming[type] += count
        work = self._work(self._expected)
        return {t: [w.pieces + coming[t], *w[1:]] for t, w in work.items()}

    def _answered(self, job: Job, asked: Future[Any]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return
        answer = asked.result()
        self._obey(job, answer)
        if job.state == "running" and self._take_expected(_types_in(answer)):
            self.report()

    def _take_expected(self, types: list[str]) -> bool:
        """Take in of which types workers will come; tell whether that is news."""
        if types == self._expected:
            return False
        self._expected = types
        self._expect(types)
        return True


def _types_in(answer: Any) -> list[str]:
    """Return of which types workers will come; an older factory says nothing."""
    types = answer.get("expected") if isinstance(answer, Mapping) else None
    if not isinstance(types, list):
        return []
    return [type for type in types[:MAX_TYPES] if isinstance(type, str)]
