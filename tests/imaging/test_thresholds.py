from __future__ import annotations

import numpy as np
import pytest

from muser_pipeline.imaging.thresholds import (
    is_settled,
    noise_of,
    peak_of,
    single,
    threshold_of,
)


@pytest.mark.parametrize("size", [64, 600])
def test_a_few_sources_do_not_change_the_noise(size: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(3.0, 0.5, size=(size, size)).astype(np.float32)
    image.reshape(-1)[:: size // 2] = 1e4
    assert noise_of(image) == pytest.approx(0.5, rel=0.07)


def test_a_peak_has_a_sign_where_that_counts() -> None:
    image = np.array([[1.0, -5.0], [2.0, 4.0]], np.float32)
    mask = np.array([[True, True], [True, False]])
    assert peak_of(image, None, is_signed=False) == 5
    assert peak_of(image, None, is_signed=True) == 4
    assert peak_of(image, mask, is_signed=True) == 2
    assert peak_of(-np.abs(image), None, is_signed=True) == 0
    assert peak_of(image, np.zeros_like(mask), is_signed=False) == 0
    assert peak_of(np.stack([image, 2 * image]), mask, is_signed=False) == 10


def test_the_higher_threshold_counts() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(64, 64)).astype(np.float32)
    by_noise, wish = threshold_of(image, 1.0, 3.0)
    assert wish == "sigma"
    assert by_noise == pytest.approx(3.0, rel=0.1)
    assert threshold_of(image, 5.0, 3.0) == (5.0, "threshold")
    assert threshold_of(image, 0.0, 0.0) == (0.0, "threshold")


def test_a_threshold_that_falls_is_not_settled() -> None:
    assert is_settled(1.0, 1.0)
    assert not is_settled(0.98, 1.0)
    assert not is_settled(5.0, np.inf)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.0, 1e-50, 7e8 + 1])
def test_single_precision_is_not_above(value: float) -> None:
    near = single(value)
    assert near.dtype == np.float32
    assert float(near) <= value
    assert float(np.nextafter(near, np.float32(np.inf))) > value
