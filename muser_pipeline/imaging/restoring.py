"""The restoring beam, and the image that one looks at."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from math import atan2, ceil, cos, log, pi, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, namespace_of, to_host
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid, smooth_size

_HALF = 4.0 * log(2.0)
_FEWEST = 6
"""Pixels that a Gaussian is fitted to."""
_FIRST_REACH = 16
"""Pixels from the centre in which the main lobe is looked for at first."""
_REACH = 2.5
"""Widths at which a Gaussian has fallen to 3e-8."""


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
    values, east, north = _main_lobe(psf)
    terms = np.stack([north**2, 2 * north * east, east**2], axis=1)
    # of the logarithm, in which a Gaussian is linear; weighted as the beam is seen
    shape = np.linalg.lstsq(
        terms * values[:, np.newaxis], -np.log(values) * values, rcond=None
    )[0]
    steepness, axes = np.linalg.eigh([shape[:2], shape[1:]])
    if not steepness[0] > _HALF / psf.shape[0] ** 2:
        raise ImagingError("beam", "the main lobe of the beam is longer than the image")
    major, minor = np.sqrt(_HALF / steepness) * cell_rad
    towards_north, towards_east = axes[:, 0]
    angle = atan2(towards_east, towards_north)
    angle = (angle + pi / 2) % pi - pi / 2
    return Beam(float(major), float(minor), angle)


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
    padded = smooth_size(size + ceil(_REACH * beam.major_rad / grid.cell_rad))
    wide = xp.zeros((padded, padded), dtype=xp.float32)
    wide[:size, :size] = model
    transfer = _transfer(beam, grid, padded, xp)
    return _filtered(wide, transfer, xp)[:size, :size] + residual


def _filtered(image: Array, transfer: Array, xp: Any) -> Array:
    """Return an image whose Fourier transform has been multiplied."""
    if xp is not np:
        return xp.fft.irfft2(xp.fft.rfft2(image) * transfer, image.shape)
    # twice as fast as numpy's
    fft = importlib.import_module("ducc0").fft
    spectrum = fft.r2c(image, axes=(0, 1))
    spectrum *= transfer
    size = image.shape[1]
    return fft.c2r(spectrum, axes=(0, 1), lastsize=size, forward=False, inorm=2)


def _transfer(beam: Beam, grid: Grid, padded: int, xp: Any) -> Array:
    """Return the Fourier transform of the beam, for a real transform of pixels."""
    north = np.fft.fftfreq(padded)[:, np.newaxis] * pi / grid.cell_rad
    east = -np.fft.rfftfreq(padded) * pi / grid.cell_rad
    c, s = cos(beam.angle_rad), sin(beam.angle_rad)
    wide, narrow = beam.major_rad**2 / _HALF, beam.minor_rad**2 / _HALF
    mixed = 2 * (wide - narrow) * s * c
    north, east = (xp.asarray(each.astype(np.float32)) for each in (north, east))
    exponent = (wide * c * c + narrow * s * s) * north**2
    exponent = exponent + (wide * s * s + narrow * c * c) * east**2
    exponent += (mixed * north) * east
    return xp.exp(-exponent) * xp.float32(beam.pixels(grid))


def _main_lobe(
    psf: Array,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels around the centre that are above half the peak, and where."""
    middle = psf.shape[0] // 2
    reach = _FIRST_REACH
    while True:
        reach = min(reach, middle - 1)
        window = slice(middle - reach, middle + reach + 1)
        values = to_host(psf[window, window]).astype(np.float64)
        lobe = _connected(values)
        if reach == middle - 1 or not _touches_rim(lobe):
            break
        reach *= 2
    if np.count_nonzero(lobe) < _FEWEST:
        inner = slice(reach - 1, reach + 2)
        lobe[inner, inner] |= values[inner, inner] > 0
    rows, columns = np.nonzero(lobe)
    of_peak = values[rows, columns] / values[reach, reach]
    return of_peak, (reach - columns).astype(float), (rows - reach).astype(float)


def _connected(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the pixels above half the middle one that hang together with it."""
    middle = values.shape[0] // 2
    peak = values[middle, middle]
    if not peak > 0:
        raise ImagingError("beam", f"the beam is {peak} at its centre, not 1")
    above: NDArray[np.bool_] = values >= 0.5 * peak
    lobe = np.zeros_like(above)
    lobe[middle, middle] = True
    before = np.zeros_like(lobe)
    while (before != lobe).any():
        before = lobe.copy()
        lobe[1:] |= lobe[:-1]
        lobe[:-1] |= lobe[1:]
        lobe[:, 1:] |= lobe[:, :-1]
        lobe[:, :-1] |= lobe[:, 1:]
        lobe &= above
    return lobe


def _touches_rim(lobe: NDArray[np.bool_]) -> bool:
    edges = (lobe[0], lobe[-1], lobe[:, 0], lobe[:, -1])
    return any(edge.any() for edge in edges)
