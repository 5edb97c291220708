"""An archive by time: gaps, repeated frames, frames out of order, loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_tools import NOON_NS, assert_same, coded, random_frames, save

from muser_pipeline.archive import Archive, Gap, Selection, find_loops, index_archive
from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.errors import FrameValueError

P = FRAME_PERIOD_NS
FRAMES = random_frames(1, 48)
CODED = coded(FRAMES)
START, END = NOON_NS, NOON_NS + 48 * P


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "20151101" / "MUSER-1" / "dat"
    made.mkdir(parents=True)
    return made


def archive_of(folder: Path, *files: list[bytearray]) -> Archive:
    for number, pieces in enumerate(files):
        save(folder / f"20151101-12{number:02}", pieces)
    return index_archive(folder.parent.parent.parent, 1)


def places(selection: Selection) -> list[int]:
    """Return which of the frames were found."""
    return ((selection.time_utc_ns - START) // P).tolist()


def test_files_are_found_and_sorted_by_the_times_in_them(folder: Path) -> None:
    save(folder / "20151101-1200", CODED[16:32])
    save(folder / "CSRH_20141217-123418_13352702", CODED[:16])
    save(folder / "20151101-120059", CODED[32:])
    (folder / "notes.txt").write_text("not a raw file")
    save(folder / "20151101-1201.bak", CODED[:16])
    archive = index_archive(folder, 1)
    assert [file.path.name for file in archive.files] == [
        "CSRH_20141217-123418_13352702",
        "20151101-1200",
        "20151101-120059",
    ]
    assert [file.first_utc_ns for file in archive.files] == [
        START + k * 16 * P for k in range(3)
    ]
    assert archive.files[2].last_utc_ns == END - P
    assert archive.unreadable == ()


def test_files_of_the_other_array_are_passed_over(folder: Path) -> None:
    save(folder / "20151101-1200", coded(random_frames(2, 3)))
    save(folder / "20151101-1201", CODED[:8])
    for array, name in ((1, "20151101-1201"), (2, "20151101-1200")):
        archive = index_archive(folder, array)
        assert [file.path.name for file in archive.files] == [name]


def test_a_file_may_have_any_name_when_it_is_named(tmp_path: Path) -> None:
    archive = index_archive(save(tmp_path / "some frames", CODED[:8]), 1)
    assert len(archive.files) == 1


def test_files_that_cannot_be_read_are_named(folder: Path) -> None:
    archive = archive_of(folder, [], [bytearray(b"nothing")], CODED[:8])
    assert len(archive.files) == 1
    assert [(p.name, "empty" in why) for p, why in archive.unreadable] == [
        ("20151101-1200", True),
        ("20151101-1201", False),
    ]
    with pytest.raises(FileNotFoundError, match="no archive"):
        index_archive(folder / "nowhere", 1)


@pytest.mark.parametrize("number", [0, 1, 15])
def test_a_damaged_file_is_still_found(folder: Path, number: int) -> None:
    pieces = [*CODED[:16]]
    pieces[number] = bytearray(b"\xaa" * len(pieces[number]))
    archive = archive_of(folder, pieces)
    assert archive.unreadable == ()
    with archive.select(START, START + 16 * P) as selection:
        assert places(selection) == [k for k in range(16) if k != number]
        assert [each.frame.number for each in selection.skipped] == [number]
        assert selection.missing == 1


def test_a_range_over_files_is_read_as_one(folder: Path) -> None:
    archive = archive_of(folder, CODED[:16], CODED[16:32], CODED[32:])
    with archive.select(START, END) as selection:
        assert len(selection) == 48
        assert selection.gaps == ()
        assert_same(selection.read(), FRAMES)
        assert_same(selection.read(10, 40), FRAMES.select(slice(10, 40)))
        which = np.array([40, 3, 20, 21])
        assert_same(selection.take(which), FRAMES.select(which))
        with pytest.raises(FrameValueError, match="no frames"):
            selection.read(48)


def test_the_end_of_a_range_is_not_in_it(folder: Path) -> None:
    archive = archive_of(folder, CODED)
    with archive.select(START + 4 * P, START + 9 * P) as selection:
        assert places(selection) == [4, 5, 6, 7, 8]
        assert selection.gaps == ()


def test_only_files_of_the_range_are_opened(folder: Path) -> None:
    late = random_frames(1, 8, start_ns=START + 60 * 10**9)
    archive = archive_of(folder, CODED, coded(late))
    with archive.select(START, END) as selection:
        assert [file.path.name for file in selection.files] == ["20151101-1200"]


def test_bands_and_polarisations_are_chosen(folder: Path) -> None:
    archive = archive_of(folder, CODED)
    with archive.select(START, END, bands=[1, 3], polarizations=["RR"]) as selection:
        assert set(selection.band) == {1, 3}
        assert set(selection.polarization) == {"RR"}
        assert len(selection) == 12
        # what was not asked for is not missing
        assert selection.gaps == ()


def test_gaps_are_found_inside_and_at_the_ends(folder: Path) -> None:
    archive = archive_of(folder, CODED[:16], CODED[19:30], CODED[31:])
    with archive.select(START - 10 * P, END + 5 * P) as selection:
        assert selection.gaps == (
            Gap(START - 10 * P, START, 10),
            Gap(START + 15 * P, START + 19 * P, 3),
            Gap(START + 29 * P, START + 31 * P, 1),
            Gap(END - P, END + 5 * P, 5),
        )
        assert selection.missing == 19


def test_a_range_without_data_is_one_gap(folder: Path) -> None:
    archive = archive_of(folder, CODED)
    hour = 3600 * 10**9
    with archive.select(START + hour, START + hour + 320 * P) as selection:
        assert len(selection) == 0
        assert selection.gaps == (Gap(START + hour, START + hour + 320 * P, 320),)
        assert selection.loops().loop.tolist() == []


def test_repeated_frames_are_read_once(folder: Path) -> None:
    archive = archive_of(folder, [*CODED[:16], *CODED[14:16]], CODED[12:20])
    with archive.select(START, START + 20 * P) as selection:
        assert places(selection) == list(range(20))
        assert (selection.repeated, selection.disputed) == (6, 0)
        assert_same(selection.read(), FRAMES.select(slice(0, 20)))


def test_repeated_frames_that_disagree_are_not_read(folder: Path) -> None:
    other = random_frames(1, 4, start_ns=START + 8 * P, first=2)
    archive = archive_of(folder, CODED[:16], coded(other))
    with archive.select(START, START + 16 * P) as selection:
        assert places(selection) == [*range(8), *range(12, 16)]
        assert selection.disputed == 8
        assert selection.gaps == (Gap(START + 7 * P, START + 12 * P, 4),)


def test_frames_out_of_order_are_sorted(folder: Path) -> None:
    pieces = [*CODED[:16]]
    pieces[4], pieces[5] = pieces[5], pieces[4]
    pieces[9:12] = [pieces[10], pieces[11], pieces[9]]
    archive = archive_of(folder, pieces)
    with archive.select(START, START + 16 * P) as selection:
        assert places(selection) == list(range(16))
        assert selection.out_of_order == 2
        assert selection.gaps == ()
        assert_same(selection.read(), FRAMES.select(slice(0, 16)))


def test_a_file_that_disappears_leaves_a_gap(folder: Path) -> None:
    archive = archive_of(folder, CODED[:16], CODED[16:32])
    (folder / "20151101-1201").unlink()
    with archive.select(START, START + 32 * P) as selection:
        assert places(selection) == list(range(16))
        assert [path.name for path, _ in selection.unreadable] == ["20151101-1201"]
        assert selection.missing == 16


@pytest.mark.parametrize("lost", range(16))
def test_a_lost_frame_leaves_the_other_loops_whole(folder: Path, lost: int) -> None:
    pieces = [*CODED[:24]]
    del pieces[lost]
    archive = archive_of(folder, pieces)
    with archive.select(START, START + 24 * P) as selection:
        loops = selection.loops()
        np.testing.assert_array_equal(loops.loop, np.array(places(selection)) // 8)
        assert loops.is_complete.tolist() == [k != lost // 8 for k in range(3)]
        assert loops.frames.tolist() == [8 - (k == lost // 8) for k in range(3)]


def test_a_loop_that_begins_anew_is_another_loop() -> None:
    codes = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7])
    loops = find_loops(np.arange(12) * P, codes // 2, codes % 2, 8)
    assert loops.loop.tolist() == [0] * 4 + [1] * 8
    assert loops.is_complete.tolist() == [False, True]


def test_a_frame_that_does_not_tell_is_of_no_loop() -> None:
    codes = np.arange(8)
    hand = codes % 2
    hand[3] = 2
    loops = find_loops(np.arange(8) * P + 3, codes // 2, hand, 8)
    assert loops.loop.tolist() == [0, 0, 0, -1, 0, 0, 0, 0]
    assert loops.is_complete.tolist() == [False]


def test_the_loops_of_muser_2(tmp_path: Path) -> None:
    frames = random_frames(2, 70, first=64)
    archive = index_archive(save(tmp_path / "raw", coded(frames)), 2)
    with archive.select(NOON_NS, NOON_NS + 70 * P) as selection:
        assert selection.loops().frames.tolist() == [2, 66, 2]
        assert selection.loops().is_complete.tolist() == [False, True, False]
