"""Workers and a service for the tests of data that stay in the workers."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from opencluster import Manager, Service, Worker, WorkPiece, remote

TARGET = str(Path(__file__).absolute())


class DataWorker(Worker):
    """Does what a piece names under ``do``."""

    def startup(self) -> None:
        self.buffer = np.zeros(20_000)

    def perform(self, work: WorkPiece) -> Any:
        if "log" in work:
            with work["log"].open("a") as log:
                log.write(f"{work.get('number')} {os.getpid()}\n")
        return getattr(self, work["do"])(work)

    def make(self, work: WorkPiece) -> WorkPiece:
        array = np.full(work.get("size", 1), float(work["number"]))
        return WorkPiece(array=array, pid=os.getpid(), number=work["number"])

    def add(self, work: WorkPiece) -> WorkPiece:
        total = sum(part["array"] for part in work["parts"])
        return WorkPiece(array=total, pid=os.getpid(), number=float(total[0]))

    def look(self, work: WorkPiece) -> WorkPiece:
        """Return what the piece looks like from here."""
        value = work["value"]
        return WorkPiece(value=value, type=type(value).__name__, pid=os.getpid())

    def spoil(self, work: WorkPiece) -> WorkPiece:
        work["value"]["list"].append(1)
        return WorkPiece(is_writeable=work["value"]["array"].flags.writeable)

    def reuse(self, work: WorkPiece) -> WorkPiece:
        """Return memory that the next piece writes to."""
        self.buffer[:] = work["number"]
        return WorkPiece(array=self.buffer)

    def fail(self, work: WorkPiece) -> WorkPiece:
        raise ValueError("cannot make it")

    def fail_later(self, work: WorkPiece) -> WorkPiece:
        """Work in the first run, and raise in those that follow."""
        if work["died"].exists():
            raise ValueError("cannot make it again")
        work["died"].touch()
        return self.make(work)

    def call(self, work: WorkPiece) -> WorkPiece:
        total = self.service("tally").total(work["service_value"])
        return WorkPiece(total=total)

    def nest(self, work: WorkPiece) -> WorkPiece:
        """Keep a value as a manager inside a worker, and return what stands for it."""
        return WorkPiece(ref=Manager().scatter({"deep": work["number"]}))

    def lock(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(lock=threading.Lock())

    def wait(self, work: WorkPiece) -> WorkPiece:
        work["started"].touch()
        while not work["until"].exists():
            self.progress(0.5)
            time.sleep(0.005)
        return self.make(work)

    def blind(self, work: WorkPiece) -> WorkPiece:
        """Wait in the C library, where no signal is attended to."""
        wait = f"touch {work['started']}; until [ -e {work['until']} ]"
        ctypes.CDLL(None).system(f"{wait}; do sleep 0.02; done".encode())
        return self.make(work)

    def memory(self, work: WorkPiece) -> WorkPiece:
        """Return how much memory of its own this process has, in bytes."""
        array = work["value"]
        checksum = float(array[::512].sum())
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: line.split() for line in lines[1:]}
        private = sum(
            int(sizes[name][1]) << 10 for name in ("Private_Clean", "Private_Dirty")
        )
        return WorkPiece(private=private, checksum=checksum, pid=os.getpid())


class JoinWorker(DataWorker):
    """Joins the inputs of a reduction."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if any(part["number"] == "poison" for part in work["inputs"]):
            raise ValueError("poisoned")
        parts = [part["array"] for part in work["inputs"]]
        names = " ".join(str(part["number"]) for part in work["inputs"])
        return WorkPiece(array=sum(parts), number=f"({names})", pid=os.getpid())


class TallyService(Service):
    """Adds up."""

    @remote
    def total(self, value: Any) -> float:
        return float(value["array"].sum())
