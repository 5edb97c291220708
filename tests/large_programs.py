"""A worker for the tests of large pieces."""

from __future__ import annotations

import os
from pathlib import Path

from opencluster import Worker, WorkPiece

TARGET = str(Path(__file__).absolute())


class LargeWorker(Worker):
    """Sends back what a piece has, and says which process it was."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if "log" in work:
            with work["log"].open("a") as log:
                log.write(f"{work['number']}\n")
        return WorkPiece(array=work.get("array"), pid=os.getpid())
