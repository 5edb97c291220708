"""Workers and a manager for tests of elasticity."""

from __future__ import annotations

import os
import time
from pathlib import Path

from opencluster import Manager, Worker, WorkPiece


class NapWorker(Worker):
    """Sleeps until it is woken."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        while not Path(work["until"]).exists():
            time.sleep(0.02)
        return WorkPiece(pid=os.getpid())


class NapManager(Manager):
    """Has pieces slept."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        pieces = [WorkPiece(until=task["until"])] * task["count"]
        pids = {done["pid"] for done in self.map("Nap", pieces)}
        return WorkPiece(pids=sorted(pids))


class BrokenWorker(Worker):
    """Does not start until a file is there."""

    def startup(self) -> None:
        path = Path(os.environ["OPENCLUSTER_DIR"]) / "mended"
        if not path.exists():
            raise FileNotFoundError("the instrument is not there")

    def perform(self, work: WorkPiece) -> WorkPiece:
        return work
