"""What a manager believes of what a worker says about itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from opencluster.core.dispatch import Dispatch, Piece
from opencluster.core.entries import Delta, Entry, with_attributes
from opencluster.engines import roster as roster_module
from opencluster.engines.directory import Contact
from opencluster.engines.roster import MAX_CONCURRENCY, Roster, concurrency_of
from opencluster.errors import NoSuitableWorker
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


class Listener(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Return what is said, although simulations silence this logger."""
    log, listener = logging.getLogger(roster_module.__name__), Listener()
    level = log.level
    log.setLevel(logging.WARNING)
    log.addHandler(listener)
    yield listener.messages
    log.removeHandler(listener)
    log.setLevel(level)


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
    roster: Roster, sockets: Sockets, warnings: list[str]
) -> None:
    roster.registry_changed(Delta(1, "w1", local()))
    roster.registry_changed(Delta(2, "w1", None))
    for callback in sockets.later:
        callback()
    assert not warnings


def test_a_process_of_this_computer_that_is_not_found_is_told_of_once(
    roster: Roster, sockets: Sockets, warnings: list[str]
) -> None:
    roster.registry_changed(Delta(1, "w1", local()))
    assert not warnings
    for _ in range(3):
        later, sockets.later = sockets.later, []
        for callback in later:
            callback()
    (message,) = warnings
    assert "cannot be reached from here" in message


class Farewells:
    """Notes who is said to leave."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def joined(self, contact: Contact) -> None:
        raise AssertionError

    def draining(self, contact: Contact) -> None:
        self.names.append(contact.id)

    def lost(self, contact: Contact, why: str, is_process_death: bool) -> None:
        raise AssertionError


def test_workers_of_a_computer_that_is_drained_leave(roster: Roster) -> None:
    roster.watcher = farewells = Farewells()
    for id, shop in (("w1", "here"), ("w2", "here"), ("w3", "there")):
        entry = Entry(id, "worker", type="T", workshop=shop)
        roster.directory.contacts[id] = Contact(entry, "", id.encode())
        roster._dispatch.worker_joined(0.0, id, "T")
    for number, is_drained in enumerate((False, True)):
        entry = Entry("here", "workshop", attributes={"is_drained": is_drained})
        roster.registry_changed(Delta(number, "here", entry))
        assert farewells.names == ["w1", "w2"] * is_drained
    effects = roster._dispatch.submit(1.0, [Piece(n, "T") for n in range(4)])
    assert {effect.worker for effect in effects} == {"w3"}


def test_a_worker_that_will_come_is_waited_for(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster_module, "LOOK_S", 0.001)
    looks = 0

    class Until:
        """Types of which workers will come, until it was asked often enough."""

        def __contains__(self, type: object) -> bool:
            nonlocal looks
            looks += 1
            assert roster.awaited["T"] == 0
            return looks < 5

    roster.expected = cast(Any, Until())
    with pytest.raises(NoSuitableWorker):
        roster.wait_for("T", 0.0)
    assert looks == 5
