"""Bytes from outside become a value or a RemoteProtocolError, and little memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import astropy.units as u
import msgpack
import numpy as np
import pytest
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st
from wire_values import examples, values

from opencluster.errors import RemoteProtocolError
from opencluster.wire import codec
from opencluster.workpiece import WorkPiece

EVERYTHING = WorkPiece(
    plain=[None, True, -1, 2**70, 1.5, "text\ud800", b"bytes"],
    containers=[(1,), {2}, frozenset({3}), {(4, 5): 6}, Counter("aab")],
    stdlib=[
        1j,
        datetime(2020, 1, 1, tzinfo=UTC),
        Path("a"),
        Decimal("1.5"),
        UUID(int=3),
    ],
    fraction=Fraction(1, 3),
    arrays=[
        np.arange(6).reshape(2, 3),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8", (2,))], align=True)),
        np.ma.array([1, 2], mask=[0, 1], fill_value=7),
        np.float32(3),
        np.zeros(5000, "u1"),
    ],
    sky=[[1, 2] * u.Jy / u.beam, Time("2020-01-01", scale="tai")],
)
MESSAGE, BUFFERS = codec.encode(EVERYTHING)


def _decode(data: bytes, buffers: Any = BUFFERS) -> None:
    """Decode; only the one error may come out."""
    try:
        codec.decode(data, buffers)
    except RemoteProtocolError as error:
        assert len(str(error)) < 1000


def _tag(code: int, payload: Any) -> dict[Any, Any]:
    return {msgpack.ExtType(code, b""): payload}


def _refused(value: Any, buffers: Any = ()) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(msgpack.packb(value), buffers)
    return str(caught.value)


@examples(400)
@given(st.binary(max_size=64))
def test_random_bytes(data: bytes) -> None:
    _decode(data)


@examples(600)
@given(st.data())
def test_damaged_messages(data: st.DataObject) -> None:
    damaged = bytearray(MESSAGE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damage = data.draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat"]))
        if damage == "flip":
            damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        elif damage == "set":
            damaged[place] = data.draw(st.integers(0, 255))
        elif damage == "cut":
            del damaged[place : place + data.draw(st.integers(1, 9))]
        elif damage == "insert":
            damaged[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            damaged[place:place] = damaged[
                place : place + data.draw(st.integers(1, 40))
            ]
    _decode(bytes(damaged))


@examples(100)
@given(values, st.data())
def test_damaged_values(value: Any, data: st.DataObject) -> None:
    message, buffers = codec.encode(value)
    place = data.draw(st.integers(0, len(message) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    _decode(message[:place] + byte + message[place + 1 :], buffers)
    _decode(message[:place], buffers)


payloads = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 2**63),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["<f8", "|V4000000000", "<U999999999", "m", "utc", "name"]),
        st.binary(max_size=9),
    ),
    lambda children: (
        st.lists(children, max_size=9) | st.builds(_tag, st.integers(0, 60), children)
    ),
    max_leaves=20,
)


@examples(500)
@given(st.integers(0, 60), payloads)
def test_wrong_payloads_of_every_type(code: int, payload: Any) -> None:
    _decode(msgpack.packb([_tag(code, payload)]))


@pytest.mark.parametrize("cut", range(0, len(MESSAGE), 7))
def test_truncated_messages(cut: int) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        codec.decode(MESSAGE[:cut], BUFFERS)


def test_what_follows_the_value_is_refused() -> None:
    for garbage in (b"\x00", MESSAGE):
        with pytest.raises(RemoteProtocolError, match="more bytes"):
            codec.decode(MESSAGE + garbage, BUFFERS)


@pytest.mark.parametrize(
    "head",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 G elements
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xdb\xff\xff\xff\xff",  # text
        b"\xc9\xff\xff\xff\xff\x20",  # an extension
        b"\xdd\x00\x01\x86\xa0" * 200,  # 200 arrays inside each other of 100,000 each
        b"\xdf\x00\x00\xc3\x50\x00" * 200,
    ],
)
def test_announcements_take_no_memory(head: bytes) -> None:
    data = head + bytes(100_000)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="cut off|exceeds"):
            codec.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data)


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<f8", [1 << 32]),
        ("<f8", [HUGE, HUGE]),
        ("<f8", [HUGE, 4]),
        ("<f8", [-1]),
        ("<f8", [True]),
        ("<f8", [1.0]),
        ("<f8", [1] * 1000),
        ("<f8", [0, HUGE, HUGE]),
        ("|V4000000000", [1]),
        ("|S2147483647", []),
        ("|V99999999999", [1]),
        ("<U536870912", [1]),
        ("|V0", [HUGE]),
        ("|O", [1]),
        ("<f8,<f8", [0]),
        ("(2,)<f8", [0]),
        ("object", [1]),
        ("x" * 1000, [1]),
        (["<f8", [HUGE]], [0]),
        (["<f8", [2]], []),
        ([["a"], ["|O"], [0], None, 8, False, False], [1]),
        ([["a"], ["<f8"], [-8], None, 8, False, False], [1]),
        ([["a"], ["<f8"], [0], None, 4, False, False], [1]),
        ([["a"], ["<f8"], [HUGE], None, 8, False, False], [0]),
        ([["a"], ["<f8"], [0], None, 1 << 40, False, False], [0]),
        ([["a", "a"], ["<f8", "<f8"], [0, 0], None, 8, False, False], [1]),
        ([[1], ["<f8"], [0], None, 8, False, False], [1]),
        ([["a"], ["<f8"], [0], [b"t"], 8, False, False], [1]),
        ([["a"], ["<f8"], [0], [7], 8, False, False], [1]),
    ],
    ids=str,
)
def test_impossible_arrays(dtype: Any, shape: list[Any]) -> None:
    for array in (32, 33):
        _refused(_tag(array, [dtype, shape, False, b"\0" * 7]))
    _refused(_tag(36, [dtype, b"\0" * 7]))


@pytest.mark.parametrize("index", [-1, 1, HUGE, None, "0", 0.0, True])
def test_wrong_buffers(index: Any) -> None:
    buffer = _tag(0, index)
    _refused(_tag(32, ["<f8", [1], False, buffer]), [bytes(8)])


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_buffers_of_another_size(size: int) -> None:
    _refused(_tag(32, ["<f8", [1], False, _tag(0, 0)]), [bytes(size)])


def test_masks_that_do_not_match() -> None:
    def array(form: Any, shape: list[int], data: bytes) -> Any:
        return _tag(32, [form, shape, False, data])

    structure = [["a"], ["|V0"], [0], None, 0, False, False]
    data = array("|u1", [2], b"ab")
    for masked in (
        [data, array("|b1", [1], b"\1"), None, False],
        [data, array("|u1", [2], b"\1\1"), None, False],
        [data, None, array("<f8", [], bytes(8)), False],
        [data, None, array("|u1", [1], b"a"), False],
        [array(structure, [1 << 20], b""), None, None, False],
        [b"ab", None, None, False],
    ):
        _refused(_tag(34, masked))


@pytest.mark.parametrize(
    "value",
    [
        {msgpack.ExtType(32, b""): 1, msgpack.ExtType(33, b""): 2},
        {msgpack.ExtType(1, b""): [], "other": 2},
        [msgpack.ExtType(1, b"")],
        {1: msgpack.ExtType(1, b"")},
        _tag(1, [msgpack.ExtType(2, b"")]),
        msgpack.ExtType(99, b""),
        {msgpack.ExtType(1, b"x"): []},
        {msgpack.ExtType(127, b"\xff\xfe"): []},
        {msgpack.ExtType(127, b"n" * 100_000): []},
        _tag(2, [[]]),
        _tag(3, [{}]),
        _tag(9, [2020, 1, 1, 0, 0, 0, 0, 0, "../../etc/passwd"]),
        _tag(9, [2020, 1, 1, 0, 0, 0, 0, 0, "America"]),
        _tag(9, [2020, 1, 1, 0, 0, 0, 0, 0, "\0"]),
        _tag(9, [2020, 1, 1, 0, 0, 0, 0, 0, [HUGE, None]]),
        _tag(9, [HUGE, 1, 1, 0, 0, 0, 0, 0, None]),
        _tag(12, [HUGE, 0, 0]),
        _tag(16, "1e" + "9" * 30),
        _tag(16, "one"),
        _tag(16, "١"),
        _tag(17, [1, 0]),
        _tag(17, [_tag(7, b"\1" * 50_000), 3]),
        _tag(18, b"short"),
        _tag(48, [1.0, ["name", "m"]]),
        _tag(48, [_tag(32, ["<f8", [], False, bytes(8)]), ["name", "__class__"]]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_particular_lies(value: Any) -> None:
    _refused(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\x90\x01",  # a key that is a list
        b"\x81\x81\x01\x02\x03",  # a key that is a map
        b"\xa1\xff",  # text that is no UTF-8
        b"\xa4\xf4\x90\x80\x80",  # beyond Unicode
        b"\xd7\xff" + b"\xff" * 8,  # a timestamp with too many nanoseconds
        b"\x91" * 400 + b"\x90",
        b"\x81\xa1k" * 400 + b"\x90",
        b"\x91" * 100_000,
    ],
    ids=lambda data: str(data[:12]),
)
def test_particular_bytes(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed value"):
        codec.decode(data)


def test_large_numbers_as_text_and_bytes_are_cheap() -> None:
    digits = "7" * 1_000_000
    assert str(codec.decode(msgpack.packb(_tag(16, digits)))) == digits
    number = codec.decode(msgpack.packb(_tag(7, b"\x7f" * 1_000_000)))
    assert number.bit_length() == 8_000_000 - 1


def test_views_and_bytearrays_are_read_too() -> None:
    framed = memoryview(b"xx" + MESSAGE + b"yy")[2:-2]
    for data in (framed, bytearray(MESSAGE)):
        assert codec.decode(data, BUFFERS)["plain"] == EVERYTHING["plain"]
