"""Messages whose buffers are cut into frames that are encrypted one by one.

libzmq encrypts a frame as a whole before the first byte of it leaves, and decrypts it
when the last one is there. So the line rests meanwhile, and what does not fit into the
cache of a core takes twice the time. Whoever gets such a message puts the frames
together again, which costs a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opencluster.core.roles import Credential
from opencluster.errors import RemoteProtocolError
from opencluster.net.room import room
from opencluster.net.transport import Peer, Received
from opencluster.wire.transfers import WHOLE, Head, pack, pack_sizes, unpack_sizes

CUT_BYTES = 256 << 10
"""Size of the frames: smaller ones cost more in themselves than they save."""
MAX_CUT = 1024
"""Buffers of a message that is cut, as the number of its frames is limited."""

_HEAD = pack(Head(WHOLE))
_EMPTY = memoryview(b"")


def cut(header: bytes, buffers: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
    """Return what to send in place of a message.

    Parameters
    ----------
    header : bytes
        Its first frame.
    buffers : sequence
        The others.

    Returns
    -------
    header : bytes
    buffers : sequence
        The same as were given when there is nothing to be gained.
    """
    parts = [memoryview(buffer).cast("B") for buffer in buffers]
    sizes = [len(part) for part in parts]
    if max(sizes, default=0) <= CUT_BYTES or len(parts) > MAX_CUT:
        return header, buffers
    frames: list[Any] = [header, pack_sizes(sizes)]
    for part in parts:
        starts = range(0, len(part), CUT_BYTES)
        frames += [part[start : start + CUT_BYTES] for start in starts]
    return _HEAD, frames


def joined(peer: Peer, frames: Sequence[Any], who: Credential) -> Received:
    """Return a message that was cut.

    Parameters
    ----------
    peer : bytes
        From whom it came.
    frames : sequence
        What `cut` returned as buffers.
    who : Credential
        Who sent it.

    Raises
    ------
    RemoteProtocolError
        When the frames are not those that their sizes tell.
    """
    if len(frames) < len(("header", "sizes")):
        raise RemoteProtocolError("a message in pieces without its sizes")
    sizes, pieces = unpack_sizes(frames[1]), list(frames[:1:-1])
    if len(sizes) > MAX_CUT:
        raise RemoteProtocolError(f"a message in pieces of {len(sizes)} buffers")
    # so that nobody takes memory for more than there is
    if sum(sizes) != sum(map(len, pieces)):
        raise RemoteProtocolError("a message in pieces of another size than it tells")
    buffers = [_taken(size, pieces) for size in sizes]
    if pieces:
        raise RemoteProtocolError("a message in more pieces than it tells")
    return Received(peer, bytes(frames[0]), buffers, who)


def _taken(size: int, pieces: list[Any]) -> memoryview:
    """Return a buffer that is made of the last pieces, and take them out."""
    if not size:
        return _EMPTY
    if len(pieces[-1]) == size:
        return memoryview(pieces.pop()).toreadonly()
    memory, filled = room(size), 0
    while filled < size:
        piece = pieces.pop()
        if not 0 < len(piece) <= size - filled:
            raise RemoteProtocolError("a message that is cut at another place")
        memory[filled : filled + len(piece)] = piece
        filled += len(piece)
    return memory.toreadonly()
