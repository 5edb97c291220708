"""What may stop a piece in its midst, without a process, a socket or a signal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from opencluster.core.inbox import (
    CUT_SHORT,
    INTERRUPT,
    TIME_LIMIT,
    MakeWay,
    RaiseFlag,
    Waiting,
)
from opencluster.node.scoreboard import Scoreboard
from opencluster.serving.arrivals import Work
from opencluster.serving.outcomes import PieceInterrupt
from opencluster.serving.stops import LOOK_S, Stops

KEY = (b"manager", 7)
OTHER = (b"manager", 8)
PAST = -1e9
"""When pieces begin that should have looked about long ago."""


class Stage:
    """Stops, and what they asked for."""

    def __init__(self) -> None:
        self.board = Scoreboard.anonymous()
        self.turns = 0
        self.drains = 0
        self.stops = Stops(self.board, self.serve, self.drain, None)

    def serve(self) -> None:
        assert not self.stops.is_performing, "nothing may be raised in here"
        self.turns += 1

    def drain(self) -> None:
        self.drains += 1

    def begin(
        self, members: int = 1, limit_s: float = 0.0, now: float | None = None
    ) -> None:
        waiting = Waiting(*KEY, timeout_s=limit_s, members=members)
        self.stops.begin(
            Work(waiting, b"", ()), time.monotonic() if now is None else now
        )
        self.stops.is_performing = True


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    # those of the test run may raise, and would keep it from the sockets
    monkeypatch.setattr(
        "opencluster.serving.stops.has_handlers_besides", lambda ours: False
    )
    stage = Stage()
    yield stage
    stage.board.close()


def flag(key: tuple[bytes, int] = KEY) -> RaiseFlag:
    return RaiseFlag(key, INTERRUPT, 0.0)


def test_a_flag_ends_the_piece_where_it_looks(stage: Stage) -> None:
    stage.begin()
    stage.stops.check()
    stage.stops.flagged(flag())
    assert stage.stops.is_asked_to_stop()
    with pytest.raises(PieceInterrupt, match=INTERRUPT):
        stage.stops.check()


def test_a_flag_that_comes_before_its_piece_begins_counts(stage: Stage) -> None:
    stage.stops.flagged(flag())
    stage.begin()
    assert stage.stops.is_asked_to_stop()


def test_a_flag_for_another_piece_does_not_count(stage: Stage) -> None:
    stage.stops.flagged(flag(OTHER))
    stage.begin()
    stage.stops.flagged(flag(OTHER))
    assert not stage.stops.is_asked_to_stop()


def test_nothing_counts_for_a_piece_that_comes_once_more(stage: Stage) -> None:
    stage.begin()
    stage.stops.flagged(flag())
    stage.stops.asked_to_make_way(MakeWay(KEY))
    stage.stops.over()
    stage.stops.forget()
    stage.begin()
    assert not stage.stops.is_asked_to_stop()


def test_nothing_is_raised_when_the_code_of_the_user_does_not_run(stage: Stage) -> None:
    stage.begin()
    stage.stops.flagged(flag())
    stage.stops.is_performing = False
    stage.stops.check()
    stage.stops.asked_to_end(0, None)
    assert stage.drains == 1


def test_a_piece_makes_way_where_it_looks(stage: Stage) -> None:
    stage.begin()
    stage.stops.asked_to_make_way(MakeWay(KEY))
    assert not stage.stops.has_seen_way
    with pytest.raises(PieceInterrupt, match=CUT_SHORT):
        stage.stops.check()
    assert stage.stops.has_seen_way


def test_a_bundle_makes_way_between_two_of_its_pieces(stage: Stage) -> None:
    stage.begin(members=3)
    stage.stops.asked_to_make_way(MakeWay(KEY))
    stage.stops.check()
    assert not stage.stops.has_seen_way
    # the piece that goes on alone is asked by its own number
    stage.stops.left_alone(Work(Waiting(*OTHER), b"", ()))
    stage.stops.check()
    stage.stops.asked_to_make_way(MakeWay(OTHER))
    assert stage.stops.is_asked_to_stop()


def test_a_piece_that_looks_often_serves_the_sockets_seldom(stage: Stage) -> None:
    stage.begin(now=time.monotonic() + 60.0)
    stage.stops.check()
    assert stage.turns == 0
    stage.begin(now=PAST)
    stage.stops.check()
    assert stage.turns == 1
    assert stage.stops.is_performing


def test_what_could_be_broken_off_is_not_begun(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "opencluster.serving.stops.has_handlers_besides", lambda ours: True
    )
    stage.begin(now=PAST)
    stage.stops.check()
    assert stage.turns == 0


def test_a_forked_child_leaves_the_sockets_alone(stage: Stage) -> None:
    stage.stops.forked()
    stage.begin(now=PAST)
    stage.stops.check()
    assert stage.turns == 0


def test_who_is_asked_to_end_finishes_a_piece_that_is_in_time(stage: Stage) -> None:
    stage.begin(limit_s=60.0)
    stage.stops.asked_to_end(0, None)
    assert stage.drains == 1


def test_who_is_asked_to_end_gives_up_a_piece_that_is_overdue(stage: Stage) -> None:
    stage.begin(limit_s=LOOK_S, now=PAST)
    with pytest.raises(PieceInterrupt, match=TIME_LIMIT):
        stage.stops.asked_to_end(0, None)


def test_who_is_asked_to_end_gives_up_a_piece_that_was_to_end(stage: Stage) -> None:
    stage.begin()
    stage.stops.flagged(flag())
    with pytest.raises(PieceInterrupt, match=INTERRUPT):
        stage.stops.asked_to_end(0, None)
