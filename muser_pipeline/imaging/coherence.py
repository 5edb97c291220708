"""Whether phases of visibilities are those of a source, or of antennas.

A simple source that fits what phases of antennas cannot change is divided out of the
visibilities. If their phases are the source's, what is left is a point, wherever it is;
if they are those of antennas too, it does not add up anywhere.

How much does not add up because the source is not that simple, closure phases tell:
they are off by three times the variance of what one visibility is off by.
"""

from __future__ import annotations

import numpy as np

from muser_pipeline.imaging.closures import Closures, Model
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S, Snapshot


def coherence(alone: Snapshot, grid: Grid, source: Model | None = None) -> float:
    """Return the part of what is seen that adds up at some place in the sky.

    Parameters
    ----------
    alone : Snapshot
        Of one polarisation.
    grid : Grid
        Where it is looked for.
    source : callable, optional
        What is divided out: it has the amplitudes that are expected. By default a
        point, with the amplitudes that there are.

    Returns
    -------
    float
        1 where all phases are those of the source.
    """
    weights = alone.weights[0]
    data = alone.data[0]
    if source is None:
        expected = np.abs(data)
    else:
        per_m = alone.frequency_hz / SPEED_OF_LIGHT_M_PER_S
        u, v = (part[:, np.newaxis] * per_m for part in alone.uvw_m.T[:2])
        seen = source(u, v)
        data = (data * seen.conj()).astype(np.complex64)
        expected = np.abs(seen) ** 2
    image = Gridder(alone.uvw_m, alone.frequency_hz, grid).image(data, weights)
    # the image of a point is its flux
    mean = np.average(expected, weights=weights.astype(np.float64))
    return float(image.max() / mean) if mean > 0 else 0.0


def expected_coherence(closures: Closures, source: Model) -> float:
    """Return the coherence that a source would leave were all phases its own.

    Parameters
    ----------
    closures : Closures
        Of the visibilities.
    source : callable
        What is divided out.
    """
    off = closures.phase_off(source(closures.u, closures.v))
    weights = closures.share / closures.phase_error**2
    mean = float(np.average(np.cos(off), weights=weights))
    return float(np.cbrt(max(mean, 0.0)))
