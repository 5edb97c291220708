"""The same components on a GPU as on a processor core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from clean_fields import make_beam, seen

from muser_pipeline.imaging.clean import Algorithm, Cleaned, CleanOptions, clean
from muser_pipeline.imaging.many import clean_many

SIZE = 256
BEAM = make_beam(SIZE, spacings=1500)
POINTS = [(60, 90, 5.0), (170, 165, -3.0), (128, 40, 4.0), (150, 220, 1.0)]
WAYS: list[dict[str, Any]] = [
    {},
    {"threshold": 0.5},
    {"threshold_sigma": 4.0},
    {"negative": False},
]


def field(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=0.05, size=(SIZE, SIZE))
    return seen(POINTS, BEAM) + noise.astype(np.float32)


def assert_same(on_gpu: Cleaned, on_host: Cleaned) -> None:
    assert on_gpu.iterations == on_host.iterations
    assert on_gpu.stopped_by == on_host.stopped_by
    assert on_gpu.threshold == pytest.approx(on_host.threshold, rel=1e-5)
    assert np.allclose(on_gpu.residual.get(), on_host.residual, atol=1e-4)
    assert np.allclose(on_gpu.model.get(), on_host.model, atol=1e-4)


def assert_alike(on_gpu: Cleaned, on_host: Cleaned) -> None:
    """Transforms are rounded in other ways: of two peaks alike another may be first."""
    assert on_gpu.iterations == pytest.approx(on_host.iterations, abs=3)
    assert on_gpu.stopped_by == on_host.stopped_by
    assert float(on_gpu.residual.std()) == pytest.approx(
        on_host.residual.std(), rel=0.01
    )
    assert float(on_gpu.model.sum()) == pytest.approx(on_host.model.sum(), abs=0.1)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("algorithm", ["hogbom", "clark", "multiscale"])
def test_the_device_does_what_the_host_does(
    cupy: Any, algorithm: Algorithm, has_mask: bool, way: dict[str, Any]
) -> None:
    mask = None
    if has_mask:
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        mask[40:200, 30:200] = True
    options = CleanOptions(algorithm, iterations=300, scales_pixels=(0, 4, 9), **way)
    on_host = clean(field(0), BEAM, options, mask)
    on_gpu = clean(
        cupy.asarray(field(0)),
        cupy.asarray(BEAM),
        options,
        None if mask is None else cupy.asarray(mask),
    )
    if algorithm == "multiscale":
        assert_alike(on_gpu, on_host)
        return
    assert_same(on_gpu, on_host)
    assert np.array_equal(on_gpu.components, on_host.components)
    assert np.array_equal(on_gpu.residual.get(), on_host.residual)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_many_at_once_are_as_each_alone(cupy: Any, way: dict[str, Any]) -> None:
    dirty = np.stack([field(seed) for seed in range(7)] + [0 * BEAM, BEAM])
    options = CleanOptions(iterations=700, **way)
    on_host = clean_many(dirty, BEAM[np.newaxis], options)
    on_gpu = clean_many(cupy.asarray(dirty), cupy.asarray(BEAM[np.newaxis]), options)
    for a, b in zip(on_gpu, on_host, strict=True):
        assert_same(a, b)
        assert np.array_equal(a.components, b.components)


def test_what_made_the_peaks_rise_is_taken_back(cupy: Any) -> None:
    beam = BEAM.copy()
    beam[140, 120] = beam[116, 136] = -2.5
    on_host = clean(field(0), beam, CleanOptions())
    on_gpu = clean(cupy.asarray(field(0)), cupy.asarray(beam), CleanOptions())
    assert on_gpu.stopped_by == "diverged"
    assert_same(on_gpu, on_host)


def test_progress_is_told_and_may_stop_it(cupy: Any) -> None:
    class EnoughError(Exception):
        """It is enough."""

    def stop(done: int, most: int) -> None:
        assert most == 100_000
        if done >= 500:
            raise EnoughError

    with pytest.raises(EnoughError):
        clean(
            cupy.asarray(field(0)),
            cupy.asarray(BEAM),
            CleanOptions(iterations=100_000),
            progress=stop,
        )
