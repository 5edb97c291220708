"""What a manager sends to its workers: pieces, alone and in bundles, and orders.

For use while holding the reactor. Must not decide who gets what.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from opencluster.core.dispatch import Piece
from opencluster.engines.bonds import Bonds
from opencluster.engines.directory import Directory
from opencluster.engines.tickets import Ticket
from opencluster.engines.traces import accompany
from opencluster.net.transport import Transport
from opencluster.tracing import Tracing
from opencluster.wire import frames, kinds
from opencluster.wire.batches import Row, batches

log = logging.getLogger(__name__)


class Sending:
    """Sends what a dispatcher decides to the workers of one engine.

    Parameters
    ----------
    transport : Transport
        The connections.
    directory : Directory
        Which of them leads to whom.
    tickets : mapping of int to Ticket
        All pieces of the engine that are not over.
    bonds : Bonds
        What ties some of them to values.
    tracing : Tracing or None
        What traces them, if anything does.
    """

    def __init__(
        self,
        transport: Transport,
        directory: Directory,
        tickets: Mapping[int, Ticket],
        bonds: Bonds,
        tracing: Tracing | None,
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._tickets = tickets
        self._bonds = bonds
        self._tracing = tracing

    def pieces(self, worker: str, pieces: Sequence[Piece]) -> None:
        """Send pieces, in as few messages as can be."""
        for rows, buffers in batches(map(self._row, pieces)):
            fields: list[Any] = [rows, worker]
            if self._bonds or self._tracing is not None:
                extras = self._bonds.extras(worker, (row[0] for row in rows))
                if self._tracing is not None:
                    tickets = {row[0]: self._tickets[row[0]] for row in rows}
                    accompany(self._tracing, worker, tickets, extras)
                fields.append(extras)
            self._send(worker, frames.pack(kinds.PIECES, *fields), buffers)

    def order(self, worker: str, kind: str, numbers: Sequence[int]) -> None:
        """Send an order about pieces: to give them back, or to stop them."""
        self._send(worker, frames.pack(kind, numbers))

    def _row(self, piece: Piece) -> Row:
        if piece.count > 1:
            return self._row_of_bundle(piece)
        ticket = self._tickets[piece.id]
        payload, buffers = ticket.payload, ticket.buffers
        if ticket.job is not None:
            ticket.job.statistics.bytes_sent += ticket.nbytes
        row = [piece.id, piece.urgency, piece.timeout_s, payload, len(buffers)]
        return row, len(payload), buffers

    def _row_of_bundle(self, piece: Piece) -> Row:
        members: list[Any] = []
        buffers: list[Any] = []
        nbytes = 0
        for number in piece.numbers:
            ticket = self._tickets[number]
            payload, own = ticket.payload, ticket.buffers
            if own:
                members.append([payload, len(own)])
                buffers += own
            else:
                members.append(payload)
            nbytes += len(payload)
            if ticket.job is not None:
                ticket.job.statistics.bytes_sent += ticket.nbytes
        row = [piece.id, piece.urgency, piece.timeout_s, members, len(buffers)]
        return row, nbytes, buffers

    def _send(self, worker: str, header: bytes, buffers: Sequence[Any] = ()) -> None:
        contact = self._directory.contacts.get(worker)
        if contact is None or not self._transport.send(contact.peer, header, buffers):
            # the loss itself is on its way as an event of its own
            log.debug("could not send to %s", worker)
