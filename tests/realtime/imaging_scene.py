"""Raw frames of a sky that is known, for tests of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from muser_pipeline.array import load_array
from muser_pipeline.raw import Frames, encode_frames
from muser_pipeline.simulator import Instrument, Observation, Sky, SkySource
from muser_pipeline.simulator.observation import SkyModel

START_NS = int(np.datetime64("2015-11-01T04:00:00", "ns").astype(np.int64))
LONG_AGO_NS = int(np.datetime64("2014-11-17T04:30:00", "ns").astype(np.int64))
"""When files had the old layout."""
JANSKY_PER_UNIT = 10.0
"""Of simulated data: 1000 units are a solar flux unit."""
SPOT = SkySource(300.0, -200.0, 50.0, polarization=0.5)


def observation(
    array: int = 1, sky: Sky | None = None, start_ns: int = START_NS, **rest: Any
) -> Observation:
    """Return an observation with an array without faults."""
    rest.setdefault("instrument", Instrument.perfect(load_array(array)))
    return Observation(array, sky or Sky((SPOT,)), start_utc_ns=start_ns, **rest)


def frames_of(observed: Observation, count: int, first: int = 0) -> Frames:
    """Return frames of an observation."""
    numbers = first + np.arange(count)
    return observed.frames(numbers, np.random.default_rng(1), SkyModel(observed))


def bytes_of(observed: Observation, count: int, first: int = 0) -> bytes:
    """Return frames of an observation as they are sent."""
    return encode_frames(frames_of(observed, count, first)).tobytes()
