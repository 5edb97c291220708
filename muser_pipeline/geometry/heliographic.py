"""How the Sun is turned: the angles P, B0 and L0, and its radius in the sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.geometry.track import Track

SOLAR_RADIUS_M = 695_700e3
"""Nominal radius: IAU 2015 resolution B3."""
_POLE_RA_DEG = 286.13
_POLE_DEC_DEG = 63.87
_MERIDIAN_DEG = 84.176
_ROTATION_DEG_PER_DAY = 14.1844
"""North pole and prime meridian at J2000.0 in the ICRS: Archinal et al. 2011, Report
of the IAU working group on cartographic coordinates 2009."""
_J2000_UNIX_NS = 946_727_935_816_000_000
"""2000-01-01 12:00:00 TT as UTC since 1970."""
_DAY_NS = 86_400 * 10**9
_LIGHT_M_PER_DAY = 299_792_458.0 * 86_400


@dataclass(frozen=True, eq=False)
class Heliographic:
    """The Sun's orientation at n times.

    Attributes
    ----------
    p_deg : ndarray of float64, shape (n,)
        Position angle of its north pole, from north through east.
    b0_deg, l0_deg : ndarray of float64, shape (n,)
        Heliographic latitude and Carrington longitude of the centre of the disk.
    radius_arcsec : ndarray of float64, shape (n,)
        Radius of the photosphere in the sky.
    """

    p_deg: NDArray[np.float64]
    b0_deg: NDArray[np.float64]
    l0_deg: NDArray[np.float64]
    radius_arcsec: NDArray[np.float64]


def heliographic(track: Track, north: Literal["icrs", "date"] = "icrs") -> Heliographic:
    """Return the orientation of the Sun on a track of it.

    Carrington's longitude is that of the light that arrives: the Sun is taken as it was
    when that light left it. Leap seconds since 2000 are not counted, which is
    5 s 14.2 / 86400 = 0.0008 degrees in ``l0_deg``.

    Parameters
    ----------
    track : Track
        Of the Sun.
    north : {"icrs", "date"}, optional
        What P is counted from: almanacs use the north of date, images in J2000
        coordinates need the other.
    """
    pole_ra, pole_dec = np.radians([_POLE_RA_DEG, _POLE_DEC_DEG])
    pole = np.array(
        [
            np.cos(pole_dec) * np.cos(pole_ra),
            np.cos(pole_dec) * np.sin(pole_ra),
            np.sin(pole_dec),
        ]
    )
    node = np.array([-np.sin(pole_ra), np.cos(pole_ra), 0.0])
    to_earth = -track.sky_place
    days = (track.time_utc_ns - _J2000_UNIX_NS) / _DAY_NS
    days = days - track.distance_m / _LIGHT_M_PER_DAY
    meridian = _MERIDIAN_DEG + _ROTATION_DEG_PER_DAY * days
    along = np.arctan2(to_earth @ np.cross(pole, node), to_earth @ node)
    upward = np.array([0.0, 0.0, 1.0]) if north == "icrs" else track.pole_of_date
    east = np.cross(upward, track.sky_place)
    east /= np.linalg.norm(east, axis=-1, keepdims=True)
    northward = np.cross(track.sky_place, east)
    return Heliographic(
        p_deg=np.degrees(np.arctan2(east @ pole, northward @ pole)),
        b0_deg=np.degrees(np.arcsin(to_earth @ pole)),
        l0_deg=(np.degrees(along) - meridian) % 360.0,
        radius_arcsec=np.degrees(np.arcsin(SOLAR_RADIUS_M / track.distance_m)) * 3600,
    )
