"""What a plane leaves of w, as a few two-dimensional transforms.

With r the rest of w in wavelengths, and n - 1 = d (t - 1) for -1 <= t <= 1 so that it
goes down to -2 d at the corners of the image,

    exp(2 pi i r (n - 1)) = exp(-i x) exp(i x t)        with x = 2 pi r d
    exp(i x t) = J_0(x) + 2 sum over k > 0 of i^k J_k(x) T_k(t)

that is, factors of the visibilities times Chebyshev polynomials of the pixels. For
antennas that are some metres from a plane x is a few hundredths, and two or three terms
are exact to single precision; a w of many wavelengths takes about x + 10 terms.

Source: Abramowitz and Stegun 1964, 9.1.44, 9.1.45 (Jacobi and Anger) and 9.1.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.plane import Plane, deepest, pixel_depths


@dataclass(frozen=True, eq=False)
class WTerms:
    """The terms that are large enough to count.

    Attributes
    ----------
    factors : ndarray of complex64, shape (k, row, channel)
        Of the visibilities of a model.
    polynomials : ndarray of float32, shape (k - 1, size, size)
        Of the pixels; that of the first term is 1.
    sizes : tuple of float
        Mean absolute values of the factors.
    """

    factors: Array
    polynomials: Array
    sizes: tuple[float, ...]


def expand(
    rest: NDArray[np.float64],
    plane: Plane,
    grid: Grid,
    epsilon: float,
    most: int,
    xp: Any,
) -> WTerms | None:
    """Return the terms for what is left of w, or None where there are too many.

    Parameters
    ----------
    rest : ndarray of float64, shape (row, channel)
        What the plane leaves of w, in wavelengths.
    plane : Plane
        Of the coordinates of the image.
    grid : Grid
        Of the image.
    epsilon : float
        Terms end where their mean absolute value over the visibilities, which is the
        most that they can contribute to an image, is below this.
    most : int
        How many terms there may be.
    xp : module
        The library of arrays for the result, numpy or cupy.
    """
    half_depth = deepest(plane, grid) / 2
    x = 2 * np.pi * half_depth * rest
    # beyond, some term of an order above `most` would count
    if not np.max(np.abs(x), initial=0.0) <= most:
        return None
    factors = []
    sizes = []
    for order in range(most + 1):
        amplitude = (2.0 if order else 1.0) * bessel(order, x)
        size = float(np.mean(np.abs(amplitude)))
        if order and size < epsilon:
            break
        factors.append(1j**order * amplitude)
        sizes.append(size)
    if len(factors) > most:
        return None
    turned = np.exp(-1j * x) * np.stack(factors)
    polynomials = xp.empty((len(sizes) - 1, grid.size, grid.size), dtype=xp.float32)
    if len(sizes) > 1:
        t = pixel_depths(plane, grid, xp)
        t /= xp.float32(half_depth)
        t += xp.float32(1)
        _chebyshev(t, polynomials, xp)
    return WTerms(xp.asarray(turned.astype(np.complex64)), polynomials, tuple(sizes))


def bessel(order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return J of an order by its ascending series; 1e-12 exact for abs(x) <= 10."""
    term = np.ones_like(x)
    for k in range(1, order + 1):
        term *= x / (2 * k)
    total = term.copy()
    quarter = -(x * x) / 4
    for k in range(1, 100):
        term *= quarter / (k * (k + order))
        total += term
        if np.max(np.abs(term), initial=0.0) < 1e-17:
            break
    return total


def _chebyshev(t: Array, polynomials: Array, xp: Any) -> None:
    """Fill in T_1, T_2 and so on of t."""
    polynomials[0] = t
    for k in range(1, len(polynomials)):
        xp.multiply(t, polynomials[k - 1], out=polynomials[k])
        polynomials[k] *= 2
        polynomials[k] -= polynomials[k - 2] if k > 1 else 1
