"""How the order of a host differs from the one that it carries out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from opencluster.errors import FactoryUnreachable, RequestRefused
from opencluster.launchers.changes import Change, change_between, outline
from opencluster.launchers.joining import join_in
from opencluster.launchers.order import Answer, Order, answer_in
from opencluster.net.control import Control

SECTIONS = {
    "cluster": {"factories": "tcp://a:1"},
    "worker:A": {"target": "a.py:A", "count": "1"},
}
ORDER = Order("a", "/d", sections=SECTIONS, files={"a.py": "YQ=="})
ENTRY = {"name": "B", "kind": "worker", "target": "b:B", "count": 3}


def sections(**changes: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    return SECTIONS | {name.replace("_", ":"): each for name, each in changes.items()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Change("", True)),
        ({"keys": {"roll": "9"}}, Change("", True)),
        (
            {"sections": sections(worker_B={"target": "a.py:B"})},
            Change("worker B is new", True),
        ),
        (
            {"sections": sections(worker_A={"target": "a.py:A"})},
            Change("0 of worker A, not 1", True, {"A": 0}),
        ),
        (
            {"sections": sections(service_S={"target": "s:S"}), "files": {}},
            Change("service S is new; file a.py is gone", False),
        ),
        (
            {"sections": sections(worker_A={"target": "b.py:A", "count": "1"})},
            Change("worker A has other target", False),
        ),
        (
            {"sections": sections(cluster={"factories": "tcp://b:1"})},
            Change("other factories in [cluster]", False),
        ),
        (
            {"sections": sections(log={"level": "DEBUG"})},
            Change("other level in [log]", False),
        ),
        ({"files": {"a.py": "Yg=="}}, Change("file a.py is another", False)),
        ({"executables": ("a.py",)}, Change("file a.py is another", False)),
        (
            {"files": {"a.py": "YQ==", "b.py": ""}},
            Change("file b.py is new", True),
        ),
        ({"roles": ("workshop",)}, Change("other roles", False)),
        ({"keys": {"worker.key": "9"}}, Change("other keys", False)),
        ({"version": "9"}, Change("other version of OpenCluster", False)),
    ],
)
def test_what_is_different_is_named(changes: dict[str, Any], expected: Change) -> None:
    other = replace(ORDER, **changes)
    assert change_between(outline(ORDER), outline(other)) == expected


def test_of_an_order_that_was_not_described_nothing_is_known() -> None:
    assert change_between({}, outline(ORDER)) == Change()


def test_what_a_workshop_is_to_take_over_comes_with_the_answer() -> None:
    answer = Answer(True, "", catalogue=(ENTRY,), is_changed=True, counts={"A": 2})
    assert answer_in(answer.to_json()) == answer
    odd = json.dumps({"opencluster_node": {"catalogue": 7, "counts": [{}]}})
    assert answer_in(odd) == Answer(False, "")


class Shop:
    """A cluster with one workshop, which knows A."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.heard: list[tuple[str, Mapping[str, Any]]] = []

    def factory(self, operation: str, arguments: object) -> list[dict[str, str]]:
        return [{"name": "n1", "host_id": "x"}]

    def workshop(self, shop: object, operation: str, order: Any, *_: float) -> Any:
        if operation == "status":
            return {"catalogue": [{"name": "A"}]}
        if self.refusal:
            raise RequestRefused(self.refusal)
        self.heard.append((operation, order))
        if operation == "scale":
            raise FactoryUnreachable("its processes take their time")
        return {}


@pytest.mark.parametrize("name", ["n1", "called otherwise"])
def test_a_workshop_hears_of_what_it_does_not_know(name: str) -> None:
    shop = Shop()
    catalogue = ({"name": "A", "count": 1}, ENTRY)
    answer = Answer(True, "", computer="x", catalogue=catalogue, counts={"A": 2})
    assert join_in(cast(Control, shop), {name: answer}) == {}
    assert shop.heard == [
        ("start", {"entry": ENTRY, "count": 0}),
        ("scale", {"type": "A", "count": 2}),
        ("scale", {"type": "B", "count": 3}),
    ]


def test_why_it_does_not_is_told_if_something_was_changed() -> None:
    control = cast(Control, Shop("it is drained"))
    answer = Answer(True, "", catalogue=(ENTRY,), is_changed=True)
    assert join_in(control, {"n1": answer, "n2": answer}) == {
        "n1": "it is drained",
        "n2": "its workshop is not registered; run the command again",
    }
    same = replace(answer, is_changed=False)
    assert join_in(control, {"n1": same, "n2": same}) == {}
