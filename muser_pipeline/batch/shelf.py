"""Raw files that pieces of one request look into again and again.

To open a file means to read and judge the headers of all its frames. What came of that
is kept; the file itself is mapped anew for each piece, so that a process does not hold
on to a disk, nor seem to have all of a file in its memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

from muser_pipeline.archive.selection import Selection, select_frames
from muser_pipeline.batch.request import Request
from muser_pipeline.errors import RawFormatError
from muser_pipeline.raw import Contents, RawFile, open_raw

KEPT = 3
"""Files whose headers are kept: a piece may begin in one and end in the next."""

_Key = tuple[Path, int, int, str]


class Shelf:
    """Opens raw files, and remembers what their headers say."""

    def __init__(self) -> None:
        self._known: dict[_Key, Contents] = {}

    def select(
        self, paths: Iterable[Path], request: Request, start_ns: int, end_ns: int
    ) -> tuple[Selection, dict[Path, str]]:
        """Return the frames of a time range, of all bands and hands.

        Parameters
        ----------
        paths : iterable of Path
            The files, in order of their times.
        request : Request
            How they are read.
        start_ns, end_ns : int
            The range, its end not included.

        Returns
        -------
        selection : Selection
            To be closed.
        unreadable : dict of Path to str
            Files that cannot be read, and why.
        """
        files, unreadable = [], {}
        for path in paths:
            try:
                files.append(self._open(path, request))
            except (OSError, RawFormatError) as error:
                unreadable[path] = _reason(error)
        found = select_frames(files, request.array, start_ns, end_ns, None, None)
        return found, unreadable

    def _open(self, path: Path, request: Request) -> RawFile:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns, request.layout)
        is_conjugated = request.array == 2 and request.conjugate
        contents = self._known.pop(key, None)
        if contents is None:
            with open_raw(path, request.layout, array=request.array) as raw:
                contents = raw.contents
        self._known[key] = contents
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_READ)
        return RawFile(path, data, contents, is_conjugated)


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, without its place in the directory tree."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rpartition("/")[2]
