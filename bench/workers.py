"""The worker of every measure: it does as little as a worker can."""

from __future__ import annotations

from bench.tasks import echo, fresh_block, touch
from opencluster import Worker, WorkPiece

TARGET = "bench.workers:EchoWorker"
"""How a workshop is told to start one, from the directory above this one."""
TYPE = "Echo"


class EchoWorker(Worker):
    """Sends back a number, the sum of a block that came, or a new block."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Do what the fields of the piece ask for."""
        if "block" in work:
            return WorkPiece(sum=touch(work["block"]))
        if "size" in work:
            return WorkPiece(block=fresh_block(work["number"], work["size"]))
        return WorkPiece(number=echo(work["number"]))
