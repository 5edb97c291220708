"""FITS headers and tables against astropy, which reads and verifies them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from muser_pipeline.uvfits.cards import BLOCK, card, header, padding, table

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT.map(str.rstrip),
)


@given(VALUES, TEXT)
def test_a_card_is_read_as_it_was_written(value: bool | float | str, note: str) -> None:
    line = card("KEYWORD", value, note)
    assert len(line) == 80
    read = fits.Card.fromstring(line)
    read.verify("exception")
    assert read.keyword == "KEYWORD"
    assert read.value == value
    assert isinstance(read.value, type(value))
    if not note.strip():
        assert read.comment == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-7, "1.0E-07"),
        (2_457_328.5, "2457328.5"),
        (math.pi * 1e20, "3.1415926535897933E+20"),
        (-0.0, "-0.0"),
    ],
)
def test_numbers_have_a_decimal_point(value: float, text: str) -> None:
    assert card("X", value)[10:].strip() == text


def test_comments_are_cut_and_values_are_not() -> None:
    assert card("X", 1, "c" * 100) == f"{'X':<8}= {1:>20} / " + "c" * 47
    with pytest.raises(ValueError, match="value of X is too long"):
        card("X", "v" * 80)


def test_a_header_fills_whole_blocks() -> None:
    full = [(f"K{n}", n, "") for n in range(35)]
    assert len(header(full)) == BLOCK
    assert len(header([*full, ("K35", 35, "")])) == 2 * BLOCK
    assert len(padding(1)) == BLOCK - 1
    assert padding(BLOCK) == b""


def test_a_table_is_read_as_it_was_written() -> None:
    rng = np.random.default_rng(1)
    columns = [
        ("NAME", "", np.array([b"A1", b"B22", b"C"], dtype="S8")),
        ("PLACE", "METERS", rng.random((3, 3))),
        ("NOTHING", "", np.zeros((3, 0))),
        ("NUMBER", "", np.arange(3, dtype=np.int32)),
        ("WIDTH", "HZ", rng.random((3, 2)).astype(np.float32)),
    ]
    primary = header([("SIMPLE", True, ""), ("BITPIX", 8, ""), ("NAXIS", 0, "")])
    content = primary + table("TEST", columns, [("MORE", 2.5, "of it")])
    assert len(content) % BLOCK == 0
    with fits.open(io.BytesIO(content)) as file:
        file.verify("exception")
        read = file["TEST"]
        assert read.header["MORE"] == 2.5
        assert read.columns["PLACE"].unit == "METERS"
        assert read.columns.names == [name for name, _, _ in columns]
        assert list(read.data["NAME"]) == ["A1", "B22", "C"]
        for name, _, values in columns[1:]:
            assert np.array_equal(read.data[name], values)
            assert read.data[name].dtype.newbyteorder("=") == values.dtype
