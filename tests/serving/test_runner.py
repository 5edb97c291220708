"""How a worker runs what came in, without a process or a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from opencluster import Worker, WorkPiece
from opencluster.core.inbox import CANCELLED, INTERRUPT, RaiseFlag, Waiting
from opencluster.serving.outbox import Answer
from opencluster.serving.runner import Runner
from opencluster.wire import codec

MANAGER = b"\0manager"
FIRST = 10


class Stage:
    """A runner, what is performed in it, and what it answers.

    ``perform`` maps numbers of pieces to what they do instead of returning ``n``.
    """

    def __init__(self) -> None:
        self.perform: dict[int, Callable[[], Any]] = {}
        self.begun: list[int] = []
        self.runner = Runner(_Actor(self), "T")
        self.station = self.runner._station

    def receive(self, first: int, members: int) -> None:
        payloads = [
            codec.encode(WorkPiece(n=n))[0] for n in range(first, first + members)
        ]
        data = (payloads if members > 1 else payloads[0], ())
        waiting = Waiting(MANAGER, first, data=data, members=members)
        with self.station._mutex:
            effects = self.station._inbox.receive([waiting])
        assert effects == []

    def serve(self) -> None:
        """Run what came in."""
        self.runner.serve()

    def flag(self, number: int, reason: str) -> None:
        """Do as the thread does that serves the sockets when it is told to stop one."""
        inbox = self.station._inbox
        (flag,) = inbox.interrupt(0.0, MANAGER, [number], reason)
        assert isinstance(flag, RaiseFlag)
        self.runner._stops.flagged(flag)

    @property
    def answers(self) -> list[tuple[int, Answer]]:
        return self.station._outbox._answers.get(MANAGER, [])

    @property
    def statuses(self) -> list[tuple[int, Any]]:
        """Return the statuses in the answers, of bundles a list."""
        return [
            (
                number,
                [answer.status, *("done" if type(o) is bytes else o[0] for o in rows)]
                if type(rows := answer.payload) is list
                else answer.status,
            )
            for number, answer in self.answers
        ]


class _Actor(Worker):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def perform(self, work: WorkPiece) -> Any:
        number = work["n"]
        self.stage.begun.append(number)
        do = self.stage.perform.get(number)
        if do is not None:
            do()
        return work


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def made(**settings: int) -> Stage:
        monkeypatch.setenv("OPENCLUSTER_DIR", str(tmp_path))
        for name, value in settings.items():
            monkeypatch.setenv(f"OPENCLUSTER_WORKER_{name.upper()}", str(value))
        stage = Stage()
        # nobody serves the sockets; it ends when nothing is left to do
        station = stage.station
        monkeypatch.setattr(
            station, "serve", lambda when_idle: station._start_next() or when_idle()
        )
        # pieces of a few microseconds may take long on a busy machine
        monkeypatch.setattr("opencluster.serving.bundle.ENOUGH_S", 60.0)
        stages.append(stage)
        return stage

    yield made
    for stage in stages:
        stage.station.transport.close()
        stage.runner._scoreboard.close()


def fail() -> None:
    raise ValueError("no")


def test_a_bundle_is_performed_in_order_and_answered_as_one(
    make: Callable[..., Stage],
) -> None:
    stage = make()
    stage.receive(FIRST, 3)
    stage.receive(FIRST + 3, 1)
    stage.perform[FIRST + 1] = fail
    stage.serve()
    assert stage.begun == [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]
    assert stage.statuses == [
        (FIRST, ["bundle", "done", "failed", "done"]),
        (FIRST + 3, "done"),
    ]
    reading = stage.runner._scoreboard.read()
    assert (reading.pieces_done, reading.pieces_failed) == (3, 1)


def test_the_scoreboard_tells_which_piece_of_a_bundle_runs(
    make: Callable[..., Stage],
) -> None:
    stage = make()
    seen: list[str] = []
    for number in range(FIRST, FIRST + 3):
        stage.perform[number] = lambda: seen.append(
            stage.runner._scoreboard.read().piece.partition(":")[2]
        )
    stage.receive(FIRST, 3)
    stage.serve()
    assert seen == ["10+0", "10+1", "10+2"]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_pieces_of_a_bundle_are_performed_than_a_worker_may(
    make: Callable[..., Stage], most: int
) -> None:
    stage = make(max_pieces=most)
    stage.receive(FIRST, 4)
    stage.receive(FIRST + 4, 4)
    stage.serve()
    assert stage.begun == list(range(FIRST, FIRST + most))
    assert stage.statuses == [(FIRST, ["bundle"] + ["done"] * most)]


def test_a_worker_that_is_to_end_begins_no_other_piece_of_a_bundle(
    make: Callable[..., Stage],
) -> None:
    stage = make()
    stage.perform[FIRST + 1] = stage.station.drain
    stage.receive(FIRST, 4)
    stage.serve()
    assert stage.statuses == [(FIRST, ["bundle", "done", "done"])]


def test_a_cancelled_bundle_ends_with_the_piece_that_runs(
    make: Callable[..., Stage],
) -> None:
    stage = make()

    def cancelled() -> None:
        stage.flag(FIRST, CANCELLED)
        stage.runner.progress(1, 2)

    stage.perform[FIRST + 1] = cancelled
    stage.receive(FIRST, 4)
    stage.serve()
    assert stage.begun == [FIRST, FIRST + 1]
    assert stage.statuses == [(FIRST, ["bundle", "done", "cancelled"])]


def test_the_piece_that_was_left_alone_is_answered_and_the_others_are_not_performed(
    make: Callable[..., Stage],
) -> None:
    stage = make()
    stage.perform[FIRST + 1] = stage.station.bundles.cut
    stage.receive(FIRST, 4)
    stage.serve()
    assert stage.begun == [FIRST, FIRST + 1]
    assert stage.statuses == [(FIRST, ["cut", "done"]), (FIRST + 1, "done")]
    assert stage.station._inbox.running == []


def test_the_piece_that_was_left_alone_is_interrupted_by_its_number(
    make: Callable[..., Stage],
) -> None:
    stage = make()

    def interrupted() -> None:
        stage.station.bundles.cut()
        assert not stage.runner.worker.interrupted
        stage.flag(FIRST + 1, INTERRUPT)
        stage.runner.progress(1, 2)

    stage.perform[FIRST + 1] = interrupted
    stage.runner.worker._runner = stage.runner
    stage.receive(FIRST, 4)
    stage.serve()
    assert stage.statuses == [(FIRST, ["cut", "done"]), (FIRST + 1, "interrupted")]


def test_a_bundle_that_nobody_waits_for_is_given_up_without_an_answer(
    make: Callable[..., Stage],
) -> None:
    stage = make()

    def alone() -> None:
        stage.station._inbox.manager_lost(0.0, MANAGER)
        stage.station.bundles.cut()

    stage.perform[FIRST + 1] = alone
    stage.receive(FIRST, 4)
    stage.serve()
    assert stage.begun == [FIRST, FIRST + 1]
    assert stage.answers == []
    assert stage.station._inbox.running == []


@pytest.mark.parametrize("members", [1, 3])
def test_a_flag_counts_for_the_run_that_it_was_raised_in(
    make: Callable[..., Stage], members: int
) -> None:
    stage = make()
    interrupted: list[bool] = []
    stage.runner.worker._runner = stage.runner
    stage.perform[FIRST] = lambda: stage.flag(FIRST, CANCELLED)
    stage.receive(FIRST, members)
    stage.serve()
    # it is sent once more, as after a break of the connection
    stage.perform[FIRST] = lambda: interrupted.append(stage.runner.worker.interrupted)
    stage.receive(FIRST, 1)
    stage.serve()
    assert interrupted == [False]
