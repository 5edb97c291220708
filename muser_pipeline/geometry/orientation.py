"""How the Earth is turned: UT1 and polar motion by date, from a packaged table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.errors import TableError

_ARCSEC = np.pi / 180 / 3600
_MJD_OF_UNIX_EPOCH = 40587
_DAY_NS = 86_400 * 10**9
_TAI_UTC_AT_START_S = 12.0
"""TAI - UTC on 1973-01-02, the first day of the table."""
_COLUMNS = {
    "mjd": slice(7, 15),
    "x": slice(18, 27),
    "y": slice(37, 46),
    "ut1_utc": slice(58, 68),
}
"""Of the lines of ``finals2000A.all``, see https://maia.usno.navy.mil/ser7/readme.finals2000A."""


@dataclass(frozen=True, eq=False)
class EarthOrientation:
    """UT1 and polar motion, one line for each day at 0h UTC.

    Attributes
    ----------
    mjd : ndarray of float64, shape (day,)
        Days in ascending order.
    ut1_tai_s : ndarray of float64, shape (day,)
        UT1 - TAI: unlike UT1 - UTC it has no steps at leap seconds.
    x_rad, y_rad : ndarray of float64, shape (day,)
        Coordinates of the pole.
    """

    mjd: NDArray[np.float64]
    ut1_tai_s: NDArray[np.float64]
    x_rad: NDArray[np.float64]
    y_rad: NDArray[np.float64]

    def at(
        self, time_utc_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the orientation at some times, interpolated linearly.

        Parameters
        ----------
        time_utc_ns : ndarray of int64, shape (n,)
            UTC since 1970, nanoseconds.

        Returns
        -------
        ut1_tai_s, x_rad, y_rad : ndarray of float64, shape (n,)

        Raises
        ------
        TableError
            When the table does not cover all times.
        """
        mjd = _MJD_OF_UNIX_EPOCH + time_utc_ns / _DAY_NS
        if mjd.size and not (self.mjd[0] <= mjd.min() and mjd.max() <= self.mjd[-1]):
            raise TableError(
                f"UT1 is known from MJD {self.mjd[0]:.0f} to {self.mjd[-1]:.0f}, "
                f"needed from {mjd.min():.2f} to {mjd.max():.2f}: "
                "a newer astropy-iers-data covers later dates"
            )
        ut1_tai_s, x, y = (
            np.interp(mjd, self.mjd, column)
            for column in (self.ut1_tai_s, self.x_rad, self.y_rad)
        )
        return ut1_tai_s, x, y


def read_orientation(path: Path) -> EarthOrientation:
    """Read a table in the format of the IERS's ``finals2000A.all``.

    Days without values, at the end of the table, are left out.

    Source: IERS Rapid Service, finals2000A, columns of Bulletin A.
    """
    lines = [line for line in path.read_text().splitlines() if line[58:68].strip()]
    mjd, x, y, ut1_utc = (
        np.array([float(line[_COLUMNS[name]]) for line in lines])
        for name in ("mjd", "x", "y", "ut1_utc")
    )
    leaps = np.concatenate([[0.0], np.cumsum(np.round(np.diff(ut1_utc)))])
    return EarthOrientation(
        mjd=mjd,
        ut1_tai_s=ut1_utc - leaps - _TAI_UTC_AT_START_S,
        x_rad=x * _ARCSEC,
        y_rad=y * _ARCSEC,
    )


@lru_cache(maxsize=1)
def packaged_orientation() -> EarthOrientation:
    """Return the table that the installed ``astropy-iers-data`` contains.

    For days before that package was made UT1 is known to 0.02 ms (0.3 milliarcseconds,
    5 micrometres at 3 km). For later days it holds predictions: 3 ms (0.05 arcseconds,
    0.7 mm) after a month, some 20 ms after a year, where it ends. The pole is known
    better than that by far.
    """
    from astropy_iers_data import IERS_A_FILE

    return read_orientation(Path(IERS_A_FILE))
