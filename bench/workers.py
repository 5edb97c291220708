"""The worker of every measure: it does as little as a worker can."""

from __future__ import annotations

import time

from bench.tasks import (
    array_in_place,
    block_in_place,
    echo,
    fresh_block,
    total_in_place,
    touch,
)
from opencluster import Worker, WorkPiece

TARGET = "bench.workers:EchoWorker"
"""How a workshop is told to start one, from the directory above this one."""
TYPE = "Echo"

MAKERS = {
    "fresh": fresh_block,
    "in place": block_in_place,
    "array": array_in_place,
}
"""What is made, by the name that a piece has for it."""


class EchoWorker(Worker):
    """Sends back a number, the sum of a block that came, or a new block."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Do what the fields of the piece ask for."""
        if "busy_s" in work:
            return self._compute(work["number"], work["busy_s"], work["step_s"])
        if "loops" in work:
            return self._labour(work["loops"], work["wait_s"])
        if "block" in work:
            return WorkPiece(sum=touch(work["block"]))
        if "make" in work:
            made = MAKERS[work["make"]](work["number"], work["size"])
            return WorkPiece(block=made)
        if "inputs" in work:
            arrays = [part["block"] for part in work["inputs"]]
            return WorkPiece(block=total_in_place(arrays))
        return WorkPiece(number=echo(work["number"]))

    def _labour(self, loops: int, wait_s: float) -> WorkPiece:
        """Compute a fixed amount, however long that takes, then wait for nothing."""
        total = sum(range(loops))
        time.sleep(wait_s)
        return WorkPiece(number=total)

    def _compute(self, number: int, busy_s: float, step_s: float) -> WorkPiece:
        """Compute for some time, and report progress every few milliseconds."""
        began = reported = now = time.perf_counter()
        while now - began < busy_s:
            sum(range(1000))
            now = time.perf_counter()
            if now - reported >= step_s:
                reported = now
                self.progress(now - began, busy_s)
        return WorkPiece(number=number)
