"""The first frame of what carries a large message in chunks, or in many frames.

It begins like that of a message (see `frames`), with another fourth byte. Numbers are
little-endian.

======  ======================================================================
bytes   meaning
======  ======================================================================
0, 1    ``4F 43`` ("OC")
2       version of the protocol, 1
3       what it is: one of `BEGUN` ... `WHOLE`
4...    number of the transfer, given by whoever sends it (8 bytes)
12...   place in the buffers of the message, laid end to end (8 bytes)
20...   bytes of a chunk (4 bytes)
24      a code (see below)
======  ======================================================================

========  ==================  ==================================================
kind      from, to            frames behind it; place, bytes and code
========  ==================  ==================================================
BEGUN     sender, receiver    the message's header, and the sizes of its buffers (8
                              bytes each)
CHUNK     sender, receiver    one for each buffer that it has something of; where it
                              begins, how long it is, and how it is compressed
CEASED    sender, receiver    nothing more comes of this transfer
TAKEN     receiver, sender    up to where it was taken; which codes are understood, as
                              bits: 1 for code 1, 2 for code 2
REFUSED   receiver, sender    nothing more is taken of it; `UNWANTED` or `FAILED`
THERE     either              nothing: whether it can be sent tells if the peer is there
WHOLE     either              the message's header, the sizes of its buffers, and these
                              in pieces of any size, one after the other
========  ==================  ==================================================

Must not do: sockets, nor anything with what was announced.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from opencluster.errors import RemoteProtocolError
from opencluster.wire.frames import PROTOCOL_VERSION

BEGUN, CHUNK, CEASED, TAKEN, REFUSED, THERE, WHOLE = range(1, 8)
"""What a frame is."""

UNWANTED = 0
"""Refused because the receiver has no use for it any more: nothing is lost."""
FAILED = 1
"""Refused because it makes no sense, or finds no memory: the message is lost."""

_MARK = b"OC" + bytes([PROTOCOL_VERSION])
_HEAD = struct.Struct("<3sBQQIB")
_SIZE_BYTES = 8

KINDS = [_MARK + bytes([kind]) for kind in range(BEGUN, WHOLE + 1)]
"""How such frames begin."""


class Head(NamedTuple):
    """What the first frame says."""

    kind: int
    number: int = 0
    place: int = 0
    nbytes: int = 0
    code: int = 0


def pack(head: Head) -> bytes:
    """Return the first frame."""
    return _HEAD.pack(_MARK, *head)


def unpack(frame: bytes | memoryview) -> Head:
    """Return what a first frame says.

    Raises
    ------
    RemoteProtocolError
        When it is not as long as it must be.
    """
    if len(frame) != _HEAD.size:
        raise RemoteProtocolError(f"the head of a chunk in {len(frame)} bytes")
    return Head(*_HEAD.unpack(frame)[1:])


def pack_sizes(sizes: Sequence[int]) -> bytes:
    """Return the frame that tells how large buffers are."""
    return struct.pack(f"<{len(sizes)}Q", *sizes)


def unpack_sizes(frame: bytes | memoryview) -> list[int]:
    """Return how large buffers are.

    Raises
    ------
    RemoteProtocolError
        When there is part of a number.
    """
    count, rest = divmod(len(frame), _SIZE_BYTES)
    if rest:
        raise RemoteProtocolError(f"sizes in {len(frame)} bytes")
    return list(struct.unpack(f"<{count}Q", frame))
