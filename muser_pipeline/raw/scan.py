"""Finding the frames of a file by their sync, whatever has happened to the bytes.

Frames follow each other without gaps, so one is trusted only if the next one begins
where it ends, or if the distance to the next one that can be found is a whole number
of frames. Where bytes were lost or added, the frame that they belong to is given up
and the next sync is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import MADV_DONTNEED, mmap

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.raw.clock import decode_time
from muser_pipeline.raw.format import HEADER, HEADER_BYTES, SYNC

STRETCH = 128
"""Frames that are looked at before their pages are let go."""


@dataclass(frozen=True)
class SkippedFrame:
    """A frame that could not be read.

    Attributes
    ----------
    number : int
        Its place in the file, from 0.
    offset : int
        Where it begins, bytes.
    reason : str
        What is wrong with it.
    """

    number: int
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"frame {self.number} at byte {self.offset}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """The frames of a file.

    Attributes
    ----------
    number : ndarray of int64, shape (n,)
        Places of the frames in the file, those of skipped ones left out.
    offset : ndarray of int64, shape (n,)
        Where they begin, bytes.
    skipped : tuple of SkippedFrame
        The others.
    """

    number: NDArray[np.int64]
    offset: NDArray[np.int64]
    skipped: tuple[SkippedFrame, ...]


def find_frames(data: mmap | bytes, size: int) -> Found:
    """Return where the frames of a file are.

    Parameters
    ----------
    data : mmap or bytes
        The file.
    size : int
        Bytes of a frame.
    """
    if len(data) % size == 0 and has_sync(data, size).all():
        n = len(data) // size
        places = np.arange(n, dtype=np.int64)
        return Found(places, places * size, ())
    number, offset, skipped = [], [], []
    for place, (at, reason) in enumerate(_walk(data, size)):
        if reason:
            skipped.append(SkippedFrame(place, at, reason))
        else:
            number.append(place)
            offset.append(at)
    return Found(
        np.array(number, dtype=np.int64),
        np.array(offset, dtype=np.int64),
        tuple(skipped),
    )


def has_sync(data: mmap | bytes, size: int, start: int = 0) -> NDArray[np.bool_]:
    """Tell of each place where a frame may begin, `size` apart, whether one does.

    Parameters
    ----------
    data : mmap or bytes
        The file.
    size : int
        Bytes of a frame.
    start : int, optional
        Where the first one would begin.

    Returns
    -------
    ndarray of bool, shape (n,)
        For as many places as have room for a sync.
    """
    room = len(data) - start - len(SYNC)
    n = room // size + 1 if room >= 0 else 0
    if n == 0:
        return np.zeros(0, dtype=bool)
    heads = np.ndarray(
        (n, len(SYNC)), np.uint8, buffer=data, offset=start, strides=(size, 1)
    )
    found = np.empty(n, dtype=bool)
    for first in range(0, n, STRETCH):
        some = slice(first, first + STRETCH)
        found[some] = (heads[some] == SYNC[0]).all(axis=1)
        let_go(data)
    return found


def let_go(data: mmap | bytes) -> None:
    """Take a file out of this process's memory; the system may go on caching it."""
    if isinstance(data, mmap):
        data.madvise(MADV_DONTNEED)


def _walk(data: mmap | bytes, size: int) -> Iterator[tuple[int, str]]:
    """Yield the offset of each frame, and what is wrong with it if anything is."""
    end = len(data)
    is_first = _begins(data, 0) and (_begins(data, size) or _has_time(data, 0))
    at = 0 if is_first else _next_sync(data, 1, size)
    if at < 0:
        yield 0, "no sync in the file"
        return
    yield from _without_sync(0, at, size)
    while at < end:
        if at + size > end:
            yield at, f"cut short: {end - at} of {size} bytes before the file ends"
            return
        if _begins(data, at + size):
            yield at, ""
            at += size
            continue
        following = _next_sync(data, at + len(SYNC), size)
        what = "the next sync" if following >= 0 else "the end of the file"
        following = following if following >= 0 else end
        between = following - at - size
        if between < 0:
            yield at, f"cut short: the next frame begins after {following - at} bytes"
        elif between % size:
            yield at, f"{between} bytes lie between the end of the frame and {what}"
        else:
            yield at, ""
        yield from _without_sync(at + size, following, size)
        at = following


def _without_sync(start: int, stop: int, size: int) -> Iterator[tuple[int, str]]:
    for at in range(start, stop, size):
        yield at, "wrong sync"


def _begins(data: mmap | bytes, at: int) -> bool:
    """Tell whether a frame, or the little of it that is there, begins at a place."""
    there = data[at : at + len(SYNC)]
    return there == SYNC[: len(there)]


def _next_sync(data: mmap | bytes, start: int, size: int) -> int:
    """Return where the next frame begins, or -1.

    What follows a true sync is a time, and a frame later another sync. If bytes before
    it are alike, it may seem to begin earlier; without that other sync, the last place
    with a time is taken.
    """
    found = -1
    at = data.find(SYNC, start)
    while at >= 0:
        if _has_time(data, at):
            if _begins(data, at + size):
                return at
            found = at
        following = data.find(SYNC, at + 1)
        if found >= 0 and following != at + 1:
            return found
        at = following
    return found


def _has_time(data: mmap | bytes, at: int) -> bool:
    head = data[at : at + HEADER_BYTES]
    if len(head) < HEADER_BYTES:
        return True
    words = np.frombuffer(head, HEADER)["time"].astype(np.uint64)
    return bool(decode_time(words)[1][0])
