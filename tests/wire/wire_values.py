"""What the wire's tests share: strict equality and strategies of values."""

from __future__ import annotations

import string
import struct
from collections import Counter, OrderedDict
from datetime import UTC, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from opencluster.wire import codec
from opencluster.workpiece import WorkPiece


def examples(count: int) -> settings:
    """Return settings of hypothesis that do not depend on how busy the machine is."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def round_trip(value: Any) -> Any:
    data, buffers = codec.encode(value)
    return codec.decode(data, [bytes(buffer) for buffer in buffers])


# --- equality by type and bits ----------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Tell whether two values have the same types and bits, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ma.MaskedArray):
        return a is b or _same_masked(a, b)
    if isinstance(a, np.ndarray):
        return _same_array(a, b)
    if isinstance(a, np.void):
        return _same_array(np.asarray(a), np.asarray(b))
    if isinstance(a, np.str_ | np.bytes_):  # numpy's == knows no zeros at the end
        return list(a) == list(b)
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, WorkPiece) and a.ready is not b.ready:
        return False
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    return _same_scalar(a, b)


def _same_scalar(a: Any, b: Any) -> bool:
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, complex):
        return same([a.real, a.imag], [b.real, b.imag])
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if hasattr(a, "tzinfo"):
        return (
            a.replace(tzinfo=None) == b.replace(tzinfo=None)
            and a.fold == b.fold
            and _same_zone(a.tzinfo, b.tzinfo)
        )
    return bool(a == b)


def _same_zone(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, ZoneInfo):
        return a.key == b.key
    return a is None or (a == b and a.tzname(None) == b.tzname(None))


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and same_dtype(a.dtype, b.dtype) and _same_bits(a, b)


def same_dtype(a: np.dtype, b: np.dtype) -> bool:
    """Tell whether two dtypes are the same down to padding and byte order."""
    if a != b or a.str != b.str or a.isalignedstruct != b.isalignedstruct:
        return False
    if a.type is not b.type or a.fields != b.fields:
        return False
    return all(same_dtype(a[name], b[name]) for name in a.names or ())


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.names is not None:  # padding may differ
        return all(_same_bits(a[name], b[name]) for name in a.dtype.names)
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _same_masked(a: Any, b: Any) -> bool:
    if (a.mask is np.ma.nomask) is not (b.mask is np.ma.nomask):
        return False
    if (a._fill_value is None) is not (b._fill_value is None):
        return False
    fills = a._fill_value is None or same(
        np.asarray(a._fill_value), np.asarray(b._fill_value)
    )
    masks = _same_bits(np.ma.getmaskarray(a), np.ma.getmaskarray(b))
    return same(a.data, b.data) and masks and fills and a.hardmask == b.hardmask


# --- values of Python -------------------------------------------------------------

any_floats = st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack("<d", b)[0])
integers = st.integers() | st.integers(-(1 << 300), 1 << 300)
texts = st.text(st.characters(exclude_categories=()), max_size=12)  # surrogates too
zones = st.sampled_from(
    [
        None,
        UTC,
        ZoneInfo("Asia/Shanghai"),
        ZoneInfo("Europe/Berlin"),
        timezone(timedelta(hours=8)),
        timezone(timedelta(hours=-3, microseconds=7), "odd"),
        timezone(timedelta(0), "Z"),
    ]
)
decimals = st.decimals() | st.sampled_from(
    [Decimal("-0"), Decimal("1E+1000"), Decimal("sNaN12"), Decimal("1.50")]
)
paths = st.text(string.ascii_letters + "/. é", max_size=12).flatmap(
    lambda s: st.sampled_from([Path(s), PurePosixPath(s), PureWindowsPath(s)])
)
hashables = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    any_floats,
    texts,
    st.binary(max_size=12),
    st.complex_numbers(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    decimals.filter(lambda d: not d.is_snan()),
    st.fractions(),
    st.uuids(),
    paths,
)


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = hashables | st.tuples(hashables, hashables) | st.frozensets(hashables)
    mappings = st.dictionaries(keys, children, max_size=4)
    return st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=4).map(tuple),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
        mappings,
        mappings.map(OrderedDict),
        st.builds(_workpiece, mappings, st.booleans()),
        st.dictionaries(keys, st.integers(), max_size=4).map(Counter),
    )


def _workpiece(items: dict[Any, Any], is_ready: bool) -> WorkPiece:
    work = WorkPiece(items)
    work.ready = is_ready
    return work


# --- values of numpy --------------------------------------------------------------

NUMBERS = ["?", "i1", "u1", "<i2", ">i4", "<u8", ">u8", "<f2", ">f4", "<f8", ">f8"]
NUMBERS += ["g", ">c8", "<c16", "G"]
units = st.sampled_from(["", "[Y]", "[D]", "[s]", "[25s]", "[ns]"])
simple_dtypes = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(["S0", "S3", "<U2", ">U2", "V3", "V0"]),
    units.map("<M8{}".format),
    units.map(">m8{}".format),
).map(np.dtype)
_titles = st.lists(st.sampled_from("PQRS"), min_size=4, max_size=4, unique=True)


def _item_bytes(dtype: np.dtype) -> int:
    return dtype.itemsize


def _pair(dtype: np.dtype) -> np.dtype:
    return np.dtype((dtype, (1, 2)))


@st.composite
def _structures(draw: Any, fields: st.SearchStrategy[np.dtype]) -> np.dtype:
    names = draw(st.lists(st.sampled_from("abcé"), max_size=3, unique=True))
    formats = [draw(fields | fields.filter(_item_bytes).map(_pair)) for _ in names]
    parts: dict[str, Any] = {"names": names, "formats": formats}
    if draw(st.booleans()):
        return np.dtype(parts, align=True)
    gaps = [draw(st.integers(0, 3)) for _ in names]
    parts["offsets"] = [
        sum(gaps[: i + 1]) + sum(f.itemsize for f in formats[:i])
        for i in range(len(names))
    ]
    parts["itemsize"] = sum(gaps) + sum(f.itemsize for f in formats) + 1
    if draw(st.booleans()):
        parts["titles"] = draw(_titles)[: len(names)]
    dtype = np.dtype(parts)
    return np.dtype((np.record, dtype)) if draw(st.booleans()) else dtype


dtypes = simple_dtypes | _structures(simple_dtypes | _structures(simple_dtypes))


def filled(shape: tuple[int, ...], dtype: np.dtype, seed: int) -> np.ndarray:
    """Return an array of arbitrary bits that its dtype allows."""
    random = np.random.default_rng(seed)
    array = np.zeros(shape, dtype)
    _fill(array, random)
    return array


def _fill(array: np.ndarray, random: np.random.Generator) -> None:
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _fill(array[name], random)
    elif array.dtype.kind == "b":
        array[...] = random.integers(0, 2, array.shape)
    elif array.dtype.kind in "SU":
        array[...] = random.choice(["", "a", "bc", "~~~"], array.shape)
    elif array.dtype.kind == "V":
        array[...] = np.void(random.bytes(array.dtype.itemsize))
    else:
        data = random.bytes(array.size * array.dtype.itemsize)
        array[...] = np.ndarray(array.shape, array.dtype, buffer=data)


shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
whole_arrays = st.builds(filled, shapes, dtypes, st.integers(0, 1000))


def _every_other(array: np.ndarray) -> np.ndarray:
    return array[tuple(slice(None, None, 2) for _ in array.shape)]


def _backwards(array: np.ndarray) -> np.ndarray:
    return array[tuple(slice(None, None, -1) for _ in array.shape)]


views = st.sampled_from(
    [
        np.asarray,
        np.asfortranarray,
        np.transpose,
        _every_other,
        _backwards,
        lambda array: np.broadcast_to(array, (2, *array.shape)),
    ]
)
arrays = st.builds(lambda view, array: view(array), views, whole_arrays)


@st.composite
def masked_arrays(draw: Any) -> np.ma.MaskedArray:
    data = draw(arrays.filter(lambda array: _can_be_masked(array.dtype)))
    mask = filled(
        data.shape, np.ma.make_mask_descr(data.dtype), draw(st.integers(0, 9))
    )
    # Default fill values overflow some dtypes.
    with np.errstate(all="ignore"):
        if draw(st.booleans()):
            return np.ma.MaskedArray(data)
        array = np.ma.MaskedArray(data, mask, hard_mask=draw(st.booleans()))
        if draw(st.booleans()):
            array.fill_value = filled((), data.dtype, 5)
    return array


def _can_be_masked(dtype: np.dtype) -> bool:
    """Tell whether numpy finds a default fill value, which it needs for structures."""
    try:
        with np.errstate(all="ignore"):
            np.ma.zeros((), dtype)
    except ValueError:
        return False
    return True


scalars = st.builds(lambda a: a.reshape(-1)[0], whole_arrays.filter(lambda a: a.size))
recarrays = whole_arrays.map(lambda array: array.view(np.recarray))
numpy_values = arrays | masked_arrays() | recarrays | scalars | st.just(np.ma.masked)

leaves = hashables | decimals | numpy_values
values = st.recursive(leaves, _containers, max_leaves=12)
