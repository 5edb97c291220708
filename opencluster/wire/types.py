"""How types of the standard library, and WorkPiece, travel.

Owns the codes 1 to 15. Each type has a function that makes plain values of it and one
that checks plain values from outside and makes the type of them.

====  ================  =====================================================
code  type              payload
====  ================  =====================================================
1     tuple             array of the members
2     set               array of the members
3     frozenset         array of the members
4     WorkPiece         array: ready, map of the items
5     Counter           map of the counts
6     OrderedDict       map of the items, in their order
7     int               bytes, little-endian two's complement (beyond 64 bits)
8     complex           array: real, imaginary
9     datetime          array: year, month, day, hour, minute, second,
                        microsecond, fold, zone
10    date              array: year, month, day
11    time              array: hour, minute, second, microsecond, fold, zone
12    timedelta         array: days, seconds, microseconds
13    Path              text
14    PurePosixPath     text
15    PureWindowsPath   text
====  ================  =====================================================

A zone is nil, the key of a `zoneinfo.ZoneInfo`, or an array of the offset in
microseconds and the zone's name (nil for the default one).
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from opencluster.wire.registry import add_type, cannot_send, refuse
from opencluster.workpiece import WorkPiece

P = TypeVar("P", bound=PurePath)

_MICROSECOND = timedelta(microseconds=1)


def take(payload: Any, *kinds: Any) -> list[Any]:
    """Return a payload that is an array of these types, in this order.

    Raises
    ------
    RemoteProtocolError
        It is something else.
    """
    if type(payload) is not list or len(payload) != len(kinds):
        refuse(f"expected an array of {len(kinds)}, got {type(payload).__name__}")
    for item, kind in zip(payload, kinds, strict=True):
        if kind is not Any and type(item) is not kind:
            refuse(f"expected {kind.__name__}, got {type(item).__name__}")
    return payload


def take_one(payload: Any, kind: type) -> Any:
    """Return a payload that is of this type exactly."""
    if type(payload) is not kind:
        refuse(f"expected {kind.__name__}, got {type(payload).__name__}")
    return payload


def _pack_workpiece(work: WorkPiece) -> list[Any]:
    return [work.ready, dict(work)]


def _unpack_workpiece(payload: Any) -> WorkPiece:
    ready, items = take(payload, bool, dict)
    work = workpiece_of(items)
    if not ready:
        work.ready = False
    return work


def workpiece_of(items: Any) -> WorkPiece:
    """Return a piece with the items of a dictionary that came from outside."""
    work = WorkPiece.__new__(WorkPiece)
    work.update(take_one(items, dict))
    return work


def _pack_int(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


def _unpack_int(payload: Any) -> int:
    return int.from_bytes(take_one(payload, bytes), "little", signed=True)


def _unpack_complex(payload: Any) -> complex:
    return complex(*take(payload, float, float))


def _pack_zone(zone: tzinfo | None, moment: datetime | None) -> Any:
    if zone is None:
        return None
    # Where nobody imported zoneinfo, no zone can be of it.
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo:
        key: str | None = getattr(zone, "key", None)
        if key is not None:
            return key
    offset = zone.utcoffset(moment)
    if offset is None:
        raise cannot_send(
            f"a time zone ({zone!r}) without an offset from UTC",
            "use zoneinfo.ZoneInfo or datetime.timezone",
        )
    name = zone.tzname(moment)
    if name == timezone(offset).tzname(None):
        name = None
    return [offset // _MICROSECOND, name]


def _unpack_zone(payload: Any) -> tzinfo | None:
    if payload is None:
        return None
    if type(payload) is str:
        from zoneinfo import ZoneInfo

        return ZoneInfo(payload)
    microseconds, name = take(payload, int, Any)
    offset = timedelta(microseconds=microseconds)
    return timezone(offset) if name is None else timezone(offset, name)


def _pack_datetime(value: datetime) -> list[Any]:
    clock = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    day = [value.year, value.month, value.day]
    return [*day, *clock, _pack_zone(value.tzinfo, value)]


def _unpack_datetime(payload: Any) -> datetime:
    *fields, fold, zone = take(payload, *[int] * 8, Any)
    return datetime(*fields).replace(tzinfo=_unpack_zone(zone), fold=fold)


def _pack_date(value: date) -> list[int]:
    return [value.year, value.month, value.day]


def _unpack_date(payload: Any) -> date:
    return date(*take(payload, int, int, int))


def _pack_time(value: time) -> list[Any]:
    clock = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return [*clock, _pack_zone(value.tzinfo, None)]


def _unpack_time(payload: Any) -> time:
    *fields, fold, zone = take(payload, *[int] * 5, Any)
    return time(*fields).replace(tzinfo=_unpack_zone(zone), fold=fold)


def _pack_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _unpack_timedelta(payload: Any) -> timedelta:
    return timedelta(*take(payload, int, int, int))


def _add_path(code: int, classes: tuple[type[P], ...], make: type[P]) -> None:
    add_type(code, classes, str, lambda payload: make(take_one(payload, str)))


def _add_sequence(code: int, cls: type) -> None:
    add_type(code, (cls,), list, lambda payload: cls(take_one(payload, list)))


def _add_mapping(code: int, cls: type) -> None:
    add_type(code, (cls,), dict, lambda payload: cls(take_one(payload, dict)))


def _pack_complex(value: complex) -> list[float]:
    return [value.real, value.imag]


_add_sequence(1, tuple)
_add_sequence(2, set)
_add_sequence(3, frozenset)
WORKPIECE = add_type(4, (WorkPiece,), _pack_workpiece, _unpack_workpiece)
"""The marker of a WorkPiece."""
_add_mapping(5, Counter)
_add_mapping(6, OrderedDict)
add_type(7, (int,), _pack_int, _unpack_int)
add_type(8, (complex,), _pack_complex, _unpack_complex)
add_type(9, (datetime,), _pack_datetime, _unpack_datetime)
add_type(10, (date,), _pack_date, _unpack_date)
add_type(11, (time,), _pack_time, _unpack_time)
add_type(12, (timedelta,), _pack_timedelta, _unpack_timedelta)
_add_path(13, (Path, type(Path())), Path)
_add_path(14, (PurePosixPath,), PurePosixPath)
_add_path(15, (PureWindowsPath,), PureWindowsPath)
