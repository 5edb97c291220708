"""Pieces that were submitted, on their way to the dispatcher.

Short pieces that are run alike become bundles here; those that are tied to values wait
for them first. Must not know who gets them, nor what comes of them.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

from opencluster.core.dispatch import Dispatch, Effect, Piece
from opencluster.engines.base import Options
from opencluster.engines.bonds import Bonds
from opencluster.engines.tickets import BUNDLE_BYTES, Ticket, closed, piece_of


class Intake:
    """Where the threads of a program leave pieces for the one that has the sockets.

    Parameters
    ----------
    tickets : dict of int to Ticket
        All pieces of the engine that are not over; those that are taken in are added.
    dispatch : Dispatch
        Gets the pieces that can run.
    bonds : Bonds
        Gets those that are tied to values.
    do : callable
        Carries out the dispatcher's effects.
    """

    def __init__(
        self,
        tickets: dict[int, Ticket],
        dispatch: Dispatch,
        bonds: Bonds,
        do: Callable[[Iterable[Effect]], None],
    ) -> None:
        self._tickets = tickets
        self._dispatch = dispatch
        self._bonds = bonds
        self._do = do
        self._incoming: deque[tuple[int, str, Ticket]] = deque()

    def __len__(self) -> int:
        return len(self._incoming)

    def add(self, type: str, numbers: Sequence[int], tickets: Sequence[Ticket]) -> None:
        """Leave pieces of a type here; from any thread."""
        self._incoming.extend(zip(numbers, repeat(type), tickets))

    def refuse(self, cause: BaseException | None = None) -> None:
        """End what came too late to be taken in; from any thread."""
        while self._incoming:
            with contextlib.suppress(IndexError):
                number, _, ticket = self._incoming.popleft()
                ticket.done(number, closed(cause))

    def take_in(self) -> None:
        """Hand on what was left here; for use while holding the reactor."""
        incoming, tickets = self._incoming, self._tickets
        pieces: list[Piece] = []
        last: Piece | None = None
        bundled: Options | None = None
        room = room_bytes = 0
        while incoming:
            number, type, ticket = incoming.popleft()
            tickets[number] = ticket
            options, job = ticket.options, ticket.job
            if job is not None:
                job.statistics.pieces_submitted += 1
            if room > 0 and last is not None and type == last.type:
                # the pieces of a bundle have one manner of being run, and follow
                # each other
                is_like = options is bundled and number == last.id + last.count
                if is_like and ticket.nbytes <= room_bytes and ticket.is_small:
                    last.count += 1
                    room -= 1
                    room_bytes -= ticket.nbytes
                    continue
            if ticket.refs or options.keep:
                data = (ticket.payload, ticket.buffers)
                piece = piece_of(number, type, options, job)
                self._bonds.tie(piece, ticket.refs, options, data)
                continue
            last = piece_of(number, type, options, job)
            pieces.append(last)
            bundled, room = options, 0
            if incoming and options.may_be_bundled and ticket.is_small:
                room = self._dispatch.bundle_size(type) - 1
                room_bytes = BUNDLE_BYTES - ticket.nbytes
        if pieces:
            self._do(self._dispatch.submit(time.monotonic(), pieces))
