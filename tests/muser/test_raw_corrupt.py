"""Damaged files give an error or skipped frames, never a wrong number."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from raw_tools import NOON_NS, SIZES, coded, random_frames, save

from muser_pipeline.array import load_array
from muser_pipeline.errors import RawFormatError, WrongArrayError
from muser_pipeline.raw import RawFile, SkippedFrame, open_raw
from muser_pipeline.raw.neighbours import JITTER_NS

FRAMES = {array: random_frames(array, 12) for array in (1, 2)}
FIXED = {array: random_frames(array, 12, mode="fixed", first=3) for array in (1, 2)}
CODED = {
    (array, mode): b"".join(coded(frames[array]))
    for array in (1, 2)
    for mode, frames in (("loop", FRAMES), ("fixed", FIXED))
}
QUICK = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BOTH = pytest.mark.parametrize("array", [1, 2])


def numbers(raw: RawFile) -> list[int]:
    return raw.contents.number.tolist()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RawFormatError, match=r"raw: the file is empty"):
        open_raw(save(tmp_path / "raw", []))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_raw(tmp_path / "raw")


def test_a_file_without_frames_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).bytes(300_000)
    with pytest.raises(RawFormatError, match="there is no sync"):
        open_raw(save(tmp_path / "raw", [noise]))


def test_a_layout_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 'older'"):
        open_raw(tmp_path / "raw", layout="older")  # type: ignore[arg-type]


@BOTH
def test_a_file_of_the_other_array_is_refused(tmp_path: Path, array: int) -> None:
    path = save(tmp_path / "raw", coded(FRAMES[array]))
    with open_raw(path) as raw:
        assert raw.array == array
    with pytest.raises(WrongArrayError, match=r"raw: of MUSER-I+, not of MUSER-I+"):
        open_raw(path, array=3 - array)


@BOTH
@pytest.mark.parametrize("count", [1, 2])
def test_the_array_of_a_few_frames_is_told(
    tmp_path: Path, array: int, count: int
) -> None:
    path = save(tmp_path / "raw", coded(FRAMES[array])[:count])
    with open_raw(path, layout="new") as raw:
        assert (raw.array, len(raw)) == (array, count)


@BOTH
def test_a_frame_that_is_alone_and_short_is_refused(tmp_path: Path, array: int) -> None:
    path = save(tmp_path / "raw", [coded(FRAMES[array])[0][:90_000]])
    with pytest.raises(RawFormatError, match="no whole frame"):
        open_raw(path)


@BOTH
@pytest.mark.parametrize("left", [1, 20, 28, 100, 3000, 99_999])
def test_a_short_last_frame_is_skipped(tmp_path: Path, array: int, left: int) -> None:
    pieces = coded(FRAMES[array])
    path = save(tmp_path / "raw", [*pieces[:11], pieces[11][:left]])
    with open_raw(path) as raw:
        assert numbers(raw) == list(range(11))
        assert raw.skipped == (
            SkippedFrame(
                11,
                11 * SIZES[array],
                f"cut short: {left} of {SIZES[array]} bytes before the file ends",
            ),
        )
        assert str(raw.skipped[0]).startswith(f"frame 11 at byte {11 * SIZES[array]}: ")


@BOTH
@pytest.mark.parametrize("which", [[0], [5], [11], [4, 5], [0, 1, 2], [10, 11]])
def test_a_frame_with_wrong_sync_is_skipped(
    tmp_path: Path, array: int, which: list[int]
) -> None:
    pieces = coded(FRAMES[array])
    for number in which:
        pieces[number][17] ^= 4
    with open_raw(save(tmp_path / "raw", pieces)) as raw:
        assert [(s.number, s.reason) for s in raw.skipped] == [
            (number, "wrong sync") for number in which
        ]
        assert numbers(raw) == [n for n in range(12) if n not in which]
        np.testing.assert_array_equal(
            raw.read().visibilities, FRAMES[array].visibilities[numbers(raw)]
        )


@BOTH
def test_the_sync_is_found_again_after_lost_bytes(tmp_path: Path, array: int) -> None:
    pieces = coded(FRAMES[array])
    del pieces[4][50_000:50_001]
    with open_raw(save(tmp_path / "raw", pieces)) as raw:
        assert numbers(raw) == [n for n in range(12) if n != 4]
        assert raw.contents.offset[4] == 5 * SIZES[array] - 1
        assert raw.skipped[0].reason == (
            f"cut short: the next frame begins after {SIZES[array] - 1} bytes"
        )


@BOTH
def test_bytes_between_frames_make_the_one_before_doubtful(
    tmp_path: Path, array: int
) -> None:
    pieces: list[bytes | bytearray] = [*coded(FRAMES[array])]
    pieces.insert(5, b"spurious")
    with open_raw(save(tmp_path / "raw", pieces)) as raw:
        found = raw.read()
    assert [s.number for s in raw.skipped] == [4, 5]
    assert "8 bytes lie between" in raw.skipped[0].reason
    np.testing.assert_array_equal(
        found.time_utc_ns, np.delete(FRAMES[array].time_utc_ns, 4)
    )


@BOTH
def test_bytes_before_the_first_frame_are_skipped(tmp_path: Path, array: int) -> None:
    path = save(tmp_path / "raw", [b"\x55" * 40, *coded(FRAMES[array])])
    with open_raw(path) as raw:
        assert raw.contents.offset[0] == 40
        assert raw.skipped == (SkippedFrame(0, 0, "wrong sync"),)
        assert len(raw) == 12


@BOTH
def test_the_first_frame_is_found_though_the_second_is_broken(
    tmp_path: Path, array: int
) -> None:
    pieces = coded(FRAMES[array])
    pieces[1][3] = 0
    path = save(tmp_path / "raw", [b"\x55" * 40, *pieces])
    with open_raw(path) as raw:
        assert raw.contents.offset[0] == 40
        assert len(raw) == 11


@BOTH
def test_the_rest_of_a_frame_after_lost_bytes_is_skipped(
    tmp_path: Path, array: int
) -> None:
    pieces = coded(FRAMES[array])
    del pieces[10][60_000:60_005]
    with open_raw(save(tmp_path / "raw", [*pieces[:11], pieces[11][:100]])) as raw:
        assert numbers(raw) == list(range(10))
        assert [skipped.number for skipped in raw.skipped] == [10, 11]


@BOTH
def test_a_sync_without_a_time_is_no_frame(tmp_path: Path, array: int) -> None:
    piece = coded(FRAMES[array])[0]
    piece[32:40] = b"\xff" * 8
    with pytest.raises(RawFormatError, match="no frame can be read; frame 0 at byte 0"):
        open_raw(save(tmp_path / "raw", [b"before", piece]))


@given(
    array=st.sampled_from([1, 2]),
    start=st.floats(0, 11.9),
    length=st.floats(0.0001, 3.0),
    inserted=st.binary(max_size=200),
)
@example(array=1, start=0.001953125, length=1.674753350091579, inserted=b"")
@QUICK
def test_lost_and_spurious_bytes_never_give_a_frame_that_was_not_written(
    tmp_path: Path, array: int, start: float, length: float, inserted: bytes
) -> None:
    size = SIZES[array]
    data = CODED[array, "loop"]
    first = int(start * size)
    end = min(first + int(length * size), len(data))
    # a loss of exactly a frame makes one of the halves of two, which nobody can see
    assume((end - first - len(inserted)) % size)
    path = save(tmp_path / "raw", [data[:first], inserted, data[end:]])
    frames = FRAMES[array]
    places = {int(time): k for k, time in enumerate(frames.time_utc_ns)}
    with open_raw(path, layout="new") as raw:
        found = raw.read()
    true = frames.select(np.array([places[int(t)] for t in found.time_utc_ns]))
    np.testing.assert_array_equal(found.visibilities, true.visibilities)
    np.testing.assert_array_equal(found.autocorrelations, true.autocorrelations)
    np.testing.assert_array_equal(found.delay_ns, true.delay_ns)
    np.testing.assert_array_equal(found.band, true.band)
    np.testing.assert_array_equal(found.polarization, true.polarization)
    assert len(found) >= 12 - (end - first) // size - 3


@given(
    array=st.sampled_from([1, 2]),
    mode=st.sampled_from(["loop", "fixed"]),
    number=st.integers(0, 11),
    bit=st.integers(0, 8 * 210 - 1),
)
@settings(parent=QUICK, max_examples=150)
def test_a_bit_that_flips_in_a_header_never_gives_a_wrong_number(
    tmp_path: Path, array: int, mode: str, number: int, bit: int
) -> None:
    frames = FRAMES[array] if mode == "loop" else FIXED[array]
    data = bytearray(CODED[array, mode])
    data[number * SIZES[array] + bit // 8] ^= 1 << bit % 8
    with open_raw(save(tmp_path / "raw", [data]), layout="new") as raw:
        found = raw.contents
        times = raw.time_utc_ns
        hands = raw.polarization
    assert len(found.number) >= 11
    if len(found.number) == 11:
        assert [skipped.number for skipped in raw.skipped] == [number]
    late = np.abs(times - frames.time_utc_ns[found.number])
    # at the ends of a file nothing tells a wrong time from one after lost frames
    if number not in (0, 11):
        assert np.all(late <= JITTER_NS)
    np.testing.assert_array_equal(found.band, frames.band[found.number])
    known = hands != "??"
    true = frames.polarization[found.number]
    np.testing.assert_array_equal(hands[known], true[known])


def damaged(array: int, number: int, offset: int, value: bytes) -> list[bytearray]:
    pieces = coded(FRAMES[array])
    pieces[number][offset : offset + len(value)] = value
    return pieces


IMPOSSIBLE = [
    (1, 32, struct.pack("<Q", 15 << 52 | 13 << 48), "time word .*: no time"),
    (2, 32, struct.pack("<Q", 15 << 52 | 2 << 48 | 30 << 43), "time word .*: no time"),
    (1, 208, b"\x08", "impossible band code 0xffff"),
    (1, 208, b"\xff", "impossible band code 0xffff"),
    (1, 208, b"\x03", "its band does not fit those around it"),
    (1, 190, struct.pack("<H", 0x7777), "its band does not fit those around it"),
    (2, 196, struct.pack("<H", 66), "impossible band code 0xcccc"),
    (2, 196, struct.pack("<H", 20), "its band does not fit those around it"),
    (1, 172, struct.pack("<I", 0x77777777), "channels of 12.5 MHz, only 25 MHz"),
    (1, 172, struct.pack("<I", 7), "bandwidth code 0x00000007 is unknown"),
    (1, 194, struct.pack("<H", 0x4E4E), "array tag 0x4e4e of the other array"),
    (2, 194, struct.pack("<H", 0x0000), "array tag 0x0000 of the other array"),
]


@pytest.mark.parametrize(("array", "offset", "value", "reason"), IMPOSSIBLE)
def test_a_frame_with_an_impossible_header_is_skipped(
    tmp_path: Path, array: int, offset: int, value: bytes, reason: str
) -> None:
    pieces = damaged(array, 6, offset, value)
    with open_raw(save(tmp_path / "raw", pieces)) as raw:
        assert numbers(raw) == [n for n in range(12) if n != 6]
        (skipped,) = raw.skipped
        assert (skipped.number, skipped.offset) == (6, 6 * SIZES[array])
        assert re.search(reason, skipped.reason)


@BOTH
@pytest.mark.parametrize("number", [0, 5, 11])
def test_a_time_far_from_the_rest_is_refused(
    tmp_path: Path, array: int, number: int
) -> None:
    word = int(FRAMES[array].header["time"][number]) ^ 1 << 53
    pieces = damaged(array, number, 32, struct.pack("<Q", word))
    with open_raw(save(tmp_path / "raw", pieces)) as raw:
        assert numbers(raw) == [n for n in range(12) if n != number]
        assert "its time 2013-11-01T" in raw.skipped[0].reason


def test_the_frames_of_a_file_must_not_all_be_wrong(tmp_path: Path) -> None:
    pieces = coded(FRAMES[1])
    for piece in pieces:
        piece[208] = 9
    with pytest.raises(RawFormatError, match=r"raw: no frame can be read; frame 0 at"):
        open_raw(save(tmp_path / "raw", pieces), layout="new")


@BOTH
def test_an_illegal_delay_is_no_number_and_flags_its_baselines(
    tmp_path: Path, array: int
) -> None:
    pieces = coded(FRAMES[array])
    # the fractions of inputs 4 to 7, and something of the whole of one
    start = {1: 2944 + 12128 * 7 + 11392 + 64, 2: 1888 + 12680 * 15 + 12096}[array]
    pieces[6][start + 40 : start + 49] = b"\xff" * 9
    with open_raw(save(tmp_path / "raw", pieces)) as raw:
        found = raw.read()
    bad = np.zeros_like(found.delay_ns, dtype=bool)
    bad[6, 4:8] = True
    np.testing.assert_array_equal(np.isnan(found.delay_ns), bad)
    first, second = load_array(array).baseline_inputs()
    expected = bad[:, first] | bad[:, second]
    np.testing.assert_array_equal(found.flags, expected[..., np.newaxis] | [False] * 16)
    np.testing.assert_array_equal(found.delay_ns[~bad], FRAMES[array].delay_ns[~bad])


def test_a_file_can_be_closed_and_its_frames_kept(tmp_path: Path) -> None:
    with open_raw(save(tmp_path / "raw", coded(FRAMES[1]))) as raw:
        found = raw.read()
    np.testing.assert_array_equal(found.visibilities, FRAMES[1].visibilities)
    with pytest.raises(ValueError, match="closed"):
        raw.read()


def test_a_file_that_is_cut_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "raw", coded(FRAMES[1]))
    with open_raw(path) as raw:
        with path.open("r+b") as file:
            file.truncate(150_000)
        with pytest.raises(RawFormatError, match="was cut to 150000 bytes"):
            raw.read()


def test_a_file_that_is_removed_while_it_is_open_can_be_read(tmp_path: Path) -> None:
    path = save(tmp_path / "raw", coded(FRAMES[1]))
    with open_raw(path) as raw:
        path.unlink()
        np.testing.assert_array_equal(raw.read().visibilities, FRAMES[1].visibilities)


def test_files_may_be_joined(tmp_path: Path) -> None:
    later = random_frames(1, 8, start_ns=NOON_NS + 5 * 3600 * 10**9)
    path = save(tmp_path / "raw", coded(FRAMES[1]) + coded(later))
    with open_raw(path) as raw:
        assert len(raw) == 20
