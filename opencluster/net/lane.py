"""The express lane: messages between processes of one computer, without ZeroMQ.

A message is one packet of a unix socket (SOCK_SEQPACKET): one system call sends it,
one takes it, and no other thread has a part in it. Large buffers lie in shared memory
(see `arena`); those for which there is no room follow in further packets.

Rules that this module keeps:

1. It never waits. What the kernel does not take at once is kept, in order.
2. Processes of the same user come in, and root's; all of them are `TRUSTED`.
3. What is malformed ends the connection that it came by, and is counted.
4. A connection that is lost is not opened again from here: who wants it connects anew.
5. A process is lost when the kernel ends its connection, or when it stands still for
   too long; not because it does not answer, as the code that it runs may keep Python
   to itself.

Must not do: encryption. With keys nobody listens here.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import resource
import select
import socket
import time
import weakref
from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.errors import (
    LocalProtocolError,
    OpenClusterError,
    RemoteProtocolError,
)
from opencluster.net import onlooker, packets
from opencluster.net.arena import Arena
from opencluster.net.door import SCHEME, Door, credentials, dial
from opencluster.net.line import Item, Line, MappingFailed
from opencluster.net.monitoring import EVENTS_PER_TURN
from opencluster.net.onlooker import Onlooker
from opencluster.net.packets import (
    INLINE,
    PACKET_BYTES,
    PLAIN_KIND,
    RECEIVE_BYTES,
    SMALL_BYTES,
)
from opencluster.net.rejections import Rejections
from opencluster.net.ticker import Ticker
from opencluster.net.transport import (
    Peer,
    PeerConnected,
    PeerLost,
    Received,
    TransportCounts,
    TransportEvent,
)

log = logging.getLogger(__name__)

INBOUND, OUTBOUND = b"[", b"]"
SOCKET_BYTES = 8 << 20
"""Memory that what was sent and not read may take; the system has a limit as well."""
ROUNDS_PER_TURN = 16
"""How often one turn looks for more input, before others get their turn."""
LINES_PER_ROUND = 64
MAX_STRANGERS = 256
"""Connections that have not greeted yet; for one more, the oldest of them is closed."""
GREETING_TIMEOUT_S = 10.0
"""After which they are closed in any case."""
TICK_S = 1.0
"""Interval of the checks when there are no heartbeats."""
REFUSALS_KEPT = 64
"""Endpoints of which it is remembered that whoever listens there refused us."""

_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_NUMBER_BYTES = 4
_FAILURES = (OSError, EOFError, RemoteProtocolError, MappingFailed)
"""Why a line may not go on."""

_transports: weakref.WeakSet[LaneTransport] = weakref.WeakSet()


@dataclass(slots=True, eq=False)
class _Host:
    """The process at the other end of a connection that we opened.

    Attributes
    ----------
    endpoint : str
        Where it listens.
    process : Onlooker
        Tells what it does.
    misses : int
        Looks in a row that found it stopped, or gone.
    """

    endpoint: str
    process: Onlooker
    misses: int = 0


class LaneTransport:
    """A transport over unix sockets, for use by one thread at a time.

    Parameters
    ----------
    max_message_bytes : int
        Larger parts of a message are refused before memory is taken for them.
    heartbeat_s, timeout_s : float
        How often it is looked whether processes stand still that we connected to, 0
        for never, and after how long they are lost then.
    max_queued : int
        Messages that wait for a peer which connected to us and does not read, 0 for
        any number; it counts as gone for those beyond.
    identity : bytes, optional
        16 bytes that others know this process by; random by default.
    arena : Arena, optional
        Shared memory for large buffers; others may use it too.
    arena_threshold_bytes : int
        Size from which a buffer goes there.
    counts : TransportCounts, optional
        Where is counted what should not have come in.
    """

    schemes = (SCHEME,)

    def __init__(
        self,
        max_message_bytes: int = 4 << 30,
        heartbeat_s: float = 2.0,
        timeout_s: float = 10.0,
        max_queued: int = 0,
        identity: bytes = b"",
        arena: Arena | None = None,
        arena_threshold_bytes: int = 64 << 10,
        counts: TransportCounts | None = None,
    ) -> None:
        self.identity = identity or os.urandom(16)
        self.counts = TransportCounts() if counts is None else counts
        self.arena = arena
        self._threshold_bytes = arena_threshold_bytes
        self._max_bytes = max_message_bytes
        self._max_queued = max_queued
        self._has_heartbeats = heartbeat_s > 0
        self._misses_allowed = math.ceil(timeout_s / (heartbeat_s or TICK_S))
        # of a limited address space nothing is given away for others' segments
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        self._maps_segments = limit == resource.RLIM_INFINITY
        self._epoll = select.epoll()
        self._ticker = Ticker(heartbeat_s or TICK_S)
        self._epoll.register(self._ticker.fileno(), _IN)
        self._rejections = Rejections(self.counts, log)
        self._door = Door(self._epoll, self._rejections)
        self._lines: dict[int, Line] = {}
        self._peers: dict[Peer, Line] = {}
        self._posts: dict[Peer, Any] = {}
        self._hosts: dict[Peer, _Host] = {}
        self._by_endpoint: dict[str, Peer] = {}
        self._strangers: dict[Line, float] = {}
        self._refused: dict[str, str] = {}
        self._reasons: dict[Peer, str] = {}
        self._number = itertools.count(1)
        self._is_closed = False
        _transports.add(self)

    # --- the interface -------------------------------------------------------

    def listen(self, endpoint: str) -> str:
        """Listen at a path, closed to other users; a file that nobody has is replaced.

        Raises
        ------
        EndpointInUse
            When somebody listens there, or no socket can be there.
        """
        self._door.open(endpoint)
        return endpoint

    def connect(self, endpoint: str, public_key: str = "") -> Peer:
        """Open a connection, or return the one that stands.

        Raises
        ------
        OpenClusterError
            When nobody listens there, or whoever does has refused us before.
        SecurityError
            When it is a process of another user.
        """
        peer = self._by_endpoint.get(endpoint)
        if peer is not None:
            return peer
        if endpoint in self._refused:
            raise OpenClusterError(
                f"cannot connect to {endpoint}: whoever listens there "
                f"{self._refused[endpoint]}"
            )
        sock, pid = dial(endpoint)
        peer = OUTBOUND + b"%d" % next(self._number)
        line = self._add(sock, peer)
        # should it be gone already, that will be seen like any other end
        with contextlib.suppress(OSError):
            line.post(self._greeting(packets.HELLO))
        self._hosts[peer] = _Host(endpoint, Onlooker(pid))
        self._by_endpoint[endpoint] = peer
        self._ticker.run(True)
        return peer

    def disconnect(self, peer: Peer) -> None:
        """Close a connection that `connect` opened; others are ignored."""
        self._reasons.pop(peer, None)
        if peer in self._hosts:
            self._remove(self._peers[peer])

    def refusal(self, peer: Peer) -> str:
        """Return why the last handshake with a peer of ours failed, if it did."""
        return self._reasons.get(peer, "")

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message; ``False`` means that the peer is gone.

        Buffers are copied into shared memory or by the kernel, unless the peer does
        not read: then their memory must stay as it is until it does.
        """
        if not buffers and len(header) < PACKET_BYTES:
            # the way of nearly all messages, and as short as it can be
            post = self._posts.get(peer)
            if post is not None:
                try:
                    post(PLAIN_KIND + header, _NO_SIGNAL)
                    return True
                except OSError:
                    pass  # it has to wait, or the peer is gone: that is seen below
        line = self._peers.get(peer)
        if line is None:
            return False
        if not line.is_ours and 0 < self._max_queued <= len(line.queue):
            return False
        try:
            if self._put(line, header, buffers):
                self._wait(line)
        except OSError:
            # the end itself is seen by `receive`
            return False
        return True

    def coming(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Return nothing: here no message overtakes another one."""
        return []

    def refuse(self, peer: Peer, number: int) -> None:
        """Do nothing, as nothing is told of what comes."""

    def pollables(self) -> list[Any]:
        """Return the one descriptor that must be polled for input."""
        return [self._epoll]

    def receive(self, ready: Container[Any] | None = None) -> list[TransportEvent]:
        """Return what happened since the last call, a bounded number of events."""
        events: list[TransportEvent] = []
        if self._is_closed or (ready is not None and self._epoll not in ready):
            return events
        lines = self._lines
        for _ in range(ROUNDS_PER_TURN):
            found = self._epoll.poll(0, LINES_PER_ROUND)
            if not found or len(events) >= EVENTS_PER_TURN:
                break
            for fd, mask in found:
                line = lines.get(fd)
                if line is None:
                    self._attend(fd, events)
                elif mask != _IN or line.is_busy:
                    self._serve(line, mask, events)
                else:
                    try:
                        packet = line.take(RECEIVE_BYTES)
                        if packet[:1] == PLAIN_KIND and len(packet) <= SMALL_BYTES:
                            events.append(Received(line.peer, packet[1:], []))
                        elif (message := line.accept(packet)) is not None:
                            events.append(Received(line.peer, *message))
                    except _FAILURES as error:
                        self._failed(line, error, events)
        return events

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything, waiting at most this long for what was sent to leave."""
        if self._is_closed:
            return
        self._is_closed = True
        self._door.close()
        self._linger(time.monotonic() + linger_s)
        for line in list(self._lines.values()):
            self._remove(line)
        self._ticker.close()
        self._epoll.close()

    # --- out -----------------------------------------------------------------

    def _put(self, line: Line, header: bytes, buffers: Sequence[Any]) -> bool:
        """Send a message or keep it; return whether something waits."""
        if not buffers and len(header) < PACKET_BYTES:
            return line.put(deque([PLAIN_KIND + header]))
        if len(buffers) > packets.MAX_BUFFERS:
            raise LocalProtocolError(
                f"a message of {len(buffers)} arrays cannot be sent; send fewer, or "
                "join small ones"
            )
        table: list[int] = []
        parts: list[Any] = [b""]
        items: deque[Item] = deque()
        at = packets.HEAD_BYTES + packets.ROW_BYTES * len(buffers)
        for buffer in buffers:
            nbytes = memoryview(buffer).nbytes
            if nbytes >= self._threshold_bytes:
                row = self._place(line, buffer, items)
                if row is not None:
                    table += row
                    continue
            table += (INLINE, 0, 0, nbytes)
            gap = packets.gap(at)
            parts += (gap, buffer)
            at += len(gap) + nbytes
        parts.append(header)
        if at + len(header) <= PACKET_BYTES:
            parts[0] = packets.pack_head(packets.MESSAGE, len(header), table)
            if not items:
                return line.put_packet(parts)
            items.append(b"".join(parts))
            return line.put(items)
        front = packets.pack_head(packets.LARGE, len(header), table)
        items.append(front[: packets.HEAD_BYTES])
        # here nothing is between the buffers, as each gets memory of its own
        large = [front[packets.HEAD_BYTES :], *parts[2:-1:2], header]
        items.extend(view.cast("B") for p in large if (view := memoryview(p)).nbytes)
        return line.put(items)

    def _place(
        self, line: Line, buffer: Any, items: deque[Item]
    ) -> tuple[int, int, int, int] | None:
        """Put a buffer into shared memory, if it has room and the peer maps it.

        Returns its row of the table. What the peer needs for it is added to `items`.
        """
        if self.arena is None or not line.maps_segments:
            return None
        handle = self.arena.place(buffer, line)
        if handle is None:
            return None
        segment, offset, nbytes, lease = handle
        if segment not in line.told:
            line.told.add(segment)
            items.append(packets.pack_segment(segment))
            items.append((b"\0", self.arena.segment_fd(segment)))
        return segment, lease, offset, nbytes

    def _wait(self, line: Line) -> None:
        """Have it seen when a line takes more, and when messages wait in it."""
        is_waiting = line.may_send and bool(line.queue)
        self._epoll.modify(line.fd, _IN | _OUT if is_waiting else _IN)
        if line.may_send and not is_waiting:
            self._posts[line.peer] = line.post
        else:
            self._posts.pop(line.peer, None)

    def _flush(self, line: Line) -> None:
        # who is gone takes nothing more, and may have said something before
        with contextlib.suppress(OSError):
            line.flush()
        self._wait(line)

    def _linger(self, until: float) -> None:
        waiting = [line for line in self._lines.values() if line.queue]
        poll = select.poll()
        by_fd = {line.fd: line for line in waiting}
        for line in waiting:
            line.may_send = True
            poll.register(line.fd, select.POLLOUT)
        while by_fd and (left_s := until - time.monotonic()) > 0:
            for fd, _ in poll.poll(math.ceil(left_s * 1000)):
                try:
                    is_waiting = by_fd[fd].flush()
                except OSError:
                    is_waiting = False
                if not is_waiting:
                    poll.unregister(fd)
                    del by_fd[fd]

    # --- in ------------------------------------------------------------------

    def _serve(self, line: Line, mask: int, events: list[TransportEvent]) -> None:
        """Do what a line is ready for."""
        if mask & _OUT:
            self._flush(line)
        if not mask & ~_OUT:
            return
        try:
            if not line.is_busy:
                message = line.accept(line.take(RECEIVE_BYTES))
            elif line.is_known:
                message = line.go_on()
            else:
                self._greet(line, line.take(RECEIVE_BYTES), events)
                return
        except _FAILURES as error:
            self._failed(line, error, events)
            return
        if message is not None:
            events.append(Received(line.peer, *message))

    def _failed(
        self, line: Line, error: Exception, events: list[TransportEvent]
    ) -> None:
        """End a line on which something went wrong, unless it can go on."""
        if isinstance(error, BlockingIOError | ConnectionResetError):
            # what the other side said before it ended comes after its reset
            return
        if isinstance(error, RemoteProtocolError):
            self._rejections.note(error)
        elif isinstance(error, MappingFailed):
            # whoever connects from now on is told to send without
            self._maps_segments = False
            log.warning("cannot map shared memory of another process: %s", error)
        self._end(line, events)

    def _greet(self, line: Line, packet: bytes, events: list[TransportEvent]) -> None:
        """Take the first packet of a line."""
        kind = packets.WELCOME if line.is_ours else packets.HELLO
        if not packet:
            self._end(line, events)
            return
        try:
            identity, abilities = packets.read_greeting(packet, kind)
        except RemoteProtocolError as error:
            self._refuse(line, str(error), events)
            return
        had_begun = line.may_send
        line.greeted(abilities)
        if line.is_ours:
            self._stands(line, had_begun, events)
            return
        del self._strangers[line]
        number = next(self._number) % (1 << 8 * _NUMBER_BYTES)
        line.peer = INBOUND + identity + number.to_bytes(_NUMBER_BYTES, "big")
        self._peers[line.peer] = line
        self._posts[line.peer] = line.post
        with contextlib.suppress(OSError):
            line.post(self._greeting(packets.WELCOME))

    def _stands(
        self, line: Line, had_begun: bool, events: list[TransportEvent]
    ) -> None:
        """Begin to send on a line that we opened, if that has not begun."""
        if not had_begun:
            line.may_send = True
            self._flush(line)
            events.append(PeerConnected(line.peer))

    def _refuse(self, line: Line, why: str, events: list[TransportEvent]) -> None:
        """End a line on which the two sides do not come to terms."""
        self.counts.rejected_handshakes += 1
        if line.is_ours:
            endpoint = self._hosts[line.peer].endpoint
            log.warning("%s %s", endpoint, why)
            _keep(self._refused, endpoint, why)
            _keep(self._reasons, line.peer, why)
        else:
            with contextlib.suppress(OSError):
                line.post(packets.pack_refusal(f"it {why}"))
        self._end(line, events)

    def _greeting(self, kind: int) -> bytes:
        abilities = packets.MAPS_SEGMENTS if self._maps_segments else 0
        return packets.pack_greeting(kind, self.identity, abilities)

    # --- who comes and goes --------------------------------------------------

    def _attend(self, fd: int, events: list[TransportEvent]) -> None:
        """Do what is to be done for a descriptor that is no line's."""
        if self._door.has(fd):
            for sock in self._door.come_in(fd):
                if len(self._strangers) >= MAX_STRANGERS:
                    self._expire(next(iter(self._strangers)), events)
                line = self._add(sock, b"")
                self._strangers[line] = time.monotonic()
            self._ticker.run(self._has_to_look)
        elif fd == self._ticker.fileno():
            self._ticker.take()
            self._tick(events)

    def _add(self, sock: socket.socket, peer: Peer) -> Line:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        line = Line(sock, bool(peer), self._max_bytes)
        line.peer = peer
        self._lines[line.fd] = line
        if peer:
            self._peers[peer] = line
        self._epoll.register(line.fd, _IN)
        return line

    def _end(self, line: Line, events: list[TransportEvent]) -> None:
        """Take note that a line has ended."""
        self._remove(line)
        if line.is_ours:
            events.append(PeerLost(line.peer))
        else:
            self.counts.dropped_connections += 1

    def _remove(self, line: Line) -> None:
        del self._lines[line.fd]
        # not left to closing: a forked child may have the socket too
        self._epoll.unregister(line.fd)
        if self.arena is not None and line.told:
            self.arena.drop(line, credentials(line.sock)[0], line.sock)
        line.close()
        self._strangers.pop(line, None)
        self._peers.pop(line.peer, None)
        self._posts.pop(line.peer, None)
        host = self._hosts.pop(line.peer, None)
        if host is not None:
            del self._by_endpoint[host.endpoint]

    # --- now and then --------------------------------------------------------

    @property
    def _has_to_look(self) -> bool:
        is_watching = self._has_heartbeats and bool(self._hosts)
        return is_watching or bool(self._strangers) or self._door.is_resting

    def _tick(self, events: list[TransportEvent]) -> None:
        self._door.wake()
        if self.arena is not None:
            self.arena.tidy()
        overdue = time.monotonic() - GREETING_TIMEOUT_S
        for line, since in list(self._strangers.items()):
            if since <= overdue:
                self._expire(line, events)
        if self._has_heartbeats:
            for peer, host in list(self._hosts.items()):
                self._look_at(self._peers[peer], host, events)
        self._ticker.run(self._has_to_look)

    def _expire(self, line: Line, events: list[TransportEvent]) -> None:
        """Close a connection that has said nothing, if that is still so."""
        self._serve(line, _IN, events)
        if line in self._strangers:
            self._refuse(line, "did not greet in time", events)

    def _look_at(self, line: Line, host: _Host, events: list[TransportEvent]) -> None:
        """Find out whether a process stands still, or is gone unnoticed."""
        state = host.process.look()
        if state in (onlooker.RUNNING, onlooker.UNKNOWN):
            host.misses = 0
            if state == onlooker.RUNNING and not line.may_send:
                # it is there, though its code may keep it from greeting
                self._stands(line, False, events)
            return
        host.misses += 1
        # of a process that is gone, a forked child may have the socket: its last words
        # have been read by the second look
        allowed = 1 if state == onlooker.GONE else self._misses_allowed
        if host.misses > allowed:
            self._end(line, events)

    def _abandon(self) -> None:
        """Let go of everything, in a child that was forked off and has copies of it."""
        self._is_closed = True
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._peers.clear()
        self._posts.clear()
        self._door.abandon()
        self._ticker.close()
        self._epoll.close()


def _keep(reasons: dict[Any, str], key: Any, reason: str) -> None:
    """Remember a reason, and forget the oldest of too many."""
    reasons.pop(key, None)
    reasons[key] = reason
    if len(reasons) > REFUSALS_KEPT:
        del reasons[next(iter(reasons))]


def _abandon_all() -> None:
    for transport in list(_transports):
        if not transport._is_closed:
            transport._abandon()


# else a child would keep connections open that its parent ended by ending
os.register_at_fork(after_in_child=_abandon_all)
