"""Dirty images, beams, and the visibilities of a model."""

from __future__ import annotations

import importlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, Device, library_of
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.plane import FLAT, Plane, fit_plane, pixel_depths
from muser_pipeline.imaging.transforms import DuccTransform, NufftTransform, Transform
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S
from muser_pipeline.imaging.wterm import bessel, chebyshev

WMode = Literal["auto", "plane", "stack", "none"]
_MOST_TERMS = 6
"""On a CPU; w-stacking costs as much as about a dozen transforms without w."""
_MOST_TERMS_ON_GPU = 64
_NEGLIGIBLE_DEPTH = 1e-12


class Gridder:
    """Transforms between visibilities of given baselines and a given grid.

    Made once for a geometry and used for any number of images, beams and models.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    grid : Grid
        The pixels.
    w : str, optional
        "plane": the image is in the slanted coordinates of the plane that the
        baselines are nearest to, with further terms for what is left of w; "stack":
        plain coordinates and all of w; "none": w is left out; "auto": "plane" where
        few terms are enough, otherwise "stack".
    epsilon : float, optional
        Accuracy relative to the peak of an image. Single precision ends at 1e-6.
    device : str, optional
        "cpu" or "cuda".
    threads : int, optional
        How many compute, on a CPU.

    Attributes
    ----------
    plane : Plane or None
        That of the slanted coordinates; None where they are plain.
    terms : int
        Two-dimensional transforms that an image takes; 1 with "stack" on a CPU.
    """

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        grid: Grid,
        *,
        w: WMode = "auto",
        epsilon: float = 1e-6,
        device: Device = "cpu",
        threads: int = 1,
    ) -> None:
        if w not in ("auto", "plane", "stack", "none"):
            raise ImagingError("w", f"w is auto, plane, stack or none, not {w!r}")
        self.grid = grid
        self.epsilon = epsilon
        self.device = device
        self._xp = library_of(device)
        self.plane: Plane | None = None
        self._factors: list[tuple[Array, float]] = []
        self._polynomials: list[Array] = []
        stacks = w == "stack" and device == "cpu"
        if w in ("auto", "plane"):
            plane = fit_plane(uvw_m)
            most = _MOST_TERMS if w == "auto" else _MOST_TERMS_ON_GPU
            if self._expand(uvw_m, frequency_hz, plane, most):
                self.plane = plane
            elif w == "plane":
                raise ImagingError(
                    "w",
                    f"the baselines are up to {plane.residual_m:.3g} m from a plane",
                )
            else:
                stacks = device == "cpu"
        if (
            device == "cuda"
            and w != "none"
            and self.plane is None
            and not self._expand(uvw_m, frequency_hz, FLAT, _MOST_TERMS_ON_GPU)
        ):
            raise ImagingError("w", "w is too large for this field")
        self.terms = max(1, len(self._factors))
        self._transform: Transform
        if device == "cpu":
            self._transform = DuccTransform(uvw_m, frequency_hz, grid, stacks, threads)
        else:
            library = importlib.import_module("cufinufft")
            self._transform = NufftTransform(
                uvw_m, frequency_hz, grid, self._xp, library
            )

    def image(self, values: Array, weights: Array) -> Array:
        """Return the dirty image.

        Parameters
        ----------
        values : ndarray of complex64, shape (row, channel)
            Visibilities; finite.
        weights : ndarray of float32, shape (row, channel)
            Of the visibilities in the image.

        Returns
        -------
        ndarray of float32, shape (size, size)
            In units of the visibilities per beam, on the device.

        Raises
        ------
        ImagingError
            When nothing has a weight; its reason is "flagged".
        """
        xp = self._xp
        weights = xp.asarray(weights, dtype=xp.float32)
        total = float(weights.sum(dtype=xp.float64))
        if not total > 0:
            raise ImagingError("flagged", "no visibility has a weight")
        weighted = xp.asarray(values, dtype=xp.complex64) * (
            weights * xp.float32(1.0 / total)
        )
        if not self._factors:
            return self._transform.adjoint(weighted, self.epsilon)
        image = None
        for (factor, size), polynomial in zip(
            self._factors, self._polynomials, strict=True
        ):
            part = self._transform.adjoint(
                weighted * factor.conj(), self.epsilon / size
            )
            image = part if image is None else image + polynomial * part
        return image

    def beam(self, weights: Array) -> Array:
        """Return the image of a point of 1 at the phase centre; 1 at its centre.

        Parameters
        ----------
        weights : ndarray of float32, shape (row, channel)
            Of the visibilities.
        """
        xp = self._xp
        weights = xp.asarray(weights, dtype=xp.float32)
        return self.image(xp.ones(weights.shape, dtype=xp.complex64), weights)

    def predict(self, model: Array) -> Array:
        """Return the visibilities of a model.

        Parameters
        ----------
        model : ndarray of float32, shape (size, size)
            Jy in each pixel.

        Returns
        -------
        ndarray of complex64, shape (row, channel)
        """
        xp = self._xp
        model = xp.asarray(model, dtype=xp.float32)
        if not self._factors:
            return self._transform.forward(model, self.epsilon)
        values = None
        for (factor, size), polynomial in zip(
            self._factors, self._polynomials, strict=True
        ):
            part = factor * self._transform.forward(
                model * polynomial, self.epsilon / size
            )
            values = part if values is None else values + part
        return values

    def _expand(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        plane: Plane,
        most: int,
    ) -> bool:
        """Make the terms for what a plane leaves of w; whether few enough will do."""
        depths = pixel_depths(plane, self.grid)
        if not np.isfinite(depths).all():
            return False
        half_depth = -float(depths.min()) / 2
        per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        left = np.multiply.outer(plane.residuals_m(uvw_m), per_m)
        x = 2 * np.pi * half_depth * left
        if np.max(np.abs(x), initial=0.0) > most:
            return False
        factors: list[tuple[Array, float]] = []
        shift = np.exp(-1j * x)
        for k in range(most + 1):
            amplitude = (1 if k == 0 else 2) * bessel(k, x)
            size = float(np.mean(np.abs(amplitude)))
            if size < self.epsilon:
                break
            factor = (shift * (1j**k * amplitude)).astype(np.complex64)
            factors.append((self._xp.asarray(factor), size))
        else:
            return False
        self._factors = factors
        self._polynomials = [
            self._xp.asarray(polynomial, dtype=self._xp.float32)
            for polynomial in chebyshev(depths, half_depth, len(factors))
        ]
        return True
