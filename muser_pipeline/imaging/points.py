"""The brightest point of a field, found without cleaning it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.plane import FLAT
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

_CELLS_PER_FRINGE = 2.5
_EPSILON = 1e-3
"""A peak is looked for, not measured."""
_SMALLEST, _LARGEST = 64, 2048


@dataclass(frozen=True)
class Peak:
    """The highest pixel of a dirty image.

    Attributes
    ----------
    l, m : float
        Direction cosines, refined by a parabola.
    flux : float
        In units of the visibilities per beam.
    noise : float
        Of the image: its median absolute deviation times 1.4826.
    """

    l: float  # noqa: E741  the name of this coordinate everywhere
    m: float
    flux: float
    noise: float


class PointSearch:
    """Looks for points in dirty images that are as coarse as may be.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    field_rad : float
        Side of the field that is looked at.
    """

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        field_rad: float,
    ) -> None:
        longest = float(np.hypot(uvw_m[:, 0], uvw_m[:, 1]).max())
        longest *= float(frequency_hz.max()) / SPEED_OF_LIGHT_M_PER_S
        size = ceil(field_rad * _CELLS_PER_FRINGE * longest)
        size = int(next_fast_len(min(max(size, _SMALLEST), _LARGEST) // 2)) * 2
        self.grid = Grid(size, field_rad / size)
        # what is finer than such pixels would be seen at wrong places
        reach_m = SPEED_OF_LIGHT_M_PER_S / frequency_hz * (0.49 / self.grid.cell_rad)
        self._inside = np.abs(uvw_m[:, :2]).max(axis=1)[:, np.newaxis] < reach_m
        self._gridder = Gridder(uvw_m, frequency_hz, self.grid, epsilon=_EPSILON)

    def brightest(
        self, values: NDArray[np.complex64], weights: NDArray[np.float32]
    ) -> Peak:
        """Return the highest pixel of the image of some visibilities."""
        pixels = self._gridder.image(values, weights * self._inside)
        inner = pixels[1:-1, 1:-1]
        y, x = (int(k) + 1 for k in divmod(int(inner.argmax()), inner.shape[1]))
        rows, columns = pixels[y - 1 : y + 2, x], pixels[y, x - 1 : x + 2]
        half = self.grid.size // 2
        plane = self._gridder.plane or FLAT
        east, north, _ = plane.directions(
            np.array(-(x + _vertex(columns) - half) * self.grid.cell_rad),
            np.array((y + _vertex(rows) - half) * self.grid.cell_rad),
        )
        sample = pixels[::2, ::2]
        noise = 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
        return Peak(float(east), float(north), float(pixels[y, x]), noise)


def _vertex(three: NDArray[np.float32]) -> float:
    """Return where a parabola through three values is highest, from the middle one."""
    before, middle, after = (float(value) for value in three)
    bend = before - 2 * middle + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
