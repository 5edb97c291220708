"""The arena: copied once, read in place, and used again when nobody reads."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from arena_tools import DEADLINE_S, MB, Array, End, allocated, pattern, used

from opencluster.core.slots import PAGE_BYTES
from opencluster.net import arena as module
from opencluster.net.arena import COPY_BYTES, FIRST_BYTES, Arena, ArenaCounts
from opencluster.wire.codec import decode, encode


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(256 * MB)
    yield made
    made.close()


@pytest.fixture
def end(arena: Arena) -> End:
    return End(arena)


# --- placing and reading -------------------------------------------------------


@pytest.mark.parametrize(
    "nbytes", [0, 1, 4096, 4097, 100_000, 5 * MB, 2 * COPY_BYTES + 17]
)
def test_what_is_placed_is_read(end: End, nbytes: int) -> None:
    block = pattern(3, nbytes)
    view = end.sent(block)
    assert (view.format, view.ndim, len(view)) == ("B", 1, nbytes)
    assert (np.frombuffer(view, np.uint8) == block).all()


def test_nothing_is_taken_before_the_first_use(arena: Arena) -> None:
    assert arena.counts == ArenaCounts(0, 0, 0)
    arena.place(b"x", "r")
    assert arena.counts == ArenaCounts(FIRST_BYTES, PAGE_BYTES, 0)


def test_memory_is_used_again_as_soon_as_the_view_is_gone(
    arena: Arena, end: End
) -> None:
    handles = set()
    for number in range(100):
        handle = arena.place(pattern(number, 100_000), "end")
        assert (
            np.frombuffer(end.view(handle), np.uint8) == pattern(number, 100_000)
        ).all()
        handles.add(handle)
    assert len(handles) == 1
    assert used(arena) == 0


def test_memory_is_not_used_again_before(arena: Arena, end: End) -> None:
    views = [end.sent(pattern(number, 50_000)) for number in range(300)]
    for number in range(0, 300, 3):
        views[number] = end.sent(pattern(number + 1, 50_000))
    for number, view in enumerate(views):
        shown = number + 1 if number % 3 == 0 else number
        assert (np.frombuffer(view, np.uint8) == pattern(shown, 50_000)).all()


def test_lease_that_nobody_looked_at_is_kept(arena: Arena) -> None:
    arena.place(bytes(10_000), "slow")
    for _ in range(100):
        arena.place(bytes(10_000), "slow")
    assert used(arena) == 101 * 3 * PAGE_BYTES


def test_bytes_must_be_contiguous(arena: Arena) -> None:
    with pytest.raises(TypeError):
        arena.place(np.zeros((4, 4), np.uint8)[:, 1], "r")
    assert used(arena) == 0


def test_slot_is_free_again_when_the_copy_breaks_off(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_copy", broken)
    with pytest.raises(KeyboardInterrupt):
        arena.place(bytes(COPY_BYTES + 1), "r")
    assert used(arena) == 0


# --- how long a view lasts -----------------------------------------------------

DERIVED: dict[str, Callable[[memoryview], Any]] = {
    "view": lambda view: view,
    "part of view": lambda view: view[100:200],
    "view of view": lambda view: memoryview(view),
    "cast": lambda view: view.cast("d"),
    "frombuffer": lambda view: np.frombuffer(view, np.float64),
    "asarray": lambda view: np.asarray(view),
    "ndarray": lambda view: np.ndarray((5, 4), np.float32, view, 80),
    "slice": lambda view: np.frombuffer(view, np.float64)[10:20:3],
    "transposed": lambda view: np.asarray(view).reshape(100, 80)[3:].T,
    "other dtype": lambda view: np.asarray(view).view(np.float64).view("M8[s]")[1:],
    "broadcast": lambda view: np.broadcast_to(np.asarray(view), (3, 8000)),
    "strided": lambda view: np.lib.stride_tricks.as_strided(np.asarray(view), (9,)),
    "field": lambda view: np.frombuffer(view, [("a", "f8"), ("b", "i8")])["b"],
    "masked": lambda view: np.ma.masked_array(np.asarray(view), np.asarray(view) > 5),
    "real part": lambda view: np.frombuffer(view, np.complex128).real,
    "iterator": lambda view: np.nditer(np.asarray(view)),
    "flat": lambda view: np.asarray(view).flat,
    "memory of array": lambda view: np.asarray(view)[5:].data,
}


@pytest.mark.parametrize("how", DERIVED)
def test_lease_lasts_as_long_as_anything_refers_to_it(
    arena: Arena, end: End, how: str
) -> None:
    derived = DERIVED[how](end.sent(pattern(5, 8000)))
    assert used(arena) == 2 * PAGE_BYTES
    del derived
    assert used(arena) == 0


def test_copy_needs_no_lease(arena: Arena, end: End) -> None:
    copied = np.asarray(end.sent(pattern(5, 8000))).copy()
    assert used(arena) == 0
    assert (copied == pattern(5, 8000)).all()


def test_arrays_over_one_buffer_share_its_lease(arena: Arena, end: End) -> None:
    data, buffers = encode({"a": np.arange(5000.0)})
    view = end.sent(buffers[0])
    first, second = (decode(data, [view])["a"] for _ in range(2))
    del view
    assert (first == np.arange(5000.0)).all()
    del first
    assert used(arena)
    second = second.reshape(50, 100)[:, 3]
    assert used(arena)
    assert (second == np.arange(3, 5000, 100)).all()
    del second
    assert not used(arena)


def test_cycle_keeps_its_lease_until_it_is_collected(arena: Arena, end: End) -> None:
    class Node:
        def __init__(self, array: Array) -> None:
            self.array, self.self = array, self

        def __del__(self) -> None:
            seen.append(int(self.array.sum()))

    seen: list[int] = []
    gc.collect()
    gc.disable()
    try:
        node = Node(np.asarray(end.sent(pattern(9, 8000))))
        del node
        assert used(arena)
        gc.collect()
    finally:
        gc.enable()
    assert not used(arena)
    assert seen == [int(pattern(9, 8000).sum())]


def test_views_are_read_only(end: End) -> None:
    view = end.sent(bytes(8000))
    assert view.readonly
    for array in (np.asarray(view), np.frombuffer(view, np.uint8)):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_threads_read_and_forget_while_another_places(arena: Arena, end: End) -> None:
    shown: list[Any] = []
    is_wrong: list[int] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set() or shown:
            try:
                number, array = shown.pop()
            except IndexError:
                continue
            parts = [array[n::7] for n in range(7)]
            del array
            if any((part != number).any() for part in parts):
                is_wrong.append(number)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(1500):
        block = np.full(5000 + turn, turn % 251, np.uint8)
        array = np.asarray(end.sent(block))
        shown.extend([(turn % 251, array), (turn % 251, array[100:])])
        del array
    is_over.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not is_wrong
    assert used(arena) == 0


# --- arrays that are made in the arena -------------------------------------------


def test_array_in_the_arena_is_sent_without_a_copy(arena: Arena, end: End) -> None:
    array = np.frombuffer(allocated(arena, 80_000), np.float64)
    array[:] = 1
    part = array[100:200]
    received = np.frombuffer(end.sent(part.data.toreadonly()), np.float64)
    part[:] = 2
    assert (received == 2).all() and len(received) == 100
    whole = np.frombuffer(end.sent(array), np.float64)
    assert whole[99] == 1 and whole[100] == 2


def test_memory_of_an_array_is_kept_while_anybody_has_it(
    arena: Arena, end: End
) -> None:
    orders = [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]]
    for order in orders:
        array = np.frombuffer(allocated(arena, 80_000), np.float64).reshape(100, 100)
        array[:] = 7
        kept: list[Any] = [array[50:]]
        for receiver in "ab":
            kept.append(np.frombuffer(end.view(arena.place(array, receiver))))
        del array
        for which in order:
            assert used(arena) == 80 << 10
            other = np.frombuffer(allocated(arena, 80_000))
            other[:] = 8
            del other
            assert all((it == 7).all() for it in kept if it is not None)
            kept[which] = None
        assert used(arena) == 0


def test_array_that_is_sent_again_and_again_uses_few_leases(
    arena: Arena, end: End
) -> None:
    array = allocated(arena, 5000)
    leases = set()
    for _ in range(100):
        handle = arena.place(array, "end")
        assert handle is not None
        leases.add(handle.lease)
        end.view(handle)
    assert len(leases) <= 2


def test_no_bytes_can_be_sent_beside_an_array_of_the_arena(
    arena: Arena, end: End
) -> None:
    array = allocated(arena, 5000)
    for nothing in (bytearray(), b"", array[:0], array[5:5].toreadonly()):
        assert len(end.sent(nothing)) == 0


def test_several_receivers_have_a_lease_each(arena: Arena) -> None:
    array = allocated(arena, 5000)
    handles = [arena.place(array, receiver) for receiver in range(20)]
    assert len({handle.offset for handle in handles if handle}) == 1
    assert len({handle.lease for handle in handles if handle}) == 20
    del array
    for receiver in range(20):
        assert used(arena) == 2 * PAGE_BYTES
        arena.drop(receiver)
    assert used(arena) == 0


def test_what_lies_beside_arrays_of_the_arena_is_copied(arena: Arena, end: End) -> None:
    kept = [allocated(arena, 5000) for _ in range(3)]
    outside = pattern(1, 5000)
    received = np.asarray(end.sent(outside))
    outside[:] = 0
    assert (received == pattern(1, 5000)).all()
    again = np.asarray(end.sent(received))
    assert again.ctypes.data != received.ctypes.data
    assert (again == received).all()
    assert len(kept) == 3


def test_array_outlives_the_arena() -> None:
    arena = Arena(MB)
    array = np.frombuffer(allocated(arena, 8000))
    end = End(arena)
    received = np.frombuffer(end.sent(array))
    arena.close()
    array[:] = 5
    assert (received == 5).all()
    assert arena.allocate(1) is None and arena.place(b"1", "r") is None
    arena.close()


# --- everything at once ----------------------------------------------------------


def play(arena: Arena, chance: random.Random, turns: int) -> int:
    """Make, place, read and forget; return for how much there was no room."""
    ends = [End(arena) for _ in range(3)]
    shown: list[tuple[int, Array]] = []
    refused = 0
    for number in (turn % 251 for turn in range(turns)):
        nbytes = chance.choice([100, 5000, 70_000, 100_000, 800_000, MB])
        block: Any = np.full(nbytes, number, np.uint8)
        memory = array = None
        if chance.random() < 0.3:
            memory = arena.allocate(nbytes)
            refused += memory is None
            if memory is not None:
                memory[:] = block
                shown.append((number, np.asarray(memory)))
                block = memory[nbytes // 4 :]
        for which in chance.sample(range(3), chance.randrange(3)):
            handle = arena.place(block, which)
            refused += handle is None
            if handle is not None:
                array = np.asarray(ends[which].view(handle))
                shown.append((number, array[chance.randrange(50) :]))
        chance.shuffle(shown)
        del shown[chance.randrange(30) :]
        assert all((array == number).all() for number, array in shown[:10])
        if chance.random() < 0.02:
            del shown[:], block, memory, array
            arena.drop("whoever")
    assert all((array == number).all() for number, array in shown)
    return refused


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_nobody_sees_the_memory_of_another(seed: int) -> None:
    arena = Arena([3 * MB, 40 * MB][seed % 2])
    refused = play(arena, random.Random(seed), 600)
    assert arena.counts.refused == refused
    assert used(arena) == 0
    arena._slots.check_invariants()
    assert refused or arena.counts.mapped_bytes > 3 * MB
