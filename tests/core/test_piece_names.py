"""How pieces are called, alone and in bundles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.piece_names import is_meant, number_in, piece_name

MANAGER = b"\0\x1f\x2e\x3d\x4c\x5b"
OURS = "1f2e3d4c"

pieces = st.integers(0, 1 << 62)
places = st.integers(0, 1000)


def test_names_tell_of_which_manager_a_piece_is() -> None:
    assert piece_name(MANAGER, 17) == "1f2e3d4c:17"
    assert piece_name(MANAGER, 17, is_bundle=True) == "1f2e3d4c:17+"


@given(pieces, places)
def test_numbers_are_found_in_names(piece: int, place: int) -> None:
    assert number_in(piece_name(MANAGER, piece), OURS) == piece
    name = f"{piece_name(MANAGER, piece, is_bundle=True)}{place}"
    assert number_in(name, OURS) == piece + place
    assert number_in(name, "00000000") is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        OURS,
        f"{OURS}:",
        f"{OURS}:17+",
        f"{OURS}:+3",
        f"{OURS}:17+3+4",
        f"{OURS}:17:3",
        f"{OURS}:-17",
        f"{OURS}:17+-3",
        f"{OURS}: 17",
        f"{OURS}:1_7",
        f"{OURS}:\N{SUPERSCRIPT TWO}",
        f"{OURS}:17+\N{SUPERSCRIPT TWO}",
        f"{OURS}:{'9' * 5000}",
        "17",
    ],
)
def test_what_is_no_name_has_no_number(name: str) -> None:
    assert number_in(name, OURS) is None


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_taken(name: str, asked: str) -> None:
    number = number_in(f"{OURS}:{name}", OURS)
    assert number is None or number >= 0
    assert is_meant(name, asked) in (True, False)
    assert is_meant(name, name)


def test_a_piece_is_meant_by_its_number_whether_it_is_in_a_bundle() -> None:
    assert is_meant("m:17", "m:17")
    assert is_meant("m:17+3", "m:20")
    assert is_meant("m:17+3", "m:17+3")
    assert is_meant("m:17+0", "m:17")
    assert is_meant("m:20", "m:17+3")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("m:17", "n:17"),
        ("m:17+3", "n:20"),
        ("m:17+3", "m:17"),
        ("m:17+3", "m:3"),
        ("m:17+3", "m:21"),
        ("", "m:17"),
        ("m:", "m:17"),
    ],
)
def test_a_piece_is_not_meant_by_any_other(name: str, asked: str) -> None:
    assert not is_meant(name, asked)
