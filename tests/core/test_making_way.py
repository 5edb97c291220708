"""Real-time pieces at a worker: they go first, and what runs makes way in time."""

from __future__ import annotations

import math

import pytest

from opencluster.core.inbox import (
    INTERRUPT,
    Inbox,
    MakeWay,
    RaiseFlag,
    ReturnPiece,
    Waiting,
)

M, N = b"manager", b"other manager"


def batch(*pieces: int, manager: bytes = M, priority: int = 0) -> list[Waiting]:
    return [Waiting(manager, piece, priority) for piece in pieces]


def urgent(
    *pieces: int,
    due_at: float = 0.0,
    manager: bytes = N,
    priority: int = 0,
    nbytes: int = 0,
) -> list[Waiting]:
    return [
        Waiting(manager, piece, priority, nbytes=nbytes, due_at=due_at)
        for piece in pieces
    ]


def running(*, mean_s: float | None = None, since: float = 10.0) -> Inbox:
    """Return an inbox where piece 1 runs, and such pieces took this long."""
    box = Inbox()
    box.receive(batch(0, 1))
    box.start(0.0)
    box.finish((M, 0), mean_s)
    box.start(since)
    return box


def started(box: Inbox) -> tuple[bytes, int] | None:
    piece = box.start(0.0)
    box.check_invariants()
    return piece.key if piece else None


# --- order -----------------------------------------------------------------------


def test_real_time_pieces_go_first_whoever_sent_them() -> None:
    box = Inbox()
    box.receive(batch(1, priority=2**63 - 1))
    box.receive(urgent(2, 3, priority=-(2**63 - 1)))
    box.receive(urgent(4, manager=M))
    order = [started(box) for _ in range(5)]
    assert order == [(M, 4), (N, 2), (N, 3), (M, 1), None]


# --- making way ------------------------------------------------------------------


def test_what_may_run_for_any_time_makes_way_at_once() -> None:
    box = running()
    box.receive(urgent(2, due_at=99.0))
    assert box.next_time() == 10.0
    assert box.tick(12.0) == [MakeWay((M, 1))]
    assert box.next_time() is None
    assert box.tick(13.0) == []
    box.check_invariants()


@pytest.mark.parametrize(
    ("mean_s", "due_at", "cut_at"),
    [
        # it would go on till 15, which is too late
        (5.0, 14.0, 12.0),
        # it will be over in time; if it is not, it makes way then
        (5.0, 15.0, 15.0),
        # it should be over by now
        (1.0, 14.0, 14.0),
        (1.0, 12.0, 12.0),
    ],
)
def test_what_runs_makes_way_at_once_or_when_it_is_too_late(
    mean_s: float, due_at: float, cut_at: float
) -> None:
    box = running(mean_s=mean_s)
    box.receive(urgent(2, due_at=due_at))
    early = [] if cut_at > 12.0 else [MakeWay((M, 1))]
    assert box.tick(12.0) == early
    if not early:
        assert box.next_time() == cut_at
        assert box.tick(cut_at - 0.1) == []
        assert box.tick(cut_at) == [MakeWay((M, 1))]


def test_the_piece_that_is_due_first_counts() -> None:
    box = running(mean_s=5.0)
    box.receive(urgent(2, due_at=20.0))
    assert box.tick(11.0) == []
    box.receive(urgent(3, due_at=12.0))
    assert box.tick(11.0) == [MakeWay((M, 1))]


def test_the_length_of_pieces_is_a_running_mean_of_batch_pieces_that_were_done() -> (
    None
):
    box = running(mean_s=1.0)
    box.finish((M, 1), None)
    box.receive(urgent(2, due_at=0.0))
    box.start(0.0)
    box.finish((N, 2), 100.0)
    box.receive(batch(3))
    box.start(0.0)
    box.finish((M, 3), 2.0)
    box.receive(batch(4))
    box.start(0.0)
    box.receive(urgent(5, due_at=1.2))
    assert box.tick(0.0) == []
    box.receive(urgent(6, due_at=1.1))
    assert box.tick(0.0) == [MakeWay((M, 4))]


@pytest.mark.parametrize("mean_s", [None, 5.0])
def test_nothing_makes_way_for_a_piece_that_may_wait_for_ever(
    mean_s: float | None,
) -> None:
    box = running(mean_s=mean_s)
    box.receive(urgent(2, due_at=math.inf))
    assert box.next_time() is None
    assert box.tick(1e9) == []
    assert started(box) == (N, 2)


def test_a_real_time_piece_makes_way_for_none() -> None:
    box = Inbox()
    box.receive(urgent(1, due_at=0.0))
    box.start(0.0)
    box.receive(urgent(2, due_at=0.0, priority=9))
    assert box.tick(99.0) == []


def test_a_piece_that_was_cut_short_often_enough_makes_way_for_none() -> None:
    box = Inbox()
    box.receive([batch(1)[0]._replace(may_be_cut=False)])
    box.start(0.0)
    box.receive(urgent(2))
    assert box.tick(99.0) == []
    assert box.next_time() is None


def test_what_is_interrupted_already_is_not_asked_to_make_way() -> None:
    box = running()
    box.receive(urgent(2))
    (flag,) = box.interrupt(11.0, M, [1])
    assert isinstance(flag, RaiseFlag)
    assert box.tick(11.0) == []


def test_what_makes_way_can_be_interrupted() -> None:
    box = running()
    box.receive(urgent(2))
    box.tick(11.0)
    (flag,) = box.interrupt(12.0, M, [1])
    assert isinstance(flag, RaiseFlag)
    assert flag.reason == INTERRUPT


def test_the_next_batch_piece_makes_way_again() -> None:
    box = running()
    box.receive(urgent(2))
    box.tick(11.0)
    box.finish((M, 1))
    assert started(box) == (N, 2)
    box.finish((N, 2))
    box.receive(batch(1))
    assert started(box) == (M, 1)
    box.receive(urgent(3))
    assert box.tick(11.0) == [MakeWay((M, 1))]


@pytest.mark.parametrize("leave", ["withdraw", "start", "lose", "drain"])
def test_nothing_makes_way_for_what_waits_no_longer(leave: str) -> None:
    box = running()
    box.receive(urgent(2))
    match leave:
        case "withdraw":
            assert box.withdraw(N, [2]) == [ReturnPiece((N, 2))]
        case "start":
            box.start(10.0)
        case "lose":
            box.manager_lost(10.0, N)
        case "drain":
            box.drain()
    box.check_invariants()
    assert box.tick(99.0) == []


def test_where_several_run_none_makes_way() -> None:
    box = Inbox(makes_way=False)
    box.receive(batch(1))
    box.start(0.0)
    box.receive(urgent(2))
    assert box.tick(99.0) == []


# --- bundles ---------------------------------------------------------------------


def test_a_bundle_makes_way_at_once() -> None:
    box = running(mean_s=1e-6)
    box.finish((M, 1))
    box.receive([batch(10)[0]._replace(members=5)])
    box.start(20.0)
    box.receive(urgent(2, due_at=99.0))
    assert box.tick(20.0) == [MakeWay((M, 10))]


@pytest.mark.parametrize("place", [0, 3])
def test_a_piece_of_a_bundle_that_goes_on_alone_makes_way_like_any(place: int) -> None:
    box = Inbox()
    box.receive([batch(10)[0]._replace(members=5)])
    box.start(20.0)
    box.receive(urgent(2, due_at=99.0))
    box.tick(20.0)
    alone = box.leave_alone((M, 10), place, None)
    assert alone is not None
    assert box.tick(20.1) == [MakeWay((M, 10 + place))]


# --- room ------------------------------------------------------------------------


def test_batch_pieces_take_up_no_room_of_real_time_pieces() -> None:
    box = Inbox(max_queued=2, max_queued_bytes=100)
    box.receive([piece._replace(nbytes=50) for piece in batch(1, 2)])
    assert box.receive(urgent(3, 4, 5, nbytes=50)) == [ReturnPiece((N, 5))]
    box.check_invariants()
    assert box.receive(batch(6)) == [ReturnPiece((M, 6))]


def test_real_time_pieces_are_bounded_in_bytes_too() -> None:
    box = Inbox(max_queued_bytes=100)
    assert box.receive(urgent(1, nbytes=500)) == []
    assert box.receive(urgent(2, nbytes=1)) == [ReturnPiece((N, 2))]
    box.check_invariants()
    assert started(box) == (N, 1)
    assert box.receive(urgent(2, 3, nbytes=50)) == []
    assert box.receive(urgent(4, nbytes=1)) == [ReturnPiece((N, 4))]
