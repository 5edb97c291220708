"""Values as bytes that outlive a process."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from opencluster import WorkPiece
from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire.stored import pack, unpack


def test_a_value_comes_back() -> None:
    value = WorkPiece(a=1, b=[b"x", {2: "ü"}], large=np.arange(100_000.0))
    packed = pack(value, "task", 10_000_000)
    assert isinstance(packed, bytes)
    back = unpack(packed)
    assert np.array_equal(back.pop("large"), value.pop("large"))
    assert back == value


def test_a_value_that_is_too_large_is_refused() -> None:
    pack(WorkPiece(a=bytes(900)), "task", 1000)
    with pytest.raises(LocalProtocolError, match=r"task has 1\d\d\d bytes and the que"):
        pack(WorkPiece(a=bytes(1000)), "task", 1000)
    with pytest.raises(LocalProtocolError, match="has 800"):
        pack(WorkPiece(a=np.zeros(100_000)), "task", 1000)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "malformed"),
        (b"\xff\xff", "malformed"),
        (msgpack.packb(3), "malformed"),
        (msgpack.packb([1]), "malformed"),
        (msgpack.packb([2, b"\x01"]), "of another version: 2"),
        (msgpack.packb([1, "text"]), "of another version"),
        (msgpack.packb([1, b"\xc1"]), "malformed value"),
    ],
)
def test_other_bytes_are_refused(packed: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        unpack(packed)
