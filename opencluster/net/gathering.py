"""A message that is larger than a packet, while it comes in.

Each of its parts gets memory of its own, into which the kernel copies: nothing is
copied again, and the memory of one buffer goes when nobody needs that one any more.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from opencluster.errors import RemoteProtocolError
from opencluster.net.packets import INLINE, ROW_BYTES, Fetch, Head, read_table
from opencluster.net.room import room
from opencluster.wire.frames import MAX_FRAME_BYTES


class Gathering:
    """Takes the packets behind the head of a large message.

    Parameters
    ----------
    head : Head
        What was announced.
    max_bytes : int
        Largest part that is taken.
    fetch : callable
        Returns buffers that are not in the message.

    Attributes
    ----------
    header : memoryview
        The header, once the message is whole.
    buffers : list of memoryview
        The buffers that have come so far, or were fetched.

    Raises
    ------
    RemoteProtocolError
        When there is nothing to come, or too much.
    """

    def __init__(self, head: Head, max_bytes: int, fetch: Fetch) -> None:
        self.header = memoryview(b"")
        self.buffers: list[memoryview] = []
        self._head = head
        self._max_bytes = max_bytes
        self._fetch = fetch
        self._parts = self._make_room()
        rest = next(self._parts, None)
        if rest is None:
            raise RemoteProtocolError("a large message of nothing")
        self._rest = rest

    def receive(self, sock: socket.socket) -> bool:
        """Take one packet, and return whether the message is whole now.

        Raises
        ------
        RemoteProtocolError
            When it does not fit to what was announced.
        EOFError
            When the connection ended.
        OSError
            When nothing is there, or the connection broke.
        """
        count = sock.recv_into(self._rest, 0, socket.MSG_TRUNC)
        if not count:
            raise EOFError
        if count > len(self._rest):
            raise RemoteProtocolError("a packet that is longer than what is left")
        rest: memoryview | None = self._rest[count:]
        if not rest:
            rest = next(self._parts, None)
            if rest is None:
                return True
        self._rest = rest
        return False

    def _make_room(self) -> Iterator[memoryview]:
        """Yield the memory that is to be filled next, part by part."""
        count, header_bytes = self._head
        table = room(count * ROW_BYTES)
        if count:
            yield table
        for segment, lease, offset, nbytes in read_table(table):
            if nbytes > self._max_bytes:
                raise RemoteProtocolError(f"a buffer of {nbytes} bytes")
            if segment != INLINE:
                self.buffers.append(self._fetch(segment, lease, offset, nbytes))
                continue
            buffer = room(nbytes)
            if nbytes:
                yield buffer
            self.buffers.append(buffer.toreadonly())
        if header_bytes > min(MAX_FRAME_BYTES, self._max_bytes):
            raise RemoteProtocolError(f"a header of {header_bytes} bytes")
        header = room(header_bytes)
        if header_bytes:
            yield header
        self.header = header.toreadonly()
