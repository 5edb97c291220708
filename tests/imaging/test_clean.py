from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muser_pipeline.imaging.clean import CleanOptions, clean
from muser_pipeline.imaging.errors import ImagingError

SIZE = 64


def beam(size: int = SIZE) -> Any:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-(x**2 + y**2) / 8.0).astype(np.float32)


def test_a_point_is_found_where_it_is() -> None:
    dirty = 2 * np.roll(beam(), (5, -9), axis=(0, 1))
    found = clean(dirty, beam(), CleanOptions(iterations=200, threshold=1e-3))
    assert found.stopped_by == "threshold"
    assert found.components is not None
    assert {(y, x) for y, x, _ in found.components} == {(SIZE // 2 + 5, SIZE // 2 - 9)}
    assert found.model.sum() == pytest.approx(2, rel=1e-3)


def test_what_is_not_finite_is_turned_down() -> None:
    dirty = beam()
    dirty[3, 4] = np.nan
    with pytest.raises(ImagingError, match="the image has values") as caught:
        clean(dirty, beam(), CleanOptions())
    assert caught.value.reason == "not-finite"
