"""Images and predictions against sums in float64 that know nothing of grids."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from field_tools import LIGHT, channels, direct, muser_uvw, phases, sky
from numpy.typing import NDArray

from muser_pipeline.imaging import gridding
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder

DEGREE = Grid(512, float(np.radians(1.0)) / 512)
HZ = channels()


def places(grid: Grid, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Return rows and columns: near the corners, at the centre, and at random."""
    edge = grid.size - 3
    corners = [(3, 3), (3, edge), (edge, 3), (edge, edge)]
    inner = rng.integers(0, grid.size, (count, 2)).tolist()
    return [*corners, (grid.size // 2, grid.size // 2), *map(tuple, inner)]


def scene(
    gridder: Gridder, uvw: NDArray[np.float64], hz: NDArray[np.float64]
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Return visibilities of points, the brightest in a corner, and some weights."""
    rng = np.random.default_rng(5)
    east, north = gridder.grid.coordinates()
    sources = [
        (3.0 if n == 0 else rng.uniform(0.1, 1.0), east[x], north[y])
        for n, (y, x) in enumerate(places(gridder.grid, rng, 6))
    ]
    values = sky(uvw, hz, sources, gridder.plane)
    return values, rng.uniform(0.5, 2.0, values.shape).astype(np.float32)


def error_of(
    gridder: Gridder,
    uvw: NDArray[np.float64],
    hz: NDArray[np.float64],
    count: int = 25,
) -> float:
    """Return the largest error of an image relative to its peak, at some pixels."""
    values, weights = scene(gridder, uvw, hz)
    image = gridder.image(values, weights)
    assert image.dtype == np.float32
    east, north = gridder.grid.coordinates()
    rng = np.random.default_rng(6)
    errors = [
        abs(
            image[y, x]
            - direct(uvw, hz, values, weights, east[x], north[y], gridder.plane)
        )
        for y, x in places(gridder.grid, rng, count)
    ]
    return max(errors) / float(np.max(np.abs(image)))


def test_snapshot_takes_a_plane_and_is_exact_at_the_true_directions() -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE)
    assert gridder.plane is not None
    assert 1 < gridder.terms <= 4
    assert error_of(gridder, uvw, HZ) < 1e-5


def test_stack_is_exact_in_plain_coordinates() -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE, w="stack")
    assert gridder.plane is None
    assert error_of(gridder, uvw, HZ) < 1e-5


def test_leaving_w_out_costs_a_few_percent() -> None:
    uvw = muser_uvw()
    assert error_of(Gridder(uvw, HZ, DEGREE, w="none"), uvw, HZ) > 0.02


def test_a_plane_alone_is_better_than_nothing_and_worse_than_with_terms() -> None:
    uvw = muser_uvw()
    alone = Gridder(uvw, HZ, DEGREE, w="plane", epsilon=0.5)
    assert alone.terms == 1
    assert 1e-4 < error_of(alone, uvw, HZ) < 5e-3


def test_accuracy_is_what_is_asked_for_and_costs_terms() -> None:
    uvw = muser_uvw()
    rough = Gridder(uvw, HZ, DEGREE, epsilon=1e-4)
    fine = Gridder(uvw, HZ, DEGREE, epsilon=1e-6)
    assert rough.terms < fine.terms
    assert error_of(rough, uvw, HZ) < 1e-4


def test_a_long_track_is_stacked_and_as_exact() -> None:
    uvw = muser_uvw(-45.0, 7, 3600.0)[::11]
    gridder = Gridder(uvw, HZ, DEGREE)
    assert gridder.plane is None
    assert gridder.terms == 0
    assert error_of(gridder, uvw, HZ) < 1e-5
    with pytest.raises(ImagingError, match="from a plane") as raised:
        Gridder(uvw, HZ, DEGREE, w="plane")
    assert raised.value.reason == "w"


def test_minutes_of_a_track_are_near_enough_to_a_plane() -> None:
    assert Gridder(muser_uvw(0.0, 2, 60.0), HZ, DEGREE).plane is not None


def test_a_small_field_needs_neither_plane_nor_stack() -> None:
    uvw = muser_uvw() * 5000
    grid = Grid(128, 1e-7 / 128)
    gridder = Gridder(uvw, HZ, grid)
    assert gridder.plane is None
    assert gridder.terms == 1
    assert error_of(gridder, uvw, HZ) < 1e-5


def test_east_is_to_the_left_and_north_is_up() -> None:
    uvw = muser_uvw()
    east, north = DEGREE.coordinates()
    values = sky(uvw, HZ, [(2.0, east[100], north[300])])
    gridder = Gridder(uvw, HZ, DEGREE, w="stack")
    image = gridder.image(values, np.ones(values.shape, np.float32))
    assert np.unravel_index(np.argmax(image), image.shape) == (300, 100)
    assert east[100] > 0 and north[300] > 0
    assert image[300, 100] == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("w", ["plane", "stack", "none"])
def test_beam_is_one_at_its_centre(w: Any) -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE, w=w)
    beam = gridder.beam(np.ones((len(uvw), 16), np.float32))
    assert beam[256, 256] == pytest.approx(1.0, abs=1e-5)
    assert np.max(np.abs(beam)) == beam[256, 256]


def test_beam_is_the_same_everywhere_in_slanted_coordinates_alone() -> None:
    uvw = muser_uvw()
    east, north = DEGREE.coordinates()

    def change(w: Any) -> float:
        """Return by how much a point looks different in a corner."""
        gridder = Gridder(uvw, HZ, DEGREE, w=w)
        weights = np.ones((len(uvw), 16), np.float32)
        point = sky(uvw, HZ, [(1.0, east[100], north[100])], gridder.plane)
        seen = gridder.image(point, weights)[10:191, 10:191]
        beam = gridder.beam(weights)[166:347, 166:347]
        return float(np.max(np.abs(seen - beam)))

    assert change("plane") < 5e-4
    assert change("stack") > 5e-3


@pytest.mark.parametrize("w", ["plane", "stack", "none"])
def test_predict_is_the_adjoint_of_image(w: Any) -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE, w=w)
    rng = np.random.default_rng(7)
    model = rng.normal(size=(512, 512)).astype(np.float32)
    shape = (len(uvw), 16)
    values = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    weights = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    image = gridder.image(values, weights).astype(float)
    there = np.vdot(weights * values, gridder.predict(model)).real
    back = np.sum(weights.astype(float)) * np.sum(model * image)
    size = np.linalg.norm(weights * values) * np.linalg.norm(gridder.predict(model))
    assert abs(there - back) < 1e-5 * size


@pytest.mark.parametrize("w", ["plane", "stack"])
def test_prediction_is_the_sum_over_the_true_directions(w: Any) -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE, w=w, epsilon=1e-6)
    east, north = DEGREE.coordinates()
    model = np.zeros((512, 512), np.float32)
    model[10, 500], model[500, 20], model[256, 256] = 1.0, 2.0, 0.5
    truth = sky(
        uvw,
        HZ,
        [
            (1.0, east[500], north[10]),
            (2.0, east[20], north[500]),
            (0.5, 0.0, 0.0),
        ],
        gridder.plane,
    )
    np.testing.assert_allclose(gridder.predict(model), truth, atol=3.5e-5)


def test_what_has_no_weight_is_as_if_it_were_not_there() -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE)
    values, weights = scene(gridder, uvw, HZ)
    weights[::3] = 0
    values[::3] = 1e6
    kept = np.arange(len(uvw)) % 3 != 0
    fewer = Gridder(uvw[kept], HZ, DEGREE, w="stack")
    stacked = Gridder(uvw, HZ, DEGREE, w="stack").image(values, weights)
    np.testing.assert_allclose(
        stacked, fewer.image(values[kept], weights[kept]), atol=1e-5
    )


def test_channels_together_are_the_mean_of_the_channels() -> None:
    uvw = muser_uvw()[::7]
    grid = Grid(128, DEGREE.cell_rad)
    whole = Gridder(uvw, HZ, grid, w="stack")
    values, weights = scene(whole, uvw, HZ)
    total = np.zeros((128, 128))
    for n in range(16):
        one = Gridder(uvw, HZ[n : n + 1], grid, w="stack")
        image = one.image(values[:, n : n + 1], weights[:, n : n + 1])
        total += image * np.sum(weights[:, n], dtype=float)
    mean = total / np.sum(weights, dtype=float)
    np.testing.assert_allclose(whole.image(values, weights), mean, atol=2e-5)


def test_nothing_to_image_is_said() -> None:
    uvw = muser_uvw()
    gridder = Gridder(uvw, HZ, DEGREE)
    with pytest.raises(ImagingError) as raised:
        gridder.beam(np.zeros((len(uvw), 16), np.float32))
    assert raised.value.reason == "flagged"


def test_unknown_ways_are_turned_down() -> None:
    uvw = muser_uvw()
    with pytest.raises(ImagingError, match="'some'"):
        Gridder(uvw, HZ, DEGREE, w="some")  # type: ignore[arg-type]
    with pytest.raises(ImagingError, match="'tpu'"):
        Gridder(uvw, HZ, DEGREE, device="tpu")  # type: ignore[arg-type]


class SlowPlan:
    """What cufinufft's plans do, by the formula in its manual."""

    def __init__(
        self,
        nufft_type: int,
        n_modes: tuple[int, int],
        n_trans: int,
        eps: float,
        isign: int,
        dtype: str,
    ) -> None:
        assert dtype == "complex64"
        assert 1e-7 < eps < 1
        self._type, self._count, self._sign = nufft_type, n_trans, isign
        self._modes = [np.arange(size) - size // 2 for size in n_modes]

    def setpts(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        for points, modes in zip((x, y), self._modes, strict=True):
            assert points.dtype == np.float32
            assert np.max(np.abs(points)) < 3.2
            assert modes.size
        self._x, self._y = (
            np.exp(1j * self._sign * np.multiply.outer(points.astype(float), modes))
            for points, modes in zip((x, y), self._modes, strict=True)
        )

    def execute(self, data: NDArray[np.complex64]) -> NDArray[np.complex64]:
        assert data.dtype == np.complex64
        assert len(data) == self._count
        if self._type == 1:
            assert data.shape == (self._count, len(self._x))
            result = np.einsum("kj,ja,jb->kab", data, self._x, self._y, optimize=True)
        else:
            assert data.shape[1:] == tuple(map(len, self._modes))
            result = np.einsum("kab,ja,jb->kj", data, self._x, self._y, optimize=True)
        return result.astype(np.complex64)


@pytest.fixture
def _a_slow_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cufinufft", SimpleNamespace(Plan=SlowPlan))  # type: ignore[arg-type]
    monkeypatch.setattr(gridding, "library_of", lambda device: np)


@pytest.mark.usefixtures("_a_slow_gpu")
@pytest.mark.parametrize("w", ["auto", "stack"])
def test_what_surrounds_the_transform_on_a_gpu_is_exact(w: Any) -> None:
    uvw = muser_uvw()[::5]
    hz = HZ[:2]
    grid = Grid(32, float(np.radians(1.0)) / 32)
    gridder = Gridder(uvw, hz, grid, w=w, epsilon=1e-6, device="cuda")
    assert (gridder.plane is None) == (w == "stack")
    assert error_of(gridder, uvw, hz, 200) < 1e-5
    east, north = grid.coordinates()
    model = np.zeros((32, 32), np.float32)
    model[30, 2] = 1.0
    truth = phases(uvw, hz, east[2], north[30], gridder.plane)
    np.testing.assert_allclose(gridder.predict(model), truth, atol=1e-5)


@pytest.mark.usefixtures("_a_slow_gpu")
def test_w_that_is_too_large_for_a_gpu_is_said() -> None:
    uvw = muser_uvw(-45.0, 7, 3600.0)[::11] * 30
    with pytest.raises(ImagingError, match="on a GPU"):
        Gridder(uvw, HZ, Grid(32, float(np.radians(5.0)) / 32), device="cuda")


def test_speed_of_light() -> None:
    uvw = np.array([[LIGHT, 0.0, 0.0]] * 2)
    gridder = Gridder(uvw, np.array([10.0]), Grid(32, 0.001))
    model = np.zeros((32, 32), np.float32)
    model[16, 16 - 5] = 1.0
    expected = np.exp(2j * np.pi * 10 * 0.005)
    assert gridder.predict(model)[0, 0] == pytest.approx(expected, abs=1e-5)
