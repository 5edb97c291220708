"""A few antennas far apart that see something for hours, with or without phases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import j0, j1

from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S, Snapshot

UAS = np.pi / 180 / 3600e6
HERTZ = 230e9
NOISE_JY = 0.005
ANTENNAS, TIMES = 7, 20
Source = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.complex128]]
"""Of u and v in wavelengths."""


def gaussian(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.complex128]:
    """See 0.8 Jy that are 30 microarcseconds wide."""
    x = (np.pi * 30 * UAS) ** 2 * (u**2 + v**2) / (4 * np.log(2))
    return 0.8 * np.exp(-x) + 0j


def double(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.complex128]:
    """See 0.6 Jy, and 0.3 Jy that are 50 to the east and 30 to the north of it."""
    cycles = (u * 50 + v * 30) * UAS
    return 0.6 + 0.3 * np.exp(2j * np.pi * cycles)


def ring(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.complex128]:
    """See 0.7 Jy, 44 across, brighter by 0.6 in the south."""
    q = np.hypot(u, v)
    x = np.pi * 44 * UAS * q
    smoothed = np.exp(-((np.pi * 8 * UAS * q) ** 2) / (4 * np.log(2)))
    return 0.7 * (j0(x) - 0.6j * v / q * j1(x)) * smoothed


def seen(source: Source, seed: int = 3) -> Snapshot:
    """Return what antennas see of a source that stands in the pole."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(ANTENNAS, 3)) * 2.6e6
    first, second = np.triu_indices(ANTENNAS, k=1)
    turns = np.repeat(np.linspace(0, np.pi, TIMES, endpoint=False), len(first))
    x, y, _ = np.tile((places[first] - places[second]).T, TIMES)
    u = np.cos(turns) * x - np.sin(turns) * y
    v = np.sin(turns) * x + np.cos(turns) * y
    per_m = HERTZ / SPEED_OF_LIGHT_M_PER_S
    noise = rng.normal(size=(2, len(u))) * NOISE_JY
    data = source(u * per_m, v * per_m) + noise[0] + 1j * noise[1]
    shape = (1, len(u), 1)
    return Snapshot(
        uvw_m=np.stack([u, v, 0 * u], axis=1),
        frequency_hz=np.array([HERTZ]),
        data=data.astype(np.complex64).reshape(shape),
        weights=np.full(shape, NOISE_JY**-2, dtype=np.float32),
        polarizations=("I",),
        antenna1=np.tile(first, TIMES) + 1,
        antenna2=np.tile(second, TIMES) + 1,
        time_utc_ns=(turns * 1e4).astype(np.int64) * 10**9,
        ra_rad=3.2,
        dec_rad=0.2,
    )


def without_phases(known: Snapshot, spread: float = 0.0) -> Snapshot:
    """Return it with phases of antennas that are others at each time.

    Amplitudes are off by a part of themselves, the same at all times.
    """
    rng = np.random.default_rng(4)
    _, when = np.unique(known.time_utc_ns, return_inverse=True)
    count = int(known.antenna2.max()) + 1
    phases = rng.uniform(0, 2 * np.pi, (when.max() + 1, count))
    size = np.exp(spread * rng.normal(size=count))
    one, two = known.antenna1, known.antenna2
    turn = np.exp(1j * (phases[when, one] - phases[when, two])) * size[one] * size[two]
    factor = turn.astype(np.complex64)
    return known.replace(data=known.data * factor[np.newaxis, :, np.newaxis])
