"""Whom a manager knows: workers and services, the way to each, and failing types."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from opencluster.core.entries import Entry
from opencluster.engines.base import WorkerInfo
from opencluster.errors import OpenClusterError
from opencluster.net.joined import Approach
from opencluster.net.transport import Peer, Transport
from opencluster.node.host import host_id, host_name
from opencluster.service import SERVICE_PREFIX


@dataclass
class Contact:
    """A worker or service, and the connection to it.

    Attributes
    ----------
    entry : Entry
        What it registered.
    endpoint : str
        Where it is reached from here.
    peer : bytes
        The connection.
    is_joined : bool
        It answers, and takes pieces.
    is_registered : bool
        It stands in the registry.
    has_joined : bool
        It has answered at some time on this connection.
    is_leaving : bool
        It said that it will end.
    """

    entry: Entry
    endpoint: str
    peer: Peer
    is_joined: bool = False
    is_registered: bool = True
    has_joined: bool = False
    is_leaving: bool = False

    @property
    def id(self) -> str:
        """Its identity."""
        return self.entry.id

    @property
    def type(self) -> str:
        """The type under which it is dispatched to."""
        return dispatched_type(self.entry)

    @property
    def is_worker(self) -> bool:
        """Whether it is a worker: services hold no values."""
        return not self.type.startswith(SERVICE_PREFIX)


class Directory:
    """What a manager has learned from the registry.

    Parameters
    ----------
    transport : Transport
        Opens the connections.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._approach = Approach(transport)
        self.contacts: dict[str, Contact] = {}
        self.by_peer: dict[Peer, Contact] = {}
        self._by_endpoint: dict[str, Contact] = {}
        self.workshops: dict[str, Entry] = {}
        self.failures: dict[str, Entry] = {}

    def connect(self, entry: Entry) -> Contact:
        """Open a connection to a worker or service.

        Raises
        ------
        OpenClusterError
            When it has no endpoint that can be reached from here.
        """
        endpoint, peer = self._approach.connect(self._ways(entry), entry.public_key)
        contact = Contact(entry, endpoint, peer)
        self.contacts[entry.id] = contact
        self.by_peer[contact.peer] = contact
        self._by_endpoint[endpoint] = contact
        return contact

    def predecessor(self, entry: Entry) -> Contact | None:
        """Return who was reached where another one listens now."""
        there = (self._by_endpoint.get(way) for way in self._ways(entry))
        return next(filter(None, there), None)

    def connect_workshop(self, entry: Entry) -> Peer:
        """Open a connection to a workshop, or return the one that stands."""
        return self._approach.connect(self._ways(entry), entry.public_key)[1]

    def forget(self, contact: Contact) -> None:
        """Close the connection to a worker or service."""
        self.contacts.pop(contact.id, None)
        self.by_peer.pop(contact.peer, None)
        self._by_endpoint.pop(contact.endpoint, None)
        self._transport.disconnect(contact.peer)

    def _ways(self, entry: Entry) -> list[str]:
        """Return the endpoints at which an entry's process is reached from here.

        Raises
        ------
        OpenClusterError
            When it listens only at local sockets of another computer.
        """
        ways = self._approach.ways(entry.endpoints, entry.host_id == host_id())
        if not ways:
            listens = ", ".join(entry.endpoints) or "nothing"
            raise OpenClusterError(
                f"{entry.name} on {entry.host} cannot be reached from here "
                f"({host_name()}): it listens at {listens}"
            )
        return ways

    def joined(self, type: str) -> list[WorkerInfo]:
        """Return the workers of a type that answer; of any type if that is empty."""
        return [
            WorkerInfo(c.id, c.entry.name, c.entry.type, c.entry.host)
            for c in list(self.contacts.values())
            if c.is_joined and (c.type == type or (not type and c.is_worker))
        ]

    def types(self) -> dict[str, int]:
        """Return the worker types that are here, with how many of each."""
        here = list(self.contacts.values())
        return dict(Counter(c.type for c in here if c.is_joined))

    def failing(self, type: str) -> str:
        """Return why workers of a type do not start, or an empty text."""
        return "\n".join(
            f"{e.attributes.get('message', '')}\n{e.attributes.get('output', '')}"
            for e in list(self.failures.values())
            if dispatched_type(e) == type and e.attributes.get("is_failing")
        )


def dispatched_type(entry: Entry) -> str:
    """Return the type under which pieces or calls for an entry are dispatched."""
    kind = entry.attributes.get("of_kind", entry.kind)
    return (SERVICE_PREFIX if kind == "service" else "") + entry.type
