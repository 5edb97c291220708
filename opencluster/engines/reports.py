"""How the jobs of this process stand, told to a factory while there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from opencluster.engines.base import Job
from opencluster.net.link import FactoryLink

MAX_JOBS = 1000
"""Jobs that wait to be reported to a factory."""


class Reports:
    """The jobs that are to be reported; for use while holding the reactor.

    Parameters
    ----------
    link : FactoryLink
        The way to a factory.
    obey : callable
        Carries out what a factory says that somebody orders for a job.
    """

    def __init__(self, link: FactoryLink, obey: Callable[[Job, Any], None]) -> None:
        self._link = link
        self._obey = obey
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
        asked = self._link.request("job", {"job": fields})
        asked.add_done_callback(lambda answer: self._answered(job, answer))
        if job.state != "running":
            self._jobs.pop(job.id, None)

    def _answered(self, job: Job, asked: Future[Any]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._obey(job, asked.result())
