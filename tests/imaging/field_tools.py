"""Fields to image, and slow sums that say what their images are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.geometry import Sun, follow, uvw_m
from muser_pipeline.imaging.plane import FLAT, Plane

LIGHT = 299_792_458.0
MIDSUMMER_NS = int(np.datetime64("2015-06-22T05:00", "ns").astype(np.int64))


def muser_uvw(
    hour_angle_deg: float = 20.0, times: int = 1, step_s: float = 60.0
) -> NDArray[np.float64]:
    """Return baselines of MUSER-I on the Sun of midsummer; (times 780, 3), metres."""
    array = load_array(1)
    start = follow(Sun(), np.array([MIDSUMMER_NS]), array.site)
    late_s = (hour_angle_deg - start.hour_angle_deg[0]) * 240
    at_s = late_s + step_s * np.arange(times)
    track = follow(Sun(), MIDSUMMER_NS + (at_s * 1e9).astype(np.int64), array.site)
    assert abs(track.hour_angle_deg[0] - hour_angle_deg) < 0.1
    baselines = uvw_m(track, array.positions_geocentric_m(), *array.baseline_inputs())
    return baselines.reshape(-1, 3)


def channels(first_hz: float = 1.7e9) -> NDArray[np.float64]:
    """Return the centres of sixteen channels."""
    return first_hz + 25e6 * np.arange(16)


def phases(
    uvw: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    east: float,
    north: float,
    plane: Plane | None = None,
) -> NDArray[np.complex128]:
    """Return what a point of 1 looks like; l', m' where there is a plane."""
    place = (plane or FLAT).directions(np.array(east), np.array(north))
    cycles = np.multiply.outer(uvw @ np.array(place), frequency_hz / LIGHT)
    return np.exp(2j * np.pi * cycles)


def sky(
    uvw: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    sources: list[tuple[float, float, float]],
    plane: Plane | None = None,
) -> NDArray[np.complex64]:
    """Return the visibilities of points of (flux, l, m)."""
    total = sum(
        flux * phases(uvw, frequency_hz, east, north, plane)
        for flux, east, north in sources
    )
    return np.asarray(total, dtype=np.complex64)


def direct(
    uvw: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    values: NDArray[np.complex64],
    weights: NDArray[np.float32],
    east: float,
    north: float,
    plane: Plane | None = None,
) -> float:
    """Return one pixel of the dirty image by its definition, in float64."""
    turned = values.astype(complex) / phases(uvw, frequency_hz, east, north, plane)
    heavy = weights.astype(float)
    return float(np.sum(heavy * turned.real) / np.sum(heavy))
