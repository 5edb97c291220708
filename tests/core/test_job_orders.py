"""Orders for jobs: who may still have one, what is kept, and what a manager owes."""

from __future__ import annotations

from typing import Any

import pytest

from opencluster.core.job_orders import (
    Cancel,
    Prioritise,
    duties,
    ordered_by,
    orders_of,
    with_order,
)
from opencluster.core.registry import Registry
from opencluster.errors import RegistryError

RUNNING = {"id": "j1", "state": "running"}


def registry(**row: Any) -> Registry:
    """Return a registry that knows one job."""
    made = Registry()
    made.report_job(0.0, RUNNING | row)
    return made


def test_an_order_stands_in_the_row_with_who_and_when() -> None:
    row = with_order(RUNNING, "cancel", None, "ann@desk", 7.0)
    assert row == RUNNING | {"orders": {"cancel": {"by": "ann@desk", "at": 7.0}}}
    assert "orders" not in RUNNING


def test_the_newest_order_of_a_kind_counts_and_kinds_stand_beside_each_other() -> None:
    row = with_order(RUNNING, "priority", 3, "ann", 1.0)
    row = with_order(row, "priority", -2, "bob", 2.0)
    row = with_order(row, "cancel", None, "bob", 3.0)
    assert row["orders"]["priority"] == {"by": "bob", "at": 2.0, "value": -2}
    assert set(row["orders"]) == {"cancel", "priority"}


@pytest.mark.parametrize("order", ["", "explode", None, ["cancel"]])
def test_other_orders_are_refused(order: Any) -> None:
    with pytest.raises(RegistryError, match="there are: cancel, priority"):
        with_order(RUNNING, order, None, "", 0.0)


@pytest.mark.parametrize("value", [None, True, 1.5, "7", 2**63, -(2**63)])
def test_what_is_no_priority_is_refused(value: Any) -> None:
    with pytest.raises(RegistryError, match="a priority is an integer"):
        with_order(RUNNING, "priority", value, "", 0.0)


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_a_job_that_ended_takes_no_order(state: str) -> None:
    with pytest.raises(RegistryError, match=f"j1 has ended already: it is {state}"):
        with_order(RUNNING | {"state": state}, "cancel", None, "", 0.0)


def test_nobody_can_carry_out_an_order_for_a_job_whose_manager_is_gone() -> None:
    with pytest.raises(RegistryError, match="j1 is lost: its manager does not report"):
        with_order(RUNNING | {"state": "lost"}, "cancel", None, "", 0.0)


@pytest.mark.parametrize(
    ("said", "name", "by"),
    [
        ("ann@desk", "", "ann@desk"),
        ("ann@desk", "web", "ann@desk (with the key web)"),
        ("web", "web", "web"),
        (None, "web", "web"),
        ({"a": 1}, "", ""),
        ("ann\nroot", "web", "web"),
        ("x" * 500, "", "x" * 100),
    ],
)
def test_who_ordered_it_is_said_by_them_and_proved_by_their_key(
    said: Any, name: str, by: str
) -> None:
    assert ordered_by(said, name) == by


# --- what a manager owes ----------------------------------------------------


def answer(**orders: Any) -> dict[str, Any]:
    return {"orders": orders}


def test_a_priority_is_owed_until_it_is_carried_out() -> None:
    told = answer(priority={"value": 5})
    assert duties(told, None) == [Prioritise(5)]
    assert duties(told, 4) == [Prioritise(5)]
    assert duties(told, 5) == []


def test_who_is_to_end_need_not_change_its_priority() -> None:
    told = answer(priority={"value": 5}, cancel={"by": "ann"})
    assert duties(told, None) == [Cancel("ann")]


@pytest.mark.parametrize(
    "told",
    [
        None,
        "cancel",
        {},
        answer(cancel=True),
        answer(priority=5),
        answer(priority={"value": "5"}),
        answer(priority={"value": True}),
        {"orders": ["cancel"]},
    ],
)
def test_what_is_no_order_is_none(told: Any) -> None:
    assert duties(told, None) == []


# --- in the registry ----------------------------------------------------------


def test_an_order_outlives_the_next_reports_and_a_copy() -> None:
    known = registry()
    known.order_job("j1", "priority", 4, "ann", 1.0)
    known.report_job(2.0, RUNNING | {"pieces_done": 3})
    copy = Registry()
    copy.restore(9.0, known.snapshot())
    for each in (known, copy):
        assert each.orders_for("j1")["priority"]["value"] == 4
        assert each.snapshot()["jobs"][0]["pieces_done"] == 3


def test_an_order_for_a_job_that_nobody_knows_is_refused() -> None:
    for identity in ("j2", "", None, ["j1"]):
        with pytest.raises(RegistryError, match="no job .* is known"):
            registry().order_job(identity, "cancel", None, "", 0.0)
    assert registry().orders_for("j2") == {}


def test_a_lost_job_that_comes_back_still_has_its_orders() -> None:
    known = registry()
    known.order_job("j1", "cancel", None, "ann", 1.0)
    known.expire(100.0)
    assert known.snapshot()["jobs"][0]["state"] == "lost"
    known.report_job(101.0, RUNNING)
    assert orders_of(known.snapshot()["jobs"][0])["cancel"]["by"] == "ann"
