"""How many processes of a type each computer runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.spreading import Computer, spread

NAMES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("wanted", "now", "then"),
    [
        (4, {"a": (0, 1), "b": (0, 1)}, {"a": 2, "b": 2}),
        (3, {"a": (0, 1), "b": (0, 1)}, {"a": 2, "b": 1}),
        # what runs stays
        (4, {"a": (3, 1), "b": (0, 1)}, {"a": 3, "b": 1}),
        (2, {"a": (3, 1), "b": (1, 1)}, {"a": 1, "b": 1}),
        (0, {"a": (3, 1), "b": (1, 1)}, {"a": 0, "b": 0}),
        # by the CPUs
        (10, {"a": (0, 8), "b": (0, 2)}, {"a": 8, "b": 2}),
        # of which a computer may say nonsense
        (2, {"a": (0, -1), "b": (0, 0)}, {"a": 1, "b": 1}),
    ],
)
def test_they_are_spread_by_the_cpus(
    wanted: int, now: dict[str, tuple[int, float]], then: dict[str, int]
) -> None:
    computers = {name: Computer(*each) for name, each in now.items()}
    assert spread(wanted, computers) == then


def test_nothing_runs_nowhere() -> None:
    with pytest.raises(ValueError, match="no computer"):
        spread(1, {})


@given(
    st.integers(0, 60),
    st.dictionaries(
        st.sampled_from(NAMES),
        st.builds(Computer, st.integers(0, 20), st.sampled_from([1, 2, 16, 64])),
        min_size=1,
    ),
)
def test_no_more_changes_than_need_be(
    wanted: int, computers: dict[str, Computer]
) -> None:
    counts = spread(wanted, computers)
    assert sum(counts.values()) == wanted
    assert counts.keys() == computers.keys()
    changes = {name: counts[name] - each.count for name, each in computers.items()}
    assert all(change >= 0 for change in changes.values()) or all(
        change <= 0 for change in changes.values()
    )
    assert min(counts.values()) >= 0
