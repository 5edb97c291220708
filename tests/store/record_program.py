"""A script whose jobs are recorded."""

from __future__ import annotations

import os
import signal
import sys
import time

from opencluster import Manager, Worker, WorkPiece


class RecordedWorker(Worker):
    """Takes some time, or fails."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if work["s"]:
            time.sleep(work["s"])
        if work["kills"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if work["fails"]:
            raise ValueError("no antennas")
        return WorkPiece()


class RecordedManager(Manager):
    """Has pieces done of which some fail, or many, or pieces without end."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        kind = task["kind"]
        well, ill = (
            WorkPiece(s=0.1, fails=False, kills=False),
            WorkPiece(s=0.0, fails=True, kills=False),
        )
        if kind == "mixed":
            list(self.map("Recorded", [well, ill, well], return_errors=True))
            tries = self.map(
                "Recorded", [ill, well], error_retries=2, return_errors=True
            )
            list(tries)
        elif kind == "deadly":
            deadly = WorkPiece(s=0.1, fails=False, kills=True)
            list(self.map("Recorded", [deadly], retries=1, return_errors=True))
        elif kind == "late":
            list(self.map("Recorded", [well] * 6))
            self.kept = [self.submit("Recorded", well) for _ in range(2)]
        elif kind == "many":
            list(
                self.map(
                    "Recorded", [WorkPiece(s=0.0, fails=False, kills=False)] * 5000
                )
            )
        else:
            while True:
                list(self.map("Recorded", [well] * 4))
        return WorkPiece()


if __name__ == "__main__":
    manager = RecordedManager()
    manager.run(WorkPiece(kind=sys.argv[1]))
    for future in getattr(manager, "kept", []):
        future.result()
