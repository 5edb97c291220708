"""Phases that are plainly not known are found; those that are known stay."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from vlbi_scene import UAS, Source, double, gaussian, ring, seen, without_phases

from muser_pipeline.imaging.clean import CleanOptions
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.hybrid import Found, HybridOptions
from muser_pipeline.imaging.options import ImageOptions, SunOptions
from muser_pipeline.imaging.phasing import phased
from muser_pipeline.imaging.pipeline import make_image
from muser_pipeline.imaging.record import record_of
from muser_pipeline.imaging.visibilities import Snapshot

SMALL = ImageOptions(size=128, clean=CleanOptions(iterations=600))
QUICK = HybridOptions(cycles=6)


@cache
def spoilt_and_found(source: Source) -> tuple[Snapshot, ImageOptions, Found]:
    ready, options, found = phased(without_phases(seen(source)), SMALL, hybrid=QUICK)
    assert found is not None
    return ready, options, found


def image_of(
    source: Source,
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return an image, and where its pixels are to the east and north, in uas."""
    ready, options, found = spoilt_and_found(source)
    image = make_image(ready, options)
    east, north = np.meshgrid(*image.grid.coordinates())
    # restored pixels from edge to edge see the whole source
    assert image.grid.extent_rad > 3 * found.start.extent_rad
    return image.best, east / UAS, north / UAS


@pytest.mark.parametrize("source", [double, ring])
def test_phases_that_are_known_stay(source: Source) -> None:
    known = seen(source)
    ready, options, found = phased(known, SMALL)
    assert found is None
    assert ready is known
    assert options is SMALL


def test_two_points_are_where_they_are() -> None:
    image, east, north = image_of(double)
    y, x = np.unravel_index(image.argmax(), image.shape)
    at = east[y, x], north[y, x]
    near = np.hypot(east - at[0] - 50, north - at[1] - 30) < 8
    assert image[near].max() == pytest.approx(0.5 * image.max(), rel=0.15)
    away = np.hypot(east - at[0], north - at[1]) > 20
    assert image[away].max() == image[near].max()


def test_a_ring_is_one_and_brighter_in_the_south() -> None:
    image, east, north = image_of(ring)
    # the mean place, which is in the south of a ring like this, is in the middle
    radius = np.hypot(east, north - 0.6 * 22 / 2)
    rings = [float(image[np.abs(radius - r) < 2].mean()) for r in range(0, 60, 2)]
    assert 16 <= 2 * int(np.argmax(rings)) <= 26
    assert rings[0] < 0.6 * max(rings)
    on = np.abs(radius - 22) < 6
    south, north_side = (
        image[on & (north < -10)].mean(),
        image[on & (north > 10)].mean(),
    )
    assert south > 1.5 * north_side


def test_a_gaussian_is_round() -> None:
    image, east, north = image_of(gaussian)
    radius = np.hypot(east, north)
    assert radius.flat[image.argmax()] < 6
    assert image[radius > 60].max() < 0.1 * image.max()


def test_what_was_done_is_in_the_record() -> None:
    ready, options, found = spoilt_and_found(ring)
    record = record_of(replace(make_image(ready, options), phases=found))["phases"]
    assert record["start"] == "crescent"
    assert record["start_numbers"]["diameter_arcsec"] == pytest.approx(44e-6, rel=0.05)
    assert record["coherence"] < 0.3 < 0.9 < record["expected_coherence"]
    assert record["closure_phases_chi_squared"]["components"] < 3
    assert record["cycles"] <= QUICK.cycles
    assert record["window_arcsec"] * 1e6 == pytest.approx(
        found.window_rad / UAS, rel=1e-6
    )


def test_much_shorter_baselines_are_left_out() -> None:
    spoilt = without_phases(seen(gaussian))
    # a ninth antenna beside the first, which sees 5 Jy more with it
    first = spoilt.antenna1 == 1
    twins = spoilt.antenna2[first] == 2
    rows = np.flatnonzero(first)[twins]
    short = spoilt.replace(
        uvw_m=np.concatenate([spoilt.uvw_m, spoilt.uvw_m[rows] * 1e-4]),
        data=np.concatenate([spoilt.data, spoilt.data[:, rows] * 0 + 5], axis=1),
        weights=np.concatenate([spoilt.weights, spoilt.weights[:, rows]], axis=1),
        antenna1=np.concatenate([spoilt.antenna1, spoilt.antenna1[rows]]),
        antenna2=np.concatenate([spoilt.antenna2, spoilt.antenna2[rows] * 0 + 9]),
        time_utc_ns=np.concatenate([spoilt.time_utc_ns, spoilt.time_utc_ns[rows]]),
    )
    ready, _, found = phased(short, SMALL, hybrid=replace(QUICK, cycles=1))
    assert found is not None
    assert found.shortest_wavelengths > 0
    assert not ready.weights[0, -len(rows) :].any()
    assert ready.weights[0, : -len(rows)].all()


def test_some_are_not_looked_at() -> None:
    spoilt = without_phases(seen(gaussian))
    sun = SunOptions(radius_rad=4.6e-3)
    for options in (
        replace(SMALL, sun=sun),
        replace(SMALL, self_calibrate=True),
        replace(SMALL, polarization="V"),
    ):
        assert phased(spoilt, options) == (spoilt, options, None)
    assert phased(spoilt, SMALL, "known") == (spoilt, SMALL, None)
    # noise has no phases that could be better
    noise = seen(lambda u, v: np.zeros(u.shape, dtype=complex))
    assert phased(noise, SMALL) == (noise, SMALL, None)
    # and there may be nothing to look at: whoever makes the image tells
    flagged = spoilt.replace(weights=spoilt.weights * 0)
    assert phased(flagged, SMALL) == (flagged, SMALL, None)
    with pytest.raises(ImagingError, match="flagged"):
        phased(flagged, SMALL, "unknown")


def test_pixels_and_window_are_as_asked_for() -> None:
    asked = replace(SMALL, cell_rad=3 * UAS)
    window = HybridOptions(window_rad=70 * UAS, cycles=1)
    _, options, found = phased(seen(gaussian), asked, "unknown", window)
    assert found is not None
    assert found.coherence is None
    assert (options.size, options.cell_rad) == (128, 3 * UAS)
    assert options.window_rad == found.window_rad == 70 * UAS
