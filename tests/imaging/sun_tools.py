"""Snapshots of a Sun that is known: a disk, bursts, noise, phases of antennas."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin

import numpy as np
from field_tools import MIDSUMMER_NS, muser_uvw, phases
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.imaging.clean import Algorithm, CleanOptions
from muser_pipeline.imaging.disk import Disk
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions, SunOptions
from muser_pipeline.imaging.pipeline import make_image
from muser_pipeline.imaging.visibilities import Snapshot

ARCSEC = float(np.pi / 180 / 3600)
RADIUS = 944 * ARCSEC
"""Of the Sun at midsummer."""
HZ = 4.0e8 + 25e6 * np.arange(4)

Burst = tuple[float, float, float, float]
"""Flux of Stokes I, l, m, and V / I."""


def disk_of(
    flux: float, radius_rad: float, east: float = 0.0, north: float = 0.0
) -> Disk:
    """Return a uniform disk, equally bright in all channels of `HZ`."""
    return Disk(east, north, radius_rad, np.full(len(HZ), flux))


def direction(
    west_arcsec: float, north_arcsec: float, p_rad: float
) -> tuple[float, float]:
    """Return l and m of helioprojective coordinates, by the definition of both."""
    x, y = west_arcsec * ARCSEC, north_arcsec * ARCSEC
    west, north = cos(y) * sin(x), sin(y)
    return (
        -west * cos(p_rad) + north * sin(p_rad),
        west * sin(p_rad) + north * cos(p_rad),
    )


def sun_snapshot(
    bursts: Sequence[Burst] = (),
    disk: Disk | None = None,
    *,
    noise: float = 0.0,
    hour_angle_deg: float = 20.0,
    hz: NDArray[np.float64] = HZ,
    phases_rad: NDArray[np.float64] | None = None,
    seed: int = 1,
) -> Snapshot:
    """Return what MUSER-I sees, in both hands.

    Parameters
    ----------
    bursts : sequence of (flux, l, m, V / I)
        Points.
    disk : Disk, optional
        Unpolarized.
    noise : float
        Standard deviation of real and imaginary parts.
    hour_angle_deg : float
        Of the Sun.
    hz : ndarray
        Channels.
    phases_rad : ndarray, shape (2, antenna), optional
        Of the gains in the hands.
    seed : int
        Of the noise.
    """
    uvw = muser_uvw(hour_angle_deg)
    first, second = load_array(1).baseline_inputs()
    data = np.zeros((2, len(uvw), len(hz)), dtype=complex)
    for flux, east, north, polarization in bursts:
        seen = flux * phases(uvw, hz, east, north)
        data[0] += (1 + polarization) * seen
        data[1] += (1 - polarization) * seen
    if disk is not None:
        data += disk.visibilities(uvw, hz)
    if phases_rad is not None:
        turn = phases_rad[:, first] - phases_rad[:, second]
        data *= np.exp(1j * turn)[:, :, np.newaxis]
    rng = np.random.default_rng(seed)
    data += noise * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
    return Snapshot(
        uvw_m=uvw,
        frequency_hz=hz,
        data=data.astype(np.complex64),
        weights=np.ones(data.shape, dtype=np.float32),
        polarizations=("RR", "LL"),
        antenna1=first.astype(np.int64),
        antenna2=second.astype(np.int64),
        time_utc_ns=np.full(len(uvw), MIDSUMMER_NS),
        ra_rad=1.58,
        dec_rad=0.41,
        telescope="MUSER-I",
        target="Sun",
    )


def small_image(unit: str = "Jy", algorithm: Algorithm = "hogbom") -> Image:
    """Return an image of a disk and a burst, quickly made."""
    burst = (300.0, *direction(400.0, -250.0, 0.3), 0.1)
    seen = sun_snapshot([burst], disk_of(500.0, 1.02 * RADIUS), noise=1.0)
    options = ImageOptions(
        size=300,
        cell_rad=15 * ARCSEC,
        clean=CleanOptions(algorithm, iterations=200),
        sun=SunOptions(RADIUS, p_rad=0.3, b0_rad=0.03, l0_rad=5.2),
    )
    return make_image(seen.replace(unit=unit), options)
