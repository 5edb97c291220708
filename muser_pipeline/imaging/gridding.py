"""Dirty images, beams, and the visibilities of a model."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, Device, library_of
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.halfgrid import HalfGridTransform
from muser_pipeline.imaging.plane import FLAT, Plane, fit_plane
from muser_pipeline.imaging.transforms import DuccTransform, NufftTransform, Transform
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S
from muser_pipeline.imaging.wterm import WTerms, expand

WMode = Literal["auto", "plane", "stack", "none"]
_MOST_TERMS = {"cpu": 5, "cuda": 40}
"""From there on w-stacking takes less time on a CPU; a GPU has nothing else."""


class Gridder:
    """Transforms between visibilities of given baselines and a given grid.

    Made once for a geometry and used for any number of images, beams and models, by
    one thread at a time.

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
        plain coordinates and all of w; "none": w is left out; "auto": plain
        coordinates with few terms where that is enough, which is "none" when one is;
        otherwise "plane" with few terms; otherwise "stack".
    epsilon : float, optional
        Accuracy of an image relative to its peak; single precision ends at 1e-6. The
        few visibilities of a model that are farthest from the plane may be wrong by
        ten times as much.
    device : str, optional
        "cpu" or "cuda".
    threads : int, optional
        How many compute, on a CPU.

    Attributes
    ----------
    grid : Grid
        The pixels.
    plane : Plane or None
        That of the slanted coordinates; None where they are plain.
    terms : int
        Two-dimensional transforms that an image takes; 0 for w-stacking.

    Raises
    ------
    ImagingError
        When the device is missing, with the reason "device", or when the w of these
        baselines is more than the device or the plane can have, with the reason "w".
    """

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        grid: Grid,
        *,
        w: WMode = "auto",
        epsilon: float = 3e-6,
        device: Device = "cpu",
        threads: int = 1,
    ) -> None:
        self.grid = grid
        self._epsilon = epsilon
        self._device = device
        self._xp = library_of(device)
        self._per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        self.plane, self._terms, stacks = self._choose(uvw_m, w)
        sizes = self._terms.sizes if self._terms else (1.0,)
        self.terms = 0 if stacks else len(sizes)
        self._epsilons = [epsilon / size for size in sizes]
        self._polynomials = (
            self._terms.polynomials
            if self._terms
            else self._xp.empty((0, grid.size, grid.size), dtype=np.float32)
        )
        self._transform: Transform
        if stacks:
            self._transform = DuccTransform(uvw_m, frequency_hz, grid, threads)
        elif device == "cpu":
            self._transform = HalfGridTransform(uvw_m, frequency_hz, grid, threads)
        else:
            self._transform = NufftTransform(
                uvw_m,
                frequency_hz,
                grid,
                self._xp,
                importlib.import_module("cufinufft"),
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
            On the device, in units of the visibilities per beam.

        Raises
        ------
        ImagingError
            When nothing has a weight; its reason is "flagged".
        """
        xp = self._xp
        parts = self._weighted(weights) * xp.asarray(values, dtype=xp.complex64)
        parts = parts * self._terms.factors.conj() if self._terms else parts[np.newaxis]
        return self._transform.adjoint(parts, self._polynomials, self._epsilons)

    def beam(self, weights: Array) -> Array:
        """Return the image of a point of 1 at the phase centre; 1 at its centre.

        Parameters
        ----------
        weights : ndarray of float32, shape (row, channel)
            Of the visibilities.
        """
        ones = self._xp.ones(weights.shape, dtype=self._xp.complex64)
        return self.image(ones, weights)

    def predict(self, model: Array) -> Array:
        """Return the visibilities of a model.

        Parameters
        ----------
        model : ndarray of float32, shape (size, size)
            Flux in each pixel.

        Returns
        -------
        ndarray of complex64, shape (row, channel)
            On the device.
        """
        xp = self._xp
        model = xp.asarray(model, dtype=xp.float32)
        parts = self._transform.forward(model, self._polynomials, self._epsilons)
        if self._terms is None:
            return parts[0]
        parts *= self._terms.factors
        return parts.sum(axis=0)

    def _choose(
        self, uvw_m: NDArray[np.float64], w: WMode
    ) -> tuple[Plane | None, WTerms | None, bool]:
        """Return the plane, the terms for the rest of w, and whether w is stacked."""
        if w not in ("auto", "plane", "stack", "none"):
            raise ImagingError("w", f"w is auto, plane, stack or none, not {w!r}")
        most = _MOST_TERMS[self._device]
        if w in ("auto", "plane"):
            plane = fit_plane(uvw_m)
            terms = self._expand(uvw_m, plane, most)
            if terms is None and w == "plane":
                raise ImagingError(
                    "w",
                    f"baselines are up to {plane.residual_m:.3g} m from a plane, too "
                    "far for an image of this size",
                )
            # plain coordinates are preferred where they cost no more
            count = len(terms.sizes) if terms else most
            flat = self._expand(uvw_m, FLAT, count) if w == "auto" else None
            if flat or terms:
                return (None, flat, False) if flat else (plane, terms, False)
        if w == "none" or self._device == "cpu":
            return None, None, w != "none"
        flat = self._expand(uvw_m, FLAT, most)
        if flat is None:
            raise ImagingError("w", "w is too large for an image of this size on a GPU")
        return None, flat, False

    def _expand(
        self, uvw_m: NDArray[np.float64], plane: Plane, most: int
    ) -> WTerms | None:
        """Return the terms for what a plane leaves of w, if there are not too many."""
        rest = np.multiply.outer(plane.residuals_m(uvw_m), self._per_m)
        return expand(rest, plane, self.grid, self._epsilon, most, self._xp)

    def _weighted(self, weights: Array) -> Any:
        """Return weights whose sum is 1."""
        xp = self._xp
        weights = xp.asarray(weights, dtype=xp.float32)
        total = float(weights.sum(dtype=xp.float64))
        if not total > 0:
            raise ImagingError("flagged", "no visibility has a weight")
        return weights * xp.float32(1.0 / total)
