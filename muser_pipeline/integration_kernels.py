"""The loop that adds up frames, compiled when first used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def add_frames(
    visibilities: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    which: NDArray[np.int64],
    slots: NDArray[np.int64],
    sums: NDArray[np.complex64],
    counts: NDArray[np.float32],
) -> None:
    """Add what is not flagged of some frames.

    Parameters
    ----------
    visibilities, flags : ndarray, shape (n, baseline, channel)
        Of all frames.
    which : ndarray of int64, shape (m,)
        The frames to add,
    slots : ndarray of int64, shape (m,)
        and what to add each to.
    sums : ndarray of complex64, shape (slot, baseline, channel)
        Added to.
    counts : ndarray of float32, shape (slot, baseline, channel)
        One added where something was.
    """
    for m in range(len(which)):
        n, s = which[m], slots[m]
        for b in range(visibilities.shape[1]):
            for c in range(visibilities.shape[2]):
                if not flags[n, b, c]:
                    sums[s, b, c] += visibilities[n, b, c]
                    counts[s, b, c] += np.float32(1)
