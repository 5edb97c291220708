"""Managers that do what the tests of the queue ask for."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from opencluster import Manager, Worker, WorkPiece


class SquareWorker(Worker):
    """Squares numbers."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(number=work["number"] ** 2)


class PlainManager(Manager):
    """Does what a task names under ``do``."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        note(task, "begun")
        result = getattr(self, task.get("do", "nothing"))(task)
        note(task, "ended")
        return result

    def nothing(self, task: WorkPiece) -> WorkPiece:
        return WorkPiece(task)

    def squares(self, task: WorkPiece) -> WorkPiece:
        pieces = [WorkPiece(number=n) for n in range(task["count"])]
        total = 0
        for done, result in enumerate(self.map("Square", pieces), 1):
            total += result["number"]
            self.progress(done, len(pieces))
        return WorkPiece(total=total)

    def wait_for(self, task: WorkPiece) -> WorkPiece:
        """Wait until a file is there."""
        print("waiting", flush=True)
        self.progress(float("nan"), 4)
        self.progress(1, 4)
        while not task["file"].exists():
            time.sleep(0.01)
        return WorkPiece(pid=os.getpid())

    def insist(self, task: WorkPiece) -> WorkPiece:
        """Wait for a file, whoever asks to stop."""
        while True:
            try:
                return self.wait_for(task)
            except KeyboardInterrupt:
                print("no, I do not stop", flush=True)

    def hold(self, task: WorkPiece) -> WorkPiece:
        """Let no other thread of this process run for a while."""
        ctypes.PyDLL(None).usleep(int(task["seconds"] * 1e6))
        return WorkPiece()

    def fail(self, task: WorkPiece) -> WorkPiece:
        print("these are my last words", flush=True)
        raise ValueError("there is no data")

    def fail_at_first(self, task: WorkPiece) -> WorkPiece:
        if begun(task["log"]) == 1:
            raise ValueError("not yet")
        return WorkPiece()

    def crash(self, task: WorkPiece) -> WorkPiece:
        print("these are my last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError

    def crash_at_first(self, task: WorkPiece) -> WorkPiece:
        if begun(task["log"]) == 1:
            self.crash(task)
        return WorkPiece()

    def spoil(self, task: WorkPiece) -> WorkPiece:
        """Write into the file in which this process reports."""
        os.write(int(sys.argv[2]), b"\x01")
        return self.wait_for(task)

    def leave(self, task: WorkPiece) -> WorkPiece:
        sys.exit(3)

    def return_nothing(self, task: WorkPiece) -> Any:
        return None

    def return_much(self, task: WorkPiece) -> WorkPiece:
        return WorkPiece(data=bytes(task["size"]))

    def where(self, task: WorkPiece) -> WorkPiece:
        return WorkPiece(
            directory=Path.cwd(), engine=self._engine_name, pieces=self.priority
        )


class OtherManager(PlainManager):
    """Is another one."""


def note(task: WorkPiece, what: str) -> None:
    """Write a line that tells when something happened, if the task says where."""
    if "log" in task:
        line = f"{what} {task.get('number', 0)} {os.getpid()} {time.monotonic()}\n"
        with task["log"].open("a") as log:
            log.write(line)


def begun(log: Path) -> int:
    return sum(line.startswith("begun") for line in log.read_text().splitlines())
