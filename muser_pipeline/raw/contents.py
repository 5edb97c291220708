"""What the headers of a file say, and which of its frames can be believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.errors import RawFormatError
from muser_pipeline.raw.clock import decode_time
from muser_pipeline.raw.format import (
    ARRAY_TAGS,
    BANDWIDTH_25_MHZ,
    BANDWIDTHS_HZ,
    FORMATS,
)
from muser_pipeline.raw.header import Headers, gather_headers
from muser_pipeline.raw.meaning import (
    Meaning,
    find_layout,
    pair_hands,
    read_codes,
)
from muser_pipeline.raw.neighbours import odd_ones_out, out_of_time, slots
from muser_pipeline.raw.scan import STRETCH, Found, SkippedFrame, find_frames, let_go

Layout = Literal["auto", "old", "new"]


@dataclass(frozen=True, eq=False)
class Contents:
    """What the headers of a file say, of the frames that can be read.

    Attributes
    ----------
    array : int
        1 or 2.
    layout : str
        ``"old"`` or ``"new"``.
    number, offset : ndarray of int64, shape (n,)
        Places in the file, and where they begin in bytes.
    time_utc_ns, band, hand : ndarray of int64, shape (n,)
        As in `Frames`; the hand is an index of `HANDS`.
    is_loop : ndarray of bool, shape (n,)
        The frame is of a loop over all bands.
    header : mapping of str to ndarray, shape (n,)
        The words.
    skipped : tuple of SkippedFrame
        The frames that cannot be read.
    """

    array: int
    layout: str
    number: NDArray[np.int64]
    offset: NDArray[np.int64]
    time_utc_ns: NDArray[np.int64]
    band: NDArray[np.int64]
    hand: NDArray[np.int64]
    is_loop: NDArray[np.bool_]
    header: Mapping[str, NDArray[Any]]
    skipped: tuple[SkippedFrame, ...]


def read_contents(
    data: mmap | bytes, array: int, layout: Layout, new_layout_since: np.datetime64
) -> Contents:
    """Read all headers of a file, and sort out the frames that cannot be believed.

    Parameters
    ----------
    data : mmap or bytes
        The file.
    array : int
        Whose it is.
    layout, new_layout_since
        As for `open_raw`.

    Raises
    ------
    RawFormatError
        When no frame is left.
    """
    description = load_array(array)
    rest = _Candidates(data, find_frames(data, FORMATS[array].size), array)
    rest.drop_without_time()
    rest.drop(
        rest.heads["bandwidth"] != BANDWIDTH_25_MHZ,
        lambda heads: _of_bandwidth(int(heads["bandwidth"])),
    )
    rest.drop(
        out_of_time(rest.time_utc_ns, rest.number),
        lambda heads: f"its time {_time_of(heads)} does not fit those around it",
    )
    chosen = _choose(layout, new_layout_since, rest)
    if chosen == "new":
        others = [tag for each, tag in ARRAY_TAGS.items() if each != array]
        rest.drop(
            np.isin(rest.heads["array_tag"], others),
            lambda heads: f"array tag {heads['array_tag']:#06x} of the other array",
        )
    rest.drop(
        read_codes(rest.headers.words(chosen), description, chosen).band < 0,
        lambda heads: f"impossible band code {heads['band_code']:#06x}",
    )
    meaning = read_codes(rest.headers.words(chosen), description, chosen)
    hand, is_wrong = _hands(meaning, rest.time_utc_ns, chosen, array)
    keys = _steps(meaning, hand, rest.time_utc_ns, description.frames_per_loop)
    sure = np.flatnonzero(~is_wrong & ((hand < 2) | ~meaning.is_loop))
    is_wrong[sure] = odd_ones_out(keys[sure])
    rest.drop(is_wrong, lambda heads: "its band does not fit those around it")
    return Contents(
        array=array,
        layout=chosen,
        number=rest.number,
        offset=rest.offset,
        time_utc_ns=rest.time_utc_ns,
        band=meaning.band[~is_wrong],
        hand=hand[~is_wrong],
        is_loop=meaning.is_loop[~is_wrong],
        header=rest.headers.words(chosen),
        skipped=tuple(sorted(rest.skipped, key=lambda frame: frame.number)),
    )


class _Candidates:
    """The frames of a file that have passed all checks so far."""

    def __init__(self, data: mmap | bytes, found: Found, array: int) -> None:
        self.skipped = list(found.skipped)
        self.number = found.number
        self.offset = found.offset
        self._refuse_none()
        self.headers = _headers(data, found.offset, array)
        self.time_utc_ns = np.zeros(0, dtype=np.int64)

    @property
    def heads(self) -> NDArray[np.void]:
        return self.headers.heads

    def drop_without_time(self) -> None:
        """Drop frames that have no time, and give the others theirs."""
        times, is_valid = decode_time(self.heads["time"])
        self.time_utc_ns = times
        self.drop(~is_valid, lambda heads: f"time word {heads['time']:#018x}: no time")

    def drop(
        self, is_wrong: NDArray[np.bool_], reason: Callable[[np.void], str]
    ) -> None:
        """Drop frames, and note why.

        Parameters
        ----------
        is_wrong : ndarray of bool, shape (n,)
            Which ones.
        reason : callable
            Given the header of one, says why.
        """
        for k in np.flatnonzero(is_wrong):
            number, offset = int(self.number[k]), int(self.offset[k])
            self.skipped.append(SkippedFrame(number, offset, reason(self.heads[k])))
        keep = ~is_wrong
        self.number, self.offset = self.number[keep], self.offset[keep]
        self.headers = self.headers.select(keep)
        self.time_utc_ns = self.time_utc_ns[keep]
        self._refuse_none()

    def _refuse_none(self) -> None:
        if not len(self.number):
            first = min(self.skipped, key=lambda frame: frame.number)
            raise RawFormatError(f"no frame can be read; {first}")


def _headers(data: mmap | bytes, offset: NDArray[np.int64], array: int) -> Headers:
    """Return the headers at some places, without having all of the file in memory."""
    view = np.frombuffer(data, dtype=np.uint8)
    parts = []
    for first in range(0, len(offset), STRETCH):
        parts.append(gather_headers(view, offset[first : first + STRETCH], array))
        let_go(data)
    return Headers(
        array,
        np.concatenate([part.heads for part in parts]),
        np.concatenate([part.old_loop_code for part in parts]),
    )


def _choose(layout: Layout, new_layout_since: np.datetime64, rest: _Candidates) -> str:
    times = rest.time_utc_ns
    since_ns = int(new_layout_since.astype("datetime64[ns]").astype(np.int64))
    if layout != "auto":
        return layout
    if rest.headers.array != 1:
        return "new" if times[0] >= since_ns else "old"
    old, new = (rest.headers.words(each) for each in ("old", "new"))
    description = load_array(1)
    return find_layout(
        read_codes(old, description, "old"),
        read_codes(new, description, "new"),
        new["loop_code"].astype(np.int64),
        times,
        since_ns,
    )


def _hands(
    meaning: Meaning, time_ns: NDArray[np.int64], layout: str, array: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    hand = meaning.hand.copy()
    is_wrong = np.zeros(len(hand), dtype=bool)
    loop = meaning.is_loop
    if layout == "old" and array == 1 and loop.any():
        hand[loop], is_wrong[loop] = pair_hands(meaning.band[loop], time_ns[loop])
    return hand, is_wrong


def _steps(
    meaning: Meaning,
    hand: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    frames_per_loop: int,
) -> NDArray[np.int64]:
    """Return what stays the same from frame to frame.

    In a loop that is how far its code is ahead of the time in periods, else the band.
    """
    ahead = (2 * meaning.band + hand - slots(time_ns)) % frames_per_loop
    return np.where(meaning.is_loop, ahead, -1 - meaning.band)


def _of_bandwidth(code: int) -> str:
    if code in BANDWIDTHS_HZ:
        return f"channels of {BANDWIDTHS_HZ[code] / 1e6} MHz, only 25 MHz is supported"
    return f"bandwidth code {code:#010x} is unknown"


def _time_of(heads: np.void) -> np.datetime64:
    times, _ = decode_time(np.array([heads["time"]], dtype=np.uint64))
    return np.datetime64(int(times[0]), "ns")
