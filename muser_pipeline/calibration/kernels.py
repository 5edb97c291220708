"""Loops over the baselines of frames, compiled when first used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def turn_baselines(
    visibilities: NDArray[np.complex64],
    which: NDArray[np.int64],
    phasors: NDArray[np.complex64],
    turned: NDArray[np.complex64],
) -> None:
    """Multiply visibilities of frames by the phasors of their antennas.

    Parameters
    ----------
    visibilities : ndarray of complex64, shape (n, baseline, channel)
        Baselines i < j in lexicographic order.
    which : ndarray of int64, shape (m,)
        The frames to turn.
    phasors : ndarray of complex64, shape (m, antenna, channel)
        Of these frames.
    turned : ndarray of complex64, shape (n, baseline, channel)
        Filled with V_ij conj(p_i) p_j.
    """
    antennas, channels = phasors.shape[1:]
    for m in range(len(which)):
        n = which[m]
        baseline = 0
        for i in range(antennas):
            for j in range(i + 1, antennas):
                for c in range(channels):
                    turn = np.conj(phasors[m, i, c]) * phasors[m, j, c]
                    turned[n, baseline, c] = visibilities[n, baseline, c] * turn
                baseline += 1
