r"""How numpy's arrays, scalars and dtypes travel.

Owns the codes 32 to 47. Every dtype travels but those whose elements are references
(object, `StringDType`) and those that other libraries add to numpy. Arrays of
`INLINE_BYTES` or more become buffers, the memory of the array itself where it is
contiguous; all others lie inline. Either way the receiver gets a read-only view.

====  ===============  ============================================================
code  type             payload
====  ===============  ============================================================
32    ndarray          array: dtype, shape, whether in Fortran's order, data
33    recarray         the same
34    MaskedArray      array: data, mask (nil for none), fill value (nil for the
                       default; else an array of no dimensions), whether the mask
                       is hard
35    np.ma.masked     nil
36    numpy scalar     array: dtype, data
37    np.str\_          text
38    np.bytes\_        bytes
====  ===============  ============================================================

A dtype is text such as ``<f8`` or ``>M8[25s]``; an array of element dtype and shape
for a subarray; or for a structure an array of names, dtypes, offsets, titles (nil for
none), size of an item in bytes, whether it is aligned, whether it is a record. Data is
bytes or a buffer, without gaps. Integer types are known by width: ``np.longlong``
arrives as ``np.int64``.

Must be imported only when such a value is met: it imports numpy.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opencluster.errors import LocalProtocolError
from opencluster.wire.registry import (
    INLINE_BYTES,
    OutOfBand,
    add_type,
    cannot_send,
    refuse,
)
from opencluster.wire.types import take, take_one

MAX_EMPTY_ITEMS = 1 << 20
"""Elements of an array whose dtype has no bytes (such as ``V0``): the size of the data
says nothing about their number."""

Array = NDArray[Any]

_SIMPLE = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUV]\d{1,10}"
    r"|[mM]8(?:\[\d{0,10}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_SIMPLE_KINDS = "?biufcSUVmM"
_NUMBERS = frozenset("?bBhHiIlLqQefd")
"""Native numbers, in bytes of which Python can see an array by itself."""
_ADDED_BY_LIBRARY = 2  # value of dtype.isbuiltin


# --- dtypes -----------------------------------------------------------------


def describe(dtype: np.dtype[Any]) -> Any:
    """Return the dtype as plain values.

    Raises
    ------
    LocalProtocolError
        Its elements hold references, or another library defines it.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [describe(base), list(shape)]
    if dtype.names is not None:
        return _describe_structure(dtype)
    if dtype.kind not in _SIMPLE_KINDS or dtype.isbuiltin == _ADDED_BY_LIBRARY:
        raise _unsendable(dtype)
    return dtype.str


def _unsendable(dtype: np.dtype[Any]) -> LocalProtocolError:
    if dtype.kind == "O":
        return cannot_send(
            "numpy values of dtype object",
            "convert them with .astype() to a dtype of numbers or text, or to a list",
        )
    if dtype.kind == "T":
        return cannot_send("numpy values of StringDType", 'use .astype("U")')
    return cannot_send(
        f"numpy values of dtype {dtype}", "convert them to a dtype of numpy's own"
    )


def _describe_structure(dtype: np.dtype[Any]) -> list[Any]:
    names = list(dtype.names or ())
    fields: list[Any] = [dtype.fields[name] for name in names if dtype.fields]
    titles = [field[2] if len(field) > 2 else None for field in fields]
    if not all(title is None or type(title) is str for title in titles):
        raise cannot_send("a dtype with titles that are no text", "rename its fields")
    return [
        names,
        [_describe_field(*pair) for pair in zip(names, fields, strict=True)],
        [field[1] for field in fields],
        titles if any(titles) else None,
        dtype.itemsize,
        dtype.isalignedstruct,
        dtype.type is np.record,
    ]


def _describe_field(name: str, field: Any) -> Any:
    try:
        return describe(field[0])
    except LocalProtocolError as error:
        raise LocalProtocolError(f"field {name!r}: {error}") from None


def restore(description: Any) -> np.dtype[Any]:
    """Return the dtype that `describe` described.

    Raises
    ------
    RemoteProtocolError, ValueError, TypeError
        It is no description of a dtype.
    """
    if type(description) is str:
        return _restore_simple(description)
    if type(description) is list and len(description) == 2:
        base, shape = take(description, Any, list)
        return np.dtype((restore(base), _shape(shape)))
    names, formats, offsets, titles, itemsize, is_aligned, is_record = take(
        description, list, list, list, Any, int, bool, bool
    )
    if not all(type(name) is str for name in names):
        refuse("a field name that is no text")
    parts: dict[str, Any] = {
        "names": names,
        "formats": [restore(form) for form in formats],
        "offsets": offsets,
        "itemsize": itemsize,
    }
    if titles is not None:
        if not all(title is None or type(title) is str for title in titles):
            refuse("a title of a field that is no text")
        parts["titles"] = titles
    dtype: np.dtype[Any] = np.dtype(parts, align=is_aligned)  # type: ignore[call-overload]
    return np.dtype((np.record, dtype)) if is_record else dtype


@lru_cache(maxsize=256)
def _restore_simple(text: str) -> np.dtype[Any]:
    # numpy reads much more than this from text, references among it.
    if not _SIMPLE.fullmatch(text):
        refuse(f"{text[:40]!r} is not the dtype of an array that can be sent")
    return np.dtype(text)


def _shape(lengths: list[Any]) -> tuple[int, ...]:
    for length in lengths:
        if type(length) is not int or length < 0:
            refuse("a shape that is not of natural numbers")
    return tuple(lengths)


# --- arrays -----------------------------------------------------------------


def _pack_array(array: Array) -> list[Any]:
    description = describe(array.dtype)
    if not array.dtype.itemsize and array.size > MAX_EMPTY_ITEMS:
        raise cannot_send(f"{array.size} elements without bytes", "send their number")
    flags = array.flags
    is_fortran = False
    if not flags.c_contiguous:
        is_fortran = flags.f_contiguous
        if not is_fortran:
            array = array.copy(order="C")
    return [description, list(array.shape), is_fortran, _data(array, is_fortran)]


def _data(array: Array, is_fortran: bool) -> bytes | OutOfBand:
    """Return the bytes of a contiguous array, in the order in which they lie."""
    if array.nbytes < INLINE_BYTES:
        return array.tobytes(order="A")
    dtype = array.dtype
    if dtype.char in _NUMBERS and dtype.isnative and not is_fortran:
        return OutOfBand(array.data.cast("B"))
    plain = array.view(np.ndarray)
    flat = plain.T.reshape(-1) if is_fortran else plain.reshape(-1)
    # Seen as bytes, since buffers know no datetime64 and no half of the other dtypes.
    return OutOfBand(flat.view(np.uint8).data)


def _unpack_array(payload: Any) -> Array:
    description, lengths, is_fortran, data = take(payload, Any, list, bool, Any)
    dtype = restore(description)
    if dtype.subdtype is not None:
        refuse("an array of subarrays")
    shape = _shape(lengths)
    count = math.prod(shape)
    if not dtype.itemsize and count > MAX_EMPTY_ITEMS:
        refuse(f"{count} elements without bytes")
    return _view(shape, dtype, data, "F" if is_fortran else "C")


def _view(
    shape: tuple[int, ...], dtype: np.dtype[Any], data: Any, order: Any = "C"
) -> Array:
    if type(data) is not bytes and type(data) is not memoryview:
        refuse(f"array data that is {type(data).__name__}")
    if len(data) != math.prod(shape) * dtype.itemsize:
        refuse(f"{len(data)} bytes for an array of {dtype} and shape {shape}")
    if len(data) and type(data) is memoryview:
        # Not by np.ndarray, which would find what is below the memoryview and let
        # users make the array writeable.
        flat: Array = np.frombuffer(data, dtype)
        return flat if len(shape) == 1 else flat.reshape(shape, order=order)
    return np.ndarray(shape, dtype, buffer=data, order=order)


def _unpack_recarray(payload: Any) -> Any:
    return _unpack_array(payload).view(np.recarray)


# --- masked arrays ----------------------------------------------------------

ma: Any = np.ma
"""Untyped, as what it declares differs from one NumPy to the next."""


def _pack_masked(array: np.ma.MaskedArray[Any, Any]) -> list[Any]:
    mask: Any = array.mask
    if mask is np.ma.nomask:
        mask = ma.getmaskarray(array) if array.dtype.names is not None else None
    # Reading .fill_value would set it, and fails for the default of some dtypes.
    fill = array._fill_value  # type: ignore[attr-defined]
    if fill is not None:
        fill = np.asarray(fill, array.dtype)
    return [array.data, mask, fill, bool(array.hardmask)]


def _unpack_masked(payload: Any) -> np.ma.MaskedArray[Any, Any]:
    data, mask, fill, is_hard = take(payload, Any, Any, Any, bool)
    if not isinstance(data, np.ndarray):
        refuse(f"a masked array over {type(data).__name__}")
    if mask is None and data.dtype.names is None:
        mask = np.ma.nomask
    elif not _is_mask_of(mask, data):
        refuse("a mask of another shape or dtype than its data")
    # numpy first gives a structure the default fill value, which may overflow a field;
    # keep_mask would combine the mask with one of zeros, and copy it.
    with np.errstate(all="ignore"):
        array = ma.MaskedArray(data, mask, keep_mask=False, hard_mask=is_hard)
    if fill is not None:
        array.fill_value = _checked_fill(fill, data)
    made: np.ma.MaskedArray[Any, Any] = array
    return made


def _is_mask_of(mask: Any, data: Array) -> bool:
    return (
        isinstance(mask, np.ndarray)
        and mask.shape == data.shape
        and mask.dtype == ma.make_mask_descr(data.dtype)
    )


def _checked_fill(fill: Any, data: Array) -> Array:
    if not isinstance(fill, np.ndarray) or fill.shape or fill.dtype != data.dtype:
        refuse("a fill value of another shape or dtype than its array")
    return fill


def _unpack_masked_constant(payload: Any) -> Any:
    take_one(payload, type(None))
    return np.ma.masked


def _pack_masked_constant(constant: Any) -> None:
    return None


# --- scalars ----------------------------------------------------------------


def _pack_scalar(scalar: np.generic) -> list[Any]:
    return [describe(scalar.dtype), scalar.tobytes()]


def _unpack_scalar(payload: Any) -> Any:
    description, data = take(payload, Any, bytes)
    dtype = restore(description)
    if dtype.subdtype is not None or dtype.kind in "SU":
        refuse(f"a scalar of dtype {dtype}")
    return _view((), dtype, data)[()]


def _scalar_classes() -> tuple[type, ...]:
    classes = {np.void, np.record, *np.sctypeDict.values()}
    return tuple(classes - {np.str_, np.bytes_, np.object_})


add_type(32, (np.ndarray, np.memmap), _pack_array, _unpack_array)
add_type(33, (np.recarray,), _pack_array, _unpack_recarray)
add_type(34, (np.ma.MaskedArray,), _pack_masked, _unpack_masked)
add_type(35, (type(np.ma.masked),), _pack_masked_constant, _unpack_masked_constant)
add_type(36, (np.generic, *_scalar_classes()), _pack_scalar, _unpack_scalar)
# An array, as well as str(), would lose the zeros at the end of these.
add_type(37, (np.str_,), str.__str__, lambda payload: np.str_(take_one(payload, str)))
add_type(38, (np.bytes_,), bytes, lambda payload: np.bytes_(take_one(payload, bytes)))
