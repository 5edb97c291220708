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
from collections.abc import Iterator, Sequence
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
INLINE = (1 << 32) - 1
MAPS_SEGMENTS = 1
"""Who greets takes segments, and handles of what lies in them."""

_HEAD = struct.Struct("<BxHI8x")
_ENTRY = struct.Struct("<IIQQ")
_GREETING = struct.Struct(f"<B3sBB{IDENTITY_BYTES}s")
_NUMBER = struct.Struct("<BI")
_MARK = b"OCL"
_GAPS = [bytes(n) for n in range(ALIGNMENT)]

PLAIN_KIND = bytes([PLAIN])
HEAD_BYTES = _HEAD.size
ENTRY_BYTES = _ENTRY.size

Entry = tuple[int, int, int, int]
"""A row of the table: segment, lease, offset, length."""


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


def inline(nbytes: int) -> Entry:
    """Return the row of a buffer that is in the message itself."""
    return (INLINE, 0, 0, nbytes)


def message_bytes(entries: Sequence[Entry], header_bytes: int) -> int:
    """Return how long a message is as one packet."""
    at = HEAD_BYTES + ENTRY_BYTES * len(entries)
    for entry in entries:
        if entry[0] == INLINE:
            at = _aligned(at) + entry[3]
    return at + header_bytes


def pack_message(
    entries: Sequence[Entry], buffers: Sequence[Any], header: bytes | memoryview
) -> list[Any]:
    """Return a whole message, as the parts of one packet.

    Parameters
    ----------
    entries : sequence of Entry
        The table.
    buffers : sequence of buffers
        Those that the message itself has, in the order of the table.
    header : bytes-like
        The header.
    """
    head = _HEAD.pack(MESSAGE, len(entries), len(header))
    at = HEAD_BYTES + ENTRY_BYTES * len(entries)
    parts: list[Any] = [head + pack_table(entries)]
    inside = (entry[3] for entry in entries if entry[0] == INLINE)
    for nbytes, buffer in zip(inside, buffers, strict=True):
        if gap := -at % ALIGNMENT:
            parts.append(_GAPS[gap])
        parts.append(buffer)
        at += gap + nbytes
    parts.append(header)
    return parts


def pack_large(count: int, header_bytes: int) -> bytes:
    """Return the packet after which a large message follows."""
    return _HEAD.pack(LARGE, count, header_bytes)


def pack_table(entries: Sequence[Entry]) -> bytes:
    """Return the table of a message."""
    if len(entries) == 1:
        return _ENTRY.pack(*entries[0])
    return b"".join([_ENTRY.pack(*entry) for entry in entries])


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


def read_table(table: bytes | memoryview) -> Iterator[Entry]:
    """Return the rows of a table, whose length is that of whole rows."""
    return _ENTRY.iter_unpack(table)


def read_message(
    packet: bytes,
) -> tuple[memoryview, list[tuple[Entry, memoryview | None]]]:
    """Return the header of a whole message, and the rows of its table.

    Returns
    -------
    header : memoryview
    buffers : list of (Entry, memoryview or None)
        Each row with the buffer that is in the packet for it, if it is.

    Raises
    ------
    RemoteProtocolError
        When its parts are not as long as it says.
    """
    count, header_bytes = read_head(packet)
    at = HEAD_BYTES + ENTRY_BYTES * count
    view = memoryview(packet)
    if len(packet) < at:
        raise RemoteProtocolError("a packet that ends within its table")
    buffers: list[tuple[Entry, memoryview | None]] = []
    for entry in read_table(view[HEAD_BYTES:at]):
        if entry[0] != INLINE:
            buffers.append((entry, None))
            continue
        start = _aligned(at)
        at = start + entry[3]
        buffers.append((entry, view[start:at]))
    if at + header_bytes != len(packet):
        raise RemoteProtocolError(
            f"a packet of {len(packet)} bytes that announces {at + header_bytes}"
        )
    return view[at:], buffers


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


def _aligned(at: int) -> int:
    return at + -at % ALIGNMENT
