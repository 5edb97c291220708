"""Places of sources, baselines and the Sun's angles against independent sources.

The Sun's places were computed once with JPL's DE421 (Chebyshev polynomials, not the
series that the pipeline uses) and the formula of relativistic aberration written out;
the rest is compared with astropy's coordinate frames, which turn by other routes.
"""

from __future__ import annotations

from dataclasses import replace
from math import asin, atan2, cos, degrees, hypot, radians, sin

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import ITRS, TETE, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from numpy.typing import NDArray

from muser_pipeline.array import SITE, Site, load_array
from muser_pipeline.errors import TableError
from muser_pipeline.geometry import (
    CALIBRATORS,
    FixedSource,
    Geostationary,
    Sun,
    antenna_uvw_m,
    day_of,
    follow,
    heliographic,
    packaged_orientation,
    source_named,
    uvw_m,
)

ARCSEC_DEG = 1 / 3600
POLE = Site(0.0, 90.0, -6_356_752.314, (0.0, 0.0, 0.0))
"""The middle of the Earth, by way of its north pole: geocentric places."""


pytestmark = pytest.mark.usefixtures("_astropy_downloads_nothing")


def at(*iso: str) -> NDArray[np.int64]:
    return np.array(iso, dtype="datetime64[ns]").astype(np.int64)


DE421 = {
    "2012-06-21T04:00:00": (90.21063482582203, 23.43526151834149),
    "2015-11-01T04:08:49.354": (216.0362360461549, -14.307762252615296),
    "2017-09-10T02:30:00": (168.58023169200885, 4.904108106152268),
    "2020-02-29T06:00:00": (341.63827221102525, -7.777778574358413),
    "2024-12-21T05:00:00": (269.7988804375219, -23.44050825680626),
}
"""Apparent topocentric places of the Sun at Mingantu, degrees."""


def test_the_sun_stands_where_another_ephemeris_has_it() -> None:
    track = follow(Sun(), at(*DE421), SITE)
    ra, dec = np.array(list(DE421.values())).T
    off = (track.ra_apparent_deg - ra) * np.cos(np.radians(dec))
    np.testing.assert_allclose(off, 0, atol=0.02 * ARCSEC_DEG)
    np.testing.assert_allclose(track.dec_apparent_deg, dec, atol=0.02 * ARCSEC_DEG)


def test_the_geocentric_sun_stands_where_an_almanac_has_it() -> None:
    # Meeus, Astronomical Algorithms, example 25.b: 1992 October 13.0 dynamical time,
    # from VSOP87 and the older theory of nutation
    track = follow(Sun(), at("1992-10-13") - 59_184_000_000, POLE)
    ra, dec = 15 * (13 + 13 / 60 + 30.749 / 3600), -(7 + 47 / 60 + 1.74 / 3600)
    assert track.ra_apparent_deg[0] == pytest.approx(ra, abs=0.1 * ARCSEC_DEG)
    assert track.dec_apparent_deg[0] == pytest.approx(dec, abs=0.1 * ARCSEC_DEG)


def test_p_b0_and_l0_are_those_of_an_almanac() -> None:
    # Meeus, example 29.a: 1992 October 13, 0h UT
    angles = heliographic(follow(Sun(), at("1992-10-13"), POLE), north="date")
    assert angles.p_deg[0] == pytest.approx(26.27, abs=0.01)
    assert angles.b0_deg[0] == pytest.approx(5.99, abs=0.01)
    assert angles.l0_deg[0] == pytest.approx(238.63, abs=0.01)
    # the semidiameter of the almanac is for 696 000 km
    assert angles.radius_arcsec[0] == pytest.approx(961.95, abs=0.5)


def test_p_turns_with_the_north_that_it_is_counted_from() -> None:
    track = follow(Sun(), at("2017-09-10T02:30:00"), SITE)
    of_date = heliographic(track, north="date").p_deg
    in_icrs = heliographic(track, north="icrs").p_deg
    # both from the same pole of the Sun; aberration turns the field by < 9 arcseconds
    turned = np.degrees(track.north_angle_rad)
    assert abs(turned[0]) > 0.015
    np.testing.assert_allclose(of_date - in_icrs, turned, atol=9 * ARCSEC_DEG)


@pytest.mark.parametrize("source", CALIBRATORS.values(), ids=lambda s: s.name)
def test_a_calibrator_stands_where_astropy_has_it(source: FixedSource) -> None:
    times = at("2015-11-01T04:08:49.354", "2019-03-02T12:00:00")
    track = follow(source, times, SITE)
    location = EarthLocation.from_geocentric(*SITE.geocentric_m, unit=u.m)
    when = Time(times / 1e9, format="unix")
    there = SkyCoord(source.ra_deg, source.dec_deg, unit="deg", frame="icrs")
    seen = there.transform_to(TETE(obstime=when, location=location))
    off = (track.ra_apparent_deg - seen.ra.deg) * np.cos(seen.dec.rad)
    np.testing.assert_allclose(off, 0, atol=0.01 * ARCSEC_DEG)
    np.testing.assert_allclose(
        track.dec_apparent_deg, seen.dec.deg, atol=0.01 * ARCSEC_DEG
    )
    np.testing.assert_allclose(
        track.sidereal_time_deg,
        when.sidereal_time("apparent", "greenwich").deg,
        atol=0.01 * ARCSEC_DEG,
    )


@pytest.mark.parametrize("source", [Sun(), CALIBRATORS["Cygnus A"]], ids=str)
def test_the_axes_are_those_of_astropy(source: Sun | FixedSource) -> None:
    # w: where astropy sees the catalogue's place; v: where it sees the place 20" north
    track = follow(source, at("2017-09-10T02:30:17.123"), SITE)
    location = EarthLocation.from_geocentric(*SITE.geocentric_m, unit=u.m)
    frame = ITRS(
        obstime=Time(track.time_utc_ns / 1e9, format="unix"), location=location
    )

    def seen(dec_deg: float) -> NDArray[np.float64]:
        there = SkyCoord(track.ra_deg[0], dec_deg, unit="deg", frame="icrs")
        vector = there.transform_to(frame).cartesian.xyz.value[:, 0]
        return vector / np.linalg.norm(vector)

    towards, beside = seen(track.dec_deg[0]), seen(track.dec_deg[0] + 20 * ARCSEC_DEG)
    north = beside - towards * (beside @ towards)
    north /= np.linalg.norm(north)
    np.testing.assert_allclose(track.axes[0, 2], towards, atol=3e-8)
    # beside the Sun's centre astropy bends the light of stars, and turns the north
    atol = 1e-4 if isinstance(source, Sun) else 1e-7
    np.testing.assert_allclose(track.axes[0, 1], north, atol=atol)
    np.testing.assert_allclose(
        track.axes[0] @ track.axes[0].T, np.eye(3), rtol=0, atol=1e-14
    )
    assert np.linalg.det(track.axes[0]) == pytest.approx(1)


def slow_uvw(
    dx: NDArray[np.float64], hour_angle_deg: float, dec_deg: float
) -> tuple[float, float, float]:
    """Thompson, Moran and Swenson 4.1, number by number."""
    h, d = radians(hour_angle_deg), radians(dec_deg)
    x, y, z = (float(each) for each in dx)
    return (
        sin(h) * x + cos(h) * y,
        -sin(d) * cos(h) * x + sin(d) * sin(h) * y + cos(d) * z,
        cos(d) * cos(h) * x - cos(d) * sin(h) * y + sin(d) * z,
    )


@pytest.mark.parametrize("number", [1, 2])
def test_uvw_are_those_of_the_textbook(number: int) -> None:
    array = load_array(number)
    first, second = array.baseline_inputs()
    positions = array.positions_geocentric_m()
    # the textbook knows no polar motion
    still = replace(
        packaged_orientation(),
        x_rad=np.zeros_like(packaged_orientation().mjd),
        y_rad=np.zeros_like(packaged_orientation().mjd),
    )
    track = follow(Sun(), at("2015-11-01T04:08:49.354", *DE421), SITE, still)
    uvw = uvw_m(track, positions, first, second, north="date")
    assert uvw.shape == (6, array.baselines, 3)
    greenwich = track.sidereal_time_deg - track.ra_apparent_deg
    for n, k in [(0, 0), (1, 17), (3, 400), (5, array.baselines - 1)]:
        dx = positions[second[k]] - positions[first[k]]
        slow = slow_uvw(dx, greenwich[n], track.dec_apparent_deg[n])
        # a thousandth of the shortest wavelength, 2 cm
        np.testing.assert_allclose(uvw[n, k], slow, rtol=0, atol=2e-5)


def test_polar_motion_is_in_the_axes() -> None:
    moved = replace(
        packaged_orientation(), y_rad=np.full_like(packaged_orientation().mjd, 2e-6)
    )
    still = replace(moved, y_rad=np.zeros_like(moved.mjd))
    with_it, without = (
        follow(Sun(), at("2015-11-01T04:08:49"), SITE, each) for each in (moved, still)
    )
    turned = np.linalg.norm(with_it.axes[0] - without.axes[0], axis=1)
    assert 1e-6 < turned[2] < 2.1e-6


def test_the_axes_of_icrs_and_of_date_differ_by_the_north_angle() -> None:
    array = load_array(1)
    track = follow(Sun(), at("2024-03-21T04:00:00"), SITE)
    icrs, date = (
        antenna_uvw_m(track, array.positions_geocentric_m(), north)
        for north in ("icrs", "date")
    )
    angle = track.north_angle_rad[0]
    # precession turns the north by 20 arcseconds a year at right ascension 0
    assert degrees(angle) * 3600 == pytest.approx(0, abs=30)
    turned = icrs[0, :, 0] * cos(angle) + icrs[0, :, 1] * sin(angle)
    np.testing.assert_allclose(turned, date[0, :, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(icrs[0, :, 2], date[0, :, 2], rtol=0, atol=1e-9)


def test_the_sun_is_south_and_high_at_local_noon() -> None:
    # 115.25 degrees east are 7 h 41 min; the equation of time is +16 min in November
    track = follow(Sun(), at("2015-11-01T04:02:35"), SITE)
    assert abs(track.hour_angle_deg[0]) < 0.2
    expected = 90 - SITE.latitude_deg + track.dec_apparent_deg[0]
    assert track.altitude_deg[0] == pytest.approx(expected, abs=0.01)


def test_a_time_is_told_the_same_with_others_and_alone() -> None:
    times = at("2015-11-01T04:08:49.354161240") + np.arange(40_000) * 3_125_000
    track = follow(Sun(), times, SITE)
    for n in (0, 3_412, 39_999):
        alone = follow(Sun(), times[n : n + 1], SITE)
        assert np.array_equal(alone.axes[0], track.axes[n])
        assert alone.ra_deg[0] == track.ra_deg[n]


def test_interpolation_over_a_minute_loses_nothing() -> None:
    source = CALIBRATORS["Taurus A"]
    whole = at("2016-12-31T23:59:00", "2017-01-01T00:00:00", "2017-01-01T00:01:00")
    times = np.concatenate([whole, whole + 30 * 10**9])
    track = follow(source, times, SITE)
    location = EarthLocation.from_geocentric(*SITE.geocentric_m, unit=u.m)
    # a leap second ended that year: unix time has no name for it
    when = Time(times // 10**9, (times % 10**9) / 1e9, format="unix")
    there = SkyCoord(source.ra_deg, source.dec_deg, unit="deg", frame="icrs")
    seen = there.transform_to(ITRS(obstime=when, location=location)).cartesian
    w_axis = (seen.xyz / seen.norm()).value.T
    before, after = times < whole[1], times >= whole[1]
    assert before.sum() == 2
    np.testing.assert_allclose(track.axes[after, 2], w_axis[after], atol=3e-8)
    # astropy's day is 86 401 s long and unix seconds of it are stretched
    np.testing.assert_allclose(track.axes[before, 2], w_axis[before], atol=1e-4)


def test_a_satellite_stands_still_and_its_waves_are_curved() -> None:
    times = at("2015-11-01T04:00:00", "2015-11-01T10:00:00")
    satellite = Geostationary("slot", 105.0)
    track = follow(satellite, times, SITE)
    np.testing.assert_allclose(track.axes[0, 2], track.axes[1, 2], atol=1e-12)
    place = 42_164_170.0 * np.array([cos(radians(105)), sin(radians(105)), 0])
    site = np.array(SITE.geocentric_m)
    array = load_array(1)
    positions = array.positions_geocentric_m()
    w = antenna_uvw_m(track, positions)[0, :, 2]
    for k in range(array.antennas):
        nearer = np.linalg.norm(place - site) - np.linalg.norm(
            place - site - positions[k]
        )
        # the next term of the series: b^3 / (2 R^2)
        assert w[k] == pytest.approx(nearer, abs=1e-4)
    flat = positions @ track.axes[0, 2]
    assert np.abs(w - flat).max() > 0.01
    # the place in the catalogue leads back to the same apparent place
    star = follow(FixedSource("same", track.ra_deg[0], track.dec_deg[0]), times, SITE)
    off = asin(np.linalg.norm(np.cross(star.axes[0, 2], track.axes[0, 2])))
    assert degrees(off) * 3600 < 0.1  # the Sun bends the star's light


def test_curved_waves_are_right_at_the_largest_distance_from_the_reference() -> None:
    track = follow(Geostationary("low", 60.0), at("2015-11-01T04:00:00"), SITE)
    place = 42_164_170.0 * np.array([cos(radians(60)), sin(radians(60)), 0])
    towards = place - np.array(SITE.geocentric_m)
    assert track.distance_m[0] == pytest.approx(np.linalg.norm(towards))
    assert (
        track.altitude_deg[0]
        < follow(
            Geostationary("high", 115.0), at("2015-11-01T04:00:00"), SITE
        ).altitude_deg[0]
    )


def test_a_star_is_infinitely_far_and_the_sun_is_not() -> None:
    times = at("2015-01-04T03:00:00.5")
    assert follow(CALIBRATORS["Virgo A"], times, SITE).distance_m[0] == np.inf
    # perihelion of 2015
    sun = follow(Sun(), times, SITE)
    assert sun.distance_m[0] == pytest.approx(0.98328 * 149_597_870_700, rel=1e-4)


def test_sources_are_found_by_name() -> None:
    assert source_named("SUN") == Sun()
    assert source_named("cygnus a") == CALIBRATORS["Cygnus A"]
    with pytest.raises(TableError, match="no source 'Moon': known are Sun, Cygnus A"):
        source_named("Moon")


def test_times_beyond_the_table_of_the_earth_are_refused() -> None:
    with pytest.raises(TableError, match="a newer astropy-iers-data"):
        follow(Sun(), at("2100-01-01T00:00:00"), SITE)
    with pytest.raises(TableError, match="UT1 is known from MJD 41684"):
        follow(Sun(), at("1970-01-02T00:00:00"), SITE)


def test_the_site_is_where_its_coordinates_say() -> None:
    x, y, z = SITE.geocentric_m
    assert degrees(atan2(y, x)) == pytest.approx(SITE.longitude_deg, abs=1e-7)
    assert hypot(x, y, z) == pytest.approx(6_369_600, abs=10_000)


def test_ut1_has_no_steps_at_leap_seconds() -> None:
    table = packaged_orientation()
    days = at("2016-12-31T00:00:00", "2017-01-01T00:00:00", "2015-11-01T00:00:00")
    ut1_tai_s, x_rad, y_rad = table.at(days)
    # IERS Bulletin B: UT1 - UTC was -0.4078 s before and +0.5914 s after the leap
    np.testing.assert_allclose(ut1_tai_s[:2], [-36.4079, -36.4086], atol=1e-3)
    assert ut1_tai_s[2] == pytest.approx(0.178 - 36, abs=1e-3)
    assert np.abs(np.degrees([x_rad, y_rad])).max() * 3600 < 0.6


def test_a_day_begins_as_the_almanac_says() -> None:
    day = day_of(int(at("2015-11-01T23:59:59.9")[0]))
    assert (day.date, day.julian_date, day.tai_utc_s) == ("2015-11-01", 2457327.5, 36)
    midnight = Time("2015-11-01T00:00:00", scale="utc")
    assert day.sidereal_time_deg == pytest.approx(
        midnight.sidereal_time("apparent", "greenwich").deg, abs=1e-6
    )
    assert day.ut1_utc_s == pytest.approx(midnight.delta_ut1_utc, abs=1e-4)
    x, y = iers.IERS_Auto.open().pm_xy(midnight)
    assert day.pole_arcsec == pytest.approx((x.value, y.value), abs=1e-3)


def test_a_part_of_a_track_is_the_track_of_these_times() -> None:
    track = follow(Sun(), at(*DE421), SITE)
    part = track.select(slice(1, 3))
    alone = follow(Sun(), at(*DE421)[1:3], SITE)
    assert np.array_equal(part.axes, alone.axes)
    assert np.array_equal(part.hour_angle_deg, alone.hour_angle_deg)
