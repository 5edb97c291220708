"""The disk of the Sun against integrals, and its fit against what was put in."""

from __future__ import annotations

from math import hypot

import numpy as np
import pytest
from field_tools import LIGHT, muser_uvw, phases
from scipy.integrate import quad
from scipy.special import j0, j1, jv
from sun_tools import ARCSEC, HZ, RADIUS, Burst, disk_of, sun_snapshot

from muser_pipeline.imaging.disk import UNIFORM, Disk, RadialProfile
from muser_pipeline.imaging.disk_fit import DiskFit, fit_disk
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.plane import Plane
from muser_pipeline.imaging.restoring import Beam
from muser_pipeline.imaging.visibilities import Snapshot

LIMB = RadialProfile(np.array([0.0, 0.8, 1.0, 1.2]), np.array([1.0, 1.1, 3.0, 0.0]))
BURSTS = [
    (80.0, 300 * ARCSEC, -500 * ARCSEC, 0.0),
    (30.0, -700 * ARCSEC, 200 * ARCSEC, 0.0),
    (10.0, 0.0, 900 * ARCSEC, 0.0),
]
BEAM = Beam(100 * ARCSEC, 70 * ARCSEC, 0.4)
GRID = Grid(300, 15 * ARCSEC)


def fit_of(
    snapshot: Snapshot, profile: RadialProfile = UNIFORM, fit_radius: bool = True
) -> DiskFit:
    data, weights = snapshot.stokes("I")
    return fit_disk(
        *(snapshot.uvw_m, snapshot.frequency_hz, data, weights),
        *(RADIUS, profile, fit_radius),
    )


def test_the_transform_of_a_uniform_disk_is_a_bessel_function() -> None:
    s = np.linspace(0.01, 60, 2000)
    x = 2 * np.pi * s
    found = UNIFORM.transforms(60)(s)
    assert np.abs(found[:, 0] - 2 * j1(x) / x).max() < 2e-5
    assert np.abs(found[:, 1] - 4 * jv(2, x) / x**2).max() < 2e-5


@pytest.mark.parametrize("s", [0.0, 0.3, 1.7, 5.2])
def test_the_transform_of_a_profile_is_its_integral(s: float) -> None:
    def integrand(r: float) -> float:
        return float(LIMB.at(np.array(r)) * r * j0(2 * np.pi * s * r))

    def flux(r: float) -> float:
        return float(LIMB.at(np.array(r)) * r)

    (expected, _), (total, _) = (
        quad(what, 0, 1.2, points=[0.8, 1.0]) for what in (integrand, flux)
    )
    found = LIMB.transforms(6)(s)[0]
    assert found == pytest.approx(expected / total, abs=1e-5)


def test_visibilities_are_the_sum_over_the_disk_with_its_curvature() -> None:
    uvw = muser_uvw(60.0)[::13]
    uvw = uvw[np.hypot(uvw[:, 0], uvw[:, 1]) < 700]
    hz = np.array([4e8, 2e9])
    disk = Disk(200 * ARCSEC, -300 * ARCSEC, RADIUS, np.array([3.0, 5.0]))
    nodes, weights = np.polynomial.legendre.leggauss(100)
    radius, weights = (nodes + 1) / 2, weights * (nodes + 1) / 2
    angle = 2 * np.pi * np.arange(220) / 220
    east = disk.l + RADIUS * np.multiply.outer(radius, np.cos(angle))
    north = disk.m + RADIUS * np.multiply.outer(radius, np.sin(angle))
    places = np.stack([east, north, np.sqrt(1 - east**2 - north**2) - 1])
    expected = np.empty((len(uvw), 2), dtype=complex)
    for row, baseline in enumerate(uvw):
        path = np.tensordot(baseline, places, 1)
        for channel, wavelength in enumerate(LIGHT / hz):
            seen = np.exp(2j * np.pi * path / wavelength).mean(axis=1)
            expected[row, channel] = (weights @ seen) * disk.flux[channel]
    assert len(uvw) > 20
    assert np.abs(disk.visibilities(uvw, hz) - expected).max() < 1e-4
    # it is not the flat disk of a textbook
    flat = np.column_stack([uvw[:, :2], 0 * uvw[:, 2]])
    assert np.abs(disk.visibilities(flat, hz) - expected).max() > 1e-2


@pytest.mark.parametrize("plane", [Plane(0.0, 0.0), Plane(2.0, -1.0)])
def test_an_image_of_a_disk_keeps_its_flux_and_its_place(plane: Plane) -> None:
    disk = Disk(400 * ARCSEC, -200 * ARCSEC, RADIUS, np.array([7.0]))
    pixels = disk.image(GRID, BEAM, 7.0, plane).astype(float)
    assert pixels.sum() / BEAM.pixels(GRID) == pytest.approx(7.0, rel=1e-5)
    east, north = GRID.coordinates()
    at = plane.directions(east[np.newaxis, :], north[:, np.newaxis])
    centre = [(pixels * place).sum() / pixels.sum() for place in at[:2]]
    assert centre == pytest.approx([disk.l, disk.m], rel=1e-4)


def test_a_disk_is_flat_inside_dark_outside_and_half_as_bright_at_its_limb() -> None:
    disk = Disk(0.0, 0.0, 40 * GRID.cell_rad, np.array([1.0]))
    round_beam = Beam(4 * GRID.cell_rad, 4 * GRID.cell_rad, 0.0)
    pixels = disk.image(GRID, round_beam, 1.0)
    inside = round_beam.solid_angle / (np.pi * disk.radius_rad**2)
    half = GRID.size // 2
    assert pixels[half, half] == pytest.approx(inside, rel=1e-3)
    assert np.abs(pixels[half + 50 :]).max() < 1e-3 * inside
    for y, x in ((half + 40, half), (half - 40, half), (half, half + 40)):
        assert pixels[y, x] == pytest.approx(inside / 2, rel=0.05)


@pytest.mark.parametrize(
    ("radius", "brightness"),
    [
        ([0.0], [1.0]),
        ([0.1, 1.0], [1.0, 1.0]),
        ([0.0, 1.0, 1.0], [1.0, 1.0, 0.0]),
        ([0.0, 1.0], [1.0, np.nan]),
        ([0.0, 1.0], [-1.0, -1.0]),
        ([0.0, 1.0], [1.0, 1.0, 1.0]),
    ],
)
def test_what_is_no_profile_is_refused(
    radius: list[float], brightness: list[float]
) -> None:
    with pytest.raises(ImagingError) as caught:
        RadialProfile(np.array(radius), np.array(brightness))
    assert caught.value.reason == "options"


def test_a_disk_beside_bursts_is_found_within_its_errors() -> None:
    there = disk_of(100.0, 1.04 * RADIUS, 60 * ARCSEC, -35 * ARCSEC)
    fit = fit_of(sun_snapshot(BURSTS, there, noise=1.0))
    disk = fit.disk
    for found, true, error in (
        (disk.l, there.l, disk.l_error),
        (disk.m, there.m, disk.m_error),
        (disk.radius_rad, there.radius_rad, disk.radius_error_rad),
    ):
        assert abs(found - true) < 4.5 * error
        assert 0 < error < 2 * ARCSEC
    assert np.all(np.abs(disk.flux - 100.0) < 4.5 * disk.flux_error)
    assert np.all((disk.flux_error > 0) & (disk.flux_error < 2.0))
    assert fit.residual == pytest.approx(1.0, rel=0.05)
    nearest = fit.bursts[np.argmin(np.abs(fit.bursts[:, 3] - 80.0))]
    assert np.abs(nearest[:2] - BURSTS[0][1:3]).max() < 3 * ARCSEC


def test_errors_are_what_repeated_fits_scatter_by() -> None:
    there = disk_of(100.0, RADIUS)
    fits = [
        fit_of(sun_snapshot((), there, noise=5.0, seed=seed)).disk for seed in range(8)
    ]
    scatter = np.std([(fit.l, fit.m) for fit in fits])
    said = np.mean([(fit.l_error, fit.m_error) for fit in fits])
    assert 0.5 < scatter / said < 1.7


def test_a_disk_is_found_a_third_of_its_radius_away() -> None:
    there = disk_of(100.0, RADIUS, -0.25 * RADIUS, 0.25 * RADIUS)
    disk = fit_of(sun_snapshot(BURSTS[:1], there, noise=0.5)).disk
    assert disk.l == pytest.approx(there.l, abs=2 * ARCSEC)
    assert disk.m == pytest.approx(there.m, abs=2 * ARCSEC)


def test_bursts_that_outshine_the_disk_do_not_move_it() -> None:
    bright = [(100 * flux, east, north, v) for flux, east, north, v in BURSTS[:2]]
    there = disk_of(100.0, RADIUS, 20 * ARCSEC, 0.0)
    disk = fit_of(sun_snapshot(bright, there, noise=0.5)).disk
    assert disk.l == pytest.approx(there.l, abs=5 * ARCSEC)
    assert disk.radius_rad == pytest.approx(RADIUS, rel=0.01)
    assert disk.flux.mean() == pytest.approx(100.0, rel=0.03)


def test_bursts_with_an_extent_do_not_move_it() -> None:
    width = 120 * ARCSEC
    there = disk_of(100.0, RADIUS, 20 * ARCSEC, -30 * ARCSEC)
    seen = sun_snapshot((), there, noise=0.5)
    squares = np.sum(seen.uvw_m[:, :2] ** 2, axis=1)[:, np.newaxis]
    fall = (np.pi * width * HZ / LIGHT) ** 2 / (4 * np.log(2))
    burst = phases(seen.uvw_m, HZ, 500 * ARCSEC, 300 * ARCSEC)
    burst = 60.0 * burst * np.exp(-fall * squares)
    fit = fit_of(seen.replace(data=(seen.data + burst).astype(np.complex64)))
    assert fit.disk.l == pytest.approx(there.l, abs=2 * ARCSEC)
    assert fit.disk.m == pytest.approx(there.m, abs=2 * ARCSEC)
    assert fit.disk.flux == pytest.approx(100.0, rel=0.02)
    assert fit.bursts[0, :2] == pytest.approx(
        [500 * ARCSEC, 300 * ARCSEC], abs=2 * ARCSEC
    )
    assert fit.bursts[0, 2:] == pytest.approx([width, 60.0], rel=0.03)


def test_noise_does_not_lead_away_from_it() -> None:
    there = disk_of(100.0, RADIUS)
    for seed in range(2):
        disk = fit_of(sun_snapshot(BURSTS, there, noise=60.0, seed=seed)).disk
        assert hypot(disk.l, disk.m) < 5 * hypot(disk.l_error, disk.m_error)


def test_the_radius_of_a_profile_is_found_where_the_profile_is_given() -> None:
    there = Disk(0.0, 0.0, 1.02 * RADIUS, np.full(len(HZ), 50.0), LIMB)
    seen = sun_snapshot((), there, noise=0.2)
    assert fit_of(seen, profile=LIMB).disk.radius_rad == pytest.approx(
        there.radius_rad, rel=2e-3
    )
    # a uniform disk is larger, to have light where the limb is
    assert fit_of(seen).disk.radius_rad > 1.05 * RADIUS


def test_a_radius_that_is_not_to_be_fitted_stays() -> None:
    disk = fit_of(
        sun_snapshot((), disk_of(50.0, 1.05 * RADIUS), noise=0.2), fit_radius=False
    ).disk
    assert disk.radius_rad == RADIUS
    assert disk.radius_error_rad == 0.0


def test_channels_without_data_have_no_flux() -> None:
    seen = sun_snapshot((), disk_of(50.0, RADIUS), noise=0.2)
    seen.weights[:, :, 2] = 0
    disk = fit_of(seen).disk
    assert disk.flux[2] == 0.0
    assert disk.flux[[0, 1, 3]] == pytest.approx(50.0, rel=0.01)


@pytest.mark.parametrize("bursts", [(), BURSTS[:1]])
def test_where_there_is_no_disk_none_is_found(bursts: list[Burst]) -> None:
    with pytest.raises(ImagingError, match="no disk") as caught:
        fit_of(sun_snapshot(bursts, noise=1.0))
    assert caught.value.reason == "disk"
