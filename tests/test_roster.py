"""What a manager believes of what a worker says about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from opencluster.core.dispatch import Dispatch
from opencluster.core.entries import Delta, Entry, with_attributes
from opencluster.engines.roster import MAX_CONCURRENCY, Roster, concurrency_of
from opencluster.node.host import host_id

SERVICE = Entry("e1", "service", type="ephemeris")


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        *((n, n) for n in (0, 1, 8, MAX_CONCURRENCY)),
        (MAX_CONCURRENCY + 1, MAX_CONCURRENCY),
        (2**63, MAX_CONCURRENCY),
        *((wrong, 0) for wrong in (-1, True, None, "8", 1.5, [8], {})),
    ],
)
def test_how_many_pieces_a_process_runs_at_a_time(said: Any, believed: int) -> None:
    assert concurrency_of(with_attributes(SERVICE, concurrency=said)) == believed


def test_by_default_that_is_one() -> None:
    assert concurrency_of(SERVICE) == 0


class Sockets:
    """A reactor and its transport, where nothing listens anywhere."""

    schemes = ("ipc://",)

    def __init__(self) -> None:
        self.transport = self
        self.later: list[Callable[[], None]] = []

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)


@pytest.fixture
def sockets() -> Sockets:
    return Sockets()


@pytest.fixture
def roster(sockets: Sockets) -> Roster:
    reactor: Any = sockets
    return Roster(reactor, Dispatch(), list, "me")


def local() -> Entry:
    """Return the entry of a worker of this computer whose socket is gone."""
    nowhere = ("ipc:///nowhere/at-all.sock",)
    return Entry(
        "w1", "worker", type="T", name="T-1", host_id=host_id(), endpoints=nowhere
    )


def test_a_process_that_is_ending_is_no_cause_for_alarm(
    roster: Roster, sockets: Sockets, caplog: pytest.LogCaptureFixture
) -> None:
    roster.registry_changed(Delta(1, "w1", local()))
    roster.registry_changed(Delta(2, "w1", None))
    for callback in sockets.later:
        callback()
    assert not caplog.messages


def test_a_process_of_this_computer_that_is_not_found_is_told_of_once(
    roster: Roster, sockets: Sockets, caplog: pytest.LogCaptureFixture
) -> None:
    roster.registry_changed(Delta(1, "w1", local()))
    assert not caplog.messages
    for _ in range(3):
        later, sockets.later = sockets.later, []
        for callback in later:
            callback()
    (message,) = caplog.messages
    assert "cannot be reached from here" in message
