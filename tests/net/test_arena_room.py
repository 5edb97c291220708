"""How much memory the arena takes: it grows, refuses, and gives back."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from arena_tools import MB, End, allocated, pattern

from opencluster.core.slots import PAGE_BYTES
from opencluster.net import arena as module
from opencluster.net import segments
from opencluster.net.arena import FIRST_BYTES, Arena, ArenaCounts


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(256 * MB)
    yield made
    made.close()


@pytest.fixture
def end(arena: Arena) -> End:
    return End(arena)


@pytest.mark.parametrize("limit", [0, 1, 4096, 8191])
def test_arena_without_room_for_anything(limit: int) -> None:
    arena = Arena(limit)
    assert arena.place(b"1", "r") is None
    assert arena.allocate(1) is None
    assert arena.counts == ArenaCounts(0, 0, 2)


def test_full_arena_refuses_until_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    arena = Arena(MB)
    end = End(arena)
    views = [end.sent(bytes(100_000)) for _ in range(9)]
    with caplog.at_level(logging.WARNING):
        assert [arena.place(bytes(100_000), "r") for _ in range(3)] == [None] * 3
    assert arena.counts == ArenaCounts(MB, 9 * (112 << 10), 3)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "no more shared memory, as [memory] arena_bytes = 1048576 is reached"
    ]
    views.pop()
    assert arena.place(bytes(100_000), "r") is not None
    assert arena.place(bytes(MB), "r") is None


@pytest.mark.parametrize("nbytes", [MB, 16 * MB, 20 * MB])
def test_value_and_its_table_fill_the_arena_exactly(nbytes: int) -> None:
    pages = nbytes // PAGE_BYTES // PAGE_BYTES + 1
    limit = nbytes + pages * PAGE_BYTES
    assert Arena(limit - PAGE_BYTES).place(bytes(nbytes), "r") is None
    assert Arena(limit).place(bytes(nbytes), "r") is not None


def test_segments_double_up_to_the_limit() -> None:
    arena = Arena(100 * MB)
    sizes = []
    while arena.place(bytes(4 * MB), "r") is not None:
        sizes.append(arena.counts.mapped_bytes // MB)
    assert sorted(set(sizes)) == [16, 32, 64, 100]
    assert len(sizes) == 3 + 3 + 7 + 8


def test_idle_segments_make_room_for_a_large_value() -> None:
    arena = Arena(60 * MB)
    end = End(arena)
    views = [end.sent(bytes(4 * MB)) for _ in range(7)]
    assert arena.counts.mapped_bytes == 60 * MB
    fd = os.dup(arena.segment_fd(1))
    kept = views[-1]
    assert arena.place(bytes(26 * MB), "r") is None
    del views
    large = end.sent(pattern(1, 26 * MB))
    assert arena.counts.mapped_bytes <= 60 * MB
    assert (np.asarray(large) == pattern(1, 26 * MB)).all()
    assert not any(kept)
    # what was retired has no memory, whoever may still have it mapped
    assert os.fstat(fd).st_blocks * 512 < MB
    os.close(fd)


def test_table_of_leases_can_be_full() -> None:
    arena = Arena(FIRST_BYTES)
    array = allocated(arena, 100)
    leases = FIRST_BYTES // PAGE_BYTES - 2
    assert all(arena.place(array, "many") is not None for _ in range(leases))
    assert arena.place(array, "one") is None
    assert arena.place(bytes(10), "one") is None
    assert arena.allocate(10) is None
    assert arena.counts == ArenaCounts(FIRST_BYTES, PAGE_BYTES, 3)
    arena.drop("many")
    assert arena.place(array, "one") is not None


def test_full_table_is_looked_through_for_what_came_back() -> None:
    arena = Arena(FIRST_BYTES)
    end = End(arena)
    array = allocated(arena, 100)
    end.sent(bytes(10_000)).release()
    assert arena.counts.used_bytes == PAGE_BYTES  # and 10,000 bytes have a free slot
    view = end.view(arena.place(array, "one"))
    while arena.place(array, "many") is not None:
        pass
    assert arena.place(bytes(10_000), "one") is None
    del view
    assert arena.place(bytes(10_000), "one") is not None
    assert arena.place(bytes(10_000), "one") is None


def test_only_as_many_idle_segments_are_given_back_as_must_be() -> None:
    arena = Arena(100 * MB)
    end = End(arena)
    views = []
    while (handle := arena.place(bytes(4 * MB), "end")) is not None:
        views.append(end.view(handle))
    sizes = [os.fstat(arena.segment_fd(number)).st_size for number in range(1, 5)]
    assert sizes == [16 * MB, 16 * MB, 32 * MB, 36 * MB]
    views.clear()
    assert arena.place(bytes(40 * MB), "end") is not None
    assert os.fstat(arena.segment_fd(4)).st_size == 36 * MB
    for number in (1, 2, 3):
        with pytest.raises(KeyError):
            arena.segment_fd(number)


def test_no_more_segments_than_receivers_accept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_SEGMENTS", 2)
    arena = Arena(256 * MB)
    kept = [arena.place(bytes(10 * MB), receiver) for receiver in "ab"]
    assert all(kept)
    assert arena.place(bytes(10 * MB), "c") is None
    arena.drop("a")
    assert arena.place(bytes(40 * MB), "c") is not None
    assert arena.counts.mapped_bytes < (16 + 41) * MB


def test_memory_is_given_back_when_nothing_is_in_use_and_somebody_leaves(
    arena: Arena, end: End
) -> None:
    first = end.sent(bytes(10 * MB))
    arena.drop("somebody")
    assert arena.counts.mapped_bytes == FIRST_BYTES
    fd = os.dup(arena.segment_fd(1))
    del first
    arena.drop("somebody")
    assert arena.counts == ArenaCounts(0, 0, 0)
    assert os.fstat(fd).st_blocks * 512 < MB
    os.close(fd)
    # the number is not used again, and the receiver forgets it with the next
    second = end.sent(pattern(2, 10 * MB))
    assert (np.asarray(second) == pattern(2, 10 * MB)).all()
    assert set(end.mapping._segments) == {2}


def test_memory_that_nobody_uses_is_given_back(
    monkeypatch: pytest.MonkeyPatch, arena: Arena, end: End
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "KEPT_BYTES", FIRST_BYTES)

    def later(by_s: float) -> int:
        nonlocal now
        now += by_s
        arena.tidy()
        return arena.counts.mapped_bytes

    end.sent(pattern(0, MB))
    large = end.sent(pattern(1, 40 * MB))
    mapped = later(0)
    assert mapped > FIRST_BYTES + 40 * MB
    assert later(2 * module.REST_AFTER_S) == mapped
    assert (np.asarray(large) == pattern(1, 40 * MB)).all()
    del large
    # it counts from the time at which that was seen
    later(1)
    assert later(0.9 * module.REST_AFTER_S) == mapped
    # and anew after every use
    end.sent(pattern(2, 40 * MB))
    later(0)
    assert later(0.9 * module.REST_AFTER_S) == mapped
    later(1)
    assert later(module.REST_AFTER_S) == FIRST_BYTES
    assert (np.asarray(end.sent(pattern(3, 40 * MB))) == pattern(3, 40 * MB)).all()


def test_memory_that_is_short_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(segments, "available_bytes", lambda: 20 * MB)
    arena = Arena(256 * MB)
    assert arena.place(bytes(12 * MB), "r") is None
    assert "the computer is short of memory" in caplog.text
    monkeypatch.setattr(segments, "available_bytes", lambda: 256 * MB)
    assert arena.place(bytes(12 * MB), "r") is None
    now += module.GROW_AGAIN_AFTER_S
    assert arena.place(bytes(12 * MB), "r") is not None
    # half of what there is, if that is enough for the value
    monkeypatch.setattr(segments, "available_bytes", lambda: 20 * MB)
    assert arena.place(bytes(6 * MB), "r") is not None
    assert arena.counts.mapped_bytes < 16 * MB + 7 * MB


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert MB < segments.available_bytes() < sys.maxsize
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  2048 kB\n")
    assert segments.available_bytes(tmp_path / "meminfo") == 2 * MB
    assert segments.available_bytes(tmp_path / "none") == sys.maxsize
