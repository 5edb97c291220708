"""The one interface through which bytes travel, whatever carries them.

A transport listens at endpoints, connects to endpoints, and turns what happens into
events. A peer is an opaque identity, good for as long as its connection lives.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opencluster.core.roles import TRUSTED, Credential

Peer = bytes
"""A connection, seen from this side of it."""


@dataclass(slots=True)
class Received:
    """A message came from a peer.

    Attributes
    ----------
    peer : bytes
        The connection that it came by.
    header : bytes-like
        The first frame.
    buffers : sequence
        The others.
    who : Credential
        Who sent it, by the key that stands behind the connection.
    """

    peer: Peer
    header: bytes | memoryview
    buffers: Sequence[Any]
    who: Credential = TRUSTED


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The connection that this side opened to a peer broke."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A connection that this side opened stands, and the peer answers on it."""

    peer: Peer


TransportEvent = Received | PeerConnected | PeerLost


@dataclass
class TransportCounts:
    """What came in that should not have, since the start.

    Attributes
    ----------
    rejected_handshakes : int
        Connections, to here or from here, on which the two sides did not come to
        terms: another protocol, no key or another one.
    rejected_messages : int
        Messages that were malformed, oversized or of another version.
    dropped_connections : int
        Accepted connections that ended, whether cleanly or for a violation.
    rejected_credentials : int
        Connections, messages and requests that the sender's key does not allow.
    """

    rejected_handshakes: int = 0
    rejected_messages: int = 0
    dropped_connections: int = 0
    rejected_credentials: int = 0

    def to_fields(self) -> dict[str, int]:
        """Return the counts as plain types."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Transport(Protocol):
    """What carries messages between processes."""

    counts: TransportCounts

    @property
    def schemes(self) -> tuple[str, ...]:
        """What the endpoints begin with that it can listen at and connect to."""

    def listen(self, endpoint: str) -> str:
        """Listen at an endpoint, and return it with the port filled in."""

    def connect(self, endpoint: str, public_key: str = "") -> Peer:
        """Open a connection; messages sent before it stands are kept for it.

        With keys, only who holds the secret of `public_key` will be believed there.
        """

    def disconnect(self, peer: Peer) -> None:
        """Close a connection that `connect` opened."""

    def refusal(self, peer: Peer) -> str:
        """Return why the last handshake with a peer of ours failed, if it did.

        A predicate to the endpoint: ``"wants keys"``; to be asked before `disconnect`.
        """

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message; ``False`` means that the peer is gone.

        Messages to one peer keep their order, but for this: a small one may come
        before large ones that were sent before it.
        """

    def coming(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Return what large messages come from a peer: their numbers and headers."""

    def refuse(self, peer: Peer, number: int) -> None:
        """Take no more of a large message that comes and that nobody needs."""

    def pollables(self) -> Iterable[Any]:
        """Return what must be polled for input; each once, for its lifetime."""

    def receive(self, ready: Container[Any] | None = None) -> list[TransportEvent]:
        """Return what happened since the last call, a bounded number of events.

        `ready` holds the pollables that have input; without it all are looked at.
        """

    def close(self, linger_s: float = 0.0) -> None:
        """Close everything, waiting at most this long for what was sent to leave."""
