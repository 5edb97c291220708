"""Frames with any content, made without files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.raw import SWITCHED_OFF, SWITCHED_ON, Frames

START_NS = int(np.datetime64("2015-11-02T04:08:49.354161240", "ns").astype(np.int64))
PERIOD_NS = 3_125_000


def make_frames(
    array: int = 1,
    count: int = 8,
    seed: int = 0,
    running: bool = False,
    **changes: Any,
) -> Frames:
    """Return frames of a loop: all bands in turn, the left hand first.

    Visibilities and delays are random; attributes can be replaced by name.
    """
    described = load_array(array)
    rng = np.random.default_rng(seed)
    code = np.arange(count) % described.frames_per_loop
    band = changes.pop("band", code >> 1)
    shape = (count, described.baselines, 16)
    fringe = SWITCHED_OFF if running else SWITCHED_ON
    units = 10_000 if array == 1 else 100_000
    delays = rng.integers(0, 2000 * units, (count, described.inputs)) / units
    header: dict[str, NDArray[Any]] = {
        "fringe": np.full(count, fringe, dtype=np.uint32),
        "target": np.zeros(count, dtype=np.uint16),
    }
    header.update(changes.pop("header", {}))
    values: dict[str, Any] = {
        "array": array,
        "layout": "new",
        "time_utc_ns": START_NS + np.arange(count) * PERIOD_NS,
        "band": band,
        "polarization": np.array(["LL", "RR"])[code & 1],
        "frequency_hz": described.channel_centres_hz(band),
        "visibilities": complex_noise(rng, shape),
        "autocorrelations": rng.integers(
            900, 1100, (count, 16, described.inputs), dtype=np.uint32
        ),
        "delay_ns": delays,
        "flags": np.zeros(shape, dtype=bool),
        "header": header,
        "number": np.arange(count),
        "is_conjugated": array == 2,
    }
    return Frames(**{**values, **changes})


def complex_noise(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> NDArray[np.complex64]:
    parts = rng.standard_normal((*shape, 2), dtype=np.float32)
    return parts.view(np.complex64)[..., 0]
