from __future__ import annotations

import numpy as np
import pytest
from synthetic import START_NS, complex_noise, make_frames

from muser_pipeline.calibration import (
    dead_inputs,
    flag_inputs,
    flag_outliers,
    known_bad_inputs,
    saturated_inputs,
)
from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw import Frames


def at(date: str) -> int:
    return int(np.datetime64(date, "ns").astype(np.int64))


def test_known_bad_inputs_are_those_of_the_latest_list() -> None:
    assert known_bad_inputs(1, at("2014-10-31T15:59")) == []
    # from midnight in Beijing
    assert known_bad_inputs(1, at("2014-10-31T16:00"))[:3] == [4, 7, 10]
    assert known_bad_inputs(1, START_NS)[-2:] == [38, 39]
    assert known_bad_inputs(1, at("2020-01-01")) == [4, 6]
    assert known_bad_inputs(2, at("2016-07-04")) == []
    assert known_bad_inputs(2, at("2016-07-05"))[0] == 10


def test_all_baselines_of_an_input_are_flagged_and_no_others() -> None:
    frames = make_frames(1, 3)
    flags = frames.flags.copy()
    flags[1, 779, 2] = True
    flagged = flag_inputs(frames.replace(flags=flags), [4, 39, 43])
    first, second = frames.describe().baseline_inputs()
    for b in range(780):
        is_bad = {int(first[b]), int(second[b])} & {4, 39}
        expected = bool(is_bad)
        assert flagged.flags[0, b].all() == flagged.flags[0, b].any() == expected
    assert flagged.flags[1, 779, 2]
    assert not frames.flags.any()


def test_inputs_that_are_not_there_cannot_be_flagged() -> None:
    with pytest.raises(FrameValueError, match="MUSER-I has no input 44"):
        flag_inputs(make_frames(1, 1), [44])


def test_dead_inputs_are_found_by_their_power() -> None:
    frames = make_frames(1, 8)
    autos = frames.autocorrelations.copy()
    autos[:, :, 7] = 0
    autos[:, :, 12] //= 30
    autos[:, :, 13] //= 10  # weak, not dead
    autos[2, :, 20] = 0  # one frame is no death
    autos[:, :, 43] = 0  # idle
    # the band pass and the Sun's spectrum make no difference
    autos[4:] *= 50
    assert dead_inputs(frames.replace(autocorrelations=autos)) == [7, 12]
    assert dead_inputs(frames.replace(autocorrelations=autos), below=0.2) == [7, 12, 13]


def test_saturated_inputs_are_found_by_their_power_and_by_what_is_cut_off() -> None:
    frames = make_frames(1, 8)
    assert saturated_inputs(frames) == []
    autos = frames.autocorrelations.copy()
    autos[:, :, 7] = autos[:, :, 7] * 40 + 1000
    autos[:, :, 12] *= 20  # strong, not saturated
    autos[2, :, 20] = 1 << 31  # one frame is no fault of the antenna
    first, second = frames.describe().baseline_inputs()
    values = frames.visibilities.copy()
    values[:, (first == 30) | (second == 30)] = complex(-(1 << 23), 12.0)
    values[0, 5] = complex(1 << 23, 0)
    found = saturated_inputs(
        frames.replace(autocorrelations=autos, visibilities=values)
    )
    assert found == [7, 30]


def steady(count: int = 160) -> Frames:
    """Frames of a steady source with noise, 20 for each band and hand."""
    rng = np.random.default_rng(11)
    shape = (count, 780, 16)
    level = 20 * complex_noise(rng, (1, 780, 16))
    return make_frames(1, count, visibilities=level + complex_noise(rng, shape))


def test_noise_is_not_flagged() -> None:
    frames = steady()
    assert not flag_outliers(frames).flags.any()
    # the limit is a number of standard deviations
    part = flag_outliers(frames, threshold=2).flags.mean()
    # beyond 2 sigma of a Rayleigh distribution; the median is of few and takes part
    assert part == pytest.approx(np.exp(-2), rel=0.2)


def test_outliers_are_flagged_and_nothing_else() -> None:
    frames = steady()
    visibilities = frames.visibilities.copy()
    places = [(8, 5, 3), (17, 400, 0), (95, 779, 15)]
    for place in places:
        visibilities[place] += 14
    found = flag_outliers(frames.replace(visibilities=visibilities)).flags
    assert np.argwhere(found).tolist() == [list(place) for place in places]


def test_a_burst_of_the_sun_is_no_fault() -> None:
    frames = steady()
    visibilities = frames.visibilities.copy()
    visibilities[64:80] *= 5
    visibilities[70, 9, 1] += 3000
    found = flag_outliers(frames.replace(visibilities=visibilities)).flags
    assert np.argwhere(found).tolist() == [[70, 9, 1]]


def test_what_is_flagged_stays_so_and_does_not_count() -> None:
    frames = steady()
    visibilities, flags = frames.visibilities.copy(), frames.flags.copy()
    visibilities[0:120, 33] = 1e9  # 15 of 20 frames are rubbish, and known to be
    flags[0:120, 33] = True
    flags[:, 34] = True
    visibilities[128, 33, 2] += 40
    marked = frames.replace(visibilities=visibilities, flags=flags)
    found = flag_outliers(marked).flags
    assert np.argwhere(found & ~flags).tolist() == [[128, 33, 2]]
    assert (found & flags).sum() == flags.sum()


def test_few_frames_do_not_tell_what_is_usual() -> None:
    frames = steady(16)
    visibilities = frames.visibilities.copy()
    visibilities[3, 3, 3] += 1e6
    assert not flag_outliers(frames.replace(visibilities=visibilities)).flags.any()


def test_a_constant_is_not_flagged_but_what_leaves_it() -> None:
    level = np.full((80, 780, 16), 3 + 4j, dtype=np.complex64)
    level[40, 7, 8] += 1
    level[41, 7, 8] += 1e-6
    found = flag_outliers(make_frames(1, 80, visibilities=level)).flags
    assert np.argwhere(found).tolist() == [[40, 7, 8]]
