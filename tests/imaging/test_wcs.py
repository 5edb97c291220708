"""Coordinates in headers, against formulas and as sunpy reads them."""

from __future__ import annotations

import dataclasses
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from field_tools import MIDSUMMER_NS
from sun_tools import ARCSEC, HZ, RADIUS, direction, sun_snapshot

from muser_pipeline.array import load_array
from muser_pipeline.geometry import Sun, follow, heliographic
from muser_pipeline.imaging.clean import CleanOptions
from muser_pipeline.imaging.fitsfile import fits_bytes
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions, SunOptions
from muser_pipeline.imaging.pipeline import make_image
from muser_pipeline.imaging.plane import FLAT
from muser_pipeline.imaging.wcs import coordinate_cards

TRACK = follow(Sun(), np.array([MIDSUMMER_NS]), load_array(1).site)
TURN = heliographic(TRACK)
P, B0, L0 = (radians(float(a[0])) for a in (TURN.p_deg, TURN.b0_deg, TURN.l0_deg))
DISTANCE_M = float(TRACK.distance_m[0])
SUN = SunOptions(RADIUS, P, B0, L0, DISTANCE_M, disk=False, register=False)
DIRTY = CleanOptions(algorithm="none")


def peak_of(pixels: np.ndarray) -> tuple[float, float]:
    """Return x and y of the peak, from 0, by a paraboloid."""
    y, x = divmod(int(pixels.argmax()), pixels.shape[1])
    up, right = (part.ravel() for part in np.mgrid[-1:2, -1:2])
    terms = np.stack([up**0, right, up, right**2, right * up, up**2], axis=1)
    near = pixels[y - 1 : y + 2, x - 1 : x + 2].astype(float).ravel()
    _, b, c, d, e, f = np.linalg.lstsq(terms, near, rcond=None)[0]
    right_by, up_by = np.linalg.solve([[2 * d, e], [e, 2 * f]], [-b, -c])
    return x + right_by, y + up_by


def seen_at(
    west_arcsec: float, north_arcsec: float, hour_angle_deg: float = 20.0
) -> Image:
    """Return the dirty image of a point on the sky around the Sun."""
    place = direction(west_arcsec, north_arcsec, P)
    snapshot = sun_snapshot(
        [(1.0, *place, 0.0)], hour_angle_deg=hour_angle_deg, hz=HZ[:2] * 3
    )
    options = ImageOptions(768, 6 * ARCSEC, sun=SUN, clean=DIRTY)
    return make_image(snapshot, options)


@pytest.mark.parametrize("hour_angle_deg", [-60.0, 60.0])
@pytest.mark.parametrize("place", [(1800.0, 1500.0), (-1700.0, 300.0)])
def test_sunpy_sees_a_source_where_it_is(
    place: tuple[float, float], hour_angle_deg: float, tmp_path: Path
) -> None:
    import sunpy.map

    image = seen_at(*place, hour_angle_deg)
    path = tmp_path / "image.fits"
    path.write_bytes(fits_bytes(image))
    sun = sunpy.map.Map(path, hdus=0)
    there = SkyCoord(*(place * units.arcsec), frame=sun.coordinate_frame)
    expected = sun.world_to_pixel(there)
    beam_pixels = image.beam.minor_rad / image.grid.cell_rad
    x, y = peak_of(image.dirty)
    assert abs(x - expected.x.value) < 0.02 * beam_pixels
    assert abs(y - expected.y.value) < 0.02 * beam_pixels
    # the slant of the array is seen: without it the place is another one
    upright = dataclasses.replace(image, plane=FLAT)
    plain = WCS(fits.Header(coordinate_cards(upright)))
    wrong = plain.wcs_world2pix([[part / 3600 for part in place]], 0)[0]
    assert np.hypot(*(wrong - (x, y))) > 0.3


def test_sunpy_knows_the_observer_and_the_time(tmp_path: Path) -> None:
    import sunpy.map

    path = tmp_path / "image.fits"
    path.write_bytes(fits_bytes(seen_at(0.0, 0.0), planes=False))
    sun = sunpy.map.Map(path)
    assert sun.date.utc.isot == "2015-06-22T05:00:00.000"
    assert sun.rsun_obs.to_value("rad") == pytest.approx(RADIUS)
    assert sun.observer_coordinate.lat.to_value("rad") == pytest.approx(B0)
    assert sun.observer_coordinate.radius.to_value("m") == DISTANCE_M
    assert sun.carrington_longitude.to_value("rad") == pytest.approx(L0, abs=1e-4)
    assert sun.unit == units.Jy / units.beam
    assert sun.wavelength.to_value("Hz", units.spectral()) == pytest.approx(1.2375e9)
    assert sun.coordinate_system.axis1 == "HPLN-SIN"
    assert sun.rotation_matrix == pytest.approx(np.eye(2))


def test_west_is_to_the_right_and_north_is_up() -> None:
    image = seen_at(900.0, 300.0)
    y, x = image.peak_pixel
    assert x == pytest.approx(384 + 150, abs=1)
    assert y == pytest.approx(384 + 50, abs=1)


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_equatorial_coordinates_are_those_of_spherical_trigonometry(
    turn: float,
) -> None:
    ra, dec = 1.2, 0.6
    east, north = 1500 * ARCSEC, -1100 * ARCSEC
    snapshot = sun_snapshot([(1.0, east, north, 0.0)], hz=HZ[:2] * 3)
    snapshot = snapshot.replace(ra_rad=ra, dec_rad=dec).rotated(turn)
    image = make_image(snapshot, ImageOptions(768, 6 * ARCSEC, clean=DIRTY))
    wcs = WCS(fits.Header(coordinate_cards(image)))
    # Calabretta and Greisen 2002, equations 1 and 2, for a pole at the phase centre
    height = (1 - east**2 - north**2) ** 0.5
    declination = np.arcsin(north * cos(dec) + height * sin(dec))
    hour = np.arctan2(east, height * cos(dec) - north * sin(dec))
    place = SkyCoord(ra + hour, declination, unit="rad", frame="icrs")
    expected = [float(part) for part in wcs.world_to_pixel(place)]
    beam_pixels = image.beam.minor_rad / image.grid.cell_rad
    assert list(peak_of(image.dirty)) == pytest.approx(expected, abs=0.02 * beam_pixels)
    if not turn:
        assert expected[0] < 384 and expected[1] < 384


def test_the_cards_agree_with_direct_formulas_far_from_the_middle() -> None:
    image = seen_at(0.0, 0.0, 60.0)
    assert image.plane is not None
    assert abs(image.plane.a) > 0.2
    wcs = WCS(fits.Header(coordinate_cards(image)))
    for x, y in ((20, 30), (700, 100), (384, 750)):
        longitude, latitude = (radians(part) for part in wcs.wcs_pix2world(x, y, 0))
        longitude = (longitude + np.pi) % (2 * np.pi) - np.pi
        west, north = cos(latitude) * sin(longitude), sin(latitude)
        slanted = image.plane.slanted(np.array(-west), np.array(north))
        assert -float(slanted[0]) / image.grid.cell_rad == pytest.approx(
            x - 384, abs=1e-6
        )
        assert float(slanted[1]) / image.grid.cell_rad == pytest.approx(
            y - 384, abs=1e-6
        )
