"""Header frames keep their fields; whatever else comes is refused and named."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_values import examples

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire import frames

plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=()), max_size=9),
        st.binary(max_size=9),
    ),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), children, max_size=4)
    ),
    max_leaves=9,
)
HEAD = b"OC\x01\x00"


@examples(100)
@given(st.text(max_size=9), st.lists(plain, max_size=4))
def test_fields_arrive(kind: str, fields: list[Any]) -> None:
    frame = frames.pack(kind, *fields)
    assert frames.unpack(frame) == [kind, *fields]
    assert frames.unpack(memoryview(frame)) == [kind, *fields]


def test_layout() -> None:
    assert frames.pack("beat", 7, b"x") == HEAD + b"\x93\xa4beat\x07\xc4\x01x"
    assert frames.PROTOCOL_VERSION == 1


def test_not_a_number_and_tuples() -> None:
    kind, number, items = frames.unpack(frames.pack("k", math.nan, (1, 2)))
    assert math.isnan(number)
    assert items == [1, 2]


@pytest.mark.parametrize("field", [object(), 2**64, 1j, {1, 2}, [[object()]]])
def test_fields_that_are_not_plain(field: Any) -> None:
    with pytest.raises(LocalProtocolError, match="cannot send 'delta' message"):
        frames.pack("delta", field)


def test_oversize_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frames.pack("results", bytes(200))
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", len(frame))
    assert frames.pack("results", bytes(200)) == frame
    assert frames.unpack(frame) == ["results", bytes(200)]
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", len(frame) - 1)
    with pytest.raises(RemoteProtocolError, match="oversize frame: 215 bytes, 214"):
        frames.unpack(frame)
    with pytest.raises(LocalProtocolError, match="214 are allowed"):
        frames.pack("results", bytes(200))


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (b"", "truncated frame: 0 bytes"),
        (b"OC\x01", "truncated frame: 3 bytes"),
        (b"GET / HTTP/1.1\r\n", "foreign frame: begins with b'GET '"),
        (b"\xff" * 9, "foreign frame"),
        (b"OC\x02\x00\x91\xa1k", "protocol version 2 came, version 1 is spoken here"),
        (b"OC\x00\x00\x91\xa1k", "protocol version 0 came, version 1 is spoken here"),
        (b"OC\x01\x01\x91\xa1k", "reserved byte is 1"),
        (HEAD, "malformed frame: cut off"),
        (HEAD + b"\x93\xa1k", "malformed frame: cut off"),
        (HEAD + b"\x92\xa1k\xdd\xff\xff\xff\xff", "malformed frame: cut off"),
        (HEAD + b"\xdd\x00\x01\x86\xa0" * 50 + bytes(10_000), "malformed frame"),
        (HEAD + b"\x91\xa1k\x00", "more bytes than its headers announce"),
        (HEAD + b"\x90", "no array that begins with a kind"),
        (HEAD + b"\x91\x01", "no array that begins with a kind"),
        (HEAD + b"\xa1k", "no array that begins with a kind"),
        (HEAD + b"\x92\xa1k" + b"\x91" * 150 + b"\x90", "nested deeper than 100"),
        (HEAD + b"\x92\xa1k\xd4\x05\x00", "extension 5 among plain values"),
        (HEAD + b"\x92\xa1k\x81\x90\x01", "unhashable"),
        (HEAD + b"\x91\xa1\xff", "utf-8"),
        (HEAD + b"\x92\xa1k\xc1", "malformed frame: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused_frames(frame: bytes, told: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        frames.unpack(frame)
    assert told in str(caught.value)


def test_timestamps_of_msgpack_become_plain() -> None:
    frame = HEAD + msgpack.packb(["k", msgpack.Timestamp(3, 4)])
    assert frames.unpack(frame) == ["k", 3_000_000_004]


@examples(300)
@given(st.binary(max_size=40), st.booleans())
def test_random_frames(data: bytes, has_head: bool) -> None:
    try:
        kind, *_ = frames.unpack(HEAD + data if has_head else data)
    except RemoteProtocolError:
        return
    assert isinstance(kind, str)


@examples(200)
@given(st.lists(plain, max_size=4), st.data())
def test_damaged_frames(fields: list[Any], data: st.DataObject) -> None:
    frame = bytearray(frames.pack("kind", *fields))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = frames.unpack(bytes(frame))
    except RemoteProtocolError:
        return
    assert isinstance(message[0], str)
