"""The link to the factories, against factories that misbehave."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from opencluster.core.entries import Delta, Entry
from opencluster.errors import FactoryUnreachable, RemoteProtocolError
from opencluster.net import link as module
from opencluster.net.link import FactoryLink, Finder
from opencluster.net.reactor import Reactor
from opencluster.net.requests import Caller, Handler, answer
from opencluster.net.transport import Peer, PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire import frames, kinds

DEADLINE_S = 20.0
MAX_BYTES = 1 << 16
EPOCH = [1, 0, 7]


def hello(caller: Caller, arguments: Mapping[str, Any]) -> Any:
    return {"role": "leader", "epoch": EPOCH, "leader": ""}


class Client:
    """A process with a link."""

    def __init__(
        self, find: Finder, timeout_s: float = DEADLINE_S, **options: Any
    ) -> None:
        self.reactor = Reactor(ZmqTransport(MAX_BYTES), self._event)
        self.link = FactoryLink(self.reactor, find, timeout_s, **options)
        self.reactor.start()

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join(DEADLINE_S)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self.link.peer_lost(event.peer)
        elif isinstance(event, Received):
            with contextlib.suppress(RemoteProtocolError):
                self.link.received(event.peer, frames.unpack(event.header))


class Actor:
    """Plays a factory."""

    def __init__(self, **handlers: Handler) -> None:
        self.handlers = {"hello": hello} | handlers
        self.reactor = Reactor(ZmqTransport(), self._event)
        self.asked: SimpleQueue[list[Any]] = SimpleQueue()

    def listen(self, endpoint: str = "tcp://127.0.0.1:0") -> str:
        bound = self.reactor.transport.listen(endpoint)
        self.reactor.start()
        return bound

    def beat(self, peer: Peer, revision: int) -> None:
        header = frames.pack(kinds.BEAT, EPOCH, revision)
        self.reactor.transport.send(peer, header)

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join(DEADLINE_S)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, Received):
            fields = frames.unpack(event.header)
            self.asked.put(fields)
            answer(self.reactor, "factory", Caller(event.peer), fields, self.handlers)


Make = Callable[..., Any]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(module, "PROBE_INTERVAL_S", 0.01)
    made: list[Any] = []

    def make_one(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made.append(kind(*args, **kwargs))
        return made[-1]

    yield make_one
    for one in reversed(made):
        one.close()


def snapshot(*ids: str) -> dict[str, Any]:
    entries = [Entry(i, "worker", "T", i).to_fields() for i in ids]
    return {"revision": len(ids), "entries": entries, "epoch": EPOCH}


def test_an_error_in_taking_in_one_change_loses_no_other(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    actor = make(Actor, subscribe=lambda caller, arguments: snapshot("a", "b", "c"))
    endpoint = actor.listen()
    client = make(Client, lambda: [[endpoint]])
    seen: SimpleQueue[str] = SimpleQueue()

    def on_delta(delta: Delta) -> None:
        seen.put(delta.id)
        if delta.id != "c":
            raise OSError("no way to it")

    client.link.subscribe(on_delta)
    assert [seen.get(timeout=DEADLINE_S) for _ in range(3)] == ["a", "b", "c"]
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert ["OSError" in str(r.exc_info) for r in errors] == [True, True]


@pytest.mark.parametrize(
    "senseless",
    [
        {k: v for k, v in snapshot("a").items() if k != "epoch"},
        {"epoch": EPOCH},
        "all is well",
        None,
    ],
)
def test_after_a_senseless_snapshot_the_link_asks_again_at_the_next_beat(
    make: Make, senseless: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers = itertools.chain([senseless], itertools.repeat(snapshot("a")))

    def subscribe(caller: Caller, arguments: Mapping[str, Any]) -> Any:
        # after the answer, as a beat that comes before it is ignored
        actor.reactor.post(lambda: actor.beat(caller.peer, 1))
        return next(answers)

    actor = make(Actor, subscribe=subscribe)
    endpoint = actor.listen()
    client = make(Client, lambda: [[endpoint]])
    seen: SimpleQueue[Delta] = SimpleQueue()
    client.link.subscribe(seen.put)
    assert seen.get(timeout=DEADLINE_S).id == "a"
    assert "makes no sense" in caplog.text


def test_a_leader_that_tells_nothing_more_is_asked_for_a_snapshot(make: Make) -> None:
    def greet(caller: Caller, arguments: Mapping[str, Any]) -> Any:
        return hello(caller, arguments) | {"heartbeat_interval_s": 0.02}

    # it takes us for one who follows it only once it was asked again
    answers = itertools.chain([snapshot("a")], itertools.repeat(snapshot("a", "b")))
    actor = make(Actor, hello=greet, subscribe=lambda caller, arguments: next(answers))
    endpoint = actor.listen()
    client = make(Client, lambda: [[endpoint]], patience_s=0.05)
    seen: SimpleQueue[Delta] = SimpleQueue()
    client.link.subscribe(seen.put)
    assert [seen.get(timeout=DEADLINE_S).id for _ in range(2)] == ["a", "b"]


def test_requests_time_out_when_the_factories_cannot_be_found(make: Make) -> None:
    def broken() -> list[list[str]]:
        raise RuntimeError("the list of factories is torn")

    client = make(Client, broken)
    asked = [client.link.request("status", {}, 0.05) for _ in range(3)]
    for future in asked:
        with pytest.raises(FactoryUnreachable, match="is torn"):
            future.result(DEADLINE_S)


def test_why_a_factory_is_not_reached_is_logged_once(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AFTER_S", 0.0)
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    unknown = "tcp://no-such-computer.invalid:9100"
    make(Client, lambda: [[closed], [unknown]], is_loud=False)
    client = make(Client, lambda: [[closed], [unknown]])
    seen = [0]

    def count(*arguments: Any) -> Any:
        seen[0] += 1
        return look(*arguments)

    look = module.look
    monkeypatch.setattr(module, "look", count)
    deadline = time.monotonic() + DEADLINE_S
    while seen[0] < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    first, second = sorted(caplog.messages, key=lambda text: closed not in text)
    here = f"{socket.gethostname()} (127.0.0.1)"
    assert first.startswith(f"{here} cannot reach {closed}: connection refused")
    assert f"cannot reach {unknown}: 'no-such-computer.invalid' has no" in second
    assert client.link.why_down().startswith("no factory answered: ")


def test_greetings_do_not_pile_up_for_a_factory_that_is_dead(
    make: Make, tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/factory.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{tmp_path}/factory.sock")
    client = make(Client, lambda: [[endpoint]], timeout_s=0.05)
    greetings = itertools.count(1)
    enough = threading.Event()
    ask = client.link.requests.ask

    def spying(peer: Peer, operation: str, *rest: Any) -> Any:
        if next(greetings) == 8:
            enough.set()
        return ask(peer, operation, *rest)

    client.link.requests.ask = spying
    assert enough.wait(DEADLINE_S)
    actor = make(Actor)
    actor.listen(endpoint)
    _, number, operation, _ = actor.asked.get(timeout=DEADLINE_S)
    assert operation == "hello"
    assert number > 5


def test_a_link_survives_an_answer_that_is_too_large(make: Make) -> None:
    sizes = itertools.chain([MAX_BYTES + 1], itertools.repeat(1))
    big = lambda caller, arguments: "x" * next(sizes)  # noqa: E731
    actor = make(Actor, big=big)
    endpoint = actor.listen()
    client = make(Client, lambda: [[endpoint]])
    # the connection breaks, and on a new one it is asked again
    assert client.link.request("big").result(DEADLINE_S) == "x"


@pytest.mark.parametrize("interval_s", ["x", None, [], {}, -1.0, float("nan"), 1e300])
def test_a_greeting_that_makes_no_sense_finds_no_leader(
    make: Make, interval_s: Any, caplog: pytest.LogCaptureFixture
) -> None:
    intervals = itertools.chain([interval_s] * 3, itertools.repeat(0.05))

    def greet(caller: Caller, arguments: Mapping[str, Any]) -> Any:
        return hello(caller, arguments) | {"heartbeat_interval_s": next(intervals)}

    actor = make(Actor, hello=greet, find=lambda caller, arguments: "all is well")
    endpoint = actor.listen()
    client = make(Client, lambda: [[endpoint]])
    assert client.link.request("find").result(DEADLINE_S) == "all is well"
    assert next(intervals) == 0.05
    assert "what makes no sense" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def test_a_snapshot_of_another_epoch_is_taken_when_a_greeting_says_the_same(
    make: Make,
) -> None:
    epochs = itertools.chain([[1, 0, 7]], itertools.repeat([2, 0, 7]))

    def greet(caller: Caller, arguments: Mapping[str, Any]) -> Any:
        return hello(caller, arguments) | {"epoch": next(epochs)}

    later = snapshot("a") | {"epoch": [2, 0, 7]}
    actor = make(Actor, hello=greet, subscribe=lambda caller, arguments: later)
    endpoint = actor.listen()
    client = make(Client, lambda: [[endpoint]])
    seen: SimpleQueue[Delta] = SimpleQueue()
    client.link.subscribe(seen.put)
    assert seen.get(timeout=DEADLINE_S).id == "a"
    assert client.link.replica.epoch == (2, 0, 7)


def test_who_is_forgotten_is_told(make: Make) -> None:
    def say(caller: Caller, arguments: Mapping[str, Any]) -> None:
        for names in (7, ["a", 7], ["a", "b"]):
            header = frames.pack(kinds.FORGOTTEN, names)
            actor.reactor.transport.send(caller.peer, header)

    actor = make(Actor, say=say)
    endpoint = actor.listen()
    told: SimpleQueue[Any] = SimpleQueue()
    client = make(Client, lambda: [[endpoint]], on_forgotten=told.put)
    client.link.request("say").result(DEADLINE_S)
    assert told.get(timeout=DEADLINE_S) == ["a", "b"]
    assert told.empty()


# --- what a follower may answer ------------------------------------------------


def following(caller: Caller, arguments: Mapping[str, Any]) -> Any:
    return {"role": "follower", "epoch": EPOCH, "leader": ""}


def named(name: str) -> Handler:
    return lambda caller, arguments: name


def test_a_leader_that_is_slow_to_greet_is_asked_before_a_follower(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLLOWER_AFTER_S", DEADLINE_S)
    is_greeted = threading.Event()

    def slow_hello(caller: Caller, arguments: Mapping[str, Any]) -> Any:
        assert is_greeted.wait(DEADLINE_S)
        return hello(caller, arguments)

    def quick_hello(caller: Caller, arguments: Mapping[str, Any]) -> Any:
        is_greeted.set()
        return following(caller, arguments)

    leader = make(Actor, hello=slow_hello, status=named("leader")).listen()
    follower = make(Actor, hello=quick_hello, status=named("follower")).listen()
    client = make(Client, lambda: [[leader], [follower]])
    asked = client.link.request("status", may_be_old=True)
    assert asked.result(DEADLINE_S) == "leader"


def test_a_follower_answers_when_nobody_leads_for_a_moment(make: Make) -> None:
    follower = make(Actor, hello=following, status=named("follower")).listen()
    client = make(Client, lambda: [[follower]])
    asked = client.link.request("status", may_be_old=True)
    assert asked.result(DEADLINE_S) == "follower"
    # what must be new waits for a leader
    with pytest.raises(FactoryUnreachable):
        client.link.request("status", timeout_s=1.0).result(DEADLINE_S)
