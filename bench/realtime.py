"""How long real-time pieces wait while workers are full of batch pieces.

One manager keeps two workers full of batch pieces that compute all the time and report
progress. Another one, in this process, has single trivial pieces performed that are
real-time pieces, at random moments.
"""

from __future__ import annotations

import json
import random
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import Figure, percentile
from bench.machine import ROOT
from bench.workers import TARGET, TYPE
from opencluster import Manager, WorkPiece
from opencluster.testing import LocalCluster

WORKERS = 2
LENGTHS_S = (0.05, 0.2, 1.0)
"""How long batch pieces take."""
SAMPLES = {0.0: 100, 0.05: 100, 0.2: 100, 1.0: 40}
"""Real-time pieces of a run, by the length of batch pieces, 0 for none."""
STEP_S = 0.002
"""Time between two moments at which a batch piece reports progress."""
DEADLINE_S = 0.02
"""How long a real-time piece may wait before a batch piece is cut short."""
SHORTEST_GAP_S = 0.1
"""Most between a result and the next real-time piece, or as long as a batch piece if
that takes longer: or they would be cut short more often than they stand for."""


def measure(is_quick: bool) -> list[Figure]:
    """Measure with all lengths of batch pieces, and without any, in turn."""
    runs = 1 if is_quick else 3
    samples_of = dict.fromkeys((0.0, *LENGTHS_S), 10) if is_quick else SAMPLES
    taken: dict[float, list[list[float]]] = {}
    cuts: dict[float, list[float]] = {}
    with LocalCluster({TARGET: WORKERS}):
        manager = Manager()
        while len(manager.get_available_workers(TYPE)) < WORKERS:
            time.sleep(0.05)
        for _ in range(runs):
            alone = _latencies_ms(manager, samples_of[0.0], 0.0)
            taken.setdefault(0.0, []).append(alone)
            for length_s in LENGTHS_S:
                samples = samples_of[length_s]
                with batch_load(length_s) as load:
                    times = _latencies_ms(manager, samples, length_s)
                taken.setdefault(length_s, []).append(times)
                cuts.setdefault(length_s, []).append(load["pieces_cut"] / samples)
    return list(figures_of(taken, cuts))


def _latencies_ms(manager: Manager, samples: int, length_s: float) -> list[float]:
    """Return how long single real-time pieces took, there and back, in milliseconds."""
    gap_s = max(SHORTEST_GAP_S, length_s)
    chance = random.Random(samples)
    times = []
    for number in range(samples):
        time.sleep(chance.uniform(0.0, gap_s))
        started = time.perf_counter()
        future = manager.submit(TYPE, WorkPiece(number=number), deadline_s=DEADLINE_S)
        assert future.result()["number"] == number
        times.append((time.perf_counter() - started) * 1e3)
    return times


def figures_of(
    taken: dict[float, list[list[float]]], cuts: dict[float, list[float]]
) -> Iterator[Figure]:
    """Yield what is shown.

    Parameters
    ----------
    taken : dict of float to list of list of float
        By the length of batch pieces, 0 for none: the latencies of each run, in
        milliseconds.
    cuts : dict of float to list of float
        By the same: how many batch pieces were cut short for each real-time piece.
    """
    alone = statistics.median(percentile(run, 99) for run in taken[0.0])
    for length_s, runs in taken.items():
        load = f"batch pieces of {length_s:g} s" if length_s else "no batch load"
        tails = [percentile(run, 99) for run in runs]
        medians = [statistics.median(run) for run in runs]
        yield Figure("realtime", f"{load}: median", "ms", medians)
        yield Figure("realtime", f"{load}: p99", "ms", tails)
        if length_s:
            growth = [(tail - alone) / (length_s * 1e3) for tail in tails]
            text = f"{load}: growth of p99, in lengths of a batch piece"
            yield Figure("realtime", text, "", growth)
            text = f"{load}: cut short for each real-time piece"
            yield Figure("realtime", text, "", cuts[length_s])


@contextmanager
def batch_load(length_s: float) -> Iterator[dict[str, int]]:
    """Keep all workers full from another process.

    Parameters
    ----------
    length_s : float
        How long each batch piece takes, in seconds.

    Yields
    ------
    dict
        Gets the statistics of the load when it is over.
    """
    statistics_of_load: dict[str, int] = {}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.realtime", str(length_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        if process.stdout.readline() != "begun\n":
            raise RuntimeError("the batch load did not begin; see what it printed")
        yield statistics_of_load
        told, _ = process.communicate()
        statistics_of_load.update(json.loads(told))


def _load(length_s: float) -> None:
    """Have batch pieces performed until standard input ends, and tell what came."""
    manager = Manager()

    def pieces() -> Iterator[WorkPiece]:
        number = 0
        while True:
            yield WorkPiece(number=number, busy_s=length_s, step_s=STEP_S)
            number += 1

    results = manager.map(TYPE, pieces(), ordered=False, progress=False)
    for done, _ in enumerate(results, start=1):
        if done == WORKERS:
            print("begun", flush=True)
        if select.select([sys.stdin], [], [], 0.0)[0]:
            break
    print(json.dumps(manager._job().statistics.to_fields()))


if __name__ == "__main__":
    _load(float(sys.argv[1]))
