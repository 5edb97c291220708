"""WorkPiece is a dictionary that shows itself briefly and knows its size."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opencluster.workpiece import MAX_REPR_CHARACTERS, WorkPiece


@pytest.mark.parametrize(
    ("work", "items"),
    [
        (WorkPiece(), {}),
        (WorkPiece(a=1), {"a": 1}),
        (WorkPiece({"x": 1}, b=2), {"x": 1, "b": 2}),
        (WorkPiece([(1, 2)]), {1: 2}),
        (WorkPiece(True), {}),
        (WorkPiece(False, a=1), {"a": 1}),
        (WorkPiece(ready=3), {"ready": 3}),
    ],
)
def test_construction(work: WorkPiece, items: dict[Any, Any]) -> None:
    assert work == items
    assert isinstance(work, dict)


def test_marker_is_no_item() -> None:
    assert WorkPiece().ready is True
    assert WorkPiece(True).ready is True
    assert WorkPiece(False).ready is False
    assert WorkPiece(False) == WorkPiece(True) == {}
    assert WorkPiece(ready=False).ready is True


@pytest.mark.parametrize("args", [(1,), (None,), ({}, {}), (True, {}, {})])
def test_nonsense_is_refused_as_by_dict(args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        WorkPiece(*args)


def test_objects_of_the_paper() -> None:
    work = WorkPiece()
    work.set_obj("a", 1)
    work.setObj("b", 2)
    assert work == {"a": 1, "b": 2}
    assert work.get_obj("a") == work.getObj("a") == 1
    assert work.get_obj("c") is None
    assert work.getObj("c", 5) == 5


@pytest.mark.parametrize(
    "duplicate",
    [
        WorkPiece.copy,
        copy.copy,
        copy.deepcopy,
        lambda work: pickle.loads(pickle.dumps(work)),
    ],
)
def test_copies_keep_type_and_marker(duplicate: Any) -> None:
    work = WorkPiece(False, a=[1])
    twin = duplicate(work)
    assert twin == work
    assert twin is not work
    assert type(twin) is WorkPiece
    assert twin.ready is False


@pytest.mark.parametrize(
    ("work", "shown"),
    [
        (WorkPiece(), "WorkPiece()"),
        (WorkPiece(False), "WorkPiece(False)"),
        (WorkPiece(False, a=1), "WorkPiece(False, a=1)"),
        (WorkPiece(z="text", a=(1, [2])), "WorkPiece(z='text', a=(1, [2]))"),
        (WorkPiece({1: 2, "a b": None}), "WorkPiece({1: 2, 'a b': None})"),
        (WorkPiece(a=WorkPiece(b=1.5)), "WorkPiece(a=WorkPiece(b=1.5))"),
        (WorkPiece(a={"z": 1, "a": 2}), "WorkPiece(a={'z': 1, 'a': 2})"),
        (WorkPiece(a=Counter("aab")), "WorkPiece(a=Counter({'a': 2, 'b': 1}))"),
        (WorkPiece(a=Path("x/y")), f"WorkPiece(a={Path('x/y')!r})"),
        (
            WorkPiece(cube=np.zeros((512, 512), "f4")),
            "WorkPiece(cube=array(float32, 512x512))",
        ),
        (WorkPiece(a=np.array(3)), "WorkPiece(a=array(int64, scalar))"),
        (WorkPiece(a=np.float64(3)), "WorkPiece(a=np.float64(3.0))"),
        (
            WorkPiece(a=np.ma.array([1.0, 2.0])),
            "WorkPiece(a=MaskedArray(float64, 2))",
        ),
        (
            WorkPiece(a=10**5000),
            f"WorkPiece(a=<int of {(10**5000).bit_length()} bits>)",
        ),
        (WorkPiece(a=bytes(1000)), f"WorkPiece(a={bytes(80)!r}... (1000 bytes))"),
    ],
)
def test_representation(work: WorkPiece, shown: str) -> None:
    assert repr(work) == shown


def _bush(levels: int) -> Any:
    return [_bush(levels - 1) for _ in range(5)] if levels else "x" * 500


@pytest.mark.parametrize(
    "work",
    [
        WorkPiece(a="x" * 10**6),
        WorkPiece(a=list(range(10**5)), b=set(range(10**5)), c=b"x" * 10**6),
        WorkPiece({"k" * 10**5: 1}),
        WorkPiece({f"key {i}": i for i in range(10**5)}),
        WorkPiece(a=_bush(5)),
        WorkPiece(a=np.zeros(1, [(f"field{i}", "f8") for i in range(1000)])),
    ],
)
def test_representation_is_bounded(work: WorkPiece) -> None:
    assert len(repr(work)) <= MAX_REPR_CHARACTERS


def test_representation_tells_how_many_items_are_hidden() -> None:
    assert repr(WorkPiece({i: i for i in range(30)})).endswith("7: 7, ... 22 more})")


def test_representation_of_recursion_ends() -> None:
    work = WorkPiece()
    work["self"] = work
    assert repr(work).count("WorkPiece") < 10


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


class list_:  # noqa: N801
    pass


list_.__name__ = "list"


@pytest.mark.parametrize("value", [Broken(), list_(), Fraction(1, 7**9999)])
def test_representation_survives_strange_values(value: Any) -> None:
    assert repr(WorkPiece(a=value)).startswith("WorkPiece(a=<")


def test_size_counts_arrays_text_and_containers() -> None:
    empty = WorkPiece().nbytes
    array = WorkPiece(a=np.zeros((100, 10), "f4"), b=[np.zeros(50)], c="x" * 700)
    assert empty == 0
    assert 4000 + 400 + 700 <= array.nbytes < 4000 + 400 + 700 + 100
    assert WorkPiece({(1, 2): {3: b"x" * 10}}).nbytes >= 10


def test_size_of_recursion_ends() -> None:
    work = WorkPiece(a=1)
    work["self"] = [work]
    assert work.nbytes < 200
