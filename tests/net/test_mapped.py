"""What comes from the other side is checked before it is read."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from arena_tools import MB, End, pattern, used

from opencluster.core.slots import PAGE_BYTES
from opencluster.errors import RemoteProtocolError
from opencluster.net.arena import FIRST_BYTES, Arena, Handle, Mapping
from opencluster.net.segments import MAX_SEGMENTS, make_segment


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(256 * MB)
    yield made
    made.close()


@pytest.fixture
def end(arena: Arena) -> End:
    return End(arena)


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
    with pytest.raises(RemoteProtocolError, match="not given"):
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
    assert used(arena) == 3 * PAGE_BYTES
    del view
    assert used(arena) == 0
