"""Workers and a service that run on a cluster with keys."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from opencluster import Service, Worker, WorkPiece, remote


class SquareWorker(Worker):
    """Squares numbers, and can be made to sleep or to hold the interpreter."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if "log" in work:
            with Path(work["log"]).open("a") as log:
                log.write(f"{work['number']}\n")
        if "sleep_s" in work:
            time.sleep(work["sleep_s"])
        if "hold_s" in work:
            # a call that keeps the interpreter's lock: no thread of Python gets a turn
            ctypes.PyDLL(None).usleep(int(work["hold_s"] * 1e6))
        return WorkPiece(square=work["number"] ** 2, pid=os.getpid())


class AdderService(Service):
    """Adds what a worker asks it to add."""

    @remote
    def add(self, a: int, b: int) -> int:
        return a + b

    @remote
    def note(self, path: str) -> None:
        Path(path).write_text("noted")


class AskingWorker(Worker):
    """Calls the service."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(sum=self.service("adder").add(work["a"], work["b"]))
