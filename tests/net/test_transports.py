"""What every transport keeps, whatever carries the messages: real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lane_tools import message, messages, wait_for, wait_until

from opencluster.errors import OpenClusterError
from opencluster.net.arena import Arena
from opencluster.net.joined import JoinedTransport
from opencluster.net.lane import LaneTransport
from opencluster.net.transport import PeerConnected, PeerLost, Transport
from opencluster.net.zmq_transport import EndpointInUse, ZmqTransport

MAX_BYTES = 8 << 20


def zmq() -> ZmqTransport:
    return ZmqTransport(MAX_BYTES, 0.2, 1.0)


def lane() -> LaneTransport:
    return LaneTransport(MAX_BYTES, 0.2, 1.0)


def lane_with_arena() -> LaneTransport:
    return LaneTransport(MAX_BYTES, 0.2, 1.0, arena=Arena(64 << 20))


def joined() -> JoinedTransport:
    behind = zmq()
    return JoinedTransport(
        behind, LaneTransport(MAX_BYTES, 0.2, 1.0, identity=behind.identity)
    )


@dataclass
class Net:
    """Transports of one kind, and where they may listen."""

    make: Callable[[], Transport]
    endpoint: str
    made: list[Transport] = field(default_factory=list)

    def open(self) -> Transport:
        self.made.append(self.make())
        return self.made[-1]


@pytest.fixture(
    params=[
        (zmq, "ipc://{}/s"),
        (zmq, "tcp://127.0.0.1:0"),
        (lane, "unix://{}/s"),
        (lane_with_arena, "unix://{}/s"),
        (joined, "unix://{}/s"),
        (joined, "ipc://{}/s"),
    ],
    ids=["zmq-ipc", "zmq-tcp", "lane", "lane-arena", "joined-lane", "joined-zmq"],
)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Net]:
    make, endpoint = request.param
    net = Net(make, endpoint.format(tmp_path))
    yield net
    for transport in net.made:
        transport.close()


def test_a_message_goes_there_and_an_answer_comes_back(net: Net) -> None:
    server, client = net.open(), net.open()
    peer = client.connect(server.listen(net.endpoint))
    buffers = [b"one", b"two" * 100_000, b"", b"four" * 50]
    assert client.send(peer, b"header", buffers)
    came = message(server, client)
    assert came.header == b"header"
    assert [bytes(b) for b in came.buffers] == buffers
    assert server.send(came.peer, b"answer")
    back = message(client, server)
    assert (back.peer, back.header, list(back.buffers)) == (peer, b"answer", [])


@pytest.mark.parametrize("nbytes", [0, 1, 65_534, 65_535, 65_536, 65_537, 3_000_000])
def test_headers_of_any_size(net: Net, nbytes: int) -> None:
    server, client = net.open(), net.open()
    peer = client.connect(server.listen(net.endpoint))
    header = bytes(range(256)) * (nbytes // 256 + 1)
    for buffers in ([], [b"x" * 70_000]):
        assert client.send(peer, header[:nbytes], buffers)
        came = message(server, client)
        assert bytes(came.header) == header[:nbytes]
        assert [bytes(b) for b in came.buffers] == buffers


def test_messages_come_in_order_whatever_their_size(net: Net) -> None:
    server, client = net.open(), net.open()
    peer = client.connect(server.listen(net.endpoint))
    sizes = [n * n * 977 % 300_000 if n % 3 else n for n in range(120)]
    for n, size in enumerate(sizes):
        assert client.send(peer, b"%d" % n, [bytes([n]) * size] if size else [])
    came = messages(server, len(sizes), client)
    assert [m.header for m in came] == [b"%d" % n for n in range(len(sizes))]
    for n, size in enumerate(sizes):
        assert b"".join(came[n].buffers) == bytes([n]) * size


def test_peers_are_told_apart_and_named_after_their_process(net: Net) -> None:
    server, one, two = net.open(), net.open(), net.open()
    endpoint = server.listen(net.endpoint)
    came = []
    for client in (one, two):
        assert client.send(client.connect(endpoint), b"hello")
        came.append(message(server, client))
    assert came[0].peer != came[1].peer
    for event, client in zip(came, (one, two), strict=True):
        assert event.peer[1:5] == client.identity[:4]  # type: ignore[attr-defined]
        assert server.send(event.peer, b"you are " + event.peer)
    for event, client in zip(came, (one, two), strict=True):
        assert message(client, server).header == b"you are " + event.peer


def test_connecting_twice_gives_the_same_peer(net: Net) -> None:
    server, client = net.open(), net.open()
    endpoint = server.listen(net.endpoint)
    assert client.connect(endpoint) == client.connect(endpoint)


def test_a_connection_is_announced_and_its_end_too(net: Net) -> None:
    server, client = net.open(), net.open()
    peer = client.connect(server.listen(net.endpoint))
    assert wait_for(client, PeerConnected, server) == PeerConnected(peer)
    server.close()
    net.made.remove(server)
    assert wait_for(client, PeerLost) == PeerLost(peer)


def test_sending_to_a_peer_that_is_gone_says_so(net: Net) -> None:
    server, client = net.open(), net.open()
    peer = client.connect(server.listen(net.endpoint))
    client.send(peer, b"hello")
    came = message(server, client)
    client.disconnect(peer)
    wait_until(lambda: not server.send(came.peer, b"are you there"), server)
    assert not client.send(peer, b"gone")
    assert not client.send(b"]nobody", b"gone")
    client.disconnect(peer)


def test_a_peer_can_be_disconnected_and_connected_anew(net: Net) -> None:
    server, client = net.open(), net.open()
    endpoint = server.listen(net.endpoint)
    for n in range(3):
        peer = client.connect(endpoint)
        assert client.send(peer, b"%d" % n)
        assert message(server, client).header == b"%d" % n
        client.disconnect(peer)


# libzmq takes over the file of a local socket, whoever listens there
@pytest.mark.parametrize(
    "net",
    [(zmq, "tcp://127.0.0.1:0"), (lane, "unix://{}/s"), (joined, "unix://{}/s")],
    indirect=True,
)
def test_two_listeners_at_one_place_are_a_clear_error(net: Net) -> None:
    endpoint = net.open().listen(net.endpoint)
    with pytest.raises(EndpointInUse, match=endpoint):
        net.open().listen(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["foo", "", "inproc://x", "ipc://", "unix://", "unix://relative", "unix:///\ud800"],
)
def test_what_is_no_endpoint_is_a_clear_error(net: Net, endpoint: str) -> None:
    with pytest.raises(OpenClusterError) as caught:
        net.open().connect(endpoint)
    assert endpoint in str(caught.value) or repr(endpoint) in str(caught.value)


def test_closing_removes_the_socket_file(net: Net, tmp_path: Path) -> None:
    server = net.open()
    server.listen(net.endpoint)
    assert (tmp_path / "s").is_socket() != net.endpoint.startswith("tcp")
    server.close()
    net.made.remove(server)
    assert not (tmp_path / "s").exists()


def test_what_was_sent_leaves_before_the_end(net: Net) -> None:
    server, client = net.open(), net.open()
    peer = client.connect(server.listen(net.endpoint))
    wait_for(client, PeerConnected, server)
    large = b"x" * (MAX_BYTES // 2)
    assert client.send(peer, b"last words", [large])
    client.close(linger_s=0.5)
    net.made.remove(client)
    came = message(server)
    assert came.header == b"last words"
    assert bytes(came.buffers[0]) == large
