"""How bright the quiet Sun is from its centre outwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array.tables import read_table

RADII = np.arange(200) / 100
"""Of the profiles, in radii of the photosphere."""


def profiles_k(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return radial profiles of brightness temperature from the packaged table.

    Parameters
    ----------
    frequency_hz : ndarray, shape (channel,)
        Between two rows of the table the logarithm is interpolated linearly.

    Returns
    -------
    ndarray of float64, shape (channel, 200)
        Kelvin at 0, 0.01, ... 1.99 solar radii.
    """
    rows = read_table("quiet_sun_disk")
    known_hz = np.array([float(row["freq_mhz"]) for row in rows]) * 1e6
    table = np.array([[float(row[f"r{k}"]) for k in range(200)] for row in rows])
    logarithms = np.log(np.maximum(table, 1e-9))
    between = [np.interp(frequency_hz, known_hz, column) for column in logarithms.T]
    return np.asarray(np.exp(np.array(between).T))
