"""A worker whose pieces go on until a file is there, for the tests of classes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

from opencluster import Worker, WorkPiece

TARGET = str(Path(__file__).absolute())
DEADLINE_S = 30.0
"""Nothing here goes on for longer."""
STEP_S = 0.005
STEPS_LEFT = 40
"""Steps that a piece takes after the file is there."""


def runs(log: Path) -> Counter[int]:
    """Return how often each piece was begun."""
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(int(line.split()[0]) for line in lines)


class Alarm(Exception):
    """What a handler of a signal raises."""


def _raise(number: int, frame: object) -> None:
    raise Alarm


def pids(log: Path, n: int) -> list[int]:
    """Return the processes in which a piece was begun, in this order."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [int(pid) for number, pid in lines if int(number) == n]


class PatientWorker(Worker):
    """Notes each run as a line ``n pid`` in the file ``log``, and runs a method."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        with work["log"].open("a") as log:
            log.write(f"{work['n']} {os.getpid()}\n")
        result: WorkPiece = getattr(self, work["do"])(work)
        return result

    def answer(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(n=work["n"], is_whole=True)

    def report(self, work: WorkPiece) -> WorkPiece:
        """Report progress until the file is there, and for a while after."""
        left = STEPS_LEFT
        deadline = time.monotonic() + DEADLINE_S
        while left and time.monotonic() < deadline:
            self.progress(STEPS_LEFT - left, STEPS_LEFT)
            time.sleep(STEP_S)
            left -= work["gate"].exists()
        return self.answer(work)

    def look(self, work: WorkPiece) -> WorkPiece:
        """Go on until the file is there, or return what there is if asked to stop."""
        deadline = time.monotonic() + DEADLINE_S
        while not work["gate"].exists() and time.monotonic() < deadline:
            if self.interrupted:
                return WorkPiece(n=work["n"], is_whole=False)
            time.sleep(STEP_S)
        return self.answer(work)

    def swallow(self, work: WorkPiece) -> WorkPiece:
        """Report progress, and keep all exceptions to itself."""
        try:
            return self.report(work)
        except BaseException as error:
            raise ValueError("something went wrong") from error

    def fork(self, work: WorkPiece) -> WorkPiece:
        """Have a child report progress, and wait for it."""
        pid = os.fork()
        if pid == 0:
            for step in range(STEPS_LEFT):
                self.progress(step, STEPS_LEFT)
                time.sleep(STEP_S)
            os._exit(0)
        os.waitpid(pid, 0)
        return self.answer(work)

    def set_alarm(self, work: WorkPiece) -> WorkPiece:
        """Have a handler of its own, that raises, while it reports progress."""
        before = signal.signal(signal.SIGALRM, _raise)
        caught = 0
        try:
            while caught < STEPS_LEFT:
                try:
                    signal.setitimer(signal.ITIMER_REAL, STEP_S)
                    while True:
                        self.progress(caught, STEPS_LEFT)
                except Alarm:
                    caught += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return self.answer(work)

    def kill_once(self, work: WorkPiece) -> WorkPiece:
        """End the process in the first run."""
        if runs(work["log"])[work["n"]] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.answer(work)


class PairWorker(PatientWorker):
    """The same; of these there are two."""
