"""What managers and who launches workers tell each other by the factories."""

from __future__ import annotations

from typing import Any

import pytest

from opencluster.core.elastic_report import (
    acting,
    expected,
    metrics_of,
    report_of,
    work_in,
)
from opencluster.core.elasticity import Standing
from opencluster.core.job_orders import CANCEL, RESUME, with_order
from opencluster.core.registry import Registry
from opencluster.errors import RegistryError


def report(identity: str, at: float, **states: str) -> dict[str, Any]:
    standings = [
        Standing(type, state, 7, 2.5, 1, 2, 3, "why") for type, state in states.items()
    ]
    return report_of(identity, at, standings, host="node1")


def job(identity: str, **queued: Any) -> dict[str, Any]:
    return {"id": identity, "state": "running", "queued": queued}


def test_what_managers_have_to_do_is_added_up() -> None:
    rows = [
        job("a", Fit=[10, 2.0], Sun=[5, None]),
        job("b", Fit=[30, 4.0]),
        job("c", Fit=[60, None]),
        job("d", Fit=[1000, 1.0], Sun=[1, 1.0]) | {"state": "lost"},
        {"id": "e", "state": "running"},
    ]
    assert work_in(rows) == {"Fit": (100, 3.5), "Sun": (5, None)}


@pytest.mark.parametrize(
    "told",
    [None, 7, [7], *([n, 1.0] for n in ("7", -1, True, 10**13)), {}, [1, 2, 3]],
    ids=repr,
)
def test_figures_that_are_none_count_as_none(told: Any) -> None:
    rows = [job("a", Fit=told), job("b", Fit=[2, 1.0])]
    assert work_in(rows) == {"Fit": (2, 1.0)}


@pytest.mark.parametrize("mean_s", [-1.0, float("nan"), float("inf"), "2", True])
def test_durations_that_are_none_are_unknown(mean_s: Any) -> None:
    assert work_in([job("a", Fit=[2, mean_s])]) == {"Fit": (2, None)}
    assert work_in([job("a") | {"queued": [1]}]) == {}


def test_of_several_the_first_acts() -> None:
    first, second = report("b", 5.0, Fit="steady"), report("a", 6.0, Sun="steady")
    assert acting([second, first]) is first
    assert acting([second, first | {"state": "lost"}]) is second
    assert acting([second | {"started_at": "x"}, first]) is first
    assert acting([{"id": "j", "state": "running"}]) is None


def test_workers_of_types_that_are_stopped_are_not_expected() -> None:
    rows = [report("a", 1.0, Fit="held", Sun="stopped"), job("j")]
    assert expected(rows) == ["Fit"]
    assert expected([report("a", 1.0) | {"types": [7, {"type": 1}]}]) == []


def test_numbers_for_those_who_watch() -> None:
    found = {m.name: m.samples for m in metrics_of([report("a", 1.0, Fit="stopped")])}
    assert found["elastic_wanted"] == [((("type", "Fit"),), 3)]
    assert found["elastic_stopped"] == [((("type", "Fit"),), 1)]
    assert all(metric.samples == [] for metric in metrics_of([job("j")]))


def test_a_factory_knows_which_workers_will_come_as_long_as_that_is_told() -> None:
    registry = Registry(lease_s=10.0)
    registry.report_job(0.0, report("a", 1.0, Fit="steady", Sun="steady"))
    assert registry.expected == ["Fit", "Sun"]
    copy = Registry(lease_s=10.0)
    copy.restore(0.0, registry.snapshot())
    assert copy.expected == ["Fit", "Sun"]
    registry.report_job(5.0, report("a", 1.0, Fit="stopped", Sun="steady"))
    assert registry.expected == ["Sun"]
    registry.expire(14.0)
    assert registry.expected == ["Sun"]
    registry.expire(15.0)
    assert registry.expected == []


def test_elasticity_takes_orders_of_its_own() -> None:
    row = report("a", 1.0, Fit="stopped")
    assert with_order(row, RESUME, None, "ann", 5.0)["orders"] == {
        RESUME: {"by": "ann", "at": 5.0}
    }
    with pytest.raises(RegistryError, match="elasticity takes no order 'cancel'"):
        with_order(row, CANCEL, None, "ann", 5.0)
    with pytest.raises(RegistryError, match="a job takes no order 'resume'"):
        with_order(job("j"), RESUME, None, "ann", 5.0)
