"""The loops of gridding, compiled when first used.

A visibility is spread over 8 x 8 cells of a grid of which half is kept, that with
columns from 0 on: its conjugate stands for the other half. Signs alternate from cell
to cell, so that the image comes out with its centre in the middle.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAPS = 8
"""Cells, on each axis, that a visibility is spread over."""
MARGIN = TAPS // 2
"""Columns before column 0 that it may reach into."""


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the machine code of a loop; numba keeps it on disk for the next process.

    Parameters
    ----------
    function : callable
        One of this module's.
    """
    import numba

    loop: Callable[..., Any] = numba.njit(cache=True, nogil=True, fastmath=True)(
        function
    )
    return loop


def spread(
    uv: NDArray[np.float64],
    scale: NDArray[np.float64],
    values: NDArray[np.complex64],
    table: NDArray[np.float32],
    grid: NDArray[np.float32],
) -> None:
    """Add visibilities to a grid.

    Parameters
    ----------
    uv : ndarray of float64, shape (row, 2)
        u and v in metres.
    scale : ndarray of float64, shape (channel,)
        Cells per metre.
    values : ndarray of complex64, shape (row, channel)
        Of the visibilities.
    table : ndarray of float32, shape (step + 2, 8)
        The kernel at the eight cells, by how far the first one is from its edge.
    grid : ndarray of float32, shape (side, 2 columns)
        Added to: real and imaginary parts in turn, `MARGIN` columns before column 0.
    """
    side = grid.shape[0]
    steps = table.shape[0] - 2
    line = np.empty(2 * TAPS, np.float32)
    across = np.empty(TAPS, np.float32)
    for row in range(uv.shape[0]):
        for channel in range(scale.shape[0]):
            real = values[row, channel].real
            imaginary = values[row, channel].imag
            if real == 0 and imaginary == 0:
                continue
            x = uv[row, 0] * scale[channel]
            y = -uv[row, 1] * scale[channel]
            x -= side * np.rint(x / side)
            if x < 0:
                x, y, imaginary = -x, -y, -imaginary
            first_x = int(np.ceil(x - MARGIN))
            first_y = int(np.ceil(y - MARGIN))
            part_x = (first_x - x + MARGIN) * steps
            part_y = (first_y - y + MARGIN) * steps
            at_x, at_y = int(part_x), int(part_y)
            rest_x, rest_y = np.float32(part_x - at_x), np.float32(part_y - at_y)
            sign_x = np.float32(1 - 2 * (first_x & 1))
            sign_y = np.float32(1 - 2 * (first_y & 1))
            for j in range(TAPS):
                low, high = table[at_x, j], table[at_x + 1, j]
                along = sign_x * (low + rest_x * (high - low))
                line[2 * j] = along * real
                line[2 * j + 1] = along * imaginary
                sign_x = -sign_x
                low, high = table[at_y, j], table[at_y + 1, j]
                across[j] = sign_y * (low + rest_y * (high - low))
                sign_y = -sign_y
            start = 2 * (first_x + MARGIN)
            for i in range(TAPS):
                to = grid[(first_y + i) % side, start : start + 2 * TAPS]
                factor = across[i]
                for j in range(2 * TAPS):
                    to[j] += factor * line[j]


def gather(
    uv: NDArray[np.float64],
    scale: NDArray[np.float64],
    table: NDArray[np.float32],
    grid: NDArray[np.float32],
    values: NDArray[np.complex64],
) -> None:
    """Take visibilities from a grid, into ``values``; see `spread`."""
    side = grid.shape[0]
    steps = table.shape[0] - 2
    along = np.empty(TAPS, np.float32)
    across = np.empty(TAPS, np.float32)
    line = np.empty(2 * TAPS, np.float32)
    for row in range(uv.shape[0]):
        for channel in range(scale.shape[0]):
            x = uv[row, 0] * scale[channel]
            y = -uv[row, 1] * scale[channel]
            x -= side * np.rint(x / side)
            turn = np.float32(1)
            if x < 0:
                x, y, turn = -x, -y, np.float32(-1)
            first_x = int(np.ceil(x - MARGIN))
            first_y = int(np.ceil(y - MARGIN))
            part_x = (first_x - x + MARGIN) * steps
            part_y = (first_y - y + MARGIN) * steps
            at_x, at_y = int(part_x), int(part_y)
            rest_x, rest_y = np.float32(part_x - at_x), np.float32(part_y - at_y)
            sign_x = np.float32(1 - 2 * (first_x & 1))
            sign_y = np.float32(1 - 2 * (first_y & 1))
            for j in range(TAPS):
                low, high = table[at_x, j], table[at_x + 1, j]
                along[j] = sign_x * (low + rest_x * (high - low))
                sign_x = -sign_x
                low, high = table[at_y, j], table[at_y + 1, j]
                across[j] = sign_y * (low + rest_y * (high - low))
                sign_y = -sign_y
            start = 2 * (first_x + MARGIN)
            line[:] = 0
            for i in range(TAPS):
                of = grid[(first_y + i) % side, start : start + 2 * TAPS]
                factor = across[i]
                for j in range(2 * TAPS):
                    line[j] += factor * of[j]
            real = np.float32(0)
            imaginary = np.float32(0)
            for j in range(TAPS):
                real += along[j] * line[2 * j]
                imaginary += along[j] * line[2 * j + 1]
            values[row, channel] = complex(real, turn * imaginary)
