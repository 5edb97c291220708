"""What the processes print: rotating log files, and their last lines.

Owns the bytes between a process's pipe and its log file. A full disk costs output and
nothing else: writing never raises. Must not interpret what is printed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

TAIL_LINES = 50
TAIL_BYTES = 16 * 1024
"""Output kept in memory for each process, for the message about its death."""
READ_BYTES = 64 * 1024
READ_TAIL_BYTES = 4 * 1024 * 1024
"""Most that `read_tail` looks at, however long the lines are."""


class OutputLog:
    """The log file of one process, rotated by size.

    Parameters
    ----------
    path : Path
        The newest file; older ones are ``path.1``, ``path.2`` and so on.
    max_bytes : int
        Size that no file exceeds, 1 at least.
    files : int
        Files kept, the newest included, 1 at least.
    tail_lines : int
        Last lines kept in memory, in `TAIL_BYTES` at most.

    Attributes
    ----------
    lost_bytes : int
        Output that could not be written.
    """

    def __init__(
        self, path: Path, max_bytes: int, files: int, tail_lines: int = TAIL_LINES
    ) -> None:
        self.path = path
        self.lost_bytes = 0
        self._max_bytes = max(1, max_bytes)
        self._files = max(1, files)
        self._tail_lines = tail_lines
        self._recent = bytearray()
        self._fd = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append output; what cannot be written is counted and reported once."""
        self._recent += data[-TAIL_BYTES:]
        del self._recent[:-TAIL_BYTES]
        left = memoryview(data)
        try:
            while left:
                self._make_room()
                written = os.write(self._fd, left[: self._max_bytes - self._size])
                self._size += written
                left = left[written:]
        except OSError as error:
            if not self.lost_bytes:
                log.warning("output is lost, cannot write %s: %s", self.path, error)
            self.lost_bytes += len(left)

    def pump(self, fd: int, limit_bytes: int) -> int | None:
        """Move output from a non-blocking descriptor into the log.

        Parameters
        ----------
        fd : int
            Read end of a pipe.
        limit_bytes : int
            Most to read in this call, so that nobody who prints a lot can keep the
            caller from its other duties.

        Returns
        -------
        int or None
            Bytes that were read, 0 when there are none now, or ``None`` at the end.
        """
        moved = 0
        while moved < limit_bytes:
            try:
                data = os.read(fd, min(READ_BYTES, limit_bytes - moved))
            except BlockingIOError:
                break
            if not data:
                return moved or None
            self.write(data)
            moved += len(data)
        return moved

    def tail(self) -> str:
        """Return the last lines of this process's output."""
        return _last_lines(bytes(self._recent), self._tail_lines)

    def close(self) -> None:
        """Close the file; the tail stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make_room(self) -> None:
        """Have a file open that is not full."""
        if self._fd < 0:
            self._open()
        if self._size >= self._max_bytes:
            self.close()
            self._rotate()
            self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        names = list(itertools.islice(_names(self.path), self._files))
        for newer, older in reversed(list(itertools.pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self.path.unlink(missing_ok=True)


def read_tail(path: Path, lines: int) -> str:
    """Return the last lines of a log, from its rotated files too if need be.

    Lines end in a newline, the last one only if it is complete. Empty when there is no
    such log.
    """
    return _last_lines(_read_back(path, lines), lines)


def _names(path: Path) -> Iterator[Path]:
    """Yield the names of a log's files, newest first, without end."""
    yield path
    for number in itertools.count(1):
        yield path.with_name(f"{path.name}.{number}")


def _existing(path: Path) -> Iterator[Path]:
    """Yield a log's files, newest first; the first may be missing during a rotation."""
    for number, name in enumerate(_names(path)):
        if number and not name.exists():
            return
        yield name


def _last_lines(data: bytes, count: int) -> str:
    lines = data.decode(errors="replace").splitlines(keepends=True)
    return "".join(lines[-count:]) if count > 0 else ""


def _read_back(path: Path, lines: int) -> bytes:
    """Return enough of the end of a log to hold so many lines."""
    found = b""
    for name in _existing(path):
        if lines <= 0 or found.count(b"\n") > lines or len(found) >= READ_TAIL_BYTES:
            break
        with contextlib.suppress(FileNotFoundError), name.open("rb") as file:
            stop = file.seek(0, os.SEEK_END)
            start = max(0, stop - (READ_TAIL_BYTES - len(found)))
            file.seek(start)
            found = file.read(stop - start) + found
    return found
