"""The raw files of an archive: what they are and which times they hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from muser_pipeline.archive.selection import Selection, select_frames
from muser_pipeline.errors import RawFormatError
from muser_pipeline.raw.clock import decode_time
from muser_pipeline.raw.contents import Layout
from muser_pipeline.raw.format import FORMATS, HEADER, HEADER_BYTES, SYNC
from muser_pipeline.raw.meaning import NEW_LAYOUT_SINCE
from muser_pipeline.raw.neighbours import FILE_SPAN_NS
from muser_pipeline.raw.reader import RawFile, open_raw

RAW_NAME = re.compile(r"\d{8}-\d{4}(\d{2})?|CSRH_\d{8}-\d{6}_\d+")
"""Names of raw files that were seen in archives. The time in them is not believed."""
MARGIN_NS = 10**9
"""So far outside of the first and the last frame may others of a file lie."""


@dataclass(frozen=True)
class ArchiveFile:
    """A raw file of an archive.

    Attributes
    ----------
    path : Path
        Where it is.
    array : int
        1 or 2.
    first_utc_ns, last_utc_ns : int
        The times of its first and its last frame.
    """

    path: Path
    array: int
    first_utc_ns: int
    last_utc_ns: int


@dataclass(frozen=True)
class Archive:
    """The raw files of one array below a directory, by time.

    Attributes
    ----------
    array : int
        1 or 2.
    files : tuple of ArchiveFile
        Sorted by the times of their first frames.
    unreadable : tuple of (Path, str)
        Files that look like raw ones by their names, and what is wrong with them.
    """

    array: int
    files: tuple[ArchiveFile, ...]
    unreadable: tuple[tuple[Path, str], ...]

    def select(
        self,
        start_utc_ns: int,
        end_utc_ns: int,
        *,
        bands: Sequence[int] | None = None,
        polarizations: Sequence[str] | None = None,
        layout: Layout = "auto",
        conjugate: bool = True,
        new_layout_since: np.datetime64 = NEW_LAYOUT_SINCE,
    ) -> Selection:
        """Return the frames of a time range.

        A file that cannot be read any more leaves a gap, and is named.

        Parameters
        ----------
        start_utc_ns, end_utc_ns : int
            The range in nanoseconds since 1970-01-01 UTC, its end not included.
        bands : sequence of int, optional
            Only these bands.
        polarizations : sequence of str, optional
            Only these polarisations.
        layout, conjugate, new_layout_since
            As for `open_raw`.

        Returns
        -------
        Selection
            To be closed.
        """
        files: list[RawFile] = []
        unreadable = []
        for file in self.files:
            is_before = file.last_utc_ns < start_utc_ns - MARGIN_NS
            if is_before or file.first_utc_ns >= end_utc_ns + MARGIN_NS:
                continue
            try:
                raw = open_raw(
                    file.path,
                    layout,
                    array=self.array,
                    conjugate=conjugate,
                    new_layout_since=new_layout_since,
                )
            except (OSError, RawFormatError) as error:
                unreadable.append((file.path, str(error)))
            else:
                files.append(raw)
        chosen = select_frames(
            files, self.array, start_utc_ns, end_utc_ns, bands, polarizations
        )
        return replace(chosen, unreadable=tuple(unreadable))


def index_archive(root: str | Path, array: int) -> Archive:
    """Look for the raw files of an array below a directory.

    Only the first and the last frame of each file are looked at.

    Parameters
    ----------
    root : str or Path
        A directory, as deep as one likes, or a single raw file of any name.
    array : int
        1 or 2; files of the other one are passed over.

    Raises
    ------
    FileNotFoundError
        When there is no such directory or file.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"there is no archive {root}")
    files, unreadable = [], []
    for path in _raw_files(root):
        try:
            found = _look_at(path)
        except (OSError, RawFormatError) as error:
            unreadable.append((path, str(error)))
        else:
            if found.array == array:
                files.append(found)
    files.sort(key=lambda file: (file.first_utc_ns, file.path))
    return Archive(array, tuple(files), tuple(unreadable))


def _raw_files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(folder, n) for n in sorted(names) if RAW_NAME.fullmatch(n))


def _look_at(path: Path) -> ArchiveFile:
    """Return what a file is, from its first and last frame if those are whole."""
    size = path.stat().st_size
    for array, form in FORMATS.items():
        if size == 0 or size % form.size:
            continue
        with path.open("rb") as file:
            heads = []
            for at in {0, form.size, size - form.size} - {size}:
                file.seek(at)
                heads.append(file.read(HEADER_BYTES))
        words = np.frombuffer(b"".join(heads), HEADER)
        times, is_time = decode_time(words["time"].astype(np.uint64))
        is_sync = [head.startswith(SYNC) for head in heads]
        first, last = int(times.min()), int(times.max())
        if all(is_sync) and is_time.all() and last - first < FILE_SPAN_NS:
            return ArchiveFile(path, array, first, last)
    with open_raw(path) as raw:
        times = raw.time_utc_ns
        return ArchiveFile(path, raw.array, int(times.min()), int(times.max()))
