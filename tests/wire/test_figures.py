"""What a heartbeat says, packed by one side and unpacked by another."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire import figures, frames

GOOD = {"w1": {"state": "busy", "gpus": [{"name": "A"}]}, "w2": {}}


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 0


def test_figures_come_back() -> None:
    assert figures.unpack(figures.pack(GOOD)) == GOOD


def test_what_is_not_plain_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="cannot send figures"):
        figures.pack({"w1": {"state": object()}})


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x81",
        figures.pack(GOOD) + b"\0",
        figures.pack(GOOD)[:-1],
        b"\x91" * 2000,
        b"\xdd\x3b\x9a\xca\x00" * 3,
        *map(
            msgpack.packb,
            [
                None,
                7,
                [],
                {"w1": None},
                {1: {}},
                {"w1": {"k": nested(50)}},
                {"w1": {"k": msgpack.ExtType(5, b"y")}},
                {"w1": msgpack.ExtType(5, b"y")},
            ],
        ),
    ],
    ids=lambda packed: str(packed[:20]),
)
def test_figures_that_make_no_sense_are_left_out(packed: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed figures"):
        figures.unpack(packed)
    assert figures.merged([packed, figures.pack(GOOD), packed]) == GOOD


def test_whatever_is_taken_can_be_sent_on() -> None:
    packed = msgpack.packb({"w1": {"at": msgpack.Timestamp(3, 4), b"k": {None: 1.5}}})
    taken = figures.merged([packed])
    assert frames.unpack(frames.pack("reply", taken))[1] == taken
    assert taken["w1"]["at"] == 3_000_000_004
