"""What phases of antennas cannot change stays as it is."""

from __future__ import annotations

from math import comb

import numpy as np
from vlbi_scene import ANTENNAS, NOISE_JY, TIMES, double, gaussian, seen, without_phases

from muser_pipeline.imaging.closures import close, scans_of


def test_closure_phases_and_amplitudes_are_those_of_the_source() -> None:
    known = close(seen(double), "I")
    spoilt = close(without_phases(seen(double)), "I")
    assert known is not None
    assert spoilt is not None
    off = np.angle(np.exp(1j * (spoilt.phase - known.phase)))
    assert np.abs(off).max() < 1e-4
    np.testing.assert_allclose(spoilt.amplitude, known.amplitude, rtol=1e-5)
    # every triangle of every time, but for those that noise hides
    assert len(known.phase) > 0.9 * TIMES * comb(ANTENNAS, 3)
    of_phases, of_amplitudes = spoilt.chi_squared(double)
    assert of_phases < 1.5
    assert of_amplitudes < 1.5
    # a source without closure phases is another one
    assert spoilt.chi_squared(gaussian)[0] > 5


def test_the_order_of_antennas_does_not_matter() -> None:
    known = seen(double)
    turned = known.replace(
        antenna1=known.antenna2,
        antenna2=known.antenna1,
        uvw_m=-known.uvw_m,
        data=known.data.conj(),
    )
    one, other = close(known, "I"), close(turned, "I")
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(other.phase, one.phase)
    np.testing.assert_allclose(other.u, one.u)


def test_means_over_a_scan_are_as_much_better() -> None:
    known = seen(gaussian)
    rows = len(known.antenna1)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, rows * 9)) * NOISE_JY * 3
    again = np.repeat(np.arange(rows), 9)
    many = known.replace(
        uvw_m=known.uvw_m[again],
        data=(known.data[:, again, 0] + noise[0] + 1j * noise[1])[..., np.newaxis],
        weights=known.weights[:, again] / np.float32(10),
        antenna1=known.antenna1[again],
        antenna2=known.antenna2[again],
        time_utc_ns=known.time_utc_ns[again] + np.tile(np.arange(9), rows) * 10**10,
    )
    mean = close(many, "I", systematic=0.0)
    assert mean is not None
    assert len(mean.amplitude) == rows
    expected = NOISE_JY * np.sqrt(10 / 9)
    np.testing.assert_allclose(mean.amplitude_error, expected, rtol=1e-5)
    # without the bias of noise, on baselines that see next to nothing
    is_weak = np.abs(gaussian(mean.u, mean.v)) < 0.3 * NOISE_JY
    assert is_weak.sum() >= 30
    power = (np.abs(mean.amplitude) * mean.amplitude)[is_weak]
    assert abs(power.mean()) < 0.1 * 20 * NOISE_JY**2


def test_scans_end_with_a_gap_and_are_not_too_long() -> None:
    seconds = np.array([0, 10, 20, 120, 130, *range(1000, 1400, 10)])
    scans = scans_of(np.flip(seconds) * 10**9)[::-1]
    assert scans[:5].tolist() == [0, 0, 0, 1, 1]
    assert scans[5:].tolist() == [2] * 30 + [3] * 10


def test_without_a_triangle_there_is_nothing() -> None:
    known = seen(gaussian)
    first = (known.antenna1 == 1).astype(np.float32)
    star = known.replace(weights=known.weights * first[np.newaxis, :, np.newaxis])
    assert close(star, "I") is None


def test_weights_may_be_arbitrary() -> None:
    known = seen(double)
    found = close(known.replace(weights=known.weights * np.float32(1e-6)), "I")
    assert found is not None
    of_phases, of_amplitudes = found.chi_squared(double)
    assert of_phases < 1.5
    assert of_amplitudes < 1.5
    assert len(found.phase) > 0.9 * TIMES * comb(ANTENNAS, 3)
