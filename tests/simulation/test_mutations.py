"""The simulation finds mistakes: each of these, put into the code, breaks a promise.

And it is the mistake that breaks it: without, the same worlds keep their promises.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace

import pytest
from sim_mutations import MUTATIONS, Mutation, applied, code_of, search
from sim_setup import draw
from sim_world import World, run_world

SEEDS = 600
"""In so many worlds a mistake must show; most do in the first ten."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_is_found_and_is_the_cause(mutation: Mutation) -> None:
    seed, rule = search(mutation, SEEDS)
    print(f"{mutation.name}: {rule}, with seed {seed}")
    # in the same world, without the mistake, all promises are kept
    run_world(World(draw(seed, mutation.focus)))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_is_in_the_code_as_long_as_it_should(mutation: Mutation) -> None:
    module = importlib.import_module(f"opencluster.core.{mutation.module}")
    text = inspect.getsource(module)

    def state() -> list[object]:
        codes = [function.__code__ for _, function in code_of(module)]
        return [*codes, *(v for v in vars(module).values() if isinstance(v, float))]

    right = state()
    with applied(mutation):
        assert state() != right
    assert state() == right
    assert inspect.getsource(module) == text


def test_a_mistake_in_what_is_not_there_any_more_is_told() -> None:
    gone = replace(MUTATIONS[0], right="no such line")
    with pytest.raises(AssertionError, match="is not there once"), applied(gone):
        pass
    idle = replace(MUTATIONS[0], wrong=MUTATIONS[0].right)
    with pytest.raises(AssertionError, match="nothing changed"), applied(idle):
        pass
