"""Astropy's quantities and times arrive with the same bits, units and scales."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Angle, EarthLocation
from astropy.time import Time, TimeDelta
from astropy.units import cds
from wire_values import round_trip, same

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire import codec

PAIR = np.dtype([("p", "f8"), ("v", ">f4")])
MUSER = EarthLocation.from_geodetic(115.2505 * u.deg, 42.2118 * u.deg, 1365 * u.m)
FORMATS = sorted(set(Time.FORMATS) - {"astropy_time"})


def same_quantity(a: Any, b: Any) -> bool:
    return (
        type(a) is type(b)
        and a.unit == b.unit
        and a.unit.to_string() == b.unit.to_string()
        and same(a.view(np.ndarray), b.view(np.ndarray))
    )


def same_time(a: Any, b: Any) -> bool:
    fields = ("shape", "scale", "format", "precision", "in_subfmt", "out_subfmt")
    return (
        type(a) is type(b)
        and all(getattr(a, field) == getattr(b, field) for field in fields)
        and np.array_equal(a.mask, b.mask)
        and _bits(a._time.jd1) == _bits(b._time.jd1)
        and _bits(a._time.jd2) == _bits(b._time.jd2)
    )


def _bits(julian_days: Any) -> bytes:
    return np.asarray(getattr(julian_days, "unmasked", julian_days)).tobytes()


@pytest.mark.parametrize(
    "unit",
    [
        u.km,
        u.Jy / u.beam,
        u.dimensionless_unscaled,
        u.m**0.5,
        u.m ** Fraction(1, 3),
        u.Unit("1e-26 W m^-2 Hz^-1"),
        u.Unit(u.s * 1234.5),
        u.percent,
        u.mag,
        u.Angstrom,
        u.hourangle / u.s**2,
        u.imperial.inch,
        u.imperial.inch / u.deg_C,
        cds.mas,
        u.def_unit(["furlong", "furlongs"], 201.168 * u.m),
        u.Unit("nonsense", parse_strict="silent"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "value",
    [1.5, 3, np.float32(2), [1.0, -0.0, np.nan], np.arange(4)[::2], np.ones((0, 2))],
    ids=repr,
)
def test_quantity_keeps_unit_and_bits(unit: Any, value: Any) -> None:
    dtype = np.asarray(value).dtype
    quantity = u.Quantity(value, unit, dtype=dtype)
    assert same_quantity(round_trip([quantity])[0], quantity)


def test_unit_with_a_meaning_of_its_own_converts_as_before() -> None:
    furlong = u.def_unit("furlong", 201.168 * u.m)
    assert round_trip(2 * furlong).to_value(u.m) == pytest.approx(402.336)


def test_structured_quantity_keeps_fields_and_units() -> None:
    unit = u.StructuredUnit((u.AU, (u.km / u.s)), names=("p", "v"))
    quantity = u.Quantity(np.ones(3, PAIR), unit, dtype=PAIR)
    arrived = round_trip(quantity)
    assert same_quantity(arrived, quantity)
    assert arrived.unit.field_names == ("p", "v")


def test_nested_structured_unit_keeps_names_at_every_level() -> None:
    inner = u.StructuredUnit((u.AU, u.km), names=("x", "y"))
    unit = u.StructuredUnit((inner, u.day), names=(["pos", ("x", "y")], "t"))
    dtype = np.dtype([("pos", [("x", "f8"), ("y", "f8")]), ("t", "f8")])
    arrived = round_trip(u.Quantity(np.ones((), dtype), unit, dtype=dtype))
    assert arrived.unit.field_names == (["pos", ("x", "y")], "t")


def test_large_quantity_goes_out_of_band_and_arrives_read_only() -> None:
    image = np.asfortranarray(np.arange(1e4).reshape(100, 100)) * u.Jy
    data, buffers = codec.encode({"image": image})
    assert np.shares_memory(image, np.frombuffer(buffers[0], np.uint8))
    arrived = codec.decode(data, buffers)["image"]
    assert same_quantity(arrived, image)
    assert np.shares_memory(arrived, image)
    assert not arrived.flags.writeable


def test_unit_known_to_this_process_only_cannot_be_sent() -> None:
    with pytest.raises(LocalProtocolError, match=r'value\["a"\].*add_enabled_units'):
        codec.encode({"a": 1 * u.def_unit("bogomips")})


def test_enabled_unit_of_the_user_travels_by_name_and_is_missed_by_name() -> None:
    unit = u.def_unit("bogoflops")
    with u.add_enabled_units([unit]):
        data, buffers = codec.encode(2 * unit)
        assert codec.decode(data, buffers).unit is unit
    with pytest.raises(RemoteProtocolError, match="bogoflops"):
        codec.decode(data, buffers)


def test_function_unit_is_refused_with_a_path() -> None:
    with pytest.raises(LocalProtocolError, match=r"value\[0\]: .*Magnitude"):
        codec.encode([u.Magnitude(3)])


def test_subclass_of_quantity_is_refused_with_a_cure() -> None:
    with pytest.raises(LocalProtocolError, match="convert it to astropy.*Quantity"):
        codec.encode(Angle(3 * u.deg))


@pytest.mark.parametrize("form", FORMATS)
def test_time_keeps_every_format(form: str) -> None:
    time = Time([2451545.0, 2459000.25], [0.1, -0.3], format="jd", scale="tai")
    time.format = form
    arrived = round_trip(time)
    assert same_time(arrived, time)
    assert repr(arrived.value) == repr(time.value)


@pytest.mark.parametrize("scale", Time.SCALES)
def test_time_keeps_every_scale(scale: str) -> None:
    time = Time(2451545.0, 0.123456789, format="jd", scale=scale)
    assert same_time(round_trip(time), time)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3)])
def test_time_keeps_shape_and_bits(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(3)
    time = Time(
        random.uniform(0, 3e6, shape), random.uniform(-1, 1, shape), format="jd"
    )
    assert same_time(round_trip(time), time)


@pytest.mark.parametrize("days", [(2451545.0, 0.5), (2451545.0, -0.0), (1e-9, 0.5)])
def test_time_keeps_bits_that_astropy_would_round(days: tuple[float, float]) -> None:
    time = Time(*days, format="jd")
    time._time.jd1, time._time.jd2 = map(np.array, days)
    assert same_time(round_trip(time), time)


def test_time_keeps_precision_and_subformats() -> None:
    time = Time("2020-01-01T01:02", precision=7, out_subfmt="date_hm")
    arrived = round_trip(time)
    assert same_time(arrived, time)
    assert arrived.value == time.value == "2020-01-01T01:02"


def test_time_keeps_mask() -> None:
    time = Time(["2020-01-01", "2021-01-01"])
    time[1] = np.ma.masked
    arrived = round_trip(time)
    assert same_time(arrived, time)
    assert arrived.masked


def test_time_keeps_location() -> None:
    time = Time(["2020-01-01", "2021-01-01"], location=MUSER)
    arrived = round_trip(time)
    assert same_time(arrived, time)
    assert type(arrived.location) is EarthLocation
    assert arrived.location.ellipsoid == MUSER.ellipsoid
    assert arrived.location.value.tobytes() == MUSER.value.tobytes()
    assert (arrived.tdb.jd2 == time.tdb.jd2).all()


def test_place_keeps_unit_and_ellipsoid() -> None:
    place = EarthLocation.from_geocentric([1.0, 2.0], 3.0, 4.0, unit=u.km)
    place.ellipsoid = "GRS80"
    arrived = round_trip(place)
    assert arrived.unit == u.km
    assert arrived.ellipsoid == "GRS80"
    assert arrived.value.tobytes() == place.value.tobytes()


def test_time_differences_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="TimeDelta"):
        codec.encode({"dt": TimeDelta(1.0, format="jd")})
