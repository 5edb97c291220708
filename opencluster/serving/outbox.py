"""What leaves for managers: outcomes of pieces, many to a message, and pieces back.

Must not know what a piece is, nor who performs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from opencluster.net.transport import Peer, Transport
from opencluster.wire import frames, kinds
from opencluster.wire.batches import batches, size_of_members


class Answer(NamedTuple):
    """The outcome of a piece, encoded.

    Attributes
    ----------
    status : str
        ``done``, ``kept``, ``missing``, ``failed``, ``interrupted``, ``timeout``,
        ``cancelled``, ``cut short`` or ``drained``; of a bundle ``bundle``, or ``cut``
        if the piece that follows runs alone.
    payload, buffers
        The encoded result or failure; of a bundle, what came of its pieces.
    elapsed_s : float
        How long it ran.
    """

    status: str
    payload: Any
    buffers: Sequence[Any]
    elapsed_s: float


class Outbox:
    """What a station has for managers; but for `put`, for use in the I/O thread.

    Parameters
    ----------
    transport : Transport
        The connections.
    on_lost : callable
        Called with a manager that is not there any more.
    """

    def __init__(self, transport: Transport, on_lost: Callable[[Peer], None]) -> None:
        self._transport = transport
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._answers: dict[Peer, list[tuple[int, Answer]]] = {}
        self._returns: dict[Peer, list[int]] = {}

    def put(self, peer: Peer, piece: int, answer: Answer) -> bool:
        """Add the outcome of a piece, from any thread; tell whether it is the first.

        Whoever puts the first sees to it that `flush` is called.
        """
        with self._lock:
            is_first = not self._answers
            self._answers.setdefault(peer, []).append((piece, answer))
        return is_first

    def give_back(self, peer: Peer, *pieces: int) -> None:
        """Add pieces that were not begun."""
        self._returns.setdefault(peer, []).extend(pieces)

    def send(self, peer: Peer, header: bytes) -> None:
        """Send a message now."""
        self.reaches(peer, header)

    def reaches(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Send a message now; ``False`` means that the manager is gone."""
        is_there = self._transport.send(peer, header, buffers)
        if not is_there:
            self._on_lost(peer)
        return is_there

    def flush(self) -> None:
        """Send what was added."""
        if self._answers:
            with self._lock:
                waiting, self._answers = self._answers, {}
            for peer, answers in waiting.items():
                self._send_answers(peer, answers)
        if self._returns:
            returns, self._returns = self._returns, {}
            for peer, pieces in returns.items():
                self.send(peer, frames.pack(kinds.RETURNED, pieces))

    def _send_answers(self, peer: Peer, answers: list[tuple[int, Answer]]) -> None:
        rows = (
            (
                # clocks of two cores may differ by a hair, and time that is negative
                # is refused with all that it came with
                [piece, a.status, a.payload, len(a.buffers), max(0.0, a.elapsed_s)],
                size_of_members(a.payload)
                if isinstance(a.payload, list)
                else len(a.payload),
                a.buffers,
            )
            for piece, a in answers
        )
        for fields, buffers in batches(rows):
            header = frames.pack(kinds.RESULTS, fields)
            if not self.reaches(peer, header, buffers):
                return
