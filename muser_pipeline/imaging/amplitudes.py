"""Antennas whose amplitudes are impossible, such as with a saturated receiver."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FEWEST_ANTENNAS = 6
"""Of fewer nobody can say which one is wrong."""
_LEAST_FACTOR = 10.0
"""In amplitude of a visibility: gains of antennas that work are nearer together."""
_SIGMAS = 8.0
_GROUP = 24
"""Baselines of similar length that are compared."""
_MOST_LEFT_OUT = 0.25
"""Of all antennas: if more look wrong, it is the sky that is unusual."""


def impossible_antennas(
    uvw_m: NDArray[np.float64],
    data: NDArray[np.complex64],
    weights: NDArray[np.float32],
    antenna1: NDArray[np.int64],
    antenna2: NDArray[np.int64],
) -> tuple[int, ...]:
    """Return antennas whose amplitudes are far off those of the others.

    The logarithm of an amplitude is taken for what baselines of that length have, plus
    a term for each antenna. Medians alone are used, so that a burst, or the antennas
    in question, do not count.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres.
    data : ndarray of complex64, shape (row, channel)
        Visibilities.
    weights : ndarray of float32, shape (row, channel)
        0 where there is none.
    antenna1, antenna2 : ndarray of int64, shape (row,)
        The antennas of each row.

    Returns
    -------
    tuple of int
        Their numbers, ascending.
    """
    rows = (weights > 0).any(axis=1) & (antenna1 != antenna2)
    if not rows.any():
        return ()
    sums = np.sum(np.where(weights > 0, np.abs(data), 0.0), axis=1, dtype=np.float64)
    counts = np.maximum(1, np.count_nonzero(weights > 0, axis=1))
    mean = (sums / counts)[rows]
    smallest = mean[mean > 0].min(initial=np.inf)
    if not np.isfinite(smallest):
        return ()
    logarithm = np.log(np.maximum(mean, smallest * 1e-3))
    lengths = np.hypot(uvw_m[rows, 0], uvw_m[rows, 1])
    left = logarithm - _smoothed(lengths, logarithm)
    numbers, inverse = np.unique(
        np.concatenate([antenna1[rows], antenna2[rows]]), return_inverse=True
    )
    if len(numbers) < _FEWEST_ANTENNAS:
        return ()
    first, second = np.split(inverse, 2)
    terms = np.zeros(len(numbers))
    for _ in range(3):
        terms = np.array(
            [
                np.median(
                    np.concatenate(
                        [
                            left[first == antenna] - terms[second[first == antenna]],
                            left[second == antenna] - terms[first[second == antenna]],
                        ]
                    )
                )
                for antenna in range(len(numbers))
            ]
        )
        terms -= np.median(terms)
    spread = 1.4826 * float(np.median(np.abs(terms)))
    limit = max(np.log(_LEAST_FACTOR), _SIGMAS * spread)
    wrong = numbers[np.abs(terms) > limit]
    if len(wrong) > _MOST_LEFT_OUT * len(numbers):
        return ()
    return tuple(int(number) for number in wrong)


def _smoothed(
    lengths: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return, for each value, the median of those at similar lengths."""
    order = np.argsort(lengths, kind="stable")
    groups = np.array_split(order, max(1, len(order) // _GROUP))
    medians = np.empty(len(values))
    for group in groups:
        medians[group] = np.median(values[group])
    return medians
