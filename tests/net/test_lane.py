"""The express lane: real sockets and processes, friendly and hostile ones."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lane_programs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lane_tools import (
    IDENTITY,
    Stranger,
    head,
    message,
    messages,
    open_fds,
    row,
    wait_for,
    wait_until,
)

from opencluster.errors import LocalProtocolError, OpenClusterError
from opencluster.net import lane, packets
from opencluster.net.arena import Arena, Mapping
from opencluster.net.lane import LaneTransport
from opencluster.net.onlooker import STOPPED, Onlooker
from opencluster.net.packets import (
    HELLO,
    INLINE,
    LARGE,
    MESSAGE,
    PACKET_BYTES,
    PLAIN,
    SEGMENT,
    WELCOME,
)
from opencluster.net.transport import PeerConnected, PeerLost, Received
from opencluster.net.zmq_transport import EndpointInUse

MAX_BYTES = 64 << 20
HEARTBEAT_S, TIMEOUT_S = lane_programs.HEARTBEAT_S, lane_programs.TIMEOUT_S

Open = Callable[..., LaneTransport]
Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Return how a lane is opened; all are closed at the end."""
    made: list[LaneTransport] = []

    def open_one(arena_bytes: int = 0, **options: Any) -> LaneTransport:
        arena = Arena(arena_bytes) if arena_bytes else None
        made.append(LaneTransport(MAX_BYTES, arena=arena, **options))
        return made[-1]

    yield open_one
    for transport in made:
        transport.close()


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/s"


@pytest.fixture
def start(endpoint: str) -> Iterator[Start]:
    """Return how a program of `lane_programs` is started, and waited for."""
    started: list[subprocess.Popen[str]] = []

    def start_one(program: str, at: str = endpoint) -> subprocess.Popen[str]:
        command = [sys.executable, lane_programs.__file__, program, at]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def pair(server: LaneTransport, client: LaneTransport, endpoint: str) -> bytes:
    """Return the peer of a client that is connected and greeted."""
    peer = client.connect(server.listen(endpoint))
    wait_for(client, PeerConnected, server)
    return peer


# --- coming to terms ----------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        b"\xff" * 64,
        b"GET / HTTP/1.1\r\n\r\n",
        bytes([PLAIN]) + b"message",
        packets.pack_greeting(WELCOME, IDENTITY, 0),
        packets.pack_greeting(HELLO, IDENTITY, 0) + b"more",
        packets.pack_greeting(HELLO, IDENTITY, 0)[:-1],
        packets.pack_greeting(HELLO, IDENTITY, 0)[:4],
        b"x" * (PACKET_BYTES + 100),
    ],
)
def test_who_does_not_greet_is_refused_and_told_why(
    opened: Open, endpoint: str, first: bytes
) -> None:
    server = opened()
    server.listen(endpoint)
    with Stranger(endpoint) as stranger:
        stranger.sock.send(first)
        wait_until(lambda: server.counts.dropped_connections == 1, server)
        answer = stranger.sock.recv(1000)
        assert answer[:1] == bytes([packets.REFUSAL])
        assert b"express lane" in answer
        assert stranger.is_cut_off(server)
    assert server.counts.rejected_handshakes == 1
    assert server.counts.rejected_messages == 0


def test_who_closes_before_greeting_is_no_more_than_that(
    opened: Open, endpoint: str
) -> None:
    server = opened()
    server.listen(endpoint)
    before = open_fds()
    for n in range(1, 30):
        Stranger(endpoint).close()
        wait_until(lambda n=n: server.counts.dropped_connections == n, server)
    assert server.counts.rejected_handshakes == 0
    assert open_fds() <= before


def test_who_says_nothing_is_not_waited_for_for_ever(
    opened: Open, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "GREETING_TIMEOUT_S", 0.1)
    server = opened(heartbeat_s=0.05)
    server.listen(endpoint)
    with Stranger(endpoint) as silent:
        wait_until(lambda: server.counts.rejected_handshakes == 1, server)
        assert b"in time" in silent.sock.recv(1000)
        assert silent.is_cut_off(server)


def test_of_too_many_who_say_nothing_the_oldest_goes(
    opened: Open, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MAX_STRANGERS", 4)
    server = opened()
    server.listen(endpoint)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(Stranger(endpoint)) for _ in range(6)]
        wait_until(lambda: server.counts.rejected_handshakes == 2, server)
        for stranger in strangers[:2]:
            assert stranger.sock.recv(1000)[:1] == bytes([packets.REFUSAL])
        for stranger in strangers[2:]:
            stranger.greet(server)
    assert server.counts.rejected_handshakes == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (packets.pack_greeting(WELCOME, IDENTITY, 0)[:4] + b"\x63more", "version 99"),
        (packets.pack_refusal("it is on holiday"), "refuses this process: it is on"),
        (b"220 smtp ready", "something else"),
        (bytes([packets.REFUSAL]) + b"\xff" * 4000, "refuses this process"),
    ],
)
def test_whoever_refuses_us_is_not_asked_again(
    opened: Open, endpoint: str, answer: bytes, reason: str
) -> None:
    client = opened()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(endpoint.removeprefix("unix://"))
        listener.listen()
        peer = client.connect(endpoint)
        assert client.send(peer, b"kept")
        other, _ = listener.accept()
        with other:
            assert other.recv(1000)[:1] == bytes([HELLO])
            other.send(answer)
            assert wait_for(client, PeerLost) == PeerLost(peer)
            assert reason in client.refusal(peer)
            assert len(client.refusal(peer)) < 1000
            assert client.counts.rejected_handshakes == 1
            assert other.recv(1000) == b""
        with pytest.raises(OpenClusterError, match=reason):
            client.connect(endpoint)
    client.disconnect(peer)
    assert client.refusal(peer) == ""


def test_nobody_listens(opened: Open, endpoint: str, tmp_path: Path) -> None:
    client = opened()
    before = open_fds()
    with pytest.raises(OpenClusterError, match=r"No such file"):
        client.connect(endpoint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_over:
        left_over.bind(f"{tmp_path}/s")
    with pytest.raises(OpenClusterError, match=r"refused"):
        client.connect(endpoint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(f"{tmp_path}/other")
        other.listen()
        with pytest.raises(OpenClusterError, match=r"wrong type"):
            client.connect(f"unix://{tmp_path}/other")
    assert open_fds() <= before


def test_messages_before_the_greeting_are_kept(opened: Open, endpoint: str) -> None:
    server, client = opened(), opened()
    peer = client.connect(server.listen(endpoint))
    large = b"x" * 20_000_000
    for n in range(100):
        assert client.send(peer, b"%d" % n, [large] if n == 50 else [])
    came = messages(server, 100, client)
    assert [m.header for m in came] == [b"%d" % n for n in range(100)]
    assert bytes(came[50].buffers[0]) == large


# --- where it listens -----------------------------------------------------------


def test_the_file_of_who_is_gone_is_replaced(
    opened: Open, endpoint: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_over:
        left_over.bind(f"{tmp_path}/s")
    server, client = opened(), opened()
    assert client.send(pair(server, client, endpoint), b"hello")
    message(server)


def test_the_file_of_who_listens_is_left_alone(opened: Open, endpoint: str) -> None:
    server, client = opened(), opened()
    server.listen(endpoint)
    with pytest.raises(EndpointInUse, match="another path"):
        opened().listen(endpoint)
    client.send(client.connect(endpoint), b"still there")
    assert message(server, client).header == b"still there"


def test_a_file_that_is_no_socket_is_left_alone(
    opened: Open, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(EndpointInUse):
        opened().listen(endpoint)
    assert (tmp_path / "s").read_text() == "precious"


def test_closing_leaves_the_file_of_somebody_else(
    opened: Open, endpoint: str, tmp_path: Path
) -> None:
    first, second = opened(), opened()
    first.listen(endpoint)
    (tmp_path / "s").unlink()
    second.listen(endpoint)
    first.close()
    assert (tmp_path / "s").is_socket()


def test_the_file_is_closed_to_others(
    opened: Open, endpoint: str, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        opened().listen(endpoint)
    finally:
        os.umask(before)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_path_that_is_too_long_is_a_clear_error(opened: Open) -> None:
    with pytest.raises(OpenClusterError, match="107 bytes"):
        opened().listen(f"unix:///tmp/{'x' * 103}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users_stay_outside(opened: Open) -> None:
    server = opened()
    with tempfile.TemporaryDirectory(prefix="lane-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        at = f"unix://{folder}/s"
        server.listen(at)
        assert "Permission denied" in run_as_other(at, server)
        Path(folder, "s").chmod(0o777)
        assert run_as_other(at, server) == "cut off\n"
        assert server.counts.rejected_credentials == 1


def run_as_other(endpoint: str, server: LaneTransport) -> str:
    """Return what another user says about its try to connect."""
    command = [sys.executable, lane_programs.__file__, "stranger", endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: process.poll() is not None, server)
        assert process.stdout is not None
        return process.stdout.read()


# --- hostile packets --------------------------------------------------------------


def table(*rows: bytes, buffers: int | None = None, header_bytes: int = 0) -> bytes:
    """Return the beginning of a MESSAGE."""
    count = len(rows) if buffers is None else buffers
    return head(MESSAGE, count, header_bytes) + b"".join(rows)


HUGE = (1 << 64) - 1
BAD = {
    "unknown kind": [b"\x63whatever"],
    "kind of nothing": [b"\0"],
    "second greeting": [packets.pack_greeting(HELLO, IDENTITY, 0)],
    "too large": [bytes([PLAIN]) + b"x" * PACKET_BYTES],
    "no head": [bytes([MESSAGE])],
    "head cut off": [head(MESSAGE, 0, 0)[:-1]],
    "table cut off": [table(row(INLINE, 0, 0, 1), buffers=2)],
    "table of 65535": [head(MESSAGE, 65535, 0)],
    "header cut off": [table(header_bytes=5) + b"1234"],
    "header too long": [table(header_bytes=3) + b"1234"],
    "buffer cut off": [table(row(INLINE, 0, 0, 9)) + b"\0" * 8 + b"12345678"],
    "buffer of 2^64": [table(row(INLINE, 0, 0, HUGE)) + b"\0" * 8 + b"12345678"],
    "buffers that overflow": [
        table(row(INLINE, 0, 0, HUGE), row(INLINE, 0, 0, 2)) + b"12"
    ],
    "handle of nowhere": [table(row(1, 1, 4096, 100))],
    "handle of 2^64": [table(row(1, 1, HUGE, HUGE))],
    "large of nothing": [head(LARGE, 0, 0)],
    "large header": [head(LARGE, 0, MAX_BYTES + 1)],
    "large buffer": [head(LARGE, 1, 0), row(INLINE, 0, 0, MAX_BYTES + 1)],
    "large handle": [head(LARGE, 1, 0), row(1, 1, 4096, 100)],
    "large table too long": [head(LARGE, 1, 0), row(INLINE, 0, 0, 5) + b"x"],
    "large packet too long": [head(LARGE, 0, 10), b"12345", b"123456"],
    "segment cut off": [bytes([SEGMENT])],
    "segment without descriptor": [packets.pack_segment(1), b"\0"],
    "segment, then a message": [packets.pack_segment(1), bytes([PLAIN]) + b"hi"],
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_malformed_ends_its_connection_alone(
    opened: Open, endpoint: str, what: str
) -> None:
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    before = open_fds()
    with Stranger(endpoint) as stranger:
        stranger.greet(server)
        stranger.sock.send(bytes([PLAIN]) + b"good")
        assert message(server).header == b"good"
        for packet in BAD[what]:
            stranger.sock.send(packet)
        assert stranger.is_cut_off(server)
    wait_until(lambda: server.counts.dropped_connections == 1, server)
    assert server.counts.rejected_messages == 1
    assert server.counts.rejected_handshakes == 0
    assert client.send(peer, b"still there")
    assert message(server).header == b"still there"
    assert open_fds() <= before


def test_who_breaks_the_rules_at_the_other_end_is_lost(
    opened: Open, endpoint: str
) -> None:
    client = opened()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(endpoint.removeprefix("unix://"))
        listener.listen()
        peer = client.connect(endpoint)
        other, _ = listener.accept()
        with other:
            other.send(packets.pack_greeting(WELCOME, IDENTITY, 0))
            wait_for(client, PeerConnected)
            other.send(b"\x63")
            assert wait_for(client, PeerLost) == PeerLost(peer)
    assert client.counts.rejected_messages == 1
    assert not client.send(peer, b"gone")


@pytest.mark.parametrize("count", [0, 2, 3])
def test_descriptors_that_nobody_wants_are_closed(
    opened: Open, endpoint: str, count: int
) -> None:
    server = opened()
    server.listen(endpoint)
    with Stranger(endpoint) as stranger, tempfile.TemporaryFile() as file:
        stranger.greet(server)
        before = open_fds()
        fds = [file.fileno()] * count
        stranger.sock.send(packets.pack_segment(1))
        socket.send_fds(stranger.sock, [b"\0"], fds)
        assert stranger.is_cut_off(server)
        # in front of a packet that should have none, the kernel throws them away
        with Stranger(endpoint) as another:
            another.greet(server)
            socket.send_fds(another.sock, [bytes([PLAIN]) + b"hello"], [file.fileno()])
            assert message(server).header == b"hello"
            assert len(open_fds()) == len(before) + 1
    assert server.counts.rejected_messages == 1


def memfd(size: int, seals: int) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize(
    "fd",
    [
        lambda: os.open("/dev/null", os.O_RDWR),
        lambda: os.open(__file__, os.O_RDONLY),
        lambda: memfd(1 << 20, 0),
        lambda: socket.socket().detach(),
    ],
    ids=["device", "file", "unsealed", "socket"],
)
def test_a_segment_that_is_none_ends_the_connection(
    opened: Open, endpoint: str, fd: Callable[[], int]
) -> None:
    server = opened()
    server.listen(endpoint)
    before = open_fds()
    with Stranger(endpoint) as stranger:
        stranger.greet(server)
        stranger.sock.send(packets.pack_segment(1))
        descriptor = fd()
        socket.send_fds(stranger.sock, [b"\0"], [descriptor])
        os.close(descriptor)
        assert stranger.is_cut_off(server)
    wait_until(lambda: server.counts.rejected_messages == 1, server)
    assert open_fds() <= before


def test_what_is_only_announced_takes_no_memory(opened: Open, endpoint: str) -> None:
    server = opened()
    server.listen(endpoint)
    count = 500
    before = resident_bytes()
    with Stranger(endpoint) as stranger:
        stranger.greet(server)
        # 500 buffers of 64 MB, of which the first has begun to come
        stranger.sock.send(head(LARGE, count, 0))
        stranger.sock.send(row(INLINE, 0, 0, MAX_BYTES) * count)
        stranger.sock.send(b"x" * 1000)
        wait_until(lambda: not unread_bytes(stranger.sock), server)
        assert resident_bytes() - before < 16 << 20
        assert server.counts.rejected_messages == 0


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def unread_bytes(sock: socket.socket) -> int:
    """Return how much of what was sent has not been read (SIOCOUTQ)."""
    packed = fcntl.ioctl(sock, 0x5411, b"\0" * 4)
    return int(struct.unpack("i", packed)[0])


good_packets = st.sampled_from(
    [
        bytes([PLAIN]) + b"header",
        head(MESSAGE, 1, 6) + row(INLINE, 0, 0, 20) + b"\0" * 8 + b"y" * 20 + b"header",
        head(LARGE, 1, 6),
        row(INLINE, 0, 0, 30),
        b"z" * 30,
        b"header",
        packets.pack_segment(1),
        packets.pack_greeting(HELLO, IDENTITY, 1),
    ]
)


@st.composite
def mutated_packets(draw: st.DrawFn) -> bytes:
    packet = bytearray(draw(good_packets))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(packet) - 1))
        packet[at] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(1, len(packet)))])


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(good_packets | mutated_packets() | st.binary(min_size=1, max_size=60)),
    st.booleans(),
)
def test_whatever_comes_the_lane_goes_on(
    many_lanes: tuple[LaneTransport, str], said: list[bytes], is_greeted: bool
) -> None:
    server, endpoint = many_lanes
    counts = server.counts
    dropped = counts.dropped_connections
    with Stranger(endpoint) as stranger:
        if is_greeted:
            stranger.greet(server)
        with contextlib.suppress(OSError):
            for packet in said:
                stranger.sock.send(packet)
    wait_until(lambda: counts.dropped_connections == dropped + 1, server)


@pytest.fixture(scope="module")
def many_lanes() -> Iterator[tuple[LaneTransport, str]]:
    with tempfile.TemporaryDirectory() as folder:
        server = LaneTransport(MAX_BYTES)
        endpoint = server.listen(f"unix://{folder}/s")
        yield server, endpoint
        server.close()


# --- much at once -----------------------------------------------------------------


def test_what_does_not_go_out_at_once_goes_later_and_in_order(
    opened: Open, endpoint: str
) -> None:
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    count = 30_000
    for n in range(count):
        assert client.send(peer, b"%d" % n)
    came = messages(server, count, client)
    assert [m.header for m in came] == [b"%d" % n for n in range(count)]
    # and then at once again
    assert client.send(peer, b"at once")
    assert message(server).header == b"at once"


def test_the_memory_of_what_waits_is_kept(opened: Open, endpoint: str) -> None:
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    for n in range(40):
        assert client.send(peer, b"%d" % n, [np.full(1_000_000, n, np.uint8).data])
    gc.collect()
    came = messages(server, 40, client)
    for n, received in enumerate(came):
        assert (np.frombuffer(received.buffers[0], np.uint8) == n).all()


def test_large_messages_both_ways_at_once(opened: Open, endpoint: str) -> None:
    server, one, two = opened(), opened(), opened()
    peers = [pair(server, one, endpoint), two.connect(endpoint)]
    chance = random.Random(5)
    large = chance.randbytes(50_000_000)
    for client, peer in zip((one, two), peers, strict=True):
        assert client.send(peer, b"there", [large, b"and", large[:100_000]])
    came = messages(server, 2, one, two)
    for received in came:
        assert [len(b) for b in received.buffers] == [50_000_000, 3, 100_000]
        assert received.buffers[0] == large
        assert received.buffers[2] == large[:100_000]
        assert server.send(received.peer, b"back", received.buffers[:1])
    back = [b"", b""]

    def are_back() -> bool:
        for at, client in enumerate((one, two)):
            for event in client.receive():
                if isinstance(event, Received):
                    back[at] = event.buffers[0]
        return all(back)

    wait_until(are_back, server)
    assert back == [large, large]


def test_arrays_lie_at_even_places_and_cannot_be_written(
    opened: Open, endpoint: str
) -> None:
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    for sizes in ([1, 3, 8], [5_000] * 7, [70_000, 1, 200_000], [2_000_000]):
        arrays = [np.arange(n, dtype=np.float64) for n in sizes]
        assert client.send(peer, b"header", [a.view(np.uint8).data for a in arrays])
        came = message(server, client)
        for sent, buffer in zip(arrays, came.buffers, strict=True):
            got = np.frombuffer(buffer, np.float64)
            assert got.flags.aligned
            assert not got.flags.writeable
            assert (got == sent).all()


def test_who_does_not_read_is_given_up(
    opened: Open, endpoint: str, start: Start
) -> None:
    server = opened(max_queued=100)
    server.listen(endpoint)
    start_later = [sys.executable, lane_programs.__file__, "flood", endpoint]
    with subprocess.Popen(start_later, stdout=subprocess.PIPE) as process:
        try:
            peer = message(server).peer
            sent = 0
            while server.send(peer, b"x" * 1000):
                sent += 1
                assert sent < 1_000_000
            server.receive()
            assert not server.send(peer, b"one more")
        finally:
            process.kill()
    wait_until(lambda: server.counts.dropped_connections == 1, server)


def test_a_message_of_too_many_buffers_is_refused_here(
    opened: Open, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "MAX_BUFFERS", 5000)
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    assert client.send(peer, b"many", [b"x"] * packets.MAX_BUFFERS)
    assert len(message(server, client).buffers) == packets.MAX_BUFFERS
    with pytest.raises(LocalProtocolError, match="join small ones"):
        client.send(peer, b"too many", [b"x"] * (packets.MAX_BUFFERS + 1))
    assert client.send(peer, b"still there")
    message(server, client)


# --- shared memory ------------------------------------------------------------------


def test_large_buffers_lie_in_shared_memory_and_return(
    opened: Open, endpoint: str
) -> None:
    server, client = opened(), opened(64 << 20)
    peer = pair(server, client, endpoint)
    assert client.arena is not None
    data = np.arange(1_000_000, dtype=np.float64)
    for n in range(200):
        assert client.send(peer, b"%d" % n, [data.view(np.uint8).data, b"small"])
        came = message(server, client)
        assert came.buffers[1] == b"small"
        array = np.frombuffer(came.buffers[0], np.float64)
        assert array[n] == n
        assert not array.flags.writeable
        assert client.arena.counts.used_bytes >= data.nbytes
        del came, array
    assert client.arena.counts.used_bytes == 0
    # what 200 blocks took is not more than what two would
    assert client.arena.counts.mapped_bytes <= 32 << 20


def test_without_room_in_shared_memory_everything_goes_through_the_socket(
    opened: Open, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = opened(), opened(4 << 20)
    peer = pair(server, client, endpoint)
    kept = []
    for n in range(12):
        assert client.send(peer, b"%d" % n, [bytes([n]) * 1_000_000])
        kept.append(message(server, client))
    for n, received in enumerate(kept):
        assert received.buffers[0] == bytes([n]) * 1_000_000
    assert client.arena is not None
    assert client.arena.counts.refused > 0
    assert len([r for r in caplog.records if "shared memory" in r.message]) <= 1


def test_who_does_not_map_segments_gets_none(opened: Open, endpoint: str) -> None:
    server = opened(64 << 20)
    server.listen(endpoint)
    with Stranger(endpoint) as stranger:
        stranger.greet(server)
        stranger.sock.send(bytes([PLAIN]) + b"hello")
        assert server.send(message(server).peer, b"header", [b"x" * 40_000])
        packet = stranger.sock.recv(1 << 17)
        assert packet[0] == MESSAGE
        assert b"x" * 40_000 in packet
    assert server.arena is not None
    assert server.arena.counts.mapped_bytes == 0


def test_who_fails_to_map_a_segment_says_so_the_next_time(
    opened: Open,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(self: Mapping, segment: int, fd: int) -> None:
        os.close(fd)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Mapping, "add", fail)
    server, client = opened(), opened(64 << 20)
    peer = pair(server, client, endpoint)
    assert client.send(peer, b"first", [b"x" * 100_000])
    assert wait_for(client, PeerLost, server) == PeerLost(peer)
    assert "Cannot allocate memory" in caplog.text
    assert server.counts.rejected_messages == 0
    peer = client.connect(endpoint)
    wait_for(client, PeerConnected, server)
    assert client.send(peer, b"second", [b"x" * 100_000])
    assert message(server, client).buffers == [b"x" * 100_000]


def test_who_has_no_descriptor_for_a_segment_is_no_liar(
    opened: Open, endpoint: str
) -> None:
    server, client = opened(), opened(64 << 20)
    peer = pair(server, client, endpoint)
    assert client.send(peer, b"first", [b"x" * 100_000])
    with no_descriptor_left():
        wait_until(lambda: server.counts.dropped_connections == 1, server)
    assert server.counts.rejected_messages == 0
    assert wait_for(client, PeerLost) == PeerLost(peer)


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have every descriptor of this process in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_the_shared_memory_of_who_is_lost_is_free_again(
    opened: Open, endpoint: str, start: Start
) -> None:
    server = opened(64 << 20, heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S)
    assert server.arena is not None
    server.listen(endpoint)
    command = [sys.executable, lane_programs.__file__, "flood", endpoint]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            peer = message(server).peer
            for _ in range(5):
                assert server.send(peer, b"unread", [b"x" * 5_000_000])
            assert server.arena.counts.used_bytes >= 25_000_000
            process.kill()
        wait_until(lambda: server.arena.counts.used_bytes == 0, server)
    assert server.arena.counts.mapped_bytes <= 64 << 20


# --- the ends of processes ------------------------------------------------------------


def test_a_process_that_is_killed_is_lost_at_once(
    opened: Open, endpoint: str, start: Start
) -> None:
    client = opened(heartbeat_s=0)
    before = open_fds()
    for n in range(5):
        process = start("serve")
        peer = client.connect(endpoint)
        assert client.send(peer, b"%d" % n, [b"x" * 300_000])
        assert message(client).header == b"%d" % n
        process.kill()
        assert wait_for(client, PeerLost) == PeerLost(peer)
        assert not client.send(peer, b"gone")
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    # of earlier tests some may be closed meanwhile
    assert open_fds() <= before


def test_the_last_words_of_a_process_are_heard(
    opened: Open, endpoint: str, start: Start
) -> None:
    client = opened()
    for _ in range(5):
        process = start("serve")
        peer = client.connect(endpoint)
        wait_for(client, PeerConnected)
        client.send(peer, b"exit")
        # which it will not read
        for _ in range(1000):
            client.send(peer, b"unread")
        process.wait()
        events: list[Any] = []

        while PeerLost(peer) not in events:
            events += client.receive()
        assert [e.header for e in events if isinstance(e, Received)][-1] == b"last"


def test_senders_that_are_killed_leave_whole_messages_and_nothing_else(
    opened: Open, endpoint: str, start: Start
) -> None:
    server = opened()
    server.listen(endpoint)
    before = open_fds()
    for turn in range(1, 9):
        command = [sys.executable, lane_programs.__file__, "pour", endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            came = messages(server, 20 * turn)
            process.kill()
        while server.counts.dropped_connections < turn:
            came += [e for e in server.receive() if isinstance(e, Received)]
        assert [int(m.header) for m in came] == list(range(len(came)))
        for number, received in enumerate(came):
            size = lane_programs.SIZES[number % len(lane_programs.SIZES)]
            data = b"".join(received.buffers)
            assert data == bytes([number % 251]) * size
        del came, received, data
    assert server.counts.rejected_messages == 0
    assert open_fds() <= before


def test_receivers_that_are_killed_do_no_harm(
    opened: Open, endpoint: str, start: Start
) -> None:
    client = opened(64 << 20)
    assert client.arena is not None
    for turn in range(6):
        process = start("serve")
        peer = client.connect(endpoint)
        wait_for(client, PeerConnected)
        for n in range(50 * (turn + 1)):
            size = lane_programs.SIZES[n % len(lane_programs.SIZES)]
            assert client.send(peer, b"%d" % n, [b"x" * size] if size else [])
        process.kill()
        wait_for(client, PeerLost)
        wait_until(lambda: client.arena.counts.used_bytes == 0)


@pytest.mark.parametrize("how", ["python", "c"])
def test_a_forked_child_does_not_keep_a_dead_process_alive(
    opened: Open, endpoint: str, start: Start, how: str
) -> None:
    client = opened(heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S)
    process = start("serve")
    peer = client.connect(endpoint)
    assert client.send(peer, b"fork " + how.encode())
    child = int(message(client).header)
    try:
        process.kill()
        process.wait()
        assert wait_for(client, PeerLost) == PeerLost(peer)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_leaves_the_sockets_of_its_parent_alone(
    opened: Open, endpoint: str
) -> None:
    server, client = opened(), opened(64 << 20)
    peer = pair(server, client, endpoint)
    child = os.fork()
    if not child:
        is_silent = not client.send(peer, b"child") and not client.receive()
        client.close()
        server.close()
        os._exit(0 if is_silent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.send(peer, b"parent")
    assert message(server, client).header == b"parent"
    other = opened()
    assert other.send(other.connect(endpoint), b"another")
    assert message(server, other).header == b"another"


def test_a_socket_that_a_forked_child_has_too_wakes_nobody_any_more(
    opened: Open, endpoint: str
) -> None:
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    client.send(peer, b"hello")
    assert server.send(message(server).peer, b"unread")
    # without a word to Python, as code in C may do
    child = ctypes.CDLL(None).fork()
    if not child:
        signal.pause()
    assert child > 0
    try:
        client.disconnect(peer)
        assert client.pollables()[0].poll(0.1) == []
        assert client.receive() == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_process_that_stands_still_is_lost(
    opened: Open, endpoint: str, start: Start
) -> None:
    client = opened(heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S)
    process = start("serve")
    peer = client.connect(endpoint)
    wait_for(client, PeerConnected)
    os.kill(process.pid, signal.SIGSTOP)
    assert wait_for(client, PeerLost) == PeerLost(peer)
    # it can be connected to again, but does not answer before it goes on
    peer = client.connect(endpoint)
    assert wait_for(client, PeerLost) == PeerLost(peer)
    peer = client.connect(endpoint)
    client.send(peer, b"are you there")
    os.kill(process.pid, signal.SIGCONT)
    assert wait_for(client, PeerConnected) == PeerConnected(peer)
    assert message(client).header == b"are you there"


def test_a_pause_that_is_short_enough_is_not_noticed(
    opened: Open, endpoint: str, start: Start
) -> None:
    client = opened(heartbeat_s=HEARTBEAT_S, timeout_s=60.0)
    process = start("serve")
    peer = client.connect(endpoint)
    wait_for(client, PeerConnected)
    onlooker = Onlooker(process.pid)
    for n in range(3):
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: onlooker.look() == STOPPED)
        assert client.send(peer, b"%d" % n)
        assert wait_quietly(client, 4 * HEARTBEAT_S) == []
        os.kill(process.pid, signal.SIGCONT)
        assert message(client).header == b"%d" % n


def test_a_process_whose_code_keeps_python_to_itself_is_not_lost(
    opened: Open, endpoint: str, start: Start
) -> None:
    first = opened(heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S)
    start("serve")
    peer = first.connect(endpoint)
    wait_for(first, PeerConnected)
    assert first.send(peer, b"hold 2.5")
    # whoever comes meanwhile finds it, too
    second = opened(heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S)
    late = second.connect(endpoint)
    events: list[Any] = []

    def has_answered() -> bool:
        events.extend(first.receive())
        return bool(events)

    assert wait_for(second, PeerConnected) == PeerConnected(late)
    assert second.send(late, b"hello")
    assert not has_answered()
    wait_until(has_answered)
    assert [getattr(e, "header", e) for e in events] == [b"hold 2.5"]
    assert message(second).header == b"hello"


def wait_quietly(transport: LaneTransport, seconds: float) -> list[Any]:
    """Return what happens within a time."""
    events: list[Any] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        events += transport.receive()
        time.sleep(0.005)
    return events


def test_who_finds_no_descriptor_waits_for_one(
    opened: Open, endpoint: str, start: Start
) -> None:
    start("crowd")
    clients = [opened(heartbeat_s=0) for _ in range(8)]
    peers = [client.connect(endpoint) for client in clients]
    for client, peer in zip(clients, peers, strict=True):
        client.send(peer, b"hello")
    assert message(clients[0]).header == b"hello"
    assert wait_quietly(clients[-1], 0.3) == []
    clients[0].send(peers[0], b"more")
    for client in clients[1:]:
        assert message(client).header == b"hello"


def test_a_lane_with_nothing_to_watch_is_still(opened: Open, endpoint: str) -> None:
    server, client = opened(heartbeat_s=0.01), opened(heartbeat_s=0.01)
    pair(server, client, endpoint)
    # a client looks at its hosts now and then, a server at nobody
    assert client.pollables()[0].poll(10)
    wait_until(lambda: not server.pollables()[0].poll(0.1), server)


def test_closing_twice_and_using_what_is_closed(opened: Open, endpoint: str) -> None:
    server, client = opened(), opened()
    peer = pair(server, client, endpoint)
    client.close()
    client.close()
    assert client.receive() == []
    assert not client.send(peer, b"too late")


# --- what is written down -------------------------------------------------------------


def test_the_kinds_of_packets_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    section = text.partition("## The express lane")[2].partition("\n## ")[0]
    found = re.findall(r"^\| (\d+) \| ([A-Z]+) \|", section, re.MULTILINE)
    assert [getattr(packets, name) for _, name in found] == list(range(1, 8))
    assert [int(number) for number, _ in found] == list(range(1, 8))
    assert f"now {packets.VERSION}" in section
