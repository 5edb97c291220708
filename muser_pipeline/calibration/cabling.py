"""Cables that were plugged in at each other's place."""

from __future__ import annotations

import numpy as np

from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw import Frames


def exchange_inputs(frames: Frames, one: int, other: int) -> Frames:
    """Return frames as if two inputs had been plugged in at each other's place.

    The observers do this with inputs 14 and 15 of MUSER-I on 2014-12-17. Visibilities,
    flags and autocorrelations go with the antennas; delays stay with the inputs, which
    they were applied to, so that delays are to be corrected before.

    Parameters
    ----------
    frames : Frames
        Delays corrected.
    one, other : int
        Inputs with antennas.

    Raises
    ------
    FrameValueError
        When an input carries no antenna.
    """
    array = frames.describe()
    for each in (one, other):
        if not 0 <= each < array.antennas:
            raise FrameValueError(f"input {each} of {array.name} carries no antenna")
    order = np.arange(array.inputs)
    order[[one, other]] = other, one
    first, second = (order[inputs] for inputs in array.baseline_inputs())
    low, high = np.minimum(first, second), np.maximum(first, second)
    place = low * (2 * array.antennas - low - 1) // 2 + high - low - 1
    visibilities = frames.visibilities[:, place]
    turned = first > second
    visibilities[:, turned] = visibilities[:, turned].conj()
    return frames.replace(
        visibilities=visibilities,
        flags=frames.flags[:, place],
        autocorrelations=frames.autocorrelations[:, :, order],
    )
