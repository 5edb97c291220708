"""Where a piece should run: near its data, unless those are too busy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.locality import (
    FAR_BYTES_PER_S,
    FETCH_S,
    MAX_WAIT_S,
    NEAR_BYTES_PER_S,
    Candidate,
    Choice,
    Need,
    choose,
    transfer_s,
)


def need(nbytes: int, *workers: str, host: str = "one") -> Need:
    return Need(nbytes, frozenset(workers), frozenset([host]))


def idle(worker: str, host: str = "one") -> Candidate:
    return Candidate(worker, host, 0.0, True)


def busy(worker: str, wait_s: float, host: str = "one") -> Candidate:
    return Candidate(worker, host, wait_s, False)


MEGABYTE = 10**6


def test_values_that_are_there_take_no_time() -> None:
    needs = [need(100 * MEGABYTE, "a"), need(10 * MEGABYTE, "b")]
    assert transfer_s(needs, "a", "one") == FETCH_S + 10 * MEGABYTE / NEAR_BYTES_PER_S
    far_s = 2 * FETCH_S + 110 * MEGABYTE / FAR_BYTES_PER_S
    assert transfer_s(needs, "c", "two") == pytest.approx(far_s)
    assert transfer_s([], "c", "two") == 0.0


def test_who_has_most_of_the_data_is_best() -> None:
    needs = [need(100 * MEGABYTE, "a"), need(10 * MEGABYTE, "b")]
    chosen = choose(needs, [idle("c"), idle("b"), idle("a")])
    others_s = FETCH_S + 100 * MEGABYTE / NEAR_BYTES_PER_S
    assert chosen == Choice("a", True, others_s)


def test_the_same_computer_is_better_than_another() -> None:
    needs = [need(100 * MEGABYTE, "a")]
    chosen = choose(needs, [idle("c", "two"), idle("b")])
    assert chosen == Choice("b", True, 1 + FETCH_S)


def test_a_busy_holder_is_not_waited_for_when_the_data_come_sooner() -> None:
    needs = [need(100 * MEGABYTE, "a")]
    chosen = choose(needs, [busy("a", 5.0), idle("b", "two")])
    assert chosen == Choice("b", True, 5.0)


def test_a_holder_that_is_free_soon_is_waited_for() -> None:
    needs = [need(100 * MEGABYTE, "a")]
    other_s = FETCH_S + 1.0
    chosen = choose(needs, [busy("a", 0.5), idle("b", "two")])
    assert chosen == Choice("a", False, other_s)
    assert choose(needs, [busy("a", 0.5)]) == Choice("a", False, MAX_WAIT_S)


def test_without_data_the_least_busy_is_best() -> None:
    assert choose([], [busy("a", 0.5), idle("b"), idle("c")]) == Choice("b", True, 0)
    assert choose([], []) is None


names = st.sampled_from("abcd")
hosts = st.sampled_from(["one", "two"])
all_needs = st.lists(
    st.builds(Need, st.integers(0, 10**9), st.frozensets(names), st.frozensets(hosts))
)
candidates = st.lists(
    st.builds(Candidate, names, hosts, st.floats(0, 10), st.booleans()), min_size=1
)


@given(all_needs, candidates)
def test_nothing_begins_sooner_elsewhere(
    needs: list[Need], among: list[Candidate]
) -> None:
    def cost_s(candidate: Candidate) -> float:
        here_s = transfer_s(needs, candidate.worker, candidate.host)
        return candidate.wait_s + here_s

    chosen = choose(needs, among)
    assert chosen is not None
    best = min(map(cost_s, among))
    assert best in [cost_s(c) for c in among if c.worker == chosen.worker]
    others = sorted(map(cost_s, among))[1:]
    assert chosen.wait_s == min([*others, MAX_WAIT_S])
