"""Phases that nobody knows are found in turns with the image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import j0

from muser_pipeline.imaging.clean import CleanOptions
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.hybrid import HybridOptions, find_phases
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.pipeline import make_image
from muser_pipeline.imaging.visibilities import Snapshot

UAS = np.pi / 180 / 3600e6
RING_UAS = 42.0
SPOT_JY, SPOT_UAS = 0.2, (5.0, -20.0)
"""East and north: the south of the ring is brighter."""
OPTIONS = HybridOptions(window_rad=64 * UAS, cycles=15)


def snapshot() -> Snapshot:
    """Return a ring with a spot, seen by nine antennas for hours."""
    rng = np.random.default_rng(3)
    places = rng.normal(size=(9, 3)) * 3.3e6
    first, second = np.triu_indices(9, k=1)
    turns = np.repeat(np.linspace(0, np.pi, 20, endpoint=False), len(first))
    x, y, z = np.tile((places[first] - places[second]).T, 20)
    u = np.cos(turns) * x - np.sin(turns) * y
    v = np.sin(turns) * x + np.cos(turns) * y
    per_m = 230e9 / 299_792_458.0
    lengths = np.hypot(u, v) * per_m
    seen = 0.5 * j0(np.pi * RING_UAS * UAS * lengths).astype(complex)
    cycles = (u * SPOT_UAS[0] + v * SPOT_UAS[1]) * UAS * per_m
    seen += SPOT_JY * np.exp(2j * np.pi * cycles)
    noise = rng.normal(size=(2, len(u))) * 0.005
    data = (seen + noise[0] + 1j * noise[1]).astype(np.complex64)
    shape = (1, len(u), 1)
    return Snapshot(
        uvw_m=np.stack([u, v, 0 * z], axis=1),
        frequency_hz=np.array([230e9]),
        data=data.reshape(shape),
        weights=np.full(shape, 4e4, dtype=np.float32),
        polarizations=("I",),
        antenna1=np.tile(first, 20),
        antenna2=np.tile(second, 20),
        time_utc_ns=(turns * 1e4).astype(np.int64) * 10**9,
        ra_rad=3.2,
        dec_rad=0.2,
    )


def without_phases(known: Snapshot) -> Snapshot:
    """Return it with phases of antennas that are others at each time."""
    rng = np.random.default_rng(4)
    _, when = np.unique(known.time_utc_ns, return_inverse=True)
    phases = rng.uniform(0, 2 * np.pi, (when.max() + 1, 9))
    turn = phases[when, known.antenna1] - phases[when, known.antenna2]
    factor = np.exp(1j * turn).astype(np.complex64)
    return known.replace(data=known.data * factor[np.newaxis, :, np.newaxis])


def ring_of(seen: Snapshot) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean brightness against the radius, and against the angle."""
    image = make_image(
        seen,
        ImageOptions(
            size=128,
            cell_rad=2 * UAS,
            weighting="uniform",
            clean=CleanOptions(gain=0.05, iterations=600),
            window_rad=OPTIONS.window_rad,
        ),
    ).best
    y, x = (np.indices(image.shape) - 64) * 2.0
    # only what is seen of it says where the source is
    inside = np.where(np.hypot(x, y) < 40, image, 0.0)
    share = SPOT_JY / (0.5 + SPOT_JY)
    x -= (inside * x).sum() / inside.sum() + share * SPOT_UAS[0]
    y -= (inside * y).sum() / inside.sum() - share * SPOT_UAS[1]
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(-x, y)) % 360
    rings = [image[np.abs(radius - r) < 2].mean() for r in range(0, 60, 4)]
    near = np.abs(radius - RING_UAS / 2) < 6
    sectors = [image[near & (angle // 90 == n)].mean() for n in range(4)]
    return np.array(rings), np.array(sectors)


def test_a_ring_is_found_although_no_phase_is_known() -> None:
    spoilt = without_phases(snapshot())
    rings, sectors = ring_of(find_phases(spoilt, "I", OPTIONS).snapshot)
    assert 16 <= 4 * int(np.argmax(rings)) <= 24
    assert rings[0] < 0.5 * rings.max()
    assert abs(rings[11:]).max() < 0.15 * rings.max()
    # north-east, south-east, south-west, north-west
    assert min(sectors[1:3]) > 1.2 * max(sectors[0], sectors[3])
    # and that is what the phases are for
    blind, _ = ring_of(spoilt)
    assert blind.max() < 0.5 * rings.max()


def test_phases_that_are_known_are_not_spoilt() -> None:
    right, _ = ring_of(snapshot())
    found, _ = ring_of(find_phases(snapshot(), "I", OPTIONS).snapshot)
    assert np.abs(found - right).max() < 0.3 * right.max(), found - right
    assert np.argmax(found) == np.argmax(right)


def test_weights_say_what_is_not_known() -> None:
    steps: list[tuple[str, int, int]] = []
    short = HybridOptions(
        OPTIONS.window_rad, cycles=2, systematic=0.2, shortest_wavelengths=1e9
    )
    known = snapshot()
    found = find_phases(known, "I", short, lambda *step: steps.append(step)).snapshot
    assert steps == [("phases", 0, 2), ("phases", 1, 2)]
    lengths = np.hypot(*known.uvw_m[:, :2].T) * 230e9 / 299_792_458.0
    used = found.weights[0, :, 0] > 0
    assert np.array_equal(used, lengths >= 1e9)
    squares = np.abs(known.data[0, used, 0]) ** 2
    variance = 1 / 4e4 + 0.2**2 * (squares + np.median(squares))
    np.testing.assert_allclose(found.weights[0, used, 0], 1 / variance, rtol=1e-4)
    # phases alone change
    np.testing.assert_allclose(
        np.abs(found.data[0, used]), np.abs(known.data[0, used]), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"window_rad": -1.0}, "options"),
        ({"interval_s": 0.0}, "options"),
        ({"shortest_wavelengths": 1e12}, "flagged"),
    ],
)
def test_what_cannot_be_is_told(options: dict[str, float], reason: str) -> None:
    with pytest.raises(ImagingError) as caught:
        asked = HybridOptions(**{"window_rad": 64 * UAS, **options})  # type: ignore[arg-type]
        find_phases(snapshot(), "I", asked)
    assert caught.value.reason == reason
