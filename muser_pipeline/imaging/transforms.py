"""Two-dimensional Fourier transforms between visibilities and pixels.

Each class holds what can be kept between transforms of the same places. The sums are
those of the real image of a half plane, which stands for its conjugate half too, over
terms k of which each has its own visibilities and its own factor of the pixels:

    adjoint: D(l, m) = sum over k of P_k(l, m) sum of Re[V_k exp(-2 pi i (u l + v m))]
    forward: V_k(u, v) = sum of P_k I exp(+2 pi i (u l + v m))

P_0 is 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from math import floor, log10
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

FINEST = 1e-6
"""Single precision has no more to give."""
_COARSEST = 1e-2
"""Less exact is not faster."""


class Transform(Protocol):
    """A pair of transforms between some visibilities and the pixels of a grid."""

    def adjoint(
        self, values: Array, factors: Array, epsilons: Sequence[float]
    ) -> Array:
        """Return the image of visibilities.

        Parameters
        ----------
        values : ndarray of complex64, shape (k, row, channel)
            Visibilities times weights.
        factors : ndarray of float32, shape (k - 1, size, size)
            Of the pixels, for all terms but the first.
        epsilons : sequence of float
            The accuracy that each term has to have at least.

        Returns
        -------
        ndarray of float32, shape (size, size)
        """
        ...

    def forward(self, image: Array, factors: Array, epsilons: Sequence[float]) -> Array:
        """Return the visibilities (k, row, channel) of an image; see `adjoint`."""
        ...


class DuccTransform:
    """By ducc0, on the CPU, with all of w.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Metres.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    grid : Grid
        The pixels.
    threads : int
        How many compute.
    """

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        grid: Grid,
        threads: int,
    ) -> None:
        # the first axis of the library becomes y, so that nothing is transposed
        self._uvw = np.ascontiguousarray(uvw_m[:, [1, 0, 2]])
        self._shape = (len(uvw_m), len(frequency_hz))
        self._size = grid.size
        self._options: dict[str, Any] = {
            "freq": np.ascontiguousarray(frequency_hz, dtype=np.float64),
            "pixsize_x": grid.cell_rad,
            "pixsize_y": grid.cell_rad,
            "do_wgridding": True,
            "divide_by_n": False,
            # m grows with y while l falls with x
            "flip_u": True,
            "flip_v": False,
            "nthreads": threads,
        }
        self._library = importlib.import_module("ducc0").wgridder

    def adjoint(
        self,
        values: NDArray[np.complex64],
        factors: NDArray[np.float32],
        epsilons: Sequence[float],
    ) -> NDArray[np.float32]:
        """Return the image of visibilities, which have one term; see `Transform`."""
        (only,), (epsilon,) = values, epsilons
        image: NDArray[np.float32] = self._library.vis2dirty(
            uvw=self._uvw,
            vis=only,
            npix_x=self._size,
            npix_y=self._size,
            epsilon=_bounded(epsilon),
            **self._options,
        )
        return image

    def forward(
        self,
        image: NDArray[np.float32],
        factors: NDArray[np.float32],
        epsilons: Sequence[float],
    ) -> NDArray[np.complex64]:
        """Return the visibilities of an image, in one term; see `Transform`."""
        (epsilon,) = epsilons
        values: NDArray[np.complex64] = self._library.dirty2vis(
            uvw=self._uvw, dirty=image, epsilon=_bounded(epsilon), **self._options
        )
        return values[np.newaxis]


class NufftTransform:
    """By cufinufft, on a GPU; w is not taken into account.

    Parameters
    ----------
    uvw_m, frequency_hz, grid
        As for `DuccTransform`.
    xp : module
        The library of arrays, cupy.
    library : module
        That has a class ``Plan``: cufinufft.
    """

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        grid: Grid,
        xp: Any,
        library: Any,
    ) -> None:
        self._xp = xp
        self._library = library
        self._shape = (len(uvw_m), len(frequency_hz))
        self._size = grid.size
        turn = 2 * np.pi * grid.cell_rad * frequency_hz / SPEED_OF_LIGHT_M_PER_S
        self._y = self._wrapped(np.multiply.outer(uvw_m[:, 1], turn))
        self._x = self._wrapped(np.multiply.outer(-uvw_m[:, 0], turn))
        self._plans: dict[tuple[int, int, int], Any] = {}

    def adjoint(
        self, values: Array, factors: Array, epsilons: Sequence[float]
    ) -> Array:
        """Return the image of visibilities; see `Transform`."""
        plan = self._plan(1, len(values), min(epsilons))
        parts = plan.execute(values.reshape(len(values), -1)).real
        image = self._xp.ascontiguousarray(parts[0])
        for factor, part in zip(factors, parts[1:], strict=True):
            image += factor * part
        return image

    def forward(self, image: Array, factors: Array, epsilons: Sequence[float]) -> Array:
        """Return the visibilities of an image; see `Transform`."""
        plan = self._plan(2, 1 + len(factors), min(epsilons))
        images = self._xp.empty(
            (1 + len(factors), *image.shape), dtype=self._xp.complex64
        )
        images[0] = image
        images[1:] = factors * image
        return plan.execute(images).reshape(len(images), *self._shape)

    def _wrapped(self, phases: NDArray[np.float64]) -> Array:
        # in double precision, before single precision cuts digits off
        turned = (phases + np.pi) % (2 * np.pi) - np.pi
        return self._xp.asarray(turned.ravel().astype(np.float32))

    def _plan(self, kind: int, count: int, epsilon: float) -> Any:
        """Return a plan, made when it is first needed."""
        # whole digits, so that there are few plans; the library means the error of
        # the whole image, which is ten times as large in the outermost pixels
        digits = floor(log10(_bounded(0.1 * epsilon)) + 1e-9)
        plan = self._plans.get((kind, count, digits))
        if plan is None:
            plan = self._library.Plan(
                kind,
                (self._size, self._size),
                n_trans=count,
                eps=10.0**digits,
                isign=-1 if kind == 1 else 1,
                dtype="complex64",
            )
            plan.setpts(self._y, self._x)
            self._plans[kind, count, digits] = plan
        return plan


def _bounded(epsilon: float) -> float:
    """Return the accuracy to ask a library for."""
    return min(max(epsilon, FINEST), _COARSEST)
