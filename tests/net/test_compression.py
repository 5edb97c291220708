"""Compressed chunks, with the packages that do it; and what strangers make of them."""

from __future__ import annotations

from random import Random

import lz4.block
import pytest
import zstandard
from lane_tools import message, wait_until

from opencluster.core.chunks import CHUNK_BYTES, WINDOW_BYTES
from opencluster.core.payoff import PROBE_BYTES
from opencluster.errors import OpenClusterError, RemoteProtocolError
from opencluster.net import compression as module
from opencluster.net import transfers
from opencluster.net.compression import LZ4, ZSTD, Compression, installed
from opencluster.net.transport import Peer
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire.transfers import BEGUN, CHUNK, Head, pack, pack_sizes

PEER = b"peer"
MIB = 1 << 20
PLAIN = memoryview(b"a spectrum " * 10_000)
NOISE = memoryview(Random(1).randbytes(1 << 17))
CODES = {"lz4": LZ4, "zstd": ZSTD}


def made_small(code: int, data: bytes) -> bytes:
    """Return compressed data, made by the package itself."""
    if code == LZ4:
        return bytes(lz4.block.compress(data, store_size=False))
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("setting", CODES)
def test_what_is_compressed_comes_out_the_same(setting: str) -> None:
    ours, theirs = Compression(setting), Compression("auto")
    ours.taken(PEER, 0, theirs.understood)
    code, small = ours.packed(PEER, PLAIN)
    assert code == CODES[setting] and len(small) < len(PLAIN) / 10
    assert theirs.unpacked(code, memoryview(small), len(PLAIN)) == PLAIN


def test_what_does_not_shrink_and_what_is_short_leave_as_they_are() -> None:
    ours = Compression("lz4")
    ours.taken(PEER, 0, installed())
    for data in (NOISE, PLAIN[:100]):
        code, same = ours.packed(PEER, data)
        assert code == 0 and same is data


@pytest.mark.parametrize("understood", [0, ZSTD])
def test_nobody_is_sent_what_he_cannot_read(understood: int) -> None:
    ours = Compression("lz4")
    assert ours.packed(PEER, PLAIN)[0] == 0
    ours.taken(PEER, 0, understood)
    assert ours.packed(PEER, PLAIN)[0] == 0


def test_who_wants_none_reads_none() -> None:
    none = Compression("none")
    assert none.understood == 0
    none.taken(PEER, 0, installed())
    assert none.packed(PEER, PLAIN)[0] == 0
    with pytest.raises(RemoteProtocolError, match="unknown form"):
        none.unpacked(LZ4, memoryview(made_small(LZ4, b"x" * 100)), 100)


def test_what_is_not_installed_is_not_used_and_cannot_be_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "installed", lambda: ZSTD)
    assert Compression("auto").understood == ZSTD
    with pytest.raises(OpenClusterError, match=r"pip install 'opencluster\[compr"):
        Compression("lz4")


def test_by_itself_only_what_pays_is_compressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    ours = Compression("auto")
    ours.begin(PEER)
    ours.taken(PEER, MIB, installed())
    assert ours.packed(PEER, PLAIN)[0] == 0
    # a line of 1 MB/s: no processor is as slow as that
    now += PROBE_BYTES / 1e6
    ours.taken(PEER, PROBE_BYTES, installed())
    assert ours.packed(PEER, PLAIN)[0] in CODES.values()
    assert ours.packed(PEER, NOISE)[0] == 0


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_no_more_comes_out_than_was_announced(code: int) -> None:
    theirs = Compression("auto")
    bomb = memoryview(made_small(code, bytes(200 * MIB)))
    with pytest.raises(RemoteProtocolError):
        theirs.unpacked(code, bomb, MIB)
    with pytest.raises(RemoteProtocolError):
        theirs.unpacked(code, memoryview(made_small(code, b"x" * 99)), 100)


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
@pytest.mark.parametrize("damage", ["cut", "bent", "empty", "foreign"])
def test_damaged_data_are_refused(code: int, damage: str) -> None:
    data = bytearray(made_small(code, bytes(PLAIN)))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "bent":
        data[:8] = b"\xff" * 8
    else:
        data = bytearray(b"" if damage == "empty" else b"x" * 50)
    with pytest.raises(RemoteProtocolError):
        Compression("auto").unpacked(code, memoryview(data), len(PLAIN))


@pytest.mark.parametrize("code", [3, 4, 128, 255])
def test_unknown_forms_are_refused(code: int) -> None:
    with pytest.raises(RemoteProtocolError, match="unknown form"):
        Compression("auto").unpacked(code, PLAIN, 10)


def test_of_many_peers_the_oldest_is_forgotten() -> None:
    ours = Compression("lz4")
    for number in range(2 * module.PEERS_KEPT):
        ours.taken(b"%d" % number, 0, installed())
    assert len(ours._lines) == module.PEERS_KEPT
    assert ours.packed(b"%d" % (2 * module.PEERS_KEPT - 1), PLAIN)[0] == LZ4


# --- over sockets -----------------------------------------------------------------


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> object:
    """Return who listens, who connected with a setting, and what that calls it."""
    made = [
        ZmqTransport(64 * MIB, max_coming=4, compression=setting)
        for setting in ("auto", request.param)
    ]
    request.addfinalizer(lambda: [transport.close() for transport in made])
    server, client = made
    return server, client, client.connect(server.listen("tcp://127.0.0.1:0"))


@pytest.mark.parametrize(
    ("pair", "code"), [*CODES.items(), ("none", 0)], indirect=["pair"]
)
def test_large_messages_come_out_the_same(
    pair: tuple[ZmqTransport, ZmqTransport, Peer],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, client, peer = pair
    seen: list[Head] = []

    def noted(head: Head) -> bytes:
        seen.append(head)
        return pack(head)

    monkeypatch.setattr(transfers, "pack", noted)
    buffers = [b"small", bytes(PLAIN) * 200, bytes(NOISE) * 100, bytes(9 * MIB)]
    client.send(peer, b"large", buffers)
    came = message(server, client)
    assert list(came.buffers) == buffers
    assert server.counts.rejected_messages == 0
    # the first leave before it is known what the other side can read
    assert {head.code for head in seen if head.kind == CHUNK} == {0, code}


@pytest.mark.parametrize("pair", ["lz4"], indirect=True)
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_bomb_is_refused_and_counted(
    pair: tuple[ZmqTransport, ZmqTransport, Peer], code: int
) -> None:
    server, client, peer = pair
    client.send(peer, pack(Head(BEGUN, 7)), [b"header", pack_sizes([WINDOW_BYTES])])
    bomb = made_small(code, bytes(64 * MIB))
    client.send(peer, pack(Head(CHUNK, 7, 0, CHUNK_BYTES, code)), [bomb])
    wait_until(lambda: server.counts.rejected_messages == 1, server, client)
    assert server._transfers.is_idle
    client.send(peer, pack(Head(BEGUN, 8)), [b"header", pack_sizes([CHUNK_BYTES] * 2)])
    head = Head(CHUNK, 8, 0, 2 * CHUNK_BYTES, code)
    client.send(peer, pack(head), [made_small(code, bytes(CHUNK_BYTES))] * 2)
    wait_until(lambda: server.counts.rejected_messages == 2, server, client)
    assert server._transfers.is_idle
