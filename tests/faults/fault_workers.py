"""Workers and services that misbehave as their pieces say."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from opencluster import Service, Worker, WorkPiece, remote

HOARD: list[bytearray] = []
"""Memory that a worker never gives back."""


class FaultWorker(Worker):
    """Runs its method ``do_NAME`` for a piece with ``do=NAME``.

    Each run is noted as a line ``n pid`` in the file ``runs`` if the piece names one.
    """

    def perform(self, work: WorkPiece) -> Any:
        self.runs = note_run(work)
        return getattr(self, f"do_{work['do']}")(work)

    def do_ok(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(n=work.get("n"), pid=os.getpid())

    def do_sleep(self, work: WorkPiece) -> WorkPiece:
        time.sleep(work["s"])
        return self.do_ok(work)

    def do_sleep_first(self, work: WorkPiece) -> WorkPiece:
        """Sleep in the first run of the piece only."""
        time.sleep(work["s"] if self.runs == 1 else 0.0)
        return self.do_ok(work)

    def do_swallow_first(self, work: WorkPiece) -> WorkPiece:
        """In the first run of the piece, sleep whatever is raised."""
        return self.do_swallow(work) if self.runs == 1 else self.do_ok(work)

    # --- exceptions and results ----------------------------------------------

    def do_raise(self, work: WorkPiece) -> WorkPiece:
        raise ValueError("the sky is falling")

    def do_raise_at_first(self, work: WorkPiece) -> WorkPiece:
        if self.runs <= work["times"]:
            raise ConnectionError(f"run {self.runs}")
        return self.do_ok(work)

    def do_return(self, work: WorkPiece) -> Any:
        return work["value"]

    def do_return_unsendable(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(image={"bad": [1, object()]})

    def do_print(self, work: WorkPiece) -> WorkPiece:
        line = "x" * 99 + "\n"
        for _ in range(work["megabytes"]):
            sys.stdout.write(line * 10_000)
        return self.do_ok(work)

    # --- processes -----------------------------------------------------------

    def do_fork(self, work: WorkPiece) -> WorkPiece:
        """Fork; the child ends as the piece says, the parent tells how."""
        child = os.fork()
        if child == 0:
            if work["child"] == "exits":
                sys.exit(7)
            if work["child"] == "raises":
                raise ValueError("in the child")
            return WorkPiece(pid=os.getpid(), is_child=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return WorkPiece(pid=os.getpid(), child_status=status)

    def do_pool(self, work: WorkPiece) -> WorkPiece:
        """Use a pool of forked processes, which ends them with SIGTERM."""
        fork = multiprocessing.get_context("fork")
        with fork.Pool(2) as pool:
            squares = pool.map(_square, range(10))
        sleeping = fork.Process(target=time.sleep, args=(600,))
        sleeping.start()
        sleeping.terminate()
        sleeping.join(work["wait_s"])
        result = WorkPiece(squares=squares, exit_code=sleeping.exitcode)
        sleeping.kill()
        return result

    def do_daemon(self, work: WorkPiece) -> WorkPiece:
        """Leave a process behind that is in a session of its own."""
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        daemon = subprocess.Popen(
            command,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        Path(work["note"]).write_text(str(daemon.pid))
        return self.do_ok(work)

    def do_sys_exit(self, work: WorkPiece) -> WorkPiece:
        sys.exit("no more")

    def do_exit(self, work: WorkPiece) -> WorkPiece:
        print("about to leave", flush=True)
        os._exit(3)

    def do_segfault(self, work: WorkPiece) -> WorkPiece:
        print("about to read address 0", flush=True)
        faulthandler.enable()
        ctypes.string_at(0)
        return self.do_ok(work)

    # --- services ------------------------------------------------------------

    def do_call_service(self, work: WorkPiece) -> WorkPiece:
        service = self.service("fault")
        if work["value"] is None:
            service.divide(1.0, 0.0)
        value = service.echo(work["value"])
        return WorkPiece(value=value, service=service.pid(), pid=os.getpid())

    # --- memory --------------------------------------------------------------

    def do_hoard(self, work: WorkPiece) -> WorkPiece:
        """Take memory, touch it and keep it."""
        for _ in range(work["megabytes"]):
            HOARD.append(bytearray(b"x" * 1_000_000))
        return self.do_ok(work)

    def do_checksum(self, work: WorkPiece) -> WorkPiece:
        time.sleep(0.002)
        return WorkPiece(n=work["n"], sum=int(work["data"].sum()))

    def do_megabyte(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(n=work["n"], data=data(work["n"]))

    # --- time ----------------------------------------------------------------

    def do_swallow(self, work: WorkPiece) -> WorkPiece:
        """Sleep whatever is raised."""
        until = time.monotonic() + work["s"]
        while time.monotonic() < until:
            try:
                time.sleep(0.05)
            except BaseException:
                continue
        return self.do_ok(work)

    def do_hold_gil(self, work: WorkPiece) -> WorkPiece:
        hold_gil(work["s"])
        return self.do_ok(work)

    def do_progress(self, work: WorkPiece) -> WorkPiece:
        """Report progress for long, and note where it was stopped."""
        for step in range(100_000):
            try:
                self.progress(step, 100_000)
            except BaseException as error:
                Path(work["stopped"]).write_text(_innermost(error))
                raise
            time.sleep(0.005)
        return self.do_ok(work)

    def do_wait_for(self, work: WorkPiece) -> WorkPiece:
        """Say that it runs, and wait until there is a file."""
        self.progress(0, 1)
        while not Path(work["path"]).exists():
            time.sleep(0.01)
        return self.do_ok(work)

    def do_cooperate(self, work: WorkPiece) -> WorkPiece:
        """Return what there is as soon as somebody wants the worker to stop."""
        until = time.monotonic() + work["s"]
        while not self.interrupted and time.monotonic() < until:
            time.sleep(0.005)
        return WorkPiece(was_interrupted=self.interrupted, pid=os.getpid())


class OtherWorker(FaultWorker):
    """The same, under another type."""


class WithArgumentsWorker(Worker):
    """Tells about its process."""

    def __init__(self, pixels: int = 0, label: str = "") -> None:
        self.pixels = pixels
        self.label = label

    def perform(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(
            pixels=self.pixels,
            label=self.label,
            directory=str(Path.cwd()),
            environment={name: os.environ.get(name) for name in work["names"]},
            cpus=sorted(os.sched_getaffinity(0)),
        )


class UnbornWorker(Worker):
    """Cannot be made."""

    def __init__(self) -> None:
        print("looking for the calibration table", flush=True)
        raise FileNotFoundError("calibration.tbl is missing")


class UnreadyWorker(Worker):
    """Cannot prepare its process."""

    def startup(self) -> None:
        raise RuntimeError("no GPU to warm up")


class OnceUnbornWorker(FaultWorker):
    """Cannot be made until a file is there."""

    def __init__(self, needs: str) -> None:
        if not Path(needs).exists():
            raise FileNotFoundError(needs)


class BornInVainService(Service):
    """Cannot prepare its process."""

    def startup(self) -> None:
        raise RuntimeError("the table of planets is empty")


class FaultService(Service):
    """A service whose methods misbehave as they are named."""

    concurrency = 4

    @remote
    def echo(self, value: Any, twice: bool = False) -> Any:
        return [value, value] if twice else value

    @remote
    def pid(self) -> int:
        return os.getpid()

    @remote
    def meet(self, directory: str, number: int, of: int) -> int:
        """Return when this many calls have met here at the same time."""
        (Path(directory) / str(number)).touch()
        until = time.monotonic() + 20
        while (here := len(list(Path(directory).iterdir()))) < of:
            if time.monotonic() > until:
                raise TimeoutError(f"only {here} of {of} came")
            time.sleep(0.005)
        return here

    @remote
    def overlap(self, directory: str) -> int:
        """Return how many calls of this are under way."""
        with tempfile.NamedTemporaryFile(dir=directory):
            time.sleep(0.05)
            return len(list(Path(directory).iterdir()))

    @remote
    def divide(self, a: float, b: float) -> float:
        return a / b

    @remote
    def unsendable(self) -> Any:
        return object()

    @remote
    def die(self, runs: str) -> None:
        note_run(WorkPiece(runs=runs, n=0))
        os._exit(5)

    @remote
    def leave(self) -> None:
        sys.exit("not a good idea")

    def hidden(self) -> int:
        """Not marked as remote."""
        return 1


def note_run(work: WorkPiece) -> int:
    """Note a run of the piece, and return how many there were, this one included."""
    if "runs" not in work:
        return 0
    path = Path(work["runs"])
    with path.open("ab") as file:
        file.write(f"{work.get('n')} {os.getpid()}\n".encode())
    names = [line.split()[0] for line in path.read_text().splitlines()]
    return names.count(str(work.get("n")))


def hold_gil(seconds: float) -> None:
    """Sleep in C without giving the interpreter to any other thread."""
    # a signal would end the sleep, as it would not end a computation
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # functions of a PyDLL are called with the lock held
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def data(n: int) -> np.ndarray:
    """Return one megabyte that depends on a number."""
    return np.full(125_000, n, dtype=np.int64)


def _square(n: int) -> int:
    return n * n


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    name = ""
    while trace is not None:
        name, trace = trace.tb_frame.f_code.co_name, trace.tb_next
    return name
