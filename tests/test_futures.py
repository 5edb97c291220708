"""Futures of pieces are futures like any other, for all that Python does with them."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import Any, cast

import pytest

from opencluster.engines.base import Engine
from opencluster.errors import PieceCancelled
from opencluster.futures import PieceFuture

DEADLINE_S = 30.0


class FakeEngine:
    """Waits as an engine does that others keep going."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []

    def wait(self, is_over: Any, timeout_s: float | None = None) -> bool:
        pause = threading.Event()
        for _ in range(int((DEADLINE_S if timeout_s is None else timeout_s) / 0.01)):
            if is_over():
                return True
            pause.wait(0.01)
        return bool(is_over())

    def cancel(self, numbers: list[int]) -> None:
        self.cancelled += numbers


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def future(engine: FakeEngine) -> PieceFuture:
    return PieceFuture(cast(Engine, engine), None)


def test_one_knows_nothing_of_the_others(engine: FakeEngine) -> None:
    one, two = future(engine), future(engine)
    seen: list[futures.Future[Any]] = []
    one.add_done_callback(seen.append)
    one.set_result(1)
    assert one.done() and one.result() == 1 and seen == [one]
    assert two.running() and not two.done()
    with pytest.raises(futures.TimeoutError):
        two.result(0.05)
    two.set_exception(ValueError("two"))
    assert seen == [one] and one.exception() is None
    with pytest.raises(ValueError, match="two"):
        two.result()


def test_a_result_is_waited_for(engine: FakeEngine) -> None:
    later = future(engine)
    threading.Timer(0.05, later.set_result, ["there"]).start()
    assert later.result(DEADLINE_S) == "there"


@pytest.mark.parametrize("when", [futures.FIRST_COMPLETED, futures.ALL_COMPLETED])
def test_several_are_waited_for(engine: FakeEngine, when: str) -> None:
    made = [future(engine) for _ in range(5)]
    for n, one in enumerate(made):
        threading.Timer(0.02 * (n + 1), one.set_result, [n]).start()
    done, rest = futures.wait(made, DEADLINE_S, when)
    assert len(done) == 5 if when == futures.ALL_COMPLETED else 1 <= len(done) < 5
    assert len(done) + len(rest) == 5


def test_they_come_as_they_are_completed(engine: FakeEngine) -> None:
    made = [future(engine) for _ in range(3)]
    for n, one in enumerate(made):
        threading.Timer(0.1 * (3 - n), one.set_result, [n]).start()
    assert [f.result() for f in futures.as_completed(made, DEADLINE_S)] == [2, 1, 0]


def test_a_result_is_set_once(engine: FakeEngine) -> None:
    one = future(engine)
    one.set_result(1)
    with pytest.raises(futures.InvalidStateError):
        one.set_result(2)


def test_cancelling_withdraws_the_piece(engine: FakeEngine) -> None:
    one = future(engine)
    one.numbers = [7]
    assert one.cancel() and engine.cancelled == [7]
    assert not one.cancelled()
    one.set_exception(PieceCancelled("withdrawn"))
    assert one.cancelled() and not one.cancel()
