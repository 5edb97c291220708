"""Runs of many seeds, and what is said about one that fails."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass

from sim_world import World, run_seed

SHOWN_LINES = 60
"""So many lines of a trace are shown of a seed that fails among others."""


class SeedFailed(AssertionError):
    """A seed broke a promise; its text says how to see it again."""


@dataclass
class Totals:
    """What was run so far.

    Attributes
    ----------
    seeds : int
        How many worlds.
    simulated_s : float
        Virtual time that passed in all of them.
    """

    seeds: int = 0
    simulated_s: float = 0.0

    def add(self, other: Totals) -> None:
        """Count another run as well."""
        self.seeds += other.seeds
        self.simulated_s += other.simulated_s


def run_seeds(seeds: Iterable[int]) -> Totals:
    """Run the worlds of some seeds.

    Raises
    ------
    SeedFailed
        With the first one that broke a promise.
    """
    totals = Totals()
    # a world is one large cycle, which is worth looking for when the world is over
    gc.disable()
    try:
        for seed in seeds:
            try:
                world = run_seed(seed)
            except Exception as error:
                raise SeedFailed(describe_failure(seed)) from error
            totals.add(Totals(1, world.loop.now))
            if totals.seeds % 10 == 0:
                gc.collect()
    finally:
        gc.enable()
    return totals


def describe_failure(seed: int) -> str:
    """Run a seed that failed again, and tell what happened before it did."""
    world, error = replay(seed)
    if error is None:
        return f"seed {seed} failed, and did not when it was run again"
    lines = trace_of(world)
    return "\n".join(
        [
            f"seed {seed}: {type(error).__name__}: {error}",
            f"replay it with: pytest tests/simulation --seed {seed}",
            world.setup.describe(),
            f"the last {SHOWN_LINES} of {len(lines)} lines of its trace:",
            *lines[-SHOWN_LINES:],
        ]
    )


def replay(seed: int) -> tuple[World, Exception | None]:
    """Run a seed with a trace, and return what went wrong, if anything did."""
    try:
        return run_seed(seed, is_traced=True), None
    except Exception as error:
        world: World = error.world  # type: ignore[attr-defined]
        return world, error


def trace_of(world: World) -> list[str]:
    """Return what happened in a world that was traced."""
    return [] if world.trace is None else list(world.trace.lines)
