"""Large messages in chunks: what leaves next, and where what comes belongs.

The buffers of a message, laid end to end, are cut into chunks. Each chunk is told from
where to where it reaches, so that both sides know which part of which buffers it is.

Rules that this module keeps:

1. The chunks of a transfer leave in order, each once, and are taken in that order.
2. No more than `WINDOW_BYTES` are under way to one peer: they stand before whatever
   small is sent to it.
3. Of several transfers to one peer every other chunk is one of the oldest, the others
   are of that with least left. So a short one does not wait for a long one, and none
   waits for ever.
4. A peer that says what cannot be (another place, other lengths, more than is allowed)
   is refused with `RemoteProtocolError`, and then nothing has changed.
5. A transfer ends once: when all was taken, or when it is dropped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from opencluster.errors import RemoteProtocolError

CHUNK_BYTES = 2 << 20
"""Size of a chunk: with smaller ones the work for each begins to show (a tenth more
processor time with half of it), and this one is copied in less than a millisecond."""
MAX_CHUNK_BYTES = 16 << 20
"""Largest chunk that is taken. The smallest has `CHUNK_BYTES`, unless it is the last of
its transfer: memory is had in pages, and must not be had for a byte each."""
WINDOW_BYTES = 8 << 20
"""Bytes under way to one peer: less than a tenth of a second on a line of 1 Gbit/s, and
enough for one of 10 Gbit/s on which an answer takes 6 ms."""
MAX_PARTS = 4096
"""Buffers of one message."""
MAX_COMING = 4096
"""Transfers from one peer at a time: all are announced at once that wait to leave."""


class Moved(NamedTuple):
    """How far the large messages of a process are.

    Attributes
    ----------
    sent, to_send : int
        Bytes that the other sides have of what leaves, and all of it.
    came, to_come : int
        Bytes that are here of what comes, and all of it.
    """

    sent: int = 0
    to_send: int = 0
    came: int = 0
    to_come: int = 0


class Span(NamedTuple):
    """A stretch of one buffer."""

    part: int
    start: int
    stop: int


class Cut(NamedTuple):
    """A chunk that is to leave: of which transfer, from where to where."""

    number: int
    start: int
    stop: int
    spans: list[Span]


class _Layout:
    """Buffers laid end to end."""

    __slots__ = ("sizes", "starts", "total")

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.starts = [0, *accumulate(self.sizes)]
        self.total = self.starts.pop()

    def spans(self, start: int, stop: int) -> list[Span]:
        """Return what lies in a stretch of all of them, which is not empty."""
        spans = []
        part = bisect_right(self.starts, start) - 1
        while start < stop:
            offset = start - self.starts[part]
            nbytes = min(self.sizes[part] - offset, stop - start)
            if nbytes:
                spans.append(Span(part, offset, offset + nbytes))
            start += nbytes
            part += 1
        return spans


# --- what leaves ------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Leaving:
    number: int
    layout: _Layout
    sent: int = 0
    taken: int = 0

    @property
    def left(self) -> int:
        return self.layout.total - self.sent


@dataclass(slots=True, eq=False)
class _Line:
    """All transfers to one peer, the oldest first."""

    leaving: dict[int, _Leaving] = field(default_factory=dict)
    under_way: int = 0
    is_turn_of_oldest: bool = True


class Outgoing:
    """The transfers that this side sends."""

    def __init__(self) -> None:
        self._lines: dict[bytes, _Line] = {}
        self._number = 0

    def begin(self, peer: bytes, sizes: Sequence[int]) -> int:
        """Take in a message, and return the number of its transfer.

        Parameters
        ----------
        peer : bytes
            Who gets it.
        sizes : sequence of int
            Bytes of its buffers, not all of them 0.
        """
        self._number += 1
        leaving = _Leaving(self._number, _Layout(sizes))
        self._lines.setdefault(peer, _Line()).leaving[leaving.number] = leaving
        return leaving.number

    def cut(self, peer: bytes) -> Cut | None:
        """Return the next chunk for a peer, which is under way from now on."""
        line = self._lines.get(peer)
        if line is None or line.under_way + CHUNK_BYTES > WINDOW_BYTES:
            return None
        waiting = [leaving for leaving in line.leaving.values() if leaving.left]
        if not waiting:
            return None
        leaving = waiting[0]
        if not line.is_turn_of_oldest:
            leaving = min(waiting, key=lambda one: one.left)
        line.is_turn_of_oldest = not line.is_turn_of_oldest
        start = leaving.sent
        stop = leaving.sent = start + min(CHUNK_BYTES, leaving.left)
        line.under_way += stop - start
        return Cut(leaving.number, start, stop, leaving.layout.spans(start, stop))

    def taken(self, peer: bytes, number: int, position: int) -> bool:
        """Note up to where a transfer was taken; return whether that is all of it.

        Raises
        ------
        RemoteProtocolError
            When so much was not sent.
        """
        line = self._lines[peer]
        leaving = line.leaving[number]
        if position > leaving.sent:
            raise RemoteProtocolError(
                f"{position} bytes were taken of a transfer of which {leaving.sent} "
                "were sent"
            )
        if position > leaving.taken:
            line.under_way -= position - leaving.taken
            leaving.taken = position
        is_over = leaving.taken == leaving.layout.total
        if is_over:
            self.drop(peer, number)
        return is_over

    def knows(self, peer: bytes, number: int) -> bool:
        """Return whether there is such a transfer to a peer."""
        line = self._lines.get(peer)
        return line is not None and number in line.leaving

    def drop(self, peer: bytes, number: int) -> bool:
        """Send no more of a transfer; return whether it was known."""
        if not self.knows(peer, number):
            return False
        line = self._lines[peer]
        leaving = line.leaving.pop(number)
        line.under_way -= leaving.sent - leaving.taken
        if not line.leaving:
            del self._lines[peer]
        return True

    def lost(self, peer: bytes) -> list[int]:
        """Forget a peer; return the numbers of its transfers."""
        line = self._lines.pop(peer, None)
        return [] if line is None else list(line.leaving)

    def under_way(self, peer: bytes) -> int:
        """Return how many bytes were sent to a peer and not taken yet."""
        line = self._lines.get(peer)
        return 0 if line is None else line.under_way

    def peers(self) -> list[bytes]:
        """Return to whom something leaves."""
        return list(self._lines)

    def moved(self) -> tuple[int, int]:
        """Return how many bytes were taken of what leaves, and of how many."""
        # in one step each, as other threads may look, too
        lines = list(self._lines.values())
        all_leaving = [one for line in lines for one in list(line.leaving.values())]
        taken = sum(leaving.taken for leaving in all_leaving)
        return taken, sum(leaving.layout.total for leaving in all_leaving)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        for line in self._lines.values():
            assert line.leaving
            under_way = 0
            for number, leaving in line.leaving.items():
                assert leaving.number == number
                assert 0 <= leaving.taken <= leaving.sent <= leaving.layout.total
                assert leaving.taken < leaving.layout.total
                under_way += leaving.sent - leaving.taken
            assert under_way == line.under_way <= WINDOW_BYTES


# --- what comes -------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Coming:
    layout: _Layout
    came_at: float
    position: int = 0


class Incoming:
    """The transfers that others send here.

    Parameters
    ----------
    max_bytes : int
        Largest buffer that is taken.
    max_coming : int
        Transfers that one peer may have under way.
    """

    def __init__(self, max_bytes: int, max_coming: int) -> None:
        self._max_bytes = max_bytes
        self._max_coming = max_coming
        self._coming: dict[bytes, dict[int, _Coming]] = {}

    def begin(self, now: float, peer: bytes, number: int, sizes: Sequence[int]) -> None:
        """Take in what a peer announces.

        Parameters
        ----------
        now : float
            The time, in seconds.
        peer : bytes
            Who announces it.
        number : int
            By which it calls the transfer.
        sizes : sequence of int
            Bytes of the buffers.

        Raises
        ------
        RemoteProtocolError
            When it is more than is allowed, or makes no sense.
        """
        coming = self._coming.get(peer, {})
        if number in coming:
            raise RemoteProtocolError("a transfer that is announced twice")
        if len(coming) >= self._max_coming:
            raise RemoteProtocolError(
                f"more than {self._max_coming} large messages at a time"
            )
        if not 0 < len(sizes) <= MAX_PARTS or not any(sizes):
            raise RemoteProtocolError(f"a transfer of {len(sizes)} buffers")
        if max(sizes) > self._max_bytes:
            raise RemoteProtocolError(
                f"an array of {max(sizes)} bytes; {self._max_bytes} are allowed by "
                "[network] max_message_bytes"
            )
        self._coming.setdefault(peer, coming)[number] = _Coming(_Layout(sizes), now)

    def came(
        self, now: float, peer: bytes, number: int, start: int, stop: int, frames: int
    ) -> list[Span] | None:
        """Return where the frames of a chunk belong.

        Parameters
        ----------
        now : float
            The time, in seconds.
        peer, number
            The transfer.
        start, stop : int
            From where to where the chunk reaches.
        frames : int
            In how many it came.

        Returns
        -------
        list of Span or None
            One for each frame; ``None`` when there is no such transfer.

        Raises
        ------
        RemoteProtocolError
            When the chunk is not the next one, or of another size than any can be.
        """
        coming = self._coming.get(peer, {}).get(number)
        if coming is None:
            return None
        if start != coming.position or not start < stop <= coming.layout.total:
            raise RemoteProtocolError(
                f"a chunk from {start} to {stop} where one from {coming.position} was "
                f"due, of {coming.layout.total} bytes"
            )
        is_last = stop == coming.layout.total
        if stop - start > MAX_CHUNK_BYTES or not (
            is_last or stop - start >= CHUNK_BYTES
        ):
            raise RemoteProtocolError(f"a chunk of {stop - start} bytes")
        spans = coming.layout.spans(start, stop)
        if len(spans) != frames:
            raise RemoteProtocolError(f"a chunk of {frames} frames, not {len(spans)}")
        coming.position = stop
        coming.came_at = now
        return spans

    def is_whole(self, peer: bytes, number: int) -> bool:
        """Return whether all of a transfer came."""
        coming = self._coming[peer][number]
        return coming.position == coming.layout.total

    def drop(self, peer: bytes, number: int) -> bool:
        """Take no more of a transfer; return whether it was known."""
        transfers = self._coming.get(peer, {})
        if transfers.pop(number, None) is None:
            return False
        if not transfers:
            del self._coming[peer]
        return True

    def lost(self, peer: bytes) -> list[int]:
        """Forget a peer; return the numbers of its transfers."""
        return list(self._coming.pop(peer, ()))

    def knows(self, peer: bytes) -> bool:
        """Return whether something comes from a peer."""
        return peer in self._coming

    def of(self, peer: bytes) -> list[int]:
        """Return the numbers of what comes from a peer."""
        return list(self._coming.get(peer, ()))

    def quiet(self, since: float) -> list[tuple[bytes, int, int]]:
        """Return the transfers of which nothing came since a time.

        Returns
        -------
        list of (bytes, int, int)
            The peer, the number there, and up to where it came.
        """
        return [
            (peer, number, coming.position)
            for peer, transfers in self._coming.items()
            for number, coming in transfers.items()
            if coming.came_at <= since
        ]

    def silent(self, since: float) -> list[bytes]:
        """Return the peers of which something is due, and nothing came since a time."""
        return [
            peer
            for peer, transfers in self._coming.items()
            if all(coming.came_at <= since for coming in transfers.values())
        ]

    def peers(self) -> list[bytes]:
        """Return from whom something comes."""
        return list(self._coming)

    def moved(self) -> tuple[int, int]:
        """Return how many bytes came of what is coming, and of how many."""
        transfers = list(self._coming.values())
        coming = [one for some in transfers for one in list(some.values())]
        came = sum(one.position for one in coming)
        return came, sum(one.layout.total for one in coming)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        for transfers in self._coming.values():
            assert 0 < len(transfers) <= self._max_coming
            for coming in transfers.values():
                assert 0 <= coming.position <= coming.layout.total
