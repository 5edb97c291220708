"""A factory's connections to the other factories.

Each factory opens a connection to every other one of its list, and answers those that
stand in no list of its own over the connection that they opened. What cannot leave at
once is dropped: everything that factories say to each other is said again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opencluster.errors import OpenClusterError, RemoteProtocolError
from opencluster.net.reach import cannot_reach
from opencluster.net.transport import Peer, Transport

log = logging.getLogger(__name__)

MAX_NAME = 512
"""Longest name of a factory, in characters."""
MAX_NAMES = 64
"""Factories of which it is remembered over which connection they were last heard."""


class Fellows:
    """The other factories.

    Parameters
    ----------
    transport : Transport
        Opens the connections.
    me : str
        The name of this factory.
    names : sequence of str
        All of them; each is the endpoint at which the others reach it.
    public_key : str, optional
        Of all factories, on a cluster with keys.
    """

    def __init__(
        self, transport: Transport, me: str, names: Sequence[str], public_key: str = ""
    ) -> None:
        self._transport = transport
        self._public_key = public_key
        self._me = me
        self._unopened = [name for name in names if name != me]
        self._opened: dict[str, Peer] = {}
        self._names: dict[Peer, str] = {}
        self._connected: set[Peer] = set()
        self._heard: dict[str, Peer] = {}
        self._is_told: set[str] = set()

    def connect(self) -> None:
        """Open what is not open yet."""
        unopened, self._unopened = self._unopened, []
        for name in unopened:
            try:
                peer = self._transport.connect(name, self._public_key)
            except OpenClusterError as error:
                self._unopened.append(name)
                if name not in self._is_told:
                    self._is_told.add(name)
                    log.warning("factory %s: %s", name, error)
                continue
            self._opened[name] = peer
            self._names[peer] = name

    def missing(self) -> list[str]:
        """Return the factories to which a connection was opened and does not stand."""
        opened = self._opened.items()
        return [name for name, peer in opened if peer not in self._connected]

    def unreached(self, name: str, why: str) -> None:
        """Log why a factory is not reached, once until it is."""
        if name not in self._is_told and name in self.missing():
            self._is_told.add(name)
            log.warning("%.1000s", cannot_reach("a factory", name, why))

    def connected(self, peer: Peer) -> str:
        """Take note that a connection stands; returns whose, if it is a factory's."""
        name = self._names.get(peer, "")
        if name:
            self._connected.add(peer)
            self._is_told.discard(name)
        return name

    def lost(self, peer: Peer) -> str:
        """Take note that a connection broke; returns whose, if it was a factory's."""
        self._connected.discard(peer)
        return self._names.get(peer, "")

    def heard(self, peer: Peer, name: object) -> str:
        """Take note over which connection a factory was heard, and return its name.

        Raises
        ------
        RemoteProtocolError
            When the name is none.
        """
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise RemoteProtocolError("a message between factories names no sender")
        if name == self._me:
            raise RemoteProtocolError("somebody speaks in the name of this factory")
        self._heard.pop(name, None)
        self._heard[name] = peer
        if len(self._heard) > MAX_NAMES:
            del self._heard[next(iter(self._heard))]
        return name

    def send(self, name: str, header: bytes) -> None:
        """Send a message, if there is a way to that factory at this moment."""
        peer = self._opened.get(name)
        if peer is None or peer not in self._connected:
            peer = self._heard.get(name)
        if peer is not None:
            self._transport.send(peer, header)
