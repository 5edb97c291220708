"""Many workers in one process: ``python -m bench.packed COUNT``.

Each has what a manager sees of a worker: a socket and an entry in the registry of its
own, and pieces that it performs and answers as a worker does. What it has not is a
thread: one loop serves them all, so that a thousand fit into a computer that has no
room for a thousand Python interpreters, and what is measured is the manager and not
how the kernel shares two cores among them. The process speaks for them all to the
factory, as a workshop does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from bench.crowd import Shop
from bench.workers import TYPE, EchoWorker
from opencluster.config import load
from opencluster.core.entries import Entry
from opencluster.net.descriptors import allow_many
from opencluster.net.joined import LANE_SCHEME
from opencluster.net.lane import LaneTransport
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Peer, PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.node.host import host_id, host_name
from opencluster.place import Place
from opencluster.wire import codec, frames, kinds
from opencluster.wire.batches import batches, members_in, pieces_in


class PackedWorker:
    """One worker of many: it performs what comes at once.

    Parameters
    ----------
    number : int
        Which one of the process it is.
    folder : Path
        Where its socket lies.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self._worker = EchoWorker()
        self._lane = LaneTransport()
        name = f"w-{os.getpid()}-{number}"
        endpoint = self._lane.listen(f"{LANE_SCHEME}{folder / name}.lane")
        self.entry = Entry(
            id=name,
            kind="worker",
            type=TYPE,
            name=name,
            host=host_name(),
            host_id=host_id(),
            pid=os.getpid(),
            endpoints=(endpoint,),
        )

    def watch(self, watch: Callable[[int, Callable[[], None]], None]) -> None:
        """Have it called whenever its socket has input."""
        for pollable in self._lane.pollables():
            watch(pollable.fileno(), self._serve)

    def _serve(self) -> None:
        for event in self._lane.receive():
            if isinstance(event, Received):
                fields = frames.unpack(event.header)
                # orders to stop come too late: what came before is answered
                if fields[0] == kinds.PIECES:
                    self._perform(event.peer, fields[1], event.buffers)

    def _perform(self, peer: Peer, rows: Any, buffers: Sequence[Any]) -> None:
        answers = []
        for piece, own in pieces_in(rows, buffers):
            started = time.monotonic()
            results: bytes | list[bytes]
            if isinstance(piece.payload, list):
                status = "bundle"
                members = members_in(piece.payload, own)
                results = [self._result(*member) for member in members]
                size = sum(map(len, results))
            else:
                status, results = "done", self._result(piece.payload, own)
                size = len(results)
            elapsed_s = time.monotonic() - started
            row = [piece.number, status, results, 0, elapsed_s]
            answers.append((row, size, ()))
        for fields, _ in batches(answers):
            self._lane.send(peer, frames.pack(kinds.RESULTS, fields))

    def _result(self, payload: bytes, buffers: Sequence[Any]) -> bytes:
        """Return the encoded result of a piece, which has no arrays."""
        result, _ = codec.encode(self._worker.perform(codec.decode(payload, buffers)))
        return result


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
        place = Place.find()
        workers = [PackedWorker(number, place.sockets) for number in range(count)]
        for worker in workers:
            worker.watch(self._reactor.watch)
        entries = [worker.entry for worker in workers]
        figures: list[dict[str, Any]] = [{} for _ in entries]
        self._shop = Shop(self._reactor, entries, figures)

    def run(self) -> None:
        """Run the workers until this process is ended."""
        self._reactor.run()

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self._shop.link.peer_lost(event.peer)
        elif isinstance(event, Received):
            self._shop.link.received(event.peer, frames.unpack(event.header))


@click.command()
@click.argument("count", type=int)
def main(count: int) -> None:
    """Run COUNT workers until this process is ended."""
    allow_many()
    Pack(count).run()


if __name__ == "__main__":
    main()
