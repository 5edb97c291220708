"""Where the pixels of an image are in the sky, as cards of a FITS header.

The projection is SIN: what an interferometer makes. An array on flat ground sees

    l' = l + a (n - 1),  m' = m + b (n - 1)

which is SIN with the parameters PV2_1 and PV2_2 (Calabretta and Greisen 2002, A&A 395,
1077, section 5.1.5): x = X + PV2_1 (1 - n) and y = Y + PV2_2 (1 - n), X along the first
world coordinate. Right ascension grows to the east, so X = l and PV2_1 = -a;
helioprojective longitude grows to the west, so X = -l and PV2_1 = +a. For both PV2_2 =
-b.
"""

from __future__ import annotations

from math import cos, degrees, pi, sin

from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import SunOptions
from muser_pipeline.imaging.plane import FLAT

Card = tuple[str, str | int | float, str]
"""Keyword, value, comment."""

SOLAR_RADIUS_M = 695_700e3
"""Nominal radius: IAU 2015 resolution B3."""
ARCSEC_PER_RAD = 180 * 3600 / pi


def coordinate_cards(image: Image) -> list[Card]:
    """Return the cards of the coordinates of an image.

    Helioprojective where the target is the Sun, else equatorial.

    Parameters
    ----------
    image : Image
        The image.
    """
    sun = image.options.sun
    if sun is None:
        return _equatorial(image)
    return [*_helioprojective(image), *_solar(sun)]


def _equatorial(image: Image) -> list[Card]:
    plane = image.plane or FLAT
    cell, turn = degrees(image.grid.cell_rad), image.north_angle_rad
    # the slant is given along right ascension and declination, not along the image
    slant_east = plane.a * cos(turn) + plane.b * sin(turn)
    slant_north = plane.b * cos(turn) - plane.a * sin(turn)
    cards: list[Card] = [
        ("CTYPE1", "RA---SIN", "right ascension"),
        ("CTYPE2", "DEC--SIN", "declination"),
        ("CUNIT1", "deg", ""),
        ("CUNIT2", "deg", ""),
        ("CRPIX1", image.grid.size / 2 + 1, "middle of the image"),
        ("CRPIX2", image.grid.size / 2 + 1, ""),
        ("CRVAL1", degrees(image.ra_rad), "phase centre"),
        ("CRVAL2", degrees(image.dec_rad), ""),
        ("CDELT1", -cell, "to the east columns fall"),
        ("CDELT2", cell, ""),
        ("PV2_1", -slant_east, "slant of the projection"),
        ("PV2_2", -slant_north, ""),
        ("RADESYS", "ICRS", ""),
    ]
    if turn:
        # on the sky, east is l cos + m sin and north m cos - l sin of the image
        cards += [
            ("PC1_1", cos(turn), "north of the image is not that of the sky"),
            ("PC1_2", -sin(turn), ""),
            ("PC2_1", sin(turn), ""),
            ("PC2_2", cos(turn), ""),
        ]
    return cards


def _helioprojective(image: Image) -> list[Card]:
    plane = image.plane or FLAT
    cell = image.grid.cell_rad * ARCSEC_PER_RAD
    return [
        ("CTYPE1", "HPLN-SIN", "helioprojective longitude, to the solar west"),
        ("CTYPE2", "HPLT-SIN", "helioprojective latitude, to the solar north"),
        ("CUNIT1", "arcsec", ""),
        ("CUNIT2", "arcsec", ""),
        ("CRPIX1", image.grid.size / 2 + 1, "centre of the Sun"),
        ("CRPIX2", image.grid.size / 2 + 1, ""),
        ("CRVAL1", 0.0, ""),
        ("CRVAL2", 0.0, ""),
        ("CDELT1", cell, "to the west columns rise"),
        ("CDELT2", cell, ""),
        ("CROTA2", 0.0, "solar north is up"),
        ("LONPOLE", 180.0, ""),
        ("PV2_1", plane.a, "slant of the projection"),
        ("PV2_2", -plane.b, ""),
    ]


def _solar(sun: SunOptions) -> list[Card]:
    """Return the observer as seen from the Sun, and the Sun as seen by the observer.

    Stonyhurst's longitude is counted from the centre of the Earth's; that of a place on
    it is off by 0.0025 degrees at most.
    """
    return [
        ("RSUN_REF", SOLAR_RADIUS_M, "[m] radius of the photosphere"),
        ("RSUN_OBS", sun.radius_rad * ARCSEC_PER_RAD, "[arcsec] the same in the sky"),
        ("DSUN_OBS", sun.distance_m, "[m] from the observer to the Sun"),
        ("HGLN_OBS", 0.0, "[deg] Stonyhurst longitude of the observer"),
        ("HGLT_OBS", degrees(sun.b0_rad), "[deg] heliographic latitude, B0"),
        ("CRLN_OBS", degrees(sun.l0_rad) % 360.0, "[deg] Carrington longitude, L0"),
        ("CRLT_OBS", degrees(sun.b0_rad), "[deg]"),
        ("SOLAR_P", degrees(sun.p_rad), "[deg] position angle of solar north"),
        ("SOLAR_B0", degrees(sun.b0_rad), "[deg]"),
    ]
