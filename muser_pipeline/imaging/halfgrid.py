"""The Fourier transform of a snapshot on a CPU, without w.

Visibilities are spread over a grid that is somewhat finer than the image asks for, with
the exponential of a semicircle as kernel; what the kernel does to the image is divided
out. Made for tens of thousands of visibilities in images of up to some thousand pixels:
there it takes half of the time of libraries for anything, since it keeps half of the
grid, and leaves out columns that are empty and rows that are not looked at.

Source: Barnett, Magland and af Klinteberg 2019, SIAM J. Sci. Comput. 41, C479.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from math import ceil, log, pi

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.grid import Grid, smooth_size
from muser_pipeline.imaging.gridding_kernels import (
    MARGIN,
    TAPS,
    compiled,
    gather,
    spread,
)
from muser_pipeline.imaging.transforms import FINEST
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

_STEPS = 2048
"""Of the table of the kernel in one cell; linear in between is good to 1e-7."""
_ERROR_AT_ONE = 16.0
"""An image is wrong by at most this times exp(-pi TAPS sqrt(1 - 1 / fineness)) of its
peak, in the outermost pixels; by a tenth of that in most. The fineness is the side of
the grid over that of the image. Measured."""
_LEAST_FINENESS = 1.2
_SHARPNESS = 0.976
_NODES = 64
"""Of the integral over the kernel, which has one bend, at either edge."""


class HalfGridTransform:
    """Transforms of visibilities at given places, on the CPU.

    It works in memory that it keeps, so that only one thread may use it at a time.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Metres; w is not taken into account.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    grid : Grid
        The pixels.
    threads : int
        How many compute Fourier transforms.
    """

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        grid: Grid,
        threads: int,
    ) -> None:
        self._uv = np.ascontiguousarray(uvw_m[:, :2])
        self._per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        self._grid = grid
        self._threads = threads
        self._part = np.empty((grid.size, grid.size), dtype=np.float32)
        self._of_side: dict[int, _HalfGrid] = {}

    def adjoint(
        self,
        values: NDArray[np.complex64],
        factors: NDArray[np.float32],
        epsilons: Sequence[float],
    ) -> NDArray[np.float32]:
        """Return the image of visibilities; see `Transform`."""
        image = np.empty(self._part.shape, dtype=np.float32)
        self._half_grid(epsilons[0]).adjoint(values[0], image)
        for each, factor, epsilon in zip(
            values[1:], factors, epsilons[1:], strict=True
        ):
            self._half_grid(epsilon).adjoint(each, self._part)
            self._part *= factor
            image += self._part
        return image

    def forward(
        self,
        image: NDArray[np.float32],
        factors: NDArray[np.float32],
        epsilons: Sequence[float],
    ) -> NDArray[np.complex64]:
        """Return the visibilities of an image; see `Transform`."""
        shape = (len(epsilons), len(self._uv), len(self._per_m))
        values = np.empty(shape, dtype=np.complex64)
        self._half_grid(epsilons[0]).forward(image, values[0])
        for each, factor, epsilon in zip(
            values[1:], factors, epsilons[1:], strict=True
        ):
            np.multiply(factor, image, out=self._part)
            self._half_grid(epsilon).forward(self._part, each)
        return values

    def _half_grid(self, epsilon: float) -> _HalfGrid:
        """Return the grid for an accuracy, made when it is first needed."""
        side = self._side(epsilon)
        if side not in self._of_side:
            self._of_side[side] = _HalfGrid(
                self._uv, self._per_m, self._grid, side, self._threads
            )
        return self._of_side[side]

    def _side(self, epsilon: float) -> int:
        """Return how many cells a grid needs on a side: `_ERROR_AT_ONE`, solved."""
        root = log(_ERROR_AT_ONE / min(max(epsilon, FINEST), 1.0)) / (pi * TAPS)
        fineness = max(1 / (1 - root**2), _LEAST_FINENESS)
        return smooth_size(ceil(self._grid.size * fineness))


class _HalfGrid:
    """A grid of one side for visibilities at given places, and room to work in."""

    def __init__(
        self,
        uv_m: NDArray[np.float64],
        per_m: NDArray[np.float64],
        grid: Grid,
        side: int,
        threads: int,
    ) -> None:
        self._uv = uv_m
        self._side = side
        self._threads = threads
        self._scale = per_m * (grid.cell_rad * side)
        farthest = np.max(np.abs(uv_m[:, 0]), initial=0.0) * np.max(self._scale)
        self._columns = int(min(farthest, side // 2)) + MARGIN + 1
        self._kept = min(self._columns, side // 2 + 1)
        self._opposite = -np.arange(side) % side
        self._table, self._correction = _kernel(side, grid.size)
        start = (side - grid.size) // 2
        self._middle = slice(start, start + grid.size)
        self._cells = np.zeros((side, MARGIN + self._columns), dtype=np.complex64)
        # what lies beside the columns that are kept, or the pixels, stays zero
        self._lines = np.zeros((grid.size, side // 2 + 1), dtype=np.complex64)
        self._wide = np.zeros((grid.size, side), dtype=np.float32)
        self._seen = np.empty_like(self._wide)
        self._spectra = np.empty_like(self._lines)
        self._fft = importlib.import_module("ducc0").fft

    def adjoint(
        self, values: NDArray[np.complex64], image: NDArray[np.float32]
    ) -> None:
        """Fill in the image of visibilities."""
        self._cells[:] = 0
        # half, since all columns but two stand for their conjugates as well
        halved = values * np.float32(0.5)
        compiled(spread)(self._uv, self._scale, halved, self._table, self._parts())
        half = self._folded()
        self._fft.c2c(half, axes=(0,), forward=False, out=half, nthreads=self._threads)
        self._lines[:, : self._kept] = half[self._middle]
        self._fft.c2r(
            self._lines,
            axes=(1,),
            lastsize=self._side,
            forward=False,
            out=self._seen,
            nthreads=self._threads,
        )
        np.multiply(self._seen[:, self._middle], self._correction, out=image)

    def forward(
        self, image: NDArray[np.float32], values: NDArray[np.complex64]
    ) -> None:
        """Fill in the visibilities of an image."""
        np.multiply(image, self._correction, out=self._wide[:, self._middle])
        lines = self._fft.r2c(
            self._wide, axes=(1,), out=self._spectra, nthreads=self._threads
        )
        half = self._cells[:, MARGIN : MARGIN + self._kept]
        half[:] = 0
        half[self._middle] = lines[:, : self._kept]
        self._fft.c2c(half, axes=(0,), out=half, nthreads=self._threads)
        for column, mirrored in self._mirrors():
            opposite = self._cells[self._opposite, MARGIN + column]
            self._cells[:, MARGIN + mirrored] = opposite.conj()
        compiled(gather)(self._uv, self._scale, self._table, self._parts(), values)

    def _parts(self) -> NDArray[np.float32]:
        """Return the cells as real and imaginary parts in turn."""
        return self._cells.view(np.float32)

    def _folded(self) -> NDArray[np.complex64]:
        """Return the columns that are kept, with what was spread to their sides."""
        for column, mirrored in self._mirrors():
            opposite = self._cells[self._opposite, MARGIN + mirrored]
            self._cells[:, MARGIN + column] += opposite.conj()
        half = self._cells[:, MARGIN : MARGIN + self._kept]
        half[:, 0] *= 2
        half[:, self._side // 2 :] *= 2
        return half

    def _mirrors(self) -> Iterator[tuple[int, int]]:
        """Yield columns that are kept, and those that hold their conjugates."""
        for column in range(1, MARGIN + 1):
            yield column, -column
        for mirrored in range(self._side // 2 + 1, self._columns):
            yield self._side - mirrored, mirrored


@functools.lru_cache(maxsize=16)
def _kernel(side: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the table of the kernel, and what undoes it in an image.

    Returns
    -------
    table : ndarray of float32, shape (step + 2, 8)
        See `spread`.
    correction : ndarray of float32, shape (size, size)
        Factors of the pixels.
    """
    sharpness = _SHARPNESS * pi * TAPS * (1 - size / (2 * side))
    parts = np.arange(_STEPS + 2) / _STEPS
    cells = parts[:, np.newaxis] + np.arange(TAPS) - MARGIN
    table = _semicircle(cells / MARGIN, sharpness)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    pixels = (np.arange(size) - size // 2) / side
    waves = np.cos(2 * pi * MARGIN * np.multiply.outer(pixels, nodes))
    seen = MARGIN * (waves @ (weights * _semicircle(nodes, sharpness)))
    correction = 1 / np.multiply.outer(seen, seen)
    return table.astype(np.float32), correction.astype(np.float32)


def _semicircle(at: NDArray[np.float64], sharpness: float) -> NDArray[np.float64]:
    """Return the kernel, from -1 to 1."""
    height = np.sqrt(np.maximum(1 - at**2, 0))
    values: NDArray[np.float64] = np.exp(sharpness * (height - 1))
    values[np.abs(at) > 1] = 0
    return values
