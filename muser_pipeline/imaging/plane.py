"""The plane that baselines lie in, and what it does to an image.

At one moment an array on flat ground has w = a u + b v, and then

    u l + v m + w (n - 1) = u (l + a (n - 1)) + v (m + b (n - 1))

so that a two-dimensional transform makes an exact image in slanted coordinates
l' = l + a (n - 1) and m' = m + b (n - 1). FITS can say so: it is the projection SIN
with PV2_1 = -a and PV2_2 = -b.

Source: Calabretta and Greisen 2002, A&A 395, 1077, section 5.1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array
from muser_pipeline.imaging.grid import Grid


@dataclass(frozen=True)
class Plane:
    """A plane w = a u + b v.

    Attributes
    ----------
    a, b : float
        Its slopes.
    residual_m : float
        The largest distance, along w, of a baseline from it.
    """

    a: float
    b: float
    residual_m: float = 0.0

    @property
    def pv(self) -> tuple[float, float]:
        """PV2_1 and PV2_2 of an image in slanted coordinates."""
        return -self.a, -self.b

    def residuals_m(self, uvw_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return w - (a u + b v) of rows of u, v, w; shape (row,)."""
        left: NDArray[np.float64] = (
            uvw_m[:, 2] - self.a * uvw_m[:, 0] - self.b * uvw_m[:, 1]
        )
        return left

    def directions(
        self, slanted_east: NDArray[np.float64], slanted_north: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return where pixels really look.

        Parameters
        ----------
        slanted_east, slanted_north : ndarray of float64
            l' and m', of shapes that go together.

        Returns
        -------
        l, m, n - 1 : ndarray of float64
            Direction cosines; not a number where no direction has these coordinates.
        """
        square = slanted_east**2 + slanted_north**2
        half = 1.0 - self.a * slanted_east - self.b * slanted_north
        with np.errstate(invalid="ignore"):
            root = np.sqrt(half**2 - _steepness(self) * square)
        # that form of the root of a quadratic equation which loses no digits
        below = -square / (half + root)
        return slanted_east - self.a * below, slanted_north - self.b * below, below

    def slanted(
        self, east: NDArray[np.float64], north: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return l' and m' of directions l and m."""
        below = depth(east, north)
        return east + self.a * below, north + self.b * below


def _steepness(plane: Plane) -> float:
    return 1.0 + plane.a**2 + plane.b**2


FLAT = Plane(0.0, 0.0)
"""That of an image whose coordinates are plain l and m."""


def depth(east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return n - 1 of directions l and m, which loses no digits near the centre."""
    square = east**2 + north**2
    below: NDArray[np.float64] = -square / (1.0 + np.sqrt(1.0 - square))
    return below


def deepest(plane: Plane, grid: Grid) -> float:
    """Return the largest 1 - n of all pixels; not a number if some are not sky."""
    east, north = grid.coordinates()
    # on the rim, since 1 - n is a convex function of the coordinates
    _, _, columns = plane.directions(east, north[[0, -1], np.newaxis])
    _, _, rows = plane.directions(east[[0, -1], np.newaxis], north)
    return -float(min(np.min(columns), np.min(rows)))


def pixel_depths(plane: Plane, grid: Grid, xp: Any) -> Array:
    """Return n - 1 of all pixels, as an array of a library.

    Single precision loses no more than its last digit: nothing is subtracted that is
    nearly equal.

    Parameters
    ----------
    plane : Plane
        Of the coordinates.
    grid : Grid
        The pixels.
    xp : module
        The library, numpy or cupy.

    Returns
    -------
    ndarray of float32, shape (size, size)
    """
    east, north = (xp.asarray(each.astype(np.float32)) for each in grid.coordinates())
    # in place: new memory would take longer than the sums
    depths = east**2 + (north**2)[:, np.newaxis]
    half = (1 - plane.a * east) - (plane.b * north)[:, np.newaxis]
    root = depths * -_steepness(plane)
    root += half * half
    xp.sqrt(root, out=root)
    root += half
    depths /= root
    depths *= -1
    return depths


def fit_plane(uvw_m: NDArray[np.float64]) -> Plane:
    """Return the plane through the origin that is nearest along w.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Metres.
    """
    slopes = np.linalg.lstsq(uvw_m[:, :2], uvw_m[:, 2], rcond=None)[0]
    plane = Plane(float(slopes[0]), float(slopes[1]))
    largest = float(np.max(np.abs(plane.residuals_m(uvw_m)), initial=0.0))
    return Plane(plane.a, plane.b, largest)
