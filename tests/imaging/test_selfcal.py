"""Phases of antennas: known ones are found, and noise is not taken for phases."""

from __future__ import annotations

import numpy as np
import pytest
from sun_tools import ARCSEC, HZ, disk_of, sun_snapshot

from muser_pipeline.imaging.selfcal import self_calibrate, solve_phases

PLACE = (300 * ARCSEC, -200 * ARCSEC)
BURST = (50.0, *PLACE, 0.2)
ANTENNAS = 40


def turned(seed: int = 3, size: float = 1.0) -> np.ndarray:
    """Return phases of the antennas in both hands."""
    return np.random.default_rng(seed).normal(0.0, size, (2, ANTENNAS))


def test_phases_are_found_exactly_without_noise() -> None:
    phases = turned()[0]
    gains = np.exp(1j * phases)
    ratios = 3.0 * np.multiply.outer(gains, gains.conj())
    weights = 1.0 - np.eye(ANTENNAS)
    found = solve_phases(ratios, weights)
    assert found.converged
    assert found.iterations < 40
    assert found.gains == pytest.approx(gains * np.conj(gains[0]), abs=1e-8)


def test_antennas_without_data_are_left_alone() -> None:
    gains = np.exp(1j * turned()[0])
    weights = 1.0 - np.eye(ANTENNAS)
    weights[[0, 7]] = 0.0
    weights[:, [0, 7]] = 0.0
    found = solve_phases(np.multiply.outer(gains, gains.conj()), weights).gains
    assert found[[0, 7]] == pytest.approx(1.0)
    others = np.delete(np.arange(ANTENNAS), [0, 7])
    expected = gains[others] * np.conj(gains[1])
    assert found[others] == pytest.approx(expected, abs=1e-8)


def test_each_hand_gets_its_own_phases_back() -> None:
    phases = turned()
    seen = sun_snapshot([BURST], noise=2.0, phases_rad=phases)
    right = sun_snapshot([BURST], noise=0.0)
    corrected, found = self_calibrate(seen, "I", *PLACE)
    assert [one.polarization for one in found] == ["RR", "LL"]
    for hand, one in enumerate(found):
        assert one.applied
        assert one.converged
        assert one.amplitude_scatter < 0.1
        error = np.exp(1j * (one.phases_rad[0] - phases[hand] + phases[hand, 0]))
        assert np.angle(error).std() < 0.03
        assert one.flux_before < 0.6 * one.flux_held_out
        assert one.flux_held_out == pytest.approx((60.0, 40.0)[hand], rel=0.02)
    left = corrected.data - right.data
    # what is left is the noise, which has no phase to lose
    assert np.std(left) == pytest.approx(2.0 * 2**0.5, rel=0.1)
    assert np.array_equal(
        seen.data, sun_snapshot([BURST], noise=2.0, phases_rad=phases).data
    )


def test_each_minute_has_its_own_phases() -> None:
    early, late = (
        sun_snapshot([BURST], noise=2.0, phases_rad=turned(seed), seed=seed)
        for seed in (3, 4)
    )
    late = late.replace(time_utc_ns=late.time_utc_ns + 90 * 10**9)
    names = ("uvw_m", "antenna1", "antenna2", "time_utc_ns")
    both = early.replace(
        data=np.concatenate([early.data, late.data], axis=1),
        weights=np.concatenate([early.weights, late.weights], axis=1),
        **{n: np.concatenate([getattr(early, n), getattr(late, n)]) for n in names},
    )
    corrected, (found, _) = self_calibrate(both, "I", *PLACE)
    assert found.phases_rad.shape == (2, ANTENNAS)
    assert found.flux_held_out == pytest.approx(60.0, rel=0.02)
    right = sun_snapshot([BURST]).data
    left = corrected.data - np.concatenate([right, right], axis=1)
    assert np.std(left) == pytest.approx(2.0 * 2**0.5, rel=0.1)


def test_an_image_of_one_hand_leaves_the_other_alone() -> None:
    seen = sun_snapshot([BURST], phases_rad=turned())
    corrected, found = self_calibrate(seen, "LL", *PLACE)
    assert [one.polarization for one in found] == ["LL"]
    assert np.array_equal(corrected.data[0], seen.data[0])
    assert not np.array_equal(corrected.data[1], seen.data[1])


def test_noise_is_not_taken_for_phases() -> None:
    solved, held_out = [], []
    for seed in range(10):
        seen = sun_snapshot(noise=10.0, seed=seed)
        corrected, (found,) = self_calibrate(seen, "RR", *PLACE)
        assert not found.applied
        assert np.array_equal(corrected.data, seen.data)
        solved.append(found.flux_solved)
        held_out.append(found.flux_held_out)
    assert min(solved) > 1.0
    assert abs(np.mean(held_out)) < 0.5


def test_two_bursts_that_are_equally_bright_are_no_point() -> None:
    other = (55.0, -500 * ARCSEC, 300 * ARCSEC, 0.2)
    seen = sun_snapshot([BURST, other], noise=0.5, hz=HZ[:1])
    corrected, (found,) = self_calibrate(seen, "RR", *PLACE)
    # gains that bend the phases of one towards the other make it seem brighter
    assert found.flux_held_out > 1.05 * found.flux_before
    assert 0.4 < found.amplitude_scatter < 0.55
    assert not found.applied
    assert np.array_equal(corrected.data, seen.data)


def test_three_antennas_cannot_be_judged() -> None:
    seen = sun_snapshot([BURST], phases_rad=turned())
    few = (seen.antenna1 < 3) & (seen.antenna2 < 3)
    weights = np.where(few[:, np.newaxis], seen.weights, np.float32(0))
    _, (found,) = self_calibrate(seen.replace(weights=weights), "RR", *PLACE)
    assert not found.applied


def test_baselines_that_see_the_disk_do_not_count() -> None:
    phases = turned(size=0.5)
    disk = disk_of(2000.0, 944 * ARCSEC)
    seen = sun_snapshot([BURST], disk, noise=0.5, phases_rad=phases)
    _, found = self_calibrate(
        seen, "RR", *PLACE, shortest_wavelengths=3 / disk.radius_rad
    )
    error = np.exp(1j * (found[0].phases_rad[0] - phases[0] + phases[0, 0]))
    used = np.abs(np.angle(error))
    assert np.median(used) < 0.1
    _, wrong = self_calibrate(seen, "RR", *PLACE)
    error = np.exp(1j * (wrong[0].phases_rad[0] - phases[0] + phases[0, 0]))
    assert np.median(np.abs(np.angle(error))) > 2 * np.median(used)
