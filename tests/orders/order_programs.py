"""Workers and a manager for orders from outside."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from opencluster import Manager, Worker, WorkPiece


class SlowWorker(Worker):
    """Takes its time, and writes down what it performs."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if work.get("path"):
            with Path(work["path"]).open("a") as file:
                file.write(f"{work['number']}\n")
        deadline = time.monotonic() + work.get("seconds", 0.0)
        while time.monotonic() < deadline:
            time.sleep(0.02)
        return work


class OrderedWorker(SlowWorker):
    """Has performed nothing before, so that it holds one piece at a time."""


class SuicideWorker(Worker):
    """Ends its own process, unless a file says that the fault is mended."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if not Path(work["mended"]).exists():
            print("the disk is on fire", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return WorkPiece(total=float(work["array"].sum()))


class LongManager(Manager):
    """Would take for ever."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        pieces = (WorkPiece(number=n, seconds=60.0) for n in range(100))
        for _ in self.map("Slow", pieces):
            pass
        return WorkPiece()


if __name__ == "__main__":
    print(LongManager().run(WorkPiece()), file=sys.stderr)
