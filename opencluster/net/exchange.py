"""Values between those who hold them and those who need them, over a transport.

This shell joins `core.fetching` to the net, and answers others who fetch from here. A
value is a list of parts: its encoded data, then its buffers. It is sent from where it
lies and arrives where it stays, so that neither side has it twice. For use while
holding the reactor.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opencluster.core.fetching import (
    MAX_VALUE_BYTES,
    NOT_REACHED,
    NOT_THERE,
    PART_BYTES,
    Allocate,
    Arrived,
    AskPart,
    AskValue,
    Effect,
    Failed,
    Fetching,
    Fill,
    Source,
)
from opencluster.errors import OpenClusterError, RemoteProtocolError
from opencluster.net.reach import here
from opencluster.net.transport import Peer, Transport
from opencluster.references import Holder
from opencluster.wire import frames, kinds
from opencluster.wire.refs import id_in, size_in

Parts = Sequence[Any]
"""A value: its data, then its buffers, all bytes-like."""

KINDS = frozenset({kinds.FETCH, kinds.PART, kinds.VALUE, kinds.CHUNK, kinds.LOST})
"""What messages this takes."""
INLINE_BYTES = 1 << 16
"""Data up to this size travels in the header."""
MAPPED_BYTES = 1 << 20
"""From this size on memory is mapped: it is zero without having been written to."""
IDLE_S = 60.0
"""After which a connection to a source is closed that was opened for this alone."""


class Exchange:
    """Fetches values from others, and sends them those that lie here.

    Parameters
    ----------
    transport : Transport
        What carries the messages.
    here : str
        What tells this computer: see `Holder.host_id`.
    parts_of : callable
        Given an identity, returns the value that lies here, or ``None``.
    reach : callable
        Given a holder, returns the connection to it, which it opens if need be.
    leave : callable
        Given a holder and a connection to it, closes that if nobody else uses it.
    on_arrived : callable
        Called with identity and parts of a value that was wanted.
    on_failed : callable
        Called with the identity of one that cannot be had, why, and which holders said
        themselves that they do not have it.
    max_bytes : int
        Largest buffer of a message; what is larger goes in parts.
    """

    def __init__(
        self,
        transport: Transport,
        here: str,
        parts_of: Callable[[bytes], Parts | None],
        reach: Callable[[Holder], Peer],
        leave: Callable[[Holder, Peer], None],
        on_arrived: Callable[[bytes, Parts], None],
        on_failed: Callable[[bytes, str, list[str]], None],
        max_bytes: int = MAX_VALUE_BYTES,
    ) -> None:
        self._transport = transport
        self._here = here
        self._parts_of = parts_of
        self._reach = reach
        self._leave = leave
        self._on_arrived = on_arrived
        self._on_failed = on_failed
        self._max_bytes = max_bytes
        self._fetching = Fetching()
        self._memory: dict[bytes, list[Any]] = {}
        self._holders: dict[str, Holder] = {}
        self._peers: dict[str, Peer] = {}
        self._names: dict[Peer, str] = {}
        self._connected: set[Peer] = set()
        self._used_at: dict[str, float] = {}
        self.received_bytes = 0
        self.sent_bytes = 0

    # --- fetching ------------------------------------------------------------

    def want(self, id: bytes, nbytes: int, holders: Iterable[Holder]) -> None:
        """Fetch a value, those on this computer being asked first."""
        sources = []
        for holder in holders:
            self._holders[holder.worker] = holder
            sources.append(Source(holder.worker, holder.host_id == self._here))
        sources.sort(key=lambda source: not source.is_near)
        self._do(self._fetching.want(_now(), id, nbytes, sources))

    def want_from(self, peer: Peer, id: bytes, nbytes: int) -> None:
        """Fetch a value from somebody who is connected."""
        name = self._names.setdefault(peer, f"peer {peer.hex()}")
        self._peers[name] = peer
        self._connected.add(peer)
        self._do(self._fetching.want(_now(), id, nbytes, [Source(name, False)]))

    def forget(self, id: bytes) -> None:
        """Fetch a value no longer."""
        self._memory.pop(id, None)
        self._do(self._fetching.forget(_now(), id))

    # --- what happens --------------------------------------------------------

    def received(self, peer: Peer, fields: Sequence[Any], buffers: Parts) -> None:
        """Take in a message of one of the `KINDS`.

        Raises
        ------
        RemoteProtocolError, ValueError
            When it is malformed.
        """
        kind = fields[0]
        if kind == kinds.FETCH:
            _, number, id, most = fields
            self._send_value(peer, size_in(number), id_in(id), size_in(most))
        elif kind == kinds.PART:
            _, number, id, part, offset, nbytes = fields
            span = (size_in(part), size_in(offset), size_in(nbytes))
            self._send_part(peer, size_in(number), id_in(id), *span)
        else:
            self._answered(peer, kind, fields, buffers)

    def connected(self, peer: Peer) -> None:
        """Note that a connection stands that this side opened."""
        self._connected.add(peer)
        name = self._names.get(peer)
        if name is not None:
            self._fetching.source_connected(name)

    def lost(self, peer: Peer) -> None:
        """Note that a connection broke."""
        self._connected.discard(peer)
        name = self._names.pop(peer, None)
        if name is not None:
            self._peers.pop(name, None)
            self._used_at.pop(name, None)
            why = "the connection to it broke"
            self._do(self._fetching.source_lost(_now(), name, why))

    def tick(self) -> None:
        """Give up sources that are not reached, and close idle connections."""
        now = _now()
        self._do(self._fetching.tick(now))
        idle = [name for name, at in self._used_at.items() if now - at >= IDLE_S]
        for name in idle:
            del self._used_at[name]
            peer = self._peers.pop(name, None)
            holder = self._holders.pop(name, None)
            if peer is not None and holder is not None:
                self._names.pop(peer, None)
                self._leave(holder, peer)

    # --- asking --------------------------------------------------------------

    def _answered(
        self, peer: Peer, kind: str, fields: Sequence[Any], buffers: Parts
    ) -> None:
        number = size_in(fields[1])
        name = self._names.get(peer, "")
        if kind == kinds.LOST:
            self._do(self._fetching.value_lost(_now(), name, number))
        elif kind == kinds.CHUNK:
            (buffer,) = buffers
            chunk = memoryview(buffer).cast("B")
            effects = self._fetching.chunk_came(_now(), name, number, len(chunk))
            self._do(effects, [chunk])
        else:
            _, _, data, sizes = fields
            parts = parts_in(data, sizes, buffers)
            is_whole = parts is not None
            effects = self._fetching.value_came(_now(), name, number, sizes, is_whole)
            self._do(effects, parts or ())
        if name in self._used_at:
            self._used_at[name] = _now()

    def _do(self, effects: Iterable[Effect], came: Parts = ()) -> None:
        queue = deque(effects)
        while queue:
            match queue.popleft():
                case AskValue(source, number, id, most):
                    header = frames.pack(kinds.FETCH, number, id, most)
                    queue.extend(self._ask(source, header))
                case AskPart(source, number, id, part, offset, nbytes):
                    header = frames.pack(kinds.PART, number, id, part, offset, nbytes)
                    queue.extend(self._ask(source, header))
                case Allocate(id, sizes):
                    queue.extend(self._allocate(id, sizes))
                case Fill(id, part, offset):
                    (chunk,) = came
                    self._memory[id][part][offset : offset + len(chunk)] = chunk
                    self.received_bytes += len(chunk)
                case Arrived(id, is_filled):
                    self._arrived(id, came, is_filled)
                case Failed(id, reasons):
                    self._memory.pop(id, None)
                    lost_at = [name for name, why in reasons if why == NOT_THERE]
                    self._on_failed(id, self._told(reasons), lost_at)

    def _allocate(self, id: bytes, sizes: Sequence[int]) -> list[Effect]:
        try:
            self._memory[id] = [_memory_of(size) for size in sizes]
        except (OSError, MemoryError):
            self._on_failed(id, f"there is no memory for its {sum(sizes)} bytes", [])
            return self._fetching.forget(_now(), id)
        return []

    def _ask(self, source: str, header: bytes) -> list[Effect]:
        why = "the connection to it broke"
        peer = self._peers.get(source)
        try:
            if peer is None:
                holder = self._holders.get(source)
                if holder is None:
                    return self._fetching.source_lost(_now(), source, why)
                peer = self._reach(holder)
                self._peers[source] = peer
                self._names[peer] = source
            self._used_at[source] = _now()
            if peer in self._connected:
                self._fetching.source_connected(source)
            if self._transport.send(peer, header):
                return []
        except OpenClusterError as error:
            why = str(error)
        return self._fetching.source_lost(_now(), source, why)

    def _arrived(self, id: bytes, came: Parts, is_filled: bool) -> None:
        if is_filled:
            parts = [memoryview(part).toreadonly() for part in self._memory.pop(id)]
            self._on_arrived(id, parts)
            return
        self._memory.pop(id, None)
        self.received_bytes += nbytes_of(came)
        self._on_arrived(id, came)

    def _told(self, reasons: Iterable[tuple[str, str]]) -> str:
        told = []
        for name, why in reasons:
            holder = self._holders.get(name)
            if holder is not None and why == NOT_REACHED:
                ways = [e for e in holder.endpoints if e.startswith("tcp://")]
                if ways and holder.host_id != self._here:
                    why = f"{here(ways[0])} did not reach it at {ways[0]} in time"
            told.append(f"{holder.name if holder else name}: {why}")
        return "; ".join(told) or "nobody is known to hold it"

    # --- answering -----------------------------------------------------------

    def _send_value(self, peer: Peer, number: int, id: bytes, most: int) -> None:
        parts = self._parts_of(id)
        if parts is None:
            self._transport.send(peer, frames.pack(kinds.LOST, number))
            return
        sizes = sizes_of(parts)
        if sum(sizes) > most or max(sizes) > self._max_bytes:
            header = frames.pack(kinds.VALUE, number, None, sizes)
            self._transport.send(peer, header)
            return
        data, buffers = data_and_buffers(parts)
        header = frames.pack(kinds.VALUE, number, data, sizes)
        if self._transport.send(peer, header, buffers):
            self.sent_bytes += sum(sizes)

    def _send_part(
        self, peer: Peer, number: int, id: bytes, part: int, offset: int, nbytes: int
    ) -> None:
        parts = self._parts_of(id)
        if parts is None:
            self._transport.send(peer, frames.pack(kinds.LOST, number))
            return
        if part >= len(parts) or nbytes > PART_BYTES:
            raise RemoteProtocolError("a part was asked for that no value has")
        chunk = memoryview(parts[part]).cast("B")[offset : offset + nbytes]
        if self._transport.send(peer, frames.pack(kinds.CHUNK, number), [chunk]):
            self.sent_bytes += len(chunk)


def sizes_of(parts: Parts) -> list[int]:
    """Return the size of each part in bytes."""
    return [memoryview(part).nbytes for part in parts]


def nbytes_of(parts: Parts) -> int:
    """Return the size of a value in bytes."""
    return sum(sizes_of(parts))


def data_and_buffers(parts: Parts) -> tuple[bytes | None, list[Any]]:
    """Return what of a value stands in the header, and what follows behind it."""
    data = memoryview(parts[0])
    if data.nbytes <= INLINE_BYTES:
        return bytes(data), list(parts[1:])
    return None, list(parts)


def parts_in(data: Any, sizes: Any, buffers: Parts) -> list[Any] | None:
    """Return the value in a message, or ``None`` when the message has but its sizes.

    Raises
    ------
    RemoteProtocolError
        When it is malformed.
    """
    if type(sizes) is not list or not sizes or type(data) not in (bytes, type(None)):
        raise RemoteProtocolError("a value is malformed")
    if sum(map(size_in, sizes)) > MAX_VALUE_BYTES:
        raise RemoteProtocolError("a value is larger than any can be")
    if data is None and not buffers:
        return None
    parts = list(buffers) if data is None else [data, *buffers]
    if sizes_of(parts) != sizes:
        raise RemoteProtocolError("a value has other buffers than it announces")
    return parts


def _memory_of(nbytes: int) -> memoryview:
    if nbytes < MAPPED_BYTES:
        return memoryview(bytearray(nbytes))
    return memoryview(mmap.mmap(-1, nbytes))


def _now() -> float:
    return time.monotonic()
