from __future__ import annotations

from math import asin, cos, degrees, hypot, radians, sin, sqrt

import numpy as np
import pytest

from muser_pipeline.array import SITE, load_array, read_table
from muser_pipeline.errors import TableError

TABLES = {
    "antennas_1": 40,
    "antennas_2": 60,
    "bands_1": 4,
    "bands_2": 33,
    "flags_known": 4,
    "phase_20151101": 780,
    "quiet_sun_disk": 74,
    "static_delay_1": 44,
    "static_delay_2": 64,
}


@pytest.mark.parametrize(("name", "rows"), TABLES.items())
def test_a_table_is_packaged_and_has_its_rows(name: str, rows: int) -> None:
    table = read_table(name)
    assert len(table) == rows
    assert all(None not in row and None not in row.values() for row in table)


def test_a_table_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(TableError, match="no table 'antennas_3', but antennas_1"):
        read_table("antennas_3")


def test_an_array_that_is_not_there_is_refused() -> None:
    with pytest.raises(TableError, match="no array 3"):
        load_array(3)


@pytest.mark.parametrize(
    ("number", "inputs", "antennas", "baselines", "loop", "longest_m", "shortest_m"),
    [(1, 44, 40, 780, 8, 3288, 7.99), (2, 64, 60, 1770, 66, 3275, 3.99)],
)
def test_sizes_of_the_arrays(
    number: int,
    inputs: int,
    antennas: int,
    baselines: int,
    loop: int,
    longest_m: float,
    shortest_m: float,
) -> None:
    array = load_array(number)
    assert (array.inputs, array.antennas) == (inputs, antennas)
    assert (array.baselines, array.frames_per_loop) == (baselines, loop)
    first, second = array.baseline_inputs()
    pairs = [(i, j) for i in range(antennas) for j in range(i + 1, antennas)]
    assert list(zip(first, second, strict=True)) == pairs
    lengths = np.linalg.norm(
        array.positions_enu_m[second] - array.positions_enu_m[first], axis=1
    )
    assert lengths.max() == pytest.approx(longest_m, abs=0.5)
    assert lengths.min() == pytest.approx(shortest_m, abs=0.005)


def test_channels_ascend_from_the_low_edge() -> None:
    one = load_array(1).channel_centres_hz(3)
    assert (one[0], one[15]) == (1612.5e6, 1987.5e6)
    two = load_array(2).channel_centres_hz(np.array([0, 31, 32]))
    assert two[:, 0].tolist() == [2012.5e6, 14412.5e6, 14612.5e6]
    assert np.all(np.diff(two) == 25e6)


def test_codes_of_the_bands() -> None:
    one, two = load_array(1).bands, load_array(2).bands
    assert [band.fixed_code for band in one] == [0x3333, 0x7777, 0xBBBB, 0xCCCC]
    assert [band.old_loop_code for band in one] == [0x0000, 0x5555, 0xAAAA, 0xFFFF]
    assert [band.fixed_code for band in two] == [0x0101 * b for b in range(33)]
    for bands in (one, two):
        assert [band.number for band in bands] == list(range(len(bands)))
        codes = [code for band in bands for code in band.loop_codes]
        assert codes == list(range(2 * len(bands)))
    assert {band.old_loop_code for band in two} == {None}


def test_older_heights_differ_in_two_antennas() -> None:
    moved = load_array(1).positions_enu_m - load_array(1, "older").positions_enu_m
    names = load_array(1).antenna_names
    rows = np.flatnonzero(np.any(moved, axis=1))
    assert [names[row] for row in rows] == ["IA5", "IC13"]
    np.testing.assert_allclose(moved[rows, 2], [0.1, -0.1])


def test_positions_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_array(1).positions_enu_m[0, 0] = 1.0


def test_site_is_where_its_geocentric_position_is() -> None:
    """The ellipsoid of WGS84, in scalars: a = 6378137 m, f = 1/298.257223563."""
    phi, lam = radians(SITE.latitude_deg), radians(SITE.longitude_deg)
    e2 = 2 / 298.257223563 - 1 / 298.257223563**2
    n = 6378137 / sqrt(1 - e2 * sin(phi) ** 2)
    expected = [
        (n + SITE.height_m) * cos(phi) * cos(lam),
        (n + SITE.height_m) * cos(phi) * sin(lam),
        (n * (1 - e2) + SITE.height_m) * sin(phi),
    ]
    assert SITE.geocentric_m == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("number", [1, 2])
def test_geocentric_axes_are_east_north_and_up(number: int) -> None:
    array = load_array(number)
    turned = array.positions_geocentric_m()
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=1),
        np.linalg.norm(array.positions_enu_m, axis=1),
        atol=1e-9,
    )
    x, y, z = array.site.geocentric_m
    site = np.array([x, y, z])
    # 10 km of each local axis, seen from the geocentre
    lam = radians(array.site.longitude_deg)
    east = np.array([-sin(lam), cos(lam), 0.0])
    np.testing.assert_allclose(turned @ east, array.positions_enu_m[:, 0], atol=1e-9)
    phi = radians(array.site.latitude_deg)
    pole = turned[:, 2]
    expected = (
        cos(phi) * array.positions_enu_m[:, 1] + sin(phi) * array.positions_enu_m[:, 2]
    )
    np.testing.assert_allclose(pole, expected, atol=1e-9)
    # the antenna farthest north is nearer to the pole than the site
    north = turned[int(np.argmax(array.positions_enu_m[:, 1]))] + site
    assert degrees(asin(north[2] / np.linalg.norm(north))) > degrees(
        asin(z / hypot(x, y, z))
    )
