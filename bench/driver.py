"""The process that drives one peer: ``python -m bench.driver HOME``.

HOME is where the peer is, as the catalogue has it. This process plays the user of it.
The process that compares started it, tells it what to do over a unix socket, one order
at a time, and gets an answer to each. It sleeps while another peer has its turn, and
ends with everything that it started when nobody is left to give orders.
"""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Client
from typing import Any

from bench import workloads
from bench.peers import catalogue
from bench.peers.base import Peer
from bench.points import Point
from opencluster.net.descriptors import allow_many

ADDRESS_VARIABLE = "BENCH_DRIVER"
"""Where orders come from."""

DONE, FAILED = True, False
"""What an answer begins with; then comes the value, or the reason."""


class Driver:
    """Does what it is told with one peer.

    Parameters
    ----------
    peer : Peer
        Not yet started.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._known: dict[str, dict[str, int]] = {}
        self._is_started = False

    def start(self, workers: int, is_packed: bool) -> None:
        """Start the peer, and have a first result."""
        self._is_started = True
        if is_packed:
            self._peer.start_packed(workers)
        else:
            self._peer.start(workers)
        with self._peer.awake():
            self._peer.noop()

    def worker_pids(self) -> list[int]:
        """Return the processes of the workers."""
        return self._peer.worker_pids()

    def run(self, name: str, budget_s: float) -> list[Point]:
        """Measure one slice of a workload."""
        workload = workloads.find(name)
        assert workload.run is not None
        known = self._known.setdefault(name, {})
        with self._peer.awake():
            return workload.run(self._peer, budget_s, known)

    def close(self) -> None:
        """End the peer."""
        if self._is_started:
            self._is_started = False
            self._peer.close()


def drive(home: str) -> None:
    """Take orders for a peer until told to close, or until nobody gives any."""
    # of what it starts as well: a thousand workers have as many connections
    allow_many()
    driver = Driver(catalogue.load(home)())
    with Client(os.environ[ADDRESS_VARIABLE], "AF_UNIX") as orders:
        try:
            while True:
                what, *arguments = orders.recv()
                orders.send(_answer(driver, what, arguments))
                if what == "close":
                    return
        except (EOFError, OSError):
            driver.close()


def _answer(driver: Driver, what: str, arguments: list[Any]) -> tuple[bool, Any]:
    """Return whether the order was carried out, and what came of it."""
    try:
        return DONE, getattr(driver, what)(*arguments)
    except Exception as error:
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    drive(sys.argv[1])
