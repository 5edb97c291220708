"""Workers and a service for what is special about the engine on Dask."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from opencluster import Manager, Service, Worker, WorkPiece, remote


class PairWorker(Worker):
    """Of which a Dask worker has two, in threads."""

    def startup(self) -> None:
        self.count = 0

    def perform(self, work: WorkPiece) -> WorkPiece:
        result: WorkPiece = getattr(self, work["do"])(work)
        return result

    def shutdown(self) -> None:
        self.log.handlers.clear()
        (self.folder / f"ended-{id(self)}").touch()

    def meet(self, work: WorkPiece) -> WorkPiece:
        """Wait until two pieces are here at a time."""
        self.folder = work["folder"]
        self.count += 1
        (self.folder / f"here-{threading.get_ident()}").touch()
        while len(list(self.folder.glob("here-*"))) < 2:
            self.progress(0.5)
            time.sleep(0.005)
        return WorkPiece(instance=id(self), count=self.count, pid=os.getpid())

    def ignore(self, work: WorkPiece) -> WorkPiece:
        """Ask nobody whether to go on."""
        self.folder = work["folder"]
        work["started"].touch()
        while not work["until"].exists():
            time.sleep(0.005)
        return WorkPiece(is_late=True)

    def resist(self, work: WorkPiece) -> WorkPiece:
        """Go on even if it is raised what should end it."""
        while not work["until"].exists():
            try:
                self.ignore(work)
            except BaseException:
                (self.folder / "resisted").touch()
        return WorkPiece()


class SoloWorker(Worker):
    """Of which there is one."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        result: WorkPiece = getattr(self, work["do"])(work)
        return result

    def who(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(pid=os.getpid())

    def note(self, work: WorkPiece) -> WorkPiece:
        with work["log"].open("a") as log:
            log.write(f"{work['number']} ")
        return WorkPiece()

    def nap(self, work: WorkPiece) -> WorkPiece:
        time.sleep(0.06)
        return self.note(work)

    def wait(self, work: WorkPiece) -> WorkPiece:
        work["started"].touch()
        while not work["until"].exists():
            self.progress(0.5)
            time.sleep(0.005)
        return WorkPiece(pid=os.getpid())

    def die(self, work: WorkPiece) -> WorkPiece:
        """End the process, as often as the piece says."""
        with work["log"].open("a+") as log:
            log.seek(0)
            if len(log.read()) < work["times"]:
                log.write("x")
                log.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        return WorkPiece(pid=os.getpid())

    def manage(self, work: WorkPiece) -> WorkPiece:
        """Be a manager: have pieces performed, and return what stands for a value."""
        manager = Manager()
        pieces = [WorkPiece(number=n) for n in range(5)]
        total = sum(r["number"] for r in manager.map("Double", pieces))
        return WorkPiece(total=total, ref=manager.scatter({"deep": work["number"]}))


class DoubleWorker(Worker):
    """Performs what other pieces ask for."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(number=2 * work["number"])


class StillbornWorker(Worker):
    """Does not start."""

    worker_type = "Spare"

    def startup(self) -> None:
        raise RuntimeError("the camera is unplugged")


class StillbornService(Service):
    """Does not start either."""

    def startup(self) -> None:
        raise RuntimeError("the clock has stopped")

    @remote
    def time(self) -> Any:
        return None
