"""The restoring beam and restored images."""

from __future__ import annotations

import numpy as np
import pytest
from field_tools import channels, direct, muser_uvw

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.restoring import Beam, fit_beam, restore

CELL = 2e-5
GRID = Grid(128, CELL)
EAST, NORTH = GRID.coordinates()


def drawn(beam: Beam) -> np.ndarray:
    return beam.at(EAST, NORTH[:, np.newaxis]).astype(np.float32)


@pytest.mark.parametrize("degrees", [-89.0, -40.0, 0.0, 12.0, 45.0, 90.0])
def test_a_gaussian_is_found_as_it_is(degrees: float) -> None:
    beam = Beam(9.0 * CELL, 5.0 * CELL, np.radians(degrees))
    found = fit_beam(drawn(beam), CELL)
    assert found.major_rad == pytest.approx(beam.major_rad, rel=1e-5)
    assert found.minor_rad == pytest.approx(beam.minor_rad, rel=1e-5)
    # an axis has no direction: 90 degrees are -90
    assert np.sin(found.angle_rad - beam.angle_rad) == pytest.approx(0, abs=1e-4)
    assert abs(found.angle_rad) <= np.pi / 2


def test_position_angle_goes_from_north_through_east() -> None:
    beam = Beam(9.0 * CELL, 5.0 * CELL, np.radians(30.0))
    along = beam.at(
        np.sin(np.radians(30.0)) * 4.5 * CELL, np.cos(np.pi / 6) * 4.5 * CELL
    )
    assert along == pytest.approx(0.5)
    # north-east is at the upper left
    picture = drawn(beam)
    assert picture[64 + 4, 64 - 2] > picture[64 + 4, 64 + 2]


def test_the_beam_of_an_array_is_fitted_down_to_half_its_power() -> None:
    uvw, hz = muser_uvw(), channels()
    grid = Grid(512, 5e-6)
    weights = np.ones((len(uvw), 16), np.float32)
    gridder = Gridder(uvw, hz, grid)
    beam = fit_beam(gridder.beam(weights), grid.cell_rad)
    ones = weights.astype(np.complex64)
    s, c = np.sin(beam.angle_rad), np.cos(beam.angle_rad)
    for half, (east, north) in (
        (beam.major_rad / 2, (s, c)),
        (beam.minor_rad / 2, (c, -s)),
    ):
        power = direct(uvw, hz, ones, weights, half * east, half * north, gridder.plane)
        assert power == pytest.approx(0.5, abs=0.04)
    assert beam.major_rad > 1.05 * beam.minor_rad


def test_side_lobes_do_not_count() -> None:
    beam = Beam(7.0 * CELL, 5.0 * CELL, 0.4)
    psf = drawn(beam)
    psf += 0.7 * np.roll(psf, (30, 17), axis=(0, 1))
    psf += 0.7 * np.roll(drawn(beam), (-30, -17), axis=(0, 1))
    assert fit_beam(psf, CELL).major_rad == pytest.approx(beam.major_rad, rel=1e-3)


def test_a_wide_beam_is_followed_as_far_as_it_goes() -> None:
    beam = Beam(60.0 * CELL, 40.0 * CELL, -0.7)
    assert fit_beam(drawn(beam), CELL).major_rad == pytest.approx(60 * CELL, rel=1e-4)


def test_a_beam_narrower_than_two_pixels_is_fitted_too() -> None:
    beam = Beam(1.8 * CELL, 1.5 * CELL, 0.3)
    found = fit_beam(drawn(beam), CELL)
    assert found.major_rad == pytest.approx(1.8 * CELL, rel=0.01)
    assert found.minor_rad == pytest.approx(1.5 * CELL, rel=0.01)


@pytest.mark.parametrize(
    ("psf", "said"),
    [
        (np.zeros((64, 64), np.float32), "not 1"),
        (np.full((64, 64), np.nan, np.float32), "not 1"),
        (np.ones((64, 64), np.float32), "longer than the image"),
        (
            np.exp(-(np.arange(-32.0, 32.0) ** 2)) * np.ones((64, 1)),
            "longer than the image",
        ),
    ],
    ids=["nothing", "not a number", "flat", "a stripe"],
)
def test_what_is_no_beam_is_said(psf: np.ndarray, said: str) -> None:
    with pytest.raises(ImagingError, match=said) as raised:
        fit_beam(psf, CELL)
    assert raised.value.reason == "beam"


def test_points_become_beams_of_their_flux() -> None:
    beam = Beam(9.0 * CELL, 5.0 * CELL, np.radians(30.0))
    model = np.zeros((128, 128), np.float32)
    model[40, 70], model[80, 30] = 2.0, -0.5
    residual = np.full((128, 128), 0.01, np.float32)
    restored = restore(model, residual, beam, GRID)
    truth = 0.01 + sum(
        flux * beam.at(EAST - EAST[x], (NORTH - NORTH[y])[:, np.newaxis])
        for flux, y, x in ((2.0, 40, 70), (-0.5, 80, 30))
    )
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, truth, atol=2e-6)


def test_restoring_conserves_flux() -> None:
    beam = Beam(9.0 * CELL, 5.0 * CELL, np.radians(-50.0))
    rng = np.random.default_rng(1)
    model = np.zeros((128, 128), np.float32)
    model[40:90, 40:90] = rng.normal(1.0, 0.5, (50, 50))
    restored = restore(model, np.zeros_like(model), beam, GRID)
    flux = np.sum(restored, dtype=float) / beam.pixels(GRID)
    assert flux == pytest.approx(float(np.sum(model, dtype=float)), rel=1e-5)


def test_nothing_comes_back_in_from_the_other_side() -> None:
    beam = Beam(20.0 * CELL, 20.0 * CELL, 0.0)
    model = np.zeros((128, 128), np.float32)
    model[0, 127] = 1.0
    restored = restore(model, np.zeros_like(model), beam, GRID)
    assert restored[0, 127] == pytest.approx(1.0, abs=1e-5)
    assert np.max(np.abs(restored[64:])) < 1e-6
    assert np.max(np.abs(restored[:, :64])) < 1e-6


def test_solid_angle_of_a_beam() -> None:
    beam = Beam(9.0 * CELL, 5.0 * CELL, 1.0)
    assert beam.pixels(GRID) == pytest.approx(float(np.sum(drawn(beam))), rel=1e-5)
    assert beam.solid_angle == pytest.approx(1.1331 * 45 * CELL**2, rel=1e-4)
