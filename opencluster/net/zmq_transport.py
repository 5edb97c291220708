"""Messages over ZeroMQ: one ROUTER that listens and one ROUTER that connects.

Two sockets carry everything, however many peers there are, so that polling costs the
same with two workers and with a thousand. A peer that we connect to gets its identity
from us (``ZMQ_CONNECT_ROUTING_ID``), so it can be named before it has said a word.
Liveness is libzmq's: its heartbeats run in its own threads and need no turn of the
Python interpreter. Lost connections are learned from the socket monitor. With keys
both sockets speak CURVE alone, and `gate` says who is admitted. Large messages go in
chunks (see `transfers`), so that small ones need not wait for them.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from opencluster.core.chunks import Moved
from opencluster.core.roles import TRUSTED, Credential
from opencluster.errors import OpenClusterError
from opencluster.net.cutting import CUT_BYTES, cut
from opencluster.net.monitoring import (
    EVENTS_PER_TURN,
    HANDSHAKE_FAILURES,
    WARN_INTERVAL_S,
    monitor,
    take,
    why,
)
from opencluster.net.names import address_of
from opencluster.net.polling import Edge
from opencluster.net.ticker import Ticker
from opencluster.net.transfers import LARGE_BYTES, TICK_S, Transfers
from opencluster.net.transport import (
    Peer,
    PeerConnected,
    PeerLost,
    Received,
    TransportCounts,
    TransportEvent,
)
from opencluster.wire import transfers
from opencluster.wire.frames import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from opencluster.net.gate import Gate
    from opencluster.net.keys import Keyring

log = logging.getLogger(__name__)

MAX_FRAMES = 4096
"""Frames of one message; more than any of ours has."""
SMALL_BYTES = 1 << 16
"""A header up to this size is copied: cheaper than to keep libzmq's message alive."""
CONNECT_TIMEOUT_MS = 2000
"""How long one attempt to connect may take: after a network was cut, the next attempt
finds it healed much sooner than the kernel gives up the one before."""
REFUSALS_KEPT = 64
"""Endpoints of which it is remembered why the last handshake failed."""
KEEPALIVE_IDLE_S = 60
"""Silence after which the kernel asks whether an accepted connection still stands,"""
KEEPALIVE_INTERVAL_S = 10
KEEPALIVES = 3
"""and how often it asks before it gives the connection up."""
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
"""After these libzmq does not try again."""
MAX_PORT = 65535
INBOUND, OUTBOUND = b"<", b">"

# as integers: joining and passing flags of an enum costs as much as sending
_DONTWAIT = int(zmq.DONTWAIT)
_SNDMORE = int(zmq.SNDMORE | zmq.DONTWAIT)


class EndpointInUse(OpenClusterError):
    """An address to listen at is taken, or is not one of this computer."""


class ZmqTransport:
    """A transport over ZeroMQ, for use by one thread.

    Parameters
    ----------
    max_message_bytes : int
        Larger frames are refused before memory is taken for them.
    heartbeat_s, timeout_s : float
        Interval of libzmq's heartbeats, and the silence after which a peer is lost.
    keys : Keyring, optional
        Who this process is and who is admitted; without it nothing is encrypted, and
        everyone is `TRUSTED`.
    max_queued : int
        Messages that wait for a peer which connected to us and does not read, 0 for
        any number; it counts as gone for those beyond.
    max_coming : int
        Large messages that one peer may send at a time; by default none at all.
    compression : str
        How those leave: ``none``, ``lz4``, ``zstd`` or ``auto``.
    """

    schemes = ("tcp://", "ipc://")

    def __init__(
        self,
        max_message_bytes: int = 4 << 30,
        heartbeat_s: float = 2.0,
        timeout_s: float = 10.0,
        keys: Keyring | None = None,
        max_queued: int = 0,
        max_coming: int = 0,
        compression: str = "none",
    ) -> None:
        self.counts = TransportCounts()
        self.keys = keys
        self.identity = os.urandom(16)
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._options: dict[int, int | bytes] = {
            zmq.LINGER: 0,
            zmq.ROUTER_MANDATORY: 1,
            # a peer that comes back before its old connection is known dead
            zmq.ROUTER_HANDOVER: 1,
            zmq.SNDHWM: 0,
            zmq.MAXMSGSIZE: max_message_bytes,
            zmq.HEARTBEAT_IVL: int(heartbeat_s * 1000),
            zmq.HEARTBEAT_TIMEOUT: int(timeout_s * 1000),
            zmq.HEARTBEAT_TTL: int(timeout_s * 1000),
            zmq.RECONNECT_IVL: 100,
            zmq.RECONNECT_IVL_MAX: 2000,
            zmq.CONNECT_TIMEOUT: CONNECT_TIMEOUT_MS,
            zmq.ROUTING_ID: self.identity,
        }
        self._server = self._open()
        self._server.set(zmq.SNDHWM, max_queued)
        # those who connect to us ask us whether we live, and with the same message say
        # after how long a silence we shall take them for lost: asking back as well
        # would double the traffic of a factory; strangers are left to the kernel
        self._server.set(zmq.HEARTBEAT_IVL, 0)
        self._server.set(zmq.TCP_KEEPALIVE, 1)
        self._server.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
        self._server.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
        self._server.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVES)
        self._client = self._open()
        self._gate = self._guard()
        self._server_monitor = monitor(
            self._context,
            self._server,
            "server",
            HANDSHAKE_FAILURES | zmq.EVENT_DISCONNECTED,
        )
        self._client_monitor = monitor(
            self._context,
            self._client,
            "client",
            HANDSHAKE_FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED,
        )
        self._server_edge, self._client_edge = Edge(self._server), Edge(self._client)
        # without what only other kinds of sockets need, in half the time
        self._server_send = super(zmq.Socket, self._server).send
        self._client_send = super(zmq.Socket, self._client).send
        self._server_news = Edge(self._server_monitor)
        self._client_news = Edge(self._client_monitor)
        self._knocks = None if self._gate is None else Edge(self._gate.handshakes)
        self._peers: dict[str, Peer] = {}
        self._endpoints: dict[Peer, str] = {}
        self._open_endpoints: set[str] = set()
        # by the text that was asked for, as finding an address may take seconds
        self._asked: dict[str, Peer] = {}
        self._listening: list[str] = []
        self._number = 0
        self._warned_at: float | None = None
        self._refusals: dict[str, str] = {}
        self._lost: list[Peer] = []
        self._ticker = Ticker(TICK_S)
        limits = max_message_bytes, max_coming
        self._transfers = Transfers(
            self.send, self._broken, self.counts, *limits, compression
        )

    @property
    def public_key(self) -> str:
        """What others must know of this process, empty without keys."""
        return "" if self.keys is None else self.keys.own.public_key

    def listen(self, endpoint: str) -> str:
        """Listen at an endpoint, and return it with the port filled in.

        A local socket is closed to other users, wherever it stands. Instead of a port
        there may be a range of them, ``tcp://10.0.0.1:9200-9399``, for a free one.

        Raises
        ------
        EndpointInUse
            When the address is taken or does not belong to this computer.
        """
        self._server_edge.is_used = True
        try:
            self._bind(endpoint)
        except zmq.ZMQError as error:
            raise EndpointInUse(
                f"cannot listen at {endpoint}: {error.strerror}; choose another port "
                "(0 takes a free one) or stop the process that has it"
            ) from None
        bound = self._server.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._listening.append(bound)
        if bound.startswith("ipc://") and not bound.startswith("ipc://@"):
            Path(bound.removeprefix("ipc://")).chmod(0o700)
        return bound

    def connect(self, endpoint: str, public_key: str = "") -> Peer:
        """Open a connection, or return the one that stands.

        Parameters
        ----------
        endpoint : str
            Where to.
        public_key : str
            Of whoever listens there; without keys it means nothing.

        Raises
        ------
        SecurityError
            When the key is missing, or not admitted.
        OpenClusterError
            When the endpoint is none, or its host has no address.
        """
        peer = self._asked.get(endpoint)
        if peer is None or not self._is_to(peer, public_key):
            resolved = _resolved(endpoint)
            peer = self._peers.get(resolved)
            if peer is not None and not self._is_to(peer, public_key):
                # somebody else listens there now: the old connection leads nowhere
                self.disconnect(peer)
                self._lost.append(peer)
                peer = None
            peer = peer or self._connect(resolved, public_key)
            self._asked[endpoint] = peer
        return peer

    def disconnect(self, peer: Peer) -> None:
        """Close a connection that `connect` opened; unknown peers are ignored."""
        endpoint = self._endpoints.pop(peer, None)
        if endpoint is not None:
            del self._peers[endpoint]
            self._asked = {e: p for e, p in self._asked.items() if p != peer}
            self._hang_up(endpoint)
            self._transfers.lost(peer)
            if self._gate is not None:
                self._gate.disconnected(peer)

    def refusal(self, peer: Peer) -> str:
        """Return why the last handshake with a peer of ours failed, if it did."""
        return self._refusals.get(self._endpoints.get(peer, ""), "")

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message; ``False`` means that the peer is gone.

        The memory of the buffers is not copied: it must stay as it is until the
        message has left. Messages keep their order, but for large ones: others may
        come before them that were sent later.
        """
        nbytes = sum(memoryview(b).nbytes for b in buffers) if buffers else 0
        if nbytes > LARGE_BYTES:
            self._ticker.run(True)
            return self._transfers.send(peer, header, buffers)
        is_ours = peer[:1] == OUTBOUND
        if self._gate is not None:
            if not self._gate.is_open(peer, is_ours):
                return False
            if nbytes > CUT_BYTES and header[:4] not in transfers.KINDS:
                header, buffers = cut(header, buffers)
        if is_ours:
            send, self._client_edge.is_used = self._client_send, True
        else:
            send, self._server_edge.is_used = self._server_send, True
        try:
            send(peer[1:], _SNDMORE)
            if not buffers:
                send(header, _DONTWAIT)
                return True
            send(header, _SNDMORE)
            for buffer in buffers[:-1]:
                send(buffer, _SNDMORE, copy=False)
            send(buffers[-1], _DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def coming(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Return what large messages come from a peer: their numbers and headers."""
        return self._transfers.coming(peer)

    def refuse(self, peer: Peer, number: int) -> None:
        """Take no more of a large message that comes and that nobody needs."""
        self._transfers.refuse(peer, number)

    @property
    def moved(self) -> Moved:
        """How far the large messages are that are under way."""
        return self._transfers.moved

    def pollables(self) -> list[Any]:
        """Return what must be polled for input."""
        edges: list[Any] = [self._server_edge, self._client_edge]
        edges += [self._server_news, self._client_news, self._ticker]
        return edges if self._knocks is None else [*edges, self._knocks]

    def receive(self, ready: Container[Any] | None = None) -> list[TransportEvent]:
        """Return what happened since the last call, a bounded number of events.

        Parameters
        ----------
        ready : container, optional
            Which of the pollables have input; by default all are looked at, which
            costs more.
        """
        events: list[TransportEvent] = []
        if self._gate is not None or self._lost:
            self._part(ready is None or self._knocks in ready, events)
        if ready is None:
            self._client_edge.has_more = self._server_edge.has_more = True
        if ready is None or self._client_edge in ready:
            self._take_messages(self._client_edge, OUTBOUND, events)
        if ready is None or self._server_edge in ready:
            self._take_messages(self._server_edge, INBOUND, events)
        if ready is None or self._client_news in ready:
            self._client_news.is_used = True
            self._take_connections(events)
        if ready is None or self._server_news in ready:
            self._server_news.is_used = True
            self._take_rejections()
        if ready is None or self._ticker in ready:
            self._ticker.take()
            self._transfers.tick()
            self._ticker.run(not self._transfers.is_idle)
        if self._lost:
            self._part(False, events)
        return events

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything, waiting at most this long for what was sent to leave."""
        until = time.monotonic() + linger_s
        questions = [self._server_edge.question, self._client_edge.question]
        while self._transfers.is_leaving and (left_s := until - time.monotonic()) > 0:
            zmq.zmq_poll(questions, int(1000 * min(left_s, TICK_S)))
            self.receive()
        left_s = max(0.0, until - time.monotonic())
        for sock in (self._server, self._client):
            sock.disable_monitor()
            sock.close(linger=int(left_s * 1000))
        for sock in (self._server_monitor, self._client_monitor):
            sock.close(linger=0)
        if self._gate is not None:
            self._gate.close()
        self._ticker.close()
        self._context.term()
        for endpoint in self._listening:
            if endpoint.startswith("ipc://"):
                Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)

    # --- inside --------------------------------------------------------------

    def _open(self) -> zmq.Socket[bytes]:
        sock: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        for option, value in self._options.items():
            sock.set(option, value)
        return sock

    def _guard(self) -> Gate | None:
        if self.keys is None:
            return None
        # imported here, so that it costs nothing where there are no keys
        from opencluster.net.gate import Gate

        gate = Gate(self._context, self.keys, self.counts, self.identity)
        gate.guard(self._server, self._client)
        return gate

    def _is_to(self, peer: Peer, public_key: str) -> bool:
        return self._gate is None or self._gate.key_of(peer) == public_key

    def _bind(self, endpoint: str) -> None:
        way, colon, ports = endpoint.rpartition(":")
        first, dash, last = ports.partition("-")
        if not endpoint.startswith("tcp://") or not dash:
            self._server.bind(endpoint)
            return
        for port in range(int(first), int(last) + 1):
            try:
                self._server.bind(f"{way}:{port}")
                return
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE or port == int(last):
                    raise

    def _connect(self, endpoint: str, public_key: str) -> Peer:
        if self._gate is not None:
            self._gate.expect(self._client, endpoint, public_key)
        self._number += 1
        # the identity carries a random part: a peer of ours must not be guessed
        routing_id = b"%d-" % self._number + self.identity[:8]
        self._client_edge.is_used = True
        self._client.setsockopt(zmq.CONNECT_ROUTING_ID, routing_id)
        try:
            self._client.connect(endpoint)
        except (zmq.ZMQError, UnicodeEncodeError) as error:
            raise OpenClusterError(f"cannot connect to {endpoint!r}: {error}") from None
        peer = OUTBOUND + routing_id
        self._open_endpoints.add(endpoint)
        self._peers[endpoint] = peer
        self._endpoints[peer] = endpoint
        if self._gate is not None:
            self._gate.connected(peer, public_key)
        return peer

    def _part(self, may_knock: bool, events: list[TransportEvent]) -> None:
        """Let those in who knock, and part with those who are admitted no more."""
        if self._gate is not None and self._knocks is not None:
            self._knocks.is_used |= may_knock
            for peer in self._gate.attend(may_knock):
                self.disconnect(peer)
                self._lost.append(peer)
        if self._lost:
            lost, self._lost = self._lost, []
            events.extend(map(PeerLost, lost))

    def _take_messages(
        self, edge: Edge, direction: bytes, events: list[TransportEvent]
    ) -> None:
        edge.is_used = True
        # mostly one comes alone, and to run into the end of them takes longer than to
        # read it; if there are others they are found before anybody sleeps
        most = EVENTS_PER_TURN if edge.has_more else 1
        edge.has_more = False
        receive = edge.sock.recv
        for taken in range(most):
            if taken == 1 and not zmq.zmq_poll([edge.question], 0):
                return
            try:
                sender = direction + receive(_DONTWAIT)
            except zmq.Again:
                return
            # a frame knows whether more follow; asking the socket takes far longer
            frame = receive(copy=False)
            who = TRUSTED if self._gate is None else self._sender(sender, frame)
            frames = [frame]
            while frame.more:
                frame = receive(copy=False)
                if len(frames) < MAX_FRAMES:
                    frames.append(frame)
            head = frames[0]
            if len(frames) >= MAX_FRAMES or len(head) > MAX_FRAME_BYTES:
                self.counts.rejected_messages += 1
                continue
            if who is None:
                self.counts.rejected_credentials += 1
                continue
            header = head.bytes if len(head) <= SMALL_BYTES else head.buffer
            buffers = [frame.buffer for frame in frames[1:]]
            if header[:4] in transfers.KINDS:
                self._take_transfer(sender, header, buffers, who, events)
            else:
                events.append(Received(sender, header, buffers, who))
                if self._transfers.is_coming(sender):
                    # it may be about what comes, which must not be whole, and out of
                    # sight, before it is seen to
                    edge.has_more = True
                    return

    def _take_transfer(
        self,
        sender: Peer,
        header: bytes | memoryview,
        buffers: Sequence[Any],
        who: Credential,
        events: list[TransportEvent],
    ) -> None:
        """Take in what belongs to a large message, which may be whole with it."""
        self._ticker.run(True)
        message = self._transfers.received(sender, [header, *buffers], who)
        if message is not None:
            events.append(message)

    def _broken(self, peer: Peer) -> None:
        """Part with a peer, if that is for us to do, as a message was lost."""
        if peer in self._endpoints:
            self.disconnect(peer)
            self._lost.append(peer)

    def _sender(self, sender: Peer, frame: zmq.Frame) -> Credential | None:
        assert self._gate is not None
        if sender[:1] == OUTBOUND:
            return self._gate.host(sender)
        return self._gate.guest(sender, frame)

    def _take_connections(self, events: list[TransportEvent]) -> None:
        for event, value, endpoint in take(self._client_monitor):
            if event & HANDSHAKE_FAILURES:
                self.counts.rejected_handshakes += 1
                self._note_failure(event, value, endpoint)
                if event & REFUSED:
                    self._hang_up(endpoint)
                continue
            stands = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if stands:
                self._refusals.pop(endpoint, None)
            peer = self._peers.get(endpoint)
            if peer is None:
                continue
            if not stands:
                self._transfers.lost(peer)
            events.append(PeerConnected(peer) if stands else PeerLost(peer))

    def _hang_up(self, endpoint: str) -> None:
        """Have libzmq forget an endpoint of ours, once.

        When it was refused, libzmq has ended what served it, and still has its address
        in memory: whatever is opened next may lie there, and would be closed in its
        place if that were done later.
        """
        if endpoint in self._open_endpoints:
            self._open_endpoints.discard(endpoint)
            self._client_edge.is_used = True
            self._client.disconnect(endpoint)

    def _note_failure(self, event: int, value: int, endpoint: str) -> None:
        """Keep why a connection of ours fails, and say so once a minute."""
        reason = why(event, value, self.keys is not None)
        self._refusals.pop(endpoint, None)
        self._refusals[endpoint] = reason
        if len(self._refusals) > REFUSALS_KEPT:
            del self._refusals[next(iter(self._refusals))]
        now = time.monotonic()
        if self._warned_at is None or now - self._warned_at >= WARN_INTERVAL_S:
            self._warned_at = now
            log.warning("%s %s", endpoint, reason)

    def _take_rejections(self) -> None:
        for event, _, _ in take(self._server_monitor):
            if event & HANDSHAKE_FAILURES:
                self.counts.rejected_handshakes += 1
            else:
                self.counts.dropped_connections += 1


def _resolved(endpoint: str) -> str:
    """Return the endpoint with a numeric address, as the monitor will name it."""
    if endpoint.startswith("ipc://"):
        return endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    # libzmq takes a port of 99999, or of 80abc, and then tries for ever
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) <= MAX_PORT
    if not endpoint.startswith("tcp://") or not is_port:
        raise OpenClusterError(
            f"{endpoint!r} is no endpoint: use tcp://host:port or ipc://path"
        )
    try:
        address = address_of(host)
    except (OSError, UnicodeError) as error:
        raise OpenClusterError(
            f"cannot find the address of {host!r} (in {endpoint}) from "
            f"{socket.gethostname()}: {error}; check the name, or give a numeric "
            "address"
        ) from None
    return f"tcp://{address}:{port}"


def ipc_endpoint(directory: Path, name: str) -> str:
    """Return the endpoint of a local socket, checking that its path is not too long."""
    path = directory / f"{name}.sock"
    limit = zmq.IPC_PATH_MAX_LEN
    if len(os.fsencode(path)) > limit:
        raise OpenClusterError(
            f"socket path {path} is longer than {limit} bytes; choose a shorter --dir"
        )
    return f"ipc://{path}"
