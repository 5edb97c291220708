"""The factory over real sockets, asked through the links that everyone uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from opencluster.config import Config, load
from opencluster.core.entries import Delta, Entry
from opencluster.errors import (
    FactoryUnreachable,
    RequestRefused,
    SecurityError,
)
from opencluster.factory import Factory
from opencluster.net.link import FactoryLink
from opencluster.net.reactor import Reactor
from opencluster.net.transport import PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.place import listening_endpoint
from opencluster.wire import frames

DEADLINE_S = 20.0


def settings(**values: str) -> Config:
    """Return the defaults with a quick heartbeat."""
    quick = {("cluster", "heartbeat_interval_s"): "0.1", ("cluster", "lease_s"): "0.5"}
    own = {tuple(name.split("__", 1)): value for name, value in values.items()}
    return load(files=[], environ={}, overrides=quick | own)


class Client:
    """A process's link to the factory, with what it was told."""

    def __init__(self, endpoint: str) -> None:
        self.deltas: list[Delta] = []
        self.reactor = Reactor(ZmqTransport(), self._event)
        self.link = FactoryLink(self.reactor, lambda: [[endpoint]], timeout_s=2.0)
        self.reactor.start()

    def ask(self, operation: str, **arguments: Any) -> Any:
        return self.link.request(operation, arguments, DEADLINE_S).result(DEADLINE_S)

    def register(self, identity: str, type: str = "T") -> None:
        entry = Entry(identity, "worker", type, identity)
        self.ask("register", entries=[entry.to_fields()])

    def here(self) -> set[str]:
        return set(self.link.replica.entries)

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join(DEADLINE_S)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self.link.peer_lost(event.peer)
        elif isinstance(event, Received):
            self.link.received(event.peer, frames.unpack(event.header))


class Running:
    """A factory in a thread of this process."""

    def __init__(self, endpoint: str, state: Path, config: Config) -> None:
        self.factory = Factory(config, [endpoint], state)
        self.thread = threading.Thread(target=self.factory.run)
        self.thread.start()

    def stop(self) -> None:
        self.factory.stop()
        self.thread.join(DEADLINE_S)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/factory.sock"


@pytest.fixture
def factory(endpoint: str, tmp_path: Path) -> Iterator[Running]:
    running = Running(endpoint, tmp_path / "state", settings())
    yield running
    running.stop()


@pytest.fixture
def clients(endpoint: str) -> Iterator[Callable[[], Client]]:
    made: list[Client] = []

    def make() -> Client:
        made.append(Client(endpoint))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_what_is_registered_is_found(
    factory: Running, clients: Callable[[], Client]
) -> None:
    clients().register("w1")
    found = clients().ask("find", kind="worker", type="T")
    assert [entry["id"] for entry in found] == ["w1"]
    assert clients().ask("find", kind="worker", type="other") == []


def test_a_subscriber_learns_of_who_comes_and_goes(
    factory: Running, clients: Callable[[], Client]
) -> None:
    watcher, worker = clients(), clients()
    worker.register("early")
    watcher.link.subscribe(watcher.deltas.append)
    wait_until(lambda: watcher.here() == {"early"})
    worker.register("late")
    wait_until(lambda: watcher.here() == {"early", "late"})
    worker.ask("deregister", id="early", cause={"reason": "killed by SIGKILL"})
    wait_until(lambda: watcher.here() == {"late"})
    last = watcher.deltas[-1]
    assert (last.id, last.entry) == ("early", None)
    assert last.cause is not None
    assert last.cause["reason"] == "killed by SIGKILL"


def test_a_lease_that_is_not_renewed_ends(
    factory: Running, clients: Callable[[], Client]
) -> None:
    watcher = clients()
    watcher.link.subscribe(watcher.deltas.append)
    clients().register("silent")
    wait_until(lambda: any(d.entry is None for d in watcher.deltas))
    cause = watcher.deltas[-1].cause
    assert cause is not None
    assert "no sign of life" in cause["reason"]


def test_a_late_renewal_asks_to_register_again(
    factory: Running, clients: Callable[[], Client]
) -> None:
    assert clients().ask("renew", ids=["forgotten"])["unknown"] == ["forgotten"]


def test_a_request_waits_for_a_factory_that_comes_later(
    endpoint: str, tmp_path: Path, clients: Callable[[], Client]
) -> None:
    asked: Future[Any] = clients().link.request("hello", {}, DEADLINE_S)
    running = Running(endpoint, tmp_path / "state", settings())
    try:
        assert asked.result(DEADLINE_S)["role"] == "leader"
    finally:
        running.stop()


def test_without_a_factory_a_request_fails_in_time_and_says_what_was_tried(
    clients: Callable[[], Client],
) -> None:
    asked = clients().link.request("hello", {}, 0.1)
    with pytest.raises(FactoryUnreachable, match="factory.sock"):
        asked.result(DEADLINE_S)


def test_a_subscriber_follows_a_factory_that_was_replaced(
    endpoint: str, tmp_path: Path, clients: Callable[[], Client]
) -> None:
    first = Running(endpoint, tmp_path / "state", settings())
    watcher, worker = clients(), clients()
    watcher.link.subscribe(watcher.deltas.append)
    worker.register("old")
    wait_until(lambda: watcher.here() == {"old"})
    first.stop()
    second = Running(endpoint, tmp_path / "state", settings())
    try:
        worker.register("new")
        assert second.factory.epoch.number == first.factory.epoch.number + 1
        wait_until(lambda: watcher.here() == {"new"})
    finally:
        second.stop()


def test_unknown_and_malformed_requests_are_refused(
    factory: Running, clients: Callable[[], Client]
) -> None:
    client = clients()
    with pytest.raises(RequestRefused, match="known: .*register"):
        client.ask("explode")
    with pytest.raises(RequestRefused, match="malformed"):
        client.ask("register")
    with pytest.raises(RequestRefused, match="kind"):
        client.ask("register", entries=[{"id": "x", "kind": "pirate"}])


def test_garbage_is_counted_and_the_factory_lives_on(
    factory: Running, clients: Callable[[], Client], endpoint: str
) -> None:
    client = clients()
    assert client.ask("hello")["role"] == "leader"
    stranger = ZmqTransport()
    peer = stranger.connect(endpoint)
    version_two = b"OC\x02\x00" + frames.pack("request", 1, "hello", {})[4:]
    for header in (b"", b"garbage", version_two, frames.pack("surprise")):
        stranger.send(peer, header)
    counted = lambda: client.ask("status")["factories"][0]["rejected_messages"]  # noqa: E731
    wait_until(lambda: counted() == 4)
    stranger.close()


def test_job_statistics_are_kept(
    factory: Running, clients: Callable[[], Client]
) -> None:
    client = clients()
    client.ask("job", job={"id": "j", "state": "running", "pieces_done": 1})
    client.ask("job", job={"id": "j", "state": "done", "pieces_done": 2})
    (job,) = client.ask("status")["jobs"]
    assert (job["state"], job["pieces_done"]) == ("done", 2)


def test_a_job_whose_manager_is_gone_is_lost(
    factory: Running, clients: Callable[[], Client]
) -> None:
    client = clients()
    client.ask("job", job={"id": "j", "state": "running"})
    wait_until(lambda: client.ask("status")["jobs"][0]["state"] == "lost")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
def test_strangers_are_kept_out_unless_told_otherwise(host: str) -> None:
    with pytest.raises(SecurityError, match="insecure"):
        listening_endpoint(settings(), host, 9100)
    open_config = settings(cluster__insecure="true")
    assert listening_endpoint(open_config, host, 9100) == f"tcp://{host}:9100"


def test_the_star_stands_for_the_configured_address() -> None:
    assert listening_endpoint(settings(), "*", 9280) == "tcp://127.0.0.1:9280"
