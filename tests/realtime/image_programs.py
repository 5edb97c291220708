"""A worker of images that can be held in the middle of CLEAN."""

from __future__ import annotations

import os
import time
from pathlib import Path

from muser_pipeline.realtime import MUSERImageWorker

HOLD = "MUSER_TEST_HOLD"
"""Names a folder: while ``hold`` is in it, workers stay in CLEAN, and say so in it."""
STEP_S = 0.01


class HeldWorker(MUSERImageWorker):
    """Makes images as any other, but can be caught while it does."""

    worker_type = "MUSERImageGPU"
    """What a workshop takes it for; it finds that there is none."""

    def startup(self) -> None:
        # without the image that others make first: it takes longer than those of tests
        self._maker = self.make_maker()

    def show(self, step: str, done: int, total: int) -> None:
        super().show(step, done, total)
        folder = Path(os.environ[HOLD])
        while step == "clean" and 0 < done < total and (folder / "hold").exists():
            (folder / f"{os.getpid()}").touch()
            time.sleep(STEP_S)
