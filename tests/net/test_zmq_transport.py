"""The ZeroMQ transport: real sockets on this computer."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencluster.errors import OpenClusterError
from opencluster.net import zmq_transport
from opencluster.net.transport import PeerConnected, PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import EndpointInUse, ZmqTransport, ipc_endpoint
from opencluster.wire import frames

DEADLINE_S = 20.0
MAX_BYTES = 1 << 20

Pump = Callable[[ZmqTransport, type], TransportEvent]


@pytest.fixture
def pair() -> Iterator[tuple[ZmqTransport, ZmqTransport]]:
    server = ZmqTransport(MAX_BYTES, 0.2, 1.0)
    client = ZmqTransport(MAX_BYTES, 0.2, 1.0)
    yield server, client
    for transport in (client, server):
        transport.close()


def wait_for(transport: ZmqTransport, kind: type) -> TransportEvent:
    """Return the next event of a kind."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for event in transport.receive():
            if isinstance(event, kind):
                return event
        time.sleep(0.002)
    raise AssertionError(f"no {kind.__name__} came")


def wait_until(transport: ZmqTransport, condition: Callable[[], bool]) -> None:
    """Receive until a condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        transport.receive()
        time.sleep(0.002)


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_a_message_goes_there_and_an_answer_comes_back(
    pair: tuple[ZmqTransport, ZmqTransport], scheme: str, tmp_path: Path
) -> None:
    server, client = pair
    wanted = "tcp://127.0.0.1:0" if scheme == "tcp" else f"ipc://{tmp_path}/s"
    peer = client.connect(server.listen(wanted))
    assert client.send(peer, b"header", [b"one", b"two" * 100_000])
    came = wait_for(server, Received)
    assert isinstance(came, Received)
    assert came.header == b"header"
    assert [bytes(b) for b in came.buffers] == [b"one", b"two" * 100_000]
    assert server.send(came.peer, b"answer")
    back = wait_for(client, Received)
    assert isinstance(back, Received)
    assert (back.peer, back.header, list(back.buffers)) == (peer, b"answer", [])


def test_port_zero_is_filled_in(pair: tuple[ZmqTransport, ZmqTransport]) -> None:
    endpoint = pair[0].listen("tcp://127.0.0.1:0")
    assert int(endpoint.rpartition(":")[2]) > 0


def test_of_a_range_of_ports_a_free_one_is_taken(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    port = int(pair[0].listen("tcp://127.0.0.1:0").rpartition(":")[2])
    there = pair[1].listen(f"tcp://127.0.0.1:{port}-{port + 50}")
    assert port < int(there.rpartition(":")[2]) <= port + 50
    with pytest.raises(EndpointInUse, match=f":{port}-{port}: Address"):
        pair[1].listen(f"tcp://127.0.0.1:{port}-{port}")


def test_a_port_in_use_is_a_clear_error(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    endpoint = pair[0].listen("tcp://127.0.0.1:0")
    with pytest.raises(EndpointInUse, match=endpoint) as caught:
        pair[1].listen(endpoint)
    assert "another port" in str(caught.value)


def test_connecting_twice_gives_the_same_peer(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, client = pair
    endpoint = server.listen("tcp://127.0.0.1:0")
    assert client.connect(endpoint) == client.connect(endpoint)
    assert client.connect(endpoint.replace("127.0.0.1", "localhost")) == client.connect(
        endpoint
    )


def test_a_connection_is_announced_and_its_end_too(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    client = pair[1]
    server = ZmqTransport()
    peer = client.connect(server.listen("tcp://127.0.0.1:0"))
    assert wait_for(client, PeerConnected) == PeerConnected(peer)
    server.close()
    assert wait_for(client, PeerLost) == PeerLost(peer)


def test_sending_to_a_peer_that_is_gone_says_so(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, client = pair
    peer = client.connect(server.listen("tcp://127.0.0.1:0"))
    client.send(peer, b"hello")
    came = wait_for(server, Received)
    assert isinstance(came, Received)
    client.disconnect(peer)
    wait_until(server, lambda: not server.send(came.peer, b"are you there"))
    assert not client.send(peer, b"gone")


STANDS_STILL = """
import os, signal, sys, time
from opencluster.net.zmq_transport import ZmqTransport
transport = ZmqTransport(1 << 20, 0.1, 0.5)
transport.send(transport.connect(sys.argv[1]), b"here")
# until it has asked at least once whether the other side lives
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGSTOP)
"""
"""A process that connects, and then stands still altogether."""


def test_who_connected_and_stands_still_is_let_go(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, _ = pair
    endpoint = server.listen("tcp://127.0.0.1:0")
    process = subprocess.Popen([sys.executable, "-c", STANDS_STILL, endpoint])
    try:
        came = wait_for(server, Received)
        assert server.counts.dropped_connections == 0
        wait_until(server, lambda: server.counts.dropped_connections == 1)
        assert process.poll() is None
        assert not server.send(came.peer, b"anybody?")
    finally:
        process.kill()
        process.wait()


def test_an_unknown_host_is_a_clear_error(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    with pytest.raises(OpenClusterError, match=r"no-such-host\.invalid"):
        pair[1].connect("tcp://no-such-host.invalid:9100")


@pytest.mark.parametrize(
    "endpoint",
    [
        "foo",
        "",
        "inproc://x",
        "TCP://127.0.0.1:9100",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:notaport",
        "tcp://127.0.0.1:80abc",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:\N{SUPERSCRIPT TWO}",
        "tcp://:9100",
        f"tcp://{'x' * 70}.y:9100",
        "ipc://",
        f"ipc:///{'x' * 200}",
        "ipc:///\ud800",
    ],
)
def test_what_is_no_endpoint_is_a_clear_error(
    pair: tuple[ZmqTransport, ZmqTransport], endpoint: str
) -> None:
    with pytest.raises(OpenClusterError) as caught:
        pair[1].connect(endpoint)
    assert endpoint in str(caught.value) or repr(endpoint) in str(caught.value)


def test_a_known_name_is_not_looked_up_again(
    pair: tuple[ZmqTransport, ZmqTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = pair
    endpoint = server.listen("tcp://127.0.0.1:0").replace("127.0.0.1", "localhost")
    peer = client.connect(endpoint)

    def dead(*arguments: object) -> None:
        raise OSError("the name server does not answer")

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    assert client.connect(endpoint) == peer
    client.disconnect(peer)
    with pytest.raises(OpenClusterError, match="name server"):
        client.connect(endpoint)


def test_a_large_header_is_not_copied(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, client = pair
    peer = client.connect(server.listen("tcp://127.0.0.1:0"))
    text = "x" * (MAX_BYTES // 2)
    client.send(peer, frames.pack("request", text), [b"buffer"])
    came = wait_for(server, Received)
    assert isinstance(came, Received)
    assert isinstance(came.header, memoryview)
    assert frames.unpack(came.header) == ["request", text]
    assert [bytes(b) for b in came.buffers] == [b"buffer"]


def test_an_oversized_header_is_counted_and_not_taken(
    pair: tuple[ZmqTransport, ZmqTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = pair
    monkeypatch.setattr(zmq_transport, "MAX_FRAME_BYTES", 100)
    peer = client.connect(server.listen("tcp://127.0.0.1:0"))
    client.send(peer, b"x" * 101, [b"buffer"])
    client.send(peer, b"y" * 100)
    came = wait_for(server, Received)
    assert isinstance(came, Received)
    assert came.header == b"y" * 100
    assert server.counts.rejected_messages == 1


def test_a_connection_that_broke_the_protocol_can_be_opened_anew(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, client = pair
    endpoint = server.listen("tcp://127.0.0.1:0")
    peer = client.connect(endpoint)
    client.send(peer, b"hello")
    came = wait_for(server, Received)
    assert isinstance(came, Received)
    server.send(came.peer, b"x" * (MAX_BYTES + 1))
    assert wait_for(client, PeerLost) == PeerLost(peer)
    client.disconnect(peer)
    client.send(client.connect(endpoint), b"again")
    again = wait_for(server, Received)
    assert isinstance(again, Received)
    assert again.header == b"again"


def test_connections_are_served_though_nobody_reads_of_those_that_broke(
    pair: tuple[ZmqTransport, ZmqTransport], tmp_path: Path
) -> None:
    server, client = pair
    endpoint = server.listen(f"ipc://{tmp_path}/s")
    # more events than two sockets of the default limit of 1000 hold
    for _ in range(1200):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(f"{tmp_path}/s")
            stranger.settimeout(DEADLINE_S)
            stranger.sendall(b"\xff" * 64)
            with contextlib.suppress(ConnectionError):
                while stranger.recv(1000):
                    pass
    client.send(client.connect(endpoint), b"still there")
    assert server._server.poll(int(DEADLINE_S * 1000))
    wait_until(
        server,
        lambda: (
            server.counts.rejected_handshakes + server.counts.dropped_connections > 2000
        ),
    )


def test_garbage_on_the_port_is_survived_and_counted(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, client = pair
    endpoint = server.listen("tcp://127.0.0.1:0")
    port = int(endpoint.rpartition(":")[2])
    for garbage in (b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\0" * 9):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(garbage)
    counts = server.counts
    wait_until(
        server,
        lambda: counts.rejected_handshakes + counts.dropped_connections >= 3,
    )
    client.send(client.connect(endpoint), b"still there")
    assert isinstance(wait_for(server, Received), Received)


def test_a_frame_that_announces_ten_gigabytes_takes_no_memory(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    # patient, as the stranger below answers no heartbeat
    server, client = ZmqTransport(MAX_BYTES), pair[1]
    endpoint = server.listen("tcp://127.0.0.1:0")
    port = int(endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(zmtp_greeting())
        stranger.sendall(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER")
        receive_exactly(stranger, 64)
        stranger.sendall(b"\x02" + struct.pack(">Q", 10 << 30) + b"x" * 1000)
        wait_until(server, lambda: server.counts.dropped_connections >= 1)
    client.send(client.connect(endpoint), b"still there")
    assert isinstance(wait_for(server, Received), Received)
    server.close()


def test_a_message_of_no_frames_does_no_harm(
    pair: tuple[ZmqTransport, ZmqTransport],
) -> None:
    server, client = pair
    endpoint = server.listen("tcp://127.0.0.1:0")
    peer = client.connect(endpoint)
    client._client.send_multipart([peer[1:]])
    client.send(peer, b"behind it")
    came = wait_for(server, Received)
    assert isinstance(came, Received)


def test_a_socket_path_that_is_too_long_is_a_clear_error() -> None:
    with pytest.raises(OpenClusterError, match="shorter --dir"):
        ipc_endpoint(Path("/tmp") / ("x" * 120), "factory")


def test_closing_removes_the_socket_file(tmp_path: Path) -> None:
    transport = ZmqTransport()
    transport.listen(f"ipc://{tmp_path}/s")
    assert (tmp_path / "s").is_socket()
    transport.close()
    assert not (tmp_path / "s").exists()


def zmtp_greeting() -> bytes:
    """Return the greeting of a ZMTP 3.1 peer without security."""
    signature = b"\xff" + b"\0" * 8 + b"\x7f"
    return signature + b"\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + b"\0" * 31


def receive_exactly(stranger: socket.socket, count: int) -> bytes:
    """Return so many bytes of what the server sends."""
    data = b""
    while len(data) < count:
        part = stranger.recv(count - len(data))
        assert part, "the server closed the connection"
        data += part
    return data
