"""Messages over ZeroMQ: one ROUTER that listens and one ROUTER that connects.

Two sockets carry everything, however many peers there are, so that polling costs the
same with two workers and with a thousand. A peer that we connect to gets its identity
from us (``ZMQ_CONNECT_ROUTING_ID``), so it can be named before it has said a word.
Liveness is libzmq's: its heartbeats run in its own threads and need no turn of the
Python interpreter. Lost connections are learned from the socket monitor.
"""

from __future__ import annotations

import os
import socket
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from opencluster.errors import OpenClusterError
from opencluster.net.transport import (
    Peer,
    PeerConnected,
    PeerLost,
    Received,
    TransportCounts,
    TransportEvent,
)
from opencluster.wire.frames import MAX_FRAME_BYTES

EVENTS_PER_TURN = 256
"""Messages taken from a socket before the others get their turn."""
MAX_FRAMES = 4096
"""Frames of one message; more than any of ours has."""
SMALL_BYTES = 1 << 16
"""A header up to this size is copied: cheaper than to keep libzmq's message alive."""
MAX_PORT = 65535
INBOUND, OUTBOUND = b"<", b">"

# as integers: joining and passing flags of an enum costs as much as sending
_DONTWAIT = int(zmq.DONTWAIT)
_SNDMORE = int(zmq.SNDMORE | zmq.DONTWAIT)

_HANDSHAKE_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


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
    """

    def __init__(
        self,
        max_message_bytes: int = 4 << 30,
        heartbeat_s: float = 2.0,
        timeout_s: float = 10.0,
    ) -> None:
        self.counts = TransportCounts()
        self.identity = uuid.uuid4().bytes
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
            zmq.ROUTING_ID: self.identity,
        }
        self._server = self._open()
        self._client = self._open()
        self._server_monitor = self._monitor(
            self._server, _HANDSHAKE_FAILURES | zmq.EVENT_DISCONNECTED, "server"
        )
        self._client_monitor = self._monitor(
            self._client,
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED,
            "client",
        )
        self._peers: dict[str, Peer] = {}
        self._endpoints: dict[Peer, str] = {}
        # by the text that was asked for, as finding an address may take seconds
        self._asked: dict[str, Peer] = {}
        self._listening: list[str] = []
        self._number = 0

    def listen(self, endpoint: str) -> str:
        """Listen at an endpoint, and return it with the port filled in.

        Raises
        ------
        EndpointInUse
            When the address is taken or does not belong to this computer.
        """
        try:
            self._server.bind(endpoint)
        except zmq.ZMQError as error:
            raise EndpointInUse(
                f"cannot listen at {endpoint}: {error.strerror}; choose another port "
                "(0 takes a free one) or stop the process that has it"
            ) from None
        bound = self._server.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._listening.append(bound)
        return bound

    def connect(self, endpoint: str) -> Peer:
        """Open a connection, or return the one that stands.

        Raises
        ------
        OpenClusterError
            When the endpoint is none, or its host has no address.
        """
        peer = self._asked.get(endpoint)
        if peer is None:
            resolved = _resolved(endpoint)
            peer = self._peers.get(resolved) or self._connect(resolved)
            self._asked[endpoint] = peer
        return peer

    def disconnect(self, peer: Peer) -> None:
        """Close a connection that `connect` opened; unknown peers are ignored."""
        endpoint = self._endpoints.pop(peer, None)
        if endpoint is not None:
            del self._peers[endpoint]
            self._asked = {e: p for e, p in self._asked.items() if p != peer}
            self._client.disconnect(endpoint)

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message; ``False`` means that the peer is gone.

        The memory of the buffers is not copied: it must stay as it is until the
        message has left.
        """
        sock = self._server if peer[:1] == INBOUND else self._client
        try:
            sock.send(peer[1:], _SNDMORE)
            if not buffers:
                sock.send(header, _DONTWAIT)
                return True
            sock.send(header, _SNDMORE)
            for buffer in buffers[:-1]:
                sock.send(buffer, _SNDMORE, copy=False)
            sock.send(buffers[-1], _DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def pollables(self) -> list[Any]:
        """Return the sockets that must be polled for input."""
        return [self._server, self._client, self._server_monitor, self._client_monitor]

    def receive(self) -> list[TransportEvent]:
        """Return what happened since the last call, a bounded number of events."""
        events: list[TransportEvent] = []
        self._take_messages(self._client, OUTBOUND, events)
        self._take_messages(self._server, INBOUND, events)
        self._take_connections(events)
        self._take_rejections()
        return events

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything, waiting at most this long for what was sent to leave."""
        for sock in (self._server, self._client):
            sock.disable_monitor()
            sock.close(linger=int(linger_s * 1000))
        for sock in (self._server_monitor, self._client_monitor):
            sock.close(linger=0)
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

    def _connect(self, endpoint: str) -> Peer:
        self._number += 1
        # the identity carries a random part: a peer of ours must not be guessed
        routing_id = b"%d-" % self._number + self.identity[:8]
        self._client.setsockopt(zmq.CONNECT_ROUTING_ID, routing_id)
        try:
            self._client.connect(endpoint)
        except (zmq.ZMQError, UnicodeEncodeError) as error:
            raise OpenClusterError(f"cannot connect to {endpoint!r}: {error}") from None
        peer = OUTBOUND + routing_id
        self._peers[endpoint] = peer
        self._endpoints[peer] = endpoint
        return peer

    def _monitor(
        self, sock: zmq.Socket[bytes], events: int, name: str
    ) -> zmq.Socket[bytes]:
        address = f"inproc://monitor-{name}"
        sock.monitor(address, events)
        monitor: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        monitor.set(zmq.LINGER, 0)
        # without limit: libzmq's thread must never wait for this one to read
        monitor.set(zmq.RCVHWM, 0)
        monitor.set(zmq.SNDHWM, 0)
        monitor.connect(address)
        return monitor

    def _take_messages(
        self, sock: zmq.Socket[bytes], direction: bytes, events: list[TransportEvent]
    ) -> None:
        for _ in range(EVENTS_PER_TURN):
            try:
                frame = sock.recv(_DONTWAIT, copy=False)
            except zmq.Again:
                return
            # a frame knows whether more follow; asking the socket takes far longer
            sender = frame.bytes
            frames: list[zmq.Frame] = []
            while frame.more:
                frame = sock.recv(copy=False)
                if len(frames) < MAX_FRAMES:
                    frames.append(frame)
            if not 0 < len(frames) < MAX_FRAMES or len(frames[0]) > MAX_FRAME_BYTES:
                self.counts.rejected_messages += 1
                continue
            head = frames[0]
            header = head.bytes if len(head) <= SMALL_BYTES else head.buffer
            buffers = [frame.buffer for frame in frames[1:]]
            events.append(Received(direction + sender, header, buffers))

    def _take_connections(self, events: list[TransportEvent]) -> None:
        for event, endpoint in _monitored(self._client_monitor):
            peer = self._peers.get(endpoint)
            if peer is None:
                continue
            stands = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            events.append(PeerConnected(peer) if stands else PeerLost(peer))

    def _take_rejections(self) -> None:
        for event, _ in _monitored(self._server_monitor):
            if event & _HANDSHAKE_FAILURES:
                self.counts.rejected_handshakes += 1
            else:
                self.counts.dropped_connections += 1


def _monitored(monitor: zmq.Socket[bytes]) -> list[tuple[int, str]]:
    """Return the events that wait at a monitor, each with its endpoint.

    Unpacked here, as ``zmq.utils.monitor`` brings asyncio into every process. The
    layout is that of zmq_socket_monitor(3): event and value, then the endpoint.
    """
    events: list[tuple[int, str]] = []
    while len(events) < EVENTS_PER_TURN:
        try:
            head, endpoint = monitor.recv_multipart(_DONTWAIT)
        except zmq.Again:
            break
        event, _value = struct.unpack("=HI", head)
        events.append((event, endpoint.rstrip(b"\0").decode(errors="replace")))
    return events


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
        address = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
    except (OSError, UnicodeError) as error:
        raise OpenClusterError(
            f"cannot find the address of {host!r} (in {endpoint}): {error}; "
            "check the name, or give a numeric address"
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
