"""How astropy's quantities and times travel.

Owns the codes 48 to 63.

====  =============  ==============================================================
code  type           payload
====  =============  ==============================================================
48    Quantity       array: value (an ndarray), unit
49    Time           array: jd1, jd2 (ndarrays), mask (nil for none), scale, format,
                     precision, in_subfmt, out_subfmt, location (nil for none)
50    EarthLocation  array: x, y, z (a structured ndarray), unit, name of the ellipsoid
====  =============  ==============================================================

A unit is an array that begins with one of these:

``"name"``          name of a unit that is enabled in astropy
``"composite"``     scale, array of units, array of powers
``"defined"``       names of a unit that is not enabled, and the unit that it means
``"unrecognized"``  text that astropy could not read as a unit
``"structured"``    names of the fields, units of the fields

What a Time looked up or was given for conversions (``delta_ut1_utc``) stays behind, so
do the ``info`` attributes.

Must be imported only when such a value is met: it imports astropy.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import EarthLocation
from astropy.time import Time
from astropy.utils.masked import Masked

from opencluster.wire.registry import add_type, cannot_send, refuse
from opencluster.wire.types import take

# --- units -------------------------------------------------------------------


def pack_unit(unit: Any) -> list[Any]:
    """Return a unit as sendable values.

    Raises
    ------
    LocalProtocolError
        Nothing but this process could know what the unit means.
    """
    if isinstance(unit, u.StructuredUnit):
        return ["structured", list(unit.keys()), [*map(pack_unit, unit.values())]]
    if isinstance(unit, u.UnrecognizedUnit):
        return ["unrecognized", unit.name]
    if isinstance(unit, u.CompositeUnit):
        bases = [pack_unit(base) for base in unit.bases]
        return ["composite", _plain(unit.scale), bases, [*map(_plain, unit.powers)]]
    if not isinstance(unit, u.NamedUnit):
        raise cannot_send(f"the unit {unit}", "use one without a function such as dex")
    name: str = unit.name
    if unit is _enabled_units().get(name):
        return ["name", name]
    if isinstance(unit, u.IrreducibleUnit):
        raise cannot_send(
            f"the unit {unit}, which only this process knows",
            "call astropy.units.add_enabled_units() with it, here and at the receiver",
        )
    return ["defined", list(unit.names), pack_unit(unit.represents)]


def _plain(number: Any) -> int | float | complex | Fraction:
    """Return a scale or power as a number of Python's own."""
    for kind in (int, Fraction, float):
        if isinstance(number, kind):
            return number if type(number) is kind else kind(number)
    return complex(number)


def _enabled_units() -> dict[str, Any]:
    registry: dict[str, Any] = u.get_current_unit_registry().registry
    return registry


def unpack_unit(payload: Any) -> Any:
    """Return the unit that `pack_unit` packed; malformed payloads raise."""
    if type(payload) is not list or not payload:
        refuse("a unit that is no array")
    form, *parts = payload
    unpack = _UNIT_FORMS.get(form) if type(form) is str else None
    if unpack is None:
        refuse("a unit of an unknown form")
    return unpack(parts)


def _named_unit(parts: list[Any]) -> Any:
    (name,) = take(parts, str)
    unit = _enabled_units().get(name)
    if unit is None:
        refuse(
            f"the unit {name[:40]!r} is not known here; call "
            "astropy.units.add_enabled_units() with it in this process too"
        )
    return unit


def _composite_unit(parts: list[Any]) -> Any:
    scale, bases, powers = take(parts, Any, list, list)
    if len(bases) != len(powers) or not all(map(_is_number, [scale, *powers])):
        refuse("a unit whose bases and powers do not match")
    return u.CompositeUnit(scale, [unpack_unit(base) for base in bases], powers)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float, complex, Fraction)


def _defined_unit(parts: list[Any]) -> Any:
    names, meaning = take(parts, list, Any)
    if not names or not all(type(name) is str for name in names):
        refuse("a unit without a name")
    return u.def_unit(names, unpack_unit(meaning))


def _unrecognized_unit(parts: list[Any]) -> Any:
    return u.UnrecognizedUnit(*take(parts, str))


def _structured_unit(parts: list[Any]) -> Any:
    names, units = take(parts, list, list)
    if not names or not all(type(name) is str for name in names):
        refuse("a structured unit without names")
    return u.StructuredUnit(tuple(map(unpack_unit, units)), tuple(names))


_UNIT_FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "name": _named_unit,
    "composite": _composite_unit,
    "defined": _defined_unit,
    "unrecognized": _unrecognized_unit,
    "structured": _structured_unit,
}


# --- quantities -------------------------------------------------------------


def _pack_quantity(quantity: Any) -> list[Any]:
    return [quantity.view(np.ndarray), pack_unit(quantity.unit)]


def _unpack_quantity(payload: Any) -> Any:
    value, unit = take(payload, np.ndarray, Any)
    # Without a dtype, integers would become floats.
    return u.Quantity(value, unpack_unit(unit), dtype=value.dtype, copy=False)


# --- times and places -------------------------------------------------------


def _pack_time(time: Any) -> list[Any]:
    # The public jd1 and jd2 are scalars for some shapes and masked for others.
    inner = time._time
    return [
        _unmasked(inner.jd1),
        _unmasked(inner.jd2),
        np.array(time.mask) if time.masked else None,
        time.scale,
        time.format,
        time.precision,
        time.in_subfmt,
        time.out_subfmt,
        time.location,
    ]


def _unmasked(julian_days: Any) -> Any:
    return np.asarray(getattr(julian_days, "unmasked", julian_days))


def _unpack_time(payload: Any) -> Any:
    array = np.ndarray
    jd1, jd2, mask, scale, form, precision, in_subfmt, out_subfmt, location = take(
        payload, array, array, Any, str, str, int, str, str, Any
    )
    if jd1.shape != jd2.shape or {jd1.dtype, jd2.dtype} != {np.dtype(float)}:
        refuse("a Time whose two parts do not match")
    if location is not None and type(location) is not EarthLocation:
        refuse("a Time with a location that is none")
    time = Time(jd1, jd2, format="jd", scale=scale, location=location)
    # The constructor may round to other bits, such as those of -0.0.
    time._time.jd1, time._time.jd2 = _masked(jd1, mask), _masked(jd2, mask)
    time.format = form
    time.precision = precision
    time.in_subfmt, time.out_subfmt = in_subfmt, out_subfmt
    return time


def _masked(julian_days: Any, mask: Any) -> Any:
    if mask is None:
        return julian_days
    if type(mask) is not np.ndarray or mask.dtype != bool:
        refuse("a Time with a mask that is none")
    if mask.shape != julian_days.shape:
        refuse("a Time with a mask of another shape")
    return Masked(julian_days, mask)


def _pack_location(location: Any) -> list[Any]:
    place = location.view(np.ndarray)
    return [place, pack_unit(location.unit), location.ellipsoid]


def _unpack_location(payload: Any) -> Any:
    place, unit, ellipsoid = take(payload, np.ndarray, Any, str)
    if place.dtype != np.dtype([(axis, float) for axis in "xyz"]):
        refuse("a location without x, y and z")
    location = EarthLocation.from_geocentric(
        place["x"], place["y"], place["z"], unpack_unit(unit)
    )
    location.ellipsoid = ellipsoid
    return location


add_type(48, (u.Quantity,), _pack_quantity, _unpack_quantity)
add_type(49, (Time,), _pack_time, _unpack_time)
add_type(50, (EarthLocation,), _pack_location, _unpack_location)
