"""One image of nothing in particular, so that the first real one finds all at hand.

Machine code is loaded, or made for the first time on a computer; so are the tables of
the Earth's orientation, plans of transforms, fonts and figures.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from muser_pipeline.array import CHANNELS, load_array
from muser_pipeline.imaging.publishing import publish
from muser_pipeline.integration import HANDS, WEIGHT_OF_FRAME, Visibilities
from muser_pipeline.raw import make_header
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.realtime.cutting import Slice, average, scene_of
from muser_pipeline.realtime.devices import Computer
from muser_pipeline.realtime.options import ImageRequest

_TIME_NS = int(np.datetime64("2015-11-01T04:00:00", "ns").astype(np.int64))
_REQUEST = ImageRequest(
    Path(), size=256, cell_arcsec=18.0, iterations=2, flag_known=False
)


def warm_up(computer: Computer) -> None:
    """Decode frames of both arrays, make images in all ways, and write one.

    Parameters
    ----------
    computer : Computer
        Where images are made.
    """
    for array in (1, 2):
        average(_nothing(array), _REQUEST)
    scene = scene_of(_a_point(), _TIME_NS, _REQUEST)
    image = computer.make(scene.snapshot, _REQUEST.image_options("I", scene.sun), None)
    for algorithm in ("clark", "multiscale"):
        options = replace(_REQUEST, clean=algorithm).image_options("I", None)
        computer.make(scene.snapshot, options, None)
    with tempfile.TemporaryDirectory() as folder:
        publish(image, Path(folder), "warm")
    computer.free()


def _nothing(array: int) -> Slice:
    """Return two frames of zeros."""
    band, hands = np.zeros(2, dtype=np.int64), np.arange(2)
    return Slice(
        array=array,
        layout="new",
        is_conjugated=array == 2,
        band=0,
        time_utc_ns=_TIME_NS,
        images=[("I", 0, CHANNELS)],
        note="",
        frames=np.zeros(2 * FORMATS[array].size, dtype=np.uint8),
        times=np.full(2, _TIME_NS),
        hands=hands,
        header=make_header(array, band, np.array(["LL", "RR"]), fringes_stopped=False),
    )


def _a_point() -> Visibilities:
    """Return what a point in the middle of the Sun looks like in one band."""
    described = load_array(1)
    shape = (1, 1, len(HANDS), described.baselines, CHANNELS)
    time = np.array([_TIME_NS])
    return Visibilities(
        array=1,
        time_utc_ns=time,
        start_utc_ns=time,
        end_utc_ns=time,
        bands=np.zeros(1, dtype=np.int64),
        polarizations=HANDS,
        frequency_hz=described.channel_centres_hz([0]),
        data=np.ones(shape, dtype=np.complex64),
        weights=np.full(shape, WEIGHT_OF_FRAME, dtype=np.float32),
        frames=np.ones((1, 1, len(HANDS)), dtype=np.int64),
    )
