"""Messages in pieces, which are what they were when they are joined again."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.roles import TRUSTED, WORKER
from opencluster.errors import RemoteProtocolError
from opencluster.net.cutting import CUT_BYTES, MAX_CUT, cut, joined
from opencluster.net.keyfiles import make_keys
from opencluster.net.keys import Keyring
from opencluster.net.transport import Received
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire.transfers import WHOLE, Head, pack_sizes, unpack

DEADLINE_S = 20.0
SIZES = [0, 1, CUT_BYTES - 1, CUT_BYTES, CUT_BYTES + 1, 3 * CUT_BYTES + 7]


def block(nbytes: int) -> bytes:
    """Return bytes of which no two pieces are the same."""
    return np.arange(-(-nbytes // 4), dtype=np.uint32).tobytes()[:nbytes]


@given(st.lists(st.sampled_from(SIZES), max_size=5))
def test_what_is_cut_is_joined_again(sizes: list[int]) -> None:
    buffers = [block(size) for size in sizes]
    header, frames = cut(b"header", buffers)
    if max(sizes, default=0) <= CUT_BYTES:
        assert (header, frames) == (b"header", buffers)
        return
    assert unpack(header) == Head(WHOLE)
    assert all(len(frame) <= CUT_BYTES for frame in frames)
    came = joined(b"<peer", frames, TRUSTED)
    assert (came.peer, came.header, list(came.buffers)) == (
        b"<peer",
        b"header",
        buffers,
    )
    assert all(buffer.readonly for buffer in came.buffers)


def test_a_message_of_very_many_buffers_is_not_cut() -> None:
    buffers = [block(2 * CUT_BYTES), *[b"x"] * MAX_CUT]
    assert cut(b"header", buffers) == (b"header", buffers)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"header"],
        [b"header", b"\0" * 7],
        [b"header", pack_sizes([3]), b"xx"],
        [b"header", pack_sizes([2]), b"xx", b"y"],
        [b"header", pack_sizes([1 << 62]), b"xx"],
        [b"header", pack_sizes([2, 2]), b"xxx", b"y"],
        [b"header", pack_sizes([2]), b"xx", b""],
        [b"header", pack_sizes([4]), b"xx", b"", b"yy"],
        [b"header", pack_sizes([2])],
        [b"header", pack_sizes([0] * (MAX_CUT + 1))],
    ],
)
def test_what_does_not_fit_together_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        joined(b"<peer", frames, TRUSTED)


def test_blocks_go_in_pieces_where_they_are_encrypted(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    made = [
        ZmqTransport(keys=Keyring.load(tmp_path / "keys", WORKER)) for _ in range(2)
    ]
    try:
        server, client = made
        endpoint = server.listen("tcp://127.0.0.1:0")
        peer = client.connect(endpoint, server.public_key)
        buffers = [block(5 << 20), b"", b"small"]
        assert client.send(peer, b"header", buffers)
        came: list[Received] = []
        deadline = time.monotonic() + DEADLINE_S
        while not came and time.monotonic() < deadline:
            time.sleep(0.001)
            client.receive()
            came += [e for e in server.receive() if isinstance(e, Received)]
        assert (came[0].header, list(came[0].buffers)) == (b"header", buffers)
        assert came[0].who.name == "worker"
        # it is no frame that came in
        assert isinstance(came[0].buffers[0].obj, mmap.mmap)
        assert server.counts.rejected_messages == 0
    finally:
        for transport in made:
            transport.close()
