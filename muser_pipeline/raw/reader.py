"""A file of raw frames, opened: its headers are read, its payload when asked for.

What a frame's header says is checked against its neighbours when the file is opened.
The payload has no checksum: a bit that flipped there gives another visibility, and
nobody can tell.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.errors import RawFormatError, WrongArrayError
from muser_pipeline.raw.contents import Contents, Layout, read_contents
from muser_pipeline.raw.format import ARRAY_TAGS, FORMATS, HEADER, HEADER_BYTES, SYNC
from muser_pipeline.raw.frames import Frames
from muser_pipeline.raw.meaning import HANDS, NEW_LAYOUT_SINCE
from muser_pipeline.raw.payload import decode_payload
from muser_pipeline.raw.scan import has_sync, let_go

RECEIVED = Path("received frames")
"""In place of a path in messages about frames that were never in a file."""
MOST_TRIED = 8
"""Syncs at the beginning of a file from which the distance to others is looked at."""


def open_raw(
    path: str | Path,
    layout: Layout = "auto",
    *,
    array: int | None = None,
    conjugate: bool = True,
    new_layout_since: np.datetime64 = NEW_LAYOUT_SINCE,
) -> RawFile:
    """Open a file of raw frames.

    Parameters
    ----------
    path : str or Path
        The file; its name does not matter.
    layout : {"auto", "old", "new"}, optional
        Where a frame of MUSER-I in a loop has its code, and whether headers have a
        target and an array tag. ``"auto"`` looks at the frames, and at their date when
        they do not tell.
    array : int, optional
        1 or 2, to refuse a file of the other array.
    conjugate : bool, optional
        Conjugate the visibilities of MUSER-II, whose spectrum is inverted. Public
        software disagrees; a scan of a calibrator must decide.
    new_layout_since : datetime64, optional
        UTC date of the first file of the new layout, for ``"auto"``.

    Returns
    -------
    RawFile
        To be closed, best by a ``with`` statement.

    Raises
    ------
    RawFormatError
        When no frame in the file can be read.
    WrongArrayError
        When the file is of the other array.
    OSError
        When the file cannot be opened.

    Warns
    -----
    LayoutWarning
        When the layout was guessed from the date.
    """
    _check_layout(layout)
    path = Path(path)
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            raise RawFormatError(f"{path}: the file is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _opened(path, data, layout, array, conjugate, new_layout_since)


def received_raw(
    data: bytes,
    layout: Layout = "auto",
    *,
    array: int | None = None,
    conjugate: bool = True,
    new_layout_since: np.datetime64 = NEW_LAYOUT_SINCE,
) -> RawFile:
    """Open raw frames that are in memory, such as those that came over a network.

    Parameters
    ----------
    data : bytes
        Frames back to back.
    layout, array, conjugate, new_layout_since
        As for `open_raw`.

    Returns
    -------
    RawFile
        Its path says that there is none.

    Raises
    ------
    RawFormatError, WrongArrayError
        As `open_raw`.
    """
    _check_layout(layout)
    if not data:
        raise RawFormatError(f"{RECEIVED}: there is nothing in them")
    return _opened(RECEIVED, data, layout, array, conjugate, new_layout_since)


def _check_layout(layout: Layout) -> None:
    if layout not in ("auto", "old", "new"):
        raise ValueError(f'layout is "auto", "old" or "new", not {layout!r}')


def _opened(
    path: Path,
    data: mmap.mmap | bytes,
    layout: Layout,
    array: int | None,
    conjugate: bool,
    new_layout_since: np.datetime64,
) -> RawFile:
    try:
        found = find_array(data)
        if array is not None and found != array:
            raise WrongArrayError(
                f"of {load_array(found).name}, not of {load_array(array).name}"
            )
        contents = read_contents(data, found, layout, new_layout_since)
    except RawFormatError as error:
        raise type(error)(f"{path}: {error}") from error
    return RawFile(path, data, contents, is_conjugated=found == 2 and conjugate)


class RawFile:
    """A file of raw frames; made by `open_raw`.

    Its length is the number of frames that can be read. Frames are counted without
    those that are in `skipped`, and stay in the order of the file.

    Attributes
    ----------
    path : Path
        The file.
    array : int
        1 for MUSER-I, 2 for MUSER-II.
    layout : str
        ``"old"`` or ``"new"``.
    contents : Contents
        What the headers say, without decoding the payload.
    skipped : tuple of SkippedFrame
        What could not be read: number, offset and reason.
    """

    def __init__(
        self,
        path: Path,
        data: mmap.mmap | bytes,
        contents: Contents,
        is_conjugated: bool,
    ) -> None:
        self.path = path
        self.array = contents.array
        self.layout = contents.layout
        self.contents = contents
        self.skipped = contents.skipped
        self._data = data
        self._is_conjugated = is_conjugated

    def __len__(self) -> int:
        return len(self.contents.offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; frames that were read stay."""
        # an error on its way up may still look at the file, which then goes with it
        if isinstance(self._data, mmap.mmap):
            with suppress(BufferError):
                self._data.close()

    @property
    def time_utc_ns(self) -> NDArray[np.int64]:
        """Times of the frames, shape (n,), nanoseconds since 1970-01-01 UTC."""
        return self.contents.time_utc_ns

    @property
    def band(self) -> NDArray[np.int64]:
        """Bands of the frames, shape (n,)."""
        return self.contents.band

    @property
    def polarization(self) -> NDArray[np.str_]:
        """Polarisations of the frames, shape (n,): ``"LL"``, ``"RR"`` or ``"??"``."""
        return np.asarray(HANDS[self.contents.hand])

    def read(self, start: int = 0, stop: int | None = None) -> Frames:
        """Decode consecutive frames.

        Parameters
        ----------
        start, stop : int, optional
            As for a slice of a list; all of them by default.
        """
        return self.take(np.arange(len(self))[start:stop])

    def take(self, which: NDArray[np.int64]) -> Frames:
        """Decode chosen frames.

        Parameters
        ----------
        which : ndarray of int64, shape (n,)
            Their indices, in any order.

        Raises
        ------
        RawFormatError
            When the file has become shorter since it was opened.
        """
        contents = self.contents
        array = load_array(self.array)
        # what is not there any more cannot be looked at, and would end the process
        if isinstance(self._data, mmap.mmap) and self._data.size() < len(self._data):
            raise RawFormatError(
                f"{self.path} was cut to {self._data.size()} bytes while it was read"
            )
        band = contents.band[which]
        payload = decode_payload(
            np.frombuffer(self._data, dtype=np.uint8),
            contents.offset[which],
            self.array,
            self._is_conjugated,
        )
        let_go(self._data)
        first, second = array.baseline_inputs()
        is_bad = np.isnan(payload.delay_ns)
        flags = np.zeros(payload.visibilities.shape, dtype=bool)
        if is_bad.any():
            flags |= (is_bad[:, first] | is_bad[:, second])[..., np.newaxis]
        return Frames(
            array=self.array,
            layout=self.layout,
            time_utc_ns=contents.time_utc_ns[which],
            band=band,
            polarization=np.asarray(HANDS[contents.hand[which]]),
            frequency_hz=array.channel_centres_hz(band),
            visibilities=payload.visibilities,
            autocorrelations=payload.autocorrelations,
            delay_ns=payload.delay_ns,
            flags=flags,
            header={name: words[which] for name, words in contents.header.items()},
            number=contents.number[which],
            is_conjugated=self._is_conjugated,
        )


def find_array(data: mmap.mmap | bytes) -> int:
    """Return which array a file is of, by the distances between its frames.

    Parameters
    ----------
    data : mmap or bytes
        The file.

    Raises
    ------
    RawFormatError
        When there is no frame, or when it cannot be told.
    """
    first = start = data.find(SYNC)
    if first < 0:
        raise RawFormatError("no frame of MUSER is in it: there is no sync")
    # bytes may be lost just behind the first one, so that no other is at its distance
    for _ in range(MOST_TRIED):
        last = start
        while data[last + len(SYNC) : last + len(SYNC) + 1] == SYNC[:1]:
            last += 1
        votes = {
            array: max(_share_with_sync(data, at, form.size) for at in (start, last))
            for array, form in FORMATS.items()
        }
        if votes[1] != votes[2]:
            return 1 if votes[1] > votes[2] else 2
        start = data.find(SYNC, last + 1)
        if start < 0:
            break
    rest = len(data) - first
    head = data[first : first + HEADER_BYTES]
    tag = -1
    if len(head) == HEADER_BYTES:
        tag = int(np.frombuffer(head, HEADER)["array_tag"][0])
    may_be = [
        array
        for array, form in FORMATS.items()
        if tag == ARRAY_TAGS[array] and rest >= form.size
    ]
    exact = [array for array, form in FORMATS.items() if rest == form.size]
    if not may_be + exact:
        raise RawFormatError(f"no whole frame of an array is in its {len(data)} bytes")
    return (may_be + exact)[0]


def _share_with_sync(data: mmap.mmap | bytes, first: int, size: int) -> float:
    """Return how many of the places where frames would begin after one have a sync."""
    following = has_sync(data, size, first + size)
    return float(np.sum(following)) / max(1, len(following))
