"""Where the files of an image are: a folder for each hour, a name for each image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from muser_pipeline.array import load_array

_MS_NS = 1_000_000


def folder_of(time_utc_ns: int) -> Path:
    """Return the folder of an image's files, such as ``20151101/04``: day and hour."""
    day, clock = _written(time_utc_ns)
    return Path(day) / clock[:2]


def name_of(
    array: int, time_utc_ns: int, band: int, first_channel: int, polarization: str
) -> str:
    """Return the name of an image's files without the ending.

    Such as ``MUSER-I_20151101T040000.498_b0c00_I``: band 0, from its first channel on.
    """
    day, clock = _written(time_utc_ns)
    part = f"b{band}c{first_channel:02}"
    return f"{load_array(array).name}_{day}T{clock}_{part}_{polarization}"


def _written(time_utc_ns: int) -> tuple[str, str]:
    moment = np.datetime64(time_utc_ns // _MS_NS, "ms")
    day, clock = str(moment).split("T")
    return day.replace("-", ""), clock.replace(":", "")
