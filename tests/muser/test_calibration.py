from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import START_NS, complex_noise, make_frames

from muser_pipeline.array import load_array, read_table
from muser_pipeline.calibration import (
    CalibrationTable,
    apply_calibration,
    make_calibration,
    phases_of_20151101,
    read_calibration,
    solve_antennas,
    table_name,
    write_calibration,
)
from muser_pipeline.errors import FrameValueError, TableError

SHAPES = {1: (4, 2, 780, 16), 2: (33, 2, 1770, 16)}


def random_table(array: int = 1, **changes: object) -> CalibrationTable:
    rng = np.random.default_rng(4)
    values = 5 * complex_noise(rng, SHAPES[array]).astype(np.complex128)
    return CalibrationTable(array, values, **changes)


def random_gains(array: int = 1, bands: int = 4) -> NDArray[np.complex128]:
    rng = np.random.default_rng(5)
    shape = (bands, 2, load_array(array).antennas, 16)
    return rng.uniform(0.5, 2, shape) * np.exp(2j * np.pi * rng.random(shape))


def products(gains: NDArray[np.complex128]) -> NDArray[np.complex128]:
    first, second = np.triu_indices(gains.shape[2], k=1)
    return gains[:, :, first].conj() * gains[:, :, second]


# --- applying ------------------------------------------------------------------------


@pytest.mark.parametrize("amplitude", [False, True])
def test_a_table_is_applied_as_the_slow_formula_says(amplitude: bool) -> None:
    frames, table = make_frames(1, 9), random_table()
    calibrated = apply_calibration(frames, table, amplitude=amplitude)
    for n, b, c in [(0, 0, 0), (3, 400, 15), (8, 779, 7)]:
        value = complex(frames.visibilities[n, b, c])
        hand = 0 if frames.polarization[n] == "LL" else 1
        known = complex(table.values[int(frames.band[n]), hand, b, c])
        expected = (
            value / known if amplitude else value * known.conjugate() / abs(known)
        )
        assert calibrated.visibilities[n, b, c] == pytest.approx(expected, rel=1e-5)
    assert not calibrated.flags.any()
    assert frames.visibilities[0, 0, 0] != calibrated.visibilities[0, 0, 0]


def test_what_a_table_does_not_know_is_flagged() -> None:
    frames, table = make_frames(1, 8), random_table()
    table.values[1, 0, 30, 4] = 0
    table.values[1, 1, 31, 5] = np.nan
    calibrated = apply_calibration(frames, table)
    assert np.argwhere(calibrated.flags).tolist() == [[2, 30, 4], [3, 31, 5]]
    assert np.isfinite(calibrated.visibilities).all()


def test_frames_of_unknown_hand_cannot_be_calibrated() -> None:
    frames = make_frames(1, 4)
    hands = frames.polarization.copy()
    hands[1] = "??"
    calibrated = apply_calibration(frames.replace(polarization=hands), random_table())
    assert calibrated.flags.all(axis=(1, 2)).tolist() == [False, True, False, False]


def test_a_table_of_the_other_array_is_refused() -> None:
    with pytest.raises(FrameValueError, match="array 2 for frames of array 1"):
        apply_calibration(make_frames(1, 1), random_table(2))
    with pytest.raises(TableError, match=r"array 1 has the shape \(4, 2, 780, 16\)"):
        CalibrationTable(1, np.zeros((4, 2, 946, 16), dtype=complex))


def test_the_phases_of_2015_11_01_are_taken_away() -> None:
    table = phases_of_20151101()
    rows = read_table("phase_20151101")
    frames = make_frames(1, 8)
    calibrated = apply_calibration(frames, table)
    for n, b, c in [(0, 0, 0), (5, 500, 9)]:
        turn = np.exp(-1j * float(rows[b]["phase_rad"]))
        expected = frames.visibilities[n, b, c] * turn
        assert calibrated.visibilities[n, b, c] == pytest.approx(expected, rel=1e-5)


# --- making --------------------------------------------------------------------------


def test_a_table_is_made_of_a_calibrator_and_takes_its_phases_away() -> None:
    truth = products(random_gains())
    flux = 30.0
    rng = np.random.default_rng(6)
    frames = make_frames(1, 32)
    hand = (frames.polarization == "RR").astype(int)
    signal = flux * truth[frames.band, hand]
    noise = 0.1 * complex_noise(rng, signal.shape)
    frames = frames.replace(visibilities=(signal + noise).astype(np.complex64))
    flags = frames.flags.copy()
    flags[:, 11] = True  # never seen
    flags[0, 12] = True
    frames = frames.replace(flags=flags)

    table = make_calibration(frames, source="Cygnus A", model=flux)
    assert (table.source, table.time_utc_ns) == ("Cygnus A", START_NS)
    assert table.is_delay_corrected
    assert not table.is_known[:, :, 11].any()
    assert table.is_known[:, :, np.arange(780) != 11].all()
    for k, h, b, c in [(0, 0, 12, 3), (3, 1, 700, 15)]:
        members = [n for n in range(32) if frames.band[n] == k and hand[n] == h]
        seen = [
            complex(frames.visibilities[n, b, c]) for n in members if not flags[n, b, c]
        ]
        slow = sum(seen) / len(seen) / flux
        assert table.values[k, h, b, c] == pytest.approx(slow, rel=1e-5)

    again = apply_calibration(frames, table, amplitude=True)
    good = ~again.flags
    np.testing.assert_allclose(again.visibilities[good], flux, atol=3)


def test_bands_that_were_not_seen_are_not_known() -> None:
    table = make_calibration(make_frames(1, 2))
    assert table.is_known[0].all()
    assert not table.is_known[1:].any()
    with pytest.raises(FrameValueError, match="without frames"):
        make_calibration(make_frames(1, 2).select(slice(0, 0)))


# --- antennas ------------------------------------------------------------------------


def test_gains_of_antennas_are_found_again() -> None:
    truth = random_gains()
    solved = solve_antennas(CalibrationTable(1, products(truth), source="sky"))
    expected = truth * np.exp(-1j * np.angle(truth[:, :, :1]))
    np.testing.assert_allclose(solved.gains, expected, rtol=1e-5)
    assert solved.residual.max() < 1e-5
    again = solved.table()
    assert again.source == "sky"
    np.testing.assert_allclose(again.values, products(truth), rtol=1e-5)


def test_gains_average_noise_over_baselines() -> None:
    truth = products(random_gains())
    rng = np.random.default_rng(7)
    noisy = truth + 0.3 * complex_noise(rng, truth.shape)
    solved = solve_antennas(CalibrationTable(1, noisy))
    before = np.sqrt(np.mean(np.abs(noisy - truth) ** 2))
    after = np.sqrt(np.mean(np.abs(solved.table().values - truth) ** 2))
    # 40 complex gains less a phase instead of 780 values
    assert after / before == pytest.approx(np.sqrt(39.5 / 780), rel=0.15)
    expected = before / np.sqrt(np.mean(np.abs(truth) ** 2))
    assert np.median(solved.residual) == pytest.approx(expected, rel=0.2)


def test_the_solution_is_the_least_squares_one() -> None:
    truth = products(random_gains())
    rng = np.random.default_rng(8)
    noisy = truth + 0.3 * complex_noise(rng, truth.shape)
    solved = solve_antennas(CalibrationTable(1, noisy))
    best = np.sum(np.abs(noisy[0, 0, :, 0] - products(solved.gains)[0, 0, :, 0]) ** 2)
    for k in range(5):
        moved = solved.gains.copy()
        moved[0, 0, k] *= 1 + 0.02 * np.exp(2j * k)
        other = np.sum(np.abs(noisy[0, 0, :, 0] - products(moved)[0, 0, :, 0]) ** 2)
        assert other > best


def test_missing_baselines_and_antennas_do_no_harm() -> None:
    truth = random_gains()
    values = products(truth)
    first, second = np.triu_indices(40, k=1)
    values[:, :, (first == 0) | (second == 0)] = np.nan  # the reference itself
    values[:, :, (first == 17) | (second == 17)] = 0
    values[:, :, 100] = np.nan
    values[2] = np.nan  # a band that was never seen
    solved = solve_antennas(CalibrationTable(1, values))
    lost = np.isnan(solved.gains[[0, 1, 3]]).all(axis=(0, 1, 3))
    assert np.flatnonzero(lost).tolist() == [0, 17]
    assert np.isnan(solved.gains[2]).all()
    assert np.isnan(solved.residual[2]).all()
    again = solved.table()
    assert again.is_known[0, 0, 100].all()
    assert not again.is_known[2].any()
    np.testing.assert_allclose(
        again.values[0, 0, 100], products(truth)[0, 0, 100], rtol=1e-5
    )


# --- files ---------------------------------------------------------------------------


@pytest.mark.parametrize("array", [1, 2])
def test_tables_are_read_as_they_were_written(array: int, tmp_path: Path) -> None:
    table = random_table(
        array, source="satellite", time_utc_ns=START_NS, is_delay_corrected=True
    )
    table.values[0, 0, 5] = 0
    path = tmp_path / table_name(table)
    assert path.name == "20151102-0.cal"
    write_calibration(path, table)
    assert path.stat().st_size == {1: 1_597_440, 2: 29_905_920}[array]
    again = read_calibration(path, array)
    assert np.array_equal(again.is_known, table.is_known)
    assert np.array_equal(again.values[again.is_known], table.values[table.is_known])
    assert (again.source, again.time_utc_ns) == ("satellite", START_NS)
    assert again.is_delay_corrected
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        path.name,
        path.name + ".json",
    ]


def test_channels_of_muser_2_descend_in_files(tmp_path: Path) -> None:
    raw = random_table(2).values
    path = tmp_path / "20160705-1.cal"
    path.write_bytes(raw.astype("<c16").tobytes())
    table = read_calibration(path, 2)
    assert np.array_equal(table.values, raw[..., ::-1])
    other = read_calibration(path, 2, is_conjugated=False)
    assert np.array_equal(other.values, raw[..., ::-1].conj())
    assert (table.source, table.is_delay_corrected) == ("", False)


def test_a_table_of_one_band_serves_both_hands(tmp_path: Path) -> None:
    raw = random_table().values[0, 0]
    path = tmp_path / "20151101-0.cal"
    path.write_bytes(raw.astype("<c16").tobytes())
    assert path.stat().st_size == 199_680
    table = read_calibration(path, 1, band=2)
    assert np.array_equal(table.values[2], np.stack([raw, raw]))
    assert not table.is_known[[0, 1, 3]].any()
    with pytest.raises(TableError, match="of one band: say which, 0 to 3"):
        read_calibration(path, 1)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.cal"
    path.write_bytes(bytes(1000))
    with pytest.raises(
        TableError, match="has 1000 bytes; a table of array 1 has 1597440"
    ):
        read_calibration(path, 1)
    table = random_table()
    write_calibration(path, table)
    for broken in ("{", json.dumps({"source": "x"}), json.dumps([1])):
        path.with_name("short.cal.json").write_text(broken)
        with pytest.raises(TableError, match="does not describe a table"):
            read_calibration(path, 1)


def test_a_write_that_fails_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "x.cal"
    path.mkdir()
    (path / "in the way").touch()
    with pytest.raises(OSError):
        write_calibration(path, random_table())
    assert not list(tmp_path.glob(".*"))
