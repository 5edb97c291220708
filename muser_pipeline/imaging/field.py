"""Which pixels an image has where nobody says so."""

from __future__ import annotations

from math import ceil, floor, log10, radians

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

CELLS_PER_FRINGE = 3
SUN_FIELD_RAD = radians(1.25)
"""What an image of the Sun covers at least."""
_MARGIN = 1.2
"""Of the Sun's radius: an image must hold this much, or the disk is folded into it."""
_SIZE = 512
"""Pixels on a side for targets of unknown extent."""
_ARCSEC = radians(1 / 3600)


def choose_grid(
    uvw_m: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    weights: NDArray[np.float32],
    options: ImageOptions,
) -> Grid:
    """Return the pixels that an image has.

    Without a cell in the options it is a third of the smallest fringe, rounded down to
    two digits in arcseconds so that images of one day are alike. Without a size it is
    what covers the field in lengths that transforms like.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    weights : ndarray of float32, shape (row, channel)
        0 for what is not used.
    options : ImageOptions
        What is asked for.

    Raises
    ------
    ImagingError
        When the field does not hold the Sun, with reason ``"field"``, or cannot be an
        image, with reason ``"grid"``.
    """
    cell = options.cell_rad or _cell(uvw_m, frequency_hz, weights)
    sun = options.sun
    size = options.size
    if size is None:
        size = _SIZE
        if sun is not None:
            field = max(SUN_FIELD_RAD, 2 * _MARGIN * sun.radius_rad)
            size = _even_fast(ceil(field / cell))
    grid = Grid(size, cell)
    if sun is not None and grid.extent_rad < 2 * _MARGIN * sun.radius_rad:
        raise ImagingError(
            "field",
            f"{size} pixels of {cell / _ARCSEC:.3g} arcsec are "
            f"{grid.extent_rad / _ARCSEC / 60:.3g} arcmin: the Sun with some margin is "
            f"{2 * _MARGIN * sun.radius_rad / _ARCSEC / 60:.3g}, and would be folded "
            "into the image",
        )
    return grid


def _cell(
    uvw_m: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    weights: NDArray[np.float32],
) -> float:
    lengths = np.hypot(uvw_m[:, 0], uvw_m[:, 1])[:, np.newaxis]
    fringes = np.where(weights > 0, lengths * frequency_hz, 0.0)
    longest = float(fringes.max(initial=0.0)) / SPEED_OF_LIGHT_M_PER_S
    if not longest > 0:
        raise ImagingError("grid", "all baselines have no length: nothing is resolved")
    return rounded_cell(1 / (CELLS_PER_FRINGE * longest))


def rounded_cell(cell_rad: float) -> float:
    """Return a side of a pixel rounded down to two digits in arcseconds."""
    cell = cell_rad / _ARCSEC
    digit = 10.0 ** (floor(log10(cell)) - 1)
    return floor(cell / digit) * digit * _ARCSEC


def _even_fast(size: int) -> int:
    """Return the next even length that is a product of small primes."""
    size = int(next_fast_len(size, real=True))
    while size % 2:
        size = int(next_fast_len(size + 1, real=True))
    return size
