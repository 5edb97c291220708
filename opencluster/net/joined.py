"""ZeroMQ and the express lane as one transport, and the best way to a process.

An endpoint's scheme says which of the two it belongs to, and afterwards the first byte
of a peer does. Whoever has a computer's other processes for peers uses both, while
daemons, which say little and serve other computers, have ZeroMQ alone.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencluster.config import Config
from opencluster.core.chunks import MAX_COMING, Moved
from opencluster.errors import OpenClusterError
from opencluster.net.descriptors import allow_many
from opencluster.net.transport import Peer, Transport, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport, ipc_endpoint

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring
    from opencluster.net.lane import LaneTransport

log = logging.getLogger(__name__)

LANE_SCHEME = "unix://"
_LANE_PEERS = (b"[", b"]")


class JoinedTransport:
    """A transport over ZeroMQ and the express lane.

    Parameters
    ----------
    zmq : ZmqTransport
        Without keys: on the lane nobody is told apart.
    lane : LaneTransport
        Of the same identity and the same counts.
    """

    def __init__(self, zmq: ZmqTransport, lane: LaneTransport) -> None:
        self.schemes = zmq.schemes + lane.schemes
        self.identity = zmq.identity
        self.public_key = zmq.public_key
        self.keys = zmq.keys
        self.counts = zmq.counts
        self.lane = lane
        self._zmq = zmq
        self._lane_receive, self._zmq_receive = lane.receive, zmq.receive
        self._lane_send, self._zmq_send = lane.send, zmq.send

    def listen(self, endpoint: str) -> str:
        """Listen at an endpoint, and return it with the port filled in."""
        return self._of(endpoint).listen(endpoint)

    def connect(self, endpoint: str, public_key: str = "") -> Peer:
        """Open a connection, or return the one that stands.

        At ``unix://`` somebody must listen already, and a connection there that is
        lost stays so. Everywhere else it is tried again and again.
        """
        return self._of(endpoint).connect(endpoint, public_key)

    def disconnect(self, peer: Peer) -> None:
        """Close a connection that `connect` opened; unknown peers are ignored."""
        self._behind(peer).disconnect(peer)

    def refusal(self, peer: Peer) -> str:
        """Return why the last handshake with a peer of ours failed, if it did."""
        return self._behind(peer).refusal(peer)

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message; ``False`` means that the peer is gone."""
        if peer[:1] in _LANE_PEERS:
            return self._lane_send(peer, header, buffers)
        return self._zmq_send(peer, header, buffers)

    def coming(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Return what large messages come from a peer: their numbers and headers."""
        return self._behind(peer).coming(peer)

    def refuse(self, peer: Peer, number: int) -> None:
        """Take no more of a large message that comes and that nobody needs."""
        self._behind(peer).refuse(peer, number)

    @property
    def moved(self) -> Moved:
        """How far the large messages are that are under way."""
        return self._zmq.moved

    def pollables(self) -> list[Any]:
        """Return what must be polled for input."""
        return [*self.lane.pollables(), *self._zmq.pollables()]

    def receive(self, ready: Container[Any] | None = None) -> list[TransportEvent]:
        """Return what happened since the last call, a bounded number of events."""
        events = self._lane_receive(ready)
        events += self._zmq_receive(ready)
        return events

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything, waiting at most this long for what was sent to leave."""
        self.lane.close(linger_s)
        self._zmq.close(linger_s)

    def _of(self, endpoint: str) -> Transport:
        return self.lane if endpoint.startswith(LANE_SCHEME) else self._zmq

    def _behind(self, peer: Peer) -> Transport:
        return self.lane if peer[:1] in _LANE_PEERS else self._zmq


def open_transport(
    config: Config, keys: Keyring | None
) -> ZmqTransport | JoinedTransport:
    """Return what carries the messages of a manager, worker or service.

    Parameters
    ----------
    config : Config
        The settings.
    keys : Keyring or None
        Who this process is; with keys there is no express lane.
    """
    allow_many()
    network, memory = config.network, config.memory
    limits = (
        network.max_message_bytes,
        network.zmtp_heartbeat_s,
        network.zmtp_timeout_s,
    )
    zmq = ZmqTransport(
        *limits, keys, max_coming=MAX_COMING, compression=network.compression
    )
    if keys is not None or not network.express_lane:
        return zmq
    # imported here, so that it costs nothing where it is not used
    from opencluster.net.arena import process_arena
    from opencluster.net.lane import LaneTransport

    lane = LaneTransport(
        *limits,
        identity=zmq.identity,
        counts=zmq.counts,
        arena=process_arena(memory.arena_bytes) if memory.arena_bytes else None,
        arena_threshold_bytes=memory.arena_threshold_bytes,
    )
    return JoinedTransport(zmq, lane)


def local_endpoints(transport: Transport, directory: Path, name: str) -> list[str]:
    """Return where a process listens to others of its computer, the best first.

    Parameters
    ----------
    transport : Transport
        That is to listen.
    directory : Path
        Where the sockets lie.
    name : str
        Of the process, without a suffix.

    Raises
    ------
    OpenClusterError
        When the path is too long for a socket.
    """
    endpoints = [ipc_endpoint(directory, name)]
    if LANE_SCHEME in transport.schemes:
        endpoints.insert(0, f"{LANE_SCHEME}{directory / name}.lane")
    return endpoints


class Approach:
    """The way to processes that listen at several endpoints.

    Parameters
    ----------
    transport : Transport
        Opens the connections.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._has_told = False

    def ways(self, endpoints: Iterable[str], is_here: bool) -> list[str]:
        """Return those endpoints that may do, in their order.

        Parameters
        ----------
        endpoints : iterable of str
            Where somebody listens, the preferred one first.
        is_here : bool
            They see the files of this process.
        """
        ways = [e for e in endpoints if e.startswith(self._transport.schemes)]
        return [e for e in ways if e.startswith("tcp://") or (is_here and _is_there(e))]

    def connect(self, ways: Sequence[str], public_key: str) -> tuple[str, Peer]:
        """Open a connection the first way that can be had.

        Parameters
        ----------
        ways : sequence of str
            As returned by `ways`, not empty.
        public_key : str
            Of whoever listens there; empty without keys.

        Returns
        -------
        endpoint : str
        peer : bytes

        Raises
        ------
        OpenClusterError
            When there is none.
        """
        for way in ways[:-1]:
            try:
                return way, self._transport.connect(way, public_key)
            except OpenClusterError as error:
                if not way.startswith(LANE_SCHEME):
                    raise
                self._tell(error)
        return ways[-1], self._transport.connect(ways[-1], public_key)

    def _tell(self, error: OpenClusterError) -> None:
        """Say once that somebody is reached by another way than the best."""
        if not self._has_told:
            self._has_told = True
            log.info("%s; ZeroMQ is used instead", error)


def _is_there(endpoint: str) -> bool:
    """Return whether a local socket has its file."""
    return Path(endpoint.partition("://")[2]).is_socket()
