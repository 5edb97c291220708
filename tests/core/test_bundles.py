"""Bundles: pieces that are sent and answered as one, until something happens to one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from dispatch_tools import left_in

from opencluster.core.crew import (
    CHUNK_S,
    MAX_BUNDLE,
    MIN_BUNDLE,
    RECALL_AFTER_S,
    SHARED,
    SHORT_S,
    SLICE_S,
)
from opencluster.core.dispatch import (
    CancelPieces,
    Dispatch,
    Effect,
    EndPiece,
    EnforceInterrupt,
    InterruptPiece,
    Piece,
    SendPieces,
    Verdict,
    WarnNoWorker,
    WithdrawPieces,
)
from opencluster.core.inbox import (
    CANCELLED,
    DRAINED,
    CutBundle,
    Inbox,
    RaiseFlag,
    ReturnPiece,
    Waiting,
)
from opencluster.errors import DeathEvidence

CRASH = DeathEvidence("killed by signal SIGSEGV", signal="SIGSEGV")
SILENCE = DeathEvidence("no sign of life for 10 s")
INTERRUPT_WAIT_S = 10.0


def desk(*workers: str, **settings: Any) -> Dispatch:
    """Return a dispatch with these workers of the type ``T``."""
    made = Dispatch(**settings)
    for worker in workers:
        made.worker_joined(0.0, worker, "T")
    return made


def bundle(first: int, count: int, **fields: Any) -> Piece:
    return Piece(first, count=count, **({"type": "T"} | fields))


def held(first: int, count: int, **settings: Any) -> Dispatch:
    """Return a dispatch whose only worker ``a`` holds one bundle."""
    made = desk("a", **settings)
    assert sent(made.submit(0.0, [bundle(first, count)])) == {"a": [(first, count)]}
    return made


def sent(effects: Iterable[Effect]) -> dict[str, list[tuple[int, int]]]:
    """Return what is sent to whom: first numbers, and how many."""
    return {
        effect.worker: [(piece.id, piece.count) for piece in effect.pieces]
        for effect in effects
        if isinstance(effect, SendPieces)
    }


def ended(effects: Iterable[Effect]) -> dict[int, Verdict]:
    """Return the verdict on each piece that ends, also in bundles."""
    ends = [effect for effect in effects if isinstance(effect, EndPiece)]
    verdicts = [(n, end.verdict) for end in ends for n in end.piece.numbers]
    assert len(dict(verdicts)) == len(verdicts), "a piece has two verdicts"
    return dict(verdicts)


def kinds(effects: Iterable[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def answer(
    dispatch: Dispatch,
    done: int,
    is_running: bool = False,
    first: int = 10,
    worker: str = "a",
    now: float = 1.0,
) -> list[Effect]:
    """Let a worker answer some of a bundle; return what that brings about at once."""
    elapsed_s = 1e-6 * done
    effects = dispatch.bundle_done(now, worker, first, done, elapsed_s, is_running)
    dispatch.check_invariants()
    return effects


def reassign(dispatch: Dispatch, now: float = 1.0) -> dict[str, list[tuple[int, int]]]:
    effects = dispatch.assign(now)
    dispatch.check_invariants()
    return sent(effects)


# --- answers ---------------------------------------------------------------------


def test_a_bundle_is_sent_as_one_and_over_with_its_answer() -> None:
    d = held(10, 4)
    assert (d.load_of("a"), d.pieces_at("a"), left_in(d)) == (1, [10], 4)
    assert d.bundle_at("a", 10) is not None
    assert answer(d, 4) == []
    assert (left_in(d), d.is_idle, d.pieces_at("a")) == (0, True, [])


def test_an_answer_for_some_leaves_the_others_as_pieces_of_their_own() -> None:
    d = held(10, 4)
    assert answer(d, 1) == []
    assert left_in(d) == 3
    assert reassign(d) == {"a": [(11, 1), (12, 1), (13, 1)]}
    assert ended(d.finished(2.0, "a", 12, Verdict.DONE)) == {12: Verdict.DONE}
    assert ended(d.finished(2.0, "a", 11, Verdict.FAILED)) == {11: Verdict.FAILED}


def test_an_answer_for_none_leaves_all() -> None:
    d = held(10, 2)
    assert answer(d, 0) == []
    assert reassign(d) == {"a": [(10, 1)]}
    assert left_in(d) == 2


def test_the_piece_that_a_cut_bundle_runs_is_answered_by_itself() -> None:
    d = held(10, 4)
    d.worker_joined(0.0, "b", "T")
    assert answer(d, 1, is_running=True) == []
    assert d.pieces_at("a") == [11]
    assert reassign(d)["b"] == [(12, 1)]
    assert ended(d.finished(2.0, "a", 11, Verdict.DONE)) == {11: Verdict.DONE}
    assert left_in(d) == 2


def test_the_first_or_the_last_piece_may_be_the_one_that_runs() -> None:
    d = held(10, 3)
    assert answer(d, 0, is_running=True) == []
    assert d.pieces_at("a") == [10]
    assert left_in(d) == 3
    d = held(10, 3)
    assert answer(d, 2, is_running=True) == []
    assert (d.pieces_at("a"), left_in(d)) == ([12], 1)


def test_the_running_piece_of_a_cut_bundle_stands_before_what_waits_behind_it() -> None:
    d = desk()
    d.worker_joined(0.0, "a", "T", concurrency=2)
    assert sent(d.submit(0.0, [bundle(10, 3), Piece(20, "T")])) == {
        "a": [(10, 3), (20, 1)]
    }
    answer(d, 1, is_running=True)
    assert d.pieces_at("a") == [11, 20]


def test_answers_of_a_bundle_come_once() -> None:
    d = held(10, 3)
    answer(d, 1, is_running=True)
    assert answer(d, 3) == []
    assert answer(d, 1, is_running=True) == []
    assert left_in(d) == 2


@pytest.mark.parametrize(("worker", "first"), [("b", 10), ("nobody", 10), ("a", 11)])
def test_answers_for_what_is_not_held_change_nothing(worker: str, first: int) -> None:
    d = held(10, 3)
    d.worker_joined(0.0, "b", "T")
    assert answer(d, 3, first=first, worker=worker) == []
    assert answer(d, 0, is_running=True, first=first, worker=worker) == []
    assert d.finished(1.0, worker, first, Verdict.DONE) == []
    assert (d.pieces_at("a"), left_in(d)) == ([10], 3)


def test_an_answer_for_a_bundle_is_none_for_a_piece() -> None:
    d = desk("a")
    d.submit(0.0, [Piece(10, "T")])
    assert d.bundle_at("a", 10) is None
    assert answer(d, 1) == []
    assert left_in(d) == 1


def test_a_single_answer_for_a_bundle_is_a_failure_of_each_of_its_pieces() -> None:
    d = held(10, 3)
    failures = dict.fromkeys([10, 11, 12], Verdict.FAILED)
    assert ended(d.finished(1.0, "a", 10, Verdict.DONE)) == failures
    assert left_in(d) == 0


def test_an_answer_for_more_than_there_are_is_one_for_all() -> None:
    d = held(10, 3)
    assert answer(d, 5) == []
    assert left_in(d) == 0
    d = held(10, 3)
    assert answer(d, 3, is_running=True) == []
    assert (left_in(d), d.pieces_at("a")) == (0, [])


def test_a_bundle_that_comes_back_is_sent_again_as_one() -> None:
    d = held(10, 3)
    d.worker_joined(0.0, "b", "T")
    assert d.returned(1.0, "a", 10) == []
    assert reassign(d) == {"b": [(10, 3)]}


def test_a_draining_worker_answers_what_it_has_done_of_a_bundle() -> None:
    d = held(10, 4)
    assert d.worker_draining(1.0, "a") == []
    assert answer(d, 2) == []
    assert reassign(d) == {}
    assert sent(d.worker_joined(2.0, "b", "T")) == {"b": [(12, 1)]}
    assert left_in(d) == 2


def test_a_bundle_behind_a_long_piece_is_recalled_as_one() -> None:
    d = desk("a")
    d.submit(0.0, [bundle(1, 4)])
    answer(d, 4, first=1, now=0.0)
    assert sent(d.submit(0.0, [Piece(9, "T"), bundle(10, 3)]))["a"][-1] == (10, 3)
    d.worker_joined(0.0, "b", "T")
    late = 2 * RECALL_AFTER_S
    assert d.tick(late) == [WithdrawPieces("a", [10])]
    assert d.returned(late, "a", 10) == []
    assert reassign(d, late) == {"b": [(10, 3)]}


# --- nobody there ----------------------------------------------------------------


def test_without_any_worker_each_piece_of_a_bundle_ends() -> None:
    d = desk(worker_wait_s=30.0)
    d.submit(0.0, [bundle(10, 3), Piece(13, "T")])
    assert d.tick(2.0) == [WarnNoWorker("T", 4)]
    assert ended(d.tick(31.0)) == dict.fromkeys([10, 11, 12, 13], Verdict.NO_WORKER)
    assert d.is_idle


# --- cancelling ------------------------------------------------------------------


def test_a_bundle_that_waits_is_cancelled_as_a_whole() -> None:
    d = desk()
    d.submit(0.0, [bundle(10, 3)])
    effects = d.cancel(1.0, [12, 10, 11])
    assert ended(effects) == dict.fromkeys([10, 11, 12], Verdict.CANCELLED)
    assert d.is_idle


def test_what_is_left_of_a_bundle_that_waits_is_performed() -> None:
    d = desk()
    d.submit(0.0, [bundle(10, 4, priority=3, retries=7)])
    assert ended(d.cancel(1.0, [11, 13])) == dict.fromkeys([11, 13], Verdict.CANCELLED)
    d.check_invariants()
    (effect,) = d.worker_joined(1.0, "a", "T")
    assert isinstance(effect, SendPieces)
    (piece,) = effect.pieces
    assert (piece.id, piece.count, piece.priority, piece.retries) == (10, 1, 3, 7)
    d.finished(2.0, "a", 10, Verdict.DONE)
    assert reassign(d) == {"a": [(12, 1)]}
    assert left_in(d) == 1


def test_a_bundle_that_is_cancelled_as_a_whole_is_cancelled_at_its_worker() -> None:
    d = held(10, 3)
    effects = d.cancel(1.0, [10, 11, 12])
    assert ended(effects) == dict.fromkeys([10, 11, 12], Verdict.CANCELLED)
    assert effects[-1] == CancelPieces("a", [10])
    assert d.cancel(2.0, [10, 11, 12]) == d.interrupt(2.0, [11]) == []
    assert d.interrupt_at(2.0, "a") == []
    assert answer(d, 1) == []
    assert d.is_idle


def test_a_cancelled_bundle_that_was_cut_meanwhile_is_cancelled_once_more() -> None:
    d = held(10, 3)
    d.cancel(1.0, [10, 11, 12])
    assert answer(d, 1, is_running=True) == [CancelPieces("a", [11])]
    assert (d.pieces_at("a"), reassign(d)) == ([11], {})
    assert d.finished(2.0, "a", 11, Verdict.INTERRUPTED) == []
    assert d.is_idle


def test_a_cancelled_bundle_may_come_back_or_be_answered_or_its_worker_die() -> None:
    for do in (
        lambda d: d.returned(2.0, "a", 10),
        lambda d: d.bundle_done(2.0, "a", 10, 3, 0.0, False),
        lambda d: d.finished(2.0, "a", 10, Verdict.FAILED),
        lambda d: d.worker_lost(2.0, "a", CRASH, running=11),
    ):
        d = held(10, 3)
        d.cancel(1.0, [10, 11, 12])
        assert do(d) == []
        assert d.is_idle


def test_to_cancel_one_piece_opens_a_bundle_at_its_worker() -> None:
    d = held(10, 4)
    effects = d.cancel(1.0, [12])
    assert ended(effects) == {12: Verdict.CANCELLED}
    assert effects[-1] == WithdrawPieces("a", [10])
    # the worker is told once, whatever else is cancelled
    assert kinds(d.cancel(1.0, [13, 12])) == [EndPiece]
    assert answer(d, 1, is_running=True) == []
    assert reassign(d) == {}
    assert (d.pieces_at("a"), left_in(d)) == ([11], 1)


def test_to_cancel_one_piece_of_a_bundle_that_was_not_begun() -> None:
    d = held(10, 3)
    d.cancel(1.0, [10])
    assert d.returned(1.0, "a", 10) == []
    # a worker that was asked for it does not rest
    assert reassign(d) == {"a": [(11, 1)]}
    assert left_in(d) == 2


def test_to_cancel_the_piece_of_a_bundle_that_runs() -> None:
    d = held(10, 3)
    d.cancel(1.0, [11])
    assert answer(d, 1, is_running=True) == [CancelPieces("a", [11])]
    assert left_in(d) == 2
    assert d.finished(2.0, "a", 11, Verdict.INTERRUPTED) == []
    assert reassign(d) == {"a": [(12, 1)]}


def test_a_cancelled_piece_that_was_done_meanwhile_stays_cancelled() -> None:
    d = held(10, 3)
    d.cancel(1.0, [11])
    assert answer(d, 3) == []
    assert d.is_idle


def test_to_cancel_what_is_left_cancels_the_bundle() -> None:
    d = held(10, 3)
    d.cancel(1.0, [11])
    effects = d.cancel(1.0, [12, 10, 11])
    assert CancelPieces("a", [10]) in effects
    (end,) = (effect for effect in effects if isinstance(effect, EndPiece))
    assert set(end.piece.numbers) - end.piece.gone == {10, 12}
    assert d.returned(1.0, "a", 10) == []
    assert d.is_idle


def test_numbers_are_found_in_the_bundle_that_they_are_in_and_no_other() -> None:
    d = desk()
    d.submit(0.0, [bundle(100, MAX_BUNDLE), Piece(200, "T"), bundle(201, 2)])
    assert d.cancel(1.0, [99, 100 + MAX_BUNDLE, 203, -5]) == []
    last = 100 + MAX_BUNDLE - 1
    assert ended(d.cancel(1.0, [last])) == {last: Verdict.CANCELLED}
    assert ended(d.cancel(1.0, [202])) == {202: Verdict.CANCELLED}
    assert left_in(d) == MAX_BUNDLE + 1


def test_several_bundles_are_cancelled_at_once() -> None:
    d = held(10, 3)
    d.submit(0.0, [bundle(20, 3), Piece(30, "T")])
    effects = d.cancel(1.0, [30, *range(20, 23), 11])
    assert ended(effects) == dict.fromkeys([11, 20, 21, 22, 30], Verdict.CANCELLED)
    d.check_invariants()
    assert left_in(d) == 3


# --- interrupts ------------------------------------------------------------------


def test_to_interrupt_a_piece_of_a_bundle_that_waits_cancels_it() -> None:
    d = desk()
    d.submit(0.0, [bundle(10, 3)])
    assert ended(d.interrupt(1.0, [11])) == {11: Verdict.CANCELLED}
    d.check_invariants()
    assert left_in(d) == 2


def test_the_piece_of_a_bundle_that_runs_is_interrupted_when_it_is_alone() -> None:
    d = held(10, 3)
    assert d.interrupt(1.0, [11]) == [WithdrawPieces("a", [10])]
    assert d.interrupt(1.0, [11]) == []
    assert answer(d, 1, is_running=True) == [InterruptPiece("a", 11)]
    assert d.interrupt(1.0, [11]) == []
    effects = d.finished(2.0, "a", 11, Verdict.INTERRUPTED)
    assert ended(effects) == {11: Verdict.INTERRUPTED}


def test_the_piece_of_a_bundle_that_has_not_begun_is_cancelled_instead() -> None:
    d = held(10, 3)
    d.interrupt(1.0, [12])
    assert ended(answer(d, 1, is_running=True)) == {12: Verdict.CANCELLED}
    assert d.pieces_at("a") == [11]
    d = held(10, 3)
    d.interrupt(1.0, [12])
    assert ended(d.returned(1.0, "a", 10)) == {12: Verdict.CANCELLED}
    d.check_invariants()
    assert left_in(d) == 2


def test_an_interrupt_comes_too_late_for_what_is_done() -> None:
    d = held(10, 3)
    d.interrupt(1.0, [10, 12])
    assert ended(answer(d, 1)) == {12: Verdict.CANCELLED}
    assert reassign(d) == {"a": [(11, 1)]}


def test_a_whole_bundle_is_interrupted_piece_by_piece() -> None:
    d = held(10, 3)
    assert d.interrupt(1.0, [10, 11, 12]) == [WithdrawPieces("a", [10])]
    effects = answer(d, 1, is_running=True)
    assert InterruptPiece("a", 11) in effects
    assert ended(effects) == {12: Verdict.CANCELLED}
    assert left_in(d) == 1


def test_what_a_worker_runs_is_interrupted_whichever_it_is() -> None:
    d = held(10, 3)
    assert d.interrupt_at(1.0, "a") == [WithdrawPieces("a", [10])]
    assert answer(d, 1, is_running=True) == [InterruptPiece("a", 11)]
    assert (d.pieces_at("a"), left_in(d)) == ([11], 2)
    assert d.interrupt_at(1.0, "a") == d.interrupt_at(1.0, "nobody") == []


def test_what_a_worker_runs_may_not_have_begun() -> None:
    d = held(10, 3)
    d.interrupt_at(1.0, "a")
    assert d.returned(1.0, "a", 10) == []
    assert reassign(d) == {"a": [(10, 3)]}
    # of the interrupt nothing is left
    assert d.tick(1.0 + 2 * INTERRUPT_WAIT_S) == []
    assert answer(d, 1, is_running=True) == []


def test_what_a_worker_runs_may_be_done() -> None:
    d = held(10, 3)
    d.interrupt_at(1.0, "a")
    assert answer(d, 2) == []
    assert reassign(d) == {"a": [(12, 1)]}


def test_an_interrupt_that_is_ignored_is_enforced_for_the_pieces_meant() -> None:
    late = 1.1 + INTERRUPT_WAIT_S
    d = held(10, 4, interrupt_wait_s=INTERRUPT_WAIT_S)
    d.cancel(1.0, [12])
    d.interrupt(1.0, [11])
    assert d.tick(late) == [EnforceInterrupt("a", 11), EnforceInterrupt("a", 12)]
    assert d.tick(2 * late) == []
    for stop in (lambda d: d.cancel(1.0, [10, 11]), lambda d: d.interrupt_at(1.0, "a")):
        d = held(10, 2, interrupt_wait_s=INTERRUPT_WAIT_S)
        stop(d)
        assert d.tick(late) == [EnforceInterrupt("a", 10), EnforceInterrupt("a", 11)]


def test_a_bundle_that_was_asked_back_in_vain_can_be_enforced_later() -> None:
    d = held(10, 2, interrupt_wait_s=INTERRUPT_WAIT_S)
    d.interrupt_at(1.0, "a")
    assert len(d.tick(20.0)) == 2
    d.returned(20.0, "a", 10)
    assert reassign(d, 21.0) == {"a": [(10, 2)]}
    d.interrupt_at(21.0, "a")
    assert len(d.tick(40.0)) == 2


# --- losses ----------------------------------------------------------------------


def test_only_the_piece_of_a_bundle_that_ran_counts_a_loss() -> None:
    d = held(10, 4, max_kills=1)
    effects = d.worker_lost(1.0, "a", CRASH, running=12)
    assert ended(effects) == {12: Verdict.POISONED}
    (end,) = (effect for effect in effects if isinstance(effect, EndPiece))
    assert (end.piece.deaths, end.piece.last_worker) == ([CRASH], "a")
    d.check_invariants()
    assert sent(d.worker_joined(2.0, "b", "T")) == {"b": [(10, 1)]}
    assert ended(d.worker_lost(3.0, "b", CRASH, running=10)) == {10: Verdict.POISONED}
    assert left_in(d) == 2


def test_a_piece_of_a_bundle_that_ends_workers_is_quarantined() -> None:
    d = held(10, 3, max_kills=3)
    assert ended(d.worker_lost(1.0, "a", CRASH, running=11)) == {}
    for number in (2, 3):
        worker = f"a{number}"
        # held alone, as is known of each piece by now
        d.worker_joined(2.0, worker, "T", concurrency=3)
        assert sorted(d.pieces_at(worker)) == [10, 11, 12]
        effects = d.worker_lost(3.0, worker, CRASH, running=11)
    assert ended(effects) == {11: Verdict.POISONED}
    assert left_in(d) == 2


@pytest.mark.parametrize(("running", "lost"), [(None, 10), (-1, None), (99, None)])
def test_of_whom_nothing_is_known_the_first_is_the_suspect(
    running: int | None, lost: int | None
) -> None:
    d = desk("a")
    d.submit(0.0, [bundle(10, 3)])
    d.worker_lost(1.0, "a", SILENCE, is_process_death=False, running=running)
    effects = d.worker_joined(2.0, "b", "T", concurrency=3)
    (effect,) = effects
    assert isinstance(effect, SendPieces)
    losses = {piece.id: piece.losses for piece in effect.pieces}
    assert losses == {n: int(n == lost) for n in (10, 11, 12)}


def test_bundles_behind_the_one_that_ran_count_no_loss() -> None:
    d = desk("a", max_kills=1)
    d.submit(0.0, [bundle(1, 4)])
    answer(d, 4, first=1)
    d.submit(1.0, [bundle(10, 3), bundle(13, 3)])
    assert d.pieces_at("a") == [10, 13]
    assert ended(d.worker_lost(1.0, "a", CRASH, running=11)) == {11: Verdict.POISONED}
    assert left_in(d) == 5


def test_stopped_pieces_of_a_lost_bundle_do_not_run_again() -> None:
    d = held(10, 5)
    d.cancel(1.0, [10])
    d.interrupt(1.0, [12, 13])
    effects = d.worker_lost(1.0, "a", CRASH, running=12)
    assert ended(effects) == {12: Verdict.INTERRUPTED, 13: Verdict.CANCELLED}
    d.check_invariants()
    assert left_in(d) == 2


def test_the_piece_that_ran_and_was_to_stop_does_not_run_again() -> None:
    d = held(10, 3)
    d.interrupt_at(1.0, "a")
    effects = d.worker_lost(1.0, "a", CRASH, running=11)
    assert ended(effects) == {11: Verdict.INTERRUPTED}
    assert left_in(d) == 2


def test_a_late_answer_of_a_lost_worker_changes_nothing() -> None:
    d = held(10, 3)
    d.worker_lost(1.0, "a", SILENCE, is_process_death=False)
    assert sent(d.worker_joined(1.0, "a", "T")) == {"a": [(10, 1)]}
    assert answer(d, 3) == []
    assert left_in(d) == 3
    assert ended(d.finished(2.0, "a", 10, Verdict.DONE)) == {10: Verdict.DONE}


def test_the_piece_of_a_cut_bundle_counts_the_loss_of_its_worker() -> None:
    d = held(10, 3, max_kills=1)
    answer(d, 1, is_running=True)
    assert ended(d.worker_lost(2.0, "a", CRASH, running=11)) == {11: Verdict.POISONED}
    assert left_in(d) == 1


# --- how large bundles are -------------------------------------------------------


def crew_after(*durations_s: float, workers: int = 1, concurrency: int = 0) -> Dispatch:
    """Return a dispatch whose pieces took this long."""
    made = Dispatch()
    for number in range(workers):
        made.worker_joined(0.0, f"w{number}", "T", concurrency)
    for number, elapsed_s in enumerate(durations_s):
        made.submit(0.0, [Piece(number, "T", wanted_worker="w0")])
        made.finished(0.0, "w0", number, Verdict.DONE, elapsed_s)
    return made


def test_pieces_are_bundled_when_they_are_known_to_be_short() -> None:
    assert crew_after().bundle_size("T") == 1
    assert crew_after().bundle_size("no such type") == 1
    assert crew_after(0.0).bundle_size("T") == MAX_BUNDLE
    assert crew_after(1.01 * SHORT_S).bundle_size("T") == 1
    assert crew_after(SHORT_S).bundle_size("T") == int(CHUNK_S / SHORT_S)
    assert crew_after(0.0, 1.0).bundle_size("T") == 1


def test_bundles_stay_when_somebody_else_had_the_core_for_a_moment() -> None:
    usual = [SHORT_S / 10] * 5
    assert crew_after(*usual, 0.9 * SLICE_S).bundle_size("T") > 1
    assert crew_after(*usual, SLICE_S).bundle_size("T") == 1
    assert crew_after(*usual, *[0.9 * SLICE_S] * 8).bundle_size("T") == 1


def test_senseless_durations_bundle_nothing() -> None:
    assert crew_after(float("nan"), -1.0, float("inf")).bundle_size("T") == 1


def test_what_runs_several_at_a_time_gets_no_bundles() -> None:
    assert crew_after(0.0, concurrency=4).bundle_size("T") == 1


def test_bundles_are_small_when_many_are_to_have_some() -> None:
    workers = SHARED // 20
    assert crew_after(0.0, workers=workers).bundle_size("T") == SHARED // workers
    assert crew_after(0.0, workers=SHARED).bundle_size("T") == MIN_BUNDLE


def test_nobody_gets_bundles_when_nobody_is_here() -> None:
    d = crew_after(0.0)
    d.worker_lost(1.0, "w0", CRASH)
    assert d.bundle_size("T") == 1


def test_the_pieces_of_a_bundle_are_measured_each() -> None:
    d = held(10, 10)
    d.bundle_done(1.0, "a", 10, 10, 10 * SHORT_S, False)
    assert d.bundle_size("T") == int(CHUNK_S / SHORT_S)
    d.submit(1.0, [bundle(20, 10)])
    d.bundle_done(1.0, "a", 20, 2, 1.0, False)
    assert d.bundle_size("T") == 1


def test_a_bundle_of_which_nothing_is_done_is_no_measure() -> None:
    d = held(10, 3)
    d.bundle_done(1.0, "a", 10, 0, 9.0, True)
    d.finished(1.0, "a", 10, Verdict.DONE, 0.0)
    assert d.bundle_size("T") == MAX_BUNDLE


# --- the inbox -------------------------------------------------------------------

M, N = b"manager", b"other manager"


def inbox(first: int, members: int, *, is_running: bool = False) -> Inbox:
    """Return an inbox that has one bundle."""
    made = Inbox()
    data = list(range(first, first + members))
    assert made.receive([Waiting(M, first, nbytes=7, data=data, members=members)]) == []
    if is_running:
        assert made.start(0.0) is not None
    return made


def test_a_bundle_is_one_thing_in_the_inbox() -> None:
    box = inbox(10, 3)
    assert box.queued == 1
    waiting = box.start(0.0)
    assert waiting is not None and waiting.members == 3
    assert box.running == [(M, 10)]
    assert box.finish((M, 10))
    assert not box.finish((M, 10))


def test_a_bundle_that_waits_is_withdrawn_as_one() -> None:
    box = inbox(10, 3)
    assert box.withdraw(M, [11]) == box.withdraw(N, [10]) == []
    assert box.withdraw(M, [10]) == [ReturnPiece((M, 10))]
    box.check_invariants()
    assert box.start(0.0) is None


def test_a_bundle_that_runs_is_cut_when_it_is_withdrawn() -> None:
    box = inbox(10, 3, is_running=True)
    assert box.withdraw(N, [10]) == []
    assert box.withdraw(M, [10]) == [CutBundle((M, 10))]


def test_a_piece_that_runs_is_not_cut() -> None:
    box = inbox(10, 1, is_running=True)
    assert box.withdraw(M, [10]) == []


def test_the_piece_that_is_left_alone_is_answered_by_its_own_number() -> None:
    box = inbox(10, 3, is_running=True)
    alone = box.leave_alone((M, 10), 2, "the third")
    assert alone is not None
    assert (alone.key, alone.data, alone.members) == ((M, 12), "the third", 1)
    box.check_invariants()
    assert box.running == [(M, 12)]
    assert box.withdraw(M, [10, 12]) == []
    assert not box.finish((M, 10))
    assert box.finish((M, 12))


def test_the_piece_that_is_left_alone_is_interrupted_by_its_own_number() -> None:
    box = inbox(10, 3, is_running=True)
    box.leave_alone((M, 10), 1, None)
    assert box.interrupt(1.0, M, [10]) == []
    (flag,) = box.interrupt(1.0, M, [11])
    assert isinstance(flag, RaiseFlag)
    assert flag.key == (M, 11)


def test_a_flag_of_a_bundle_is_one_of_the_piece_that_is_left_alone() -> None:
    box = inbox(10, 3, is_running=True)
    (flag,) = box.cancel(1.0, M, [10])
    assert isinstance(flag, RaiseFlag)
    assert (flag.key, flag.reason) == ((M, 10), CANCELLED)
    box.leave_alone((M, 10), 1, None)
    assert box.cancel(1.0, M, [11]) == []
    (insistence,) = box.tick(60.0)
    assert insistence.key == (M, 11)  # type: ignore[union-attr]


def test_a_bundle_for_which_nobody_waits_leaves_nothing_behind() -> None:
    box = inbox(10, 3, is_running=True)
    box.manager_lost(1.0, M)
    assert box.leave_alone((M, 10), 1, None) is None
    assert not box.finish((M, 10))
    assert box.running == []


def test_a_draining_inbox_returns_bundles_and_interrupts_the_one_that_runs() -> None:
    box = inbox(10, 3, is_running=True)
    box.receive([Waiting(M, 20, members=4)])
    assert box.drain() == [ReturnPiece((M, 20))]
    (flag,) = box.interrupt_running(1.0)
    assert isinstance(flag, RaiseFlag)
    assert (flag.key, flag.reason) == ((M, 10), DRAINED)


def test_a_bundle_that_comes_twice_is_performed_once() -> None:
    box = inbox(10, 3)
    again = [Waiting(M, 10, nbytes=7, members=3)]
    assert box.receive(again) == []
    box.start(0.0)
    assert box.receive(again) == []
    assert box.queued == 0


def test_a_piece_that_comes_alone_replaces_its_bundle_that_waits() -> None:
    box = inbox(10, 3)
    assert box.receive([Waiting(M, 10), Waiting(M, 11)]) == []
    box.check_invariants()
    started = [box.start(0.0) for _ in range(3)]
    assert [w and (w.piece, w.members) for w in started] == [(10, 1), (11, 1), None]


def test_a_piece_that_comes_alone_while_its_bundle_runs_is_returned() -> None:
    box = inbox(10, 3, is_running=True)
    assert box.receive([Waiting(M, 10)]) == [ReturnPiece((M, 10))]
    assert box.finish((M, 10))


def test_a_piece_that_comes_alone_is_answered_by_the_run_that_is_left_alone() -> None:
    box = inbox(10, 3, is_running=True)
    assert box.receive([Waiting(M, 11), Waiting(M, 12)]) == []
    box.leave_alone((M, 10), 1, None)
    box.check_invariants()
    assert box.finish((M, 11))
    following = box.start(0.0)
    assert following is not None and following.piece == 12
