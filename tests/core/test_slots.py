"""Slots of memory: classes, what is handed out next, and nothing handed out twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from opencluster.core.slots import PAGE_BYTES, Slot, Slots, size_class

MB = 1 << 20


def slots(*sizes: int) -> Slots:
    """Return the slots of segments of these sizes, numbered from 1."""
    made = Slots()
    for number, size in enumerate(sizes, start=1):
        made.add_segment(number, PAGE_BYTES, PAGE_BYTES + size)
    return made


def taken(made: Slots, nbytes: int) -> Slot:
    slot = made.take(nbytes)
    assert slot is not None
    return slot


# --- classes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("nbytes", "size"),
    [
        (0, 4096),
        (1, 4096),
        (4096, 4096),
        (4097, 8192),
        (16384, 16384),
        (16385, 20480),
        (102400, 112 << 10),
        (5 * MB, 5 * MB),
        (5 * MB + 1, 6 * MB),
        (7 * MB + 1, 8 * MB),
        (1 << 40, 1 << 40),
    ],
)
def test_class_of_a_size(nbytes: int, size: int) -> None:
    assert size_class(nbytes) == size


@given(st.integers(1, 1 << 45))
def test_class_is_pages_and_hardly_larger_than_what_it_holds(nbytes: int) -> None:
    size = size_class(nbytes)
    assert nbytes <= size
    assert size % PAGE_BYTES == 0
    assert size_class(size) == size
    assert size - nbytes < max(PAGE_BYTES, nbytes / 4)


# --- which slot is next --------------------------------------------------------


def test_what_came_back_last_goes_out_first() -> None:
    made = slots(MB)
    first, second, third = (taken(made, 10_000) for _ in range(3))
    made.release(first)
    made.release(third)
    assert taken(made, 12_000) is third
    assert taken(made, 9_000) is first
    made.release(second)
    made.check_invariants()


def test_slot_is_free_with_its_last_holder() -> None:
    made = slots(MB)
    slot = taken(made, MB)
    made.hold(slot)
    made.release(slot)
    assert made.take(1) is None
    assert made.idle_segments() == []
    made.release(slot)
    assert taken(made, MB) is slot


def test_slot_that_nobody_holds_is_not_released_and_not_held() -> None:
    made = slots(MB)
    slot = taken(made, 1)
    made.release(slot)
    with pytest.raises(AssertionError):
        made.release(slot)
    with pytest.raises(AssertionError):
        made.hold(slot)


def test_free_slots_of_all_classes_become_one_when_nothing_else_fits() -> None:
    made = slots(MB)
    small = [taken(made, PAGE_BYTES) for _ in range(MB // PAGE_BYTES)]
    for slot in small[1::2]:
        made.release(slot)
    assert made.take(2 * PAGE_BYTES) is None
    for slot in small[::2]:
        made.release(slot)
    assert taken(made, MB).size == MB
    made.check_invariants()


def test_neighbours_in_different_segments_are_not_merged() -> None:
    made = Slots()
    made.add_segment(1, 0, PAGE_BYTES)
    made.add_segment(2, PAGE_BYTES, 2 * PAGE_BYTES)
    for slot in [taken(made, 1), taken(made, 1)]:
        made.release(slot)
    assert made.take(2 * PAGE_BYTES) is None
    made.check_invariants()


# --- segments ----------------------------------------------------------------


def test_next_segment_is_used_when_the_first_is_full() -> None:
    made = slots(PAGE_BYTES, 3 * PAGE_BYTES)
    assert [taken(made, 1).segment for _ in range(4)] == [1, 2, 2, 2]
    assert made.take(1) is None


def test_removed_segment_is_handed_out_no_more() -> None:
    made = slots(4 * PAGE_BYTES, 4 * PAGE_BYTES)
    held = [taken(made, 2 * PAGE_BYTES), taken(made, PAGE_BYTES), taken(made, 12_288)]
    assert [slot.segment for slot in held] == [1, 1, 2]
    for slot in held[:2]:
        made.release(slot)
    made.release(held[2])
    assert made.idle_segments() == [1, 2]
    made.remove_segment(1)
    made.check_invariants()
    assert made.total_bytes == 4 * PAGE_BYTES
    assert taken(made, 12_288) is held[2]
    assert [taken(made, 1).segment for _ in range(1)] == [2]
    assert made.take(1) is None


def test_segment_of_which_something_is_taken_is_not_removed() -> None:
    made = slots(MB)
    taken(made, 1)
    with pytest.raises(AssertionError):
        made.remove_segment(1)


def test_segment_must_consist_of_pages_and_be_new() -> None:
    made = slots(MB)
    for start, end in [(0, 100), (1, PAGE_BYTES + 1), (PAGE_BYTES, PAGE_BYTES)]:
        with pytest.raises(AssertionError):
            made.add_segment(2, start, end)
    with pytest.raises(AssertionError):
        made.add_segment(1, 0, PAGE_BYTES)


def test_slot_tells_what_it_is() -> None:
    assert repr(taken(slots(MB), 5000)) == "Slot(1, 4096, 8192)"


# --- against a model -----------------------------------------------------------


class SlotsModel(RuleBasedStateMachine):
    """Whatever is taken and released, a slot overlaps no other that is held.

    The model knows the segments and what is held, and nothing of classes' free lists:
    there is room exactly if a stretch that nobody holds is large enough.
    """

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.segments: dict[int, int] = {}
        self.made = 0
        self.holders: dict[Slot, int] = {}

    @rule(pages=st.integers(1, 64))
    def add_segment(self, pages: int) -> None:
        self.made += 1
        self.segments[self.made] = pages * PAGE_BYTES
        self.slots.add_segment(self.made, PAGE_BYTES, (1 + pages) * PAGE_BYTES)

    @rule(target=held, nbytes=st.integers(0, 40 * PAGE_BYTES))
    def take(self, nbytes: int) -> Slot | None:
        room = max(self.stretches(), default=0)
        slot = self.slots.take(nbytes)
        assert (slot is not None) == (room >= size_class(nbytes))
        if slot is not None:
            assert slot not in self.holders
            assert nbytes <= slot.size == size_class(nbytes)
            self.holders[slot] = 1
        return slot

    @rule(slot=held)
    def hold(self, slot: Slot | None) -> None:
        if slot is not None and self.holders.get(slot):
            self.slots.hold(slot)
            self.holders[slot] += 1

    @rule(slot=consumes(held))
    def release(self, slot: Slot | None) -> None:
        while slot is not None and slot in self.holders:
            self.slots.release(slot)
            self.holders[slot] -= 1
            if not self.holders[slot]:
                del self.holders[slot]

    @precondition(lambda self: set(self.idle()))
    @rule(data=st.data())
    def remove_segment(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.idle())))
        self.slots.remove_segment(number)
        del self.segments[number]

    @invariant()
    def nothing_overlaps_and_counts_are_right(self) -> None:
        list(self.stretches())
        self.slots.check_invariants()
        assert self.slots.taken_bytes == sum(slot.size for slot in self.holders)
        assert self.slots.total_bytes == sum(self.segments.values())
        assert set(self.slots.idle_segments()) == self.idle()
        for slot in self.holders:
            assert slot.holders == self.holders[slot]

    def idle(self) -> set[int]:
        return set(self.segments) - {slot.segment for slot in self.holders}

    def stretches(self) -> list[int]:
        """Return the lengths of what nobody holds; fail if something is held twice."""
        lengths = []
        for number, size in self.segments.items():
            at = PAGE_BYTES
            mine = [slot for slot in self.holders if slot.segment == number]
            for slot in sorted(mine, key=lambda slot: slot.offset):
                assert slot.offset >= at
                lengths.append(slot.offset - at)
                at = slot.offset + slot.size
            assert at <= PAGE_BYTES + size
            lengths.append(PAGE_BYTES + size - at)
        return lengths


TestSlotsModel = SlotsModel.TestCase
TestSlotsModel.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
