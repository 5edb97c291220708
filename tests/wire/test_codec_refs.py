"""References in values: told of when encoded, replaced when decoded."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from opencluster.errors import PieceFailed, RemoteProtocolError
from opencluster.references import DataRef, Holder
from opencluster.wire import codec, refs
from opencluster.workpiece import WorkPiece

HOLDER = Holder("Tool-1.ab", "here", ("ipc:///run/w.sock", "tcp://node1:9"), "key")
ONE = DataRef(b"1" * 16, 5000, HOLDER, 7)
TWO = DataRef(b"2" * 16, 0, Holder("Tool-2.ab"))


def test_a_reference_arrives_whole() -> None:
    lent = ONE.under(object())
    arrived = codec.decode(*codec.encode([lent, TWO]))
    for sent, came in zip((ONE, TWO), arrived, strict=True):
        assert type(came) is DataRef
        assert (came.id, came.nbytes, came.holder, came.piece) == (
            *(sent.id, sent.nbytes, sent.holder, sent.piece),
        )
        assert came.lease is None


def test_encoding_tells_which_references_a_value_contains() -> None:
    found: list[DataRef] = []
    value = WorkPiece(a=[ONE, (TWO,)], b={"c": {ONE}}, plain=[1, np.zeros(9000)])
    data, buffers = codec.encode(value, "piece", found)
    assert found == [ONE, TWO, ONE]
    assert (data, buffers) == codec.encode(value)
    codec.encode(WorkPiece(a=1), "piece", found)
    assert found == [ONE, TWO, ONE]


def test_references_of_one_value_are_not_told_of_the_next() -> None:
    codec.encode([ONE])
    found: list[DataRef] = []
    codec.encode([TWO], "value", found)
    assert found == [TWO]


def test_references_beside_lone_surrogates_are_told_of_once() -> None:
    found: list[DataRef] = []
    codec.encode([ONE, "\udcff"], "value", found)
    assert found == [ONE]


def test_references_of_a_value_that_cannot_be_sent_are_forgotten() -> None:
    with pytest.raises(TypeError):
        codec.encode([ONE, object()])
    found: list[DataRef] = []
    codec.encode([TWO], "value", found)
    assert found == [TWO]


def test_decoding_puts_values_in_the_place_of_references() -> None:
    values = {ONE: np.arange(3), TWO: "two"}
    data = codec.encode(WorkPiece(a=[ONE, (TWO,)], b={"c": ONE}))
    arrived = codec.decode(*data, values.__getitem__)
    assert arrived == WorkPiece(a=[values[ONE], ("two",)], b={"c": values[ONE]})
    assert arrived["b"]["c"] is values[ONE]


def test_what_is_raised_for_a_reference_is_no_fault_of_the_bytes() -> None:
    def lost(ref: DataRef) -> Any:
        raise PieceFailed(f"{ref} is lost")

    with pytest.raises(PieceFailed, match="5.0 kB on Tool-1"):
        codec.decode(*codec.encode([ONE]), lost)


GOOD = refs.ref_fields(ONE)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        GOOD[:3],
        [*GOOD, 1],
        [b"1" * 15, *GOOD[1:]],
        ["1" * 16, *GOOD[1:]],
        [GOOD[0], -1, *GOOD[2:]],
        [GOOD[0], True, *GOOD[2:]],
        [GOOD[0], 1 << 62, *GOOD[2:]],
        [*GOOD[:3], -1],
        [*GOOD[:3], "7"],
        [*GOOD[:2], None, 7],
        [*GOOD[:2], ["", "h", [], ""], 7],
        [*GOOD[:2], ["w", "h", [1], ""], 7],
        [*GOOD[:2], ["w", "h", ["x"] * 9, ""], 7],
        [*GOOD[:2], ["w" * 5000, "h", [], ""], 7],
        [*GOOD[:2], ["w", "h", ["x" * 5000], ""], 7],
        [*GOOD[:2], ["w", None, [], ""], 7],
    ],
    ids=lambda payload: repr(payload)[:40],
)
def test_what_is_no_reference_is_refused(payload: Any) -> None:
    data = msgpack.packb({msgpack.ExtType(19, b""): payload})
    with pytest.raises(RemoteProtocolError, match="malformed"):
        codec.decode(data)
