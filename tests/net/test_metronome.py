"""When heartbeats are due."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

import pytest

from opencluster.errors import FactoryUnreachable
from opencluster.net.metronome import Metronome
from opencluster.net.reactor import Reactor, Timer

INTERVAL_S = 1.0
LEASE_S = 10.0


class Timers:
    """Plays the reactor."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Timer]] = []

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        self.set.append((delay_s, Timer(callback, 0.0)))
        return self.set[-1][1]

    @property
    def waiting(self) -> list[float]:
        return [delay_s for delay_s, timer in self.set if not timer.is_cancelled]

    def fire(self) -> None:
        [timer] = [timer for _, timer in self.set if not timer.is_cancelled]
        self.set.clear()
        timer.callback()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def beats() -> list[str]:
    return []


@pytest.fixture
def metronome(timers: Timers, beats: list[str]) -> Metronome:
    reactor = cast(Reactor, timers)
    return Metronome(reactor, INTERVAL_S, LEASE_S, lambda: beats.append("beat"))


def answer(**body: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(body)
    return future


def test_it_beats_again_and_again(
    metronome: Metronome, timers: Timers, beats: list[str]
) -> None:
    metronome.start()
    for count in range(3):
        assert len(beats) == count
        assert timers.waiting == [INTERVAL_S]
        timers.fire()


def test_it_begins_when_it_is_told(metronome: Metronome, timers: Timers) -> None:
    metronome.start(0.3)
    assert timers.waiting == [0.3]


def test_a_factory_says_how_often_and_when_next(
    metronome: Metronome, timers: Timers
) -> None:
    metronome.start()
    timers.fire()
    metronome.answered(answer(heartbeat_interval_s=2.5, heartbeat_in_s=2.53))
    assert timers.waiting == [2.53]
    timers.fire()
    assert timers.waiting == [2.5]


@pytest.mark.parametrize(
    "wanted", [None, "2.5", True, 0.0, 5e-324, 0.009, -1.0, 5.1, 1e9, float("nan")]
)
def test_what_makes_no_sense_changes_nothing(
    metronome: Metronome, timers: Timers, wanted: Any
) -> None:
    metronome.start()
    metronome.answered(answer(heartbeat_interval_s=wanted, heartbeat_in_s=wanted))
    assert timers.waiting == [INTERVAL_S]
    timers.fire()
    assert timers.waiting == [INTERVAL_S]


@pytest.mark.parametrize("body", [None, 7, [], "beat"])
def test_no_answer_changes_nothing(
    metronome: Metronome, timers: Timers, body: Any
) -> None:
    metronome.start()
    strange: Future[Any] = Future()
    strange.set_result(body)
    refused: Future[Any] = Future()
    refused.set_exception(FactoryUnreachable("nobody there"))
    for asked in (strange, refused):
        metronome.answered(asked)
    assert timers.waiting == [INTERVAL_S]
