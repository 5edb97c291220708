"""Many simulated workshops in one process: ``python -m bench.crowd --help``.

Each has a connection of its own to the factory, a real `FactoryLink`, and heartbeats
of the shape and at the interval of a real workshop. They share one socket and one
thread, and have no processes to look after.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import msgpack
import zmq

from opencluster.config import load
from opencluster.core.entries import Entry
from opencluster.net.descriptors import allow_many
from opencluster.net.link import FactoryLink
from opencluster.net.metronome import Metronome
from opencluster.net.reactor import Reactor, Timer
from opencluster.net.transport import Peer, PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.place import Place, factories
from opencluster.wire import figures, frames, kinds
from opencluster.workshop import ANSWERED_HEARTBEATS

TYPES = 100
"""Worker types that the workers of a crowd are spread over."""
REGISTER_AT_ONCE_S = 5.0
"""Time over which the workshops of one process come."""


class Switchboard(ZmqTransport):
    """A transport that opens a new connection each time it is asked to."""

    def connect(self, endpoint: str, public_key: str = "") -> Peer:
        """Open a connection whose other end takes it for a process of its own."""
        self._client.setsockopt(zmq.ROUTING_ID, uuid.uuid4().bytes)
        self._asked.clear()
        self._peers.clear()
        return super().connect(endpoint, public_key)

    def disconnect(self, peer: Peer) -> None:
        """Leave the connection open: others go to the same endpoint."""


class Line:
    """What the link of one workshop takes for a reactor of its own."""

    def __init__(self, reactor: Reactor, shops: dict[Peer, Shop]) -> None:
        self._reactor = reactor
        self._shops = shops
        self._peers: dict[str, Peer] = {}
        self.shop: Shop | None = None
        self.transport = self
        self.post = reactor.post
        self.watch, self.unwatch = reactor.watch, reactor.unwatch

    def connect(self, endpoint: str, public_key: str = "") -> Peer:
        """Return the connection to a factory."""
        assert self.shop is not None
        peer = self._peers.get(endpoint)
        if peer is None:
            peer = self._reactor.transport.connect(endpoint, public_key)
            self._peers[endpoint] = peer
            self._shops[peer] = self.shop
        return peer

    def disconnect(self, peer: Peer) -> None:
        """Forget a connection."""
        self._peers = {e: p for e, p in self._peers.items() if p != peer}
        self._shops.pop(peer, None)

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message."""
        return self._reactor.transport.send(peer, header, buffers)

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback later."""
        return self._reactor.after(delay_s, callback)


class Shop:
    """One simulated workshop: it registers entries, and renews them.

    Parameters
    ----------
    reactor : Reactor
        Its way to the factory.
    entries : sequence of Entry
        Those that it speaks for.
    figures : sequence of mapping
        What its heartbeats say of each.
    """

    def __init__(
        self,
        reactor: Reactor,
        entries: Sequence[Entry],
        figures: Sequence[Mapping[str, Any]],
    ) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._figures = dict(zip(self._entries, figures, strict=True))
        config = load()
        self.link = FactoryLink(
            reactor,
            lambda: factories(config, Place.find()),
            config.factory.request_timeout_s,
            on_up=lambda hello: self._leader_found(),
            patience_s=config.factory.leader_timeout_s,
            on_forgotten=self._register,
        )
        self.is_registered = False
        self._heartbeats = 0
        cluster = config.cluster
        self._metronome = Metronome(
            reactor,
            cluster.heartbeat_interval_s,
            cluster.lease_s,
            self._heartbeat,
        )
        # out of step with the other workshops, until a factory says otherwise
        self._metronome.start(random.uniform(0, cluster.heartbeat_interval_s))

    def _leader_found(self) -> None:
        if self.is_registered:
            self._heartbeats = -1
            self._heartbeat()
        else:
            self._register(self._entries)

    def _register(self, ids: Iterable[str]) -> None:
        fields = [self._entries[identity].to_fields() for identity in ids]
        asked = self.link.request("register", {"entries": fields})
        asked.add_done_callback(self._registered)

    def _registered(self, asked: Future[Any]) -> None:
        self.is_registered |= asked.exception() is None

    def _heartbeat(self) -> None:
        """Do as a workshop does."""
        if not self.link.is_up:
            return
        packed = figures.pack(self._figures)
        ids = list(self._figures)
        self._heartbeats += 1
        if self._heartbeats % ANSWERED_HEARTBEATS:
            self.link.tell(frames.pack(kinds.RENEW, ids, packed))
        else:
            arguments = {"ids": ids, "figures": packed}
            self.link.request("renew", arguments).add_done_callback(self._renewed)

    def _renewed(self, asked: Future[Any]) -> None:
        self._metronome.answered(asked)
        if asked.exception() is None and asked.result()["unknown"]:
            self._register(asked.result()["unknown"])


def entries_like(pattern: Mapping[str, Any], number: int) -> list[Entry]:
    """Return the entries of a real workshop under names of their own."""
    shop = uuid.uuid4().hex
    made = []
    for index, fields in enumerate(pattern["entries"]):
        is_shop = fields["kind"] == "workshop"
        type = "" if is_shop else f"Type{(number * 7 + index) % TYPES}"
        entry = Entry.from_fields(
            dict(fields)
            | {
                "id": shop if is_shop else f"{type}-{index}.{uuid.uuid4().hex[:12]}",
                "name": f"node{number:04}" if is_shop else f"{type}-{index}",
                "host": f"node{number:04}",
                "type": type,
                "workshop": "" if is_shop else shop,
            }
        )
        made.append(entry)
    return made


class Crowd:
    """The simulated workshops of this process, and the thread that runs them."""

    def __init__(self, pattern: Mapping[str, Any], first: int, count: int) -> None:
        network = load().network
        transport = Switchboard(
            network.max_message_bytes, network.zmtp_heartbeat_s, network.zmtp_timeout_s
        )
        self._reactor = Reactor(transport, self._event)
        self._by_peer: dict[Peer, Shop] = {}
        self.shops: list[Shop] = []
        for index in range(count):
            open_one = partial(self._open, pattern, first + index)
            self._reactor.after(REGISTER_AT_ONCE_S * index / count, open_one)
        self._count = count
        self._reactor.every(0.1, self._tell)
        self._is_told = False

    def run(self) -> None:
        """Run until the process is ended."""
        self._reactor.run()

    def _open(self, pattern: Mapping[str, Any], number: int) -> None:
        line = Line(self._reactor, self._by_peer)
        entries = entries_like(pattern, number)
        line.shop = Shop(cast(Reactor, line), entries, pattern["figures"])
        self.shops.append(line.shop)

    def _tell(self) -> None:
        """Say once that everybody is registered."""
        here = sum(shop.is_registered for shop in self.shops)
        if here == self._count and not self._is_told:
            self._is_told = True
            print("registered", flush=True)

    def _event(self, event: TransportEvent) -> None:
        shop = self._by_peer.get(event.peer)
        if shop is not None and isinstance(event, PeerLost):
            shop.link.peer_lost(event.peer)
        elif shop is not None and isinstance(event, Received):
            shop.link.received(event.peer, frames.unpack(event.header))


@click.command()
@click.argument("pattern", type=click.Path(path_type=Path, exists=True))
@click.option("--first", type=int, default=0, help="Number of the first workshop.")
@click.option("--count", type=int, required=True, help="How many workshops.")
def main(pattern: Path, first: int, count: int) -> None:
    """Simulate workshops after a PATTERN, until this process is ended."""
    allow_many()
    Crowd(msgpack.unpackb(pattern.read_bytes()), first, count).run()


if __name__ == "__main__":
    main()
