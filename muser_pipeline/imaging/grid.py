"""The pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError

_SMALLEST = 32
_LARGEST = 1 << 15


@dataclass(frozen=True)
class Grid:
    """A square of pixels around the phase centre, in the order of FITS.

    Pixel [y, x] looks towards l = -(x - size / 2) cell, to the east, and
    m = (y - size / 2) cell, to the north.

    Attributes
    ----------
    size : int
        Pixels on a side, even, from 32 on.
    cell_rad : float
        Side of a pixel in radians, or rather in direction cosines.

    Raises
    ------
    ImagingError
        When this is no such grid, or it reaches over the horizon; its reason is "grid".
    """

    size: int
    cell_rad: float

    def __post_init__(self) -> None:
        if self.size % 2 or not _SMALLEST <= self.size <= _LARGEST:
            raise ImagingError(
                "grid",
                f"an image has an even number of pixels on a side, from {_SMALLEST} "
                f"to {_LARGEST}, not {self.size}",
            )
        if not 0 < self.cell_rad * self.size < 1:
            raise ImagingError(
                "grid",
                f"an image of {self.size} pixels of {self.cell_rad} rad is not a part "
                "of the sky: size times cell is between 0 and 1",
            )

    @property
    def extent_rad(self) -> float:
        """Side of the image."""
        return self.size * self.cell_rad

    def coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return l of the columns and m of the rows, each of shape (size,)."""
        pixels = np.arange(self.size, dtype=np.float64)
        steps = (pixels - self.size // 2) * self.cell_rad
        return -steps, steps


def smooth_size(least: int) -> int:
    """Return the next even number without factors above 5, which are fast."""
    size = least + least % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2
