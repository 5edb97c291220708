"""A program that looks something up again and again, and when that was interrupted.

The program writes a line for each look-up: the times, on the clock that never goes
back, of its beginning and of its answer, or ``-`` when none came.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from opencluster.config import load
from opencluster.errors import OpenClusterError
from opencluster.net.control import Control
from opencluster.place import Place, factories

PROGRAM = str(Path(__file__).absolute())
PAUSE_S = 0.02


def probe(path: Path) -> None:
    """Look up workers until this process is ended."""
    config = load()
    find = partial(factories, config, Place.find())
    with Control(config, find) as control, path.open("a", buffering=1) as file:
        while True:
            started = time.monotonic()
            try:
                control.factory("find", {"kind": "workshop"})
            except OpenClusterError:
                file.write(f"{started} -\n")
            else:
                file.write(f"{started} {time.monotonic()}\n")
            time.sleep(PAUSE_S)


def answers(path: Path) -> list[float]:
    """Return when each look-up was answered."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [line.split() for line in lines]
    return [float(row[1]) for row in rows if len(row) == 2 and row[1] != "-"]


def failures(path: Path) -> int:
    """Return how many look-ups came to nothing."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(line.endswith(" -") for line in lines)


def interruption_s(path: Path, since: float, until: float = float("inf")) -> float:
    """Return the longest time between two answers, one of them after `since`."""
    times = answers(path)
    gaps = [b - a for a, b in pairwise(times) if b > since and a < until]
    if not gaps:
        raise AssertionError("no look-up was answered in that time")
    return max(gaps)


if __name__ == "__main__":
    probe(Path(sys.argv[1]))
