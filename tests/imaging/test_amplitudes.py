"""Antennas with impossible amplitudes are found, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from sun_tools import ARCSEC, RADIUS, disk_of, sun_snapshot

from muser_pipeline.imaging.amplitudes import impossible_antennas
from muser_pipeline.imaging.visibilities import Snapshot

BURSTS = [(500.0, 300 * ARCSEC, 0.0, 0.0), (300.0, -500 * ARCSEC, 0.0, 0.0)]


def found_in(
    snapshot: Snapshot, gains: dict[int, float], antennas: int = 40
) -> tuple[int, ...]:
    """Return the antennas that are found where some have other gains."""
    data, weights = snapshot.stokes("I")
    rows = (snapshot.antenna1 < antennas) & (snapshot.antenna2 < antennas)
    factors = np.ones(40, dtype=np.float32)
    for antenna, gain in gains.items():
        factors[antenna] = gain
    factor = factors[snapshot.antenna1] * factors[snapshot.antenna2]
    return impossible_antennas(
        snapshot.uvw_m[rows],
        (data * factor[:, np.newaxis])[rows],
        weights[rows],
        snapshot.antenna1[rows],
        snapshot.antenna2[rows],
    )


@pytest.mark.parametrize("noise", [1.0, 300.0])
@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({}, ()),
        ({7: 100.0}, (7,)),
        ({7: 0.0, 30: 1000.0}, (7, 30)),
        # gains differ by as much from day to day
        ({7: 3.0, 8: 0.3, 9: 2.0}, ()),
    ],
)
def test_antennas_far_off_are_found(
    gains: dict[int, float], expected: tuple[int, ...], noise: float
) -> None:
    seen = sun_snapshot(BURSTS, disk_of(1000.0, RADIUS), noise=noise)
    assert found_in(seen, gains) == expected


def test_of_few_antennas_nobody_can_say_which_is_wrong() -> None:
    seen = sun_snapshot(BURSTS, noise=1.0)
    assert found_in(seen, {3: 100.0}, antennas=5) == ()
    assert found_in(seen, {3: 100.0}, antennas=12) == (3,)


def test_where_many_are_off_the_sky_is_thought_to_be() -> None:
    seen = sun_snapshot(BURSTS, noise=1.0)
    assert found_in(seen, dict.fromkeys(range(13), 100.0)) == ()


def test_where_there_is_nothing_nothing_is_wrong() -> None:
    seen = sun_snapshot()
    assert found_in(seen, {}) == ()
    assert found_in(seen.replace(weights=np.zeros_like(seen.weights)), {}) == ()
