"""Which bytes of some segments of memory are taken, and which are handed out next.

Owns numbers only: segments are known by theirs, and a slot is a range of offsets in
one. Sizes are rounded up to classes, so that a slot that came back fits the next value
of about its size. Of a class the slot that came back last goes out first: its memory is
most likely still in the processor's cache. When nothing fits, all free slots are merged
with their neighbours, so that no memory stays with a class that is no longer wanted.

Must not know what the memory is, nor who holds a slot; it only counts the holders.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

PAGE_BYTES = 4096
"""Slots begin at multiples of this, and have a multiple of it as their size."""


@lru_cache(maxsize=256)
def size_class(nbytes: int) -> int:
    """Return the size of the slot that a value gets, in bytes.

    The classes are the multiples of a page up to four pages, and then four between a
    power of two and the next: at most a fifth of a slot stays unused.
    """
    if nbytes <= 4 * PAGE_BYTES:
        step = PAGE_BYTES
    else:
        step = 1 << (nbytes - 1).bit_length() - 3
    return max(-(-nbytes // step), 1) * step


class Slot:
    """A range of bytes in a segment.

    Attributes
    ----------
    segment : int
        Number of the segment.
    offset, size : int
        Where it begins in there, and how long it is, in bytes.
    holders : int
        How many hold it; with none it is free.
    """

    __slots__ = ("holders", "offset", "segment", "size")

    def __init__(self, segment: int, offset: int, size: int) -> None:
        self.segment = segment
        self.offset = offset
        self.size = size
        self.holders = 0

    def __repr__(self) -> str:
        return f"Slot({self.segment}, {self.offset}, {self.size})"


class _Gap(NamedTuple):
    """Bytes that belong to no slot."""

    segment: int
    start: int
    end: int


class Slots:
    """The slots of all segments."""

    def __init__(self) -> None:
        self._segments: dict[int, tuple[int, int]] = {}
        self._taken: dict[int, dict[int, Slot]] = {}
        self._free: dict[int, list[Slot]] = {}
        self._gaps: list[_Gap] = []
        self._is_merged = True
        self.total_bytes = 0
        self.taken_bytes = 0

    def add_segment(self, segment: int, start: int, end: int) -> None:
        """Let the bytes of a new segment from `start` up to `end` be handed out.

        Both are multiples of `PAGE_BYTES`.
        """
        assert segment not in self._segments
        assert 0 <= start < end and start % PAGE_BYTES == end % PAGE_BYTES == 0
        self._segments[segment] = (start, end)
        self._taken[segment] = {}
        self._gaps.append(_Gap(segment, start, end))
        self.total_bytes += end - start

    def remove_segment(self, segment: int) -> None:
        """Forget a segment of which nothing is taken."""
        assert not self._taken[segment]
        start, end = self._segments.pop(segment)
        del self._taken[segment]
        self._gaps = [gap for gap in self._gaps if gap.segment != segment]
        for size, slots in list(self._free.items()):
            kept = [slot for slot in slots if slot.segment != segment]
            if kept:
                self._free[size] = kept
            else:
                del self._free[size]
        self.total_bytes -= end - start

    def idle_segments(self) -> list[int]:
        """Return the numbers of the segments of which nothing is taken."""
        return [number for number, taken in self._taken.items() if not taken]

    def take(self, nbytes: int) -> Slot | None:
        """Return a slot for this many bytes with one holder, ``None`` without room."""
        slot = self.take_again(nbytes)
        if slot is not None:
            return slot
        size = size_class(nbytes)
        slot = self._carve(size)
        if slot is None and self._merge(size):
            slot = self._carve(size)
        return slot and self._taken_by_one(slot)

    def take_again(self, nbytes: int) -> Slot | None:
        """Do as `take`, but only with a slot that was in use before."""
        free = self._free.get(size_class(nbytes))
        return self._taken_by_one(free.pop()) if free else None

    def _taken_by_one(self, slot: Slot) -> Slot:
        slot.holders = 1
        self._taken[slot.segment][slot.offset] = slot
        self.taken_bytes += slot.size
        return slot

    def hold(self, slot: Slot) -> None:
        """Count one more holder of a slot that is held."""
        assert slot.holders
        slot.holders += 1

    def release(self, slot: Slot) -> None:
        """Count one holder less; with the last one the slot is free."""
        assert slot.holders
        slot.holders -= 1
        if slot.holders:
            return
        size = slot.size
        del self._taken[slot.segment][slot.offset]
        self.taken_bytes -= size
        self._is_merged = False
        free = self._free.get(size)
        if free is None:
            self._free[size] = [slot]
        else:
            free.append(slot)

    def _carve(self, size: int) -> Slot | None:
        """Cut a slot off the first gap that is large enough."""
        for index, (segment, start, end) in enumerate(self._gaps):
            if end - start > size:
                self._gaps[index] = _Gap(segment, start + size, end)
                return Slot(segment, start, size)
            if end - start == size:
                del self._gaps[index]
                return Slot(segment, start, size)
        return None

    def _merge(self, size: int) -> bool:
        """Turn all free slots into gaps, and return whether it may help."""
        if self._is_merged or self.total_bytes - self.taken_bytes < size:
            return False
        merged: list[_Gap] = []
        for gap in sorted(self._unused()):
            last = merged[-1] if merged else None
            if last is not None and (last.segment, last.end) == gap[:2]:
                merged[-1] = _Gap(last.segment, last.start, gap.end)
            else:
                merged.append(gap)
        self._gaps = merged
        self._free = {}
        self._is_merged = True
        return True

    def _unused(self) -> Iterator[_Gap]:
        yield from self._gaps
        for slots in self._free.values():
            for slot in slots:
                yield _Gap(slot.segment, slot.offset, slot.offset + slot.size)

    def check_invariants(self) -> None:
        """Raise `AssertionError` unless slots and gaps tile all segments."""
        held = [slot for taken in self._taken.values() for slot in taken.values()]
        assert all(slot.holders > 0 for slot in held)
        assert all(not slot.holders for free in self._free.values() for slot in free)
        ranges = [_Gap(s.segment, s.offset, s.offset + s.size) for s in held]
        ranges += self._unused()
        for segment, (start, end) in self._segments.items():
            at = start
            for gap in sorted(r for r in ranges if r.segment == segment):
                assert gap.start == at and gap.end > at, (segment, at, gap)
                at = gap.end
            assert at == end, (segment, at, end)
        assert {gap.segment for gap in ranges} == set(self._segments)
        assert all(
            slot.size == size == size_class(size)
            for size, free in self._free.items()
            for slot in free
        )
        spans = self._segments.values()
        assert self.total_bytes == sum(end - start for start, end in spans)
        assert self.taken_bytes == sum(slot.size for slot in held)
