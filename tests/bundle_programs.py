"""A worker for the tests of bundles, that does what its pieces say."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from opencluster import Worker, WorkPiece

TARGET = str(Path(__file__).absolute())
ARRAY_BYTES = 1 << 17
DEADLINE_S = 30.0


def runs(log: Path) -> list[tuple[int, int]]:
    """Return which pieces were begun, by their numbers, and in which process."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def counts(log: Path) -> Counter[int]:
    """Return how often each piece was begun."""
    return Counter(n for n, _ in runs(log))


class BundleWorker(Worker):
    """Notes each run as a line ``n pid`` in the file ``log``, and runs a method."""

    def perform(self, work: WorkPiece) -> Any:
        self.log_path = Path(work["log"])
        with self.log_path.open("a") as log:
            log.write(f"{work['n']} {os.getpid()}\n")
        return getattr(self, work.get("do", "answer"))(work)

    def answer(self, work: WorkPiece) -> WorkPiece:
        block = work.get("block")
        total = None if block is None else int(block.sum())
        return WorkPiece(n=work["n"], pid=os.getpid(), total=total)

    def keep_block(self, work: WorkPiece) -> WorkPiece:
        """Keep what came, and look at all that was kept: whose is it still?"""
        if not hasattr(self, "kept"):
            self.kept: list[tuple[int, Any]] = []
        self.kept.append((work["n"], work["block"]))
        is_well = all((block == n).all() for n, block in self.kept)
        return WorkPiece(n=work["n"], is_well=is_well)

    def same_array(self, work: WorkPiece) -> WorkPiece:
        """Return the same memory every time, with another content."""
        if not hasattr(self, "out"):
            self.out = np.zeros(5000)
        self.out[:] = work["n"]
        return WorkPiece(n=work["n"], array=self.out)

    def fail(self, work: WorkPiece) -> WorkPiece:
        raise ValueError(f"not {work['n']}")

    def exit(self, work: WorkPiece) -> WorkPiece:
        raise SystemExit(work["n"])

    def nothing(self, work: WorkPiece) -> None:
        return None

    def unsendable(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(it=object())

    def array(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(array=np.full(ARRAY_BYTES // 8, work["n"]))

    def report(self, work: WorkPiece) -> WorkPiece:
        self.progress(work["n"], 100)
        return self.answer(work)

    def wait_for(self, work: WorkPiece) -> WorkPiece:
        """Wait until a file is there."""
        deadline = time.monotonic() + DEADLINE_S
        while not Path(work["path"]).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.answer(work)

    def until_told(self, work: WorkPiece) -> WorkPiece:
        """Go on until it is interrupted."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            self.progress(1, 2)
            time.sleep(0.005)
        return self.answer(work)

    def hold_gil(self, work: WorkPiece) -> WorkPiece:
        """Sleep without giving the interpreter to any other thread."""
        # a signal would end the sleep, as it would not end a computation
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # functions of a PyDLL are called with the lock held
        ctypes.PyDLL(None).usleep(int(work["s"] * 1e6))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.answer(work)

    def drain(self, work: WorkPiece) -> WorkPiece:
        os.kill(os.getpid(), signal.SIGTERM)
        return self.answer(work)

    def die_once(self, work: WorkPiece) -> WorkPiece:
        if counts(self.log_path)[work["n"]] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.answer(work)

    def die(self, work: WorkPiece) -> WorkPiece:
        os.kill(os.getpid(), signal.SIGKILL)
        return self.answer(work)
