"""What is written is read again, and a decoder that knows nothing of ours agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scalar_decoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_tools import (
    FRACTIONS,
    LONG_AGO_NS,
    NOON_NS,
    SIZES,
    assert_same,
    noise,
    random_frames,
    write,
)

from muser_pipeline.array import load_array
from muser_pipeline.errors import FrameValueError, RawFormatError, WrongArrayError
from muser_pipeline.raw import (
    Frames,
    encode_frames,
    make_frames,
    make_header,
    open_raw,
    received_raw,
    write_raw,
)
from muser_pipeline.raw.clock import decode_time, encode_time
from muser_pipeline.raw.format import WORDS

CASES = [
    (array, mode, layout)
    for array in (1, 2)
    for mode in ("loop", "fixed")
    for layout in ("old", "new")
]


@pytest.mark.parametrize("array", [1, 2])
def test_a_decoder_written_from_the_notes_agrees(tmp_path: Path, array: int) -> None:
    frames = random_frames(array, 2, first=5)
    path = write(tmp_path / "raw", frames)
    with open_raw(path, layout="new", conjugate=False) as raw:
        found = raw.read()
    first, second = load_array(array).baseline_inputs()
    data = path.read_bytes()
    for n in range(2):
        frame = data[SIZES[array] * n : SIZES[array] * (n + 1)]
        slow = scalar_decoder.decode(frame, array)
        assert found.time_utc_ns[n] == slow.time_utc_ns
        values = found.visibilities[n]
        for baseline, (i, j) in enumerate(zip(first, second, strict=True)):
            for c in range(16):
                expected = complex(*slow.visibilities[i, j, c])
                assert values[baseline, c] == expected, (i, j, c)
        assert len(slow.visibilities) == values.size
        for (c, k), word in slow.autos.items():
            assert found.autocorrelations[n, c, k] == word, (c, k)
        for k, (whole, fraction) in slow.delays.items():
            units = whole * FRACTIONS[array] + fraction
            assert found.delay_ns[n, k] == units / FRACTIONS[array], k


@pytest.mark.parametrize(("array", "mode", "layout"), CASES)
def test_what_is_written_is_read(
    tmp_path: Path, array: int, mode: str, layout: str
) -> None:
    start_ns = LONG_AGO_NS if layout == "old" else NOON_NS
    frames = random_frames(array, 9, mode=mode, layout=layout, start_ns=start_ns)
    with open_raw(write(tmp_path / "raw", frames)) as raw:
        assert (len(raw), raw.array, raw.layout) == (9, array, layout)
        assert raw.skipped == ()
        assert_same(raw.read(), frames)
        np.testing.assert_array_equal(raw.time_utc_ns, frames.time_utc_ns)
        np.testing.assert_array_equal(raw.band, frames.band)
        np.testing.assert_array_equal(raw.polarization, frames.polarization)


@given(
    array=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32),
    first=st.integers(0, 7),
    mode=st.sampled_from(["loop", "fixed"]),
    start=st.integers(0, 2**52),
    words=st.fixed_dictionaries(
        {
            name: st.integers(0, 2**16 - 1)
            for name in ("after_sync", "quantisation", "delay", "fringe", "target")
        }
    ),
    is_conjugated=st.booleans(),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_values_come_back_from_a_file(
    tmp_path: Path,
    array: int,
    seed: int,
    first: int,
    mode: str,
    start: int,
    words: dict[str, int],
    is_conjugated: bool,
) -> None:
    is_conjugated = is_conjugated and array == 2
    start_ns = 1_600_000_000 * 10**9 + start * 20
    frames = random_frames(
        array,
        2,
        seed=seed,
        first=first,
        mode=mode,
        start_ns=start_ns,
        is_conjugated=is_conjugated,
    )
    header = {
        **frames.header,
        **{
            name: np.full(2, word, dtype=frames.header[name].dtype)
            for name, word in words.items()
        },
    }
    frames = frames.replace(header=header)
    path = write(tmp_path / "raw", frames)
    with open_raw(path, layout="new", conjugate=is_conjugated) as raw:
        found = raw.read()
    assert_same(found, frames)
    coded = encode_frames(found, noise(found))
    assert coded.tobytes() == path.read_bytes()


@given(
    st.lists(
        st.integers(
            int(np.datetime64("1999-12-31T16:00", "ns").astype(np.int64)) // 20,
            int(np.datetime64("2261-12-31T15:59:59", "ns").astype(np.int64)) // 20,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_time_comes_back_from_its_word(ticks: list[int]) -> None:
    times = np.array(ticks, dtype=np.int64) * 20
    found, is_valid = decode_time(encode_time(times))
    assert is_valid.all()
    np.testing.assert_array_equal(found, times)


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=300)
def test_a_word_is_a_time_or_is_refused(word: int) -> None:
    found, is_valid = decode_time(np.array([word], dtype=np.uint64))
    year = 2000 + (word >> 52)
    try:
        expected = scalar_decoder._time(word.to_bytes(8, "little"))
    except ValueError:
        expected = None
    is_out = word >> 6 & 0x3FF > 999 or word >> 16 & 0x3FF > 999 or year > 2261
    assert is_valid[0] == (expected is not None and not is_out)
    assert found[0] == (expected if is_valid[0] else 0)


def test_the_word_of_the_notes() -> None:
    word = int(encode_time([NOON_NS])[0])
    assert (word & 63, word >> 6 & 1023, word >> 16 & 1023) == (12, 161, 354)
    assert (word >> 38 & 31, word >> 43 & 31, word >> 48 & 15) == (12, 1, 11)
    assert word >> 52 == 15


@pytest.mark.parametrize("tick", range(50, 64))
def test_a_tick_that_is_too_large_is_read_as_0(tick: int) -> None:
    word = int(encode_time([NOON_NS])[0]) & ~63 | tick
    found, is_valid = decode_time(np.array([word], dtype=np.uint64))
    assert is_valid[0]
    assert found[0] == NOON_NS - 240


@pytest.mark.parametrize("time_ns", [NOON_NS + 1, 0, 2**63 - 2**60])
def test_a_time_that_a_frame_cannot_hold_is_refused(time_ns: int) -> None:
    with pytest.raises(FrameValueError, match="a time is"):
        encode_time([time_ns])


def test_muser_2_is_turned_and_conjugated(tmp_path: Path) -> None:
    frames = random_frames(2, 2)
    path = write(tmp_path / "raw", frames)
    with (
        open_raw(path, layout="new") as raw,
        open_raw(path, layout="new", conjugate=False) as other,
    ):
        conjugated, plain = raw.read(), other.read()
    assert (conjugated.is_conjugated, plain.is_conjugated) == (True, False)
    np.testing.assert_array_equal(conjugated.visibilities.conj(), plain.visibilities)
    assert np.all(np.diff(plain.frequency_hz) == 25e6)
    # the first block of a frame is the highest frequency
    head = path.read_bytes()[1888:1900]
    assert plain.visibilities[0, 0, 15].real == int.from_bytes(
        bytes([head[1], head[5], head[9]]), "little", signed=True
    )


def test_large_values_are_clipped_and_fractions_rounded() -> None:
    frames = random_frames(1, 1)
    frames.visibilities[0, :3, 0] = [9e6 - 9e6j, 1.4 - 1.6j, -8388608 + 8388607j]
    coded = encode_frames(frames)
    slow = scalar_decoder.decode(coded.tobytes(), 1)
    assert slow.visibilities[0, 1, 0] == (8388607, -8388608)
    assert slow.visibilities[0, 2, 0] == (1, -2)
    assert slow.visibilities[0, 3, 0] == (-8388608, 8388607)


def test_bytes_without_a_meaning_are_0_unless_they_are_given(tmp_path: Path) -> None:
    frames = random_frames(1, 1)
    coded, filled = encode_frames(frames)[0], encode_frames(frames, noise(frames))[0]
    for unused in (slice(209, 2944), slice(99968, 100000), slice(14296, 14336)):
        assert not coded[unused].any()
        assert filled[unused].any()
    write_raw(tmp_path / "raw", frames)
    assert (tmp_path / "raw").read_bytes() == coded.tobytes()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("visibilities", np.nan, "not finite"),
        ("visibilities", np.inf, "not finite"),
        ("delay_ns", -0.001, "not between 0 and 65536 ns"),
        ("delay_ns", 65536.0, "not between 0 and 65536 ns"),
        ("delay_ns", np.nan, "not between 0 and 65536 ns"),
        ("band", 3, "another band"),
        ("polarization", "RR", "another band or polarisation"),
    ],
)
def test_what_has_no_place_in_a_frame_is_refused(
    name: str, value: object, expected: str
) -> None:
    frames = random_frames(1, 1)
    wrong = getattr(frames, name).copy()
    wrong[0] = value
    with pytest.raises(FrameValueError, match=expected):
        encode_frames(frames.replace(**{name: wrong}))


def test_reading_a_part_is_reading_all_of_it(tmp_path: Path) -> None:
    frames = random_frames(1, 10)
    with open_raw(write(tmp_path / "raw", frames)) as raw:
        whole = raw.read()
        assert_same(raw.read(3, 7), whole.select(slice(3, 7)))
        assert_same(raw.read(8), whole.select(slice(8, None)))
        assert len(raw.read(4, 4)) == 0
        which = np.array([7, 0, 7])
        assert_same(raw.take(which), whole.select(which))
        assert raw.take(which).number.tolist() == [7, 0, 7]


def test_frames_are_joined_and_chosen() -> None:
    frames = random_frames(1, 6)
    parts = [frames.select(slice(0, 2)), frames.select(slice(2, None))]
    assert_same(Frames.concatenate(parts), frames)
    left = frames.select(frames.polarization == "LL")
    assert left.band.tolist() == [0, 1, 2]
    assert set(WORDS) | {"loop_code"} == set(frames.header)
    with pytest.raises(FrameValueError, match="nothing|no frames"):
        Frames.concatenate([])
    with pytest.raises(FrameValueError, match="differ in array"):
        Frames.concatenate([frames, random_frames(2, 1)])
    with pytest.raises(FrameValueError, match=r"delay_ns of 6 frames of MUSER-I has"):
        frames.replace(delay_ns=frames.delay_ns[:, :40])


def test_targets_have_names(tmp_path: Path) -> None:
    frames = random_frames(1, 4)
    words = np.array([0, 0x0101, 0x0202, 7], dtype=np.uint16)
    frames = frames.replace(header={**frames.header, "target": words})
    assert frames.target.tolist() == ["sun", "satellite", "swan", "other"]
    assert frames.replace(layout="old").target.tolist() == ["sun"] * 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"band": [4]}, "MUSER-I has the bands 0 to 3"),
        ({"band": [-1]}, "MUSER-I has the bands 0 to 3"),
        ({"polarization": ["XX"]}, "a frame is LL or RR"),
        ({"target": "moon"}, "target is one of sun, satellite, swan, not 'moon'"),
    ],
)
def test_a_header_has_codes_for_what_there_is(
    options: dict[str, Any], expected: str
) -> None:
    values = {"band": [0], "polarization": ["LL"], **options}
    with pytest.raises(FrameValueError, match=expected):
        make_header(1, **values)


@pytest.mark.parametrize("array", [1, 2])
def test_frames_are_made_of_little(tmp_path: Path, array: int) -> None:
    shape = (2, load_array(array).baselines, 16)
    frames = make_frames(
        array, [NOON_NS, NOON_NS + 3_125_000], [1, 1], ["LL", "RR"], np.ones(shape)
    )
    with open_raw(write(tmp_path / "raw", frames), layout="new") as raw:
        assert_same(raw.read(), frames)
    assert not frames.delay_ns.any()
    assert not frames.autocorrelations.any()
    assert frames.is_conjugated == (array == 2)


@pytest.mark.parametrize("array", [1, 2])
def test_frames_in_memory_are_read_as_those_of_a_file(
    tmp_path: Path, array: int
) -> None:
    path = write(tmp_path / "raw", b"lost", random_frames(array, 9))
    with (
        open_raw(path) as raw,
        received_raw(path.read_bytes(), array=array) as received,
    ):
        assert_same(received.read(1, 5), raw.read(1, 5))
        assert received.skipped == raw.skipped
    with pytest.raises(WrongArrayError, match="received frames: of MUSER-"):
        received_raw(path.read_bytes(), array=3 - array)
    with pytest.raises(RawFormatError, match="received frames: there is nothing"):
        received_raw(b"")
