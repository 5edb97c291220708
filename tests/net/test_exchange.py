"""Values that are fetched: in one message or in parts, from one holder or the next."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from opencluster.core import fetching as fetching_module
from opencluster.core.fetching import CONNECT_S, PART_BYTES
from opencluster.errors import OpenClusterError, RemoteProtocolError
from opencluster.net import exchange as exchange_module
from opencluster.net.exchange import IDLE_S, Exchange, Parts, nbytes_of
from opencluster.references import Holder
from opencluster.wire import frames, kinds

A, B = b"a" * 16, b"b" * 16


class Net:
    """Processes that are connected to each other, and messages in a queue."""

    def __init__(self) -> None:
        self.queue: deque[tuple[str, str, bytes, list[Any]]] = deque()
        self.nodes: dict[str, Node] = {}
        self.largest = 0

    def run(self) -> None:
        while self.queue:
            sender, receiver, header, buffers = self.queue.popleft()
            self.largest = max(self.largest, nbytes_of([header, *buffers]))
            node = self.nodes.get(receiver)
            if node is not None:
                fields = frames.unpack(header)
                # as on a socket: the receiver has memory of its own
                copies = [memoryview(bytes(buffer)) for buffer in buffers]
                node.exchange.received(sender.encode(), fields, copies)


class Node:
    """A process: a transport of the net, and an exchange on it."""

    def __init__(self, net: Net, name: str, host: str = "here") -> None:
        self.net = net
        self.name = name
        self.holder = Holder(name, host, ("ipc:///x",))
        self.values: dict[bytes, Parts] = {}
        self.arrived: dict[bytes, list[bytes]] = {}
        self.failed: dict[bytes, str] = {}
        self.lost_at: dict[bytes, list[str]] = {}
        self.left: list[str] = []
        self.exchange = Exchange(
            self,  # type: ignore[arg-type]
            host,
            self.values.get,
            self.reach,
            lambda holder, peer: self.left.append(holder.worker),
            self.note_arrival,
            self.note_failure,
        )
        net.nodes[name] = self

    def reach(self, holder: Holder) -> bytes:
        if not holder.endpoints:
            raise OpenClusterError(f"{holder.worker} cannot be reached from here")
        return holder.worker.encode()

    def note_arrival(self, id: bytes, parts: Parts) -> None:
        assert id not in self.arrived
        self.arrived[id] = [bytes(part) for part in parts]
        assert all(memoryview(part).readonly for part in parts)

    def note_failure(self, id: bytes, why: str, lost_at: list[str]) -> None:
        assert id not in self.failed
        self.failed[id] = why
        self.lost_at[id] = lost_at

    def send(self, peer: bytes, header: bytes, buffers: Any = ()) -> bool:
        if peer.decode() not in self.net.nodes:
            return False
        self.net.queue.append((self.name, peer.decode(), header, list(buffers)))
        return True


def parts(*sizes: int) -> list[bytes]:
    return [np.random.default_rng(n).bytes(size) for n, size in enumerate(sizes)]


@pytest.fixture
def net() -> Net:
    """Return a net without processes."""
    return Net()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make parts small, and return their size."""
    for module in (fetching_module, exchange_module):
        monkeypatch.setattr(module, "PART_BYTES", 1000)
    monkeypatch.setattr(fetching_module, "WINDOW_BYTES", 3000)
    monkeypatch.setattr(exchange_module, "MAPPED_BYTES", 2000)
    return 1000


@pytest.mark.parametrize("host", ["here", "elsewhere"])
@pytest.mark.parametrize(
    "sizes", [(1,), (10, 5000, 0, 7), (200_000,), (70_000, 10)], ids=repr
)
def test_a_value_arrives_as_it_lay(net: Net, host: str, sizes: tuple[int, ...]) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder", host)
    holder.values[A] = parts(*sizes)
    asker.exchange.want(A, sum(sizes), [holder.holder])
    net.run()
    assert asker.arrived == {A: parts(*sizes)}
    assert asker.exchange.received_bytes == sum(sizes)
    assert holder.exchange.sent_bytes == sum(sizes)


@pytest.mark.parametrize(
    "sizes", [(2500,), (10, 5000, 0, 7), (1, 1000, 1001), (3000, 2000)], ids=repr
)
def test_a_large_value_from_elsewhere_comes_in_parts(
    net: Net, small_parts: int, sizes: tuple[int, ...]
) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder", "elsewhere")
    holder.values[A] = parts(*sizes)
    asker.exchange.want(A, sum(sizes), [holder.holder])
    net.run()
    assert asker.arrived == {A: parts(*sizes)}
    assert net.largest < small_parts + 200
    assert asker.exchange.received_bytes == sum(sizes)


def test_a_large_value_from_here_comes_at_once(net: Net, small_parts: int) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder")
    holder.values[A] = parts(10, 9000)
    asker.exchange.want(A, 9010, [holder.holder])
    net.run()
    assert asker.arrived == {A: parts(10, 9000)}
    assert net.largest > 9000


def test_a_value_with_parts_too_large_for_a_message_comes_in_parts(
    net: Net, small_parts: int
) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder")
    holder.exchange._max_bytes = 3000
    holder.values[A] = parts(10, 9000)
    asker.exchange.want(A, 9010, [holder.holder])
    net.run()
    assert asker.arrived == {A: parts(10, 9000)}
    assert net.largest < small_parts + 200


def test_who_is_near_is_asked_first(net: Net) -> None:
    asker = Node(net, "asker")
    far, near = Node(net, "far", "elsewhere"), Node(net, "near")
    far.values[A] = near.values[A] = parts(10)
    asker.exchange.want(A, 10, [far.holder, near.holder])
    net.run()
    assert (far.exchange.sent_bytes, near.exchange.sent_bytes) == (0, 10)


def test_what_one_lost_another_may_have(net: Net) -> None:
    asker, one, other = Node(net, "asker"), Node(net, "one"), Node(net, "other")
    other.values[A] = parts(10)
    unreachable = Holder("nowhere", "elsewhere")
    gone = Holder("gone", "here", ("ipc:///x",))
    wanted = [unreachable, gone, one.holder, other.holder]
    asker.exchange.want(A, 10, wanted)
    asker.exchange.want(B, 10, wanted)
    net.run()
    assert asker.arrived == {A: parts(10)}
    why = asker.failed[B]
    assert "gone: the connection to it broke" in why
    assert "one: it does not have it any more" in why
    assert "nowhere: nowhere cannot be reached from here" in why
    assert asker.lost_at[B] == ["one", "other"]


def test_nobody_has_it(net: Net) -> None:
    asker = Node(net, "asker")
    asker.exchange.want(A, 10, [])
    assert asker.failed == {A: "nobody is known to hold it"}


def test_a_holder_that_is_lost_in_the_middle_is_replaced(
    net: Net, small_parts: int
) -> None:
    asker = Node(net, "asker")
    one, other = Node(net, "one", "elsewhere"), Node(net, "other", "elsewhere")
    one.values[A] = other.values[A] = parts(10, 9000)
    asker.exchange.want(A, 9010, [one.holder, other.holder])
    for _ in range(5):
        sender, receiver, header, buffers = net.queue.popleft()
        net.nodes[receiver].exchange.received(
            sender.encode(), frames.unpack(header), buffers
        )
    asker.exchange.lost(b"one")
    net.run()
    assert asker.arrived == {A: parts(10, 9000)}


def test_a_value_that_is_dropped_in_the_middle_is_lost(
    net: Net, small_parts: int
) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder", "elsewhere")
    holder.values[A] = parts(10, 9000)
    asker.exchange.want(A, 9010, [holder.holder])
    sender, _, header, _ = net.queue.popleft()
    holder.exchange.received(sender.encode(), frames.unpack(header), ())
    del holder.values[A]
    net.run()
    assert asker.failed == {A: "holder: it does not have it any more"}


def test_a_holder_that_is_not_reached_is_given_up(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(exchange_module, "_now", lambda: now)
    asker, one, other = Node(net, "asker"), Node(net, "one"), Node(net, "other")
    for id, holder in ((A, one), (B, other)):
        asker.exchange.want(id, 10, [holder.holder])
    asker.exchange.connected(b"other")
    asker.exchange.connected(b"somebody")
    net.queue.clear()
    now += CONNECT_S
    asker.exchange.tick()
    assert asker.failed == {A: "one: it was not reached"}
    asker.exchange.lost(b"other")
    assert asker.failed[B] == "other: the connection to it broke"


def test_a_holder_on_another_computer_that_is_not_reached_is_told_with_both_ends(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(exchange_module, "_now", lambda: now)
    asker, far = Node(net, "asker"), Node(net, "far", "elsewhere")
    endpoints = ("ipc:///x", "tcp://127.0.0.1:9")
    asker.exchange.want(A, 10, [Holder(far.name, "elsewhere", endpoints)])
    net.queue.clear()
    now += CONNECT_S
    asker.exchange.tick()
    here = f"{socket.gethostname()} (127.0.0.1)"
    why = f"far: {here} did not reach it at tcp://127.0.0.1:9 in time"
    assert asker.failed == {A: why}


def test_connections_that_are_not_used_are_left(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(exchange_module, "_now", lambda: now)
    asker, holder = Node(net, "asker"), Node(net, "holder")
    holder.values[A] = holder.values[B] = parts(10)
    asker.exchange.want(A, 10, [holder.holder])
    net.run()
    now += IDLE_S - 1
    asker.exchange.tick()
    assert asker.left == []
    now += 1
    asker.exchange.tick()
    assert asker.left == ["holder"]
    asker.exchange.want(B, 10, [holder.holder])
    net.run()
    assert asker.arrived.keys() == {A, B}


def test_a_value_comes_from_somebody_who_is_connected(
    net: Net, small_parts: int
) -> None:
    worker, manager = Node(net, "worker"), Node(net, "manager", "elsewhere")
    manager.values[A] = parts(10, 9000)
    worker.exchange.want_from(b"manager", A, 9010)
    net.run()
    assert worker.arrived == {A: parts(10, 9000)}
    worker.exchange.want_from(b"manager", B, 10)
    worker.exchange.lost(b"manager")
    assert "connection to it broke" in worker.failed[B]


def test_somebody_who_left_before_they_were_asked_is_no_source(net: Net) -> None:
    worker, holder = Node(net, "worker"), Node(net, "holder")
    worker.exchange.want(A, 10, [holder.holder])
    worker.exchange.want_from(b"manager", A, 10)
    worker.exchange.want_from(b"manager", B, 10)
    worker.exchange.lost(b"manager")
    net.run()
    assert worker.failed.keys() == {A, B}


def test_what_is_not_wanted_any_more_does_not_arrive(net: Net) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder")
    holder.values[A] = parts(10)
    asker.exchange.want(A, 10, [holder.holder])
    asker.exchange.forget(A)
    net.run()
    assert not asker.arrived
    assert not asker.failed


def test_a_value_that_does_not_fit_into_memory_is_given_up(net: Net) -> None:
    asker = Node(net, "asker")
    holder, other = Node(net, "holder", "elsewhere"), Node(net, "other", "elsewhere")
    other.values[B] = parts(10)
    asker.exchange.want(A, 10, [holder.holder])
    asker.exchange.want(B, 10, [other.holder])
    asker.exchange.received(b"holder", [kinds.VALUE, 1, None, [5, 1 << 49]], ())
    net.run()
    assert asker.failed == {A: f"there is no memory for its {(1 << 49) + 5} bytes"}
    assert asker.arrived == {B: parts(10)}


@pytest.mark.parametrize(
    "fields",
    [
        [kinds.FETCH, 1, A],
        [kinds.FETCH, -1, A, 10],
        [kinds.FETCH, 1, b"short", 10],
        [kinds.FETCH, 1, A, "much"],
        [kinds.PART, 1, A, 0, 0],
        [kinds.PART, 1, A, 7, 0, 10],
        [kinds.PART, 1, A, -1, 0, 10],
        [kinds.PART, 1, A, 0, -5, 10],
        [kinds.PART, 1, A, 1, 0, PART_BYTES + 1],
        [kinds.VALUE, 1, None],
        [kinds.VALUE, 1, "text", [4]],
        [kinds.VALUE, 1, b"data", [5]],
        [kinds.VALUE, 1, b"data", [4, 4]],
        [kinds.VALUE, 1, b"data", []],
        [kinds.VALUE, 1, None, ["x"]],
        [kinds.VALUE, 1, None, [1 << 60]],
        [kinds.VALUE, "1", None, [10]],
        [kinds.CHUNK, 1],
        [kinds.LOST, None],
        [kinds.LOST],
    ],
    ids=repr,
)
def test_malformed_messages_are_refused(net: Net, fields: list[Any]) -> None:
    node = Node(net, "node")
    node.values[A] = [b"12345", bytes(20_000_000)]
    node.exchange.want(B, 10, [Node(net, "other").holder])
    net.queue.clear()
    with pytest.raises((RemoteProtocolError, ValueError, LookupError)):
        node.exchange.received(b"other", fields, ())
    assert not net.queue
    assert not node.arrived
    assert not node.failed


def test_answers_of_strangers_change_nothing(net: Net) -> None:
    asker, holder = Node(net, "asker"), Node(net, "holder")
    holder.values[A] = parts(10)
    asker.exchange.want(A, 10, [holder.holder])
    stranger: Callable[..., None] = asker.exchange.received
    stranger(b"stranger", [kinds.VALUE, 1, b"wrong", [5]], ())
    stranger(b"stranger", [kinds.CHUNK, 1], [b"wrong"])
    stranger(b"stranger", [kinds.LOST, 1], ())
    net.run()
    assert asker.arrived == {A: parts(10)}
