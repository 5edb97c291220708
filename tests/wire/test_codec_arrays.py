"""Arrays arrive with dtype, order and bits, as read-only views and without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from wire_values import (
    arrays,
    dtypes,
    examples,
    numpy_values,
    round_trip,
    same,
    same_dtype,
)

from opencluster.errors import LocalProtocolError
from opencluster.wire import codec
from opencluster.wire.arrays import describe, restore
from opencluster.wire.codec import INLINE_BYTES


class Subclass(np.ndarray):
    pass


RECORD = np.dtype([("a", "i1"), ("b", ">f8"), ("c", "M8[s]", (2,))], align=True)


@examples(400)
@given(numpy_values)
def test_any_value_of_numpy_arrives_as_it_was(value: Any) -> None:
    arrived = round_trip([value])[0]
    assert same(arrived, value)
    if isinstance(arrived, np.ndarray) and arrived is not np.ma.masked:
        assert not arrived.flags.writeable


@examples(100)
@given(arrays)
def test_order_is_kept_and_gaps_are_closed(array: np.ndarray) -> None:
    assume(array.dtype.itemsize)  # without bytes, every order is as good
    arrived = round_trip(array)
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert arrived.flags.c_contiguous == array.flags.c_contiguous
        assert arrived.flags.f_contiguous == array.flags.f_contiguous
    else:
        assert arrived.flags.c_contiguous


@examples(200)
@given(dtypes)
def test_dtypes_keep_byte_order_padding_and_titles(dtype: np.dtype) -> None:
    assert same_dtype(restore(describe(dtype)), dtype)


@examples(100)
@given(st.binary(min_size=96, max_size=96), st.sampled_from(["<f2", ">f4", "f8", "g"]))
def test_payloads_of_nan_are_kept(data: bytes, form: str) -> None:
    array = np.frombuffer(data, form)
    value = [array, array[0]]
    assert same(round_trip(value), value)


@pytest.mark.parametrize("form", ["f4", "M8[ns]", "S7", "U3", "f2", "?", RECORD])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_not_copied(form: Any, order: Any) -> None:
    array = np.zeros((30, 70, 3), form, order=order)
    data, buffers = codec.encode({"cube": array})
    assert len(data) < 500
    [buffer] = buffers
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), array)
    arrived = codec.decode(data, buffers)["cube"]
    assert np.shares_memory(arrived, array)
    assert same(arrived, array)
    assert arrived.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize("count", [0, 1, INLINE_BYTES - 1, INLINE_BYTES])
@pytest.mark.parametrize("wrap", [np.asarray, np.ma.asarray], ids=["plain", "masked"])
def test_arrays_are_read_only_whatever_their_size(count: int, wrap: Any) -> None:
    data, buffers = codec.encode(wrap(np.zeros(count, np.uint8)))
    assert len(buffers) == (count == INLINE_BYTES)
    arrived = codec.decode(data, [bytearray(buffer) for buffer in buffers])
    assert not arrived.flags.writeable
    with pytest.raises(ValueError, match="read-only|WRITEABLE"):
        arrived.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        arrived[...] = 1


def test_masks_go_out_of_band_and_are_read_only() -> None:
    mask = np.zeros(9000, [("a", "?"), ("b", "?")])
    array = np.ma.MaskedArray(np.zeros(9000, "f4,f4"), mask)
    data, buffers = codec.encode(array)
    arrived = codec.decode(data, buffers)
    assert len(buffers) == 2
    assert np.shares_memory(arrived.mask, np.frombuffer(buffers[1], np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        arrived[0] = np.ma.masked


def test_array_with_gaps_is_sent_as_it_is_now() -> None:
    array = np.arange(40000.0)[::2]
    data, buffers = codec.encode(array)
    array[:] = 0
    assert codec.decode(data, buffers)[5] == 10


def test_memmap_arrives_as_a_plain_array(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "cube", "f4", "w+", shape=(100, 100))
    mapped[3, 4] = 5
    data, buffers = codec.encode(mapped)
    assert np.shares_memory(np.frombuffer(buffers[0], np.uint8), mapped)
    arrived = codec.decode(data, buffers)
    assert type(arrived) is np.ndarray
    assert arrived[3, 4] == 5


def test_many_arrays_need_a_bounded_number_of_frames() -> None:
    array = np.zeros(INLINE_BYTES, np.uint8)
    value = [array] * (codec.MAX_BUFFERS + 3)
    data, buffers = codec.encode(value)
    assert len(buffers) == codec.MAX_BUFFERS
    assert same(codec.decode(data, buffers)[-1], array)


@pytest.mark.parametrize(
    "scalar",
    [
        np.str_("ab\0"),
        np.str_("\udcff"),
        np.bytes_(b"ab\0"),
        np.void(b"\0\1"),
        np.datetime64("NaT", "s"),
        np.datetime64(7, "25s"),
        np.timedelta64(-1, "fs"),
        np.longdouble(1) / 3,
        np.bool_(True),
        np.array((1, 2.0, [3, 4]), RECORD)[()],
        np.rec.array([(1, 2.0)], "i4,f8")[0],
    ],
    ids=repr,
)
def test_particular_scalars(scalar: Any) -> None:
    assert same(round_trip(scalar), scalar)


def test_scalars_may_be_keys() -> None:
    value = {np.int32(3): "a", np.str_("k"): "b", np.datetime64("2020-01-01"): "c"}
    assert same(round_trip(value), value)


def test_wide_integers_are_known_by_width() -> None:
    arrived = round_trip(np.ones(2, np.longlong))
    assert arrived.dtype == np.int64
    assert arrived.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array([None, 1]), "dtype object"),
        (np.zeros(2, [("a", "i4"), ("b", "O")]), "field 'b'.*dtype object"),
        (np.array(["a"], np.dtypes.StringDType()), r'StringDType.*astype\("U"\)'),
        (np.zeros(1).view(Subclass), "convert it to numpy.ndarray"),
        (np.empty(1 << 21, "V0"), "without bytes"),
        (np.ma.array([None]), "dtype object"),
    ],
    ids=["object", "field", "string", "subclass", "empty", "masked"],
)
def test_arrays_that_cannot_be_sent_are_told_with_a_cure(array: Any, told: str) -> None:
    with pytest.raises(
        LocalProtocolError, match=rf'^value\["spectra"\]\[1\]: .*{told}'
    ):
        codec.encode({"spectra": [0, array]})
