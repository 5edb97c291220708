from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from clean_fields import make_beam, seen, shift

from muser_pipeline.imaging.clean import Algorithm, CleanOptions, clean
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.many import clean_many

SIZE = 96
BEAM = make_beam(SIZE)
POINTS = [(20, 30, 5.0), (70, 65, -3.0), (48, 10, 4.0), (50, 80, 1.0)]
DIRTY = seen(POINTS, BEAM)
ALL: list[Algorithm] = ["hogbom", "clark", "multiscale"]


def options_of(algorithm: Algorithm, **others: Any) -> CleanOptions:
    return CleanOptions(algorithm, scales_pixels=(0, 4), **others)


def noisy(sigma: float) -> Any:
    rng = np.random.default_rng(5)
    return DIRTY + rng.normal(scale=sigma, size=DIRTY.shape).astype(np.float32)


@pytest.mark.parametrize("algorithm", ALL)
def test_points_are_found_where_they_are(algorithm: Algorithm) -> None:
    found = clean(DIRTY, BEAM, options_of(algorithm, iterations=2000, threshold=0.02))
    assert found.stopped_by == "threshold"
    assert found.threshold == 0.02
    assert found.model.dtype == found.residual.dtype == np.float32
    for y, x, flux in POINTS:
        assert found.model[y, x] == pytest.approx(flux, abs=0.1)
    assert found.model.sum() == pytest.approx(7, abs=0.2)


def test_the_flux_of_a_window_is_what_is_in_it() -> None:
    rng = np.random.default_rng(8)
    window = (slice(40, 50), slice(40, 50))
    points = [(*rng.integers(40, 50, size=2), float(f)) for f in rng.random(9)]
    dirty = seen([*points, (10, 80, 3.0)], BEAM)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[window] = mask[10, 80] = True
    found = clean(dirty, BEAM, CleanOptions(iterations=5000, threshold=0.002), mask)
    assert found.model[window].sum() == pytest.approx(
        sum(f for *_, f in points), rel=0.01
    )
    assert not found.model[~mask].any()


@pytest.mark.parametrize("algorithm", ALL)
def test_so_many_components_are_enough(algorithm: Algorithm) -> None:
    found = clean(DIRTY, BEAM, options_of(algorithm, iterations=17))
    assert found.stopped_by == "iterations"
    assert found.iterations == 17
    assert found.components is None or len(found.components) == 17


@pytest.mark.parametrize("algorithm", ALL)
def test_it_stops_at_the_noise(algorithm: Algorithm) -> None:
    options = options_of(algorithm, iterations=5000, threshold_sigma=5.0)
    found = clean(noisy(0.05), BEAM, options)
    assert found.stopped_by == "sigma"
    assert found.threshold == pytest.approx(0.25, rel=0.1)
    assert np.abs(found.residual).max() == pytest.approx(0.25, rel=0.12)


def test_a_residual_is_through_the_visibilities_where_they_are_given() -> None:
    """The beam that the minor cycles know is wrong by a tenth."""
    rough = BEAM * np.float32(0.9)
    rough[SIZE // 2, SIZE // 2] = 1
    asked = []

    def residual_of(model: Any) -> Any:
        asked.append(model.sum())
        at = np.argwhere(model)
        return DIRTY - seen([(y, x, model[y, x]) for y, x in at], BEAM)

    for algorithm in ALL:
        asked.clear()
        options = options_of(algorithm, iterations=3000, threshold=0.05, cycles=30)
        found = clean(DIRTY, rough, options, residual_of=residual_of)
        assert found.stopped_by == "threshold"
        assert found.cycles == len(asked) > 1
        assert np.abs(found.residual).max() <= 0.05
        assert found.model.sum() == pytest.approx(7, abs=0.3)
        assert np.allclose(found.residual, residual_of(found.model))


def test_major_cycles_can_be_used_up() -> None:
    options = CleanOptions(iterations=5000, cycles=2)
    found = clean(DIRTY, BEAM, options, residual_of=lambda _: DIRTY)
    assert found.stopped_by == "cycles"
    assert found.cycles == 2


@pytest.mark.parametrize("worse", [3.0, np.nan])
def test_a_major_cycle_that_makes_it_worse_is_taken_back(worse: float) -> None:
    answers = iter([DIRTY * np.float32(0.3), DIRTY * np.float32(worse)])
    found = clean(DIRTY, BEAM, CleanOptions(), residual_of=lambda _: next(answers))
    assert found.stopped_by == "diverged"
    assert found.cycles == 1
    assert np.array_equal(found.residual, DIRTY * np.float32(0.3))
    assert found.components is not None
    assert found.iterations == len(found.components)
    assert found.model.sum() == pytest.approx(found.components[:, 2].sum(), rel=1e-4)


def test_a_first_major_cycle_that_makes_it_worse_leaves_nothing() -> None:
    found = clean(DIRTY, BEAM, CleanOptions(), residual_of=lambda _: 3 * DIRTY)
    assert (found.stopped_by, found.iterations, found.cycles) == ("diverged", 0, 0)
    assert np.array_equal(found.residual, DIRTY)
    assert not found.model.any()


@pytest.mark.parametrize("algorithm", ALL)
def test_nothing_is_found_in_nothing(algorithm: Algorithm) -> None:
    found = clean(np.zeros_like(DIRTY), BEAM, options_of(algorithm))
    assert (found.stopped_by, found.iterations) == ("empty", 0)
    nowhere = np.zeros(DIRTY.shape, dtype=bool)
    found = clean(DIRTY, BEAM, options_of(algorithm), nowhere)
    assert (found.stopped_by, found.iterations) == ("empty", 0)
    assert np.array_equal(found.residual, DIRTY)


@pytest.mark.parametrize("algorithm", ALL)
def test_arrays_may_lie_in_memory_as_they_like(algorithm: Algorithm) -> None:
    """Files are big-endian, and what is turned is not contiguous."""
    mask = np.zeros(DIRTY.shape, dtype=np.int64)
    mask[10:60] = 1
    options = options_of(algorithm, iterations=30)
    expected = clean(DIRTY, BEAM, options, mask.astype(bool))
    turned = [np.asfortranarray(each) for each in (DIRTY, BEAM, mask)]
    found = clean(turned[0].astype(">f8"), turned[1], options, turned[2])
    assert np.array_equal(found.model, expected.model)
    assert np.array_equal(found.residual, expected.residual)


def test_none_leaves_the_image_as_it_is() -> None:
    found = clean(DIRTY, BEAM, CleanOptions("none"))
    assert found.iterations == found.cycles == 0
    assert not found.model.any()
    assert np.array_equal(found.residual, DIRTY)


@pytest.mark.parametrize("algorithm", ALL)
def test_what_progress_raises_comes_out(algorithm: Algorithm) -> None:
    class EnoughError(Exception):
        """It is enough."""

    def stop(done: int, most: int) -> None:
        assert most == 40
        if done:
            raise EnoughError

    before = DIRTY.copy()
    with pytest.raises(EnoughError):
        clean(DIRTY, BEAM, options_of(algorithm, iterations=40), progress=stop)
    assert np.array_equal(DIRTY, before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_turned_down(value: float) -> None:
    bad = DIRTY.copy()
    bad[3, 4] = value
    with pytest.raises(ImagingError, match="the image has values") as caught:
        clean(bad, BEAM, CleanOptions())
    assert caught.value.reason == "not-finite"
    with pytest.raises(ImagingError, match="the beam has values"):
        clean(DIRTY, bad, CleanOptions())


def test_shapes_must_fit() -> None:
    for dirty, beam, mask in [
        (DIRTY[:-2], BEAM, None),
        (DIRTY[:95, :95], BEAM[:95, :95], None),
        (DIRTY, BEAM[:64, :64], None),
        (DIRTY, BEAM, np.ones((3, 3), dtype=bool)),
    ]:
        with pytest.raises(ImagingError) as caught:
            clean(dirty, beam, CleanOptions(), mask)
        assert caught.value.reason == "shape"


def test_a_beam_is_one_in_its_centre() -> None:
    with pytest.raises(ImagingError, match="not 0.5") as caught:
        clean(DIRTY, BEAM / 2, CleanOptions())
    assert caught.value.reason == "beam"
    with pytest.raises(ImagingError):
        clean(DIRTY, shift(BEAM, 47, 48), CleanOptions())


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "maximum entropy"},
        {"gain": 0.0},
        {"gain": 1.5},
        {"iterations": -1},
        {"threshold": -1.0},
        {"threshold": np.nan},
        {"threshold_sigma": -1.0},
        {"scales_pixels": ()},
        {"scales_pixels": (0, -3)},
        {"scale_bias": 0.0},
        {"cycle_fraction": 1.0},
        {"cycles": 0},
        {"divergence": -1.0},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_turned_down(wrong: dict[str, Any]) -> None:
    with pytest.raises(ImagingError, match="CLEAN wants") as caught:
        CleanOptions(**wrong)
    assert caught.value.reason == "options"


def test_many_are_cleaned_as_each_is() -> None:
    dirty = np.stack([DIRTY, -DIRTY, noisy(0.1)])
    options = CleanOptions(iterations=50)
    for beams in (BEAM[np.newaxis], np.stack([BEAM] * 3)):
        found = clean_many(dirty, beams, options)
        for image, one in zip(dirty, found, strict=True):
            alone = clean(image, BEAM, options)
            assert np.array_equal(one.components, alone.components)
    with pytest.raises(ImagingError, match="3 images, 2 beams"):
        clean_many(dirty, np.stack([BEAM] * 2), options)
