"""The fate of pieces: one verdict each, retries, losses, interrupts, no worker."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from dispatch_tools import left_in, takers

from opencluster.core import dispatch as module
from opencluster.core.crew import REST_S
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
from opencluster.errors import DeathEvidence

CRASH = DeathEvidence("killed by signal SIGSEGV", signal="SIGSEGV")
SILENCE = DeathEvidence("no sign of life for 10 s")
OVERTIME = DeathEvidence("killed for its time limit", exceeded="time")
EVENTS = [
    "submit",
    "finished",
    "returned",
    "assign",
    "cancel",
    "interrupt",
    "prioritise",
    "worker_joined",
    "worker_draining",
    "worker_lost",
    "type_failing",
    "type_recovered",
    "tick",
]


def checked(dispatch: Dispatch) -> Dispatch:
    """Return the dispatch, its invariants checked after every event from now on."""

    def then_check(event: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(event)
        def call(*arguments: Any, **keywords: Any) -> Any:
            effects = event(*arguments, **keywords)
            dispatch.check_invariants()
            return effects

        return call

    for name in EVENTS:
        setattr(dispatch, name, then_check(getattr(dispatch, name)))
    return dispatch


def desk(*workers: str, **settings: Any) -> Dispatch:
    """Return a dispatch with these workers of the type ``T``."""
    made = checked(Dispatch(**settings))
    for worker in workers:
        made.worker_joined(0.0, worker, "T")
    return made


def pieces(*ids: int, **fields: Any) -> list[Piece]:
    return [Piece(number, **({"type": "T"} | fields)) for number in ids]


def sent(effects: Iterable[Effect]) -> dict[str, list[int]]:
    batches = [effect for effect in effects if isinstance(effect, SendPieces)]
    assert len({batch.worker for batch in batches}) == len(batches)
    return {batch.worker: [piece.id for piece in batch.pieces] for batch in batches}


def ended(effects: Iterable[Effect]) -> list[tuple[int, Verdict]]:
    return [(e.piece.id, e.verdict) for e in effects if isinstance(e, EndPiece)]


def end_of(effects: Iterable[Effect]) -> EndPiece:
    (end,) = (effect for effect in effects if isinstance(effect, EndPiece))
    return end


def make_quick(dispatch: Dispatch, worker: str) -> None:
    """Have a worker hold many pieces, by a first one that took no time."""
    (piece,) = pieces(-1, wanted_worker=worker)
    assert sent(dispatch.submit(0.0, [piece])) == {worker: [-1]}
    dispatch.finished(0.0, worker, -1, Verdict.DONE, elapsed_s=0.0)


# --- results ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "verdict", [Verdict.DONE, Verdict.FAILED, Verdict.TIMED_OUT, Verdict.INTERRUPTED]
)
def test_outcome_becomes_the_verdict(verdict: Verdict) -> None:
    d = desk("a")
    (piece,) = pieces(1)
    assert d.submit(0.0, [piece]) == [SendPieces("a", [piece])]
    assert d.finished(1.0, "a", 1, verdict) == [EndPiece(piece, verdict)]
    assert piece.is_over
    assert left_in(d) == 0


def test_result_is_delivered_once() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1))
    assert ended(d.finished(1.0, "a", 1, Verdict.DONE)) == [(1, Verdict.DONE)]
    assert d.finished(1.0, "a", 1, Verdict.DONE) == []
    assert d.finished(1.0, "b", 1, Verdict.FAILED) == []


@pytest.mark.parametrize(("worker", "piece"), [("a", 2), ("b", 1), ("nobody", 1)])
def test_result_of_what_was_not_sent_there_is_ignored(worker: str, piece: int) -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1))
    assert d.finished(1.0, worker, piece, Verdict.DONE) == []
    assert d.returned(1.0, worker, piece) == []
    assert d.pieces_at("a") == [1]


def test_late_result_of_a_lost_worker_is_ignored() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    d.worker_lost(1.0, "a", SILENCE, is_process_death=False)
    assert sent(d.worker_joined(1.0, "b", "T")) == {"b": [1]}
    d.worker_joined(2.0, "a", "T")
    assert d.finished(2.0, "a", 1, Verdict.DONE) == []
    assert ended(d.finished(3.0, "b", 1, Verdict.DONE)) == [(1, Verdict.DONE)]


def test_number_of_an_unfinished_piece_is_not_taken_twice() -> None:
    d = desk("a")
    first, second = pieces(1, 1)
    d.submit(0.0, [first])
    assert d.submit(0.0, [second]) == []
    assert end_of(d.finished(1.0, "a", 1, Verdict.DONE)).piece is first
    assert left_in(d) == 0
    assert sent(d.submit(1.0, [second])) == {"a": [1]}


def test_effects_come_in_the_order_of_submission() -> None:
    d = desk()
    types = [f"type-{number}" for number in range(20)]
    for name in types:
        d.worker_joined(0.0, f"worker of {name}", name)
    backwards = list(reversed(types))
    effects = d.submit(0.0, [Piece(i, name) for i, name in enumerate(backwards)])
    assert list(sent(effects)) == [f"worker of {name}" for name in backwards]


# --- retries ---------------------------------------------------------------------


def test_failure_is_retried_as_often_as_asked() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, error_retries=2))
    for _ in range(2):
        assert d.finished(1.0, "a", 1, Verdict.FAILED) == []
        assert sent(d.assign(1.0)) == {"a": [1]}
    assert ended(d.finished(1.0, "a", 1, Verdict.FAILED)) == [(1, Verdict.FAILED)]


@pytest.mark.parametrize("verdict", [Verdict.TIMED_OUT, Verdict.INTERRUPTED])
def test_only_a_failure_is_retried(verdict: Verdict) -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, error_retries=2))
    assert ended(d.finished(1.0, "a", 1, verdict)) == [(1, verdict)]


def test_interrupted_piece_that_fails_is_not_retried() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, error_retries=2))
    d.interrupt(1.0, [1])
    assert ended(d.finished(1.0, "a", 1, Verdict.FAILED)) == [(1, Verdict.FAILED)]


def test_retried_piece_keeps_its_place() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, 2, 3, error_retries=1))
    d.finished(1.0, "a", 1, Verdict.FAILED)
    assert sent(d.assign(1.0)) == {"a": [1]}


def test_returned_piece_goes_out_again() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1))
    d.worker_draining(1.0, "a")
    assert d.returned(1.0, "a", 1) == []
    assert sent(d.assign(1.0)) == {"b": [1]}
    assert ended(d.finished(2.0, "b", 1, Verdict.DONE)) == [(1, Verdict.DONE)]


def test_worker_without_room_rests_before_it_is_asked_again() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    assert d.returned(0.0, "a", 1) == []
    d.check_invariants()
    assert d.assign(0.0) == []
    assert d.tick(REST_S / 2) == []
    assert sent(d.tick(REST_S)) == {"a": [1]}
    d.check_invariants()


def test_worker_that_has_room_gets_what_another_has_no_room_for() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1))
    d.returned(0.0, "a", 1)
    assert sent(d.assign(0.0)) == {"b": [1]}


def test_worker_that_gives_back_what_was_recalled_does_not_rest() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    d.finished(0.0, "a", 1, Verdict.DONE, 0.0)
    # its pieces are so short that it is sent several
    d.submit(0.0, pieces(2, 3))
    d.worker_joined(1.0, "b", "T")
    assert d.tick(1.0) == [WithdrawPieces("a", [3])]
    d.returned(1.0, "a", 3)
    d.submit(1.0, pieces(4))
    assert (d.pieces_at("a"), d.pieces_at("b")) == ([2, 4], [3])


# --- cancelling and interrupting -------------------------------------------------


def test_cancelled_pieces_end_at_once_wherever_they_are() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1, 2, 3))
    effects = d.cancel(1.0, [3, 1, 2, 1, 99])
    assert ended(effects) == [(n, Verdict.CANCELLED) for n in (3, 1, 2)]
    cancels = [effect for effect in effects if isinstance(effect, CancelPieces)]
    assert cancels == [CancelPieces("a", [1]), CancelPieces("b", [2])]
    assert d.cancel(1.0, [1, 2, 3]) == []
    assert sent(d.assign(1.0)) == {}


def test_cancelled_piece_is_one_message_for_each_worker() -> None:
    d = desk("a")
    make_quick(d, "a")
    d.submit(0.0, pieces(1, 2, 3))
    assert CancelPieces("a", [1, 3]) in d.cancel(1.0, [1, 3])


@pytest.mark.parametrize("verdict", list(Verdict))
def test_nothing_is_delivered_after_a_cancel(verdict: Verdict) -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, error_retries=5))
    d.cancel(1.0, [1])
    assert left_in(d) == 1
    assert d.finished(2.0, "a", 1, verdict) == []
    assert left_in(d) == 0


def test_cancelled_piece_counts_until_its_worker_gave_it_up() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, 2))
    d.cancel(1.0, [1])
    assert d.assign(1.0) == []
    assert d.returned(2.0, "a", 1) == []
    assert sent(d.assign(2.0)) == {"a": [2]}


def test_cancelled_pieces_that_waited_leave_nothing_behind() -> None:
    d = desk()
    for number in range(500):
        d.submit(0.0, pieces(number))
        d.cancel(0.0, [number])
    assert left_in(d) == 0
    assert d.worker_joined(1.0, "a", "T") == []


def test_piece_that_waits_for_one_worker_can_be_given_up() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1, 2, 3, wanted_worker="a"))
    assert ended(d.cancel(1.0, [2])) == [(2, Verdict.CANCELLED)]
    assert ended(d.interrupt(1.0, [3])) == [(3, Verdict.CANCELLED)]
    d.finished(2.0, "a", 1, Verdict.DONE)
    assert d.assign(2.0) == []
    assert left_in(d) == 0


def test_interrupt_asks_the_worker_once() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    assert d.interrupt(1.0, [1, 1]) == [InterruptPiece("a", 1)]
    assert d.interrupt(2.0, [1]) == []
    effects = d.finished(3.0, "a", 1, Verdict.INTERRUPTED)
    assert ended(effects) == [(1, Verdict.INTERRUPTED)]


def test_interrupt_cancels_what_does_not_run() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, 2))
    assert ended(d.interrupt(1.0, [2])) == [(2, Verdict.CANCELLED)]
    assert d.interrupt(1.0, [2, 99]) == []


def test_interrupt_of_what_is_over_does_nothing() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    d.cancel(1.0, [1])
    assert d.interrupt(1.0, [1]) == []


def test_interrupted_piece_that_had_not_started_is_cancelled() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    d.interrupt(1.0, [1])
    assert ended(d.returned(1.0, "a", 1)) == [(1, Verdict.CANCELLED)]
    assert left_in(d) == 0


def test_result_that_came_before_the_interrupt_counts() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    d.interrupt(1.0, [1])
    assert ended(d.finished(1.0, "a", 1, Verdict.DONE)) == [(1, Verdict.DONE)]


def test_ignored_interrupt_is_enforced_once() -> None:
    # at the very beginning of time, which is a time like any other
    d = desk("a", interrupt_wait_s=10.0)
    d.submit(0.0, pieces(1))
    d.interrupt(0.0, [1])
    assert d.tick(10.0) == []
    assert d.tick(10.1) == [EnforceInterrupt("a", 1)]
    assert d.tick(99.0) == []


def test_wait_for_an_interrupt_counts_from_when_it_was_asked_for() -> None:
    d = desk("a", interrupt_wait_s=10.0)
    d.submit(0.0, pieces(1))
    d.interrupt(100.0, [1])
    assert d.tick(109.0) == []
    assert d.tick(111.0) == [EnforceInterrupt("a", 1)]


def test_interrupt_that_was_heeded_is_not_enforced() -> None:
    d = desk("a", interrupt_wait_s=10.0)
    d.submit(0.0, pieces(1))
    d.interrupt(0.0, [1])
    d.finished(1.0, "a", 1, Verdict.INTERRUPTED)
    assert d.tick(99.0) == []


def test_ignored_cancel_is_enforced_once() -> None:
    d = desk("a", interrupt_wait_s=10.0)
    d.submit(0.0, pieces(1, 2))
    d.cancel(100.0, [1])
    assert d.tick(109.0) == []
    assert d.tick(111.0) == [EnforceInterrupt("a", 1)]
    assert d.tick(199.0) == []


def test_cancel_that_was_heeded_is_not_enforced() -> None:
    d = desk("a", interrupt_wait_s=10.0)
    d.submit(0.0, pieces(1))
    d.cancel(0.0, [1])
    d.returned(1.0, "a", 1)
    assert d.tick(99.0) == []


def test_interrupt_is_enforced_after_a_cancel_too() -> None:
    d = desk("a", interrupt_wait_s=10.0)
    d.submit(0.0, pieces(1))
    d.interrupt(0.0, [1])
    assert ended(d.cancel(1.0, [1])) == [(1, Verdict.CANCELLED)]
    assert d.tick(11.0) == [EnforceInterrupt("a", 1)]
    d.worker_lost(12.0, "a", CRASH)
    assert left_in(d) == 0
    assert d.tick(99.0) == []


def test_loss_ends_an_interrupted_piece() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1))
    d.interrupt(1.0, [1])
    end = end_of(d.worker_lost(2.0, "a", CRASH))
    assert (end.verdict, end.detail) == (Verdict.INTERRUPTED, CRASH.reason)
    assert d.assign(2.0) == []


def test_interrupted_piece_behind_the_running_one_does_not_run_elsewhere() -> None:
    d = desk("a")
    make_quick(d, "a")
    d.submit(0.0, pieces(1, 2, 3))
    d.interrupt(1.0, [2])
    d.worker_joined(1.0, "b", "T")
    effects = d.worker_lost(2.0, "a", CRASH)
    assert ended(effects) == [(2, Verdict.CANCELLED)]
    assert sent(effects) == {"b": [1]}


# --- losses ----------------------------------------------------------------------


def test_only_the_running_piece_counts_a_loss() -> None:
    d = desk("a")
    make_quick(d, "a")
    work = pieces(1, 2, 3)
    d.submit(0.0, work)
    assert d.worker_lost(1.0, "a", CRASH) == []
    assert [piece.losses for piece in work] == [1, 0, 0]
    assert [piece.deaths for piece in work] == [[CRASH], [], []]
    assert sent(d.worker_joined(2.0, "b", "T")) == {"b": [1]}


def test_worker_says_which_piece_was_running() -> None:
    d = desk("a")
    make_quick(d, "a")
    work = pieces(1, 2, 3)
    d.submit(0.0, work)
    d.worker_lost(1.0, "a", CRASH, running=2)
    assert [piece.losses for piece in work] == [0, 1, 0]


def test_loss_while_a_strange_piece_ran_counts_for_none() -> None:
    d = desk("a")
    work = pieces(1)
    d.submit(0.0, work)
    d.worker_lost(1.0, "a", CRASH, running=77)
    assert work[0].losses == 0
    assert sent(d.worker_joined(2.0, "b", "T")) == {"b": [1]}


def test_every_piece_that_ran_at_a_time_counts_the_loss() -> None:
    d = desk()
    d.worker_joined(0.0, "s", "T", concurrency=2)
    work = pieces(1, 2, 3, retries=0)
    d.submit(0.0, work)
    effects = d.worker_lost(1.0, "s", CRASH)
    assert ended(effects) == [(1, Verdict.DIED), (2, Verdict.DIED)]
    assert work[2].losses == 0


def test_cancelled_piece_takes_the_loss_on_itself() -> None:
    d = desk("a")
    make_quick(d, "a")
    work = pieces(1, 2)
    d.submit(0.0, work)
    d.cancel(1.0, [1])
    assert d.worker_lost(2.0, "a", CRASH) == []
    assert work[1].losses == 0
    assert left_in(d) == 1


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_piece_dies_after_more_losses_than_retries(retries: int) -> None:
    d = desk(max_kills=99)
    d.submit(0.0, pieces(1, retries=retries))
    for number in range(retries):
        assert sent(d.worker_joined(1.0, str(number), "T")) == {str(number): [1]}
        assert d.worker_lost(1.0, str(number), CRASH) == []
    d.worker_joined(2.0, "last", "T")
    end = end_of(d.worker_lost(2.0, "last", CRASH))
    assert (end.verdict, end.detail) == (Verdict.DIED, CRASH.reason)
    assert end.piece.deaths == [CRASH] * (retries + 1)
    assert left_in(d) == 0


def test_piece_that_ends_every_worker_is_quarantined() -> None:
    d = desk(max_kills=2)
    d.submit(0.0, pieces(1, retries=99))
    other = replace(CRASH, reason="exited with code 1")
    d.worker_joined(1.0, "a", "T")
    d.worker_lost(1.0, "a", CRASH)
    d.worker_joined(1.0, "b", "T")
    end = end_of(d.worker_lost(2.0, "b", other))
    assert (end.verdict, end.detail) == (Verdict.POISONED, other.reason)
    assert end.piece.deaths == [CRASH, other]
    assert d.worker_joined(3.0, "c", "T") == []


@pytest.mark.parametrize("kills", [1, 3])
def test_a_piece_may_have_a_number_of_its_own_of_workers_to_end(kills: int) -> None:
    d = desk(max_kills=2)
    d.submit(0.0, pieces(1, retries=99, max_kills=kills))
    for number in range(kills):
        d.worker_joined(1.0, str(number), "T")
        effects = d.worker_lost(1.0, str(number), CRASH)
        assert bool(effects) == (number == kills - 1)
    end = end_of(effects)
    assert (end.verdict, end.piece.deaths) == (Verdict.POISONED, [CRASH] * kills)


def test_pieces_of_a_bundle_keep_the_number_of_workers_that_they_may_end() -> None:
    bundle = Piece(1, "T", count=4, max_kills=1)
    assert bundle.alone(3).max_kills == 1


def test_lost_contact_is_no_kill() -> None:
    d = desk(max_kills=1)
    d.submit(0.0, pieces(1, retries=2))
    for name in "ab":
        d.worker_joined(1.0, name, "T")
        assert d.worker_lost(1.0, name, SILENCE, is_process_death=False) == []
    d.worker_joined(1.0, "c", "T")
    end = end_of(d.worker_lost(1.0, "c", SILENCE, is_process_death=False))
    assert end.verdict is Verdict.DIED
    assert end.piece.deaths == [SILENCE]


def test_death_for_the_time_limit_is_a_timeout() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1, timeout_s=1.0))
    end = end_of(d.worker_lost(2.0, "a", OVERTIME))
    assert (end.verdict, end.detail) == (Verdict.TIMED_OUT, OVERTIME.reason)


def test_piece_remembers_who_had_it_last() -> None:
    d = desk("a")
    (piece,) = pieces(1, retries=1)
    d.submit(0.0, [piece])
    d.worker_lost(1.0, "a", CRASH)
    assert (piece.worker, piece.last_worker) == ("", "a")
    d.worker_joined(1.0, "b", "T")
    end = end_of(d.worker_lost(2.0, "b", CRASH))
    assert (end.piece.worker, end.piece.last_worker) == ("", "b")


def test_loss_of_an_unknown_worker_changes_nothing() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1))
    assert d.worker_lost(1.0, "b", CRASH) == []
    d.worker_lost(1.0, "a", CRASH)
    assert d.worker_lost(1.0, "a", CRASH) == []
    assert left_in(d) == 1


# --- draining --------------------------------------------------------------------


def test_draining_worker_finishes_what_it_holds() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, 2))
    assert d.worker_draining(1.0, "a") == []
    assert ended(d.finished(2.0, "a", 1, Verdict.DONE)) == [(1, Verdict.DONE)]
    assert d.assign(2.0) == []
    assert d.worker_draining(2.0, "a") == []
    assert d.worker_lost(3.0, "a", CRASH) == []
    assert sent(d.worker_joined(4.0, "b", "T")) == {"b": [2]}


def test_draining_of_an_unknown_worker_changes_nothing() -> None:
    assert desk("a").worker_draining(1.0, "b") == []


def test_loss_of_a_draining_worker_counts() -> None:
    d = desk("a", "b")
    d.submit(0.0, pieces(1, retries=0))
    d.worker_draining(1.0, "a")
    assert ended(d.worker_lost(2.0, "a", CRASH)) == [(1, Verdict.DIED)]


def test_draining_worker_takes_nothing_when_it_joins_again() -> None:
    d = desk("a")
    d.worker_draining(1.0, "a")
    assert d.worker_joined(2.0, "a", "T") == []
    assert d.submit(3.0, pieces(1)) == []
    assert takers(d, "T") == set()


# --- no worker -------------------------------------------------------------------


def test_pieces_without_any_worker_warn_once_and_then_end() -> None:
    d = desk(worker_wait_s=30.0)
    work = pieces(1, 2)
    assert d.submit(5.0, work) == []
    assert d.tick(5.0 + module.WARN_AFTER_S / 2) == []
    assert d.tick(6.0) == [WarnNoWorker("T", 2)]
    assert d.tick(7.0) == []
    assert d.tick(34.9) == []
    assert d.tick(35.0) == [EndPiece(piece, Verdict.NO_WORKER) for piece in work]
    assert left_in(d) == 0
    assert d.tick(99.0) == []


def test_pieces_wait_from_when_they_came_not_from_when_the_last_worker_left() -> None:
    d = desk("a", worker_wait_s=30.0)
    d.worker_lost(0.0, "a", CRASH)
    d.submit(100.0, pieces(1))
    assert d.tick(100.5) == []
    assert ended(d.tick(130.0)) == [(1, Verdict.NO_WORKER)]


def test_pieces_that_were_given_up_do_not_shorten_the_wait_of_others() -> None:
    d = desk(worker_wait_s=30.0)
    d.submit(0.0, pieces(1))
    d.cancel(10.0, [1])
    d.submit(29.0, pieces(2))
    assert d.tick(31.0) == [WarnNoWorker("T", 1)]
    assert ended(d.tick(59.0)) == [(2, Verdict.NO_WORKER)]


def test_wait_begins_anew_when_a_worker_was_there() -> None:
    d = desk(worker_wait_s=30.0)
    d.submit(0.0, pieces(1))
    assert d.tick(20.0) == [WarnNoWorker("T", 1)]
    d.worker_joined(20.0, "a", "T")
    d.worker_lost(25.0, "a", CRASH)
    assert d.tick(26.0) == [WarnNoWorker("T", 1)]
    assert d.tick(54.0) == []
    assert ended(d.tick(55.0)) == [(1, Verdict.NO_WORKER)]


def test_pieces_wait_as_long_as_a_worker_is_there() -> None:
    d = desk("a", worker_wait_s=30.0)
    d.submit(0.0, pieces(1, 2))
    assert d.tick(999.0) == []


def test_piece_that_a_draining_worker_runs_is_not_given_up() -> None:
    d = desk("a", worker_wait_s=30.0)
    d.submit(0.0, pieces(1, 2))
    d.worker_draining(10.0, "a")
    assert ended(d.tick(40.0)) == [(2, Verdict.NO_WORKER)]
    assert ended(d.finished(50.0, "a", 1, Verdict.DONE)) == [(1, Verdict.DONE)]


def test_failing_type_ends_what_waits_for_it_and_says_why() -> None:
    d = desk()
    d.submit(0.0, pieces(1))
    assert d.type_failing(0.0, "T", "here", "ImportError: gpu") == []
    d.type_failing(0.0, "T", "there", "no such file")
    end = end_of(d.tick(0.1))
    assert end.verdict is Verdict.NO_WORKER
    assert end.detail == "ImportError: gpu\nno such file"


def test_failing_type_is_known_before_pieces_come() -> None:
    d = desk()
    d.type_failing(0.0, "T", "here", "no such file")
    assert d.tick(1.0) == []
    d.submit(2.0, pieces(1))
    assert end_of(d.tick(2.0)).detail == "no such file"


def test_type_that_fails_in_one_place_works_in_another() -> None:
    d = desk("a")
    d.submit(0.0, pieces(1, 2))
    d.type_failing(0.0, "T", "here", "no such file")
    assert d.tick(1.0) == []
    assert left_in(d) == 2


def test_recovered_type_is_waited_for() -> None:
    d = desk(worker_wait_s=30.0)
    d.type_failing(0.0, "T", "here", "no such file")
    d.type_recovered("T", "here")
    d.type_recovered("T", "elsewhere")
    d.type_recovered("U", "here")
    d.submit(0.0, pieces(1))
    assert d.tick(0.5) == []


def test_worker_that_joins_shows_that_the_type_starts() -> None:
    d = desk()
    d.type_failing(0.0, "T", "here", "no such file")
    d.worker_joined(1.0, "a", "T")
    d.worker_lost(2.0, "a", SILENCE)
    d.submit(3.0, pieces(1))
    assert d.tick(3.5) == []


# --- questions -------------------------------------------------------------------


def test_questions_about_workers() -> None:
    d = desk("a", "b", "c")
    d.worker_joined(0.0, "other", "U")
    make_quick(d, "a")
    d.submit(0.0, pieces(1, 2, wanted_worker="a"))
    d.submit(0.0, pieces(3, wanted_worker="b"))
    assert d.pieces_at("a") == [1, 2]
    assert [d.load_of(worker) for worker in "abc"] == [2, 1, 0]
    assert left_in(d) == 3


def test_questions_about_the_unknown() -> None:
    d = desk("a")
    assert d.pieces_at("b") == []
    assert d.load_of("b") == 0


def test_broken_rule_is_found() -> None:
    d = desk("a")
    (piece,) = pieces(1)
    d.submit(0.0, [piece])
    piece.worker = ""
    with pytest.raises(AssertionError):
        d.check_invariants()


# --- another priority ---------------------------------------------------------


def order_of(dispatch: Dispatch) -> list[int]:
    """Return the pieces in the order in which a worker that comes now gets them."""
    order: list[int] = []
    effects = dispatch.worker_joined(9.0, "last", "T", 1)
    while effects:
        (sent,) = [
            piece for e in effects if isinstance(e, SendPieces) for piece in e.pieces
        ]
        order.append(sent.id)
        dispatch.finished(9.0, "last", sent.id, Verdict.DONE)
        effects = dispatch.assign(9.0)
    return order


def test_what_waits_has_the_place_of_its_new_priority_at_once() -> None:
    dispatch = checked(Dispatch())
    dispatch.submit(0.0, [Piece(n, "T") for n in range(1, 5)])
    dispatch.prioritise([3, 4, 77], 1)
    dispatch.prioritise([1], -1)
    assert order_of(dispatch) == [3, 4, 2, 1]


def test_a_piece_that_runs_has_its_new_priority_when_it_waits_again() -> None:
    dispatch = checked(Dispatch())
    dispatch.submit(0.0, [Piece(n, "T", priority=5) for n in range(1, 4)])
    dispatch.worker_joined(0.0, "w", "T", 1)
    dispatch.prioritise([1], -1)
    dispatch.worker_lost(1.0, "w", CRASH)
    assert order_of(dispatch) == [2, 3, 1]


def test_batch_pieces_never_pass_real_time_pieces_by_an_order() -> None:
    dispatch = checked(Dispatch())
    dispatch.submit(0.0, [Piece(1, "T"), Piece(2, "T", wait_s=60.0)])
    dispatch.prioritise([1], 1000)
    assert order_of(dispatch) == [2, 1]


def test_a_bundle_goes_as_one_if_one_of_its_pieces_is_meant() -> None:
    dispatch = checked(Dispatch())
    dispatch.submit(0.0, [Piece(1, "T"), Piece(2, "T", count=3)])
    dispatch.prioritise([4], 1)
    (sent,) = dispatch.worker_joined(0.0, "w", "T", 1)
    assert isinstance(sent, SendPieces) and [p.id for p in sent.pieces] == [2]
    assert sent.pieces[0].urgency == 1
