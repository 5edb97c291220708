"""The worker's queue: order, interrupts, time limits, draining, one answer each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opencluster.core.inbox import (
    CANCELLED,
    DRAINED,
    INTERRUPT,
    TIME_LIMIT,
    Effect,
    Inbox,
    Key,
    MakeWay,
    RaiseException,
    RaiseFlag,
    ReturnPiece,
    Waiting,
)

M, N = b"manager", b"other manager"
GRACE_S, KILL_S = 2.0, 5.0


def inbox(*pieces: int, priority: int = 0, timeout_s: float = 0.0) -> Inbox:
    """Return an inbox that received these pieces of one manager."""
    made = Inbox(interrupt_grace_s=GRACE_S, kill_grace_s=KILL_S)
    assert made.receive(batch(*pieces, priority=priority, timeout_s=timeout_s)) == []
    return made


def batch(
    *pieces: int, manager: bytes = M, priority: int = 0, timeout_s: float = 0.0
) -> list[Waiting]:
    return [Waiting(manager, piece, priority, timeout_s) for piece in pieces]


def started(box: Inbox, now: float = 0.0) -> Key | None:
    piece = box.start(now)
    box.check_invariants()
    return piece.key if piece else None


def flag(piece: int, reason: str, now: float, manager: bytes = M) -> RaiseFlag:
    return RaiseFlag((manager, piece), reason, now + GRACE_S + KILL_S)


# --- order -----------------------------------------------------------------------


def test_pieces_start_in_the_order_of_arrival() -> None:
    box = inbox(3, 1, 2)
    assert [started(box) for _ in range(4)] == [(M, 3), (M, 1), (M, 2), None]
    assert box.running == [(M, 3), (M, 1), (M, 2)]


def test_higher_priority_starts_first() -> None:
    box = inbox(1)
    box.receive(batch(2, priority=5))
    box.receive(batch(2, 3, manager=N, priority=5))
    box.receive(batch(4, priority=-1))
    order = [started(box) for _ in range(5)]
    assert order == [(M, 2), (N, 2), (N, 3), (M, 1), (M, 4)]


def test_start_gives_the_piece_as_it_came() -> None:
    (piece,) = batch(1, priority=3, timeout_s=9.0)
    box = Inbox()
    box.receive([piece])
    assert box.start(0.0) is piece


def test_counts() -> None:
    box = inbox(1, 2)
    box.receive(batch(1, manager=N))
    assert (box.queued, box.running) == (3, [])
    box.start(0.0)
    assert (box.queued, box.running) == (2, [(M, 1)])
    assert box.managers() == {M, N}
    box.finish((M, 1))
    box.withdraw(M, [2])
    assert box.managers() == {N}


# --- one answer each -------------------------------------------------------------


def test_piece_that_finished_is_answered_once() -> None:
    box = inbox(1)
    box.start(0.0)
    assert box.finish((M, 1))
    assert not box.finish((M, 1))
    assert not box.finish((N, 7))


def test_piece_that_comes_twice_runs_once() -> None:
    box = inbox(1)
    assert box.receive(batch(1, priority=9)) == []
    assert box.queued == 1
    assert started(box) == (M, 1)
    assert box.receive(batch(1)) == []
    assert started(box) is None


def test_piece_that_comes_again_after_its_answer_runs_again() -> None:
    box = inbox(1)
    box.start(0.0)
    box.finish((M, 1))
    assert box.receive(batch(1)) == []
    assert started(box) == (M, 1)


def test_withdrawn_piece_that_comes_again_has_its_new_place() -> None:
    box = inbox(1, 2)
    assert box.withdraw(M, [1]) == [ReturnPiece((M, 1))]
    assert box.receive(batch(1)) == []
    assert [started(box) for _ in range(3)] == [(M, 2), (M, 1), None]


def test_full_queue_returns_what_is_too_much() -> None:
    box = Inbox(max_queued=2)
    effects = box.receive(batch(1, 2, 3, 4))
    assert effects == [ReturnPiece((M, 3)), ReturnPiece((M, 4))]
    box.start(0.0)
    assert box.receive(batch(5)) == []
    assert box.receive(batch(1, 2)) == []
    box.check_invariants()


def sized(*sizes: int, manager: bytes = M) -> list[Waiting]:
    return [Waiting(manager, 10 + n, nbytes=s) for n, s in enumerate(sizes)]


def test_queue_full_of_bytes_returns_what_is_too_much() -> None:
    box = Inbox(max_queued_bytes=100)
    assert box.receive(sized(60, 30, 20)) == [ReturnPiece((M, 12))]
    # of another manager, and small enough
    assert box.receive(sized(10, 1, manager=N)) == [ReturnPiece((N, 11))]
    box.check_invariants()
    box.start(0.0)
    assert box.receive(sized(0, 0, 60)) == []
    box.check_invariants()
    assert box.queued == 3


def test_piece_beyond_all_bounds_may_wait_alone() -> None:
    box = Inbox(max_queued_bytes=100)
    assert box.receive(sized(500, 1)) == [ReturnPiece((M, 11))]
    assert started(box) == (M, 10)
    assert box.receive(sized(0, 500)) == []
    box.check_invariants()


@pytest.mark.parametrize(
    "leave",
    [
        lambda box: box.withdraw(M, [10, 11]),
        lambda box: box.cancel(0.0, M, [11, 10]),
        lambda box: box.manager_lost(0.0, M),
        lambda box: [box.start(0.0), box.start(0.0)],
    ],
)
def test_what_leaves_makes_room_for_as_many_bytes(
    leave: Callable[[Inbox], object],
) -> None:
    box = Inbox(max_queued_bytes=100)
    box.receive(sized(60, 40))
    leave(box)
    box.check_invariants()
    assert box.receive(sized(99, 1, manager=N)) == []


def test_piece_that_comes_again_is_counted_once() -> None:
    box = Inbox(max_queued_bytes=100)
    assert box.receive([*sized(60), *sized(60), *sized(90)]) == []
    box.check_invariants()
    assert box.receive(sized(0, 40)) == []


def test_what_is_withdrawn_takes_no_room_for_long() -> None:
    box = inbox(0)
    for number in range(1, 2000):
        box.receive(batch(number))
        box.withdraw(M, [number])
        box.check_invariants()
    assert (box.queued, started(box)) == (1, (M, 0))


# --- withdrawing, cancelling, interrupting ---------------------------------------


def test_only_what_waits_is_withdrawn() -> None:
    box = inbox(1, 2, 3)
    box.start(0.0)
    assert box.withdraw(M, [1, 3, 3, 99]) == [ReturnPiece((M, 3))]
    assert box.withdraw(N, [2]) == []
    assert box.queued == 1


@pytest.mark.parametrize(
    ("event", "reason"), [(Inbox.cancel, CANCELLED), (Inbox.interrupt, INTERRUPT)]
)
def test_what_waits_is_returned_and_what_runs_is_flagged(
    event: Callable[..., list[Effect]], reason: str
) -> None:
    box = inbox(1, 2, 3)
    box.start(0.0)
    effects = event(box, 1.0, M, iter([1, 3, 99]))
    assert effects == [ReturnPiece((M, 3)), flag(1, reason, 1.0)]
    box.check_invariants()
    assert event(box, 2.0, M, [1, 3]) == []
    assert event(box, 2.0, N, [2]) == []
    assert box.finish((M, 1))
    assert event(box, 3.0, M, [1]) == []


def test_flag_is_followed_by_one_exception() -> None:
    box = inbox(1)
    box.start(0.0)
    assert box.next_time() is None
    box.interrupt(1.0, M, [1])
    assert box.next_time() == 1.0 + GRACE_S
    assert box.tick(2.9) == []
    assert box.tick(3.0) == [RaiseException((M, 1), INTERRUPT)]
    box.check_invariants()
    assert box.next_time() is None
    assert box.tick(99.0) == []


def test_first_reason_stays() -> None:
    box = inbox(1, timeout_s=5.0)
    box.start(0.0)
    assert box.tick(5.0) == [flag(1, TIME_LIMIT, 5.0)]
    assert box.interrupt(6.0, M, [1]) == []
    assert box.tick(7.0) == [RaiseException((M, 1), TIME_LIMIT)]
    assert box.cancel(8.0, M, [1]) == []


def test_piece_that_ended_in_time_gets_no_exception() -> None:
    box = inbox(1)
    box.start(0.0)
    box.interrupt(1.0, M, [1])
    box.finish((M, 1))
    assert box.tick(99.0) == []
    assert box.next_time() is None


# --- time limits -----------------------------------------------------------------


def test_time_limit_counts_from_the_start() -> None:
    box = inbox(1, timeout_s=5.0)
    assert box.next_time() is None
    box.start(10.0)
    assert box.next_time() == 15.0
    assert box.tick(14.9) == []
    assert box.tick(15.0) == [flag(1, TIME_LIMIT, 15.0)]
    assert box.next_time() == 15.0 + GRACE_S


def test_piece_without_a_time_limit_may_take_for_ever() -> None:
    box = inbox(1)
    box.start(0.0)
    assert box.tick(1e9) == []


def test_next_time_is_that_of_the_first() -> None:
    box = inbox(1, timeout_s=9.0)
    box.receive(batch(2, timeout_s=4.0))
    box.receive(batch(3))
    for _ in range(3):
        box.start(0.0)
    assert box.next_time() == 4.0
    assert box.tick(9.0) == [flag(1, TIME_LIMIT, 9.0), flag(2, TIME_LIMIT, 9.0)]
    assert box.next_time() == 9.0 + GRACE_S


# --- managers that go ------------------------------------------------------------


def test_what_a_lost_manager_sent_is_dropped() -> None:
    box = inbox(1, 2)
    box.receive(batch(1, manager=N))
    box.start(0.0)
    assert box.manager_lost(1.0, M) == [flag(1, CANCELLED, 1.0)]
    assert box.managers() == {N}
    assert box.manager_lost(1.0, b"nobody") == []
    assert started(box) == (N, 1)
    assert not box.finish((M, 1))
    assert box.finish((N, 1))


def test_run_of_a_lost_manager_that_was_flagged_is_not_flagged_again() -> None:
    box = inbox(1)
    box.start(0.0)
    box.interrupt(1.0, M, [1])
    assert box.manager_lost(2.0, M) == []
    assert box.tick(3.0) == [RaiseException((M, 1), INTERRUPT)]
    assert not box.finish((M, 1))


def test_manager_that_comes_back_gets_its_piece_back_until_the_old_run_is_over() -> (
    None
):
    box = inbox(1)
    box.start(0.0)
    box.manager_lost(1.0, M)
    assert box.receive(batch(1)) == [ReturnPiece((M, 1))]
    assert not box.finish((M, 1))
    assert box.receive(batch(1)) == []
    assert started(box) == (M, 1)
    assert box.finish((M, 1))


# --- draining --------------------------------------------------------------------


def test_draining_worker_returns_what_waits_and_what_comes() -> None:
    box = inbox(1, 2, 3)
    box.start(0.0)
    assert box.drain() == [ReturnPiece((M, 2)), ReturnPiece((M, 3))]
    box.check_invariants()
    assert box.is_draining
    assert box.receive(batch(4)) == [ReturnPiece((M, 4))]
    assert box.start(1.0) is None
    assert box.drain() == []
    assert box.finish((M, 1))


def test_worker_that_must_end_interrupts_all_that_runs() -> None:
    box = inbox(1, 2)
    box.start(0.0)
    box.start(0.0)
    box.interrupt(1.0, M, [1])
    assert box.interrupt_running(2.0) == [flag(2, DRAINED, 2.0)]
    assert box.interrupt_running(2.0) == []


def test_broken_rule_is_found() -> None:
    box = inbox(1)
    box.is_draining = True
    with pytest.raises(AssertionError):
        box.check_invariants()


# --- any events in any order -----------------------------------------------------

managers = st.sampled_from([M, N])
numbers = st.lists(st.integers(0, 5), max_size=4)
QUEUE = 4


class InboxModel(RuleBasedStateMachine):
    """What came in and was not answered yet is here, and nothing else is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.box = Inbox(QUEUE, GRACE_S, KILL_S)
        self.owed: Counter[Key] = Counter()
        self.silent: set[Key] = set()
        self.flagged: set[Key] = set()
        self.raised: set[Key] = set()
        self.running: set[Key] = set()
        self.batch: set[Key] = set()
        self.asked: set[Key] = set()

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            key = effect.key
            if isinstance(effect, ReturnPiece):
                assert self.owed[key] == 1
                del self.owed[key]
            elif isinstance(effect, RaiseFlag):
                assert key in self.running - self.flagged
                assert effect.enforce_at == self.now + GRACE_S + KILL_S
                self.flagged.add(key)
            elif isinstance(effect, MakeWay):
                assert key in self.running & self.batch
                assert key not in self.flagged | self.asked
                assert any(w.due_at is not None for w in self.box.waiting())
                self.asked.add(key)
            else:
                assert key in self.flagged - self.raised
                self.raised.add(key)

    @rule(
        manager=managers,
        pieces=numbers,
        priority=st.integers(0, 2),
        timeout_s=st.sampled_from([0.0, 1.0]),
        wait_s=st.sampled_from([None, None, 0.0, 1.0]),
    )
    def receive(
        self,
        manager: bytes,
        pieces: list[int],
        priority: int,
        timeout_s: float,
        wait_s: float | None,
    ) -> None:
        due_at = None if wait_s is None else self.now + wait_s
        for number in pieces:
            piece = Waiting(manager, number, priority, timeout_s, due_at=due_at)
            self.owed[piece.key] = 1
            self.do(self.box.receive([piece]))

    @rule()
    def start(self) -> None:
        piece = self.box.start(self.now)
        if piece is not None:
            assert self.owed[piece.key] == 1
            assert piece.key not in self.running
            self.running.add(piece.key)
            if piece.due_at is None:
                assert all(w.due_at is None for w in self.box.waiting())
                self.batch.add(piece.key)

    @rule(
        manager=managers,
        number=st.integers(0, 5),
        each_s=st.sampled_from([None, 0.0, 0.8]),
    )
    def finish(self, manager: bytes, number: int, each_s: float | None) -> None:
        key = (manager, number)
        is_wanted = self.box.finish(key, each_s)
        assert is_wanted == (key in self.running - self.silent)
        if is_wanted:
            del self.owed[key]
        of_runs = (self.running, self.silent, self.flagged, self.raised)
        for keys in (*of_runs, self.batch, self.asked):
            keys.discard(key)

    @rule(manager=managers, pieces=numbers)
    def withdraw(self, manager: bytes, pieces: list[int]) -> None:
        self.do(self.box.withdraw(manager, pieces))

    @rule(manager=managers, pieces=numbers)
    def cancel(self, manager: bytes, pieces: list[int]) -> None:
        self.do(self.box.cancel(self.now, manager, pieces))

    @rule(manager=managers, pieces=numbers)
    def interrupt(self, manager: bytes, pieces: list[int]) -> None:
        self.do(self.box.interrupt(self.now, manager, pieces))

    @rule(manager=managers)
    def manager_lost(self, manager: bytes) -> None:
        self.do(self.box.manager_lost(self.now, manager))
        for key in [key for key in self.owed if key[0] == manager]:
            del self.owed[key]
        self.silent |= {key for key in self.running if key[0] == manager}
        assert manager not in self.box.managers()

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.box.tick(self.now))
        due = self.box.next_time()
        assert due is None or due > self.now

    @rule()
    def interrupt_running(self) -> None:
        self.do(self.box.interrupt_running(self.now))
        assert self.flagged == self.running

    @rule()
    def drain(self) -> None:
        self.do(self.box.drain())

    @invariant()
    def everything_owed_is_here(self) -> None:
        self.box.check_invariants()
        assert set(self.box.running) == self.running
        waiting = {key for key in self.owed if key not in self.running - self.silent}
        assert self.box.queued == len(waiting)
        assert self.box.managers() == {key[0] for key in self.owed}


InboxModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestInboxModel = InboxModel.TestCase
