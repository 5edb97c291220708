from __future__ import annotations

from cmath import exp, pi
from math import trunc

import numpy as np
import pytest
from synthetic import START_NS, make_frames

from muser_pipeline.array import read_table
from muser_pipeline.calibration import correct_delays, static_delays_ns
from muser_pipeline.errors import FrameValueError, TableError
from muser_pipeline.raw import SWITCHED_ON, Frames

OFFSETS_GHZ = {"sun": 0.0125, "satellite": 0.0025, "swan": 0.0, "other": 0.0}
TARGET_WORDS = {"sun": 0x0000, "satellite": 0x0101, "swan": 0x0202, "other": 0x7777}


def slow(frames: Frames, n: int, i: int, j: int, k: int, target: str) -> complex:
    """The formula of the observatory's pipeline for one number, GHz and ns."""
    c = k if frames.array == 1 else 15 - k
    band = int(frames.band[n])
    low = 0.4 + 0.4 * band if frames.array == 1 else 2.0 + 0.4 * band
    if frames.array == 2 and band == 32:
        low = 14.6
    p = OFFSETS_GHZ[target] if frames.array == 1 else 0.0125
    intermediate = 0.05 + 0.025 * c + p
    static = static_delays_ns(1, START_NS) if frames.array == 1 else np.zeros(64)
    delay = [float(frames.delay_ns[n, a] - static[a]) for a in (i, j)]
    tg, tg0 = delay[1] - delay[0], trunc(delay[1]) - trunc(delay[0])
    first, _ = frames.describe().baseline_inputs()
    baseline = int(np.flatnonzero(first == i)[0]) + j - i - 1
    value = complex(frames.visibilities[n, baseline, k])
    if frames.array == 1:
        sky = low + 0.025 * c + p
        return value * exp(-2j * pi * (sky * tg - intermediate * tg0))
    sky = low + 0.025 * (15 - c) + p
    recorded = value.conjugate()
    return (recorded * exp(2j * pi * (sky * tg + intermediate * tg0))).conjugate()


def baseline_of(frames: Frames, i: int, j: int) -> int:
    first, second = frames.describe().baseline_inputs()
    return int(np.flatnonzero((first == i) & (second == j))[0])


@pytest.mark.parametrize("target", TARGET_WORDS)
@pytest.mark.parametrize("array", [1, 2])
def test_delays_are_corrected_as_the_slow_formula_says(array: int, target: str) -> None:
    words = np.full(70, TARGET_WORDS[target], dtype=np.uint16)
    frames = make_frames(array, 70, running=True, header={"target": words})
    corrected = correct_delays(frames)
    last = frames.describe().antennas - 1
    for n, i, j, k in [(0, 0, 1, 0), (3, 2, 17, 15), (69, last - 1, last, 7)]:
        found = corrected.visibilities[n, baseline_of(frames, i, j), k]
        expected = slow(frames, n, i, j, k, target)
        assert found == pytest.approx(expected, abs=3e-6)
    assert not corrected.flags.any()


def test_the_caller_can_name_the_target() -> None:
    frames = make_frames(1, 2, running=True)
    named = correct_delays(frames, target="satellite")
    expected = slow(frames, 1, 4, 5, 9, "satellite")
    found = named.visibilities[1, baseline_of(frames, 4, 5), 9]
    assert found == pytest.approx(expected, abs=3e-6)


def test_frames_of_muser_2_that_are_not_conjugated_turn_the_other_way() -> None:
    frames = make_frames(2, 3, running=True)
    recorded = frames.replace(
        visibilities=frames.visibilities.conj(), is_conjugated=False
    )
    corrected = correct_delays(frames)
    np.testing.assert_allclose(
        correct_delays(recorded).visibilities.conj(),
        corrected.visibilities,
        atol=1e-6,
    )


def test_whole_delays_are_rounded_towards_zero() -> None:
    # static delays can exceed those of a frame: -0.5 ns is a whole delay of 0, not -1
    delays = np.zeros((1, 44))
    delays[0, 1] = 0.5
    static = np.zeros(44)
    static[0] = 0.5
    frames = make_frames(1, 1, running=True, delay_ns=delays)
    corrected = correct_delays(frames, static_ns=static)
    turn = corrected.visibilities[0, 0, 0] / frames.visibilities[0, 0, 0]
    # channel 0 of band 0: 0.4125 GHz, 0.5 - -0.5 = 1 ns, no whole delay
    assert turn == pytest.approx(exp(-2j * pi * 0.4125), abs=1e-6)


def test_frames_whose_fringes_the_hardware_stopped_are_left_alone() -> None:
    frames = make_frames(1, 4)
    assert correct_delays(frames) is frames


def test_correcting_twice_is_correcting_once() -> None:
    once = correct_delays(make_frames(1, 4, running=True))
    assert (once.header["fringe"] == SWITCHED_ON).all()
    assert correct_delays(once) is once


def test_each_frame_is_corrected_by_what_its_own_header_says() -> None:
    words = np.array([0xCCCCCCCC, 0x33333333, 0xCCCCCCCC, 0x12345678], dtype=np.uint32)
    frames = make_frames(1, 4, header={"fringe": words})
    corrected = correct_delays(frames)
    same = (corrected.visibilities == frames.visibilities).all(axis=(1, 2))
    assert same.tolist() == [False, True, False, True]
    # a word that says neither: nobody knows what these visibilities are
    assert corrected.flags.all(axis=(1, 2)).tolist() == [False, False, False, True]
    assert not frames.flags.any()


def test_frames_far_apart_are_corrected_among_others() -> None:
    words = np.full(50, 0x33333333, dtype=np.uint32)
    words[[1, 45]] = 0xCCCCCCCC
    frames = make_frames(1, 50, header={"fringe": words})
    corrected = correct_delays(frames)
    turned = (corrected.visibilities != frames.visibilities).any(axis=(1, 2))
    assert np.flatnonzero(turned).tolist() == [1, 45]
    expected = slow(frames, 45, 0, 1, 3, "sun")
    assert corrected.visibilities[45, 0, 3] == pytest.approx(expected, abs=3e-6)


def test_baselines_whose_delay_is_not_known_are_flagged() -> None:
    delays = make_frames(1, 3).delay_ns.copy()
    delays[1, 7] = np.nan
    delays[2, 42] = np.nan  # an idle input
    frames = make_frames(1, 3, running=True, delay_ns=delays)
    corrected = correct_delays(frames)
    first, second = frames.describe().baseline_inputs()
    lost = (first == 7) | (second == 7)
    assert np.array_equal(corrected.flags[1].all(axis=1), lost)
    assert not corrected.flags[[0, 2]].any()
    assert np.isfinite(corrected.visibilities).all()


def test_static_delays_are_those_of_the_date() -> None:
    table = read_table("static_delay_1")
    at = {
        "2013-06-01": "c_code_2014_ns",
        "2014-10-14T15:59": "c_code_2014_ns",
        "2014-10-14T16:01": "observers_201412_ns",  # Beijing's 15th
        "2015-11-01": "database_20151023_ns",
    }
    for when, column in at.items():
        time_ns = int(np.datetime64(when, "ns").astype(np.int64))
        found = static_delays_ns(1, time_ns)
        assert found.shape == (44,)
        assert found.tolist() == [float(row[column]) for row in table]
    assert static_delays_ns(2, START_NS)[2] == 7.0
    with pytest.raises(TableError, match="no array 3"):
        static_delays_ns(3, START_NS)


def test_static_delays_of_muser_2_are_an_option() -> None:
    frames = make_frames(2, 1, running=True)
    static = static_delays_ns(2, START_NS)
    moved = frames.replace(delay_ns=frames.delay_ns - static)
    with_option = correct_delays(frames, static_ns=static)
    np.testing.assert_allclose(
        with_option.visibilities, correct_delays(moved).visibilities, atol=1e-6
    )
    assert not np.allclose(
        with_option.visibilities, correct_delays(frames).visibilities, atol=0.1
    )


def test_static_delays_of_another_array_are_refused() -> None:
    frames = make_frames(2, 1, running=True)
    with pytest.raises(FrameValueError, match="64 inputs, but static delays of shape"):
        correct_delays(frames, static_ns=np.zeros(44))
