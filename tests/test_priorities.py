"""Classes of pieces: what can be asked for, and what a manager's own class does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest

from opencluster import Manager, Worker, WorkPiece
from opencluster.config import load
from opencluster.engines.base import Done, Job, Options, Outcome
from opencluster.priorities import Urgency, urgency
from opencluster.wire import codec


@pytest.mark.parametrize(
    ("priority", "deadline_s", "default", "expected"),
    [
        (None, None, "batch", (0, None)),
        (None, None, 7, (7, None)),
        (None, None, "realtime", (0, 0.5)),
        ("batch", None, "batch", (0, None)),
        ("batch", None, "realtime", (0, None)),
        ("realtime", None, "batch", (0, 0.5)),
        ("realtime", 2.0, 7, (0, 2.0)),
        (3, None, "batch", (3, None)),
        (3, None, "realtime", (3, 0.5)),
        (3, None, 7, (3, None)),
        (3, 2.0, "batch", (3, 2.0)),
        (None, 0.0, "batch", (0, 0.0)),
        (None, 2.0, "realtime", (0, 2.0)),
    ],
)
def test_a_piece_is_as_urgent_as_its_user_says(
    priority: Any, deadline_s: Any, default: Any, expected: Urgency
) -> None:
    assert urgency(priority, deadline_s, default, 0.5) == expected


@pytest.mark.parametrize("wrong", ["high", "Realtime", ""])
def test_a_class_that_does_not_exist_is_refused_with_those_that_do(wrong: str) -> None:
    for said, default in ((wrong, "batch"), (None, wrong), (1, wrong)):
        with pytest.raises(ValueError, match=r"'realtime', 'batch', or an integer"):
            urgency(said, None, default)


def test_a_batch_piece_with_a_deadline_is_refused() -> None:
    with pytest.raises(ValueError, match="deadline_s is for pieces of priority"):
        urgency("batch", 1.0)


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
def test_a_deadline_that_is_no_time_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        Options(deadline_s=wrong)


def test_real_time_pieces_are_sent_by_themselves() -> None:
    assert Options().may_be_bundled
    assert not Options(deadline_s=0.1).may_be_bundled
    assert Options(deadline_s=math.inf).deadline_s == math.inf


class Listener:
    """An engine that only takes down how pieces are to be run."""

    is_immediate = True

    def __init__(self) -> None:
        self.asked: list[Options] = []

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        self.asked += [options for _, options in pieces]
        done(1, Outcome(*codec.encode(WorkPiece())))
        return [1]

    def report(self, job: Job) -> None:
        """Nobody is there to be told."""


class PictureManager(Manager):
    """A manager whose pieces are real-time pieces."""

    priority = "realtime"
    deadline_s = 0.25


def asked(manager: Manager, **options: Any) -> tuple[int, float | None]:
    """Return how a manager has a piece run."""
    listener: Any = Listener()
    manager.__dict__["_choice"] = _Choice(listener)
    manager.submit("T", WorkPiece(), **options)
    (found,) = listener.asked
    return found.priority, found.deadline_s


class _Choice:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def engine(self, config: Any) -> Any:
        return self._engine


def test_a_manager_has_a_class_for_all_of_its_pieces() -> None:
    assert asked(PictureManager()) == (0, 0.25)
    assert asked(PictureManager(), priority=2) == (2, 0.25)
    assert asked(PictureManager(), deadline_s=3) == (0, 3.0)
    assert asked(PictureManager(), priority="batch") == (0, None)


def test_without_a_word_pieces_are_batch_pieces() -> None:
    assert asked(Manager()) == (0, None)
    assert asked(Manager(), priority=2) == (2, None)


def test_how_long_a_real_time_piece_waits_is_a_setting() -> None:
    default_s = load().manager.deadline_s
    assert default_s > 0.0
    assert asked(Manager(), priority="realtime") == (0, default_s)


def test_the_class_of_a_manager_can_be_changed_while_it_works() -> None:
    manager = Manager()
    assert asked(manager) == (0, None)
    manager.priority = "realtime"
    manager.deadline_s = 1.5
    assert asked(manager) == (0, 1.5)
    manager.priority = 4
    assert asked(manager) == (4, None)


def test_how_many_workers_a_piece_may_end_is_a_managers_too() -> None:
    listener: Any = Listener()
    manager = Manager()
    manager.__dict__["_choice"] = _Choice(listener)
    for kills in (None, 1, 5):
        manager.max_kills = kills
        manager.submit("T", WorkPiece())
    assert [options.max_kills for options in listener.asked] == [None, 1, 5]
    manager.max_kills = 0
    with pytest.raises(ValueError, match="max_kills must be at least 1"):
        manager.submit("T", WorkPiece())


def test_a_wrong_class_is_refused_before_anything_is_submitted() -> None:
    listener: Any = Listener()
    manager = Manager()
    manager.__dict__["_choice"] = _Choice(listener)
    with pytest.raises(ValueError, match="'urgent'"):
        manager.submit("T", WorkPiece(), priority="urgent")
    with pytest.raises(ValueError, match="'urgent'"):
        list(manager.map("T", [WorkPiece()], priority="urgent"))
    assert listener.asked == []


def test_pieces_of_both_classes_run_in_this_process_as_they_come() -> None:
    order: list[int] = []

    class OrderWorker(Worker):
        worker_type = "OrderOfClasses"

        def perform(self, work: WorkPiece) -> WorkPiece:
            order.append(work["number"])
            return WorkPiece()

    manager = Manager("local")
    for number, priority in enumerate(("batch", "realtime", 3)):
        manager.submit(
            OrderWorker.worker_type, WorkPiece(number=number), priority=priority
        ).result()
    assert order == [0, 1, 2]
