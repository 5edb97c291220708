"""The worker of every measure: it does as little as a worker can."""

from __future__ import annotations

from opencluster import Worker, WorkPiece

TARGET = f"{__file__}:EchoWorker"
"""How a workshop is told to start one."""
TYPE = "Echo"


class EchoWorker(Worker):
    """Sends back the number that came."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the number."""
        return WorkPiece(number=work["number"])
