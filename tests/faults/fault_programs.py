"""Managers as programs of their own, to be interrupted, killed and measured."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from fault_tools import fault, peak_bytes
from fault_workers import data

from opencluster import Manager, ManagerPool, WorkPiece


class SlowManager(Manager):
    """Has pieces performed that take for ever."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        pieces = (fault("sleep", s=600, n=n, runs=task["runs"]) for n in range(50))
        return WorkPiece(results=list(self.map("Fault", pieces)))


def run_map(runs: str) -> None:
    """Run one task in the main thread."""
    SlowManager("cluster").run(WorkPiece(runs=runs))


def run_perform(runs: str) -> None:
    """Wait for one piece at one worker."""
    handle = Manager("cluster").get_available_workers("Fault")[0]
    handle.perform(fault("sleep", s=600, n=0, runs=runs))


def run_pool(runs: str) -> None:
    """Run tasks in the threads of a pool."""
    with ManagerPool(2) as pool:
        tasks = [pool.submit(SlowManager("cluster"), WorkPiece(runs=runs))]
        tasks[0].result()


def run_large(count: str) -> None:
    """Send many large pieces to a slow worker; print the sums and the memory used."""
    numbers = range(int(count))
    base = peak_bytes_of_this()
    pieces = (fault("checksum", n=n, data=data(n)) for n in numbers)
    results = Manager("cluster").map("Fault", pieces)
    is_right = [
        (result["n"], result["sum"]) == (n, int(data(n).sum()))
        for n, result in zip(numbers, results, strict=True)
    ]
    grown = peak_bytes_of_this() - base
    print(json.dumps({"is_right": all(is_right), "grown_bytes": grown}))


def run_large_results(count: str) -> None:
    """Ask for many large results and take them slowly; print the memory used."""
    base = peak_bytes_of_this()
    pieces = (fault("megabyte", n=n) for n in range(int(count)))
    is_right = []
    for n, result in enumerate(Manager("cluster").map("Fault", pieces)):
        is_right.append(zlib.crc32(result["data"]) == zlib.crc32(data(n)))
    grown = peak_bytes_of_this() - base
    print(json.dumps({"is_right": all(is_right), "grown_bytes": grown}))


def run_endless(count: str) -> None:
    """Leave a map over an endless iterable; print how many pieces were read."""
    read: list[int] = []

    def pieces() -> Iterator[WorkPiece]:
        for n in itertools.count():
            read.append(n)
            yield fault("ok", n=n)

    manager = Manager("cluster")
    for n, result in enumerate(manager.map("Fault", pieces())):
        assert result["n"] == n
        if n == int(count):
            break
    print(json.dumps({"read": len(read), "last": n}))


def peak_bytes_of_this() -> int:
    """Return the largest resident size that this process had."""
    return peak_bytes(int(Path("/proc/self").resolve().name))


if __name__ == "__main__":
    # a shell that starts something in the background has it ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    globals()[f"run_{sys.argv[1]}"](*sys.argv[2:])
