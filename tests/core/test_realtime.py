"""Real-time pieces at the manager: they pass batch pieces, which lose nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from dispatch_tools import left_in

from opencluster.core.crew import LOOK_AHEAD_S, REST_S
from opencluster.core.dispatch import (
    CancelPieces,
    Dispatch,
    Effect,
    EndPiece,
    InterruptPiece,
    Piece,
    SendPieces,
    Verdict,
    WarnNoWorker,
    WithdrawPieces,
)
from opencluster.core.pieces import MAX_CUTS
from opencluster.errors import DeathEvidence

CRASH = DeathEvidence("killed by signal SIGSEGV", signal="SIGSEGV")


def hall(*workers: str, **settings: Any) -> Dispatch:
    """Return a dispatch with these workers of the type ``T``."""
    made = Dispatch(**settings)
    for worker in workers:
        made.worker_joined(0.0, worker, "T")
    return made


def batch(*ids: int, **fields: Any) -> list[Piece]:
    return [Piece(number, **({"type": "T"} | fields)) for number in ids]


def urgent(*ids: int, wait_s: float = 0.1, **fields: Any) -> list[Piece]:
    return batch(*ids, wait_s=wait_s, **fields)


def sent(dispatch: Dispatch, effects: Iterable[Effect]) -> dict[str, list[int]]:
    dispatch.check_invariants()
    batches = [effect for effect in effects if isinstance(effect, SendPieces)]
    return {batch.worker: [piece.id for piece in batch.pieces] for batch in batches}


def busy(*workers: str, each_s: float = 60.0) -> Dispatch:
    """Return a dispatch whose workers know how long pieces take, and have some.

    The first worker has its piece, number 101, for the longest time.
    """
    d = hall(*workers)
    for number, worker in enumerate(workers, start=1):
        d.submit(0.0, batch(-number, wanted_worker=worker))
        d.finished(0.0, worker, -number, Verdict.DONE, each_s)
    for number, worker in enumerate(workers, start=101):
        d.submit(number - 101.0, batch(number, wanted_worker=worker))
    d.submit(50.0, batch(*range(201, 241)))
    return d


# --- order -----------------------------------------------------------------------


def test_a_real_time_piece_goes_before_batch_pieces_of_any_priority() -> None:
    d = hall()
    d.submit(0.0, batch(1, priority=2**63 - 1))
    d.submit(0.0, urgent(2, priority=-(2**63 - 1)))
    d.submit(0.0, urgent(3))
    assert sent(d, d.worker_joined(0.0, "a", "T")) == {"a": [3]}
    d.finished(0.0, "a", 3, Verdict.DONE, 60.0)
    assert sent(d, d.assign(0.0)) == {"a": [2]}


def test_real_time_pieces_are_ordered_by_their_priority_then_as_they_came() -> None:
    d = hall()
    d.submit(0.0, urgent(1, 2))
    d.submit(0.0, urgent(3, priority=1))
    order = []
    d.worker_joined(0.0, "a", "T")
    while left_in(d):
        (number,) = d.pieces_at("a")
        order.append(number)
        d.finished(0.0, "a", number, Verdict.DONE, 1.0)
        d.assign(0.0)
    assert order == [3, 1, 2]


def test_an_idle_worker_is_given_a_real_time_piece_rather_than_a_busy_one() -> None:
    d = busy("a", "b")
    d.worker_joined(50.0, "c", "T")
    d.finished(50.0, "c", d.pieces_at("c")[0], Verdict.DONE, 60.0)
    assert sent(d, d.submit(50.0, urgent(1))) == {"c": [1]}


# --- beyond the credit -----------------------------------------------------------


def test_credit_that_batch_pieces_use_up_holds_back_no_real_time_piece() -> None:
    d = busy("a")
    assert d.pieces_at("a") == [101]
    assert sent(d, d.submit(50.0, urgent(1))) == {"a": [1]}
    assert d.pieces_at("a") == [101, 1]


def test_a_worker_holds_no_more_real_time_pieces_than_its_credit() -> None:
    d = busy("a")
    assert sent(d, d.submit(50.0, urgent(1, 2))) == {"a": [1]}
    d.finished(60.0, "a", 101, Verdict.DONE, 60.0)
    assert sent(d, d.assign(60.0)) == {}
    d.finished(61.0, "a", 1, Verdict.DONE, 60.0)
    assert sent(d, d.assign(61.0)) == {"a": [2]}


def test_of_workers_that_are_busy_the_one_that_is_done_soonest_gets_it() -> None:
    d = busy("a", "b", "c")
    assert sent(d, d.submit(50.0, urgent(1))) == {"a": [1]}
    assert sent(d, d.submit(50.0, urgent(2, 3))) == {"b": [2], "c": [3]}


def test_a_piece_that_is_left_to_end_is_not_waited_for_while_others_make_way() -> None:
    d = busy("a", "b")
    for _ in range(MAX_CUTS):
        d.cut_short(50.0, "a", 101)
        d.assign(50.0)
    assert d.pieces_at("a") == [101]
    assert sent(d, d.submit(50.0, urgent(1))) == {"b": [1]}
    assert sent(d, d.submit(50.0, urgent(2))) == {"a": [2]}


def test_short_batch_pieces_ahead_hold_back_no_real_time_piece() -> None:
    d = busy("a", each_s=LOOK_AHEAD_S / 8.5)
    held = d.pieces_at("a")
    assert len(held) == 9
    assert sent(d, d.submit(50.0, urgent(1))) == {"a": [1]}
    assert d.pieces_at("a") == [held[0], 1, *held[1:]]
    assert sent(d, d.submit(50.0, urgent(2))) == {"a": [2]}
    assert d.pieces_at("a") == [held[0], 1, 2, *held[1:]]


def test_a_worker_that_has_no_room_is_sent_no_real_time_piece_for_a_moment() -> None:
    d = busy("a")
    d.submit(50.0, urgent(1))
    d.returned(50.0, "a", 1)
    assert d.assign(50.0) == []
    assert sent(d, d.tick(50.0 + 2 * REST_S)) == {"a": [1]}


def test_a_real_time_piece_that_wants_a_busy_worker_gets_there() -> None:
    d = busy("a", "b")
    d.submit(50.0, batch(1, wanted_worker="b"))
    assert sent(d, d.submit(50.0, urgent(2, wanted_worker="b"))) == {"b": [2]}
    d.finished(50.0, "b", 102, Verdict.DONE, 60.0)
    d.finished(50.0, "b", 2, Verdict.DONE, 60.0)
    assert sent(d, d.assign(50.0)) == {"b": [1]}


def test_a_real_time_piece_behind_another_is_recalled_for_an_idle_worker_soon() -> None:
    d = hall("a")
    d.submit(0.0, batch(1))
    d.submit(0.0, urgent(2))
    d.worker_joined(0.0, "b", "T")
    assert d.tick(0.0) == [WithdrawPieces("a", [2])]
    d.returned(0.0, "a", 2)
    assert sent(d, d.assign(0.0)) == {"b": [2]}


# --- what its worker is told ------------------------------------------------------


def test_a_worker_is_told_how_long_a_real_time_piece_may_still_wait() -> None:
    d = hall()
    (piece,) = urgent(1, wait_s=2.0, priority=3)
    d.submit(10.0, [piece])
    d.worker_joined(11.5, "a", "T")
    assert piece.urgency == [3, 0.5]
    d.worker_lost(12.5, "a", CRASH)
    d.worker_joined(13.0, "b", "T")
    assert piece.urgency == [3, 0.0]


def test_a_batch_piece_is_cut_short_a_few_times_and_then_left_to_end() -> None:
    d = hall("a")
    (piece,) = batch(1, priority=3)
    d.submit(0.0, [piece])
    for _ in range(MAX_CUTS):
        assert piece.urgency == 3
        assert d.cut_short(0.0, "a", 1) == []
        assert sent(d, d.assign(0.0)) == {"a": [1]}
    assert piece.urgency == [3, None]


# --- what becomes of what made way ------------------------------------------------


def test_what_made_way_waits_in_its_place_and_is_done_once() -> None:
    d = busy("a")
    assert d.cut_short(50.0, "a", 101) == []
    assert sent(d, d.assign(50.0)) == {"a": [101]}
    (end,) = d.finished(60.0, "a", 101, Verdict.DONE, 60.0)
    assert isinstance(end, EndPiece)
    assert (end.piece.id, end.verdict) == (101, Verdict.DONE)
    assert (end.piece.losses, end.piece.errors, end.piece.cuts) == (0, 0, 1)
    assert d.finished(60.0, "a", 101, Verdict.DONE, 60.0) == []
    assert d.cut_short(60.0, "a", 101) == []


def test_making_way_uses_up_no_retry() -> None:
    d = hall("a")
    d.submit(0.0, batch(1, retries=0))
    d.cut_short(0.0, "a", 1)
    assert sent(d, d.assign(0.0)) == {"a": [1]}
    (end, *_) = d.worker_lost(1.0, "a", CRASH)
    assert isinstance(end, EndPiece)
    assert end.verdict is Verdict.DIED


def test_a_worker_that_is_lost_after_its_piece_made_way_had_not_lost_it() -> None:
    d = hall("a", "b")
    (piece,) = batch(1)
    d.submit(0.0, [piece])
    d.cut_short(0.0, "a", 1)
    d.worker_lost(0.0, "a", CRASH)
    assert d.pieces_at("b") == [1]
    assert (piece.losses, piece.deaths) == (0, [])


def test_a_piece_that_was_cancelled_does_not_come_back_when_it_makes_way() -> None:
    d = hall("a")
    d.submit(0.0, batch(1))
    assert CancelPieces("a", [1]) in d.cancel(0.0, [1])
    assert d.cut_short(0.0, "a", 1) == []
    assert left_in(d) == 0


def test_a_piece_that_was_interrupted_ends_when_it_makes_way() -> None:
    d = hall("a")
    (piece,) = batch(1)
    d.submit(0.0, [piece])
    assert d.interrupt(0.0, [1]) == [InterruptPiece("a", 1)]
    assert d.cut_short(0.0, "a", 1) == [EndPiece(piece, Verdict.INTERRUPTED)]
    assert left_in(d) == 0


def test_what_another_worker_says_of_a_piece_changes_nothing() -> None:
    d = hall("a", "b")
    (piece,) = batch(1)
    d.submit(0.0, [piece])
    assert d.cut_short(0.0, "b", 1) == []
    assert d.cut_short(0.0, "nobody", 1) == []
    assert (piece.cuts, d.pieces_at("a")) == (0, [1])


def test_a_bundle_that_is_said_to_have_made_way_waits_as_it_was() -> None:
    d = hall("a")
    d.submit(0.0, batch(1, count=4))
    assert d.cut_short(0.0, "a", 1) == []
    assert sent(d, d.assign(0.0)) == {"a": [1]}
    assert left_in(d) == 4


# --- without workers --------------------------------------------------------------


def test_real_time_pieces_without_workers_are_told_of_and_given_up_like_others() -> (
    None
):
    d = hall(worker_wait_s=5.0)
    d.submit(0.0, urgent(1))
    d.submit(0.0, batch(2))
    assert d.tick(2.0) == [WarnNoWorker("T", 2)]
    ends = d.tick(6.0)
    assert [(e.piece.id, e.verdict) for e in ends if isinstance(e, EndPiece)] == [
        (1, Verdict.NO_WORKER),
        (2, Verdict.NO_WORKER),
    ]


def test_a_real_time_piece_that_waits_can_be_cancelled() -> None:
    d = hall()
    (piece,) = urgent(1)
    d.submit(0.0, [piece])
    assert d.cancel(0.0, [1]) == [EndPiece(piece, Verdict.CANCELLED)]
    assert left_in(d) == 0
    d.check_invariants()


# --- how long it takes ------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3, 40])
def test_a_burst_of_real_time_pieces_is_spread_over_all_workers(workers: int) -> None:
    names = [f"w{n}" for n in range(workers)]
    random.Random(1).shuffle(names)
    d = busy(*names)
    d.submit(50.0, urgent(*range(1, workers + 6)))
    d.check_invariants()
    assert all(len(d.pieces_at(name)) == 2 for name in names)
