"""Promises to hear nobody else, and the lease that they are for a leader."""

from __future__ import annotations

import math

import pytest

from opencluster.core.epochs import Epoch
from opencluster.core.promises import LEASE_PART, MAX_BEATS, Lease, Promise

TIMEOUT_S = 1.0
STEP_S = 0.2


def passed(promise: Promise, seconds: float) -> None:
    for _ in range(round(seconds / STEP_S)):
        promise.let_pass(STEP_S)


def test_a_promise_is_given_to_one() -> None:
    promise = Promise(TIMEOUT_S, STEP_S)
    assert not promise.is_anothers("a")
    promise.give("a")
    assert promise.is_anothers("b")
    assert not promise.is_anothers("a")


def test_a_promise_ends_with_the_time_out_and_one_step() -> None:
    promise = Promise(TIMEOUT_S, STEP_S)
    promise.give("a")
    passed(promise, TIMEOUT_S)
    assert promise.is_anothers("b")
    passed(promise, STEP_S)
    assert not promise.is_anothers("b")


@pytest.mark.parametrize("jump_s", [-1000.0, 0.0, 1000.0])
def test_a_jump_of_the_clock_ends_no_promise(jump_s: float) -> None:
    promise = Promise(TIMEOUT_S, STEP_S)
    promise.give("a")
    promise.let_pass(jump_s)
    passed(promise, TIMEOUT_S - STEP_S)
    assert promise.is_anothers("b")


def test_a_promise_is_ended_by_its_holder_alone_and_for_its_epoch() -> None:
    promise = Promise(TIMEOUT_S, STEP_S)
    promise.give("a", Epoch(2))
    promise.end("b")
    promise.end("a", Epoch(1))
    assert promise.is_anothers("b")
    promise.end("a", Epoch(2))
    assert not promise.is_anothers("b")
    promise.give("a", Epoch(3))
    promise.end("a")
    assert not promise.is_anothers("b")


def test_a_lease_that_needs_nobody_is_for_ever() -> None:
    lease = Lease(0, TIMEOUT_S)
    assert lease.is_enough
    assert lease.end == math.inf


def test_a_lease_lasts_as_long_as_enough_have_promised() -> None:
    lease = Lease(2, TIMEOUT_S)
    assert lease.end == -math.inf
    lease.granted("b", 1.0)
    assert not lease.is_enough
    assert lease.end == -math.inf
    lease.granted("c", 3.0)
    assert lease.is_enough
    assert lease.end == 1.0 + LEASE_PART * TIMEOUT_S
    lease.granted("d", 2.0)
    assert lease.end == 2.0 + LEASE_PART * TIMEOUT_S
    lease.forget()
    assert not lease.is_enough


def test_an_answer_counts_from_when_the_beat_was_sent() -> None:
    lease = Lease(1, TIMEOUT_S)
    lease.asked(1.0, 1)
    lease.asked(2.0, 2)
    lease.answered("b", 2)
    assert lease.end == 2.0 + LEASE_PART * TIMEOUT_S
    # one that comes late takes nothing back
    lease.answered("b", 1)
    assert lease.end == 2.0 + LEASE_PART * TIMEOUT_S


def test_an_answer_to_an_unknown_beat_promises_nothing() -> None:
    lease = Lease(1, TIMEOUT_S)
    lease.answered("b", 7)
    assert not lease.is_enough
    for sequence in range(2 * MAX_BEATS):
        lease.asked(float(sequence), sequence)
        lease.check_invariants()
    lease.answered("b", 0)
    assert not lease.is_enough
    lease.answered("b", MAX_BEATS)
    assert lease.is_enough
