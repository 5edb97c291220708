"""The simplest source that fits closure phases and amplitudes is what is there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from vlbi_scene import UAS, Source, double, gaussian, ring, seen, without_phases

from muser_pipeline.imaging.closures import close
from muser_pipeline.imaging.start_models import Start, choose_start


@cache
def start_of(source: Source) -> Start:
    closures = close(without_phases(seen(source), spread=0.1), "I")
    assert closures is not None
    return choose_start(closures)


def test_a_gaussian_is_one() -> None:
    start = start_of(gaussian)
    assert start.name == "gaussian"
    assert start.numbers["width_rad"] == pytest.approx(30 * UAS, rel=0.1)
    assert start.numbers["flux"] == pytest.approx(0.8, rel=0.25)
    assert 30 * UAS < start.extent_rad < 90 * UAS


def test_two_points_are_found_with_the_brighter_on_its_side() -> None:
    start = start_of(double)
    assert start.name == "double"
    numbers = dict(start.numbers)
    if numbers["ratio"] > 1:
        # the second is the brighter: seen from the other
        numbers["ratio"] **= -1
        numbers["angle_rad"] += np.pi
    assert numbers["ratio"] == pytest.approx(0.5, rel=0.05)
    assert numbers["distance_rad"] == pytest.approx(np.hypot(50, 30) * UAS, rel=0.02)
    off = np.exp(1j * (numbers["angle_rad"] - np.arctan2(50, 30)))
    assert abs(np.angle(off)) < 0.02


def test_a_ring_has_its_width_and_its_brighter_side() -> None:
    start = start_of(ring)
    assert start.name == "crescent"
    assert start.numbers["diameter_rad"] == pytest.approx(44 * UAS, rel=0.03)
    assert start.numbers["asymmetry"] == pytest.approx(0.6, abs=0.1)
    assert abs(np.angle(-np.exp(1j * start.numbers["angle_rad"]))) < 0.1
    assert start.criterion["crescent"] == min(start.criterion.values())
    closures = close(seen(ring), "I")
    assert closures is not None
    assert closures.chi_squared(start)[0] < 1.5


def test_a_point_needs_nothing_more() -> None:
    start = start_of(lambda u, v: np.full(u.shape, 0.5 + 0j))
    assert start.name == "point"
    assert start.extent_rad == 0
