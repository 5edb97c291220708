"""Items are cut into slices, and slices become what is imaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imaging_scene import (
    JANSKY_PER_UNIT,
    LONG_AGO_NS,
    SPOT,
    bytes_of,
    frames_of,
    observation,
)

from muser_pipeline.array import FRAME_PERIOD_NS, SPEED_OF_LIGHT_M_PER_S, load_array
from muser_pipeline.calibration import (
    correct_delays,
    make_calibration,
    write_calibration,
)
from muser_pipeline.errors import TableError, WrongArrayError
from muser_pipeline.geometry import Sun, follow, heliographic
from muser_pipeline.integration import integrate
from muser_pipeline.raw import encode_frames, received_raw
from muser_pipeline.realtime.cutting import Slice, average, cut, read_item, scene_of
from muser_pipeline.realtime.options import ImageRequest
from opencluster import WorkPiece

SIZE = {1: 100_000, 2: 204_800}


def request(**asked: object) -> ImageRequest:
    return ImageRequest.read({"out": "/nowhere", "flag_known": False, **asked})


def slices(data: bytes, array: int = 1, together: bool = False, **asked: object):
    wanted = request(**asked)
    return list(cut(read_item(data, array, wanted), wanted, together=together))


def test_an_item_is_cut_by_band_polarization_and_channels() -> None:
    data = bytes_of(observation(), 24)
    found = slices(data, polarizations=["RR", "I"], channels=8, bands=[1, 2])
    assert [(piece.band, *piece.images) for piece in found] == [
        (band, (hand, first, 8))
        for band in (1, 2)
        for hand in ("I", "RR")
        for first in (0, 8)
    ]
    both, right = found[0], found[2]
    # frames 2, 3, 10, 11, 18, 19 are those of band 1, the left hand first
    assert len(both.times) == 6
    assert len(right.times) == 3
    sent = np.frombuffer(data, np.uint8).reshape(24, SIZE[1])
    assert np.array_equal(right.frames.reshape(3, -1), sent[[3, 11, 19]])
    assert np.array_equal(both.frames.reshape(6, -1), sent[[2, 3, 10, 11, 18, 19]])
    start = both.times[0] - 2 * FRAME_PERIOD_NS
    # one time for all images of a band
    assert {both.time_utc_ns, right.time_utc_ns} == {start + 21 * FRAME_PERIOD_NS // 2}


def test_images_of_the_same_frames_may_be_made_together() -> None:
    data = bytes_of(observation(), 8)
    asked = ["V", "I", "LL"]
    found = slices(data, together=True, polarizations=asked, bands=[3])
    assert [list(piece.images) for piece in found] == [
        [("I", 0, 16), ("V", 0, 16)],
        [("LL", 0, 16)],
    ]
    assert [len(piece.times) for piece in found] == [2, 1]


@pytest.mark.parametrize(
    ("array", "start_ns", "layout"),
    [(1, None, "new"), (1, LONG_AGO_NS, "old"), (2, None, "new")],
)
def test_slices_are_averaged_as_files_are(
    array: int, start_ns: int | None, layout: str
) -> None:
    rest = {} if start_ns is None else {"start_ns": start_ns}
    seen = observation(array, layout=layout, fringes_stopped=False, **rest)
    count = 2 * load_array(array).frames_per_loop
    data = bytes_of(seen, count)
    with received_raw(data, layout) as raw:  # type: ignore[arg-type]
        whole = integrate(correct_delays(raw.read()), 1 << 62)
    for piece in slices(data, array, polarizations=["I", "LL"], bands=[0, 2]):
        # as it comes out of a work piece
        sent = WorkPiece(slice=piece.plain())
        got = average(Slice(**sent["slice"]), request()).visibilities
        band = whole.bands.tolist().index(piece.band)
        for place, hand in enumerate(got.polarizations):
            there = whole.polarizations.index(hand)
            assert np.array_equal(got.data[0, 0, place], whole.data[0, band, there])
            assert np.array_equal(
                got.weights[0, 0, place], whole.weights[0, band, there]
            )


def test_a_scene_is_what_the_sky_looks_like() -> None:
    (piece,) = slices(
        bytes_of(observation(update_ns=10**7), 8), polarizations=["RR"], bands=[2]
    )
    asked = request(jansky_per_unit=JANSKY_PER_UNIT)
    averaged = average(piece, asked)
    scene = scene_of(averaged.visibilities, piece.time_utc_ns, asked)
    snapshot = scene.channels(4, 2)
    array = load_array(1)
    assert snapshot.frequency_hz.tolist() == array.channel_centres_hz(2)[4:6].tolist()
    track = follow(Sun(), np.array([piece.time_utc_ns]), array.site)
    sun = heliographic(track)
    east, north = SPOT.direction(0.0, float(np.radians(sun.p_deg[0])))
    u, v, w = (snapshot.uvw_m[:, axis, np.newaxis] for axis in range(3))
    below = np.sqrt(1 - east**2 - north**2) - 1
    metres = u * east + v * north + w * below
    turns = metres * snapshot.frequency_hz / SPEED_OF_LIGHT_M_PER_S
    jansky = 1.5 * 50.0 * 1e4
    error = np.abs(snapshot.data[0] - jansky * np.exp(2j * np.pi * turns))
    # rounded to whole units, and 5 ms from the middle of what was simulated
    assert error.max() < 2e-3 * jansky
    assert snapshot.unit == "Jy"
    assert snapshot.telescope == "MUSER-I"
    assert np.degrees(snapshot.ra_rad) == pytest.approx(track.ra_deg[0])
    assert np.degrees(snapshot.dec_rad) == pytest.approx(track.dec_deg[0])
    assert scene.sun is not None
    assert np.degrees(scene.sun.p_rad) == pytest.approx(sun.p_deg[0])
    assert np.degrees(scene.sun.b0_rad) == pytest.approx(sun.b0_deg[0])
    assert np.degrees(scene.sun.l0_rad) == pytest.approx(sun.l0_deg[0])
    assert np.degrees(scene.sun.radius_rad) * 3600 == pytest.approx(966.4, abs=1)
    assert scene.sun.distance_m == pytest.approx(0.9926 * 1.496e11, rel=1e-3)


def test_of_a_calibrator_there_is_no_sun() -> None:
    (piece,) = slices(bytes_of(observation(), 8), polarizations=["RR"], bands=[0])
    asked = request(source="Cygnus A")
    visibilities = average(piece, asked).visibilities
    scene = scene_of(visibilities, piece.time_utc_ns, asked)
    assert scene.sun is None
    assert scene.snapshot.unit == "arbitrary"
    assert scene.snapshot.target == "Cygnus A"


def test_a_band_with_one_hand_gives_images_of_that_hand() -> None:
    frames = frames_of(observation(), 16)
    kept = frames.select((frames.band != 1) | (frames.polarization == "LL"))
    found = slices(encode_frames(kept).tobytes())
    assert [piece.images for piece in found if piece.band == 1] == [[("LL", 0, 16)]]
    (note,) = {piece.note for piece in found if piece.band == 1}
    assert note == "I and V: there are frames of LL alone"
    assert {piece.note for piece in found if piece.band != 1} == {""}


def test_inputs_that_are_of_no_use_are_left_out_and_told() -> None:
    frames = frames_of(observation(), 8)
    autos = frames.autocorrelations.copy()
    autos[:, :, 5] = 0
    autos[:, :, 9] *= 100
    data = encode_frames(frames.replace(autocorrelations=autos)).tobytes()
    (piece,) = slices(data, polarizations=["RR"], bands=[0])
    first, second = load_array(1).baseline_inputs()

    def used(**asked: object) -> set[int]:
        averaged = average(piece, request(**asked))
        good = (averaged.visibilities.weights[0, 0, 0] > 0).all(axis=1)
        return set(first[good].tolist()) | set(second[good].tolist())

    assert average(piece, request()).notes == (
        "inputs without power: 5",
        "inputs saturated: 9",
    )
    assert used() == set(range(40)) - {5, 9}
    assert used(flag_dead=False) == set(range(40)) - {9}
    assert used(flag_saturated=False, flag_inputs=[1]) == set(range(40)) - {1, 5}
    # as the observers list them for that day
    assert used(flag_known=True) < used()


def test_a_calibration_is_applied(tmp_path: Path) -> None:
    seen = observation()
    path = tmp_path / "20151101-0.cal"
    write_calibration(path, make_calibration(frames_of(seen, 8), source="point"))
    (piece,) = slices(bytes_of(seen, 8), polarizations=["RR"], bands=[0])
    asked = request(calibration=path, amplitude=True)
    data = average(piece, asked).visibilities.data
    assert np.abs(data - 1).max() < 1e-3
    with pytest.raises((TableError, OSError)):
        average(piece, replace(asked, calibration=tmp_path / "missing.cal"))


def test_frames_of_the_other_array_are_refused() -> None:
    with pytest.raises(WrongArrayError, match="of MUSER-I, not of MUSER-II"):
        read_item(bytes_of(observation(), 8), 2, request())
