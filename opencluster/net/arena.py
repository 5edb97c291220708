"""Shared memory of one process, for large buffers to others of the same computer.

A process that sends has an `Arena`: segments that grow in number on demand up to a
limit, in which slots are recycled. A buffer is copied once, into a slot, and a `Handle`
travels in its place; an array that was made in the arena is not copied at all. Who
receives has a `Mapping` of the sender's segments and reads in place.

A slot is kept by leases, one for each receiver and one for the user whose array lies
in it. A lease ends when its holder marks it in the segment (see `segments`), which the
arena sees when it looks for room the next time: nothing is sent for it. `Arena.drop`
sees to the leases of those who do not mark them any more.

Owns slots and leases; must not know how descriptors and handles travel.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Hashable
from typing import Any, NamedTuple

from opencluster.core.slots import PAGE_BYTES, Slot, Slots, size_class
from opencluster.net.heap import keep_freed_memory
from opencluster.net.leases import OWN, Leases
from opencluster.net.mapped import Mapping
from opencluster.net.orphan import Orphan
from opencluster.net.segments import (
    MAX_SEGMENTS,
    RETURNED,
    Handle,
    address_of,
    make_segment,
    table_bytes,
)

__all__ = ["Arena", "ArenaCounts", "Handle", "Mapping"]

log = logging.getLogger(__name__)

FIRST_BYTES = 16 << 20
"""Size of the first segment; each further one is as large as all before together."""

GROW_AGAIN_AFTER_S = 1.0
"""How long no segment is tried after memory was short, in seconds."""

VISIT_AGAIN_AFTER_S = 0.1
"""How long orphans are not looked at again, in seconds: there may be many."""

KEPT_BYTES = 64 << 20
"""Memory that stays when nobody uses it, as filling fresh pages takes long."""

REST_AFTER_S = 10.0
"""Memory beyond that is given back when nobody used it for so long."""

COPY_BYTES = 8 << 20
"""Copied at a stretch: about 1 ms in which no other thread of the process runs."""


class ArenaCounts(NamedTuple):
    """How much memory an arena takes.

    Attributes
    ----------
    mapped_bytes : int
        Size of all segments.
    used_bytes : int
        Size of the slots that somebody holds.
    refused : int
        Buffers for which there was no room, since the start.
    """

    mapped_bytes: int
    used_bytes: int
    refused: int


class Arena:
    """The shared memory that this process makes for others.

    May be used by several threads, and in a process that was forked off after it was
    made it has no room.

    Parameters
    ----------
    max_bytes : int
        How much memory it takes at most. Nothing is taken before the first use.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes // PAGE_BYTES * PAGE_BYTES
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._segments: dict[int, Leases] = {}
        self._made = 0
        self._mapped_bytes = 0
        self._slots = Slots()
        self._orphans: set[Orphan] = set()
        self._refused = 0
        self._grow_again_at = 0.0
        self._visit_again_at = 0.0
        # segments of which something was taken since `tidy`, and since when others rest
        self._touched: set[int] = set()
        self._resting: dict[int, float] = {}
        self._has_warned = False

    def place(self, buffer: Any, receiver: Hashable) -> Handle | None:
        """Put a buffer where a receiver can read it, and give it a lease.

        Parameters
        ----------
        buffer : bytes-like
            Contiguous memory. It is copied, unless it lies in a view that `allocate`
            returned: then it is sent as it is, and must not be written to until the
            receiver has read it.
        receiver : hashable
            Who the lease is for, to be named to `drop`.

        Returns
        -------
        Handle or None
            What the receiver needs; ``None`` when there is no room.
        """
        data = memoryview(buffer).cast("B")
        nbytes = len(data)
        if self._pid != os.getpid():
            return None
        with self._lock:
            found = self._find(data, nbytes)
            if found is not None:
                return self._place_again(*found, nbytes, receiver)
            slot = self._take(nbytes)
            if slot is None or not (lease := self._lend(slot, receiver)):
                return None
            raw = self._segments[slot.segment].segment.raw
        offset = slot.offset
        try:
            if nbytes <= COPY_BYTES:
                raw[offset : offset + nbytes] = data
            else:
                _copy(data, raw, offset)
        except BaseException:
            raw[lease] = RETURNED
            raise
        return Handle(slot.segment, offset, nbytes, lease)

    def allocate(self, nbytes: int) -> memoryview | None:
        """Return memory that `place` need not copy, or ``None`` when there is no room.

        It is not cleared. It is the caller's until nothing refers to it any more:
        slices of it, and arrays over it or over parts of it.
        """
        if self._pid != os.getpid():
            return None
        with self._lock:
            slot = self._take(nbytes)
            if slot is None or not (lease := self._lend(slot, OWN)):
                return None
            segment = self._segments[slot.segment].segment
            return segment.view(slot.offset, nbytes, lease)

    def drop(
        self, receiver: Hashable, pid: int = 0, sock: socket.socket | None = None
    ) -> None:
        """Take the leases of a receiver back whose connection is over.

        Those that it has not begun to use end when it has closed its end of the
        connection, those of its views when they are gone or its process has ended.
        If nothing is in use then, all memory is given back.

        Parameters
        ----------
        receiver : hashable
            As named to `place`.
        pid : int
            Its process; 0 for one that cannot be seen from here, which counts as ended
            when it has closed its end.
        sock : socket, optional
            This end of the connection, if the other one may still be open. It may be
            closed afterwards.
        """
        with self._lock:
            self._collect()
            if any(ledger.has(receiver) for ledger in self._segments.values()):
                self._leave(receiver, Orphan(pid, sock))
            self._visit_orphans()
            if not self._slots.taken_bytes:
                self._retire_idle()

    def tidy(self) -> None:
        """Give back what was not used for `REST_AFTER_S`; to be called now and then."""
        if self._pid != os.getpid():
            return
        now = time.monotonic()
        with self._lock:
            self._collect()
            idle = set(self._slots.idle_segments()) - self._touched
            self._touched.clear()
            self._resting = {n: self._resting.get(n, now) for n in idle}
            over = [n for n in idle if now - self._resting[n] >= REST_AFTER_S]
            unused_bytes = sum(map(self._size_of, over))
            # the largest first: they were made for values that are rare
            for number in sorted(over, key=self._size_of, reverse=True):
                if unused_bytes > KEPT_BYTES:
                    unused_bytes -= self._size_of(number)
                    self._retire(number)

    def segment_fd(self, segment: int) -> int:
        """Return the descriptor of a segment, which a receiver maps.

        It stays the arena's. A segment does not go away as long as there is a handle
        of it whose lease has not ended.
        """
        return self._segments[segment].fd

    @property
    def counts(self) -> ArenaCounts:
        """How much memory it takes now."""
        with self._lock:
            self._collect()
            self._visit_orphans()
            used = self._slots.taken_bytes
            return ArenaCounts(self._mapped_bytes, used, self._refused)

    def close(self) -> None:
        """Take nothing more. What receivers and users hold stays valid."""
        with self._lock:
            self._max_bytes = 0
            self._collect()
            self._retire_idle()
            for ledger in self._segments.values():
                ledger.close()
            self._segments.clear()
            self._slots = Slots()
            self._mapped_bytes = 0
            for orphan in self._orphans:
                orphan.close()
            self._orphans.clear()

    @property
    def is_ours(self) -> bool:
        """Whether this process made it, and not one that it was forked off from."""
        return self._pid == os.getpid()

    # --- with the lock held ---------------------------------------------------

    def _collect(self) -> None:
        for ledger in self._segments.values():
            ledger.collect(self._slots.release)

    def _leave(self, receiver: Hashable, orphan: Orphan) -> None:
        for ledger in self._segments.values():
            ledger.hand_over(receiver, orphan)
        self._orphans.add(orphan)
        self._visit(orphan)

    def _visit_orphans(self) -> None:
        """Take back what orphans cannot use any more, if that was not just done."""
        if self._orphans and time.monotonic() >= self._visit_again_at:
            for orphan in list(self._orphans):
                self._visit(orphan)
            self._visit_again_at = time.monotonic() + VISIT_AGAIN_AFTER_S

    def _visit(self, orphan: Orphan) -> None:
        has_ended = orphan.has_ended()
        if not has_ended and not orphan.has_left():
            return
        for ledger in self._segments.values():
            ledger.end_of(orphan, has_ended, self._slots.release)
        if not any(ledger.has(orphan) for ledger in self._segments.values()):
            orphan.close()
            self._orphans.remove(orphan)

    def _find(self, data: memoryview, nbytes: int) -> tuple[Slot, int] | None:
        """Return the slot of the user in which some bytes lie, and where they begin."""
        address = 0
        for ledger in self._segments.values():
            if ledger.has_own:
                address = address or address_of(data)
                found = ledger.find_own(address, nbytes)
                if found is not None:
                    return found
        return None

    def _place_again(
        self, slot: Slot, offset: int, nbytes: int, receiver: Hashable
    ) -> Handle | None:
        self._collect()
        self._slots.hold(slot)
        lease = self._lend(slot, receiver)
        return Handle(slot.segment, offset, nbytes, lease) if lease else None

    def _lend(self, slot: Slot, receiver: Hashable) -> int:
        """Turn a holder of a slot into a lease; without any, release it, return 0."""
        ledger = self._segments[slot.segment]
        lease = ledger.give(slot, receiver)
        if not lease:
            self._collect()
            lease = ledger.give(slot, receiver)
        if not lease:
            self._slots.release(slot)
            self._refused += 1
        return lease

    def _take(self, nbytes: int) -> Slot | None:
        """Return a slot with one holder."""
        slot = self._slots.take_again(nbytes)
        if slot is not None:
            self._touched.add(slot.segment)
            return slot
        # Only now, as looking for what came back takes longer than taking it.
        self._collect()
        slot = self._slots.take(nbytes)
        if slot is None and self._orphans:
            self._visit_orphans()
            slot = self._slots.take(nbytes)
        if slot is None and self._grow(nbytes):
            slot = self._slots.take(nbytes)
        if slot is None:
            self._refused += 1
        else:
            self._touched.add(slot.segment)
        return slot

    def _size_of(self, number: int) -> int:
        return self._segments[number].segment.size

    def _grow(self, nbytes: int) -> bool:
        """Make a segment in which a slot for a value fits, if there may be one."""
        needed = _segment_bytes(nbytes)
        if not self._make_room(needed):
            self._warn(f"[memory] arena_bytes = {self._max_bytes} is reached")
            return False
        now = time.monotonic()
        if now < self._grow_again_at:
            return False
        left = self._max_bytes - self._mapped_bytes
        wanted = min(max(FIRST_BYTES, self._mapped_bytes, needed), left)
        for size in (wanted, needed):
            try:
                segment, fd = make_segment(size)
            except OSError as error:
                why = error.strerror or str(error)
                continue
            if not self._made:
                # what is copied into it was made just before, and is dropped soon
                keep_freed_memory()
            self._made += 1
            self._segments[self._made] = Leases(segment, fd)
            self._slots.add_segment(self._made, segment.data_start, size)
            self._mapped_bytes += size
            return True
        self._grow_again_at = now + GROW_AGAIN_AFTER_S
        self._warn(why)
        return False

    def _make_room(self, needed: int) -> bool:
        """Retire idle segments, if that helps to keep the limit with one more."""
        sizes = {n: self._size_of(n) for n in self._slots.idle_segments()}
        room = self._max_bytes - self._mapped_bytes
        count = len(self._segments)
        if room + sum(sizes.values()) < needed:
            return False
        for number in sorted(sizes, key=lambda number: sizes[number]):
            if room >= needed and count < MAX_SEGMENTS:
                break
            self._retire(number)
            room += sizes[number]
            count -= 1
        return count < MAX_SEGMENTS

    def _retire_idle(self) -> None:
        for number in self._slots.idle_segments():
            self._retire(number)

    def _retire(self, number: int) -> None:
        self._slots.remove_segment(number)
        ledger = self._segments.pop(number)
        self._mapped_bytes -= ledger.segment.size
        ledger.retire()

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "no more shared memory, as %s: large values go through sockets when "
                "what there is of it (%d MB) is in use",
                why,
                self._mapped_bytes >> 20,
            )


def _segment_bytes(nbytes: int) -> int:
    """Return how large a segment must be to hold one value."""
    slot_bytes = size_class(nbytes)
    size = slot_bytes + table_bytes(slot_bytes)
    while size - table_bytes(size) < slot_bytes:
        size += PAGE_BYTES
    return size


def _copy(data: memoryview, raw: memoryview, offset: int) -> None:
    for start in range(0, len(data), COPY_BYTES):
        part = data[start : start + COPY_BYTES]
        raw[offset + start : offset + start + len(part)] = part


_arena: Arena | None = None
_arena_lock = threading.Lock()


def process_arena(max_bytes: int) -> Arena:
    """Return the one arena of this process, in which its arrays lie for whoever sends.

    Parameters
    ----------
    max_bytes : int
        How much memory it takes at most; who asks first says it.
    """
    global _arena
    with _arena_lock:
        if _arena is None or not _arena.is_ours:
            _arena = Arena(max_bytes)
        return _arena
