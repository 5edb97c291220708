"""Who may read which range of one segment, as the process that made it knows it.

Owns the table of the segment: it writes `GIVEN` when a lease is given, finds what was
marked `RETURNED` since, and keeps the slot and the holder of each. What a slot without
leases is used for is decided elsewhere.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Hashable

from opencluster.core.slots import Slot
from opencluster.net.segments import GIVEN, IN_USE, RETURNED, STATE, UNUSED, Segment

OWN = object()
"""The holder, in place of another process, of what the user has here."""


class Leases:
    """The leases of one segment.

    Attributes
    ----------
    segment : Segment
    fd : int
        Its descriptor, owned from here on.
    """

    __slots__ = ("_given", "_own", "_own_at", "_unused", "fd", "segment")

    def __init__(self, segment: Segment, fd: int) -> None:
        self.segment = segment
        self.fd = fd
        self._given: list[tuple[Slot, Hashable] | None] = [None]
        self._unused: list[int] = []
        self._own: dict[int, Slot] = {}
        self._own_at: list[int] = []
        segment.raw[STATE] = GIVEN

    def close(self) -> None:
        """Give no descriptor any more; the memory stays as long as it is used."""
        os.close(self.fd)

    def retire(self) -> None:
        """Give the memory back; receivers may forget it when they like."""
        self.segment.raw[STATE] = RETURNED
        self.segment.free_pages()
        self.close()

    @property
    def has_own(self) -> bool:
        """Whether the user holds anything here."""
        return bool(self._own_at)

    def find_own(self, address: int, nbytes: int) -> tuple[Slot, int] | None:
        """Return what the user holds around some memory, and its offset.

        Parameters
        ----------
        address, nbytes : int
            Where the memory is in this process.
        """
        offset = address - self.segment.address
        at = bisect.bisect_right(self._own_at, offset)
        if not at:
            return None
        slot = self._own[self._own_at[at - 1]]
        return (slot, offset) if offset + nbytes <= slot.offset + slot.size else None

    def give(self, slot: Slot, receiver: Hashable) -> int:
        """Give a lease of a slot, and return its place in the table, 0 without one."""
        if self._unused:
            lease = self._unused.pop()
            self._given[lease] = (slot, receiver)
        elif len(self._given) < self.segment.data_start:
            lease = len(self._given)
            self._given.append((slot, receiver))
        else:
            return 0
        if receiver is OWN:
            bisect.insort(self._own_at, slot.offset)
            self._own[slot.offset] = slot
        self.segment.raw[lease] = GIVEN
        return lease

    def collect(self, release: Callable[[Slot], None]) -> None:
        """End the leases that were marked, and release the slot of each."""
        end = len(self._given)
        marks = bytes(self.segment.raw[:end])
        lease = marks.find(RETURNED, 1)
        if lease < 0:
            return
        while lease > 0:
            self._end(lease, release)
            lease = marks.find(RETURNED, lease + 1)
        if len(self._unused) == end - 1:
            # After a rush, the search shall be as short again as before.
            self._given = [None]
            self._unused = []

    def has(self, receiver: Hashable) -> bool:
        """Return whether a receiver has leases."""
        return any(given is not None and given[1] == receiver for given in self._given)

    def hand_over(self, receiver: Hashable, to: Hashable) -> None:
        """Let another one have the leases of a receiver."""
        for lease, given in enumerate(self._given):
            if given is not None and given[1] == receiver:
                self._given[lease] = (given[0], to)

    def end_of(
        self, receiver: Hashable, in_use_too: bool, release: Callable[[Slot], None]
    ) -> None:
        """End the leases of a receiver, and release the slot of each.

        Parameters
        ----------
        receiver : hashable
        in_use_too : bool
            Even those over which it has views.
        release : callable
            Takes a slot.
        """
        for lease, given in enumerate(self._given):
            if given is None or given[1] != receiver:
                continue
            if in_use_too or self.segment.raw[lease] != IN_USE:
                self._end(lease, release)

    def _end(self, lease: int, release: Callable[[Slot], None]) -> None:
        given = self._given[lease]
        self.segment.raw[lease] = UNUSED
        if given is None:
            return  # somebody wrote where no lease was given
        slot, receiver = given
        if receiver is OWN:
            del self._own[slot.offset]
            del self._own_at[bisect.bisect_left(self._own_at, slot.offset)]
        self._given[lease] = None
        self._unused.append(lease)
        release(slot)
