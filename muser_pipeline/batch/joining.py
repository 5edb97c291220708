"""Averages of different times, bands and hands put together for one file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.integration import Visibilities


def join(
    parts: Sequence[Visibilities],
    interval_ns: int | None,
    bands: Sequence[int] | NDArray[np.int64],
    polarizations: Sequence[str],
) -> Visibilities:
    """Return visibilities that have all of several parts.

    What is of the same interval, but of other bands or hands, becomes one average with
    an axis for each; without intervals, each part has times of its own.

    Parameters
    ----------
    parts : sequence of Visibilities
        At least one; no band and hand of an average is in two of them.
    interval_ns : int or None
        Length of the averages.
    bands, polarizations : sequence
        Those of the whole, in its order, be they in a part or not.
    """
    keys = [_keys(part, interval_ns) for part in parts]
    times = np.unique(np.concatenate(keys))
    hands = tuple(polarizations)
    shape = (len(times), len(bands), len(hands), *parts[0].data.shape[3:])
    data = np.zeros(shape, dtype=np.complex64)
    weights = np.zeros(shape, dtype=np.float32)
    frames = np.zeros(shape[:3], dtype=np.int64)
    start = np.full(len(times), np.iinfo(np.int64).max)
    end = np.full(len(times), np.iinfo(np.int64).min)
    counts = np.zeros(len(times), dtype=np.int64)
    # sums of times of many frames have no room in 64 bits
    sums = [0] * len(times)
    for part, key in zip(parts, keys, strict=True):
        rows = np.searchsorted(times, key)
        cells = np.ix_(
            rows,
            np.searchsorted(bands, part.bands),
            np.array([hands.index(hand) for hand in part.polarizations]),
        )
        data[cells], weights[cells] = part.data, part.weights
        frames[cells] = part.frames
        np.minimum.at(start, rows, part.start_utc_ns)
        np.maximum.at(end, rows, part.end_utc_ns)
        of_part = part.frames.sum(axis=(1, 2))
        np.add.at(counts, rows, of_part)
        for row, time, count in zip(
            *(rows.tolist(), part.time_utc_ns.tolist(), of_part.tolist()), strict=True
        ):
            sums[row] += time * count
    return Visibilities(
        array=parts[0].array,
        time_utc_ns=np.array([sums[n] // int(counts[n]) for n in range(len(times))]),
        start_utc_ns=start,
        end_utc_ns=end,
        bands=np.array(bands),
        polarizations=hands,
        frequency_hz=parts[0].describe().channel_centres_hz(bands),
        data=data,
        weights=weights,
        frames=frames,
    )


def _keys(part: Visibilities, interval_ns: int | None) -> NDArray[np.int64]:
    """Return what is the same for the parts of one average."""
    if interval_ns is None:
        return part.start_utc_ns
    return np.asarray(part.time_utc_ns // interval_ns)
