"""Images of a Sun that is known, from visibilities to numbers, and what is refused."""

from __future__ import annotations

from math import cos, hypot, radians, sin

import numpy as np
import pytest
from sun_tools import ARCSEC, HZ, RADIUS, direction, disk_of, sun_snapshot

from muser_pipeline.imaging.clean import CleanOptions
from muser_pipeline.imaging.disk import Disk, RadialProfile
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions, SunOptions
from muser_pipeline.imaging.pipeline import make_image
from muser_pipeline.imaging.shelf import Shelf
from muser_pipeline.imaging.visibilities import Snapshot

P = radians(-17.0)
BURSTS = [
    (300.0, 400.0, -250.0, 0.3),
    (150.0, -600.0, 500.0, -0.5),
    (90.0, 100.0, 800.0, 0.0),
]
"""Flux, west and north of the Sun's centre in arcseconds, and V / I."""
OFFSET = (90 * ARCSEC, -60 * ARCSEC)
"""l and m of the Sun's centre, which should have been at the phase centre."""
SUN = SunOptions(RADIUS, p_rad=P)


def snapshot(noise: float = 1.0, offset: tuple[float, float] = (0.0, 0.0)) -> Snapshot:
    """Return a disk of 800 and the bursts."""
    bursts = []
    for flux, west, north, polarization in BURSTS:
        east, up = direction(west, north, P)
        bursts.append((flux, east + offset[0], up + offset[1], polarization))
    return sun_snapshot(bursts, disk_of(800.0, 1.03 * RADIUS, *offset), noise=noise)


def options(polarization: str = "I", **changes: object) -> ImageOptions:
    clean = CleanOptions(iterations=300)
    values = {"size": 300, "cell_rad": 15 * ARCSEC, "sun": SUN, "clean": clean}
    return ImageOptions(polarization=polarization, **(values | changes))  # type: ignore[arg-type]


def found_near(image: Image, west: float, north: float) -> tuple[float, float, float]:
    """Return place (arcseconds) and flux of the components around a place."""
    assert image.components is not None
    y, x, flux = image.components.T
    cell, half = image.grid.cell_rad / ARCSEC, image.grid.size // 2
    right, up = (x - half) * cell, (y - half) * cell
    near = np.hypot(right - west, up - north) < 100
    total = flux[near].sum()
    return (
        float((right * flux)[near].sum() / total),
        float((up * flux)[near].sum() / total),
        float(total),
    )


@pytest.fixture(scope="module")
def plain() -> Image:
    """Return the image of the snapshot with all options as they are."""
    return make_image(snapshot(), options())


@pytest.mark.parametrize(
    ("polarization", "factors"),
    [("I", (1.0, 1.0, 1.0)), ("RR", (1.3, 0.5, 1.0)), ("LL", (0.7, 1.5, 1.0))],
)
def test_bursts_and_disk_are_where_they_are_and_as_bright(
    polarization: str, factors: tuple[float, ...]
) -> None:
    image = make_image(snapshot(), options(polarization))
    beam_arcsec = image.beam.minor_rad / ARCSEC
    for (flux, west, north, _), factor in zip(BURSTS, factors, strict=True):
        right, up, found = found_near(image, west, north)
        assert hypot(right - west, up - north) < 0.1 * beam_arcsec
        assert found == pytest.approx(flux * factor, rel=0.05)
    assert image.disk is not None
    assert image.disk.radius_rad == pytest.approx(1.03 * RADIUS, rel=0.02)
    assert image.disk_flux == pytest.approx(800.0, rel=0.02)
    assert image.stopped_by == "iterations"
    assert image.notes == ()


def test_stokes_v_has_the_sign_of_each_burst_and_no_disk() -> None:
    image = make_image(snapshot(offset=OFFSET), options("V"))
    for flux, west, north, part in BURSTS[:2]:
        right, up, found = found_near(image, west, north)
        assert hypot(right - west, up - north) < 0.1 * image.beam.minor_rad / ARCSEC
        assert found == pytest.approx(flux * part, rel=0.05)
    assert image.disk_flux == 0.0
    # the sign of the strongest
    assert image.peak == pytest.approx(90.0, rel=0.1)
    assert image.best.min() == pytest.approx(-75.0, rel=0.1)


def test_a_sun_that_is_off_its_place_is_moved_to_the_middle() -> None:
    image = make_image(snapshot(offset=OFFSET), options())
    for flux, west, north, _ in BURSTS:
        right, up, found = found_near(image, west, north)
        assert hypot(right - west, up - north) < 0.1 * image.beam.minor_rad / ARCSEC
        assert found == pytest.approx(flux, rel=0.05)
    # l and m of the offset, as seen with solar north up
    expected = (
        OFFSET[0] * cos(P) - OFFSET[1] * sin(P),
        OFFSET[1] * cos(P) + OFFSET[0] * sin(P),
    )
    assert image.shift_rad == pytest.approx(expected, abs=2 * ARCSEC)


def test_an_image_is_not_moved_by_noise() -> None:
    burst = (300.0, *direction(400.0, -250.0, P), 0.0)
    seen = sun_snapshot([burst], disk_of(100.0, RADIUS), noise=50.0)
    image = make_image(seen, options())
    assert image.disk is not None
    assert image.disk.l_error > image.grid.cell_rad
    assert image.shift_rad == (0.0, 0.0)
    assert "uncertain" in image.notes[0]
    right, up, found = found_near(image, 400.0, -250.0)
    assert hypot(right - 400, up + 250) < 0.1 * image.beam.minor_rad / ARCSEC
    assert found == pytest.approx(300, rel=0.05)


def test_without_registration_nothing_is_moved() -> None:
    sun = SunOptions(RADIUS, p_rad=P, register=False)
    image = make_image(snapshot(offset=OFFSET), options(sun=sun))
    assert image.shift_rad == (0.0, 0.0)
    east = OFFSET[0] * cos(P) - OFFSET[1] * sin(P)
    assert found_near(image, 400.0 - east / ARCSEC, -250.0)[0] == pytest.approx(
        400.0 - east / ARCSEC, abs=10
    )
    assert image.disk is not None
    assert image.disk.l == pytest.approx(east, abs=2 * ARCSEC)


def test_the_disk_is_put_back_flat_and_with_its_flux(plain: Image) -> None:
    image = plain
    level = 800.0 * image.beam.solid_angle / (np.pi * (1.03 * RADIUS) ** 2)
    best = image.best
    inside = best[120:130, 120:140]
    outside = best[:40, :40]
    assert np.median(inside) == pytest.approx(level, rel=0.05)
    assert abs(np.median(outside)) < 0.05 * level
    assert image.residual is not None
    total = (best - image.residual).sum() / image.beam.pixels(image.grid)
    assert total == pytest.approx(image.flux, rel=1e-3)
    assert image.flux == pytest.approx(800 + 540, rel=0.03)
    assert image.dirty.max() > 0.9 * 300


def test_an_image_that_is_not_cleaned_is_dirty_and_still_registered() -> None:
    image = make_image(
        snapshot(offset=OFFSET), options(clean=CleanOptions(algorithm="none"))
    )
    assert image.best is image.dirty
    assert image.model is None
    assert image.stopped_by == "none"
    west, north = (
        (image.peak_pixel[1] - 150) * 15,
        (image.peak_pixel[0] - 150) * 15,
    )
    assert (west, north) == pytest.approx((400, -250), abs=15)


def test_a_disk_that_is_not_to_be_modelled_is_left_to_clean() -> None:
    sun = SunOptions(RADIUS, p_rad=P, disk=False, register=False)
    image = make_image(snapshot(), options(sun=sun))
    assert image.disk is None
    assert image.disk_flux == 0.0
    assert "disk" in image.timings_s
    assert found_near(image, 400.0, -250.0)[2] > 250


def test_phases_of_antennas_are_solved_for_where_it_is_asked() -> None:
    phases = np.random.default_rng(8).normal(0.0, 0.6, (2, 40))
    burst = (500.0, *direction(400.0, -250.0, P), 0.0)
    seen = sun_snapshot([burst], disk_of(300.0, RADIUS), noise=1.0, phases_rad=phases)
    spoilt = make_image(seen, options())
    image = make_image(seen, options(self_calibrate=True))
    assert spoilt.peak < 0.85 * 500
    assert image.peak == pytest.approx(500, rel=0.05)
    assert image.dynamic_range > 3 * spoilt.dynamic_range
    assert [one.applied for one in image.self_calibration] == [True, True]
    assert image.disk is not None
    assert image.disk.radius_rad == pytest.approx(RADIUS, rel=0.02)


def test_a_target_that_is_no_sun_needs_no_disk() -> None:
    seen = sun_snapshot([(5.0, 3e-3, -2e-3, 0.0)], noise=0.05)
    image = make_image(
        seen, ImageOptions(256, 20 * ARCSEC, clean=CleanOptions(iterations=100))
    )
    assert image.disk is None
    y, x = image.peak_pixel
    assert -(x - 128) * 20 * ARCSEC == pytest.approx(3e-3, abs=20 * ARCSEC)
    assert (y - 128) * 20 * ARCSEC == pytest.approx(-2e-3, abs=20 * ARCSEC)


def test_the_mean_frequency_is_that_of_what_was_used() -> None:
    seen = snapshot()
    seen.weights[:, :, 3] = 0
    image = make_image(seen, options())
    assert image.frequency_hz == pytest.approx(HZ[:3].mean())
    assert image.bandwidth_hz == pytest.approx(75e6)
    assert image.visibilities == 780 * 3
    assert image.flagged == 780


@pytest.mark.parametrize("factor", [300.0, 0.0])
def test_an_antenna_that_is_saturated_or_dead_is_left_out(factor: float) -> None:
    seen = snapshot()
    one = (seen.antenna1 == 11) | (seen.antenna2 == 11)
    data = seen.data * np.where(one, np.float32(factor), np.float32(1))[:, np.newaxis]
    image = make_image(seen.replace(data=data), options())
    assert image.left_out == (11,)
    assert image.visibilities == (780 - 39) * 4
    assert "11" in image.notes[0]
    assert found_near(image, 400.0, -250.0)[2] == pytest.approx(300, rel=0.05)


def test_a_disk_that_is_not_seen_is_said_and_the_image_made() -> None:
    burst = (300.0, *direction(400.0, -250.0, P), 0.0)
    image = make_image(sun_snapshot([burst], noise=1.0), options())
    assert image.disk is None
    assert "no disk" in image.notes[0]
    assert found_near(image, 400.0, -250.0)[2] == pytest.approx(300, rel=0.02)


def spoilt(what: str) -> Snapshot:
    """Return a snapshot that gives no image."""
    seen = snapshot()
    if what == "flagged":
        return seen.replace(weights=np.zeros_like(seen.weights))
    if what == "zero":
        return seen.replace(data=np.zeros_like(seen.data))
    if what == "not-finite":
        return seen.replace(data=np.full_like(seen.data, np.nan))
    one = (seen.antenna1 == 3) & (seen.antenna2 == 9)
    assert what == "one-baseline"
    return seen.replace(weights=seen.weights * one[:, np.newaxis].astype(np.float32))


@pytest.mark.parametrize("reason", ["flagged", "zero", "not-finite", "one-baseline"])
def test_what_gives_no_image_is_refused_with_its_reason(reason: str) -> None:
    with pytest.raises(ImagingError) as caught:
        make_image(spoilt(reason), options())
    assert caught.value.reason == reason


@pytest.mark.parametrize(("factor", "reason"), [(1e33, "not-finite"), (1e36, "blank")])
def test_an_image_that_is_no_image_is_refused(factor: float, reason: str) -> None:
    seen = snapshot()
    with np.errstate(over="ignore"):
        data = seen.data * np.float32(factor)
    with pytest.raises(ImagingError) as caught:
        make_image(seen.replace(data=data), options())
    assert caught.value.reason == reason


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_of_weights_does_not_matter(scale: float, plain: Image) -> None:
    seen = snapshot()
    image = make_image(
        seen.replace(weights=seen.weights * np.float32(scale)), options()
    )
    assert image.peak == pytest.approx(plain.peak, rel=1e-3)
    assert image.disk is not None and plain.disk is not None
    assert image.disk.radius_rad == pytest.approx(plain.disk.radius_rad, rel=1e-3)
    assert image.disk.l_error == pytest.approx(plain.disk.l_error, rel=0.1)


def test_baselines_that_nobody_knows_are_not_used() -> None:
    seen = snapshot()
    seen.uvw_m[::50] = np.nan
    image = make_image(seen, options())
    assert image.flagged == 16 * 4
    assert found_near(image, 400.0, -250.0)[2] == pytest.approx(300, rel=0.05)
    seen.uvw_m[:] = np.nan
    with pytest.raises(ImagingError) as caught:
        make_image(seen, options())
    assert caught.value.reason == "flagged"


def test_visibilities_that_are_no_numbers_are_not_used() -> None:
    seen = snapshot()
    seen.data[:, ::50] = np.nan
    image = make_image(seen, options())
    assert image.flagged == 16 * 4
    assert np.isfinite(image.best).all()
    assert found_near(image, 400.0, -250.0)[2] == pytest.approx(300, rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 301},
        {"size": 8},
        {"cell_rad": -1.0},
        {"weighting": "heavy"},
        {"polarization": "Q"},
        {"taper_rad": -1.0},
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ImagingError) as caught:
        ImageOptions(**changes)  # type: ignore[arg-type]
    assert caught.value.reason == "options"


def test_a_field_that_does_not_hold_the_sun_is_refused() -> None:
    with pytest.raises(ImagingError, match="folded") as caught:
        make_image(snapshot(), options(size=128, cell_rad=15 * ARCSEC))
    assert caught.value.reason == "field"


def test_the_field_is_chosen_to_hold_the_sun_and_the_cell_to_resolve_it() -> None:
    image = make_image(
        snapshot(), ImageOptions(sun=SUN, clean=CleanOptions(algorithm="none"))
    )
    assert image.grid.extent_rad >= radians(1.25)
    assert image.grid.size % 2 == 0
    assert image.grid.extent_rad < radians(1.4)
    longest = np.hypot(*snapshot().uvw_m[:, :2].T).max() * HZ[-1] / 299_792_458.0
    assert 2.9 < 1 / (longest * image.grid.cell_rad) < 3.4
    arcsec = image.grid.cell_rad / ARCSEC
    assert arcsec == pytest.approx(round(arcsec))


def test_whoever_is_told_of_progress_may_stop_the_work() -> None:
    told: list[tuple[str, int, int]] = []

    def listen(step: str, done: int, of: int) -> None:
        told.append((step, done, of))
        if step == "clean" and done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_image(snapshot(), options(), progress=listen)
    steps = [step for step, _, _ in told]
    assert [step for n, step in enumerate(steps) if step not in steps[:n]] == [
        *("check", "disk", "weigh", "beam", "grid", "clean"),
    ]
    assert told[-1][1] < told[-1][2] == 300


def test_a_shelf_keeps_what_the_next_image_needs() -> None:
    shelf = Shelf()
    first = make_image(snapshot(), options(), shelf=shelf)
    made = shelf.made
    second = make_image(snapshot(), options(), shelf=shelf)
    assert np.array_equal(first.best, second.best)
    # wherever the disk is seen in them, the hands have the same baselines
    for polarization in ("RR", "V"):
        make_image(snapshot(offset=OFFSET), options(polarization), shelf=shelf)
    assert shelf.made == made
    assert shelf.found == 3 * made
    other = make_image(snapshot(), options(weighting="uniform"), shelf=shelf)
    assert not np.array_equal(first.psf, other.psf)
    late = sun_snapshot((), disk_of(800.0, RADIUS), hour_angle_deg=21.0)
    make_image(late, options(), shelf=shelf)
    assert shelf.made == made + 1 + made


def test_a_shelf_forgets_what_was_not_asked_for_the_longest() -> None:
    shelf = Shelf(kept=2)
    arrays = [np.arange(3) + n for n in range(3)]
    for n in (0, 1, 0, 2, 0):
        assert shelf.get(lambda n=n: n, "thing", arrays[n]) == n  # type: ignore[misc]
    assert (shelf.made, shelf.found) == (3, 2)
    shelf.get(lambda: 1, "thing", arrays[1])
    assert shelf.made == 4
    shelf.clear()
    assert shelf.get(lambda: 9, "thing", arrays[1]) == 9


def test_a_disk_with_a_bright_limb_leaves_nothing_behind() -> None:
    limb = RadialProfile(np.array([0.0, 0.9, 1.0, 1.1]), np.array([1.0, 1.0, 3.0, 0.0]))
    sun = SunOptions(RADIUS, p_rad=P, profile=limb)
    there = Disk(0.0, 0.0, RADIUS, np.full(len(HZ), 800.0), limb)
    seen = sun_snapshot((), there, noise=0.5)
    image = make_image(seen, options(sun=sun))
    uniform = make_image(seen, options())
    assert image.residual is not None
    assert uniform.residual is not None
    assert np.abs(image.residual).max() < 8 * 0.5 / (780 * 4) ** 0.5
    assert image.rms < 0.8 * uniform.rms
