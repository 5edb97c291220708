"""Workers of the tests' clusters."""

from __future__ import annotations

import time

from opencluster import Worker, WorkPiece


class PatientWorker(Worker):
    """Works until a file is there."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        while not work["end"].exists():
            time.sleep(0.01)
        return WorkPiece()


class SayingWorker(Worker):
    """Prints a text, and fails if it is told that this is wrong."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        print(work["text"], flush=True)
        if work["wrong"]:
            self.log.warning("%s is wrong", work["text"])
            raise ValueError(f"{work['text']} is wrong")
        return WorkPiece()
