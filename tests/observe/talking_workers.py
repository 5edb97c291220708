"""A worker that says much and is then killed."""

from __future__ import annotations

import os
import signal

from opencluster import Worker, WorkPiece


class TalkingWorker(Worker):
    """Logs numbered messages, then is gone in the midst of its piece."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        for number in range(work["lines"]):
            self.log.warning("said %d", number)
        os.kill(os.getpid(), signal.SIGKILL)
        return WorkPiece()
