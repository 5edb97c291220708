"""Large messages over ZeroMQ, in chunks: real sockets, and what hostile peers say."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from lane_tools import message, wait_for, wait_until

from opencluster.core.chunks import CHUNK_BYTES, WINDOW_BYTES, Moved
from opencluster.core.roles import WORKER
from opencluster.net import transfers as module
from opencluster.net import zmq_transport
from opencluster.net.keyfiles import make_keys
from opencluster.net.keys import Keyring
from opencluster.net.transfers import LARGE_BYTES
from opencluster.net.transport import Peer, PeerLost
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire.transfers import (
    BEGUN,
    CEASED,
    CHUNK,
    FAILED,
    REFUSED,
    TAKEN,
    THERE,
    UNWANTED,
    Head,
    pack,
    pack_sizes,
)

MAX_BYTES = 64 << 20
MIB = 1 << 20
TCP = "tcp://127.0.0.1:0"
Make = Callable[..., ZmqTransport]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(zmq_transport, "TICK_S", 0.05)
    monkeypatch.setattr(module, "TICK_S", 0.05)
    made: list[ZmqTransport] = []

    def transport(keys: Keyring | None = None, max_coming: int = 4) -> ZmqTransport:
        made.append(ZmqTransport(MAX_BYTES, 0.5, 5.0, keys, max_coming=max_coming))
        return made[-1]

    yield transport
    for one in made:
        if not one._server.closed:
            one.close()


@pytest.fixture
def pair(make: Make) -> tuple[ZmqTransport, ZmqTransport, Peer]:
    """Return who listens, who connected, and what that calls the other."""
    server, client = make(), make()
    return server, client, client.connect(server.listen(TCP))


def pattern(nbytes: int, seed: int = 0) -> bytes:
    """Return bytes of which no two chunks are the same."""
    return b"".join(
        (n + seed).to_bytes(4, "big") * (CHUNK_BYTES // 64)
        for n in range(-(-nbytes * 16 // CHUNK_BYTES))
    )[:nbytes]


def is_idle(transport: ZmqTransport) -> bool:
    return transport._transfers.is_idle


@pytest.mark.parametrize("way", ["tcp", "ipc", "curve"])
def test_a_large_message_goes_there_and_back(
    make: Make, way: str, tmp_path: Path
) -> None:
    keys: list[Keyring | None] = [None, None]
    if way == "curve":
        make_keys(tmp_path / "keys")
        keys = [Keyring.load(tmp_path / "keys", WORKER) for _ in keys]
    server, client = make(keys[0]), make(keys[1])
    endpoint = server.listen(f"ipc://{tmp_path}/s" if way == "ipc" else TCP)
    peer = client.connect(endpoint, server.public_key)
    buffers = [b"small", b"", pattern(2 * LARGE_BYTES + 5), b"x", pattern(3 * MIB, 99)]
    assert client.send(peer, b"header", buffers)
    came = message(server, client)
    assert came.header == b"header"
    assert list(came.buffers) == buffers
    assert all(memoryview(buffer).readonly for buffer in came.buffers)
    assert server.send(came.peer, b"back", came.buffers)
    back = message(client, server)
    assert (back.peer, back.header, list(back.buffers)) == (peer, b"back", buffers)
    wait_until(lambda: is_idle(server) and is_idle(client), server, client)
    assert server.counts.rejected_messages == client.counts.rejected_messages == 0
    if way == "curve":
        assert came.who.name == back.who.name == "worker"


def test_small_messages_do_not_wait_for_large_ones_and_keep_their_order(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    assert client.send(peer, b"large", [pattern(4 * WINDOW_BYTES)])
    for number in range(5):
        assert client.send(peer, b"%d" % number, [b"small"])
    # it does not read, so nothing more can have left than may be under way
    assert client.moved == Moved(0, 4 * WINDOW_BYTES)
    came = [message(server, client).header for _ in range(6)]
    assert came == [b"0", b"1", b"2", b"3", b"4", b"large"]


def test_several_large_messages_share_the_line(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    long, short = pattern(5 * WINDOW_BYTES), pattern(LARGE_BYTES + 1, 7)
    client.send(peer, b"long", [long])
    client.send(peer, b"short", [short])
    first, second = message(server, client), message(server, client)
    assert (first.header, list(first.buffers)) == (b"short", [short])
    assert (second.header, list(second.buffers)) == (b"long", [long])


def test_what_nobody_needs_any_more_need_not_come(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    client.send(peer, b"hello")
    guest = message(server, client).peer
    assert server.coming(guest) == []
    client.send(peer, b"large", [pattern(4 * WINDOW_BYTES)])
    wait_until(lambda: bool(server.coming(guest)), server)
    ((number, header),) = server.coming(guest)
    assert header == b"large"
    server.refuse(guest, number)
    wait_until(lambda: is_idle(client), server, client)
    assert server.moved == client.moved == Moved()
    client.send(peer, b"another", [pattern(2 * LARGE_BYTES)])
    assert message(server, client).header == b"another"
    assert server.counts.rejected_messages == 0


def test_a_connection_that_breaks_ends_what_leaves(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    client.send(peer, b"large", [pattern(4 * WINDOW_BYTES)])
    wait_until(lambda: client.moved.sent > 0, server, client)
    server.close()
    assert wait_for(client, PeerLost) == PeerLost(peer)
    assert is_idle(client)


def test_what_comes_from_who_is_gone_takes_no_memory_for_ever(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    client.send(peer, b"large", [pattern(4 * WINDOW_BYTES)])
    wait_until(lambda: server.moved.came > MIB, server)
    client.close()
    # nobody tells: it is found out
    wait_until(lambda: is_idle(server), server)


def test_what_leaves_to_who_is_gone_takes_no_memory_for_ever(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    client.send(peer, b"hello")
    guest = message(server, client).peer
    server.send(guest, b"large", [pattern(4 * WINDOW_BYTES)])
    wait_until(lambda: client.moved.came > MIB, client)
    client.close()
    wait_until(lambda: is_idle(server), server)


def test_what_comes_from_who_came_back_is_given_up(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    endpoint = server._listening[0]
    client.send(peer, b"large", [pattern(4 * WINDOW_BYTES)])
    wait_until(lambda: server.moved.came > MIB, server)
    client.disconnect(peer)
    assert is_idle(client)
    # by the same name as before, but it knows nothing of what it had begun
    client.send(client.connect(endpoint), b"here again")
    wait_until(lambda: is_idle(server), server, client)


def test_who_stands_still_for_too_long_is_given_up(
    pair: tuple[ZmqTransport, ZmqTransport, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client, peer = pair
    client.send(peer, b"large", [pattern(4 * WINDOW_BYTES)])
    monkeypatch.setattr(module, "GIVE_UP_S", 0.2)
    # the client is connected, and does nothing
    wait_until(lambda: server.moved.came > MIB, server)
    wait_until(lambda: is_idle(server), server)
    # to it a message is lost, as if with the connection
    assert wait_for(client, PeerLost, server) == PeerLost(peer)
    assert is_idle(client)


def test_of_two_that_part_it_is_who_connected_that_leaves(
    pair: tuple[ZmqTransport, ZmqTransport, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client, peer = pair
    client.send(peer, b"hello")
    server.send(message(server, client).peer, b"large", [pattern(4 * WINDOW_BYTES)])
    monkeypatch.setattr(module, "GIVE_UP_S", 0.2)
    assert wait_for(client, PeerLost) == PeerLost(peer)
    assert is_idle(client)
    wait_until(lambda: is_idle(server), server)


def test_an_array_that_is_too_large_is_refused_and_its_sender_learns_of_it(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    client.send(peer, b"large", [bytes(MAX_BYTES + 1)])
    assert wait_for(client, PeerLost, server) == PeerLost(peer)
    assert server.counts.rejected_messages == 1
    assert is_idle(server) and is_idle(client)


def test_who_takes_no_large_messages_says_so(make: Make) -> None:
    server, client = make(max_coming=0), make()
    peer = client.connect(server.listen(TCP))
    client.send(peer, b"large", [bytes(LARGE_BYTES + 1)])
    assert wait_for(client, PeerLost, server) == PeerLost(peer)
    assert is_idle(server)


def test_what_was_sent_leaves_before_the_end(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    sent = pattern(4 * WINDOW_BYTES)
    client.send(peer, b"large", [sent])
    closing = threading.Thread(target=client.close, args=(20.0,))
    closing.start()
    came = message(server)
    assert list(came.buffers) == [sent]
    closing.join()


BEGIN = [(Head(BEGUN, 7), [b"header", pack_sizes([6, 4])])]
LONG = [(Head(BEGUN, 7), [b"header", pack_sizes([9 * MIB])])]
FIRST = (Head(CHUNK, 7, 0, CHUNK_BYTES), [bytes(CHUNK_BYTES)])
HOSTILE: list[Sequence[tuple[Head, list[bytes]]]] = [
    [(Head(BEGUN, 7), [])],
    [(Head(BEGUN, 7), [b"header"])],
    [(Head(BEGUN, 7), [b"header", b"odd"])],
    [(Head(BEGUN, 7), [b"header", b""])],
    [(Head(BEGUN, 7), [b"header", pack_sizes([0])])],
    [(Head(BEGUN, 7), [b"header", pack_sizes([1 << 63])])],
    [(Head(BEGUN, 7), [b"header", pack_sizes([1] * 5000)])],
    [*BEGIN, *BEGIN],
    [*BEGIN, (Head(CHUNK, 7, 0, 0), [])],
    [*BEGIN, (Head(CHUNK, 7, 0, 6), [b"sixsix"])],
    [*BEGIN, (Head(CHUNK, 7, 0, 10), [b"short", b"four"])],
    [*BEGIN, (Head(CHUNK, 7, 0, 10), [b"sixsix", b"long!"])],
    [*BEGIN, (Head(CHUNK, 7, 0, 10), [b"sixsix", b"fo", b"ur"])],
    [*BEGIN, (Head(CHUNK, 7, 6, 4), [b"four"])],
    [*LONG, FIRST, (Head(CHUNK, 7, 9, CHUNK_BYTES), [bytes(CHUNK_BYTES)])],
    [*BEGIN, (Head(CHUNK, 7, 0, 11), [b"sixsix", b"five5"])],
    [*BEGIN, (Head(CHUNK, 7, 1 << 63, 10), [b"sixsix", b"four"])],
    [*BEGIN, (Head(CHUNK, 7, 0, 10, 200), [b"sixsix", b"four"])],
    [(Head(BEGUN, n), [b"header", pack_sizes([6, 4])]) for n in range(9)],
]


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_what_makes_no_sense_is_counted_and_leaves_nothing(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
    said: Sequence[tuple[Head, list[bytes]]],
) -> None:
    server, client, peer = pair
    for head, frames in said:
        assert client.send(peer, pack(head), frames)
    wait_until(lambda: server.counts.rejected_messages > 0, server, client)
    # it knows of none of them, so that those that made sense are given up, too
    wait_until(lambda: is_idle(server), server, client)
    client.send(peer, b"and now", [pattern(LARGE_BYTES + 1)])
    assert message(server, client).header == b"and now"


@pytest.mark.parametrize(
    "head",
    [
        Head(CHUNK, 5, 0, 5),
        Head(CEASED, 5),
        Head(TAKEN, 5, 1 << 60),
        Head(REFUSED, 5, code=FAILED),
        Head(REFUSED, 5, code=UNWANTED),
        Head(THERE),
    ],
)
def test_what_is_said_of_unknown_transfers_changes_nothing(
    pair: tuple[ZmqTransport, ZmqTransport, Peer], head: Head
) -> None:
    server, client, peer = pair
    assert client.send(peer, pack(head), [b"12345"])
    assert client.send(peer, b"and now", [pattern(LARGE_BYTES + 1)])
    assert message(server, client).header == b"and now"
    assert server.counts.rejected_messages == 0
    wait_until(lambda: is_idle(server) and is_idle(client), server, client)


def test_taking_what_was_not_sent_is_refused(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    client.send(peer, b"hello")
    server.send(message(server, client).peer, b"large", [pattern(4 * WINDOW_BYTES)])
    client.send(peer, pack(Head(TAKEN, 1, 1 << 60)))
    wait_until(lambda: server.counts.rejected_messages == 1, server)
    assert message(client, server).header == b"large"


def test_heads_of_another_length_are_refused(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
) -> None:
    server, client, peer = pair
    for damaged in (pack(Head(CHUNK, 1))[:-1], pack(Head(BEGUN, 1)) + b"x", b"OC\1\1"):
        assert client.send(peer, damaged)
    wait_until(lambda: server.counts.rejected_messages == 3, server)


RECEIVER = """
import sys
import zmq
from pathlib import Path
from opencluster.net.keys import Keyring
from opencluster.net.transport import Received
from opencluster.net.zmq_transport import ZmqTransport
keys = Keyring.load(Path(sys.argv[1]), "worker") if sys.argv[1] else None
transport = ZmqTransport(1 << 30, keys=keys, max_coming=4)
print(transport.listen("tcp://127.0.0.1:0"), transport.public_key, flush=True)
Path("/proc/self/clear_refs").write_text("5")
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
before = peak()
while True:
    zmq.zmq_poll([edge.question for edge in transport.pollables()[:2]], 100)
    for event in transport.receive():
        if not isinstance(event, Received):
            continue
        if event.header == b"peak":
            transport.send(event.peer, b"%d" % (peak() - before))
        else:
            transport.send(event.peer, event.header, event.buffers)
    event = None
"""
"""Sends back what comes, and tells how much more memory it had at a time."""


def peak_bytes() -> int:
    """Return the most memory that this process had since it was last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("has_keys", [False, True], ids=["open", "curve"])
def test_neither_side_has_a_message_twice(
    make: Make, has_keys: bool, tmp_path: Path
) -> None:
    keys = None
    if has_keys:
        make_keys(tmp_path / "keys")
        keys = Keyring.load(tmp_path / "keys", WORKER)
    client = make(keys)
    where = str(tmp_path / "keys") if has_keys else ""
    process = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, where], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        endpoint, _, public_key = process.stdout.readline().rstrip("\n").partition(" ")
        peer = client.connect(endpoint, public_key)
        sent = pattern(MAX_BYTES)
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_bytes()
        client.send(peer, b"large", [sent])
        came = message(client)
        grown = peak_bytes() - before
        assert list(came.buffers) == [sent]
        # what came back, and what is under way
        assert grown < MAX_BYTES + 2 * WINDOW_BYTES
        client.send(peer, b"peak")
        grown_there = int(message(client).header)
        assert MAX_BYTES < grown_there < MAX_BYTES + 3 * WINDOW_BYTES
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
