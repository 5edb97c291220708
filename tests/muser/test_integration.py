from __future__ import annotations

import numpy as np
import pytest
from synthetic import PERIOD_NS, START_NS, complex_noise, make_frames

from muser_pipeline.errors import FrameValueError
from muser_pipeline.integration import (
    Integrator,
    Visibilities,
    integrate,
    single_frames,
)
from muser_pipeline.raw import Frames

SECOND_NS = 10**9
WEIGHT = 25e6 * 3.125e-3


def slow_mean(frames: Frames, members: list[int], b: int, c: int) -> complex:
    values = [
        complex(frames.visibilities[n, b, c])
        for n in members
        if not frames.flags[n, b, c]
    ]
    return sum(values) / len(values) if values else 0


def with_flags(frames: Frames, part: float = 0.3) -> Frames:
    flags = np.random.default_rng(9).random(frames.flags.shape) < part
    return frames.replace(flags=flags)


def same(a: Visibilities, b: Visibilities) -> bool:
    names = ("time_utc_ns", "start_utc_ns", "end_utc_ns", "bands", "frames")
    return (
        a.polarizations == b.polarizations
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)
        and np.array_equal(a.data, b.data)
        and np.array_equal(a.weights, b.weights)
    )


def test_loops_become_averages_with_all_bands_and_hands() -> None:
    frames = make_frames(1, 24)
    averages = integrate(frames)
    assert averages.data.shape == (3, 4, 2, 780, 16)
    assert averages.polarizations == ("RR", "LL")
    # the fourth frame is the right hand of band 1
    assert np.array_equal(averages.data[0, 1, 0], frames.visibilities[3])
    assert np.array_equal(averages.data[2, 3, 1], frames.visibilities[22])
    assert (averages.weights == np.float32(WEIGHT)).all()
    assert np.array_equal(averages.frequency_hz, frames.frequency_hz[:8:2])
    assert averages.start_utc_ns.tolist() == [
        START_NS + k * 25_000_000 for k in (0, 1, 2)
    ]
    assert (averages.end_utc_ns - averages.start_utc_ns).tolist() == [7 * PERIOD_NS] * 3
    assert averages.time_utc_ns[0] == START_NS + 7 * PERIOD_NS // 2
    assert averages.integration_s == pytest.approx([3.125e-3] * 3)


def test_an_interval_averages_what_is_not_flagged() -> None:
    frames = with_flags(make_frames(1, 48))
    averages = integrate(frames, 100_000_000)
    # the interval ends at .400 s: 14.67 frames after .354161240
    assert averages.frames.sum(axis=(1, 2)).tolist() == [15, 32, 1]
    for t, k, p, b, c in [(0, 0, 0, 5, 3), (0, 3, 1, 779, 15), (1, 2, 0, 400, 0)]:
        band = frames.band == k
        hand = frames.polarization == averages.polarizations[p]
        when = frames.time_utc_ns // 100_000_000
        members = np.flatnonzero(band & hand & (when == np.unique(when)[t])).tolist()
        assert len(members) == averages.frames[t, k, p] > 0
        expected = slow_mean(frames, members, b, c)
        assert averages.data[t, k, p, b, c] == pytest.approx(expected, abs=1e-6)
        good = sum(not frames.flags[n, b, c] for n in members)
        assert averages.weights[t, k, p, b, c] == pytest.approx(good * WEIGHT)


def test_what_is_flagged_in_all_frames_has_no_weight() -> None:
    frames = make_frames(1, 16)
    flags = frames.flags.copy()
    flags[:, 17] = True
    averages = integrate(frames.replace(flags=flags))
    assert (averages.weights[:, :, :, 17] == 0).all()
    assert (averages.data[:, :, :, 17] == 0).all()
    assert (averages.weights[:, :, :, 18] > 0).all()


def test_frames_can_be_added_in_parts() -> None:
    frames = with_flags(make_frames(1, 50))
    for interval in (None, 60_000_000):
        integrator = Integrator(1, bands=[0, 1, 2, 3], interval_ns=interval)
        for start, stop in [(0, 3), (3, 4), (4, 29), (29, 50)]:
            integrator.add(frames.select(slice(start, stop)))
        assert same(integrator.result(), integrate(frames, interval))


def test_a_lost_frame_leaves_its_place_empty() -> None:
    frames = make_frames(1, 24)
    kept = frames.select(np.array([n for n in range(24) if n not in (7, 8, 13)]))
    averages = integrate(kept)
    assert averages.frames[0].tolist() == [[1, 1], [1, 1], [1, 1], [0, 1]]
    assert averages.frames[1].tolist() == [[1, 0], [1, 1], [0, 1], [1, 1]]
    assert np.array_equal(averages.data[2, 0, 1], frames.visibilities[16])
    assert (averages.weights[1, 0, 1] == 0).all()


def test_loops_are_found_after_a_gap_in_time() -> None:
    # 10 frames of two loops are lost: the codes alone would go up from 2 to 5
    frames = make_frames(1, 24).select(np.r_[0:3, 13:24])
    averages = integrate(frames)
    assert len(averages) == 3
    assert averages.frames.sum(axis=(1, 2)).tolist() == [3, 3, 8]


def test_fixed_bands_give_pairs_of_hands() -> None:
    frames = make_frames(1, 6, band=np.full(6, 2))
    averages = integrate(frames)
    assert averages.bands.tolist() == [2]
    assert averages.data.shape[:3] == (3, 1, 2)
    assert np.array_equal(averages.data[1, 0, 0], frames.visibilities[3])


def test_frames_of_one_band_and_hand_are_not_put_together() -> None:
    frames = make_frames(1, 3, band=np.full(3, 2), polarization=np.full(3, "RR"))
    averages = integrate(frames)
    assert averages.data.shape[:3] == (3, 1, 1)
    assert np.array_equal(averages.data[2, 0, 0], frames.visibilities[2])


def test_frames_of_unknown_hand_are_left_out() -> None:
    frames = make_frames(1, 8)
    hands = frames.polarization.copy()
    hands[4] = "??"
    averages = integrate(frames.replace(polarization=hands))
    assert averages.polarizations == ("RR", "LL")
    assert averages.frames.sum() == 7
    assert averages.frames[0, 2].tolist() == [1, 0]


def test_one_band_leaves_out_times_without_it() -> None:
    frames = make_frames(1, 16)
    kept = frames.select(np.array([n for n in range(16) if n not in (2, 3)]))
    averages = integrate(kept)
    assert len(averages.in_band(0)) == 2
    band = averages.in_band(1)
    assert len(band) == 1
    assert np.array_equal(band.data[0, 0, 1], frames.visibilities[10])
    with pytest.raises(FrameValueError, match="no band 7 but .0, 1, 2, 3."):
        averages.in_band(7)


def test_single_frames_keep_their_flags() -> None:
    frames = with_flags(make_frames(2, 4))
    hands = frames.polarization.copy()
    hands[2] = "??"
    single = list(single_frames(frames.replace(polarization=hands)))
    assert [each.polarizations for each in single] == [("LL",), ("RR",), ("RR",)]
    last = single[2]
    assert np.array_equal(last.data[0, 0, 0], frames.visibilities[3])
    assert np.array_equal(last.weights[0, 0, 0] > 0, ~frames.flags[3])
    assert last.bands.tolist() == [1]
    assert last.describe().name == "MUSER-II"


def test_noise_goes_down_with_the_weight() -> None:
    rng = np.random.default_rng(3)
    frames = make_frames(1, 320, visibilities=complex_noise(rng, (320, 780, 16)))
    averages = integrate(frames, 100 * SECOND_NS)
    found = np.var(averages.data[0, 0, 0])
    frames_averaged = averages.weights[0, 0, 0, 0, 0] / WEIGHT
    assert frames_averaged == pytest.approx(40)
    assert found == pytest.approx(2 / 40, rel=0.05)


def test_what_cannot_be_averaged_is_refused() -> None:
    frames = make_frames(1, 8)
    with pytest.raises(FrameValueError, match="not in order"):
        integrate(frames.select(slice(None, None, -1)))
    with pytest.raises(FrameValueError, match="an interval of 0 ns"):
        integrate(frames, 0)
    with pytest.raises(FrameValueError, match="frames of array 1, not 2"):
        Integrator(2, bands=[0]).add(frames)
    with pytest.raises(FrameValueError, match="no frames of these bands"):
        Integrator(1, bands=[0]).result()
    other = Integrator(1, bands=[3])
    other.add(frames.select(slice(0, 2)))
    with pytest.raises(FrameValueError, match="no frames of these bands"):
        other.result()


def test_frames_whose_fringes_run_are_refused() -> None:
    frames = make_frames(1, 8, running=True)
    for use in (integrate, lambda frames: list(single_frames(frames))):
        with pytest.raises(FrameValueError, match="correct_delays stops them"):
            use(frames)


def test_different_targets_have_no_average() -> None:
    words = np.array([0, 0, 0x0101, 0], dtype=np.uint16)
    frames = make_frames(1, 4, header={"target": words})
    with pytest.raises(FrameValueError, match="frames of satellite and sun"):
        integrate(frames)
    integrator = Integrator(1, bands=[0, 1])
    integrator.add(frames.select(slice(0, 2)))
    with pytest.raises(FrameValueError, match="have no average"):
        integrator.add(frames.select(slice(2, 3)))
