"""Runs the simulation of many seeds on all cores: ``make soak SEEDS=1000000``."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from types import FrameType

from sim_runs import SeedFailed, Totals, run_seeds

CHUNK = 10
"""Seeds that a process runs before it says so."""
STOPPING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""What a shell calls a program that Ctrl-C ended."""


def main() -> int:
    """Run the seeds that the command line names; returns 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="how many processes run them"
    )
    wanted = parser.parse_args()
    end = wanted.first + wanted.seeds
    chunks = [
        range(first, min(first + CHUNK, end))
        for first in range(wanted.first, end, CHUNK)
    ]
    totals, began_at = Totals(), time.monotonic()
    for number in STOPPING:
        signal.signal(number, _stop)
    context = multiprocessing.get_context("spawn")
    with context.Pool(wanted.jobs, _leave_interrupts_to_parent) as pool:
        try:
            for done in pool.imap_unordered(_run, chunks):
                if isinstance(done, str):
                    print(f"\n{done}")
                    return 1
                totals.add(done)
                _show(totals, wanted.seeds, time.monotonic() - began_at)
        except KeyboardInterrupt:
            print("\nstopped")
            return INTERRUPTED
    print(f"\nall {totals.seeds} seeds from {wanted.first} passed")
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """End once, in good order: else the processes of the pool would be left behind."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(seeds: range) -> Totals | str:
    """Return what was run, or what is to be said about the seed that failed."""
    try:
        return run_seeds(seeds)
    except SeedFailed as failure:
        return str(failure)


def _show(totals: Totals, wanted: int, elapsed_s: float) -> None:
    """Write how far it is, over what was written before on a terminal."""
    line = (
        f"{totals.seeds} of {wanted} seeds, {totals.simulated_s / 3600.0:.1f} "
        f"simulated hours, in {elapsed_s:.0f} s"
    )
    print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
