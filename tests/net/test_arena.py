"""The arena: copied once, read in place, used again, and nothing left by a crash."""

from __future__ import annotations

import fcntl
import gc
import logging
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arena_programs import pattern, receive, send

from opencluster.core.slots import PAGE_BYTES
from opencluster.errors import RemoteProtocolError
from opencluster.net import arena as module
from opencluster.net.arena import (
    COPY_BYTES,
    FIRST_BYTES,
    MAX_SEGMENTS,
    Arena,
    ArenaCounts,
    Handle,
    Mapping,
)
from opencluster.net.segments import make_segment
from opencluster.wire.codec import decode, encode

MB = 1 << 20
DEADLINE_S = 30.0
PROGRAMS = Path(__file__).with_name("arena_programs.py")
Array = np.ndarray[Any, Any]


class End:
    """The receiving side, in this process: maps segments as they are met."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.mapping = Mapping()
        self.known: set[int] = set()

    def view(self, handle: Handle | None) -> memoryview:
        assert handle is not None
        if handle.segment not in self.known:
            self.known.add(handle.segment)
            fd = os.dup(self.arena.segment_fd(handle.segment))
            self.mapping.add(handle.segment, fd)
        return self.mapping.view(handle)

    def sent(self, buffer: Any) -> memoryview:
        return self.view(self.arena.place(buffer, "end"))


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(256 * MB)
    yield made
    made.close()


@pytest.fixture
def end(arena: Arena) -> End:
    return End(arena)


def used(arena: Arena) -> int:
    return arena.counts.used_bytes


def allocated(arena: Arena, nbytes: int) -> memoryview:
    memory = arena.allocate(nbytes)
    assert memory is not None
    return memory


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


# --- room ----------------------------------------------------------------------


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
        "no more shared memory, as its limit of 1048576 bytes is reached"
    ]
    views.pop()
    assert arena.place(bytes(100_000), "r") is not None
    assert arena.place(bytes(MB), "r") is None


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


def test_idle_memory_is_given_back_on_request(arena: Arena, end: End) -> None:
    first = end.sent(bytes(10 * MB))
    second = np.asarray(end.sent(pattern(2, 10 * MB)))
    assert arena.counts.mapped_bytes == 2 * FIRST_BYTES
    fd = os.dup(arena.segment_fd(1))
    del first
    arena.trim()
    assert arena.counts.mapped_bytes == FIRST_BYTES
    assert os.fstat(fd).st_blocks * 512 < MB
    os.close(fd)
    assert (second == pattern(2, 10 * MB)).all()
    # the number is not used again, and the receiver forgets it with the next
    third = end.sent(bytes(10 * MB))
    assert set(end.mapping._segments) == {2, 3}
    del second, third
    arena.trim()
    assert arena.counts == ArenaCounts(0, 0, 0)


def test_memory_that_is_short_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "_available_bytes", lambda: 20 * MB)
    arena = Arena(256 * MB)
    assert arena.place(bytes(12 * MB), "r") is None
    assert "the computer is short of memory" in caplog.text
    monkeypatch.setattr(module, "_available_bytes", lambda: 256 * MB)
    assert arena.place(bytes(12 * MB), "r") is None
    now += module.GROW_AGAIN_AFTER_S
    assert arena.place(bytes(12 * MB), "r") is not None
    # half of what there is, if that is enough for the value
    monkeypatch.setattr(module, "_available_bytes", lambda: 20 * MB)
    assert arena.place(bytes(6 * MB), "r") is not None
    assert arena.counts.mapped_bytes < 16 * MB + 7 * MB


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert MB < module._available_bytes() < sys.maxsize
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  2048 kB\n")
    assert module._available_bytes(tmp_path / "meminfo") == 2 * MB
    assert module._available_bytes(tmp_path / "none") == sys.maxsize


# --- receivers that are gone ------------------------------------------------------


def test_dropped_receiver_has_no_lease_left_and_others_keep_theirs(
    arena: Arena, end: End
) -> None:
    kept = np.asarray(end.sent(pattern(1, 10_000)))
    for _ in range(5):
        arena.place(bytes(10_000), "lost")
    arena.drop("lost")
    arena.drop("never seen")
    assert used(arena) == 3 * PAGE_BYTES
    for _ in range(10):
        end.sent(bytes(10_000))
    assert (kept == pattern(1, 10_000)).all()


def test_receiver_that_still_runs_keeps_what_it_reads(arena: Arena) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        first, second = (arena.place(bytes(10_000), "lost") for _ in range(2))
        arena.drop("lost", process.pid)
        assert used(arena) == 6 * PAGE_BYTES
        assert first is not None and second is not None
        assert arena.place(bytes(10_000), "other") not in (first, second)
        mapping = Mapping()
        mapping.add(1, os.dup(arena.segment_fd(1)))
        mapping.view(first).release()  # it returns leases as before
        assert used(arena) == 6 * PAGE_BYTES
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert used(arena) == 3 * PAGE_BYTES  # unreaped counts as ended
        arena.place(bytes(10_000), "again")
    finally:
        process.kill()
        process.communicate()
    arena.drop("again", process.pid)
    assert used(arena) == 3 * PAGE_BYTES


def test_leases_of_ended_processes_are_found_when_room_is_needed() -> None:
    arena = Arena(MB)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert arena.place(bytes(600_000), "lost") is not None
    arena.drop("lost", process.pid)
    assert arena.place(bytes(600_000), "r") is None
    process.kill()
    process.communicate()
    assert arena.place(bytes(600_000), "r") is not None


# --- what may come from the other side ---------------------------------------------


def memfd(size: int, seals: int, is_whole: bool = True) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if is_whole and size:
        os.posix_fallocate(fd, 0, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def plain_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(MB))
        file.flush()
        return os.dup(file.fileno())


SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
NO_SEGMENTS: dict[str, tuple[Callable[[], int], str]] = {
    "pipe": (lambda: os.dup(os.pipe()[0]), "no memfd"),
    "file": (plain_file, "no memfd"),
    "directory": (lambda: os.open("/", os.O_RDONLY), "no memfd"),
    "no seals": (lambda: memfd(MB, 0), "change its size"),
    "can shrink": (lambda: memfd(MB, SEALS & ~fcntl.F_SEAL_SHRINK), "change its size"),
    "empty": (lambda: memfd(0, SEALS), "of 0 bytes"),
    "one page": (lambda: memfd(PAGE_BYTES, SEALS), "of 4096 bytes"),
    "part of a page": (lambda: memfd(MB + 100, SEALS), "of 1048676 bytes"),
    "holes": (lambda: memfd(MB, SEALS, is_whole=False), "holes"),
    "huge": (lambda: memfd(1 << 62, SEALS, is_whole=False), "holes"),
}


@pytest.mark.parametrize("what", NO_SEGMENTS)
def test_what_is_no_segment_is_refused_and_closed(what: str) -> None:
    make, why = NO_SEGMENTS[what]
    fd = make()
    mapping = Mapping()
    with pytest.raises(RemoteProtocolError, match=why):
        mapping.add(1, fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(RemoteProtocolError, match="unknown"):
        mapping.view(Handle(1, PAGE_BYTES, 1, 1))


def test_segment_is_added_once_and_closed(arena: Arena) -> None:
    arena.place(b"1", "r")
    mapping = Mapping()
    fds = [os.dup(arena.segment_fd(1)) for _ in range(2)]
    mapping.add(1, fds[0])
    with pytest.raises(RemoteProtocolError, match="segment 1 besides 1 others"):
        mapping.add(1, fds[1])
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_number_of_segments_is_bounded() -> None:
    mapping = Mapping()
    held = []
    for number in range(MAX_SEGMENTS):
        segment, fd = make_segment(2 * PAGE_BYTES)
        segment.raw[0] = 1
        held.append(segment)
        mapping.add(number, fd)
    fd = make_segment(2 * PAGE_BYTES)[1]
    with pytest.raises(RemoteProtocolError, match="besides 64"):
        mapping.add(MAX_SEGMENTS, fd)
    for segment in held:
        segment.raw[0] = 0
    mapping.add(MAX_SEGMENTS, make_segment(2 * PAGE_BYTES)[1])
    assert len(mapping._segments) == 1


SIZE = FIRST_BYTES
NO_HANDLES = [
    (2, PAGE_BYTES, 10, 1),
    (-1, PAGE_BYTES, 10, 1),
    ("1", PAGE_BYTES, 10, 1),
    (1.0, PAGE_BYTES, 10, 1),
    (True, PAGE_BYTES, 10, 1),
    (1, 0, 10, 1),
    (1, PAGE_BYTES - 1, 10, 1),
    (1, -PAGE_BYTES, 10, 1),
    (1, SIZE - 9, 10, 1),
    (1, SIZE, 1, 1),
    (1, 1 << 70, 10, 1),
    (1, PAGE_BYTES, SIZE, 1),
    (1, PAGE_BYTES, -1, 1),
    (1, PAGE_BYTES, 1 << 70, 1),
    (1, None, 10, 1),
    (1, PAGE_BYTES, 10.0, 1),
    (1, PAGE_BYTES, 10, 0),
    (1, PAGE_BYTES, 10, -1),
    (1, PAGE_BYTES, 10, 2),
    (1, PAGE_BYTES, 10, PAGE_BYTES),
    (1, PAGE_BYTES, 10, 1 << 70),
    (1, PAGE_BYTES, 10, False),
    (1, PAGE_BYTES, 10, [1]),
]


@pytest.mark.parametrize("fields", NO_HANDLES, ids=str)
def test_handle_that_leads_nowhere_is_refused(
    arena: Arena, fields: tuple[Any, ...]
) -> None:
    arena.place(bytes(10), "r")
    mapping = Mapping()
    mapping.add(1, os.dup(arena.segment_fd(1)))
    with pytest.raises(RemoteProtocolError):
        mapping.view(Handle(*fields))
    assert used(arena) == PAGE_BYTES
    assert len(mapping.view(Handle(1, PAGE_BYTES, 10, 1))) == 10


def test_handle_at_the_very_end_of_a_segment(arena: Arena) -> None:
    handle = arena.place(bytes(10), "r")
    assert handle is not None
    mapping = Mapping()
    mapping.add(1, os.dup(arena.segment_fd(1)))
    assert len(mapping.view(handle._replace(offset=SIZE - 10))) == 10


def test_handle_is_good_once(arena: Arena, end: End) -> None:
    handle = arena.place(bytes(10), "r")
    end.view(handle)
    with pytest.raises(RemoteProtocolError, match="not held"):
        end.view(handle)


@pytest.mark.parametrize("byte", [0, 1, 2, 77])
def test_table_full_of_nonsense_harms_nobody_but_its_writer(byte: int) -> None:
    arena = Arena(MB)
    arena.place(bytes(100_000), "bad")
    with mmap.mmap(arena.segment_fd(1), MB) as memory:
        memory[:PAGE_BYTES] = bytes([byte]) * PAGE_BYTES
    arena.place(bytes(100_000), "bad")
    arena.drop("bad")
    assert used(arena) == 0
    end = End(arena)
    if byte:
        views = [np.asarray(end.sent(pattern(n, 90_000))) for n in range(9)]
        assert all((v == pattern(n, 90_000)).all() for n, v in enumerate(views))


def test_closed_mapping_leaves_views_as_they_are(arena: Arena, end: End) -> None:
    view = np.asarray(end.sent(pattern(4, 10_000)))
    end.mapping.close()
    with pytest.raises(RemoteProtocolError):
        end.sent(b"1")
    assert (view == pattern(4, 10_000)).all()
    arena.drop("end", os.getpid())
    assert used(arena) == 3 * PAGE_BYTES + PAGE_BYTES
    del view
    assert used(arena) == PAGE_BYTES


# --- processes -----------------------------------------------------------------


class Program:
    """One of the programs, and the socket to it."""

    def __init__(self, name: str) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(DEADLINE_S)
        with theirs:
            fd = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAMS), name, str(fd)],
                pass_fds=[fd],
                stderr=subprocess.PIPE,
                text=True,
            )

    def ask(self, message: Any, fd: int | None = None) -> Any:
        send(self.link, message, fd)
        return self.answer()

    def answer(self) -> Any:
        message, fd = receive(self.link)
        return message if fd is None else (message, fd)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> str:
        """Hang up, and return what it wrote to its standard error."""
        self.link.close()
        return self.process.communicate(timeout=DEADLINE_S)[1]


@pytest.fixture
def start() -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def start(name: str) -> Program:
        started.append(Program(name))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def inode(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def is_mapped(segment: tuple[int, int]) -> bool:
    """Return whether a process has a segment, mapped or as a descriptor."""
    number = f" {segment[1]} "
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:
            continue
        if any("memfd:opencluster" in line and number in line for line in lines):
            return True
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            status = link.stat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == segment:
            return True
    return False


def is_in_dev_shm(segment: tuple[int, int]) -> bool:
    return segment[0] == Path("/dev/shm").stat().st_dev


def test_another_process_reads_and_gives_back(
    arena: Arena, start: Callable[[str], Program]
) -> None:
    reader = start("read")
    block = pattern(6, 200_000)
    handle = arena.place(block, "reader")
    seen = reader.ask({"segment": 1, "view": {"a": handle}}, arena.segment_fd(1))
    assert seen == {"a": int(block.sum())}
    array = np.frombuffer(allocated(arena, 300_000), np.uint8)
    array[:] = pattern(7, 300_000)
    seen = reader.ask({"view": {"b": arena.place(array[5:], "reader")}})
    assert seen["b"] == int(array[5:].sum())
    del array
    assert used(arena) == (224 + 320) << 10
    reader.ask({"forget": ["b"]})
    assert used(arena) == 224 << 10
    reader.ask({"forget": ["a"]})
    assert used(arena) == 0
    assert reader.end() == ""


def test_reader_that_writes_is_ended_by_the_kernel(
    arena: Arena, start: Callable[[str], Program]
) -> None:
    reader = start("read")
    handle = arena.place(bytes(10_000), "reader")
    reader.ask({"segment": 1, "view": {"a": handle}}, arena.segment_fd(1))
    send(reader.link, {"write": "a"})
    assert reader.process.wait(DEADLINE_S) == -signal.SIGSEGV


def test_readers_that_are_killed_leave_nothing(
    start: Callable[[str], Program],
) -> None:
    arena = Arena(64 * MB)
    segments = set()
    for turn in range(6):
        reader = start("read")
        handles = {str(n): arena.place(pattern(n, 5 * MB), turn) for n in range(8)}
        assert all(handles.values())
        fds = {h.segment: arena.segment_fd(h.segment) for h in handles.values() if h}
        segments |= {inode(fd) for fd in fds.values()}
        for segment, fd in fds.items():
            reader.ask({"segment": segment}, fd)
        assert len(reader.ask({"view": handles})) == 8
        assert used(arena) == 8 * 5 * MB
        reader.process.send_signal(signal.SIGKILL)
        assert reader.link.recv(1) == b""
        arena.drop(turn, reader.process.pid)
        reader.process.wait(DEADLINE_S)
        assert used(arena) == 0
    assert arena.counts.mapped_bytes <= 64 * MB
    arena.close()
    gc.collect()
    assert not any(map(is_in_dev_shm, segments))
    assert not any(map(is_mapped, segments))


def test_writers_that_are_killed_leave_what_is_read_and_nothing_else(
    start: Callable[[str], Program],
) -> None:
    for _ in range(4):
        writer, mapping = start("write"), Mapping()
        handles, fd = writer.ask({"count": 3, "nbytes": 4 * MB})
        segment = inode(fd)
        mapping.add(1, fd)
        arrays = [np.asarray(mapping.view(Handle(*handle))) for handle in handles]
        writer.kill()
        mapping.close()
        assert is_mapped(segment)
        for number in (2, 1, 0):
            assert (arrays.pop() == pattern(number, 4 * MB)).all()
        assert not is_mapped(segment)


def test_limits_of_the_process_mean_no_room(start: Callable[[str], Program]) -> None:
    program = start("limited")
    for name in ("RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_NOFILE"):
        assert program.answer() == [name, None, 0]
    program.process.wait(DEADLINE_S)
    assert program.process.returncode == 0


def test_interpreter_ends_in_silence(start: Callable[[str], Program]) -> None:
    program = start("leave")
    assert program.answer() == "over"
    assert program.process.wait(DEADLINE_S) == 0
    assert program.end() == ""


def in_child(act: Callable[[], bool]) -> bool:
    """Return what a function returns in a child that is forked off."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = 0 if act() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_ends_no_lease_and_takes_no_memory(arena: Arena, end: End) -> None:
    held = [np.asarray(end.sent(pattern(1, 10_000))), allocated(arena, 10_000)]

    def act() -> bool:
        held.clear()
        gc.collect()
        return arena.place(bytes(10), "r") is None and arena.allocate(10) is None

    assert in_child(act)
    assert used(arena) == 6 * PAGE_BYTES
    held.clear()
    assert used(arena) == 0


# --- everything at once ----------------------------------------------------------


def play(arena: Arena, chance: random.Random, turns: int) -> int:
    """Make, place, read and forget; return for how much there was no room."""
    ends = [End(arena) for _ in range(3)]
    shown: list[tuple[int, Array]] = []
    refused = 0
    for number in (turn % 251 for turn in range(turns)):
        nbytes = chance.choice([100, 5000, 70_000, 100_000, 800_000, MB])
        block: Any = np.full(nbytes, number, np.uint8)
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
            arena.trim()
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
