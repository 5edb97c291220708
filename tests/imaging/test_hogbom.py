from __future__ import annotations

import numpy as np
import pytest
from clean_fields import make_beam, seen, shift, textbook

from muser_pipeline.imaging import hogbom
from muser_pipeline.imaging.clean import CleanOptions, clean
from muser_pipeline.imaging.hogbom import Hogbom


def not_told(_: int) -> None:
    """Nobody wants to know."""


@pytest.mark.parametrize("size", [100, 192])
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_it_is_the_textbook_to_the_last_bit(
    size: int, has_mask: bool, negative: bool
) -> None:
    rng = np.random.default_rng(size)
    beam = make_beam(size)
    places = rng.integers(0, size, size=(12, 2))
    flux = rng.normal(scale=5, size=12)
    dirty = seen([(y, x, f) for (y, x), f in zip(places, flux, strict=True)], beam)
    dirty += rng.normal(scale=0.3, size=dirty.shape).astype(np.float32)
    mask = np.ones((size, size), dtype=bool)
    if has_mask:
        mask[:] = rng.random((size, size)) < 0.2
        mask[: size // 2, : size // 2] = False
    expected, left = textbook(dirty, beam, 0.1, 400, mask, negative)
    options = CleanOptions(iterations=400, negative=negative)
    found = clean(dirty, beam, options, mask if has_mask else None)
    assert found.components is not None
    assert [tuple(c) for c in found.components] == expected
    assert np.array_equal(found.residual, left)


def test_of_equal_peaks_the_first_is_taken() -> None:
    size = 128
    beam = np.zeros((size, size), np.float32)
    beam[64, 64] = 1
    dirty = np.zeros_like(beam)
    peaks = [(3, 100), (40, 2), (40, 120), (99, 63), (99, 64)]
    for y, x in reversed(peaks):
        dirty[y, x] = -1 if x == 120 else 1
    found = clean(dirty, beam, CleanOptions(gain=1, iterations=5))
    assert found.components is not None
    assert [(y, x) for y, x, _ in found.components] == peaks


def test_a_pause_after_every_step_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beam = make_beam(96)
    dirty = seen([(20, 30, 5), (70, 65, -3), (48, 10, 4)], beam)
    options = CleanOptions(iterations=60)
    at_once = clean(dirty, beam, options)
    monkeypatch.setattr(hogbom, "BUDGET", 1)
    told = []
    slowly = clean(dirty, beam, options, progress=lambda n, _: told.append(n))
    assert np.array_equal(slowly.components, at_once.components)
    assert np.array_equal(slowly.residual, at_once.residual)
    assert set(told) == set(range(61))


def test_what_made_the_peaks_rise_is_taken_back() -> None:
    beam = make_beam(64)
    beam[40, 30] = beam[24, 34] = -2.5
    dirty = shift(make_beam(64), 32, 32)
    minor = Hogbom(beam, 0.1, None, True, 2.0)
    found = minor.run(dirty, 1000, 0.0, 0.0, not_told)
    assert found.ended == "diverged"
    model = np.zeros_like(dirty)
    minor.add(model)
    left = minor.left(not_told)
    again, expected = textbook(dirty, beam, 0.1, len(found.flux), True, True)
    assert [f for *_, f in again] == found.flux.tolist()
    assert np.allclose(left, expected, atol=1e-5)
    assert np.abs(left).max() <= np.abs(dirty).max()
    assert model.sum() == pytest.approx(found.flux.sum(), abs=1e-5)
