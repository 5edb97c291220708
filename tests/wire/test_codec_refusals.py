"""What cannot be sent raises an error that names its place and a cure."""

from __future__ import annotations

import enum
import re
from collections import defaultdict, namedtuple
from datetime import time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from opencluster.errors import Interrupted, LocalProtocolError, RemoteProtocolError
from opencluster.wire import codec, registry
from opencluster.wire.codec import register_type
from opencluster.workpiece import WorkPiece


class Foo:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Foo) and self.value == other.value

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "<Foo>"


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 1


class Name(str):
    pass


class Piece(WorkPiece):
    pass


class NoOffset(tzinfo):
    def utcoffset(self, moment: Any) -> None:
        return None


Point = namedtuple("Point", "x y")


@pytest.fixture
def no_user_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_by_class", dict(registry._by_class))
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))


def _told(value: Any, name: str = "value") -> str:
    with pytest.raises(LocalProtocolError) as caught:
        codec.encode(value, name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Foo(), "value"),
        ({"spectra": [0, 1, 2, Foo()]}, 'value["spectra"][3]'),
        (WorkPiece(a=(1, {2: Foo()})), 'value["a"][1][2]'),
        ({(1, "x"): Foo()}, "value[(1, 'x')]"),
        ({(1, Foo()): 2}, "value (key (1, <Foo>))[1]"),
        ({"s": {Foo()}}, 'value["s"] (member <Foo>)'),
        ([{"a": 1}, WorkPiece(b=WorkPiece(c=Foo()))], 'value[1]["b"]["c"]'),
        ({'q"uo\nte': Foo()}, 'value["q\\"uo\\nte"]'),
    ],
)
def test_the_place_is_named(value: Any, path: str) -> None:
    assert _told(value).startswith(f"{path}: cannot send <class '")


def test_the_caller_may_name_the_value() -> None:
    assert _told({"a": Foo()}, "work").startswith('work["a"]: cannot send')


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (Foo(), "convert it to a dict, list or array, or register_type(Foo"),
        (Colour.RED, "convert it to its .value or .name"),
        (Level.HIGH, "convert it to its .value or .name"),
        (Name("x"), "convert it to str"),
        (Point(1, 2), "convert it to tuple"),
        (defaultdict(int), "convert it to dict"),
        (Piece(), "convert it to opencluster.workpiece.WorkPiece"),
        ((n for n in [1]), "convert it to a list"),
        (range(3), "convert it to a list"),
        (lambda: 1, "let the receiver import its own code"),
        (Foo, "let the receiver import its own code"),
        (re, "let the receiver import its own code"),
        (len, "let the receiver import its own code"),
        (memoryview(b"abcd")[::2], "use bytes()"),
        (Fraction(1, 7**100000), "send its numerator and denominator"),
        (time(1, tzinfo=NoOffset()), "use zoneinfo.ZoneInfo or datetime.timezone"),
        (Ellipsis, "convert it"),
    ],
)
def test_a_cure_is_told(value: Any, cure: str) -> None:
    told = _told({"x": [value]})
    assert told.startswith('value["x"][0]: cannot send')
    assert cure in told


def test_recursion_is_told() -> None:
    work = WorkPiece()
    work["self"] = [work]
    assert (
        _told(work) == 'value["self"][0]: cannot send a WorkPiece that contains itself'
    )


@pytest.mark.parametrize("levels", [100, 101, 170, 600, 5000])
@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {1: (v,)}]
)
def test_deep_nesting_is_told(wrap: Any, levels: int) -> None:
    value: Any = []
    for _ in range(levels):
        value = wrap(value)
    told = _told(value)
    assert "nested deeper than 100 levels" in told
    assert len(told) < 300


def test_deep_nesting_is_counted_through_types_of_users(no_user_types: None) -> None:
    register_type(Foo, lambda foo: foo.value, Foo)
    value: Any = 1
    for _ in range(50):
        value = [Foo(value)]
    data, _ = codec.encode(value)
    assert codec.decode(data) == value
    assert "nested deeper" in _told([value])


def test_packing_oneself_without_end_is_told(no_user_types: None) -> None:
    register_type(Foo, lambda foo: foo, Foo)
    assert "contains itself" in _told([Foo()])
    register_type(Foo, lambda foo: Foo(), Foo)
    assert "nested deeper" in _told([Foo()])


def test_registered_type_travels_wherever_it_stands(no_user_types: None) -> None:
    register_type(Foo, lambda foo: [foo.value], lambda payload: Foo(payload[0]))
    value = {Foo(1): [Foo((2, Decimal(3))), WorkPiece(a=Foo(Foo()))]}
    assert codec.decode(*codec.encode(value)) == value


def test_unregistered_name_is_told_at_the_receiver(
    no_user_types: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_type(Foo, lambda foo: foo.value, Foo, name="lab.Foo")
    data, _ = codec.encode([Foo(1)])
    monkeypatch.setattr(registry, "_by_name", {})
    with pytest.raises(RemoteProtocolError, match=r"register_type.*name='lab.Foo'"):
        codec.decode(data)


def test_subclass_of_registered_type_is_not_meant(no_user_types: None) -> None:
    class Bar(Foo):
        pass

    register_type(Foo, lambda foo: foo.value, Foo)
    assert "convert it to" in _told(Bar())


def test_faults_of_the_users_functions_are_told(no_user_types: None) -> None:
    register_type(Foo, lambda foo: 1 / foo.value, lambda payload: 1 / 0)
    told = _told({"a": [Foo(0)]})
    assert told.startswith('value["a"][0]: cannot send')
    assert "ZeroDivisionError" in told
    data, _ = codec.encode(Foo(1))
    with pytest.raises(RemoteProtocolError, match="Foo: division by zero"):
        codec.decode(data)


def test_an_obstacle_in_what_pack_returned_has_a_place(no_user_types: None) -> None:
    register_type(Foo, lambda foo: {"inner": foo.value}, Foo)
    told = _told([Foo(Colour.RED)])
    assert told.startswith('value[0].pack()["inner"]: cannot send')


def test_an_interrupt_while_packing_stays_an_interrupt(no_user_types: None) -> None:
    def interrupt(_: Any) -> Any:
        raise Interrupted("stop")

    register_type(Foo, interrupt, interrupt)
    with pytest.raises(Interrupted):
        codec.encode([Foo()])
    register_type(Foo, lambda foo: 1, interrupt)
    data, _ = codec.encode([Foo()])
    with pytest.raises(Interrupted):
        codec.decode(data)


@pytest.mark.parametrize("cls", [int, dict, tuple, WorkPiece, timedelta, memoryview])
def test_types_that_travel_already_cannot_be_registered(cls: type) -> None:
    with pytest.raises(ValueError, match="can be sent already"):
        register_type(cls, str, str)


def test_names_of_types_are_unique_but_may_be_defined_again(
    no_user_types: None,
) -> None:
    register_type(Foo, lambda foo: 1, lambda payload: Foo(1), name="x")
    with pytest.raises(ValueError, match="'x' is already the name of .*Foo"):
        register_type(Name, str, Name, name="x")
    again = type("Foo", (), {"__module__": Foo.__module__})
    register_type(again, lambda foo: 1, lambda payload: again(), name="x")
    assert type(codec.decode(codec.encode(again())[0])) is again


def test_long_names_of_types_are_refused() -> None:
    with pytest.raises(ValueError, match="over 255 bytes"):
        register_type(Foo, str, Foo, name="é" * 130)


def test_keys_that_cannot_be_shown_are_told_all_the_same() -> None:
    huge = Fraction(1, 7**9999)
    assert "object at" in _told({huge: Foo()})
    assert len(_told({("long",) * 1000: Foo()})) < 300
