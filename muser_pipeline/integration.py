"""Averages of frames: what files and images are made from.

Frames come one band and one hand at a time. Here they are brought together by time
into arrays that have an axis for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import (
    CHANNEL_WIDTH_HZ,
    CHANNELS,
    FRAME_PERIOD_NS,
    Array,
    load_array,
)
from muser_pipeline.errors import FrameValueError
from muser_pipeline.integration_kernels import add_frames
from muser_pipeline.raw import LEFT, RIGHT, SWITCHED_OFF, Frames
from muser_pipeline.raw.kernels import compiled

WEIGHT_OF_FRAME = CHANNEL_WIDTH_HZ * FRAME_PERIOD_NS * 1e-9
"""Bandwidth times integration time of one channel of one frame: 78125 hertz seconds.
The variance of a visibility goes with one over its weight."""
HANDS = (RIGHT, LEFT)
"""Polarisations in the order of their FITS codes -1, -2."""


@dataclass(frozen=True, eq=False)
class Visibilities:
    """Averaged visibilities of one array.

    Attributes
    ----------
    array : int
        1 or 2.
    time_utc_ns : ndarray of int64, shape (t,)
        Mean time of the frames of each average, of all bands and hands together: a loop
        has one time, though its frames are up to 25 (206) ms apart.
    start_utc_ns, end_utc_ns : ndarray of int64, shape (t,)
        Times of the first and the last frame of each average.
    bands : ndarray of int64, shape (k,)
        In ascending order.
    polarizations : tuple of str
        Of ``"RR"``, ``"LL"``, in this order; p of them.
    frequency_hz : ndarray of float64, shape (k, 16)
        Centres of channels.
    data : ndarray of complex64, shape (t, k, p, baseline, 16)
        Means; 0 where there is none. Signs as `muser_pipeline.geometry` says.
    weights : ndarray of float32, shape (t, k, p, baseline, 16)
        Frames averaged times bandwidth times frame period, hertz seconds; 0 where
        there is nothing or all is flagged.
    frames : ndarray of int64, shape (t, k, p)
        Frames that were averaged, flagged ones included.
    """

    array: int
    time_utc_ns: NDArray[np.int64]
    start_utc_ns: NDArray[np.int64]
    end_utc_ns: NDArray[np.int64]
    bands: NDArray[np.int64]
    polarizations: tuple[str, ...]
    frequency_hz: NDArray[np.float64]
    data: NDArray[np.complex64]
    weights: NDArray[np.float32]
    frames: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_utc_ns)

    @property
    def integration_s(self) -> NDArray[np.float64]:
        """Time that the fullest band and hand of each average was looked at."""
        fullest = self.frames.reshape(len(self), -1).max(axis=1)
        seconds: NDArray[np.float64] = fullest * (FRAME_PERIOD_NS * 1e-9)
        return seconds

    def describe(self) -> Array:
        """Return the description of the array."""
        return load_array(self.array)

    def at_times(self, which: slice) -> Visibilities:
        """Return some of the averages."""
        return replace(
            self,
            **{
                name: getattr(self, name)[which]
                for name in (
                    *("time_utc_ns", "start_utc_ns", "end_utc_ns"),
                    *("data", "weights", "frames"),
                )
            },
        )

    def in_band(self, band: int) -> Visibilities:
        """Return one band alone, without the times at which it has no frame.

        Raises
        ------
        FrameValueError
            When the band is not there.
        """
        place = np.flatnonzero(self.bands == band)
        if not place.size:
            raise FrameValueError(f"there is no band {band} but {self.bands.tolist()}")
        times = np.flatnonzero(self.frames[:, place[0]].any(axis=1))
        cells = np.ix_(times, place)
        return replace(
            self,
            time_utc_ns=self.time_utc_ns[times],
            start_utc_ns=self.start_utc_ns[times],
            end_utc_ns=self.end_utc_ns[times],
            bands=self.bands[place],
            frequency_hz=self.frequency_hz[place],
            data=self.data[cells],
            weights=self.weights[cells],
            frames=self.frames[cells],
        )


def single_frames(frames: Frames) -> Iterator[Visibilities]:
    """Yield each frame by itself, in order; those of unknown hand are left out.

    Raises
    ------
    FrameValueError
        When fringes run.
    """
    _check_fringes(frames)
    weights = np.where(frames.flags, np.float32(0), np.float32(WEIGHT_OF_FRAME))
    one = np.ones((1, 1, 1), dtype=np.int64)
    for n in range(len(frames)):
        hand = str(frames.polarization[n])
        if hand in HANDS:
            time = frames.time_utc_ns[n : n + 1]
            yield Visibilities(
                array=frames.array,
                time_utc_ns=time,
                start_utc_ns=time,
                end_utc_ns=time,
                bands=frames.band[n : n + 1],
                polarizations=(hand,),
                frequency_hz=frames.frequency_hz[n : n + 1],
                data=frames.visibilities[n][np.newaxis, np.newaxis, np.newaxis],
                weights=weights[n][np.newaxis, np.newaxis, np.newaxis],
                frames=one,
            )


def integrate(frames: Frames, interval_ns: int | None = None) -> Visibilities:
    """Return the averages of frames; see `Integrator`.

    Parameters
    ----------
    frames : Frames
        In order of time.
    interval_ns : int, optional
        Length of the averages; by default each loop (or pair of hands, in a fixed
        band) is one.
    """
    bands = sorted(set(frames.band.tolist()))
    hands = set(frames.polarization.tolist())
    integrator = Integrator(
        frames.array,
        bands=bands,
        polarizations=tuple(hand for hand in HANDS if hand in hands),
        interval_ns=interval_ns,
    )
    integrator.add(frames)
    return integrator.result()


def _check_fringes(frames: Frames) -> None:
    if np.any(frames.header["fringe"] == SWITCHED_OFF):
        raise FrameValueError("fringes run in these frames: correct_delays stops them")


@dataclass(eq=False)
class _Cell:
    """What has been added to one average."""

    sums: NDArray[np.complex64]
    counts: NDArray[np.float32]
    frames: NDArray[np.int64]
    start_ns: int
    end_ns: int
    time_sum_ns: int = 0
    """Sum of times after `start_ns`."""


@dataclass(eq=False)
class Integrator:
    """Adds up frames as they come.

    The average of a channel is that of the frames whose flag is not set. An interval
    begins at whole multiples of its length since 1970 UTC, so that what is averaged
    does not depend on where reading began. Without an interval, each loop is an
    average: a new one begins where the codes of band and hand do not go up, or a loop's
    time has passed; lost frames leave their place empty.

    Parameters
    ----------
    array : int
        1 or 2.
    bands : list of int
        The bands wanted, ascending; others are left out.
    polarizations : tuple of str
        Of ``"RR"`` and ``"LL"``; frames of other and unknown hands are left out.
    interval_ns : int, optional
        Length of an average.
    """

    array: int
    bands: list[int]
    polarizations: tuple[str, ...] = HANDS
    interval_ns: int | None = None
    _cells: dict[int, _Cell] = field(default_factory=dict, init=False)
    _targets: set[str] = field(default_factory=set, init=False)
    _loop: tuple[int, int, int] = field(default=(-1, -1, 0), init=False)

    def __post_init__(self) -> None:
        self._array = load_array(self.array)
        if self.interval_ns is not None and self.interval_ns <= 0:
            raise FrameValueError(f"an interval of {self.interval_ns} ns has no frames")

    def add(self, frames: Frames) -> None:
        """Add frames, which are in order of time and not before those added before.

        Raises
        ------
        FrameValueError
            When they are of the other array, not in order, of different targets, or
            when fringes run.
        """
        if frames.array != self.array:
            raise FrameValueError(f"frames of array {frames.array}, not {self.array}")
        if np.any(np.diff(frames.time_utc_ns) < 0):
            raise FrameValueError("frames are not in order of time")
        _check_fringes(frames)
        self._targets.update(frames.target.tolist())
        if len(self._targets) > 1:
            raise FrameValueError(
                f"frames of {' and '.join(sorted(self._targets))} have no average"
            )
        slots = self._slots(frames)
        averages = self._averages(frames)
        loop = compiled(add_frames)
        for number in np.unique(averages[slots >= 0]).tolist():
            members = np.flatnonzero((averages == number) & (slots >= 0))
            times = frames.time_utc_ns[members]
            cell = self._cell(number, int(times[0]))
            cell.end_ns = int(times[-1])
            cell.time_sum_ns += int((times - cell.start_ns).sum())
            np.add.at(cell.frames, slots[members], 1)
            loop(
                frames.visibilities,
                frames.flags,
                members,
                slots[members],
                cell.sums,
                cell.counts,
            )

    def result(self) -> Visibilities:
        """Return the averages of all that was added, in order of time.

        Raises
        ------
        FrameValueError
            When nothing was added.
        """
        cells = [self._cells[number] for number in sorted(self._cells)]
        if not cells:
            raise FrameValueError("there are no frames of these bands and hands")
        shape = (
            *(len(cells), len(self.bands), len(self.polarizations)),
            *(self._array.baselines, CHANNELS),
        )
        sums = np.stack([cell.sums for cell in cells])
        counts = np.stack([cell.counts for cell in cells])
        np.divide(sums, counts, out=sums, where=counts > 0)
        counts *= np.float32(WEIGHT_OF_FRAME)
        return Visibilities(
            array=self.array,
            time_utc_ns=np.array(
                [c.start_ns + c.time_sum_ns // int(c.frames.sum()) for c in cells]
            ),
            start_utc_ns=np.array([cell.start_ns for cell in cells]),
            end_utc_ns=np.array([cell.end_ns for cell in cells]),
            bands=np.array(self.bands),
            polarizations=self.polarizations,
            frequency_hz=self._array.channel_centres_hz(self.bands),
            data=sums.reshape(shape),
            weights=counts.reshape(shape),
            frames=np.stack([cell.frames for cell in cells]).reshape(shape[:3]),
        )

    def _cell(self, number: int, start_ns: int) -> _Cell:
        if number not in self._cells:
            slots = len(self.bands) * len(self.polarizations)
            shape = (slots, self._array.baselines, CHANNELS)
            self._cells[number] = _Cell(
                sums=np.zeros(shape, dtype=np.complex64),
                counts=np.zeros(shape, dtype=np.float32),
                frames=np.zeros(slots, dtype=np.int64),
                start_ns=start_ns,
                end_ns=start_ns,
            )
        return self._cells[number]

    def _slots(self, frames: Frames) -> NDArray[np.int64]:
        """Return the place of each frame among bands and hands, or -1."""
        places = np.full(len(self._array.bands), -1, dtype=np.int64)
        places[self.bands] = np.arange(len(self.bands))
        hands = np.full(len(frames), -1, dtype=np.int64)
        for place, hand in enumerate(self.polarizations):
            hands[frames.polarization == hand] = place
        band = places[frames.band]
        slots = band * len(self.polarizations) + hands
        return np.where((band >= 0) & (hands >= 0), slots, -1)

    def _averages(self, frames: Frames) -> NDArray[np.int64]:
        """Return the number of the average that each frame belongs to."""
        if self.interval_ns is not None:
            return np.asarray(frames.time_utc_ns // self.interval_ns)
        codes = 2 * frames.band + (frames.polarization != LEFT)
        is_known = np.isin(frames.polarization, HANDS)
        loop_ns = self._array.frames_per_loop * FRAME_PERIOD_NS
        number, last, start_ns = self._loop
        averages = np.empty(len(frames), dtype=np.int64)
        times = frames.time_utc_ns.tolist()
        for n, (code, time) in enumerate(zip(codes.tolist(), times, strict=True)):
            if not is_known[n]:
                averages[n] = number
                continue
            if code <= last or time - start_ns > loop_ns - FRAME_PERIOD_NS // 2:
                number, start_ns = number + 1, time
            averages[n], last = number, code
        self._loop = (number, last, start_ns)
        return averages
