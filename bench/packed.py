"""Many workers in one process: ``python -m bench.packed COUNT``.

Each is all that a worker is, with sockets and an entry in the registry of its own, but
a thread instead of a process: a thousand of them fit into a computer that has no room
for a thousand Python interpreters. A manager cannot tell them from processes. The
process speaks for them all to the factory, as a workshop does.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from typing import Any

import click

from bench.crowd import Shop
from bench.workers import TYPE, EchoWorker
from opencluster.config import load
from opencluster.core.entries import Entry
from opencluster.net.reactor import Reactor
from opencluster.net.transport import (
    Peer,
    PeerLost,
    Received,
    TransportCounts,
    TransportEvent,
)
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.registration import Registration
from opencluster.wire import frames
from opencluster.worker import Runner


class PassedOn:
    """Hands the entry of a worker to whoever speaks for it."""

    def __init__(self, announced: Callable[[Entry], None]) -> None:
        self.announce = announced

    def draining(self) -> None:
        """Say nothing: the workers end with their process."""

    def withdraw(self) -> None:
        """Say nothing."""

    def received(self, peer: Peer, fields: list[Any]) -> bool:
        """Expect nothing."""
        return False

    def peer_lost(self, peer: Peer) -> None:
        """Depend on no connection."""

    def counted(self, counts: TransportCounts) -> None:
        """Keep no count."""


class PackedRunner(Runner):
    """Runs the pieces of one worker of many in a thread."""

    def __init__(self, announced: Callable[[Entry], None]) -> None:
        self._announced = announced
        super().__init__(EchoWorker(), TYPE)

    def _registration(self, reactor: Reactor) -> Registration:
        return PassedOn(self._announced)

    def _handle_signals(self) -> None:
        """Leave them to the process, which just ends."""


class Pack:
    """The workers of this process, and the link by which they are registered.

    Parameters
    ----------
    count : int
        How many workers.
    """

    def __init__(self, count: int) -> None:
        network = load().network
        transport = ZmqTransport(
            network.max_message_bytes, network.zmtp_heartbeat_s, network.zmtp_timeout_s
        )
        self._reactor = Reactor(transport, self._event)
        self._entries: list[Entry] = []
        self._shop: Shop | None = None
        self._count = count

    def run(self) -> None:
        """Run the workers until this process is ended."""
        for _ in range(self._count):
            runner = PackedRunner(self._announced)
            threading.Thread(target=runner.run, args=("*", 0), daemon=True).start()
        self._reactor.run()

    def _announced(self, entry: Entry) -> None:
        self._reactor.post(lambda: self._register(entry))

    def _register(self, entry: Entry) -> None:
        self._entries.append(entry)
        if len(self._entries) == self._count:
            figures: list[dict[str, Any]] = [{} for _ in self._entries]
            self._shop = Shop(self._reactor, self._entries, figures)

    def _event(self, event: TransportEvent) -> None:
        if self._shop is None:
            return
        if isinstance(event, PeerLost):
            self._shop.link.peer_lost(event.peer)
        elif isinstance(event, Received):
            self._shop.link.received(event.peer, frames.unpack(event.header))


def allow_many_files() -> None:
    """Let this process open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@click.command()
@click.argument("count", type=int)
def main(count: int) -> None:
    """Run COUNT workers until this process is ended."""
    allow_many_files()
    Pack(count).run()


if __name__ == "__main__":
    main()
