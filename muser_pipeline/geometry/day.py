"""How the Earth stands at the beginning of a day."""

from __future__ import annotations

from dataclasses import dataclass

import erfa
import numpy as np

from muser_pipeline.geometry.orientation import EarthOrientation, packaged_orientation
from muser_pipeline.geometry.track import tai_of

_DAY_NS = 86_400 * 10**9
_JD_OF_UNIX_EPOCH = 2_440_587.5


@dataclass(frozen=True)
class Day:
    """A day of UTC.

    Attributes
    ----------
    date : str
        Such as ``"2015-11-01"``.
    julian_date : float
        Of its 0h.
    sidereal_time_deg : float
        Apparent sidereal time of Greenwich at 0h UTC.
    ut1_utc_s, tai_utc_s : float
        UT1 - UTC and TAI - UTC at 0h.
    pole_arcsec : tuple of float
        Coordinates x, y of the pole.
    """

    date: str
    julian_date: float
    sidereal_time_deg: float
    ut1_utc_s: float
    tai_utc_s: float
    pole_arcsec: tuple[float, float]


def day_of(time_utc_ns: int, orientation: EarthOrientation | None = None) -> Day:
    """Return the day of UTC that a time is in.

    Parameters
    ----------
    time_utc_ns : int
        UTC since 1970.
    orientation : EarthOrientation, optional
        UT1 and polar motion; the packaged table by default.
    """
    number = int(time_utc_ns) // _DAY_NS
    midnight = np.array([number * _DAY_NS])
    ut1_tai, x, y = (orientation or packaged_orientation()).at(midnight)
    tai = tai_of(midnight)
    tai_utc_s = round(float((tai[0] - _JD_OF_UNIX_EPOCH - number + tai[1])[0]) * 86_400)
    ut1 = (tai[0], tai[1] + ut1_tai / 86_400)
    sidereal = erfa.gst06a(*ut1, *erfa.taitt(*tai))
    arcsec = np.degrees([x[0], y[0]]) * 3600
    return Day(
        date=str(np.datetime64(number, "D")),
        julian_date=_JD_OF_UNIX_EPOCH + number,
        sidereal_time_deg=float(np.degrees(sidereal[0])),
        ut1_utc_s=float(ut1_tai[0]) + tai_utc_s,
        tai_utc_s=float(tai_utc_s),
        pole_arcsec=(float(arcsec[0]), float(arcsec[1])),
    )
