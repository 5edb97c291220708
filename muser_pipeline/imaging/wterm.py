"""What is left of w, as a few two-dimensional transforms.

With r the w of a visibility that the plane of the image leaves over, in wavelengths,
and n - 1 of the pixels between -2 d and 0, n - 1 = d (t - 1) for -1 <= t <= 1 and

    exp(2 pi i r (n - 1)) = exp(-i x) exp(i x t)        with x = 2 pi r d
    exp(i x t) = J_0(x) + 2 sum over k > 0 of i^k J_k(x) T_k(t)

Bessel functions of the visibilities times Chebyshev polynomials of the pixels. For
antennas that are some metres from a plane x is a few hundredths, and two or three terms
are exact to single precision; a w of many wavelengths takes about x + 10 terms.

Source: Abramowitz and Stegun 1964, 9.1.44, 9.1.45 (Jacobi and Anger) and 9.1.10.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array


def bessel(order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return J of an order for small arguments, up to about 10, by its series."""
    quarter = -((x / 2.0) ** 2)
    term = np.ones_like(x)
    for k in range(1, order + 1):
        term = term * (x / 2.0) / k
    total = term.copy()
    for k in range(1, 100):
        term = term * quarter / (k * (k + order))
        total += term
        if np.max(np.abs(term), initial=0.0) < 1e-17:
            break
    return total


def chebyshev(depths: Array, half_depth: float, terms: int) -> Iterator[Array]:
    """Yield T_0 to T_(terms - 1) of the pixels; the first is the number 1.

    Parameters
    ----------
    depths : ndarray of float64
        n - 1 of the pixels, from -2 half_depth to 0.
    half_depth : float
        Above 0.
    terms : int
        How many to yield.
    """
    t = depths / half_depth + 1.0
    before, now = 1.0, t
    for _ in range(terms):
        yield before
        before, now = now, 2.0 * t * now - before
