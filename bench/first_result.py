"""A manager in a process of its own: it has one piece performed, says so, and waits.

It ends when its standard input does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.machine import ROOT
from bench.workers import TYPE
from opencluster import Manager, WorkPiece


@contextmanager
def first_result() -> Iterator[int]:
    """Start such a manager, and yield its process number when the result is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.first_result"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        if process.stdout.readline() != "1\n":
            raise RuntimeError("the manager came to no result; see what it printed")
        yield process.pid


if __name__ == "__main__":
    result = Manager().submit(TYPE, WorkPiece(number=1)).result()
    print(result["number"], flush=True)
    sys.stdin.read()
