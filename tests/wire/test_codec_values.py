"""Values of Python arrive with the types and the bits that they had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter, OrderedDict
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from wire_values import any_floats, examples, round_trip, same, texts, values

from opencluster.wire import codec
from opencluster.workpiece import WorkPiece


@examples(250)
@given(values)
def test_any_value_arrives_as_it_was(value: Any) -> None:
    assert same(round_trip(value), value)


@examples(200)
@given(any_floats)
def test_floats_keep_all_bits(number: float) -> None:
    assert same(round_trip([number, {number: number}]), [number, {number: number}])


@examples(100)
@given(texts)
def test_text_may_have_lone_surrogates(text: str) -> None:
    assert round_trip({text: [text]}) == {text: [text]}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        -(2**64),
        10**5000,
        -(10**5000),
        float("nan"),
        -0.0,
        "\udcff\ud800",
        "a" * 70000,
        b"\x00" * 70000,
        (),
        ((1,), [(2,)]),
        {1: "int", "1": "str", b"1": "bytes", (1,): "tuple", None: 0, 1.5: "float"},
        {frozenset({1, (2, 3)}): {4}},
        Counter(a=3, b=-1),
        OrderedDict([("z", 1), ("a", 2)]),
        complex(float("nan"), -0.0),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2020, 1, 1, tzinfo=timezone(timedelta(seconds=1), "name")),
        time(2, 30, fold=1, tzinfo=ZoneInfo("Asia/Shanghai")),
        timedelta(days=-1, microseconds=1),
        Path("a/../b"),
        PurePosixPath("/x"),
        PureWindowsPath("C:\\x"),
        Decimal("1.10E-999999"),
        Decimal("-sNaN7"),
        Fraction(-(10**400), 7),
        UUID(int=5),
    ],
    ids=lambda value: repr(value)[:40] if type(value) is not int else hex(value)[:40],
)
def test_particular_values(value: Any) -> None:
    assert same(round_trip([value]), [value])


def test_workpiece_keeps_its_marker_and_order() -> None:
    work = WorkPiece(False, z=1, a=WorkPiece(True))
    assert same(round_trip(work), work)


def test_buffers_of_bytes_arrive_as_bytes() -> None:
    sent = [bytearray(b"ab"), memoryview(b"cd"), memoryview(bytearray(b"ef"))]
    assert same(round_trip(sent), [b"ab", b"cd", b"ef"])


class _Eastern(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=-5)

    def tzname(self, moment: datetime | None) -> str:
        return "EST"

    def dst(self, moment: datetime | None) -> None:
        return None


def test_foreign_timezone_becomes_its_fixed_offset() -> None:
    arrived = round_trip(datetime(2020, 1, 1, tzinfo=_Eastern()))
    fixed = timezone(timedelta(hours=-5), "EST")
    assert same(arrived, datetime(2020, 1, 1, tzinfo=fixed))


def test_decimal_does_not_depend_on_the_context() -> None:
    number = Decimal("1.23456789e1000")
    with localcontext() as context:
        context.prec = 2
        context.capitals = 0
        assert same(round_trip(number), number)


def test_shared_values_are_no_recursion() -> None:
    shared = [1, (2, 3)]
    value = {"a": shared, "b": [shared, shared]}
    assert same(round_trip(value), value)


def _nest(wrap: Any, levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS = [
    lambda v: [v],
    lambda v: (v,),
    lambda v: frozenset({v}),
    lambda v: {"k": v},
    lambda v: {1.5: v},
    lambda v: WorkPiece(a=v),
    lambda v: OrderedDict(a=v),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_hundred_levels_arrive(wrap: Any) -> None:
    value = _nest(wrap, codec.MAX_NESTING - 1)
    assert same(round_trip([value]), [value])


def test_levels_of_different_kinds_add_up() -> None:
    value = _nest(lambda v: [v], 50)
    value = [_nest(lambda _: value, 1), *(_nest(lambda v: (v,), 49) for _ in range(30))]
    assert same(round_trip(value), value)


def test_threads_encode_at_the_same_time() -> None:
    wrong = []

    def work(number: int) -> None:
        value = {"n": number, "t": (number,) * 50, "a": np.full(2000, number)}
        for _ in range(50):
            arrived = round_trip(value)
            if not same(arrived, value):
                wrong.append(arrived)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_plain_values_import_no_array_library() -> None:
    program = (
        "import sys\n"
        "from opencluster.wire import codec, frames\n"
        "from opencluster.workpiece import WorkPiece\n"
        "work = WorkPiece(a=(1, 2.5), b={3})\n"
        "assert codec.decode(codec.encode(work)[0]) == work\n"
        "assert repr(work) and work.nbytes\n"
        "assert not {'numpy', 'astropy'} & set(sys.modules), 'imported'\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, env=environment
    )


def test_sameness_sees_what_equality_does_not() -> None:
    zeros = np.zeros(2)
    assert not same(0.0, -0.0)
    assert not same(True, 1)
    assert not same([1], (1,))
    assert not same({1: 2, 3: 4}, {3: 4, 1: 2})
    assert not same(WorkPiece(True), WorkPiece(False))
    assert not same(zeros, zeros.astype(">f8"))
    assert not same(zeros, np.ma.array(zeros))
    assert not same(np.ma.array(zeros), np.ma.array(zeros, mask=False))
    assert not same(np.float64(0), 0.0)
    assert same(float("nan"), float("nan"))
