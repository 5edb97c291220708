"""A peer as the process that compares sees it: a driver of its own, and its orders.

Every wait has a limit. Whatever goes wrong becomes a `PeerFailed` with what the peer
printed last, and leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import processes
from bench.driver import ADDRESS_VARIABLE
from bench.load import Load, LoadMeter
from bench.machine import ROOT
from bench.peers.catalogue import Listing
from bench.points import Point

START_TIMEOUT_S = 60.0
START_TIMEOUT_PER_WORKER_S = 1.0
CLOSE_TIMEOUT_S = 30.0
SLICE_TIMEOUT_S = 60.0
"""For a slice, which finds out first how much fits into its budget,"""
SLICE_TIMEOUT_PER_S = 20.0
"""and for each second of the budget."""
EXIT_TIMEOUT_S = 10.0
LOOK_S = 0.1
"""How often it is looked whether a driver that is awaited lives."""
LAST_LINES = 12


class PeerFailed(Exception):
    """A peer could not do what was asked of it."""


class PeerHung(PeerFailed):
    """A peer did not answer in time, and was ended."""


class Contestant:
    """One peer, for as long as its processes live.

    Parameters
    ----------
    listing : Listing
        Which one.
    workers : int
        How many it will have.
    is_packed : bool
        Whether they share few processes.
    """

    def __init__(self, listing: Listing, workers: int, is_packed: bool = False) -> None:
        self.listing = listing
        self._workers = workers
        self._is_packed = is_packed
        self._mark = uuid.uuid4().hex
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._log = Path(self._folder.name) / "output.log"
        self._orders: Connection | None = None
        self._is_answer_due = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start the driver and the peer.

        Returns
        -------
        float
            Seconds until the first result was there, those of the driver's start too.

        Raises
        ------
        PeerFailed
            When it came to none.
        """
        limit_s = START_TIMEOUT_S + START_TIMEOUT_PER_WORKER_S * self._workers
        started = time.monotonic()
        address = str(Path(self._folder.name) / "orders")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            self._spawn(address)
            self._orders = self._accept(listener, started + limit_s)
        try:
            self._order(limit_s, "start", self._workers, self._is_packed)
        except PeerFailed as error:
            if not self.is_alive:
                raise
            # the reason stands in what it printed
            raise self._gone(type(error), str(error)) from None
        return time.monotonic() - started

    @property
    def is_alive(self) -> bool:
        """Whether it takes orders."""
        return self._orders is not None

    def memory_mib(self) -> float:
        """Return the private memory of a worker, the largest of them."""
        pids = self._order(CLOSE_TIMEOUT_S, "worker_pids")
        return max(map(processes.private_mib, pids), default=0.0)

    def run(self, workload: str, budget_s: float) -> tuple[list[Point], Load]:
        """Measure one slice of a workload, and what else went on meanwhile."""
        limit_s = SLICE_TIMEOUT_S + SLICE_TIMEOUT_PER_S * budget_s
        meter = LoadMeter(self._mark)
        points = self._order(limit_s, "run", workload, budget_s)
        return points, meter.read()

    def close(self) -> str:
        """End everything, and return what was not in order about it, if anything."""
        complaint = ""
        if self.is_alive:
            try:
                if self._is_answer_due:
                    # somebody lost patience, who wants all to end
                    self._answer(CLOSE_TIMEOUT_S, "the last order")
                self._order(CLOSE_TIMEOUT_S, "close")
            except PeerFailed as error:
                complaint = f"did not end in order: {error}"
        left = self._end(EXIT_TIMEOUT_S if not complaint else 0.0)
        self._folder.cleanup()
        if left and not complaint:
            complaint = f"left {left} of its processes behind, which had to be ended"
        return complaint

    # --- inside --------------------------------------------------------------

    def _spawn(self, address: str) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        ours = {
            processes.MARK_VARIABLE: self._mark,
            ADDRESS_VARIABLE: address,
            "PYTHONPATH": path.rstrip(os.pathsep),
        }
        command = self.listing.load().command(self.listing.home, self._workers)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | ours,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # so that Ctrl-C reaches this process alone, which then ends them
                start_new_session=True,
            )

    def _accept(self, listener: socket.socket, deadline: float) -> Connection:
        """Wait for the driver, which may end instead."""
        assert self._process is not None
        listener.settimeout(LOOK_S)
        while True:
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                if self._process.poll() is not None:
                    raise self._gone(PeerFailed, "its driver ended") from None
                if time.monotonic() > deadline:
                    raise self._gone(PeerHung, "its driver did not start") from None
            else:
                accepted.setblocking(True)
                return Connection(accepted.detach())

    def _order(self, limit_s: float, what: str, *arguments: Any) -> Any:
        if self._orders is None:
            raise PeerFailed("it has ended")
        try:
            self._orders.send((what, *arguments))
        except OSError:
            raise self._gone(PeerFailed, f"its driver ended before {what}") from None
        self._is_answer_due = True
        return self._answer(limit_s, what)

    def _answer(self, limit_s: float, what: str) -> Any:
        assert self._orders is not None
        try:
            if not self._orders.poll(limit_s):
                raise self._gone(PeerHung, f"{what} took more than {limit_s:.0f} s")
            is_done, value = self._orders.recv()
        except (EOFError, OSError):
            raise self._gone(PeerFailed, f"its driver ended during {what}") from None
        self._is_answer_due = False
        if not is_done:
            raise PeerFailed(value)
        return value

    def _gone(self, kind: type[PeerFailed], text: str) -> PeerFailed:
        """End what is left; return the error, with what the peer printed last."""
        self._end(patience_s=0.0)
        lines = self._log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return kind("\n    ".join([text, *lines]))

    def _end(self, patience_s: float) -> int:
        """Let every process end; return how many had to be told to."""
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        count = 0
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
            limit_s = processes.END_TIMEOUT_S if patience_s else 0.0
            count = processes.end(self._mark, limit_s)
            self._process.wait()
        return count
