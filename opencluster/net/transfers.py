"""Large messages over a transport that carries small ones: in chunks, both ways.

This shell joins `core.chunks` to a transport. A chunk that leaves is a view of the
sender's own buffers. One that comes is copied to where it belongs, into memory that is
taken when the first chunk of a buffer is there. So neither side has a message twice.

Messages to one peer keep their order, but for this: a small one does not wait for large
ones that were sent before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core.chunks import Incoming, Moved, Outgoing
from opencluster.core.payoff import AS_IT_IS
from opencluster.core.roles import Credential
from opencluster.errors import RemoteProtocolError
from opencluster.net.compression import Compression
from opencluster.net.cutting import joined
from opencluster.net.rejections import Rejections
from opencluster.net.room import room
from opencluster.net.transport import Peer, Received, TransportCounts
from opencluster.wire.transfers import (
    BEGUN,
    CEASED,
    CHUNK,
    FAILED,
    REFUSED,
    TAKEN,
    THERE,
    UNWANTED,
    WHOLE,
    Head,
    pack,
    pack_sizes,
    unpack,
    unpack_sizes,
)

log = logging.getLogger(__name__)

LARGE_BYTES = 8 << 20
"""Buffers of a message, all together, up to which they travel with it in one."""
TICK_S = 1.0
"""How often it is looked after peers that say nothing."""
GIVE_UP_S = 3600.0
"""Silence after which transfers count as failed though their sender is still connected:
code that keeps the interpreter to itself may take long."""
TOLD_S = 10.0
"""How often it is told how far transfers are that last."""


@dataclass(slots=True, eq=False)
class _Gathered:
    """A message while it comes."""

    header: bytes
    sizes: list[int]
    buffers: list[memoryview]

    def part(self, index: int) -> memoryview:
        """Return the memory of a buffer."""
        if not self.buffers[index].nbytes:
            self.buffers[index] = room(self.sizes[index])
        return self.buffers[index]


class Transfers:
    """The large messages of one transport.

    Parameters
    ----------
    send : callable
        Sends a small message to a peer, and returns whether it is there.
    on_broken : callable
        Called with a peer with which a transfer failed, so that a message is lost.
    counts : TransportCounts
        Where is counted what should not have come in.
    max_bytes : int
        Largest buffer that is taken.
    max_coming : int
        Large messages that one peer may send at a time.
    compression : str
        ``none``, ``lz4``, ``zstd`` or ``auto``.
    """

    def __init__(
        self,
        send: Callable[[Peer, bytes, Sequence[Any]], bool],
        on_broken: Callable[[Peer], None],
        counts: TransportCounts,
        max_bytes: int,
        max_coming: int,
        compression: str = "none",
    ) -> None:
        self._send = send
        self._on_broken = on_broken
        self._rejections = Rejections(counts, log)
        self._outgoing = Outgoing()
        self._incoming = Incoming(max_bytes, max_coming)
        self._compression = Compression(compression)
        self._leaving: dict[tuple[Peer, int], list[memoryview]] = {}
        self._gathered: dict[tuple[Peer, int], _Gathered] = {}
        self._told_at = 0.0

    # --- what leaves ---------------------------------------------------------

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any]) -> bool:
        """Begin to send a large message; ``False`` means that the peer is gone.

        The memory of the buffers must stay as it is until all of it was taken.
        """
        parts = [memoryview(buffer).cast("B") for buffer in buffers]
        sizes = [len(part) for part in parts]
        if peer not in self._outgoing.peers():
            self._compression.begin(peer)
        number = self._outgoing.begin(peer, sizes)
        self._leaving[peer, number] = parts
        head = pack(Head(BEGUN, number))
        if not self._send(peer, head, [header, pack_sizes(sizes)]):
            self.lost(peer)
            return False
        log.debug("transfer %d of %d bytes begins", number, sum(sizes))
        return self._go_on(peer)

    def _go_on(self, peer: Peer) -> bool:
        """Send a peer as many chunks as may be under way."""
        while (cut := self._outgoing.cut(peer)) is not None:
            parts = self._leaving[peer, cut.number]
            frames: list[Any]
            frames = [parts[part][start:stop] for part, start, stop in cut.spans]
            code = AS_IT_IS
            if len(frames) == 1:
                code, frames[0] = self._compression.packed(peer, frames[0])
            nbytes = cut.stop - cut.start
            head = Head(CHUNK, cut.number, cut.start, nbytes, code)
            if not self._send(peer, pack(head), frames):
                self.lost(peer)
                return False
        return True

    # --- what comes ----------------------------------------------------------

    def received(
        self, peer: Peer, frames: Sequence[Any], who: Credential
    ) -> Received | None:
        """Take in a message about a transfer; return a large one if it is whole now."""
        head = Head(THERE)
        try:
            head = unpack(frames[0])
            return self._take(peer, head, frames[1:], who)
        except RemoteProtocolError as error:
            self._rejections.note(error)
            if head.kind in (BEGUN, CHUNK):
                self._refuse(peer, head.number, FAILED)
            return None

    def _take(
        self, peer: Peer, head: Head, frames: Sequence[Any], who: Credential
    ) -> Received | None:
        key = (peer, head.number)
        if head.kind == CHUNK:
            return self._take_chunk(peer, head, frames, who)
        if head.kind == TAKEN:
            if not self._outgoing.knows(*key):
                self._tell(peer, Head(CEASED, head.number))
                return None
            before = self._outgoing.under_way(peer)
            if self._outgoing.taken(*key, head.place):
                del self._leaving[key]
            taken = before - self._outgoing.under_way(peer)
            self._compression.taken(peer, taken, head.code)
            self._go_on(peer)
        elif head.kind == BEGUN:
            if len(frames) != len(("header", "sizes")):
                raise RemoteProtocolError("a transfer that announces nothing")
            header, table = frames
            sizes = unpack_sizes(table)
            self._incoming.begin(_now(), *key, sizes)
            self._gathered[key] = _Gathered(bytes(header), sizes, [_EMPTY] * len(sizes))
        elif head.kind == WHOLE:
            return joined(peer, frames, who)
        elif head.kind == CEASED:
            self._drop(peer, head.number)
        elif head.kind == REFUSED:
            is_known = self._outgoing.drop(*key)
            self._leaving.pop(key, None)
            if is_known and head.code != UNWANTED:
                self._on_broken(peer)
            self._go_on(peer)
        return None

    def _take_chunk(
        self, peer: Peer, head: Head, frames: Sequence[Any], who: Credential
    ) -> Received | None:
        number, start = head.number, head.place
        stop = start + head.nbytes
        spans = self._incoming.came(_now(), peer, number, start, stop, len(frames))
        if spans is None:
            # one that was given up here, or before the connection broke
            self._tell(peer, Head(REFUSED, number, code=UNWANTED))
            return None
        if head.code != AS_IT_IS:
            if len(frames) != 1:
                raise RemoteProtocolError(f"{len(frames)} frames in another form")
            whole = self._compression.unpacked(head.code, frames[0], head.nbytes)
            frames = [whole]
        gathered = self._gathered[peer, number]
        for (part, begin, end), frame in zip(spans, frames, strict=True):
            if len(frame) != end - begin:
                raise RemoteProtocolError(
                    f"{len(frame)} bytes of a chunk where {end - begin} were due"
                )
            gathered.part(part)[begin:end] = frame
        self._take_note(peer, number, stop)
        if not self._incoming.is_whole(peer, number):
            return None
        self._drop(peer, number)
        buffers = [buffer.toreadonly() for buffer in gathered.buffers]
        return Received(peer, gathered.header, buffers, who)

    def coming(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Return what comes from a peer: numbers and headers of the messages."""
        numbers = self._incoming.of(peer)
        return [(number, self._gathered[peer, number].header) for number in numbers]

    def is_coming(self, peer: Peer) -> bool:
        """Return whether a large message comes from a peer."""
        return self._incoming.knows(peer)

    def refuse(self, peer: Peer, number: int) -> None:
        """Take no more of a large message that nobody needs."""
        self._refuse(peer, number, UNWANTED)

    # --- what breaks off -----------------------------------------------------

    def lost(self, peer: Peer) -> None:
        """Note that a connection broke."""
        for number in self._outgoing.lost(peer):
            del self._leaving[peer, number]
        for number in self._incoming.lost(peer):
            del self._gathered[peer, number]

    def tick(self) -> None:
        """Find out who is gone, and give up what does not go on."""
        now = _now()
        for peer in self._outgoing.peers():
            if not self._tell(peer, Head(THERE)):
                self.lost(peer)
        for peer, number, position in self._incoming.quiet(now - TICK_S):
            # whoever knows nothing of it any more says so
            if not self._take_note(peer, number, position):
                self.lost(peer)
        for peer in self._incoming.silent(now - GIVE_UP_S):
            for number in self._incoming.of(peer):
                self._refuse(peer, number, FAILED)
            self._on_broken(peer)
        if now - self._told_at >= TOLD_S and not self.is_idle:
            self._told_at = now
            log.info(
                "large messages: sent %d of %d bytes, received %d of %d", *self.moved
            )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._leaving and not self._gathered

    @property
    def is_leaving(self) -> bool:
        """Whether something is still to be sent, or not taken yet."""
        return bool(self._leaving)

    @property
    def moved(self) -> Moved:
        """How far what is under way has come."""
        return Moved(*self._outgoing.moved(), *self._incoming.moved())

    # --- inside --------------------------------------------------------------

    def _tell(self, peer: Peer, head: Head) -> bool:
        return self._send(peer, pack(head), ())

    def _take_note(self, peer: Peer, number: int, position: int) -> bool:
        """Tell a peer up to where its message is here."""
        understood = self._compression.understood
        return self._tell(peer, Head(TAKEN, number, position, code=understood))

    def _drop(self, peer: Peer, number: int) -> None:
        if self._incoming.drop(peer, number):
            del self._gathered[peer, number]

    def _refuse(self, peer: Peer, number: int, code: int) -> None:
        self._drop(peer, number)
        self._tell(peer, Head(REFUSED, number, code=code))


_EMPTY = memoryview(b"")


def _now() -> float:
    return time.monotonic()
