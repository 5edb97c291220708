"""One connection of the express lane: packets out of a queue, packets into messages.

A `Line` sends what the kernel takes at once and keeps the rest in order, and puts
together what comes in. It knows the layout of packets (see `packets`), and neither
who is at the other end nor what messages mean.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import deque
from typing import Any

from opencluster.errors import RemoteProtocolError
from opencluster.net import packets
from opencluster.net.arena import Handle, Mapping
from opencluster.net.gathering import Gathering
from opencluster.net.packets import PACKET_BYTES, PLAIN

PACKETS_PER_TURN = 256
"""Parts of large messages that are sent or taken before others get their turn: more
than a socket holds, as it takes no more before most of that was read."""
MAX_PARTS = 512
"""Parts of a packet that are handed to the kernel one by one, below its IOV_MAX."""
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_RIGHTS_BYTES = socket.CMSG_SPACE(array("i").itemsize)

Item = bytes | memoryview | tuple[bytes, int]
"""What is sent: a packet, data that are cut into packets, or a packet with a file
descriptor."""


class MappingFailed(Exception):
    """Shared memory of the other side cannot be had here."""


Message = tuple[bytes | memoryview, list[memoryview]]
"""What came in whole: the header, and buffers for reading only."""


class Line:
    """One connection.

    Parameters
    ----------
    sock : socket
        It does not block.
    is_ours : bool
        This side opened it.
    max_bytes : int
        Largest buffer that is taken.

    Attributes
    ----------
    peer : bytes
        Its name in this process; empty until it is known.
    is_known : bool
        The other side has greeted.
    may_send : bool
        Messages are sent, and not kept.
    maps_segments : bool
        The other side takes segments of shared memory.
    is_busy : bool
        The next packet is not a message of its own.
    post : callable
        Sends one packet, and raises `OSError` where it cannot.
    take : callable
        Returns the next packet; empty at the end of the connection.
    queue : deque
        Messages that wait, each as what is left of it.
    told : set of int
        Segments whose descriptors were sent.
    """

    __slots__ = (
        *("_gathering", "_mapping", "_max_bytes", "_segment", "fd", "is_busy"),
        *("is_known", "is_ours", "maps_segments", "may_send", "peer", "post"),
        *("queue", "sock", "take", "told"),
    )

    def __init__(self, sock: socket.socket, is_ours: bool, max_bytes: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.is_ours = is_ours
        self.peer = b""
        self.is_known = False
        self.may_send = False
        self.maps_segments = False
        self.is_busy = True
        self.post = sock.send
        self.take = sock.recv
        self.queue: deque[deque[Item]] = deque()
        self.told: set[int] = set()
        self._max_bytes = max_bytes
        self._segment: int | None = None
        self._gathering: Gathering | None = None
        self._mapping: Mapping | None = None

    def greeted(self, abilities: int) -> None:
        """Go on to messages, as the other side has greeted."""
        self.is_known = self.may_send = True
        self.maps_segments = bool(abilities & packets.MAPS_SEGMENTS)
        self.is_busy = False

    def close(self) -> None:
        """Close the socket; buffers that came stay valid."""
        self.sock.close()
        self.queue.clear()
        if self._mapping is not None:
            self._mapping.close()

    # --- out -----------------------------------------------------------------

    def put(self, items: deque[Item]) -> bool:
        """Send a message, or let it wait behind others; return whether some wait.

        Raises
        ------
        OSError
            When the other side is gone.
        """
        if self.may_send and not self.queue:
            self._send(items)
        if items:
            self.queue.append(items)
        return bool(self.queue)

    def put_packet(self, parts: list[Any]) -> bool:
        """Do as `put` with a message of one packet, given in parts."""
        if self.may_send and not self.queue and len(parts) <= MAX_PARTS:
            try:
                self.sock.sendmsg(parts, (), _NO_SIGNAL)
                return False
            except OSError as error:
                _check_full(error)
        return self.put(deque([b"".join(parts)]))

    def flush(self) -> bool:
        """Send what waits, as far as it goes; return whether some is left.

        Raises
        ------
        OSError
            When the other side is gone.
        """
        queue = self.queue
        for _ in range(min(len(queue), PACKETS_PER_TURN)):
            self._send(queue[0])
            if queue[0]:
                return True
            queue.popleft()
        return bool(queue)

    def _send(self, items: deque[Item]) -> None:
        """Send from the front of some items, and leave what finds no room now."""
        try:
            for _ in range(PACKETS_PER_TURN):
                if not items:
                    return
                item = items[0]
                if isinstance(item, tuple):
                    data, fd = item
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))
                    self.sock.sendmsg([data], [rights], _NO_SIGNAL)
                elif len(item) > PACKET_BYTES:
                    view = memoryview(item)
                    self.post(view[:PACKET_BYTES], _NO_SIGNAL)
                    items[0] = view[PACKET_BYTES:]
                    continue
                else:
                    self.post(item, _NO_SIGNAL)
                items.popleft()
        except OSError as error:
            _check_full(error)

    # --- in ------------------------------------------------------------------

    def accept(self, packet: bytes) -> Message | None:
        """Return the message that a packet is, or ``None`` when more must come first.

        Parameters
        ----------
        packet : bytes
            As returned by `take`, of a line that is not busy.

        Raises
        ------
        RemoteProtocolError
            When it is malformed.
        EOFError
            When it is empty, as at the end of the connection.
        """
        if not packet:
            raise EOFError
        kind = packet[0]
        if len(packet) > PACKET_BYTES:
            raise RemoteProtocolError("a packet that is too large")
        if kind == packets.MESSAGE:
            return packets.read_message(packet, self._fetch)
        if kind == PLAIN:
            return memoryview(packet)[1:], []
        if kind == packets.LARGE:
            head = packets.read_head(packet)
            self._gathering = Gathering(head, self._max_bytes, self._fetch)
        elif kind == packets.SEGMENT:
            self._segment = packets.read_segment(packet)
        else:
            raise RemoteProtocolError(f"a packet of unknown kind {kind}")
        self.is_busy = True
        return None

    def go_on(self) -> Message | None:
        """Take more of what the last packet began; return a message if it is whole.

        Raises
        ------
        RemoteProtocolError
            When it is malformed.
        EOFError
            When the connection ended.
        MappingFailed
            When a segment cannot be mapped here.
        OSError
            When nothing is there, or the connection broke.
        """
        gathering = self._gathering
        if gathering is None:
            self._take_segment()
            return None
        for _ in range(PACKETS_PER_TURN):
            if gathering.receive(self.sock):
                self._gathering = None
                self.is_busy = False
                return gathering.header, gathering.buffers
        return None

    def _take_segment(self) -> None:
        data, rights, flags, _ = self.sock.recvmsg(
            packets.RECEIVE_BYTES, _RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            raise EOFError
        fds = array("i")
        for level, kind, body in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(body[: len(body) - len(body) % fds.itemsize])
        if flags & socket.MSG_CTRUNC and not fds:
            raise MappingFailed("there is no descriptor left")
        number, self._segment = self._segment, None
        if number is None or len(fds) != 1 or len(data) != 1:
            for fd in fds:
                os.close(fd)
            raise RemoteProtocolError("a segment without its descriptor")
        self.is_busy = False
        if self._mapping is None:
            self._mapping = Mapping()
        try:
            self._mapping.add(number, fds[0])
        except OSError as error:
            raise MappingFailed(str(error)) from error

    def _fetch(self, segment: int, lease: int, offset: int, nbytes: int) -> memoryview:
        if self._mapping is None or nbytes > self._max_bytes:
            raise RemoteProtocolError(f"a handle of {nbytes} bytes that are nowhere")
        return self._mapping.view(Handle(segment, offset, nbytes, lease))


def _check_full(error: OSError) -> None:
    """Raise an error of the kernel again, unless it has only no room at the moment."""
    if error.errno not in _FULL:
        raise error
