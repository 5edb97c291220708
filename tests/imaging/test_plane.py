"""Grids, planes and slanted coordinates, and the expansion of what is left of w."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from field_tools import muser_uvw
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import jv

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.plane import (
    FLAT,
    Plane,
    deepest,
    depth,
    fit_plane,
    pixel_depths,
)
from muser_pipeline.imaging.wterm import bessel, expand

slopes = st.floats(-2.0, 2.0)
cosines = st.floats(-0.02, 0.02)


@given(slopes, slopes, cosines, cosines)
def test_directions_undo_slanting(
    a: float, b: float, east: float, north: float
) -> None:
    plane = Plane(a, b)
    slanted = plane.slanted(np.array(east), np.array(north))
    back = plane.directions(*slanted)
    np.testing.assert_allclose(back[:2], [east, north], atol=1e-15)
    np.testing.assert_allclose(
        back[2], np.sqrt(1 - east**2 - north**2) - 1, atol=2e-16, rtol=1e-9
    )


@given(slopes, slopes, cosines, cosines)
def test_slanted_coordinates_make_up_for_w(
    a: float, b: float, east: float, north: float
) -> None:
    u, v = 3e4, -2e4
    w = a * u + b * v
    slanted_east, slanted_north = Plane(a, b).slanted(np.array(east), np.array(north))
    below = depth(np.array(east), np.array(north))
    full = u * east + v * north + w * below
    assert u * slanted_east + v * slanted_north == pytest.approx(full, abs=1e-9)


def test_fits_says_the_same_of_the_projection() -> None:
    plane = Plane(-0.4, 1.3)
    header = WCS(naxis=2)
    header.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    header.wcs.crval = [40.0, 25.0]
    header.wcs.crpix = [1, 1]
    header.wcs.cdelt = [-1.0, 1.0]
    header.wcs.set_pv([(2, 1, plane.pv[0]), (2, 2, plane.pv[1])])
    slanted = np.array([0.01, -0.004])
    degrees = np.degrees(slanted)
    ra, dec = np.radians(header.wcs_pix2world([[-degrees[0], degrees[1]]], 0)[0])
    ra0, dec0 = np.radians([40.0, 25.0])
    east, north, below = plane.directions(*slanted)
    assert np.cos(dec) * np.sin(ra - ra0) == pytest.approx(float(east), abs=1e-13)
    assert np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(
        ra - ra0
    ) == pytest.approx(float(north), abs=1e-13)
    assert below < 0


def test_where_there_is_no_sky_there_is_no_direction() -> None:
    plane = Plane(0.0, 3.0)
    with_sky, without = plane.directions(np.zeros(2), np.array([0.1, 0.4]))[2]
    assert np.isfinite(with_sky)
    assert np.isnan(without)
    assert np.isnan(deepest(plane, Grid(64, 0.9 / 64)))


@pytest.mark.parametrize("plane", [FLAT, Plane(0.5, -1.6), Plane(-2.0, 0.1)])
def test_depths_of_pixels(plane: Plane) -> None:
    grid = Grid(64, 0.05 / 64)
    east, north = grid.coordinates()
    exact = plane.directions(east[np.newaxis, :], north[:, np.newaxis])[2]
    found = pixel_depths(plane, grid, np)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert deepest(plane, grid) == -exact.min()


def test_the_plane_of_an_array_is_found() -> None:
    uvw = muser_uvw()
    plane = fit_plane(uvw)
    rest = np.abs(plane.residuals_m(uvw))
    # antennas stand up to 12 m from their mean height
    assert plane.residual_m == rest.max() < 20
    exact = uvw.copy()
    exact[:, 2] = 0.3 * uvw[:, 0] - 1.2 * uvw[:, 1]
    found = fit_plane(exact)
    assert (found.a, found.b) == pytest.approx((0.3, -1.2), abs=1e-12)
    assert found.residual_m < 1e-9


def test_pixels_of_a_grid() -> None:
    east, north = Grid(64, 0.001).coordinates()
    assert east[32] == north[32] == 0
    assert (east[0], north[0]) == (0.032, -0.032)
    assert Grid(64, 0.001).extent_rad == 0.064


@pytest.mark.parametrize("size", [0, 31, 33, 30, 1 << 16])
def test_sizes_that_are_no_grid(size: int) -> None:
    with pytest.raises(ImagingError, match=f"not {size}") as raised:
        Grid(size, 1e-5)
    assert raised.value.reason == "grid"


@pytest.mark.parametrize("cell_rad", [0.0, -1e-5, 0.1, float("nan")])
def test_cells_that_are_no_grid(cell_rad: float) -> None:
    with pytest.raises(ImagingError, match="part of the sky"):
        Grid(64, cell_rad)


@pytest.mark.parametrize("order", [0, 1, 2, 5, 12])
def test_bessel_functions(order: int) -> None:
    x = np.linspace(-10, 10, 101)
    np.testing.assert_allclose(bessel(order, x), jv(order, x), atol=1e-12)


@pytest.mark.parametrize("wavelengths", [100.0, 3000.0])
def test_terms_add_up_to_the_exponential(wavelengths: float) -> None:
    rng = np.random.default_rng(2)
    grid = Grid(64, 0.02 / 64)
    plane = Plane(0.3, -0.8)
    rest = rng.uniform(-wavelengths, wavelengths, (4, 3))
    terms = expand(rest, plane, grid, 1e-7, 40, np)
    assert terms is not None
    total = terms.factors[0][..., np.newaxis, np.newaxis] + np.einsum(
        "krc,kyx->rcyx", terms.factors[1:], terms.polynomials
    )
    depths = pixel_depths(plane, grid, np).astype(float)
    truth = np.exp(2j * np.pi * np.multiply.outer(rest, depths))
    np.testing.assert_allclose(total, truth, atol=3e-6)
    assert list(terms.sizes) == [
        pytest.approx(float(np.mean(np.abs(each))), rel=1e-5) for each in terms.factors
    ]


def test_too_many_terms_are_none() -> None:
    grid = Grid(64, 0.02 / 64)
    rest = np.array([[3000.0]])
    assert expand(rest, FLAT, grid, 1e-7, 5, np) is None
    assert expand(rest * 1e6, FLAT, grid, 1e-7, 40, np) is None
    assert expand(rest * 0, FLAT, grid, 1e-7, 1, np) is not None
