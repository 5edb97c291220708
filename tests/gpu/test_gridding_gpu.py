"""Images and predictions on a GPU, against sums in float64 and against the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from field_tools import channels, direct, muser_uvw, sky
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import namespace_of, to_host
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.restoring import fit_beam, restore

GRID = Grid(512, float(np.radians(1.0)) / 512)
HZ = channels()
UVW = muser_uvw()
TRACK = muser_uvw(-45.0, 7, 3600.0)[::11]


def field(
    uvw: NDArray[np.float64], gridder: Gridder
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    rng = np.random.default_rng(9)
    east, north = GRID.coordinates()
    sources = [(3.0, east[5], north[500]), (1.0, east[300], north[260])]
    values = sky(uvw, HZ, sources, gridder.plane)
    return values, rng.uniform(0.5, 2.0, values.shape).astype(np.float32)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-6])
@pytest.mark.parametrize(
    ("uvw", "w"), [(UVW, "plane"), (UVW, "stack"), (TRACK, "auto")], ids=str
)
def test_images_are_exact(
    cupy: Any, uvw: NDArray[np.float64], w: Any, epsilon: float
) -> None:
    gridder = Gridder(uvw, HZ, GRID, w=w, epsilon=epsilon, device="cuda")
    values, weights = field(uvw, gridder)
    image = gridder.image(values, weights)
    assert namespace_of(image) is cupy
    assert image.dtype == np.float32
    found = to_host(image)
    east, north = GRID.coordinates()
    rng = np.random.default_rng(10)
    for y, x in [(500, 5), (260, 300), *rng.integers(3, 509, (20, 2)).tolist()]:
        truth = direct(uvw, HZ, values, weights, east[x], north[y], gridder.plane)
        assert abs(found[y, x] - truth) < max(epsilon, 1e-5) * found.max()


@pytest.mark.parametrize("w", ["plane", "none"])
def test_the_device_does_what_the_host_does(cupy: Any, w: Any) -> None:
    there = Gridder(UVW, HZ, GRID, w=w, device="cuda")
    here = Gridder(UVW, HZ, GRID, w=w)
    values, weights = field(UVW, here)
    on_device = cupy.asarray(values), cupy.asarray(weights)
    image = here.image(values, weights)
    scale = float(image.max())
    np.testing.assert_allclose(
        to_host(there.image(*on_device)), image, atol=1e-5 * scale
    )
    beam = there.beam(on_device[1])
    np.testing.assert_allclose(to_host(beam), here.beam(weights), atol=1e-5)
    model = np.zeros((512, 512), np.float32)
    model[100, 200], model[400, 300] = 1.0, 2.0
    # places in single precision: 256 pixels times 2^-23 of a turn
    predicted = to_host(there.predict(cupy.asarray(model)))
    np.testing.assert_allclose(predicted, here.predict(model), atol=4e-4)


def test_prediction_is_the_adjoint(cupy: Any) -> None:
    gridder = Gridder(UVW, HZ, GRID, device="cuda")
    rng = np.random.default_rng(7)
    model = rng.normal(size=(512, 512)).astype(np.float32)
    shape = (len(UVW), 16)
    values = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    weights = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    image = to_host(gridder.image(values, weights)).astype(float)
    predicted = to_host(gridder.predict(model))
    there = np.vdot(weights * values, predicted).real
    back = np.sum(weights.astype(float)) * np.sum(model * image)
    size = np.linalg.norm(weights * values) * np.linalg.norm(predicted)
    assert abs(there - back) < 1e-5 * size


def test_restored_on_the_device(cupy: Any) -> None:
    gridder = Gridder(UVW, HZ, GRID, device="cuda")
    weights = np.ones((len(UVW), 16), np.float32)
    beam = fit_beam(gridder.beam(weights), GRID.cell_rad)
    model = np.zeros((512, 512), np.float32)
    model[100, 200], model[400, 300] = 1.0, -2.0
    residual = np.full((512, 512), 0.1, np.float32)
    on_device = restore(cupy.asarray(model), cupy.asarray(residual), beam, GRID)
    assert namespace_of(on_device) is cupy
    np.testing.assert_allclose(
        to_host(on_device), restore(model, residual, beam, GRID), atol=1e-5
    )
