"""A source followed through time from a site on the turning Earth."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import erfa
import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import Site
from muser_pipeline.geometry.orientation import EarthOrientation, packaged_orientation
from muser_pipeline.geometry.sources import Observer, Source

_DAY_NS = 86_400 * 10**9
_JD_OF_UNIX_EPOCH = 2_440_587.5
_NODE_NS = 60 * 10**9
"""Precession, nutation, aberration and parallax are computed for whole minutes and
interpolated. Parallax bends most: 8.8 arcseconds (7.3e-5 / s)^2 (60 s)^2 / 8 are
2e-5 arcseconds. Whole minutes, so that what is said of a moment does not depend on
which other moments are asked for."""


@dataclass(frozen=True, eq=False)
class Track:
    """Where a source stands at n times, as seen from the site itself (topocentric).

    Attributes
    ----------
    name : str
        The source.
    site : Site
        Who looks.
    time_utc_ns : ndarray of int64, shape (n,)
        UTC since 1970.
    ra_deg, dec_deg : ndarray of float64, shape (n,)
        In the ICRS (J2000 to 0.02 arcseconds), without aberration: what stands in a
        catalogue.
    ra_apparent_deg, dec_apparent_deg : ndarray of float64, shape (n,)
        Of the true equator and equinox of date, with aberration and parallax, without
        refraction and polar motion.
    sidereal_time_deg : ndarray of float64, shape (n,)
        Apparent sidereal time of Greenwich.
    axes : ndarray of float64, shape (n, 3, 3)
        Rows are the unit vectors of u (east), v (north in the ICRS) and w (to the
        source) in the axes of the ITRS, polar motion included.
    north_angle_rad : ndarray of float64, shape (n,)
        From the north of date to the north of the ICRS, positive through east.
    distance_m : ndarray of float64, shape (n,)
        Infinite for stars.
    sky_place : ndarray of float64, shape (n, 3)
        ``ra_deg`` and ``dec_deg`` as unit vectors.
    pole_of_date : ndarray of float64, shape (n, 3)
        The pole of the true equator of date in the axes of the ICRS.
    """

    name: str
    site: Site
    time_utc_ns: NDArray[np.int64]
    ra_deg: NDArray[np.float64]
    dec_deg: NDArray[np.float64]
    ra_apparent_deg: NDArray[np.float64]
    dec_apparent_deg: NDArray[np.float64]
    sidereal_time_deg: NDArray[np.float64]
    axes: NDArray[np.float64]
    north_angle_rad: NDArray[np.float64]
    distance_m: NDArray[np.float64]
    sky_place: NDArray[np.float64]
    pole_of_date: NDArray[np.float64]

    def select(self, which: slice) -> Track:
        """Return the track at some of its times."""
        parts = {
            each.name: getattr(self, each.name)[which]
            for each in fields(self)
            if each.name not in ("name", "site")
        }
        return replace(self, **parts)

    @property
    def hour_angle_deg(self) -> NDArray[np.float64]:
        """Local apparent hour angle, west positive, -180 to 180 degrees."""
        local = self.sidereal_time_deg + self.site.longitude_deg - self.ra_apparent_deg
        wrapped: NDArray[np.float64] = (local + 180.0) % 360.0 - 180.0
        return wrapped

    @property
    def altitude_deg(self) -> NDArray[np.float64]:
        """Height above the horizon without refraction, degrees."""
        longitude = np.radians(self.site.longitude_deg)
        latitude = np.radians(self.site.latitude_deg)
        up = erfa.s2c(longitude, latitude)
        altitude: NDArray[np.float64] = np.degrees(np.arcsin(self.axes[:, 2] @ up))
        return altitude

    def axes_of_date(self) -> NDArray[np.float64]:
        """Return the axes with v to the north of date; shape (n, 3, 3)."""
        sine = np.sin(self.north_angle_rad)[:, np.newaxis]
        cosine = np.cos(self.north_angle_rad)[:, np.newaxis]
        east, north, towards = (self.axes[:, row] for row in range(3))
        return np.stack(
            [east * cosine + north * sine, north * cosine - east * sine, towards],
            axis=1,
        )


def follow(
    source: Source,
    time_utc_ns: NDArray[np.int64],
    site: Site,
    orientation: EarthOrientation | None = None,
) -> Track:
    """Return where a source stands at some times.

    Precession and nutation are IAU 2006/2000A, the Earth's place is ERFA's ``epv00``;
    what follows for accuracy: the Sun to 0.02 arcseconds, stars to 0.001, and what
    UT1 is known to (see `packaged_orientation`).

    Parameters
    ----------
    source : Source
        `Sun()`, one of `CALIBRATORS`, `FixedSource` or `Geostationary`.
    time_utc_ns : ndarray of int64, shape (n,)
        UTC since 1970, in any order.
    site : Site
        Who looks.
    orientation : EarthOrientation, optional
        UT1 and polar motion; the packaged table by default.

    Raises
    ------
    TableError
        When UT1 is not known for a time.
    """
    times = np.atleast_1d(np.asarray(time_utc_ns, dtype=np.int64))
    orientation = orientation or packaged_orientation()
    nodes = _nodes_around(times, 1 if source.moves_with_earth else _NODE_NS)
    earth = _earth_at(nodes, site, orientation)
    seen = source.seen_by(earth.observer)
    at = _Interpolation(nodes, times)
    with np.errstate(divide="ignore"):
        distance_m = 1.0 / at(1.0 / seen.distance_m)
    apparent = _unit(at(seen.apparent))
    north = _unit(at(seen.north))
    place = _unit(at(seen.place))
    to_date = at(earth.sky_to_date)
    tai, ut1 = tai_of(times), at(earth.ut1_tai_s)
    rotation = erfa.era00(tai[0], tai[1] + ut1 / 86_400)
    to_earth = at(earth.polar_motion) @ _turn(rotation) @ to_date
    of_date = (to_date @ apparent[..., np.newaxis])[..., 0]
    right_ascension, declination = erfa.c2s(of_date)
    origins = at(earth.equation_of_origins)
    ra, dec = erfa.c2s(place)
    w_axis = (to_earth @ apparent[..., np.newaxis])[..., 0]
    v_axis = (to_earth @ north[..., np.newaxis])[..., 0]
    v_axis = _unit(v_axis - w_axis * np.sum(v_axis * w_axis, axis=-1, keepdims=True))
    return Track(
        name=source.name,
        site=site,
        time_utc_ns=times,
        ra_deg=np.degrees(ra) % 360.0,
        dec_deg=np.degrees(dec),
        ra_apparent_deg=np.degrees(right_ascension - origins) % 360.0,
        dec_apparent_deg=np.degrees(declination),
        sidereal_time_deg=np.degrees(rotation - origins) % 360.0,
        axes=np.stack([np.cross(v_axis, w_axis), v_axis, w_axis], axis=1),
        north_angle_rad=_angle_from_north(
            of_date, (to_date @ north[..., np.newaxis])[..., 0]
        ),
        distance_m=distance_m,
        sky_place=place,
        pole_of_date=to_date[:, 2],
    )


@dataclass(frozen=True, eq=False)
class _Earth:
    """The turning Earth at n times; all but the observer changes slowly."""

    observer: Observer
    sky_to_date: NDArray[np.float64]
    polar_motion: NDArray[np.float64]
    equation_of_origins: NDArray[np.float64]
    ut1_tai_s: NDArray[np.float64]


def _earth_at(
    times: NDArray[np.int64], site: Site, orientation: EarthOrientation
) -> _Earth:
    """Compute everything at each of the times."""
    ut1_tai_s, x, y = orientation.at(times)
    tai = tai_of(times)
    tt = erfa.taitt(*tai)
    rotation = erfa.era00(tai[0], tai[1] + ut1_tai_s / 86_400)
    sky_to_date = erfa.c2i06a(*tt)
    locator = erfa.sp00(*tt)
    polar_motion = erfa.pom00(x, y, locator)
    longitude, latitude = np.radians(site.longitude_deg), np.radians(site.latitude_deg)
    of_date = erfa.pvtob(longitude, latitude, site.height_m, x, y, locator, rotation)
    site_pv = erfa.trxpv(sky_to_date, of_date)
    heliocentric, barycentric = erfa.epv00(*tt)
    astrometry = erfa.apcs(*tt, site_pv, barycentric, heliocentric["p"])
    date_to_earth = polar_motion @ _turn(rotation)
    observer = Observer(
        barycentric_au=astrometry["eb"],
        velocity_c=astrometry["v"],
        lorentz=astrometry["bm1"],
        sun_au=barycentric["p"] - heliocentric["p"],
        sun_velocity_au_per_day=barycentric["v"] - heliocentric["v"],
        earth_to_sky=np.swapaxes(date_to_earth @ sky_to_date, -1, -2),
        geocentric_m=np.array(site.geocentric_m),
    )
    return _Earth(
        observer=observer,
        sky_to_date=sky_to_date,
        polar_motion=polar_motion,
        equation_of_origins=erfa.eors(
            erfa.pnm06a(*tt), erfa.s06(*tt, sky_to_date[:, 2, 0], sky_to_date[:, 2, 1])
        ),
        ut1_tai_s=ut1_tai_s,
    )


def _nodes_around(times: NDArray[np.int64], step_ns: int) -> NDArray[np.int64]:
    """Return the multiples of a step around all times, ascending, each once."""
    steps = np.unique(times // step_ns)
    return np.union1d(steps, steps + 1) * step_ns


class _Interpolation:
    """Values at nodes, linearly in between."""

    def __init__(self, nodes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        self._before = np.searchsorted(nodes, times, side="right") - 1
        start, end = nodes[self._before], nodes[self._before + 1]
        self._part = (times - start) / (end - start)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        part = self._part.reshape(-1, *(1 for _ in values.shape[1:]))
        before, after = values[self._before], values[self._before + 1]
        between: NDArray[np.float64] = before + (after - before) * part
        return between


def tai_of(times: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two parts of the Julian date of International Atomic Time."""
    days, rest = np.divmod(times, _DAY_NS)
    # from midnight on: erfa makes a day with a leap second one second longer
    first, second = erfa.utctai(_JD_OF_UNIX_EPOCH + days, 0.0)
    return first, second + rest / _DAY_NS


def _turn(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return matrices that turn the axes by angles about the third; shape (n, 3, 3)."""
    turn: NDArray[np.float64] = erfa.rz(
        angle, np.broadcast_to(np.eye(3), (*angle.shape, 3, 3))
    )
    return turn


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(
        vectors, axis=-1, keepdims=True
    )
    return unit


def _angle_from_north(
    direction: NDArray[np.float64], towards: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return position angles, through east, of tangents at directions; radians."""
    east = _unit(np.cross(np.array([0.0, 0.0, 1.0]), direction))
    north = np.cross(direction, east)
    angle: NDArray[np.float64] = np.arctan2(
        np.sum(towards * east, axis=-1), np.sum(towards * north, axis=-1)
    )
    return angle
