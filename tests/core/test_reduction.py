"""Trees in which many values become one: their shape, and when they begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.reduction import Join, Reduction


def expected(leaves: list[str], arity: int) -> str:
    """Return the tree of some leaves, written with brackets."""
    while len(leaves) > 1:
        groups = [leaves[n : n + arity] for n in range(0, len(leaves), arity)]
        leaves = [g[0] if len(g) == 1 else f"({' '.join(g)})" for g in groups]
    return leaves[0]


def made(join: Join[str]) -> str:
    assert len(join.inputs) > 1
    return f"({' '.join(join.inputs)})"


def test_neighbours_are_joined_as_soon_as_they_are_there() -> None:
    tree: Reduction[str] = Reduction(2)
    assert tree.came(1, "b") == []
    assert tree.came(0, "a") == [Join((1, 0), ("a", "b"))]
    assert tree.came(3, "d") == []
    assert tree.joined((1, 0), "(a b)") == []
    assert tree.came(2, "c") == [Join((1, 1), ("c", "d"))]
    assert tree.joined((1, 1), "(c d)") == [Join((2, 0), ("(a b)", "(c d)"))]
    assert tree.ended(4) == []
    assert not tree.is_over
    assert tree.joined((2, 0), "((a b) (c d))") == []
    assert tree.is_over
    assert tree.result == "((a b) (c d))"


def test_what_is_left_over_goes_up_as_it_is() -> None:
    tree: Reduction[str] = Reduction(4)
    for number, leaf in enumerate("abcde"):
        tree.came(number, leaf)
    tree.joined((1, 0), "(a b c d)")
    assert tree.ended(5) == [Join((2, 0), ("(a b c d)", "e"))]


def test_one_value_is_its_own_reduction() -> None:
    tree: Reduction[str] = Reduction()
    assert tree.ended(1) == []
    assert not tree.is_over
    assert tree.came(0, "a") == []
    assert tree.result == "a"
    other: Reduction[str] = Reduction()
    other.came(0, "a")
    other.ended(1)
    assert other.is_over


def test_nothing_cannot_be_reduced() -> None:
    with pytest.raises(ValueError, match="nothing to reduce"):
        Reduction[str]().ended(0)


@pytest.mark.parametrize("arity", [1, 0, -2])
def test_a_tree_joins_several(arity: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Reduction[str](arity)


@given(st.integers(1, 40), st.integers(2, 5), st.randoms())
def test_the_shape_does_not_depend_on_what_comes_first(
    count: int, arity: int, random: object
) -> None:
    assert hasattr(random, "shuffle")
    tree: Reduction[str] = Reduction(arity)
    leaves = [str(number) for number in range(count)]
    events: list[int | str | Join[str]] = [*range(count), "end"]
    joins = 0
    while events:
        random.shuffle(events)
        event = events.pop()
        assert not tree.is_over
        if isinstance(event, int):
            new = tree.came(event, leaves[event])
        elif isinstance(event, str):
            new = tree.ended(count)
        else:
            new = tree.joined(event.place, made(event))
        joins += len(new)
        assert all(2 <= len(join.inputs) <= arity for join in new)
        events += new
    assert tree.is_over
    assert tree.result == expected(leaves, arity)
    assert joins == tree.result.count("(")
