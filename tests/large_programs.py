"""A worker for the tests of large pieces."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from opencluster import Worker, WorkPiece

TARGET = str(Path(__file__).absolute())


class LargeWorker(Worker):
    """Sends back what a piece has, and says which process it was."""

    def startup(self) -> None:
        self.buffer = np.zeros(2 << 20)

    def reuse(self, work: WorkPiece) -> WorkPiece:
        """Return memory that the next piece writes to."""
        self.buffer[:] = work["reuse"]
        return WorkPiece(array=self.buffer[10:])

    def perform(self, work: WorkPiece) -> WorkPiece:
        if "log" in work:
            with work["log"].open("a") as log:
                log.write(f"{work['number']}\n")
        if "reuse" in work:
            return self.reuse(work)
        return WorkPiece(array=work.get("array"), pid=os.getpid())
