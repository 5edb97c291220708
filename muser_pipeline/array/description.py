"""One array: where it stands, its antennas, bands, channels and baselines.

An input is a number of the correlator, from 0. The first inputs carry antennas, the
last four of each array are idle. A baseline is a pair of inputs i < j; baselines are
in lexicographic order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muser_pipeline.array.tables import read_table
from muser_pipeline.errors import TableError

CHANNELS = 16
"""Channels of a frame."""
CHANNEL_WIDTH_HZ = 25e6
FRAME_PERIOD_NS = 3_125_000
"""From one frame to the next: 320 frames a second."""
BEIJING_OFFSET_NS = 8 * 3600 * 10**9
"""What Beijing time, the instrument's clock, is ahead of UTC; no daylight saving."""
SPEED_OF_LIGHT_M_PER_S = 299_792_458.0


@dataclass(frozen=True)
class Site:
    """The reference point that antenna positions are relative to.

    Attributes
    ----------
    longitude_deg, latitude_deg : float
        East and north, WGS84.
    height_m : float
        Above the ellipsoid.
    geocentric_m : tuple of float
        X, Y, Z of the same point.
    """

    longitude_deg: float
    latitude_deg: float
    height_m: float
    geocentric_m: tuple[float, float, float]


SITE = Site(
    longitude_deg=115.2505,
    latitude_deg=42.211833333,
    height_m=1365.0,
    geocentric_m=(-2018660.192, 4280075.239, 4263977.595),
)
"""Mingantu; both arrays share it."""


@dataclass(frozen=True)
class Band:
    """One of the 400 MHz pieces that the sky range is observed in.

    Attributes
    ----------
    number : int
        From 0.
    low_edge_hz : float
        Lowest frequency.
    fixed_code : int
        High half of the header's mode word when the array stays in this band.
    loop_codes : tuple of int
        Codes of its frames in a loop, of the left and of the right hand.
    old_loop_code : int or None
        Code in a loop of the old layout of MUSER-I, the same for both hands.
    """

    number: int
    low_edge_hz: float
    fixed_code: int
    loop_codes: tuple[int, int]
    old_loop_code: int | None


@dataclass(frozen=True, eq=False)
class Array:
    """MUSER-I or MUSER-II.

    Attributes
    ----------
    number : int
        1 or 2.
    name : str
        ``"MUSER-I"`` or ``"MUSER-II"``.
    inputs : int
        Inputs of the correlator: 44 or 64.
    antenna_names : tuple of str
        One for each input that carries an antenna: 40 or 60.
    positions_enu_m : ndarray of float64, shape (antenna, 3)
        East, north and up from the site's reference point, metres.
    dish_diameter_m : float
        Diameter of one dish.
    bands : tuple of Band
        By number: 4 or 33.
    site : Site
        The reference point.
    """

    number: int
    name: str
    inputs: int
    antenna_names: tuple[str, ...]
    positions_enu_m: NDArray[np.float64]
    dish_diameter_m: float
    bands: tuple[Band, ...]
    site: Site = SITE

    @property
    def antennas(self) -> int:
        """How many inputs carry antennas."""
        return len(self.antenna_names)

    @property
    def baselines(self) -> int:
        """How many baselines there are between antennas: 780 or 1770."""
        return self.antennas * (self.antennas - 1) // 2

    @property
    def frames_per_loop(self) -> int:
        """Frames of a loop over all bands and both hands: 8 or 66."""
        return 2 * len(self.bands)

    def baseline_inputs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the inputs of each baseline between antennas.

        Returns
        -------
        first, second : ndarray of int64, shape (baseline,)
            first < second, in the order of the ``visibilities`` of frames.
        """
        first, second = np.triu_indices(self.antennas, k=1)
        return first.astype(np.int64), second.astype(np.int64)

    def positions_geocentric_m(self) -> NDArray[np.float64]:
        """Return the antennas relative to the site in geocentric axes.

        The local axes turned by the site's longitude lam and latitude phi::

            dX = -sin(lam) e - sin(phi) cos(lam) n + cos(phi) cos(lam) u
            dY =  cos(lam) e - sin(phi) sin(lam) n + cos(phi) sin(lam) u
            dZ =               cos(phi) n          + sin(phi) u

        Returns
        -------
        ndarray of float64, shape (antenna, 3)
            X to longitude 0, Y to longitude 90 degrees east, Z to the pole, metres.
        """
        lam = radians(self.site.longitude_deg)
        phi = radians(self.site.latitude_deg)
        turn = np.array(
            [
                [-sin(lam), -sin(phi) * cos(lam), cos(phi) * cos(lam)],
                [cos(lam), -sin(phi) * sin(lam), cos(phi) * sin(lam)],
                [0.0, cos(phi), sin(phi)],
            ]
        )
        turned: NDArray[np.float64] = self.positions_enu_m @ turn.T
        return turned

    def channel_centres_hz(self, band: ArrayLike) -> NDArray[np.float64]:
        """Return the sky frequencies of the channels of bands.

        Parameters
        ----------
        band : int or array of int, shape (n,)
            Numbers of bands.

        Returns
        -------
        ndarray of float64, shape (16,) or (n, 16)
            Centres in ascending order, hertz: low edge + 25 MHz c + 12.5 MHz.
        """
        low_edges = np.array([each.low_edge_hz for each in self.bands])
        centres = (np.arange(CHANNELS) + 0.5) * CHANNEL_WIDTH_HZ
        edges = np.asarray(low_edges[np.asarray(band)], dtype=np.float64)
        found: NDArray[np.float64] = np.add.outer(edges, centres)
        return found


@functools.cache
def load_array(number: int, heights: Literal["current", "older"] = "current") -> Array:
    """Return the description of an array, read from the packaged tables.

    Parameters
    ----------
    number : int
        1 for MUSER-I, 2 for MUSER-II.
    heights : {"current", "older"}, optional
        Two surveys of MUSER-I disagree in the heights of IA5 and IC13 by 0.1 m;
        MUSER-II has one.

    Raises
    ------
    TableError
        When there is no such array.
    """
    if number not in _INSTRUMENTS:
        raise TableError(f"there is no array {number!r}: 1 is MUSER-I, 2 is MUSER-II")
    name, inputs, dish_diameter_m = _INSTRUMENTS[number]
    antennas = read_table(f"antennas_{number}")
    up = "up_older_m" if number == 1 and heights == "older" else "up_m"
    columns = ("east_m", "north_m", up)
    positions = np.array([[float(row[c]) for c in columns] for row in antennas])
    positions.flags.writeable = False
    return Array(
        number=number,
        name=name,
        inputs=inputs,
        antenna_names=tuple(row["name"] for row in antennas),
        positions_enu_m=positions,
        dish_diameter_m=dish_diameter_m,
        bands=tuple(_band(row) for row in read_table(f"bands_{number}")),
    )


_INSTRUMENTS = {1: ("MUSER-I", 44, 4.5), 2: ("MUSER-II", 64, 2.0)}
"""Names, inputs of the correlators and dish diameters in metres."""


def _band(row: dict[str, str]) -> Band:
    ending = "_hex" if "loop_code_pol0_hex" in row else ""
    left, right = (int(row[f"loop_code_pol{hand}{ending}"], base=0) for hand in (0, 1))
    old = row.get("loop_code_pre2015_hex")
    return Band(
        number=int(row["band"]),
        low_edge_hz=float(row["freq_low_edge_hz"]),
        fixed_code=int(row["fixed_code_hex"], base=0),
        loop_codes=(left, right),
        old_loop_code=None if old is None else int(old, base=0),
    )
