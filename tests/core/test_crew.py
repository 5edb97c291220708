"""Who takes which piece: credits, priorities, wishes and recalls."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from dispatch_tools import left_in

from opencluster.core.crew import (
    CHUNK_S,
    LOOK_AHEAD_S,
    RECALL_AFTER_S,
    REFILL_FROM,
)
from opencluster.core.dispatch import (
    Dispatch,
    Effect,
    EndPiece,
    Piece,
    SendPieces,
    Verdict,
    WithdrawPieces,
)
from opencluster.errors import DeathEvidence

CRASH = DeathEvidence("killed by signal SIGSEGV", signal="SIGSEGV")
LATER = 2 * RECALL_AFTER_S


def hall(*workers: str, **settings: Any) -> Dispatch:
    """Return a dispatch with these workers of the type ``T``."""
    made = Dispatch(**settings)
    for worker in workers:
        made.worker_joined(0.0, worker, "T")
    return made


def pieces(*ids: int, **fields: Any) -> list[Piece]:
    return [Piece(number, **({"type": "T"} | fields)) for number in ids]


def sent(dispatch: Dispatch, effects: Iterable[Effect]) -> dict[str, list[int]]:
    dispatch.check_invariants()
    batches = [effect for effect in effects if isinstance(effect, SendPieces)]
    return {batch.worker: [piece.id for piece in batch.pieces] for batch in batches}


def learn(dispatch: Dispatch, worker: str, *durations_s: float) -> None:
    """Have a worker perform pieces that took this long."""
    for number, elapsed_s in enumerate(durations_s, start=1):
        dispatch.submit(0.0, pieces(-number, wanted_worker=worker))
        dispatch.finished(0.0, worker, -number, Verdict.DONE, elapsed_s)
        dispatch.check_invariants()


def credit(dispatch: Dispatch, worker: str) -> int:
    """Return how many pieces a worker is sent when there are plenty."""
    numbers = range(1000, 1200)
    dispatch.submit(0.0, pieces(*numbers, wanted_worker=worker))
    dispatch.check_invariants()
    load = dispatch.load_of(worker)
    dispatch.cancel(0.0, numbers)
    for number in dispatch.pieces_at(worker):
        dispatch.returned(0.0, worker, number)
    assert left_in(dispatch) == 0
    return load


# --- credit ----------------------------------------------------------------------


def test_new_worker_gets_one_piece() -> None:
    assert credit(hall("a"), "a") == 1


@pytest.mark.parametrize(
    ("durations_s", "expected"),
    [
        ([0.0], 64),
        ([LOOK_AHEAD_S / 1000], 64),
        ([LOOK_AHEAD_S / 8.5], 9),
        ([LOOK_AHEAD_S], 2),
        ([LOOK_AHEAD_S * 1.01], 1),
        ([60.0], 1),
        ([0.0, LOOK_AHEAD_S], 6),
        ([0.0, 60.0], 1),
        ([60.0] + [0.0] * 60, 64),
    ],
)
def test_credit_follows_the_duration_of_pieces(
    durations_s: list[float], expected: int
) -> None:
    d = hall("a", max_credit=64)
    learn(d, "a", *durations_s)
    assert credit(d, "a") == expected


def test_credit_has_a_limit() -> None:
    d = hall("a", max_credit=3)
    learn(d, "a", 0.0)
    assert credit(d, "a") == 3


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, -1.0])
def test_duration_that_is_none_teaches_nothing(nonsense: float) -> None:
    d = hall("a")
    learn(d, "a", nonsense)
    assert credit(d, "a") == 1
    learn(d, "a", LOOK_AHEAD_S / 8.5, nonsense)
    assert credit(d, "a") == 9


def test_duration_of_a_failure_teaches_nothing() -> None:
    d = hall("a")
    d.submit(0.0, pieces(1))
    d.finished(0.0, "a", 1, Verdict.FAILED, 0.0)
    assert credit(d, "a") == 1


def test_duration_of_a_cancelled_piece_teaches() -> None:
    d = hall("a")
    d.submit(0.0, pieces(1))
    d.cancel(0.0, [1])
    d.finished(0.0, "a", 1, Verdict.DONE, 0.0)
    assert credit(d, "a") == 64


@pytest.mark.parametrize(("concurrency", "expected"), [(1, 1), (8, 8), (100, 100)])
def test_worker_of_known_concurrency_holds_as_many(
    concurrency: int, expected: int
) -> None:
    d = hall()
    d.worker_joined(0.0, "s", "T", concurrency)
    assert credit(d, "s") == expected
    learn(d, "s", 0.0, 60.0)
    assert credit(d, "s") == expected


def test_worker_whose_credit_shrank_gets_nothing_until_it_has_room() -> None:
    d = hall("a")
    learn(d, "a", LOOK_AHEAD_S / 3.5)
    assert sent(d, d.submit(0.0, pieces(1, 2, 3, 4, 5))) == {"a": [1, 2, 3, 4]}
    for number in (1, 2, 3):
        d.finished(9.0, "a", number, Verdict.DONE, 3.0)
        assert d.assign(9.0) == []
    d.finished(9.0, "a", 4, Verdict.DONE, 3.0)
    assert sent(d, d.assign(9.0)) == {"a": [5]}


# --- order -----------------------------------------------------------------------


def test_least_loaded_worker_goes_first() -> None:
    d = hall("a", "b", "c")
    for worker in "abc":
        learn(d, worker, LOOK_AHEAD_S / 8.5)
    assert sent(d, d.submit(0.0, pieces(1, 2, 3, 4))) == {
        "a": [1, 4],
        "b": [2],
        "c": [3],
    }
    d.finished(0.0, "b", 2, Verdict.DONE)
    assert sent(d, d.submit(0.0, pieces(5, 6, 7, 8))) == {
        "b": [5, 7],
        "c": [6],
        "a": [8],
    }


def test_pieces_that_are_hardly_any_work_go_to_one_worker_together() -> None:
    d = hall("a", "b", max_credit=64)
    for worker in "ab":
        learn(d, worker, CHUNK_S / 3.5)
    assert sent(d, d.submit(0.0, pieces(1, 2, 3, 4, 5))) == {
        "a": [1, 2, 3],
        "b": [4, 5],
    }


def test_worker_with_much_credit_is_refilled_when_half_is_done() -> None:
    d = hall("a", max_credit=REFILL_FROM)
    learn(d, "a", 0.0)
    held = list(range(1, REFILL_FROM + 1))
    waiting = list(range(REFILL_FROM + 1, 2 * REFILL_FROM))
    assert sent(d, d.submit(0.0, pieces(*held, *waiting))) == {"a": held}
    for number in held[: REFILL_FROM // 2 - 1]:
        d.finished(0.0, "a", number, Verdict.DONE, 0.0)
        assert d.assign(0.0) == []
    d.finished(0.0, "a", held[REFILL_FROM // 2 - 1], Verdict.DONE, 0.0)
    assert sent(d, d.assign(0.0)) == {"a": waiting[: REFILL_FROM // 2]}


def test_worker_that_rested_longest_goes_first() -> None:
    d = hall("a", "b")
    for number, worker in enumerate("abab"):
        assert sent(d, d.submit(0.0, pieces(number))) == {worker: [number]}
        d.finished(0.0, worker, number, Verdict.DONE, 1.0)


def test_pieces_go_to_workers_of_their_type() -> None:
    d = hall("a")
    d.worker_joined(0.0, "u", "U")
    work = [Piece(1, "U"), Piece(2, "T"), Piece(3, "V")]
    assert sent(d, d.submit(0.0, work)) == {"u": [1], "a": [2]}
    assert sent(d, d.worker_joined(0.0, "v", "V")) == {"v": [3]}


def test_higher_priority_goes_first() -> None:
    d = hall()
    for number, priority in enumerate([0, 5, -1, 5, 0]):
        d.submit(0.0, pieces(number, priority=priority))
    order: list[int] = []
    d.worker_joined(0.0, "a", "T")
    while left_in(d):
        (number,) = d.pieces_at("a")
        order.append(number)
        d.finished(0.0, "a", number, Verdict.DONE, 1.0)
        d.assign(0.0)
        d.check_invariants()
    assert order == [1, 3, 0, 4, 2]


def test_piece_that_came_back_keeps_its_place() -> None:
    d = hall("a")
    d.submit(0.0, pieces(5, 6, 7))
    d.submit(0.0, pieces(8, priority=1))
    d.worker_lost(1.0, "a", CRASH)
    assert sent(d, d.worker_joined(2.0, "b", "T")) == {"b": [8]}
    d.finished(3.0, "b", 8, Verdict.DONE, 0.0)
    assert sent(d, d.assign(3.0)) == {"b": [5, 6, 7]}


# --- wishes ----------------------------------------------------------------------


def test_piece_waits_for_the_worker_that_it_wants() -> None:
    d = hall("a", "b")
    assert sent(d, d.submit(0.0, pieces(1, 2, wanted_worker="b"))) == {"b": [1]}
    assert d.assign(1.0) == []
    d.finished(1.0, "b", 1, Verdict.DONE, 1.0)
    assert sent(d, d.assign(1.0)) == {"b": [2]}


def test_wishes_are_met_by_priority_and_before_others() -> None:
    d = hall("a")
    d.submit(0.0, pieces(1))
    d.submit(0.0, pieces(2, 3, wanted_worker="a"))
    d.submit(0.0, pieces(4, wanted_worker="a", priority=1))
    d.submit(0.0, pieces(5, priority=9))
    d.finished(0.0, "a", 1, Verdict.DONE, 0.0)
    assert sent(d, d.assign(0.0)) == {"a": [4, 2, 3, 5]}


def test_wish_for_a_worker_that_is_gone_means_any() -> None:
    d = hall("a", "b")
    d.submit(0.0, pieces(1, 2, wanted_worker="a"))
    assert sent(d, d.worker_lost(1.0, "a", CRASH)) == {"b": [1]}
    d.finished(1.0, "b", 1, Verdict.DONE, 1.0)
    assert sent(d, d.assign(1.0)) == {"b": [2]}


def test_wish_for_a_draining_worker_means_any() -> None:
    d = hall("a", "b")
    d.submit(0.0, pieces(1, 2, wanted_worker="a"))
    assert sent(d, d.worker_draining(1.0, "a")) == {"b": [2]}
    d.returned(1.0, "a", 1)
    d.finished(1.0, "b", 2, Verdict.DONE, 1.0)
    assert sent(d, d.assign(1.0)) == {"b": [1]}


@pytest.mark.parametrize("wanted", ["nobody", "u"])
def test_wish_for_a_worker_of_no_use_means_any(wanted: str) -> None:
    d = hall()
    d.worker_joined(0.0, "u", "U")
    assert d.submit(0.0, pieces(1, wanted_worker=wanted)) == []
    d.check_invariants()
    assert sent(d, d.worker_joined(0.0, "a", "T")) == {"a": [1]}


# --- recalls ---------------------------------------------------------------------


def test_what_waits_behind_a_long_piece_is_recalled_for_an_idle_worker() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(0.0, pieces(1, 2, 3, 4))
    d.worker_joined(0.0, "b", "T")
    d.worker_joined(0.0, "c", "T")
    assert d.tick(RECALL_AFTER_S) == []
    assert d.tick(LATER) == [WithdrawPieces("a", [3, 4])]
    assert d.tick(2 * LATER) == [WithdrawPieces("a", [2])]
    assert d.tick(3 * LATER) == []
    d.returned(3 * LATER, "a", 3)
    d.returned(3 * LATER, "a", 4)
    assert sent(d, d.assign(3 * LATER)) == {"b": [3], "c": [4]}


def test_wait_behind_a_long_piece_counts_from_when_it_was_sent() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(50.0, pieces(1, 2))
    d.worker_joined(50.0, "b", "T")
    assert d.tick(50.0 + RECALL_AFTER_S / 2) == []
    assert d.tick(50.0 + LATER) == [WithdrawPieces("a", [2])]


def test_first_piece_is_never_recalled() -> None:
    d = hall("a", "b")
    d.submit(0.0, pieces(1))
    assert d.tick(LATER) == []


def test_nothing_is_recalled_while_nobody_is_idle() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(0.0, pieces(1, 2))
    d.worker_joined(0.0, "b", "T")
    d.submit(0.0, pieces(3, wanted_worker="b"))
    assert d.tick(LATER) == []


def test_nothing_is_recalled_while_more_waits() -> None:
    d = hall("a")
    learn(d, "a", LOOK_AHEAD_S)
    d.submit(0.0, pieces(1, 2))
    d.worker_joined(0.0, "b", "T")
    d.submit(0.0, pieces(3, error_retries=1))
    d.finished(0.0, "b", 3, Verdict.FAILED)
    assert d.tick(LATER) == []
    assert sent(d, d.assign(LATER)) == {"b": [3]}


def test_idle_worker_of_another_type_recalls_nothing() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(0.0, pieces(1, 2))
    d.worker_joined(0.0, "u", "U")
    assert d.tick(LATER) == []


def test_heaviest_worker_gives_first() -> None:
    d = hall("a", "b")
    learn(d, "a", LOOK_AHEAD_S / 8.5)
    learn(d, "b", LOOK_AHEAD_S / 8.5)
    d.submit(0.0, pieces(1, 2, 3, 4, 5))
    assert (d.pieces_at("a"), d.pieces_at("b")) == ([1, 3, 5], [2, 4])
    d.worker_joined(0.0, "c", "T")
    assert d.tick(LATER) == [WithdrawPieces("a", [5])]
    d.worker_joined(0.0, "d", "T")
    expected = [WithdrawPieces("a", [3]), WithdrawPieces("b", [4])]
    assert d.tick(2 * LATER) == expected


def test_pieces_that_are_over_or_want_their_worker_are_not_recalled() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(0.0, pieces(1, 2, 3))
    d.submit(0.0, pieces(4, wanted_worker="a"))
    d.worker_joined(0.0, "b", "T")
    d.cancel(0.0, [2])
    assert d.tick(LATER) == [WithdrawPieces("a", [3])]
    assert d.tick(2 * LATER) == []


def test_piece_whose_wanted_worker_is_gone_is_recalled_like_any() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(0.0, pieces(1, 2, wanted_worker="gone"))
    d.worker_joined(0.0, "b", "T")
    assert d.tick(LATER) == [WithdrawPieces("a", [2])]


def test_service_is_asked_to_give_back_nothing() -> None:
    d = hall()
    d.worker_joined(0.0, "s", "T", concurrency=4)
    d.submit(0.0, pieces(1, 2, 3, 4))
    d.worker_joined(0.0, "b", "T", concurrency=4)
    assert d.tick(LATER) == []


def test_piece_that_was_started_after_all_stays() -> None:
    d = hall("a")
    learn(d, "a", 0.0)
    d.submit(0.0, pieces(1, 2))
    d.worker_joined(0.0, "b", "T")
    assert d.tick(LATER) == [WithdrawPieces("a", [2])]
    d.finished(LATER, "a", 1, Verdict.DONE)
    (end,) = d.finished(LATER, "a", 2, Verdict.DONE)
    assert isinstance(end, EndPiece)
    assert end.verdict is Verdict.DONE


def test_piece_can_be_recalled_again_from_its_next_worker() -> None:
    d = hall("a", "b")
    learn(d, "a", 0.0)
    learn(d, "b", 0.0)
    d.submit(0.0, pieces(1, 2, wanted_worker="a"))
    d.submit(0.0, pieces(3))
    d.worker_lost(0.0, "a", CRASH)
    assert d.pieces_at("b") == [3, 1, 2]
    d.worker_joined(LATER, "c", "T")
    assert d.tick(LATER) == [WithdrawPieces("b", [2])]
    d.submit(LATER, pieces(4, wanted_worker="c"))
    d.returned(LATER, "b", 2)
    d.worker_lost(LATER, "c", CRASH)
    assert d.pieces_at("b") == [3, 1, 2, 4]
    d.worker_joined(LATER, "e", "T")
    assert d.tick(2 * LATER) == [WithdrawPieces("b", [4])]
    d.worker_joined(LATER, "f", "T")
    assert d.tick(2 * LATER) == [WithdrawPieces("b", [1, 2])]
