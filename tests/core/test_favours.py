"""Pieces that refer to values are left to who has these, as long as that pays."""

from __future__ import annotations

import random

import pytest
from dispatch_tools import left_in
from hypothesis import given
from hypothesis import strategies as st
from test_crew import CRASH, learn, sent

from opencluster.core.dispatch import Dispatch, Piece, Verdict, WithdrawPieces
from opencluster.core.locality import FAR_BYTES_PER_S, Need

BYTES = int(FAR_BYTES_PER_S)
"""So many come from another computer in a second."""


def hall(**hosts: str) -> Dispatch:
    """Return a dispatch with workers on these computers, whose pieces take 0.2 s."""
    made = Dispatch()
    for worker, host in hosts.items():
        made.worker_joined(0.0, worker, "T", host=host)
        learn(made, worker, *[0.2] * 20)
    return made


def piece(number: int, *holders: str, nbytes: int = BYTES, host: str = "one") -> Piece:
    need = Need(nbytes, frozenset(holders), frozenset([host]))
    return Piece(number, "T", needs=(need,))


def plain(number: int) -> Piece:
    return Piece(number, "T")


def test_a_piece_goes_where_its_value_is() -> None:
    d = hall(a="one", b="one", c="two")
    assert sent(d, d.submit(0.0, [piece(1, "b")])) == {"b": [1]}
    assert sent(d, d.submit(0.0, [piece(2, "a"), plain(3)])) == {"a": [2], "c": [3]}


def test_a_piece_goes_to_the_computer_where_its_value_is() -> None:
    d = hall(a="two", b="one")
    assert sent(d, d.submit(0.0, [piece(1, "of another type")])) == {"b": [1]}


def test_a_piece_waits_for_who_has_its_value_while_that_pays() -> None:
    d = hall(a="one", b="two")
    assert sent(d, d.submit(0.0, [plain(1)])) == {"a": [1]}
    # in 0.2 s at a, or in 1 s at b
    assert sent(d, d.submit(0.0, [piece(2, "a")])) == {}
    d.finished(0.2, "a", 1, Verdict.DONE, 0.2)
    assert sent(d, d.assign(0.2)) == {"a": [2]}


def test_a_piece_does_not_wait_for_longer_than_that_pays() -> None:
    d = hall(a="one", b="two")
    d.submit(0.0, [plain(1)])
    assert sent(d, d.submit(0.0, [piece(2, "a")])) == {}
    assert sent(d, d.tick(0.9)) == {}
    assert sent(d, d.tick(1.1)) == {"b": [2]}


def test_pieces_spread_when_their_worker_has_enough_to_do() -> None:
    d = hall(a="one", b="two", c="two")
    # the fifth would begin at a as late as elsewhere, and the sixth later
    given = sent(d, d.submit(0.0, [piece(n, "a") for n in range(1, 9)]))
    assert given["a"] == [1]
    assert len(given["b"]) == len(given["c"]) == 1
    for number in range(2, 100):
        d.tick(float(number))
        for worker in ("a", "b", "c"):
            for done in d.pieces_at(worker):
                d.finished(float(number), worker, done, Verdict.DONE, 0.2)
        d.assign(float(number))
        d.check_invariants()
    assert left_in(d) == 0


def test_a_small_value_is_not_waited_for() -> None:
    d = hall(a="one", b="one")
    d.submit(0.0, [plain(1)])
    assert sent(d, d.submit(0.0, [piece(2, "a", nbytes=100_000)])) == {"b": [2]}


def test_a_piece_that_was_left_to_a_worker_is_not_called_back_while_that_pays() -> None:
    d = Dispatch()
    for worker, host in (("a", "one"), ("b", "two")):
        d.worker_joined(0.0, worker, "T", host=host)
    learn(d, "a", *[0.001] * 20)
    assert sent(d, d.submit(0.0, [piece(n, "a") for n in (1, 2, 3)])) == {
        "a": [1, 2, 3]
    }
    # the first takes longer than they used to, while b is idle
    assert d.tick(0.5) == []
    assert d.tick(1.5) == [WithdrawPieces("a", [3])]
    d.returned(1.5, "a", 3)
    assert sent(d, d.assign(1.5)) == {"b": [3]}


def test_a_piece_whose_worker_is_lost_goes_elsewhere() -> None:
    d = hall(a="one", b="two")
    d.submit(0.0, [plain(1)])
    assert sent(d, d.submit(0.0, [piece(2, "a")])) == {}
    assert sent(d, d.worker_lost(0.1, "a", CRASH, running=1)) == {"b": [2]}
    d.finished(0.3, "b", 2, Verdict.DONE, 0.2)
    assert sent(d, d.assign(0.3)) == {"b": [1]}


def test_a_piece_that_waits_for_a_worker_can_be_cancelled() -> None:
    d = hall(a="one", b="two")
    d.submit(0.0, [plain(1)])
    d.submit(0.0, [piece(2, "a")])
    d.cancel(0.0, [2])
    d.check_invariants()
    assert left_in(d) == 1


def test_a_wanted_worker_is_wanted_wherever_the_values_are() -> None:
    d = hall(a="one", b="two")
    wish = piece(1, "a")
    wish.wanted_worker = "b"
    assert sent(d, d.submit(0.0, [wish])) == {"b": [1]}


def test_without_workers_a_piece_waits_like_others() -> None:
    d = Dispatch()
    assert sent(d, d.submit(0.0, [piece(1, "a")])) == {}
    assert sent(d, d.worker_joined(1.0, "b", "T", host="two")) == {"b": [1]}


@pytest.mark.parametrize("workers", [2, 5])
@given(seed=st.integers(0, 10_000))
def test_every_piece_is_done_whatever_is_where(workers: int, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"w{n}" for n in range(workers)]
    d = Dispatch()
    for name in names:
        d.worker_joined(0.0, name, "T", host=chance.choice("xy"))
    todo = [
        piece(
            n, *chance.sample(names, 1), nbytes=chance.choice([0, BYTES // 10, BYTES])
        )
        if chance.random() < 0.7
        else plain(n)
        for n in range(1, 40)
    ]
    now = 0.0
    d.submit(now, todo)
    for _ in range(2000):
        now += chance.choice([0.01, 0.1, 0.5])
        worker = chance.choice(names)
        for number in d.pieces_at(worker)[:1]:
            d.finished(now, worker, number, Verdict.DONE, chance.choice([0.001, 0.3]))
            d.assign(now)
        for effect in d.tick(now):
            if isinstance(effect, WithdrawPieces):
                for number in effect.pieces:
                    d.returned(now, effect.worker, number)
                d.assign(now)
        d.check_invariants()
        if not left_in(d):
            break
    assert left_in(d) == 0
