"""Weights against loops over cells, and the limits that are known."""

from __future__ import annotations

from collections import defaultdict
from math import exp, log, pi
from typing import Literal

import numpy as np
import pytest
from field_tools import LIGHT, channels, muser_uvw
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.restoring import fit_beam
from muser_pipeline.imaging.weighting import Weighting, weigh

GRID = Grid(640, float(np.radians(1.2)) / 640)
HZ = channels(0.8e9)
Scheme = Literal["natural", "uniform", "briggs"]


def some_weights(rows: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.1, 3.0, (rows, 16)).astype(np.float32)
    weights[rng.random((rows, 16)) < 0.1] = 0
    return weights


def by_hand(
    uvw: NDArray[np.float64],
    weights: NDArray[np.float32],
    grid: Grid,
    scheme: Scheme,
    robust: float,
    taper_rad: float,
) -> NDArray[np.float64]:
    """Return the weights cell by cell and visibility by visibility."""
    cells: dict[tuple[int, int], float] = defaultdict(float)
    found: dict[tuple[int, int], tuple[int, int]] = {}
    uv: dict[tuple[int, int], tuple[float, float]] = {}
    for row in range(len(uvw)):
        for channel, hz in enumerate(HZ):
            u, v = (float(x) * hz / LIGHT for x in uvw[row, :2])
            cell = (
                round(u * grid.size * grid.cell_rad),
                round(v * grid.size * grid.cell_rad),
            )
            if max(map(abs, cell)) < grid.size / 2:
                weight = float(weights[row, channel])
                cells[cell] += weight
                cells[-cell[0], -cell[1]] += weight
                found[row, channel], uv[row, channel] = cell, (u, v)
    total = sum(cells.values())
    f2 = (5 * 10**-robust) ** 2 * total / sum(each**2 for each in cells.values())
    out = np.zeros(weights.shape)
    for at, cell in found.items():
        weight = float(weights[at])
        if not weight:
            continue
        if scheme == "uniform":
            weight /= cells[cell]
        elif scheme == "briggs":
            weight /= 1 + cells[cell] * f2
        u, v = uv[at]
        sigma = 2 * log(2) / (pi * taper_rad) ** 2 if taper_rad else 0.0
        out[at] = weight * (exp(-(u * u + v * v) / (2 * sigma)) if sigma else 1.0)
    return out


@pytest.mark.parametrize("taper_rad", [0.0, 3e-4])
@pytest.mark.parametrize(
    ("scheme", "robust"),
    [("natural", 0.0), ("uniform", 0.0), ("briggs", 0.5), ("briggs", -1.0)],
)
def test_weights_are_those_of_the_definition(
    scheme: Scheme, robust: float, taper_rad: float
) -> None:
    uvw = muser_uvw()[::10]
    weights = some_weights(len(uvw))
    found = weigh(uvw, HZ, weights, GRID, Weighting(scheme, robust), taper_rad)
    assert found.dtype == np.float32
    truth = by_hand(uvw, weights, GRID, scheme, robust, taper_rad)
    assert np.count_nonzero(truth) > 1000
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("robust", "scheme"), [(2.0, "natural"), (-2.0, "uniform"), (-5.0, "uniform")]
)
def test_briggs_ends_in_natural_and_uniform(robust: float, scheme: Scheme) -> None:
    uvw = muser_uvw()
    weights = np.ones((len(uvw), 16), np.float32)
    near = weigh(uvw, HZ, weights, GRID, Weighting("briggs", robust)).astype(float)
    limit = weigh(uvw, HZ, weights, GRID, Weighting(scheme)).astype(float)
    ratio = near / limit
    spread = np.std(ratio) / np.mean(ratio)
    assert spread < {2.0: 0.03, -2.0: 0.03, -5.0: 1e-6}[robust]


def test_all_cells_count_alike_when_uniform() -> None:
    uvw = muser_uvw()
    weights = some_weights(len(uvw))
    uniform = weigh(uvw, HZ, weights, GRID, Weighting("uniform"))
    cells = np.rint(
        uvw[:, np.newaxis, :2] * (HZ / LIGHT)[:, np.newaxis] * GRID.extent_rad
    )
    used = weights > 0
    both = np.concatenate([cells[used], -cells[used]])
    _, number = np.unique(both, axis=0, return_inverse=True)
    sums = np.bincount(number.ravel(), np.tile(uniform[used], 2))
    assert len(sums) > 1000
    np.testing.assert_allclose(sums, 1.0, rtol=1e-5)


def test_uniform_is_sharper_than_briggs_and_that_than_natural() -> None:
    uvw = muser_uvw()
    weights = np.ones((len(uvw), 16), np.float32)
    gridder = Gridder(uvw, HZ, Grid(256, 2e-5), epsilon=1e-4)
    sizes = []
    for weighting in (Weighting("uniform"), Weighting("briggs", 0.0), Weighting()):
        chosen = weigh(uvw, HZ, weights, GRID, weighting)
        sizes.append(fit_beam(gridder.beam(chosen), 2e-5).solid_angle)
    assert sizes[0] < 0.96 * sizes[1] < 0.5 * sizes[2]


def test_a_taper_widens_the_beam_as_a_convolution_does() -> None:
    uvw = muser_uvw()
    weights = np.ones((len(uvw), 16), np.float32)
    gridder = Gridder(uvw, HZ, Grid(256, 2e-4), epsilon=1e-4)
    taper_rad = 40 * 2e-4
    tapered = weigh(uvw, HZ, weights, GRID, Weighting("uniform"), taper_rad)
    beam = fit_beam(gridder.beam(tapered), 2e-4)
    assert beam.minor_rad == pytest.approx(taper_rad, rel=0.2)


def test_baselines_beyond_the_grid_have_no_weight() -> None:
    uvw = muser_uvw()
    weights = np.ones((len(uvw), 16), np.float32)
    coarse = Grid(64, 3e-4)
    found = weigh(uvw, HZ, weights, coarse)
    longest = np.max(np.abs(uvw[:, :2]), axis=1)[:, np.newaxis] * HZ / LIGHT
    assert (found[longest > 1.05 / (2 * coarse.cell_rad)] == 0).all()
    assert (found[longest < 0.95 / (2 * coarse.cell_rad)] == 1).all()
    with pytest.raises(ImagingError, match="too long") as raised:
        weigh(uvw + 3e4, HZ, weights, coarse)
    assert raised.value.reason == "grid"


def test_no_weight_at_all_is_said() -> None:
    uvw = muser_uvw()
    with pytest.raises(ImagingError) as raised:
        weigh(uvw, HZ, np.zeros((len(uvw), 16), np.float32), GRID)
    assert raised.value.reason == "flagged"


def test_unknown_schemes_are_turned_down() -> None:
    with pytest.raises(ImagingError, match="'super'"):
        Weighting("super")  # type: ignore[arg-type]
    with pytest.raises(ImagingError, match="from -5 to 5"):
        Weighting("briggs", float("nan"))
