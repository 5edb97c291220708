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
