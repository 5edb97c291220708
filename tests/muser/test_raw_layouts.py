"""Old and new layouts told apart; polarisations of the old one from pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_tools import LONG_AGO_NS, NOON_NS, coded, random_frames, save

from muser_pipeline.errors import LayoutWarning
from muser_pipeline.raw import open_raw

OLD = random_frames(1, 24, layout="old", start_ns=LONG_AGO_NS, first=3)
CODED_OLD = coded(OLD)
SPRING_NS = int(np.datetime64("2015-03-01", "ns").astype(np.int64))
"""When one public reader expects the new layout and another the old one."""


def hands(path: Path, pieces: list[bytearray]) -> str:
    """Return a letter for each frame: L, R or ?."""
    with open_raw(save(path, pieces), layout="old") as raw:
        return "".join(hand[0] for hand in raw.polarization)


@pytest.mark.parametrize("start_ns", [LONG_AGO_NS, SPRING_NS, NOON_NS])
@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("first", range(8))
def test_the_layout_of_a_loop_is_seen_whatever_the_date(
    tmp_path: Path, layout: str, start_ns: int, first: int
) -> None:
    frames = random_frames(1, 8, layout=layout, start_ns=start_ns, first=first)
    with open_raw(save(tmp_path / "raw", coded(frames))) as raw:
        assert raw.layout == layout
        np.testing.assert_array_equal(raw.band, frames.band)
        np.testing.assert_array_equal(raw.polarization, frames.polarization)


@pytest.mark.parametrize("layout", ["old", "new"])
def test_the_layout_is_seen_through_losses(tmp_path: Path, layout: str) -> None:
    frames = random_frames(1, 24, layout=layout, start_ns=SPRING_NS)
    pieces = coded(frames)
    pieces[7][208] ^= 1
    pieces[7][99264] ^= 0x55
    with open_raw(save(tmp_path / "raw", pieces[:3] + pieces[4:])) as raw:
        assert raw.layout == layout
        np.testing.assert_array_equal(
            raw.band, frames.band[np.isin(frames.time_utc_ns, raw.time_utc_ns)]
        )
        assert len(raw) >= 21


@pytest.mark.parametrize(
    ("start_ns", "layout"), [(LONG_AGO_NS, "old"), (SPRING_NS, "new")]
)
def test_the_date_decides_with_a_warning_when_no_layout_fits(
    tmp_path: Path, start_ns: int, layout: str
) -> None:
    pieces = coded(random_frames(1, 10, layout=layout, start_ns=start_ns))
    for piece in pieces:
        piece[208] = 2
        piece[99264:99266] = b"\x55\x55"
    with (
        pytest.warns(LayoutWarning, match=f"taken as {layout} by the date"),
        open_raw(save(tmp_path / "raw", pieces)) as raw,
    ):
        assert raw.layout == layout


def test_the_warning_points_at_who_opens_the_file(tmp_path: Path) -> None:
    pieces = coded(random_frames(1, 4, start_ns=SPRING_NS))
    with pytest.warns(LayoutWarning, match="too few frames in a loop") as caught:
        open_raw(save(tmp_path / "raw", pieces)).close()
    assert Path(caught[0].filename) == Path(__file__)


@pytest.mark.parametrize(
    ("start_ns", "layout"), [(LONG_AGO_NS, "old"), (NOON_NS, "new")]
)
def test_a_few_frames_have_the_layout_of_their_date(
    tmp_path: Path, start_ns: int, layout: str
) -> None:
    frames = random_frames(1, 4, layout=layout, start_ns=start_ns)
    with open_raw(save(tmp_path / "raw", coded(frames))) as raw:
        assert raw.layout == layout


def test_the_date_of_the_new_layout_can_be_said(tmp_path: Path) -> None:
    frames = random_frames(1, 10, mode="fixed", layout="old", start_ns=SPRING_NS)
    path = save(tmp_path / "raw", coded(frames))
    with open_raw(path) as raw:
        assert raw.layout == "new"
    with open_raw(path, new_layout_since=np.datetime64("2015-05-01")) as raw:
        assert raw.layout == "old"


def test_a_layout_that_is_said_is_taken(tmp_path: Path) -> None:
    frames = random_frames(1, 10, start_ns=LONG_AGO_NS, target="satellite")
    path = save(tmp_path / "raw", coded(frames))
    with open_raw(path, layout="new") as raw:
        assert raw.read().target.tolist() == ["satellite"] * 10


def test_pairs_give_the_polarisation(tmp_path: Path) -> None:
    assert hands(tmp_path / "raw", CODED_OLD) == "RL" * 12


@pytest.mark.parametrize("start", range(8))
def test_the_polarisation_does_not_depend_on_where_a_file_begins(
    tmp_path: Path, start: int
) -> None:
    expected = ("RL" * 12)[start:]
    assert hands(tmp_path / "raw", CODED_OLD[start:]) == expected


@pytest.mark.parametrize("lost", range(24))
def test_a_lost_frame_does_not_turn_the_polarisations(
    tmp_path: Path, lost: int
) -> None:
    pieces = [piece.copy() for piece in CODED_OLD]
    del pieces[lost]
    # the first and the last but for one have no neighbour left
    expected = {1: "?" + "RL" * 11, 22: "RL" * 11 + "?"}
    rest = "RL" * 12
    assert hands(tmp_path / "raw", pieces) == expected.get(
        lost, rest[:lost] + rest[lost + 1 :]
    )


def test_a_frame_without_neighbours_has_no_polarisation(tmp_path: Path) -> None:
    pieces = [piece.copy() for piece in CODED_OLD]
    assert hands(tmp_path / "raw", [pieces[0], pieces[2], *pieces[6:9]]) == "??RLR"


def test_frames_out_of_order_are_paired_by_time(tmp_path: Path) -> None:
    pieces = [piece.copy() for piece in CODED_OLD]
    pieces[8], pieces[9] = pieces[9], pieces[8]
    pieces.insert(12, pieces[12])
    expected = list("RL" * 12)
    expected[8], expected[9] = expected[9], expected[8]
    expected.insert(12, expected[12])
    assert hands(tmp_path / "raw", pieces) == "".join(expected)


@pytest.mark.parametrize("number", range(24))
@pytest.mark.parametrize("code", [0x0000, 0x5555, 0xAAAA, 0xFFFF, 0x1234])
def test_a_wrong_code_never_gives_a_wrong_band_or_polarisation(
    tmp_path: Path, number: int, code: int
) -> None:
    pieces = [piece.copy() for piece in CODED_OLD]
    pieces[number][99264:99266] = code.to_bytes(2, "little")
    with open_raw(save(tmp_path / "raw", pieces), layout="old") as raw:
        found = raw.contents.number
        np.testing.assert_array_equal(raw.band, OLD.band[found])
        known = raw.polarization != "??"
        np.testing.assert_array_equal(
            raw.polarization[known], OLD.polarization[found][known]
        )
    assert len(found) >= 21
