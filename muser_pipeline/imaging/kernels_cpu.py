"""The minor cycles as loops over pixels, compiled when first used.

Floating-point operations are done one by one, in single precision and in the order of
plain Hogbom CLEAN, so that the components are the same to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = (32, 64)
"""Rows and columns; 8 KiB of float32 that stay in the nearest cache while hundreds of
components are subtracted from them."""
UNTIL, FLOOR, DIVERGED, PAUSED = range(4)
"""Why a minor cycle came back."""

_LOOSER = np.float32(1.000001)
"""Bounds are let out by this at each step: more than the sums behind them and the
pixels that they bound are rounded by, 2^-24 an operation."""
_SIGNLESS = np.int32(0x7FFFFFFF)
_ALL_BITS = np.int32(-1)
_STEP_COST = 16
"""What one step costs besides the subtraction, in tiles that a beam is subtracted
from."""


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the machine code of a loop; numba keeps it on disk for the next process.

    Parameters
    ----------
    function : callable
        One of this module's.
    """
    import numba

    loop: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    return loop


def hogbom(
    residual: NDArray[np.float32],
    bits: NDArray[np.int32],
    mask: NDArray[np.bool_],
    psf: NDArray[np.float32],
    pair: NDArray[np.int64],
    reach: NDArray[np.float32],
    bound: NDArray[np.float32],
    bound_bits: NDArray[np.int32],
    settled: NDArray[np.int64],
    places: NDArray[np.int64],
    flux: NDArray[np.float32],
    count: int,
    until: int,
    gain: NDArray[np.float32],
    floor: np.float32,
    divergence: np.float32,
    least: NDArray[np.float32],
    is_signed: bool,
    is_last: bool,
    budget: int,
) -> tuple[int, int]:
    """Take components away from the highest peaks, one after the other.

    No pixel is touched before it must be. Each tile has an upper bound of its pixels
    and the number of components that were subtracted from it; a new component adds to
    the bounds what its beam can do at most. Only where a bound reaches the highest peak
    that is known for sure are the components that are due subtracted, many in one go,
    in their order. What is found is what subtraction from all pixels at once would
    find, of equal peaks the first.

    Everything that is known is in the arrays, so that the work can go on after a pause.

    Parameters
    ----------
    residual, bits : ndarray of float32 and int32, shape (layer, N, N)
        The images, and their bits: without the sign these are in the order of the
        absolute values, and whole numbers are compared many at a time.
    mask : ndarray of bool, shape (N, N) or (0, 0)
        Where components may be.
    psf : ndarray of float32, shape (pair, n, n)
        Beams with their centres at n // 2.
    pair : ndarray of int64, shape (layer, layer)
        Which beam a component of one layer leaves in another.
    reach : ndarray of float32, shape (pair, ...)
        From `reach_of`.
    bound, bound_bits : ndarray of float32 and int32, shape (layer, rows, columns)
        Upper bounds of tiles and their bits.
    settled : ndarray of int64, shape (layer, rows, columns)
        Components subtracted; -1 where the peak was never looked for.
    places : ndarray of int64, shape (k, 3)
        Layer, y and x of components.
    flux : ndarray of float32, shape (k,)
        Of components.
    count, until : int
        Components there are, and how many there should be.
    gain : ndarray of float32, shape (layer,)
        Part of a peak that is taken away.
    floor : float32
        Stop at a peak that is not above this.
    divergence : float32
        Stop at a peak so many times the least one.
    least : ndarray of float32, shape (2,)
        The least peak, and how many components there were when it was seen.
    is_signed : bool
        Look for positive peaks only.
    is_last : bool
        Look for nothing: subtract everywhere what is due.
    budget : int
        Pause after so many subtractions of a beam from a tile.

    Returns
    -------
    count, reason : int
        Components there are, and one of `UNTIL`, `FLOOR`, `DIVERGED`, `PAUSED`.
    """
    height, width = TILE
    size, extent = residual.shape[1], psf.shape[1]
    half = extent // 2
    rows, columns = bound.shape[1], bound.shape[2]
    tiles = bound.size
    has_mask = mask.shape[0] > 0
    compared = _ALL_BITS if is_signed else _SIGNLESS
    bounds, bounds_bits, done = bound.ravel(), bound_bits.ravel(), settled.ravel()
    while is_last or count < until:
        top, highest = 0, np.int32(-1)
        for t in range(tiles):
            if bounds_bits[t] > highest:
                highest = bounds_bits[t]
                top = t
        # the tile with the highest bound first: few others then reach its peak
        peak = np.float32(0)
        for n in range(tiles):
            t = top + n if top + n < tiles else top + n - tiles
            if not is_last and bounds[t] < peak:
                continue
            if done[t] == count:
                if not is_last:
                    peak = max(peak, bounds[t])
                continue
            if budget < 0:
                return count, PAUSED
            layer, tile = divmod(t, rows * columns)
            y0, x0 = tile // columns * height, tile % columns * width
            y1, x1 = min(size, y0 + height), min(size, x0 + width)
            budget -= count - max(done[t], 0) + 1
            for k in range(max(done[t], 0), count):
                beam = psf[pair[places[k, 0], layer]]
                down, right = half - places[k, 1], half - places[k, 2]
                left, end = max(x0, -right), min(x1, extent - right)
                for y in range(max(y0, -down), min(y1, extent - down)):
                    to = residual[layer, y, left:end]
                    of = beam[y + down, left + right : end + right]
                    for i in range(len(to)):
                        to[i] -= flux[k] * of[i]
            done[t] = count
            if is_last:
                continue
            highest = np.int32(0)
            for y in range(y0, y1):
                row = bits[layer, y, x0:x1]
                if has_mask:
                    may = mask[y, x0:x1]
                    for i in range(len(row)):
                        if may[i]:
                            highest = max(highest, row[i] & compared)
                else:
                    for i in range(len(row)):
                        highest = max(highest, row[i] & compared)
            bounds_bits[t] = highest
            peak = max(peak, bounds[t])
        if is_last:
            return count, UNTIL
        if peak <= floor:
            return count, FLOOR
        if peak < least[0]:
            least[0], least[1] = peak, count
        elif peak > divergence * least[0]:
            return count, DIVERGED
        place = residual.size
        for t in range(tiles):
            if bounds[t] != peak:
                continue
            layer, tile = divmod(t, rows * columns)
            y0, x0 = tile // columns * height, tile % columns * width
            y1, x1 = min(size, y0 + height), min(size, x0 + width)
            for y in range(y0, y1):
                start = (layer * size + y) * size
                if start + x0 >= place:
                    break
                for x in range(x0, x1):
                    is_peak = (bits[layer, y, x] & compared) == bounds_bits[t]
                    if is_peak and (not has_mask or mask[y, x]):
                        place = min(place, start + x)
                        break
        layer, pixel = divmod(place, size * size)
        y, x = divmod(pixel, size)
        taken = gain[layer] * residual[layer, y, x]
        places[count, 0], places[count, 1], places[count, 2] = layer, y, x
        flux[count] = taken
        count += 1
        budget -= _STEP_COST
        most = abs(taken) * _LOOSER
        down = (half - y) // height + rows
        right = (half - x) // width + columns
        for other in range(residual.shape[0]):
            of_pair = reach[pair[layer, other]]
            for line in range(rows):
                rise = of_pair[line + down, right : right + columns]
                raised = bound[other, line]
                for i in range(columns):
                    raised[i] = (raised[i] + most * rise[i]) * _LOOSER
    return count, UNTIL


def reach_of(psf: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return what a beam can do at most to a tile, by their distance.

    Parameters
    ----------
    psf : ndarray of float32, shape (n, n)
        The beam.
    rows, columns : int
        Of tiles in an image.

    Returns
    -------
    ndarray of float32, shape (blocks + 2 rows + 1, blocks + 2 columns + 1)
        Highest absolute value of the beam in each square of two by two blocks, a block
        being as large as a tile; any tile's part of the beam is in one square. Block b
        of the beam is at b + rows, and 0 is around it.
    """
    height, width = TILE
    down, along = -(-psf.shape[0] // height), -(-psf.shape[1] // width)
    blocks = np.zeros((down + 2 * rows + 2, along + 2 * columns + 2), dtype=np.float32)
    inner = blocks[rows : rows + down, columns : columns + along]
    compiled(heights)(psf.view(np.int32), inner.view(np.int32))
    pairs = np.maximum(blocks[1:], blocks[:-1])
    square: NDArray[np.float32] = np.maximum(pairs[:, 1:], pairs[:, :-1])
    return square


def heights(bits: NDArray[np.int32], highest: NDArray[np.int32]) -> None:
    """Find the highest absolute value in each tile.

    Parameters
    ----------
    bits : ndarray of int32, shape (n, n)
        Those of an image.
    highest : ndarray of int32, shape (rows, columns)
        Filled with those of the highest values.
    """
    height, width = TILE
    for y in range(len(bits)):
        to = highest[y // height]
        for tile in range(len(to)):
            part = bits[y, tile * width : (tile + 1) * width]
            most = to[tile]
            for i in range(len(part)):
                most = max(most, part[i] & _SIGNLESS)
            to[tile] = most


def clark(
    values: NDArray[np.float32],
    bits: NDArray[np.int32],
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    psf: NDArray[np.float32],
    found: NDArray[np.int64],
    flux: NDArray[np.float32],
    count: int,
    until: int,
    gain: np.float32,
    floor: np.float32,
    is_signed: bool,
    budget: int,
) -> tuple[int, int]:
    """Take components away from a list of pixels, and from no others.

    Parameters
    ----------
    values, bits : ndarray of float32 and int32, shape (n,)
        The pixels and their bits.
    y, x : ndarray of int64, shape (n,)
        Where they are.
    psf : ndarray of float32, shape (m, m)
        The beam, its centre at m // 2.
    found : ndarray of int64, shape (k,)
        Which pixel each component is at.
    flux : ndarray of float32, shape (k,)
        Of components.
    count, until : int
        Components there are, and how many there should be.
    gain : float32
        Part of a peak that is taken away.
    floor : float32
        Stop at a peak that is not above this.
    is_signed : bool
        Look for positive peaks only.
    budget : int
        Pause after so many pixels.

    Returns
    -------
    count, reason : int
        Components there are, and one of `UNTIL`, `FLOOR`, `PAUSED`.
    """
    half, extent = psf.shape[0] // 2, psf.shape[0]
    compared = _ALL_BITS if is_signed else _SIGNLESS
    while count < until:
        if budget < 0:
            return count, PAUSED
        budget -= len(values)
        highest = np.int32(0)
        for i in range(len(bits)):
            highest = max(highest, bits[i] & compared)
        top = 0
        while top < len(bits) - 1 and (bits[top] & compared) != highest:
            top += 1
        if abs(values[top]) <= floor or highest == 0:
            return count, FLOOR
        taken = gain * values[top]
        found[count], flux[count] = top, taken
        count += 1
        down, right = half - y[top], half - x[top]
        for i in range(len(values)):
            row, column = y[i] + down, x[i] + right
            if 0 <= row < extent and 0 <= column < extent:
                values[i] -= taken * psf[row, column]
    return count, UNTIL
