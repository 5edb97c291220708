"""Values that were moved out of a worker's memory, as files.

Each process has a folder of its own, which it locks for as long as it lives. Whoever
makes a folder removes those whose owners have ended, however they ended. A file is
written under another name and renamed when it is whole; its length says whether it is.
It is read by mapping it, so that reading takes no memory that the system could not
have back.

======  ==============================================================
bytes   meaning
======  ==============================================================
0-7     ``OCSPILL1``
8-15    number of parts, little-endian as all numbers here
16...   length of each part in bytes, 8 bytes each
...     the parts, each from a multiple of `ALIGNMENT` on
======  ==============================================================

Owns files and folders. Must not decide what is written when.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

MAGIC = b"OCSPILL1"
ALIGNMENT = 64
"""Where parts begin: what the widest instructions of processors ask for."""
SYNC_BYTES = 128 << 20
"""After so much the written pages are given back: the point was to free memory."""
MAX_PARTS = 4096
"""Parts of one file; more than any value has."""
LOCK_NAME = "lock"
_MAX_IOVEC = 512


class Spill:
    """The folder of one process.

    Parameters
    ----------
    root : Path
        Where the folders of all processes lie. Nothing is made there before something
        is written.
    host : str
        The computer's name: other computers' folders are left alone.
    """

    def __init__(self, root: Path, host: str) -> None:
        self._root = root
        self._host = host
        self._pid = os.getpid()
        self._folder: Path | None = None
        self._lock_fd = -1

    def clear_leftovers(self) -> None:
        """Remove the folders of processes of this computer that have ended."""
        with suppress(OSError):
            if self._root.is_dir():
                with _locked(self._root):
                    self._clear()

    def write(self, id: bytes, parts: Sequence[Any]) -> None:
        """Write a value; it is whole on disk when this returns.

        Parameters
        ----------
        id : bytes
            Its identity.
        parts : sequence of bytes-like
            Contiguous memory, which is not copied.

        Raises
        ------
        OSError
            When that fails, such as for want of room; nothing is left of it then.
        """
        views = [memoryview(part).cast("B") for part in parts]
        path = self._make() / id.hex()
        draft = path.with_suffix(".part")
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write_all(fd, list(_layout(views)))
            finally:
                os.close(fd)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def read(self, id: bytes) -> list[memoryview]:
        """Return the parts of a value, read-only, as they lie in its file.

        They stay valid when the file is removed.

        Raises
        ------
        OSError
            When it is not here, or not whole.
        """
        if self._folder is None:
            raise FileNotFoundError(errno.ENOENT, "nothing was written")
        path = self._folder / id.hex()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise _torn(path)
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _parts_in(whole, path)

    def remove(self, id: bytes) -> None:
        """Remove a value's file, if there is one."""
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / id.hex()).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        if self._folder is None or self._pid != os.getpid():
            return
        _remove(self._folder)
        os.close(self._lock_fd)
        self._folder = None

    # --- inside --------------------------------------------------------------

    def _make(self) -> Path:
        """Return the folder, making it at first, and removing others' leftovers."""
        if self._folder is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(self._root):
                self._clear()
                name = f"{self._host}-{self._pid}-{os.urandom(4).hex()}"
                folder = self._root / name
                folder.mkdir(mode=0o700)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._lock_fd = os.open(folder / LOCK_NAME, flags, 0o600)
                _lock(self._lock_fd)
            self._folder = folder
        return self._folder

    def _clear(self) -> None:
        for folder in self._root.iterdir():
            is_of_here = folder.name.rsplit("-", 2)[0] == self._host
            if is_of_here and folder != self._folder and _is_left_over(folder):
                _remove(folder)
                log.info("removed %s, which a process left that has ended", folder)


def _remove(folder: Path) -> None:
    import shutil  # here, as most processes keep all their values in memory

    shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(folder: Path) -> bool:
    """Return whether nobody has a folder any more, which the root's lock makes sure."""
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Let one process at a time make and remove folders."""
    fd = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        # as on some parallel file systems: what a crash leaves there, stays
        log.warning(
            "leftovers of processes cannot be told from files in use: %s", error
        )


def _layout(views: Sequence[memoryview]) -> Iterator[memoryview]:
    """Yield what stands in a file, one behind the other."""
    lengths = [len(view) for view in views]
    head = MAGIC + struct.pack(f"<{1 + len(lengths)}Q", len(lengths), *lengths)
    for view in (memoryview(head), *views):
        yield view
        yield memoryview(bytes(-len(view) % ALIGNMENT))


def _write_all(fd: int, views: list[memoryview]) -> None:
    """Write all, however many calls it takes, and give the pages back."""
    views = [view for view in views if len(view)]
    unsynced = 0
    while views:
        done = os.writev(fd, views[:_MAX_IOVEC])
        unsynced += done
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]
        if unsynced >= SYNC_BYTES or not views:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            unsynced = 0


def _parts_in(whole: memoryview, path: Path) -> list[memoryview]:
    if whole[: len(MAGIC)] != MAGIC or len(whole) < 16:
        raise _torn(path)
    (count,) = struct.unpack_from("<Q", whole, 8)
    if count > MAX_PARTS or len(whole) < 16 + 8 * count:
        raise _torn(path)
    lengths = struct.unpack_from(f"<{count}Q", whole, 16)
    start = _aligned(16 + 8 * count)
    if start + sum(map(_aligned, lengths)) != len(whole):
        raise _torn(path)
    parts = []
    for length in lengths:
        parts.append(whole[start : start + length])
        start += _aligned(length)
    return parts


def _aligned(length: int) -> int:
    return length + -length % ALIGNMENT


def _torn(path: Path) -> OSError:
    return OSError(errno.EIO, "the file of a value is not whole", str(path))
