"""Carries out what somebody orders for the jobs of this process.

For use while holding the reactor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from opencluster.core.job_orders import Cancel, Prioritise, duties
from opencluster.engines.base import Job
from opencluster.engines.tickets import Ticket
from opencluster.errors import PieceCancelled

log = logging.getLogger(__name__)

CANCELLED = "cancelled"


class JobOrders:
    """Knows which pieces an order is about.

    Parameters
    ----------
    tickets : mapping of int to Ticket
        All pieces of the engine that are not over.
    take_in : callable
        Has these be all that were submitted.
    cancel : callable
        Ends some of them as cancelled.
    prioritise : callable
        Gives some of them another priority.
    report : callable
        Tells the factories how a job stands.
    """

    def __init__(
        self,
        tickets: Mapping[int, Ticket],
        take_in: Callable[[], None],
        cancel: Callable[[list[int]], None],
        prioritise: Callable[[list[int], int], None],
        report: Callable[[Job], None],
    ) -> None:
        self._tickets = tickets
        self._take_in = take_in
        self._cancel = cancel
        self._prioritise = prioritise
        self._report = report

    def obey(self, job: Job, answer: Any) -> None:
        """Carry out what a factory says to the report of a job."""
        if job.state != "running":
            return
        for duty in duties(answer, job.priority):
            match duty:
                case Cancel(by):
                    log.warning("job %s is cancelled by %s", job.id, by or "somebody")
                    job.cancelled_by = by
                    job.end(CANCELLED)
                    self.end_pieces(job)
                case Prioritise(priority):
                    log.info("job %s has the priority %d now", job.id, priority)
                    job.priority = priority
                    self._prioritise(self._pieces_of(job), priority)
            self._report(job)

    def end_pieces(self, job: Job) -> None:
        """End the pieces of a cancelled job, also those that came too late to hear."""
        self._cancel(self._pieces_of(job))

    def _pieces_of(self, job: Job) -> list[int]:
        self._take_in()
        return [number for number, t in self._tickets.items() if t.job is job]


def cancelled(job: Job) -> PieceCancelled:
    """Return the error for the pieces of a job that was cancelled from outside."""
    by = job.cancelled_by or "somebody who gave no name"
    return PieceCancelled(
        f"job {job.id} ({job.name}) was cancelled by {by}; run the program again if "
        "that was a mistake",
        job.cancelled_by,
    )
