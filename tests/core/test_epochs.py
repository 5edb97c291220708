"""Of two epochs one is newer, whoever compares them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.epochs import MAX_CLAIM, MAX_NUMBER, NO_EPOCH, Epoch, newest
from opencluster.errors import RegistryError

few = st.builds(Epoch, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (Epoch(2), Epoch(1)),
        (Epoch(2, 6, 0), Epoch(1, 0, 9)),
        (Epoch(1, 0, 0), Epoch(1, 1, 9)),
        (Epoch(1, 1, 8), Epoch(1, 1, 7)),
        (Epoch(1, 6, 0), NO_EPOCH),
    ],
)
def test_number_counts_first_then_earlier_place_then_run(
    newer: Epoch, older: Epoch
) -> None:
    assert newer.is_newer_than(older)
    assert not older.is_newer_than(newer)
    assert newest(newer, older) == newest(older, newer) == newer


@given(few, few)
def test_one_of_two_different_epochs_is_newer(one: Epoch, other: Epoch) -> None:
    assert one.is_newer_than(other) + other.is_newer_than(one) == (one != other)
    assert newest(one, other) == newest(other, one)


@given(st.lists(few, min_size=3, max_size=3, unique=True))
def test_epochs_stand_in_one_order(epochs: list[Epoch]) -> None:
    rising = sorted(epochs, key=lambda e: sum(e.is_newer_than(o) for o in epochs))
    assert all(after.is_newer_than(before) for before, after in pairwise(rising))


@pytest.mark.parametrize("fields", [[7, 2, 99], (7, 2, 99), Epoch(7, 2, 99)])
def test_epoch_travels_as_three_numbers(fields: Any) -> None:
    assert Epoch.from_fields(fields) == Epoch(7, 2, 99)


def test_largest_numbers_are_taken() -> None:
    most = MAX_NUMBER - 1
    assert Epoch.from_fields([most, most, most]) == Epoch(most, most, most)


@pytest.mark.parametrize(
    "fields",
    [
        *(None, 7, "700", b"700", {7, 8, 9}, {"number": 7, "place": 0, "run": 0}),
        *([], [7], [7, 0], [7, 0, 0, 0]),
        *([-1, 0, 0], [0, -1, 0], [0, 0, -1]),
        *([MAX_NUMBER, 0, 0], [0, MAX_NUMBER, 0], [0, 0, MAX_NUMBER]),
        *([True, 0, 0], [7.0, 0, 0], ["7", 0, 0], [None, 0, 0], [[7], 0, 0]),
    ],
)
def test_what_is_no_epoch_is_refused(fields: Any) -> None:
    with pytest.raises(RegistryError, match="list of three numbers"):
        Epoch.from_fields(fields)


def test_claim_is_absurd_beyond_its_bound_only() -> None:
    known = Epoch(5, 3, 9)
    assert not Epoch(5 + MAX_CLAIM, 0, 0).is_absurd_after(known)
    assert Epoch(6 + MAX_CLAIM, 9, 0).is_absurd_after(known)
    assert not NO_EPOCH.is_absurd_after(known)
