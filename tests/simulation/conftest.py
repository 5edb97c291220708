"""The option that replays one seed."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        help="run the simulation of this seed alone, and print what happens in it",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """With a seed, run its replay and nothing else; without, all but that."""
    is_replay = config.getoption("--seed", default=None) is not None
    unwanted = [i for i in items if (i.name == "test_replay") != is_replay]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
