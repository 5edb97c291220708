"""The restoring beam, and the image that one looks at."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, log, pi, sin

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, namespace_of, to_host
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid

_HALF = 4.0 * log(2.0)
_FEWEST = 6


@dataclass(frozen=True)
class Beam:
    """An elliptical Gaussian of peak 1.

    Attributes
    ----------
    major_rad, minor_rad : float
        Full widths at half maximum.
    angle_rad : float
        Of the major axis, from the north of the image (m) through east (l), from
        -pi / 2 to pi / 2.
    """

    major_rad: float
    minor_rad: float
    angle_rad: float

    @property
    def solid_angle(self) -> float:
        """Its integral, in steradians."""
        return pi * self.major_rad * self.minor_rad / _HALF

    def pixels(self, grid: Grid) -> float:
        """Return its integral in pixels: what to divide Jy/beam by for Jy/pixel."""
        return self.solid_angle / grid.cell_rad**2

    def at(
        self, east: NDArray[np.float64], north: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return its values at l and m from its centre."""
        c, s = cos(self.angle_rad), sin(self.angle_rad)
        along = (north * c + east * s) / self.major_rad
        across = (east * c - north * s) / self.minor_rad
        values: NDArray[np.float64] = np.exp(-_HALF * (along**2 + across**2))
        return values


def fit_beam(psf: Array, cell_rad: float) -> Beam:
    """Return the Gaussian that fits the main lobe of a beam down to half its peak.

    Parameters
    ----------
    psf : ndarray of float32, shape (size, size)
        With its peak, 1, at [size / 2, size / 2].
    cell_rad : float
        Side of a pixel.

    Raises
    ------
    ImagingError
        When the beam has no such lobe; its reason is "beam".
    """
    values, east, north = _main_lobe(to_host(psf))
    terms = np.stack([north**2, 2 * north * east, east**2], axis=1)
    logarithm = -np.log(values)
    weight = values
    shape = np.linalg.lstsq(
        terms * weight[:, np.newaxis], logarithm * weight, rcond=None
    )[0]
    matrix = np.array([[shape[0], shape[1]], [shape[1], shape[2]]])
    sizes, axes = np.linalg.eigh(matrix)
    if not sizes[0] > 0:
        raise ImagingError("beam", "the main lobe of the beam is no Gaussian")
    major, minor = np.sqrt(_HALF / sizes) * cell_rad
    towards_north, towards_east = axes[:, 0]
    angle = np.arctan2(towards_east, towards_north)
    angle = (angle + pi / 2) % pi - pi / 2
    return Beam(float(major), float(minor), float(angle))


def restore(model: Array, residual: Array, beam: Beam, grid: Grid) -> Array:
    """Return the model convolved with the beam, plus the residual.

    Parameters
    ----------
    model : ndarray of float32, shape (size, size)
        Per pixel.
    residual : ndarray of float32, shape (size, size)
        Per beam.
    beam : Beam
        What points become.
    grid : Grid
        Of both.

    Returns
    -------
    ndarray of float32, shape (size, size)
        Per beam.
    """
    xp = namespace_of(model)
    size = grid.size
    reach = int(np.ceil(2 * beam.major_rad / grid.cell_rad))
    padded = size + 2 * reach
    freq_y = np.fft.fftfreq(padded) / grid.cell_rad
    freq_x = -np.fft.rfftfreq(padded) / grid.cell_rad
    c, s = cos(beam.angle_rad), sin(beam.angle_rad)
    along = (freq_y[:, np.newaxis] * c + freq_x * s) * beam.major_rad
    across = (freq_x * c - freq_y[:, np.newaxis] * s) * beam.minor_rad
    transfer = beam.pixels(grid) * np.exp(-(pi**2) / _HALF * (along**2 + across**2))
    spectrum = xp.fft.rfft2(model, (padded, padded)) * xp.asarray(
        transfer.astype(np.float32)
    )
    blurred = xp.fft.irfft2(spectrum, (padded, padded))[:size, :size]
    return (blurred + residual).astype(xp.float32)


def _main_lobe(
    psf: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels at the centre that are above half the peak, and where."""
    middle = psf.shape[0] // 2
    peak = float(psf[middle, middle])
    if not peak > 0:
        raise ImagingError("beam", f"the beam is {peak} at its centre, not 1")
    above = psf >= 0.5 * peak
    lobe = np.zeros_like(above)
    lobe[middle, middle] = True
    size = 1
    while True:
        grown = lobe.copy()
        grown[1:] |= lobe[:-1]
        grown[:-1] |= lobe[1:]
        grown[:, 1:] |= grown[:, :-1]
        grown[:, :-1] |= grown[:, 1:]
        lobe = grown & above
        if lobe.sum() == size:
            break
        size = int(lobe.sum())
    if size < _FEWEST:
        lobe[middle - 1 : middle + 2, middle - 1 : middle + 2] |= (
            psf[middle - 1 : middle + 2, middle - 1 : middle + 2] > 0
        )
    rows, columns = np.nonzero(lobe)
    values = psf[rows, columns].astype(np.float64) / peak
    return values, (middle - columns).astype(np.float64), (rows - middle).astype(float)
