"""Baselines as seen from a source."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.geometry.track import Track


def antenna_uvw_m(
    track: Track,
    positions_geocentric_m: NDArray[np.float64],
    north: Literal["icrs", "date"] = "icrs",
) -> NDArray[np.float64]:
    """Return the places of antennas along u, v and w.

    For a source at a finite distance R the wave is a sphere: w is shorter by
    (|r|^2 - w^2) / (2 R), which is 0.15 m for an antenna 3.3 km from the reference
    point and a geostationary satellite, and 0.04 mm for the Sun.

    Parameters
    ----------
    track : Track
        The source at n times.
    positions_geocentric_m : ndarray, shape (antenna, 3)
        Relative to the reference point of the array, in the axes of the ITRS.
    north : {"icrs", "date"}, optional
        What v points to: images whose header says J2000 need the first.

    Returns
    -------
    ndarray of float64, shape (n, antenna, 3)
        Metres east, north and towards the source.
    """
    axes = track.axes if north == "icrs" else track.axes_of_date()
    uvw: NDArray[np.float64] = positions_geocentric_m @ np.swapaxes(axes, 1, 2)
    squares = np.sum(positions_geocentric_m**2, axis=1) - uvw[:, :, 2] ** 2
    uvw[:, :, 2] -= squares / (2.0 * track.distance_m[:, np.newaxis])
    return uvw


def uvw_m(
    track: Track,
    positions_geocentric_m: NDArray[np.float64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    north: Literal["icrs", "date"] = "icrs",
) -> NDArray[np.float64]:
    """Return u, v and w of all baselines at all times.

    With H the hour angle at Greenwich, d the declination and X, Y, Z the position of
    the second antenna minus that of the first, for the north of date::

        u =  sin H  X + cos H  Y
        v = -sin d cos H  X + sin d sin H  Y + cos d  Z
        w =  cos d cos H  X - cos d sin H  Y + sin d  Z

    Source: Thompson, Moran and Swenson, Interferometry and Synthesis in Radio
    Astronomy, equation 4.1, with the hour angle of Greenwich for geocentric X, Y, Z.

    Parameters
    ----------
    track : Track
        The source at n times.
    positions_geocentric_m : ndarray, shape (antenna, 3)
        In the axes of the ITRS.
    first, second : ndarray of int, shape (baseline,)
        Rows of the antennas of each baseline.
    north : {"icrs", "date"}, optional
        What v points to.

    Returns
    -------
    ndarray of float64, shape (n, baseline, 3)
        Second antenna minus first, metres.
    """
    antennas = antenna_uvw_m(track, positions_geocentric_m, north)
    baselines: NDArray[np.float64] = antennas[:, second] - antennas[:, first]
    return baselines
