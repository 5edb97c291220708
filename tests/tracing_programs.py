"""Workers and managers of the tests of traces."""

from __future__ import annotations

import os
import signal

from opentelemetry import trace

from opencluster import Manager, Worker, WorkPiece


class TracedWorker(Worker):
    """Does as it is told, in a span of its own."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        with trace.get_tracer("observatory").start_as_current_span("grid"):
            if work["do"] == "fail":
                raise ValueError("no antennas")
        if work["do"] == "die" and not work["died"].exists():
            work["died"].touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return WorkPiece()


class TracedManager(Manager):
    """Has pieces performed."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        outcomes = list(self.map("Traced", task["pieces"], return_errors=True))
        return WorkPiece(outcomes=[str(outcome) for outcome in outcomes])
