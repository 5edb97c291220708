"""A night's work in small, for pages to show."""

from __future__ import annotations

import os
import signal
import sys
import time

from opencluster import Manager, Worker, WorkPiece


class CalibrateWorker(Worker):
    """Calibrates frames, some of which have no antennas."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        self.log.info("frame %d is calibrated", work["frame"])
        time.sleep(work["s"])
        if work["frame"] % 13 == 12:
            raise ValueError("no antennas in this frame")
        return WorkPiece(frame=work["frame"])


class GridWorker(Worker):
    """Grids frames; one of them ends its process."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if work["is_deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        for step in range(10):
            time.sleep(work["s"] / 10)
            self.progress(step + 1, 10)
        return WorkPiece()


class NightManager(Manager):
    """Calibrates and grids."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        frames, s = task["frames"], task["s"]
        pieces = (WorkPiece(frame=n, s=s) for n in range(frames))
        done = list(self.map("Calibrate", pieces, return_errors=True))
        grids = [WorkPiece(s=s, is_deadly=False) for _ in range(frames // 4)]
        if task["is_deadly"]:
            grids.append(WorkPiece(s=s, is_deadly=True))
        done += list(self.map("Grid", grids, return_errors=True))
        return WorkPiece(done=len(done))


if __name__ == "__main__":
    frames, s, is_deadly = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:] == ["die"]
    NightManager().run(WorkPiece(frames=frames, s=s, is_deadly=is_deadly))
