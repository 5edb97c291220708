"""One piece of memory that several processes see: made, mapped, and read in place.

A segment is a file without a name (a memfd), mapped by the process that made it and by
those that got its descriptor. It begins with a table of bytes, one for each lease: a
lease is the right to read one range of the segment, and whoever has it writes
`RETURNED` into its byte when the last object over that range is gone. The data follows
behind the table.

Nothing here has a name in /dev/shm or anywhere else. The kernel frees a segment with
the last process that maps it, however that ends: there is nothing to tidy up after a
crash, which is why there is no janitor, and the size of /dev/shm is no limit.

Owns memory and its layout; must not know who gets what.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from opencluster.core.slots import PAGE_BYTES
from opencluster.errors import RemoteProtocolError

MAX_SEGMENTS = 64
"""Segments that one process has at a time. Doubling keeps it far below this."""

STATE = 0
"""Place in the table that tells whether the segment is in use; leases follow."""

RETURNED, GIVEN, IN_USE, UNUSED = range(4)
"""What a byte of the table says about its lease: that nobody reads there any more, that
somebody may begin to, that somebody does, or that it is no lease now."""

MOST_OF_AVAILABLE = 0.5
"""Share of the memory available on the computer that a new segment takes at most."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_BLOCK_BYTES = 512
"""Unit of `st_blocks`."""


def table_bytes(size: int) -> int:
    """Return how long the table of a segment is: a lease for each page, whole pages."""
    return -(-size // PAGE_BYTES // PAGE_BYTES) * PAGE_BYTES


class Handle(NamedTuple):
    """Where a buffer lies, for who has a `Mapping` of the segment.

    Attributes
    ----------
    segment : int
        Number of the segment.
    offset, nbytes : int
        The range in there, in bytes.
    lease : int
        Place in the table of the segment that is marked when it was read.
    """

    segment: int
    offset: int
    nbytes: int
    lease: int


class Segment:
    """A segment as this process sees it.

    Attributes
    ----------
    size, data_start : int
        Its length, and that of the table before the data, in bytes.
    memory : mmap
        All of it.
    raw : memoryview
        All of it, the table first. The data can be written to where it was made.
    address : int
        Where it lies in this process.
    """

    __slots__ = ("_type", "address", "data_start", "memory", "pid", "raw", "size")

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.size = len(memory)
        self.data_start = table_bytes(self.size)
        self.raw = memoryview(memory)
        self.pid = os.getpid()
        self._type = _owner_type(self.size)
        self.address = ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))

    def view(self, offset: int, nbytes: int, lease: int) -> memoryview:
        """Return a range of it, and end the lease when nothing refers to that any more.

        Slices of the view, and arrays over it or over parts of it, refer to it too.
        """
        owner = self._type.from_buffer(self.memory)
        owner.segment = self
        owner.lease = lease
        return memoryview(owner).cast("B")[offset : offset + nbytes]

    def free_pages(self) -> None:
        """Give the memory behind the table back, whoever maps it; it reads as zeros."""
        length = self.size - self.data_start
        self.memory.madvise(mmap.MADV_REMOVE, self.data_start, length)


class _Owner(ctypes.Union):
    """What all views of one lease keep alive.

    A class of Python can lend memory from 3.12 on only; those of ctypes always could,
    and unions among them say that it is plain bytes.
    """

    __slots__ = ("lease", "segment")

    segment: Segment
    lease: int

    def __del__(self, getpid: Any = os.getpid) -> None:
        # A forked child has copies of the views, but not the lease. The argument is
        # there since names of the module may be gone when the interpreter ends.
        segment = getattr(self, "segment", None)
        if segment is not None and segment.pid == getpid():
            segment.raw[self.lease] = RETURNED


@lru_cache(maxsize=64)
def _owner_type(size: int) -> Any:
    fields = [("bytes", ctypes.c_ubyte * size)]
    return type("_Owner", (_Owner,), {"_fields_": fields, "__slots__": ()})


def make_segment(size: int) -> tuple[Segment, int]:
    """Make a segment.

    Parameters
    ----------
    size : int
        Its length in bytes, a multiple of `PAGE_BYTES`.

    Returns
    -------
    segment : Segment
    fd : int
        The descriptor for others.

    Raises
    ------
    OSError
        There is no memory for it, or a limit of the process forbids it.
    """
    if size > available_bytes() * MOST_OF_AVAILABLE:
        raise OSError(errno.ENOMEM, "the computer is short of memory")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    fd = os.memfd_create("opencluster", flags)
    try:
        os.ftruncate(fd, size)
        # Missing memory shall be an error here, and no signal when it is written to.
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        segment = Segment(mmap.mmap(fd, size))
    except BaseException:
        os.close(fd)
        raise
    return segment, fd


def available_bytes(path: Path = Path("/proc/meminfo")) -> int:
    """Return what could be taken without anything being swapped or killed."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return sys.maxsize


def open_segment(fd: int) -> Segment:
    """Map a segment that another process made, its data for reading only.

    Raises
    ------
    RemoteProtocolError
        It is no segment, or it could be cut off while it is read.
    OSError
        It cannot be mapped here.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise RemoteProtocolError("a segment that is no memfd") from None
    if seals & _SEALS != _SEALS:
        raise RemoteProtocolError("a segment that could change its size")
    status = os.fstat(fd)
    size = status.st_size
    if size < 2 * PAGE_BYTES or size % PAGE_BYTES:
        raise RemoteProtocolError(f"a segment of {size} bytes")
    if status.st_blocks * _BLOCK_BYTES < size:
        raise RemoteProtocolError("a segment with holes in it")
    segment = Segment(mmap.mmap(fd, size))
    length = size - segment.data_start
    if _mprotect(segment.address + segment.data_start, length, mmap.PROT_READ):
        raise OSError(ctypes.get_errno(), "mprotect")
    return segment


_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Buffer(ctypes.Structure):
    """`Py_buffer` of CPython, which alone tells where read-only memory lies."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("nbytes", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None


def address_of(data: memoryview) -> int:
    """Return where contiguous memory lies in this process; 0 if it has no bytes."""
    if not data.readonly and data.nbytes:
        return ctypes.addressof(ctypes.c_char.from_buffer(data))
    buffer = _Buffer()
    _get_buffer(data, buffer, 0)
    try:
        return buffer.address or 0
    finally:
        _release_buffer(buffer)
