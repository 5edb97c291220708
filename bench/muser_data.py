"""Raw frames to measure with: a burst beside the quiet Sun, fringes left to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muser_pipeline.array import load_array
from muser_pipeline.calibration import static_delays_ns
from muser_pipeline.simulator import (
    Instrument,
    Observation,
    Sky,
    SkySource,
    simulate,
)

START_NS = int(np.datetime64("2015-11-01T04:00:00", "ns").astype(np.int64))


def make_archive(array: int, frames: int, folder: Path) -> Path:
    """Write frames, and return the file.

    Parameters
    ----------
    array : int
        1 or 2.
    frames : int
        How many, from `START_NS` on.
    folder : Path
        Of the archive.
    """
    static = static_delays_ns(1, START_NS) if array == 1 else None
    instrument = Instrument.random(
        load_array(array), np.random.default_rng(array), static_delays_ns=static
    )
    sky = Sky((SkySource(300.0, -200.0, 50.0),), sun=1.0)
    observation = Observation(
        array, sky, instrument, START_NS, fringes_stopped=False, update_ns=10**12
    )
    (path,) = simulate(observation, frames, folder, seed=1).files
    return path
