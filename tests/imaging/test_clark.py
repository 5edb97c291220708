from __future__ import annotations

import numpy as np
import pytest
from clean_fields import make_beam, seen

from muser_pipeline.imaging import clark
from muser_pipeline.imaging.clean import CleanOptions, clean

POINTS = [(20, 30, 5.0), (70, 65, -3.0), (48, 10, 4.0), (50, 80, 1.0)]
OPTIONS = CleanOptions("clark", iterations=2000, threshold=0.01)


@pytest.mark.parametrize("direct", [clark.DIRECT, 0], ids=["direct", "by transforms"])
def test_points_are_found(direct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clark, "DIRECT", direct)
    beam = make_beam(96)
    found = clean(seen(POINTS, beam), beam, OPTIONS)
    assert found.stopped_by == "threshold"
    assert np.abs(found.residual).max() <= 0.01
    for y, x, flux in POINTS:
        assert found.model[y, x] == pytest.approx(flux, abs=0.03)


def test_the_residual_is_that_of_the_components() -> None:
    beam = make_beam(96)
    dirty = seen(POINTS, beam)
    found = clean(dirty, beam, OPTIONS)
    assert found.components is not None
    left = dirty - seen([(int(y), int(x), f) for y, x, f in found.components], beam)
    assert np.allclose(found.residual, left, atol=1e-5)


def test_it_leaves_what_hogbom_leaves() -> None:
    rng = np.random.default_rng(1)
    beam = make_beam(128)
    dirty = seen(POINTS, beam)
    dirty += rng.normal(scale=0.05, size=dirty.shape).astype(np.float32)
    plain, listed = (
        clean(dirty, beam, CleanOptions(algorithm, iterations=300))
        for algorithm in ("hogbom", "clark")
    )
    assert listed.iterations == plain.iterations == 300
    assert listed.residual.std() == pytest.approx(plain.residual.std(), rel=0.02)


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_a_flat_image_does_not_fit_into_the_list_and_is_cleaned(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clark, "MOST", 10)
    beam = np.zeros((16, 16), np.float32)
    beam[8, 8] = 1
    dirty = np.full((16, 16), value, np.float32)
    found = clean(dirty, beam, CleanOptions("clark", gain=0.5, iterations=256))
    assert np.array_equal(found.residual, dirty / 2)


def test_the_mask_and_the_sign_are_kept_to() -> None:
    beam = make_beam(96)
    mask = np.zeros((96, 96), dtype=bool)
    mask[40:90, 5:90] = True
    options = CleanOptions("clark", iterations=200, negative=False)
    found = clean(seen(POINTS, beam), beam, options, mask)
    assert found.components is not None
    y, x, flux = found.components.T
    assert mask[y.astype(int), x.astype(int)].all()
    assert (flux > 0).all()
    assert found.model[48, 10] == pytest.approx(4, rel=0.1)


def test_it_stops_when_the_peaks_rise() -> None:
    beam = make_beam(64)
    beam[40, 30] = beam[24, 34] = -2.5
    dirty = seen([(32, 32, 1.0)], make_beam(64))
    found = clean(dirty, beam, CleanOptions("clark"))
    assert found.stopped_by == "diverged"
    assert np.abs(found.residual).max() <= 2 * np.abs(dirty).max()
