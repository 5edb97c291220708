"""Visibilities that must not be used."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import BEIJING_OFFSET_NS, read_table
from muser_pipeline.calibration.applying import slots_of
from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw import Frames

DEAD_BELOW = 0.05
"""Of the median antenna's power: less is no sky."""
SATURATED_ABOVE = 30.0
"""Times the median antenna's power: more is no sky either, as all look at the same."""
SATURATED_PART = 0.25
"""Of the parts of an antenna's correlations at an end of their range. A good antenna
has such a part for each saturated one, of 40 or 60."""
_LARGEST = float((1 << 23) - 1)
"""Of the parts of a correlation."""
OUTLIER = 8.0
"""Standard deviations. Noise alone goes beyond in one of 8e13 visibilities, if its
deviation is known exactly; that of few frames is not."""
ENOUGH_FRAMES = 8
"""Of one band and hand, to know what is usual."""
_MEDIAN_OF_RAYLEIGH = np.sqrt(2 * np.log(2))


def known_bad_inputs(array: int, time_utc_ns: int) -> list[int]:
    """Return the inputs that the observers list as bad at a time.

    Parameters
    ----------
    array : int
        1 or 2.
    time_utc_ns : int
        UTC since 1970; the latest list that is valid on this day in Beijing counts.

    Returns
    -------
    list of int
        From 0; empty before the first list.
    """
    date = np.datetime64(int(time_utc_ns) + BEIJING_OFFSET_NS, "ns").astype("M8[D]")
    found: list[int] = []
    for row in read_table("flags_known"):
        if int(row["array"]) == array and np.datetime64(row["valid_from"]) <= date:
            found = [int(each) for each in row["inputs"].split()]
    return found


def flag_inputs(frames: Frames, inputs: Iterable[int]) -> Frames:
    """Return frames with all baselines of some inputs flagged.

    Parameters
    ----------
    frames : Frames
        What is flagged stays flagged.
    inputs : iterable of int
        From 0. Idle ones have no baselines.

    Raises
    ------
    FrameValueError
        When there is no such input.
    """
    described = frames.describe()
    is_bad = np.zeros(described.inputs, dtype=bool)
    for each in inputs:
        if not 0 <= each < described.inputs:
            raise FrameValueError(f"{described.name} has no input {each}")
        is_bad[each] = True
    first, second = described.baseline_inputs()
    flags = frames.flags | (is_bad[first] | is_bad[second])[:, np.newaxis]
    return frames.replace(flags=flags)


def dead_inputs(frames: Frames, below: float = DEAD_BELOW) -> list[int]:
    """Return the antennas whose autocorrelations are far below those of the others.

    Each antenna's power is the median over frames of its power relative to the median
    antenna of the same frame and channel; with `below`, a fraction of it.

    Parameters
    ----------
    frames : Frames
        At least one.
    below : float, optional
        Fraction of the median antenna's power.

    Returns
    -------
    list of int
        Inputs, ascending.
    """
    dead: list[int] = np.flatnonzero(_relative_power(frames) < below).tolist()
    return dead


def saturated_inputs(frames: Frames, above: float = SATURATED_ABOVE) -> list[int]:
    """Return the antennas that are driven beyond what can be measured.

    An antenna is, whose power is far above that of the others (see `dead_inputs`), or
    most of whose correlations stand at an end of the range of 24 bits.

    Parameters
    ----------
    frames : Frames
        At least one, as recorded: with fringes as they are.
    above : float, optional
        Multiple of the median antenna's power.

    Returns
    -------
    list of int
        Inputs, ascending.
    """
    described = frames.describe()
    relative = _relative_power(frames)
    parts = np.abs(frames.visibilities.view(np.float32))
    share = np.zeros(described.antennas)
    if parts.max(initial=0.0) >= _LARGEST:
        clipped = (parts >= _LARGEST).mean(axis=(0, 2))
        for ends in described.baseline_inputs():
            np.add.at(share, ends, clipped)
        share /= described.antennas - 1
    is_saturated = (relative > above) | (share > SATURATED_PART)
    saturated: list[int] = np.flatnonzero(is_saturated).tolist()
    return saturated


def flag_outliers(frames: Frames, threshold: float = OUTLIER) -> Frames:
    """Return frames with visibilities flagged that are far from what is usual.

    For each band, hand, baseline and channel, the distance of a visibility from the
    median (of real and imaginary parts) is measured in units of the median distance
    over 1.177, which is the standard deviation of each part if they are noise; or in
    units of that of the baseline's median channel if this is more, because few frames
    can be alike by chance. What all
    baselines do at a time is the Sun, a burst for instance, and no fault: the limit is
    raised by the median distance over the baselines of the same frame and channel,
    where this is more than usual. Bands and hands with fewer than 8 frames are left
    as they are.

    Parameters
    ----------
    frames : Frames
        Delays corrected, else fringes make everything unusual.
    threshold : float, optional
        In standard deviations.
    """
    flags = frames.flags.copy()
    for _, _, members in slots_of(frames):
        if len(members) >= ENOUGH_FRAMES:
            flags[members] |= _outliers(
                frames.visibilities[members], frames.flags[members], threshold
            )
    return frames.replace(flags=flags)


def _relative_power(frames: Frames) -> NDArray[np.float64]:
    """Return the power of each antenna in units of the median antenna's."""
    antennas = frames.describe().antennas
    power = frames.autocorrelations[:, :, :antennas].astype(np.float64)
    usual = np.maximum(np.median(power, axis=2, keepdims=True), 1.0)
    relative: NDArray[np.float64] = np.median(power / usual, axis=(0, 1))
    return relative


def _outliers(
    visibilities: NDArray[np.complex64], flags: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_]:
    """Return what is unusual; all of shape (n, baseline, channel)."""
    # medians that leave out NaN take ten times as long
    median = np.nanmedian if flags.any() else np.median
    good = np.where(flags, np.complex64(complex(np.nan, np.nan)), visibilities)
    good[:, flags.all(axis=0)] = 0
    middle = median(good.real, axis=0) + 1j * median(good.imag, axis=0)
    distance = np.abs(good - middle)
    usual = median(distance, axis=0)
    usual = np.maximum(usual, np.median(usual, axis=1, keepdims=True))
    usual = np.maximum(usual, 1e-6 * np.abs(middle)) / _MEDIAN_OF_RAYLEIGH
    distance = np.where(usual > 0, distance / np.where(usual > 0, usual, 1), distance)
    distance = np.nan_to_num(distance)
    common = np.median(distance, axis=1, keepdims=True) / _MEDIAN_OF_RAYLEIGH
    found: NDArray[np.bool_] = distance > threshold * np.maximum(common, 1.0)
    return found
