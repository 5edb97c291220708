from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from clean_fields import make_beam, seen
from scipy.signal import fftconvolve

from muser_pipeline.imaging.clean import CleanOptions, clean
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.multiscale import scale_window

SIZE = 128
OPTIONS = CleanOptions("multiscale", iterations=300, scales_pixels=(0, 4, 12))


def blob(width: float) -> Any:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    return np.exp(-(x**2 + y**2) / (2 * width**2)) / (2 * np.pi * width**2)


def dirty_of(sky: Any, beam: Any) -> Any:
    full = fftconvolve(sky, beam)
    half = SIZE // 2
    return full[half : half + SIZE, half : half + SIZE].astype(np.float32)


@pytest.mark.parametrize("scale", [0, 1, 1.5, 7, 12.3])
def test_a_window_is_round_and_of_unit_sum(scale: float) -> None:
    window = scale_window(scale)
    assert window.sum() == pytest.approx(1, rel=1e-5)
    assert np.allclose(window, window.T)
    assert np.allclose(window, window[::-1])
    half = len(window) // 2
    assert half < max(scale, 1)
    row = window[half] / window[half, half]
    assert np.count_nonzero(row > 0.5) == pytest.approx(0.86 * scale, abs=1.1)


def test_what_is_wide_is_found_better_than_by_points() -> None:
    beam = make_beam(SIZE, spacings=1500)
    dirty = dirty_of(100 * blob(6.0), beam)
    points = clean(dirty, beam, CleanOptions(iterations=300))
    wide = clean(dirty, beam, OPTIONS)
    assert wide.components is None
    assert wide.residual.std() < points.residual.std() / 3
    assert wide.model.sum() == pytest.approx(100, rel=0.05)
    middle = (slice(SIZE // 2 - 25, SIZE // 2 + 25),) * 2
    truth = 100 * blob(6.0)[middle]
    error = np.abs(wide.model[middle] - truth).max()
    assert error < 0.3 * np.abs(points.model[middle] - truth).max()


def test_a_point_stays_a_point() -> None:
    beam = make_beam(SIZE, spacings=1500)
    dirty = seen([(60, 70, 10.0), (50, 40, -2.0)], beam)
    found = clean(dirty, beam, OPTIONS)
    assert found.model[60, 70] == pytest.approx(10, rel=0.01)
    assert found.model[50, 40] == pytest.approx(-2, rel=0.05)
    assert np.count_nonzero(np.abs(found.model) > 0.1) == 2


def test_the_residual_is_that_of_the_model() -> None:
    beam = make_beam(SIZE)
    sky = 50 * np.roll(blob(5.0), (-20, 31), axis=(0, 1))
    dirty = dirty_of(sky, beam)
    found = clean(dirty, beam, OPTIONS)
    left = dirty - dirty_of(found.model, beam)
    assert np.allclose(found.residual, left, atol=1e-4)
    assert found.cycles > 1


def test_components_are_in_the_mask() -> None:
    beam = make_beam(SIZE)
    dirty = dirty_of(50 * blob(5.0), beam)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:, : SIZE // 2] = True
    options = CleanOptions("multiscale", iterations=50, scales_pixels=(0,))
    found = clean(dirty, beam, options, mask)
    assert found.model[:, : SIZE // 2].any()
    assert not found.model[:, SIZE // 2 :].any()


def test_a_scale_as_large_as_the_image_is_turned_down() -> None:
    beam = make_beam(SIZE)
    options = CleanOptions("multiscale", scales_pixels=(0, 50))
    with pytest.raises(ImagingError, match="scale 50 is too large") as caught:
        clean(beam, beam, options)
    assert caught.value.reason == "options"
