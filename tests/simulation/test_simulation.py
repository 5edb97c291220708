"""Thousands of clusters that live through their faults, each drawn from one seed.

``pytest tests/simulation --seed 1234`` runs one of them and prints what happens
in it; ``make soak SEEDS=1000000`` runs more of them. `SIMULATION_SEEDS`, in the
environment, says how many run here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim_mutations import MUTATIONS, applied
from sim_runs import SeedFailed, replay, run_seeds, trace_of

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "200"))
CHUNK = 100
CHUNKS = [range(first, min(first + CHUNK, SEEDS)) for first in range(0, SEEDS, CHUNK)]
TRACED_SEEDS = range(8)
PRINT_TRACES = """
import sys
from sim_runs import replay, trace_of
for seed in map(int, sys.argv[1:]):
    print(*trace_of(replay(seed)[0]), sep="\\n")
"""


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"from-{seeds.start}")
def test_promises_hold_whatever_happens(seeds: range) -> None:
    totals = run_seeds(seeds)
    assert totals.seeds == len(seeds)
    assert totals.simulated_s > 5.0 * len(seeds)


def test_replay(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    world, error = replay(request.config.getoption("--seed"))
    with capsys.disabled():
        print(f"\n{world.setup.describe()}", *trace_of(world), sep="\n")
    if error is not None:
        raise error


def test_a_seed_is_the_same_world_in_every_process() -> None:
    here = [line for seed in TRACED_SEEDS for line in trace_of(replay(seed)[0])]
    assert len(here) > 1000
    for hash_seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        printed = subprocess.run(
            [sys.executable, "-c", PRINT_TRACES, *map(str, TRACED_SEEDS)],
            env=environment,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout.splitlines() == here


def test_a_seed_that_fails_says_how_to_see_it_again() -> None:
    (mistake,) = (m for m in MUTATIONS if m.name.startswith("a client that knows no"))
    with applied(mistake), pytest.raises(SeedFailed) as failure:
        run_seeds(range(100, 110))
    said = str(failure.value)
    assert "pytest tests/simulation --seed 100\n" in said
    assert "Broken: " in said.splitlines()[0]
    assert "the last 60 of" in said
    assert run_seeds([100]).seeds == 1


def test_one_seed_is_replayed_on_request() -> None:
    here = Path(__file__).parent
    replayed = subprocess.run(
        [sys.executable, "-m", "pytest", str(here), "--seed", "3", "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = replayed.stdout.splitlines()
    assert any(line.startswith("seed 3: ") for line in lines)
    assert set(trace_of(replay(3)[0])) <= set(lines)
    assert "1 passed" in lines[-1]
