"""Arrays that lie in shared memory: like others, and sent without a copy."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest

from opencluster import Manager, Worker, WorkPiece, empty
from opencluster.arrays import _settings
from opencluster.net.arena import Arena, process_arena

DEADLINE_S = 60.0


class Sum(Worker):
    def perform(self, work: WorkPiece) -> WorkPiece:
        block = work["block"]
        made = empty(block.shape, block.dtype)
        made[:] = block * 2
        return WorkPiece(sum=int(block.sum()), double=made, pid=os.getpid())


@pytest.fixture
def arena() -> Iterator[Arena]:
    gc.collect()
    yield process_arena(_settings().arena_bytes)
    gc.collect()


@pytest.mark.parametrize("shape", [1 << 18, (512, 1024), (1 << 18, 1, 1)])
@pytest.mark.parametrize("dtype", ["u1", "float64", "complex64", "i4,f8"])
def test_an_array_is_like_any_other(shape: int | tuple[int, ...], dtype: str) -> None:
    array = empty(shape, dtype)
    assert array.shape == np.empty(shape).shape and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable
    array[:] = np.ones((), dtype)
    assert (array == np.ones((), dtype)).all()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((), "f8"), (0, "f8"), (5, "i8"), (9, "O")]
)
def test_what_is_small_or_refers_to_objects_lies_elsewhere(
    arena: Arena, shape: int | tuple[int, ...], dtype: str
) -> None:
    used = arena.counts.used_bytes
    array = empty(shape, dtype)
    assert array.dtype == dtype
    assert arena.counts.used_bytes == used


def test_its_memory_is_used_again_when_nothing_refers_to_it(arena: Arena) -> None:
    used = arena.counts.used_bytes
    array = empty((1024, 1024), "u1")
    part = array[10:20, 3::2].view("u1")
    assert arena.counts.used_bytes >= used + (1 << 20)
    del array
    gc.collect()
    assert arena.counts.used_bytes >= used + (1 << 20)
    del part
    gc.collect()
    assert arena.counts.used_bytes == used


def test_it_is_not_copied_to_be_sent(arena: Arena) -> None:
    array = empty(1 << 20, "u1")
    used = arena.counts.used_bytes
    handle = arena.place(array.data, "somebody")
    assert handle is not None and arena.counts.used_bytes == used
    arena.drop("somebody")


def test_without_room_it_is_an_array_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Arena, "allocate", lambda self, nbytes: None)
    array = empty(1 << 20, "u1")
    array[:] = 3
    assert int(array.sum()) == 3 << 20


@pytest.mark.processes
def test_it_goes_to_a_worker_and_one_comes_back(arena: Arena) -> None:
    manager = Manager("process")
    pieces = []
    for number in range(20):
        block = empty(1 << 18, "i4")
        block[:] = number
        pieces.append(WorkPiece(block=block))
    del block
    for number, result in enumerate(manager.map("Sum", pieces)):
        assert result["sum"] == number << 18
        assert (result["double"] == 2 * number).all()
        assert not result["double"].flags.writeable
        assert result["pid"] != os.getpid()
