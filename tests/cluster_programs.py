"""Workers and a service that do what the tests of managers and engines ask for."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from opencluster import Service, Worker, WorkPiece, remote

TARGET = str(Path(__file__).absolute())
DEADLINE_S = 60.0
"""Nothing here waits longer than this for what a test has promised."""


class ToolWorker(Worker):
    """Does what a piece names under ``do``."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        tool: Callable[[WorkPiece], WorkPiece] = getattr(self, work["do"])
        return tool(work)

    def square(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(number=work["number"] ** 2)

    def echo(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(work)

    def who(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(pid=os.getpid())

    def modules(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(modules={name.split(".")[0] for name in sys.modules})

    def spoil(self, work: WorkPiece) -> WorkPiece:
        """Change the piece, which must not change the manager's."""
        work["list"].append(1)
        return WorkPiece(is_writeable=work["array"].flags.writeable)

    def fail(self, work: WorkPiece) -> WorkPiece:
        raise ValueError(f"cannot do {work['number']}")

    def fail_if_odd(self, work: WorkPiece) -> WorkPiece:
        return self.fail(work) if work["number"] % 2 else WorkPiece(work)

    def fail_at_first(self, work: WorkPiece) -> WorkPiece:
        """Raise, until that was done as often as the piece says."""
        with work["log"].open("a+") as log:
            log.seek(0)
            failures = len(log.readlines())
            if failures < work["failures"]:
                log.write("failed\n")
                raise ValueError(f"failure {failures + 1}")
        return WorkPiece(failures=failures)

    def leave(self, work: WorkPiece) -> WorkPiece:
        sys.exit("enough")

    def return_nothing(self, work: WorkPiece) -> None:
        """Forget to return a result."""

    def return_number(self, work: WorkPiece) -> int:
        return 7

    def return_socket(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(parts=[1, threading.Lock()])

    def report_progress(self, work: WorkPiece) -> WorkPiece:
        self.progress(1, 4)
        return WorkPiece()

    def ask(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(sum=self.service("toolbox").add(work["number"], 1))

    def note(self, work: WorkPiece) -> WorkPiece:
        """Write down that this piece was performed now."""
        with work["log"].open("a") as log:
            log.write(f"{work['number']}\n")
        return WorkPiece(work)

    def wait(self, work: WorkPiece) -> WorkPiece:
        """Say so in a file, then wait for another one, or for an interrupt."""
        work["started"].touch()
        _wait_for(work["until"].exists, self.progress)
        return WorkPiece(pid=os.getpid())

    def meet(self, work: WorkPiece) -> WorkPiece:
        """Wait until as many are here at a time as the piece says."""
        (work["folder"] / str(os.getpid())).touch()
        _wait_for(
            lambda: len(list(work["folder"].iterdir())) >= work["workers"],
            self.progress,
        )
        return WorkPiece(pid=os.getpid())

    def linger(self, work: WorkPiece) -> WorkPiece:
        """Look for an interrupt, and return what was done by then."""
        work["started"].touch()
        _wait_for(lambda: self.interrupted)
        return WorkPiece(is_interrupted=self.interrupted)

    def die_at_first(self, work: WorkPiece) -> WorkPiece:
        if not work["died"].exists():
            work["died"].touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return WorkPiece(pid=os.getpid())


class SoloWorker(ToolWorker):
    """The same, under a type of which there is one."""


class BrokenWorker(Worker):
    """Does not start."""

    def startup(self) -> None:
        raise RuntimeError("the camera is unplugged")


class ToolboxService(Service):
    """What may be called from everywhere."""

    def startup(self) -> None:
        self.barrier = threading.Barrier(2)

    @remote
    def add(self, a: int, b: int = 0) -> int:
        return a + b

    @remote
    def fail(self) -> None:
        raise KeyError("no such tool")

    @remote
    def leave(self) -> None:
        sys.exit("closed")

    @remote
    def meet(self) -> int:
        """Return when two callers are here at a time."""
        return self.barrier.wait(DEADLINE_S)

    def secret(self) -> int:
        return 42


def _wait_for(
    condition: Callable[[], bool],
    on_turn: Callable[[float], None] = lambda done: None,
) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        on_turn(0.5)
        if time.monotonic() > deadline:
            raise TimeoutError("what the test promised did not come")
        time.sleep(0.005)
