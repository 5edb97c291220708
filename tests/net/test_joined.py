"""ZeroMQ and the express lane behind one transport: real sockets on this computer."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane_tools import message, wait_for

from opencluster.config import load
from opencluster.core.roles import WORKER
from opencluster.errors import OpenClusterError
from opencluster.net.joined import (
    Approach,
    JoinedTransport,
    local_endpoints,
    open_transport,
)
from opencluster.net.keyfiles import make_keys
from opencluster.net.keys import Keyring
from opencluster.net.transport import PeerConnected, Transport
from opencluster.net.zmq_transport import ZmqTransport

Pair = tuple[JoinedTransport, JoinedTransport]


def opened(*settings: tuple[str, str, str]) -> ZmqTransport | JoinedTransport:
    overrides = {(section, key): value for section, key, value in settings}
    return open_transport(load(overrides=overrides, environ={}), None)


@pytest.fixture
def pair() -> Iterator[Pair]:
    server, client = opened(), opened()
    assert isinstance(server, JoinedTransport)
    assert isinstance(client, JoinedTransport)
    yield server, client
    client.close()
    server.close()


def test_each_endpoint_has_its_way_and_each_peer_too(
    pair: Pair, tmp_path: Path
) -> None:
    server, client = pair
    wanted = local_endpoints(server, tmp_path, "w-1")
    assert wanted == [f"unix://{tmp_path}/w-1.lane", f"ipc://{tmp_path}/w-1.sock"]
    peers = []
    for endpoint in wanted:
        peers.append(client.connect(server.listen(endpoint)))
        assert wait_for(client, PeerConnected, server) == PeerConnected(peers[-1])
    for peer in peers:
        assert client.send(peer, peer, [b"x" * 100_000])
        came = message(server, client)
        assert came.header == peer
        assert bytes(came.buffers[0]) == b"x" * 100_000
        assert came.peer[1:5] == client.identity[:4]
        assert server.send(came.peer, b"answer")
        back = message(client, server)
        assert (back.peer, back.header) == (peer, b"answer")
    for peer in peers:
        client.disconnect(peer)
        assert not client.send(peer, b"gone")
        assert client.refusal(peer) == ""


def test_what_comes_amiss_is_counted_for_both_together(
    pair: Pair, tmp_path: Path
) -> None:
    server, client = pair
    for endpoint in local_endpoints(server, tmp_path, "w-1"):
        server.listen(endpoint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(f"{tmp_path}/w-1.lane")
        stranger.send(b"rubbish")
        while not server.counts.rejected_handshakes:
            server.receive()
    assert server.lane.counts is server.counts


def test_both_wake_who_polls(pair: Pair, tmp_path: Path) -> None:
    server, client = pair
    assert len(server.pollables()) == 6
    endpoint, _ = local_endpoints(server, tmp_path, "w-1")
    client.connect(server.listen(endpoint))
    (epoll,) = server.lane.pollables()
    assert epoll.poll(20.0)
    # and who says that nothing is ready gets nothing
    assert server.receive(()) == []
    assert epoll.poll(0)
    server.receive({epoll})
    assert not epoll.poll(0)


def test_settings_say_what_is_used(tmp_path: Path) -> None:
    plain = opened(("network", "express_lane", "false"))
    assert type(plain) is ZmqTransport
    assert local_endpoints(plain, tmp_path, "x") == [f"ipc://{tmp_path}/x.sock"]
    small = opened(("memory", "arena_bytes", "0"))
    assert isinstance(small, JoinedTransport)
    assert small.lane.arena is None
    usual = opened()
    assert isinstance(usual, JoinedTransport)
    assert usual.lane.arena is not None
    for transport in (plain, small, usual):
        transport.close()


def test_with_keys_there_is_no_lane(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    keyring = Keyring.load(tmp_path / "keys", WORKER)
    transport = open_transport(load(environ={}), keyring)
    assert type(transport) is ZmqTransport
    assert transport.keys is keyring
    with pytest.raises(OpenClusterError):
        transport.listen(f"unix://{tmp_path}/s")
    transport.close()


def test_a_socket_path_that_is_too_long_is_a_clear_error(pair: Pair) -> None:
    with pytest.raises(OpenClusterError, match="shorter --dir"):
        local_endpoints(pair[0], Path("/tmp") / ("x" * 120), "w-1")


# --- the way to a process ---------------------------------------------------------


def test_of_several_ways_those_that_may_do_are_kept_in_order(
    pair: Pair, tmp_path: Path
) -> None:
    server, client = pair
    local = [
        server.listen(endpoint) for endpoint in local_endpoints(server, tmp_path, "w-1")
    ]
    endpoints = [*local, "ipc:///nowhere/s", "unix:///nowhere/s", "tcp://node7:9000"]
    ways = Approach(client).ways
    assert ways(endpoints, is_here=True) == [*local, "tcp://node7:9000"]
    assert ways(endpoints, is_here=False) == ["tcp://node7:9000"]
    assert ways(["http://node7"], is_here=True) == []
    plain = opened(("network", "express_lane", "false"))
    assert Approach(plain).ways(endpoints, is_here=True)[0] == local[1]
    plain.close()


def test_the_lane_is_taken_where_there_is_one(pair: Pair, tmp_path: Path) -> None:
    server, client = pair
    endpoints = [
        server.listen(endpoint) for endpoint in local_endpoints(server, tmp_path, "w-1")
    ]
    approach = Approach(client)
    endpoint, peer = approach.connect(approach.ways(endpoints, True), "")
    assert endpoint == endpoints[0]
    assert wait_for(client, PeerConnected, server) == PeerConnected(peer)


def test_where_nobody_listens_at_the_lane_zeromq_is_used_and_that_is_said_once(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server, client = pair
    approach = Approach(client)
    for name in ("w-1", "w-2"):
        endpoints = local_endpoints(server, tmp_path, name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_over:
            left_over.bind(endpoints[0].removeprefix("unix://"))
        server.listen(endpoints[1])
        endpoint, peer = approach.connect(approach.ways(endpoints, True), "")
        assert endpoint == endpoints[1]
        assert client.send(peer, b"hello")
        assert message(server, client).header == b"hello"
    told = [r for r in caplog.records if "ZeroMQ is used instead" in r.message]
    assert len(told) == 1
    assert "w-1.lane" in told[0].message


def test_without_another_way_the_error_is_that_of_the_lane(
    pair: Pair, tmp_path: Path
) -> None:
    client: Transport = pair[1]
    with pytest.raises(OpenClusterError, match="No such file"):
        Approach(client).connect([f"unix://{tmp_path}/s"], "")
