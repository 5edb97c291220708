"""One frame taken through all steps, so that the first real one finds them ready.

Machine code of the loops and the tables of the Earth's orientation are loaded, or made
for the first time on a computer, before a worker says that it is ready.
"""

from __future__ import annotations

import numpy as np

from muser_pipeline.array import load_array
from muser_pipeline.calibration import correct_delays, dead_inputs
from muser_pipeline.geometry import Sun, follow
from muser_pipeline.integration import integrate
from muser_pipeline.raw import make_frames, make_header
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.raw.payload import decode_payload
from muser_pipeline.uvfits import UvfitsWriter

_TIME_NS = int(np.datetime64("2015-11-01T04:00:00", "ns").astype(np.int64))


def warm_up(array: int) -> None:
    """Decode, correct, average and encode a frame of zeros.

    Parameters
    ----------
    array : int
        1 or 2.
    """
    zeros = np.frombuffer(bytes(FORMATS[array].size), dtype=np.uint8)
    payload = decode_payload(zeros, np.zeros(1, dtype=np.int64), array, array == 2)
    band, hand = np.zeros(1, dtype=np.int64), np.array(["RR"])
    frames = make_frames(
        array,
        np.array([_TIME_NS]),
        band,
        hand,
        payload.visibilities,
        autocorrelations=payload.autocorrelations,
        delay_ns=payload.delay_ns,
        header=make_header(array, band, hand, fringes_stopped=False),
    )
    dead_inputs(frames)
    averages = integrate(correct_delays(frames), 10**9)
    track = follow(Sun(), averages.time_utc_ns, load_array(array).site)
    UvfitsWriter(array).encode(averages, track)
