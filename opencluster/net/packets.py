"""How a message lies in the packets of the express lane.

A socket of the lane keeps packets apart, so that a packet needs no length. Its first
byte says what it is; numbers are little-endian.

==========  =======================================================================
kind        what follows
==========  =======================================================================
PLAIN       the header of a message without buffers
MESSAGE     a whole message: head, table, buffers, header
LARGE       head; the table, the buffers and the header follow in packets of their
            own, without a kind, each cut as its sender likes
SEGMENT     number of a segment of the sender's shared memory (4 bytes); the next
            packet is one byte, and carries its file descriptor
HELLO       ``OCL``, version of the lane, abilities, identity of who connects (16
            bytes)
WELCOME     the same of who listens
REFUSAL     why the connection is closed, as text
==========  =======================================================================

A head is 16 bytes: the kind, a byte of 0, the number of buffers (2 bytes), the length
of the header (4 bytes), and 8 bytes of 0. The table has 24 bytes for each buffer:
segment (4 bytes), lease (4), offset (8), length (8). A segment of `INLINE` says that
the buffer itself is in the message. Buffers of a MESSAGE begin at multiples of
`ALIGNMENT` bytes from its first byte, as arrays lie over them; what is between is 0.

The one ability is that of `MAPS_SEGMENTS`; other bits mean nothing yet.

Must not do: sockets, nor anything with the memory that handles stand for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from opencluster.errors import RemoteProtocolError

VERSION = 1

PLAIN, MESSAGE, LARGE, SEGMENT, HELLO, WELCOME, REFUSAL = range(1, 8)
"""What a packet is."""

PACKET_BYTES = 1 << 16
"""Largest packet. The kernel copies those of this size about as quickly as memory is
copied; much larger ones need memory in one stretch, which it may not have."""
RECEIVE_BYTES = PACKET_BYTES + 1
"""What is asked for, so that a packet that was cut off is seen to be too large."""
IDENTITY_BYTES = 16
MAX_BUFFERS = (1 << 16) - 1
MAX_REASON_BYTES = 200
ALIGNMENT = 16
SMALL_BYTES = 1 << 14
"""A header up to this size is copied out of its packet: cheaper than a view of it."""
INLINE = (1 << 32) - 1
MAPS_SEGMENTS = 1
"""Who greets takes segments, and handles of what lies in them."""

ROW = "IIQQ"
_HEAD = struct.Struct("<BxHI8x")
_ROW = struct.Struct("<" + ROW)
_FRONTS = [struct.Struct(_HEAD.format + ROW * count) for count in range(17)]
_GREETING = struct.Struct(f"<B3sBB{IDENTITY_BYTES}s")
_NUMBER = struct.Struct("<BI")
_MARK = b"OCL"
_GAPS = [bytes(n) for n in range(ALIGNMENT)]

PLAIN_KIND = bytes([PLAIN])
HEAD_BYTES = _HEAD.size
ROW_BYTES = _ROW.size
Fetch = Callable[[int, int, int, int], Any]
"""Returns what a row of a table stands for: segment, lease, offset, length."""


class Head(NamedTuple):
    """What a message begins with.

    Attributes
    ----------
    buffers : int
        How many it has.
    header_bytes : int
        Length of the header.
    """

    buffers: int
    header_bytes: int


def pack_head(kind: int, header_bytes: int, table: Sequence[int]) -> bytes:
    """Return head and table of a message.

    Parameters
    ----------
    kind : int
        MESSAGE or LARGE.
    header_bytes : int
        Length of its header.
    table : sequence of int
        Four numbers for each buffer: segment, lease, offset, length.
    """
    count = len(table) // len(ROW)
    if count < len(_FRONTS):
        return _FRONTS[count].pack(kind, count, header_bytes, *table)
    front = struct.Struct(f"{_HEAD.format}{ROW * count}")
    return front.pack(kind, count, header_bytes, *table)


def gap(at: int) -> bytes:
    """Return what stands between a place in a message and the buffer that follows."""
    return _GAPS[-at % ALIGNMENT]


def read_head(packet: bytes) -> Head:
    """Return what a packet of kind MESSAGE or LARGE begins with.

    Raises
    ------
    RemoteProtocolError
        When it is cut off.
    """
    if len(packet) < HEAD_BYTES:
        raise RemoteProtocolError(f"a packet of {len(packet)} bytes has no head")
    return Head(*_HEAD.unpack_from(packet)[1:])


def read_table(table: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Return the rows of a table, whose length is that of whole rows."""
    return _ROW.iter_unpack(table)


def read_message(
    packet: bytes, fetch: Fetch
) -> tuple[bytes | memoryview, list[memoryview]]:
    """Return the header and the buffers of a whole message.

    Parameters
    ----------
    packet : bytes
        Of kind MESSAGE.
    fetch : callable
        Returns buffers that are not in the packet.

    Raises
    ------
    RemoteProtocolError
        When its parts are not as long as it says.
    """
    count, header_bytes = read_head(packet)
    at = HEAD_BYTES + ROW_BYTES * count
    if len(packet) < at:
        raise RemoteProtocolError("a packet that ends within its table")
    view = memoryview(packet)
    buffers = []
    for segment, lease, offset, nbytes in _ROW.iter_unpack(view[HEAD_BYTES:at]):
        if segment != INLINE:
            buffers.append(fetch(segment, lease, offset, nbytes))
            continue
        start = at + -at % ALIGNMENT
        at = start + nbytes
        buffers.append(view[start:at])
    if at + header_bytes != len(packet):
        raise RemoteProtocolError(
            f"a packet of {len(packet)} bytes that announces {at + header_bytes}"
        )
    return (packet[at:] if header_bytes <= SMALL_BYTES else view[at:]), buffers


def pack_segment(number: int) -> bytes:
    """Return the packet that announces the descriptor of a segment."""
    return _NUMBER.pack(SEGMENT, number)


def read_segment(packet: bytes) -> int:
    """Return the number of the segment whose descriptor is in the next packet.

    Raises
    ------
    RemoteProtocolError
        When the packet is malformed.
    """
    if len(packet) != _NUMBER.size:
        raise RemoteProtocolError(f"a segment announced in {len(packet)} bytes")
    number: int = _NUMBER.unpack(packet)[1]
    return number


def pack_greeting(kind: int, identity: bytes, abilities: int) -> bytes:
    """Return the first packet that a side sends."""
    return _GREETING.pack(kind, _MARK, VERSION, abilities, identity)


def read_greeting(packet: bytes, kind: int) -> tuple[bytes, int]:
    """Return the identity of who greets, and what it can.

    Raises
    ------
    RemoteProtocolError
        When it is no greeting of this version, or a refusal; the message is a
        predicate to whoever sent it.
    """
    if packet[:1] == bytes([REFUSAL]):
        reason = packet[1 : 1 + MAX_REASON_BYTES].decode(errors="replace")
        raise RemoteProtocolError(f"refuses this process: {reason}")
    mark = bytes([kind]) + _MARK
    if packet[: len(mark)] != mark or len(packet) == len(mark):
        raise RemoteProtocolError("speaks something else than the express lane")
    version = packet[len(mark)]
    if version != VERSION or len(packet) != _GREETING.size:
        raise RemoteProtocolError(
            f"speaks version {version} of the express lane, and not {VERSION}"
        )
    abilities, identity = _GREETING.unpack(packet)[3:]
    return identity, abilities


def pack_refusal(reason: str) -> bytes:
    """Return the packet that says why the connection is closed."""
    return bytes([REFUSAL]) + reason.encode()[:MAX_REASON_BYTES]
