"""The frames of a time range, in order and each one once, from many files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.archive.loops import Loops, find_loops
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.raw.frames import Frames
from muser_pipeline.raw.meaning import HANDS
from muser_pipeline.raw.neighbours import LOSS_NS
from muser_pipeline.raw.reader import RawFile
from muser_pipeline.raw.scan import SkippedFrame


@dataclass(frozen=True)
class Gap:
    """A time without frames.

    Attributes
    ----------
    start_utc_ns, end_utc_ns : int
        The times of the frames before and after it, or the ends of the range.
    frames : int
        How many are missing.
    """

    start_utc_ns: int
    end_utc_ns: int
    frames: int


@dataclass(frozen=True)
class SkippedOf:
    """A frame that cannot be read, and the file that it is in."""

    path: Path
    frame: SkippedFrame


@dataclass(frozen=True, eq=False)
class Selection:
    """Frames of a time range, sorted by time, each time once.

    Attributes
    ----------
    array : int
        1 or 2.
    files : tuple of RawFile
        Where the frames are.
    file, index : ndarray of int64, shape (n,)
        For each frame its file, and its place among those that can be read there.
    time_utc_ns, band, hand : ndarray of int64, shape (n,)
        What each frame says; the hand is 0 for left, 1 for right and 2 if unknown.
    gaps : tuple of Gap
        Where frames are missing.
    repeated : int
        Frames that were left out since another has the same time.
    disputed : int
        Frames that were left out since another with the same time says that it is of
        another band or hand.
    out_of_order : int
        Frames that stood behind later ones.
    skipped : tuple of SkippedOf
        What could not be read in the files, also outside of the range.
    unreadable : tuple of (Path, str)
        Files that could not be read at all, and why.
    """

    array: int
    files: tuple[RawFile, ...]
    file: NDArray[np.int64]
    index: NDArray[np.int64]
    time_utc_ns: NDArray[np.int64]
    band: NDArray[np.int64]
    hand: NDArray[np.int64]
    gaps: tuple[Gap, ...]
    repeated: int
    disputed: int
    out_of_order: int
    skipped: tuple[SkippedOf, ...]
    unreadable: tuple[tuple[Path, str], ...] = ()

    def __len__(self) -> int:
        return len(self.time_utc_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def missing(self) -> int:
        """How many frames the gaps have."""
        return sum(gap.frames for gap in self.gaps)

    @property
    def polarization(self) -> NDArray[np.str_]:
        """``"LL"``, ``"RR"`` or ``"??"`` for each frame, shape (n,)."""
        return np.asarray(HANDS[self.hand])

    def loops(self) -> Loops:
        """Return which loop each frame belongs to; see `find_loops`."""
        return find_loops(
            self.time_utc_ns,
            self.band,
            self.hand,
            load_array(self.array).frames_per_loop,
        )

    def read(self, start: int = 0, stop: int | None = None) -> Frames:
        """Decode frames of the selection.

        Parameters
        ----------
        start, stop : int, optional
            As for a slice of a list; all of them by default.

        Raises
        ------
        FrameValueError
            When there are none, or when their files differ in layout.
        """
        return self.take(np.arange(len(self))[start:stop])

    def take(self, which: NDArray[np.int64]) -> Frames:
        """Decode chosen frames, in the order that is asked for.

        Parameters
        ----------
        which : ndarray of int64, shape (n,)
            Their places in the selection.
        """
        file, index = self.file[which], self.index[which]
        cuts = np.flatnonzero(np.diff(file)) + 1
        starts = [0, *cuts.tolist()] if len(file) else []
        parts = [
            self.files[file[start]].take(indices)
            for start, indices in zip(starts, np.split(index, cuts), strict=False)
        ]
        return Frames.concatenate(parts)

    def close(self) -> None:
        """Let go of the files."""
        for file in self.files:
            file.close()


def select_frames(
    files: Sequence[RawFile],
    array: int,
    start_utc_ns: int,
    end_utc_ns: int,
    bands: Sequence[int] | None,
    polarizations: Sequence[str] | None,
) -> Selection:
    """Choose frames from open files.

    Parameters
    ----------
    files : sequence of RawFile
        In order of their times.
    array : int
        1 or 2.
    start_utc_ns, end_utc_ns : int
        The range, its end not included.
    bands : sequence of int, optional
        Only these bands.
    polarizations : sequence of str, optional
        Only these polarisations.
    """
    lengths = [len(file) for file in files]
    where = np.repeat(np.arange(len(files)), lengths)
    index = np.concatenate([np.zeros(0, np.int64), *map(np.arange, lengths)])
    empty = np.zeros(0, dtype=np.int64)
    contents = [file.contents for file in files]
    time = np.concatenate([empty, *(each.time_utc_ns for each in contents)])
    band = np.concatenate([empty, *(each.band for each in contents)])
    hand = np.concatenate([empty, *(each.hand for each in contents)])

    inside = np.flatnonzero((time >= start_utc_ns) & (time < end_utc_ns))
    latest = np.maximum.accumulate(time[inside]) if len(inside) else empty
    out_of_order = int(np.count_nonzero(time[inside] < latest))
    order = inside[np.argsort(time[inside], kind="stable")]
    code = 3 * band[order] + hand[order]
    times, first, group, count = np.unique(
        time[order], return_index=True, return_inverse=True, return_counts=True
    )
    is_disputed = np.zeros(len(times), dtype=bool)
    is_disputed[group[code != code[first[group]]]] = True
    chosen = order[first[~is_disputed]]
    gaps = _gaps(time[chosen], start_utc_ns, end_utc_ns)
    if bands is not None:
        chosen = chosen[np.isin(band[chosen], bands)]
    if polarizations is not None:
        chosen = chosen[np.isin(HANDS[hand[chosen]], polarizations)]
    return Selection(
        array=array,
        files=tuple(files),
        file=where[chosen],
        index=index[chosen],
        time_utc_ns=time[chosen],
        band=band[chosen],
        hand=hand[chosen],
        gaps=gaps,
        repeated=int(np.sum(count[~is_disputed] - 1)),
        disputed=int(np.sum(count[is_disputed])),
        out_of_order=out_of_order,
        skipped=tuple(SkippedOf(f.path, each) for f in files for each in f.skipped),
    )


def _gaps(time: NDArray[np.int64], start: int, end: int) -> tuple[Gap, ...]:
    """Return the gaps between frames, and those at the ends of the range.

    At the ends, frames are missing for which there is room in the range.
    """
    if not len(time):
        return _gap(start, end, (end - start) // FRAME_PERIOD_NS)
    first, last = int(time[0]), int(time[-1])
    gaps = [*_gap(start, first, (first - start) // FRAME_PERIOD_NS)]
    steps = np.diff(time)
    for k in np.flatnonzero(steps > LOSS_NS):
        frames = round(int(steps[k]) / FRAME_PERIOD_NS) - 1
        gaps += _gap(int(time[k]), int(time[k + 1]), max(frames, 1))
    return (*gaps, *_gap(last, end, (end - last - 1) // FRAME_PERIOD_NS))


def _gap(start: int, end: int, frames: int) -> tuple[Gap, ...]:
    return (Gap(start, end, frames),) if frames > 0 else ()
