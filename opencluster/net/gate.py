"""Who comes in: CURVE on a transport's sockets, and the answer to every handshake.

libzmq encrypts and proves who holds which key; this asks the roll whether that key is
admitted, when somebody connects (RFC 27, ZAP) and again with every message, so that a
revocation needs no restart and no new connection. It runs in the thread of its
transport, which polls the socket of the handshakes with its others.

Must not decide who may say what: that stands in `core.roles`.
"""

from __future__ import annotations

import logging
import os
import time
from hashlib import blake2b

import zmq
from zmq.utils import z85

from opencluster.core.roles import Credential
from opencluster.errors import SecurityError
from opencluster.net.keys import Keyring
from opencluster.net.transport import Peer, TransportCounts

log = logging.getLogger(__name__)

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
"""Where libzmq asks; the name is that of RFC 27, and the context's own."""
ZAP_VERSION = b"1.0"
ZAP_FRAMES = 8
"""Of a question, who asks included, besides the proof."""
KEY_BYTES = 32
HANDSHAKES_PER_TURN = 64
"""Answered before the other sockets get their turn."""
SHOWN_BYTES = 4
"""How much of its identity a process has everywhere: it is in the names of pieces."""
GUESTS_KEPT = 65_536
"""Accepted connections of which the key is remembered: as many at least, twice as many
at most. Those that nothing was sent to or came from for longest are forgotten: a
computer has fewer ports than this for one address."""
WARN_INTERVAL_S = 60.0
"""How often one kind of refusal is logged."""


class Gate:
    """Keeps out whom the roll does not admit.

    Parameters
    ----------
    context : zmq.Context
        Of the sockets that are guarded.
    keys : Keyring
        Who this process is, and the roll.
    counts : TransportCounts
        Where refusals are counted.
    identity : bytes
        Of this process; others see how it begins.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: Keyring,
        counts: TransportCounts,
        identity: bytes,
    ) -> None:
        self.keys = keys
        self._identity = identity
        self._salt = os.urandom(16)
        self._counts = counts
        # before any socket is guarded: libzmq lets everyone in whom it cannot ask about
        self.handshakes: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.handshakes.set(zmq.LINGER, 0)
        self.handshakes.bind(ZAP_ENDPOINT)
        self._hosts: dict[Peer, str] = {}
        self._guests: dict[Peer, str] = {}
        self._older_guests: dict[Peer, str] = {}
        self._roll = keys.roll
        self._told_at: float | None = None

    def guard(self, server: zmq.Socket[bytes], client: zmq.Socket[bytes]) -> None:
        """Have both sockets prove who we are, before they listen or connect."""
        own = self.keys.own
        for sock in (server, client):
            sock.set(zmq.CURVE_PUBLICKEY, own.public_key.encode())
            sock.set(zmq.CURVE_SECRETKEY, own.secret_key.encode())
        server.set(zmq.CURVE_SERVER, 1)
        server.set(zmq.ZAP_DOMAIN, b"opencluster")
        # and nobody without an answer from here
        server.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def expect(self, client: zmq.Socket[bytes], endpoint: str, public_key: str) -> None:
        """Have the next connection believe the holder of this key alone.

        Raises
        ------
        SecurityError
            When there is no key, or it is not admitted.
        """
        if not public_key:
            raise SecurityError(
                f"nothing says which key {endpoint} has: whoever listens there was "
                "started without keys, or is of an older version"
            )
        if self.keys.credential(public_key) is None:
            raise SecurityError(
                f"the key of {endpoint} is not on the roll (version "
                f"{self.keys.version}), or revoked: see `opencluster keys show`"
            )
        client.set(zmq.CURVE_SERVERKEY, public_key.encode())
        client.set(zmq.ROUTING_ID, self._identity_at(endpoint))

    def connected(self, peer: Peer, public_key: str) -> None:
        """Note whom a connection that we opened leads to."""
        self._hosts[peer] = public_key

    def disconnected(self, peer: Peer) -> None:
        """Forget a connection that we opened."""
        self._hosts.pop(peer, None)

    def key_of(self, peer: Peer) -> str:
        """Return the key at the other end of a connection that we opened."""
        return self._hosts.get(peer, "")

    def host(self, peer: Peer) -> Credential | None:
        """Return who speaks on a connection that we opened."""
        return self.keys.credential(self._hosts.get(peer, ""))

    def guest(self, peer: Peer, frame: zmq.Frame) -> Credential | None:
        """Return who sent a message on a connection that we accepted."""
        key = str(frame.get("User-Id"))
        self._remember(peer, key)
        return self.keys.credential(key)

    def is_open(self, peer: Peer, is_ours: bool) -> bool:
        """Return whether something may be sent to a peer (still)."""
        self.keys.refresh()
        if is_ours:
            return self.host(peer) is not None
        key = self._guests.get(peer) or self._older_guests.get(peer)
        if key is None:
            # has never said a word: the heart of a worker, whose pulse tells nothing
            return True
        self._remember(peer, key)
        return self.keys.credential(key) is not None

    def attend(self, may_knock: bool = True) -> list[Peer]:
        """Answer those who knock, and return our connections to who was revoked.

        Parameters
        ----------
        may_knock : bool
            Somebody may be there; to look in vain takes long.
        """
        self.keys.refresh()
        for _ in range(HANDSHAKES_PER_TURN if may_knock else 0):
            try:
                request = self.handshakes.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self._answer(request)
        if self.keys.roll is self._roll:
            return []
        self._roll = self.keys.roll
        return [peer for peer in self._hosts if self.host(peer) is None]

    def close(self) -> None:
        """Answer nobody any more; only when no guarded socket is left."""
        self.handshakes.close(linger=0)

    def _identity_at(self, endpoint: str) -> bytes:
        """Return the identity that this process has at one endpoint, and nowhere else.

        Whoever knows an identity takes over its connection (``ROUTER_HANDOVER``): one
        who listens must not be able to do so where else we are connected.
        """
        shown, hidden = self._identity[:SHOWN_BYTES], len(self._identity) - SHOWN_BYTES
        there = blake2b(endpoint.encode(), key=self._salt, digest_size=hidden)
        return shown + there.digest()

    def _answer(self, request: list[bytes]) -> None:
        """Answer one question of RFC 27: whether a key may come in."""
        if len(request) < ZAP_FRAMES:
            return
        asker, _, version, number, _, address, _, mechanism, *proof = request
        public_key = ""
        is_curve = version == ZAP_VERSION and mechanism == b"CURVE"
        if is_curve and list(map(len, proof)) == [KEY_BYTES]:
            public_key = z85.encode(proof[0]).decode()
        who = self.keys.credential(public_key)
        if who is None:
            self._refused(public_key, address)
            verdict = [b"400", b"not admitted", b"", b""]
        else:
            verdict = [b"200", b"OK", public_key.encode(), b""]
        reply = [asker, b"", ZAP_VERSION, number, *verdict]
        self.handshakes.send_multipart(reply, zmq.DONTWAIT)

    def _refused(self, public_key: str, address: bytes) -> None:
        self._counts.rejected_credentials += 1
        now = time.monotonic()
        if self._told_at is not None and now - self._told_at < WARN_INTERVAL_S:
            return
        self._told_at = now
        known = [h for h in self.keys.roll.holders if h.public_key == public_key]
        whose = f"certificate {known[0].name!r}, revoked" if known else "an unknown key"
        log.warning(
            "refused a connection from %s with %s; %d refused so far",
            address.decode(errors="replace"),
            whose,
            self._counts.rejected_credentials,
        )

    def _remember(self, peer: Peer, key: str) -> None:
        """Keep the key of a connection while there is traffic on it."""
        if self._guests.get(peer) == key:
            return
        if len(self._guests) >= GUESTS_KEPT:
            self._guests, self._older_guests = {}, self._guests
        self._guests[peer] = key
