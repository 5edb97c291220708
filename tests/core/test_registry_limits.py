"""No client can make the registry large: entries of each, their size, their depth."""

from __future__ import annotations

from typing import Any

import pytest
from registry_tools import first_expiry

from opencluster.core.bounds import Bounds
from opencluster.core.entries import Delta, Entry, with_attributes
from opencluster.core.registry import Registry
from opencluster.errors import RegistryError

WORKER = Entry("w1", "worker", type="T", name="T-1")
DEEP: Any = [[[[[[[[[[[[[[[[[[[["bottom"]]]]]]]]]]]]]]]]]]]]
LARGE = {"k": "x" * 1000}
BOUNDS = Bounds(max_text=100, max_bytes=1000)


def limited(**settings: Any) -> Registry:
    registry = Registry(bounds=BOUNDS, **settings)
    registry.register(0.0, WORKER)
    return registry


def worker(number: int) -> Entry:
    return Entry(f"w{number}", "worker", type="T", name=f"T-{number}")


# --- how many --------------------------------------------------------------------


def test_each_client_has_room_for_so_many_entries() -> None:
    registry = Registry(max_entries_per_client=2)
    for number, client in [(1, "a"), (2, "a"), (3, "b")]:
        registry.register(0.0, worker(number), client)
    with pytest.raises(RegistryError, match=r"has 2 entries.*max_entries_per_client"):
        registry.register(0.0, worker(4), "a")
    registry.register(0.0, worker(4), "b")
    assert registry.revision == 4
    registry.check_invariants()


def test_client_that_is_at_its_limit_may_change_and_renew_what_it_has() -> None:
    registry = Registry(max_entries_per_client=1)
    registry.register(0.0, WORKER, "a")
    assert registry.register(1.0, WORKER, "a") == []
    changed = with_attributes(WORKER, is_draining=True)
    assert registry.register(1.0, changed, "a") == [Delta(2, "w1", changed)]
    assert registry.renew(1.0, ["w1"]) == []
    registry.check_invariants()


@pytest.mark.parametrize("is_expired", [True, False])
def test_what_is_gone_makes_room(is_expired: bool) -> None:
    registry = Registry(lease_s=10.0, max_entries_per_client=1)
    registry.register(0.0, worker(1), "a")
    if is_expired:
        registry.expire(10.0)
    else:
        registry.remove("w1")
    registry.register(10.0, worker(2), "a")
    registry.check_invariants()


def test_entry_counts_for_the_client_that_came_first() -> None:
    registry = Registry(max_entries_per_client=1)
    registry.register(0.0, worker(1), "a")
    registry.register(0.0, with_attributes(worker(1), is_draining=True), "b")
    registry.register(0.0, worker(2), "b")
    with pytest.raises(RegistryError):
        registry.register(0.0, worker(3), "a")


def test_what_was_refused_is_not_counted() -> None:
    registry = Registry(max_entries=1, max_entries_per_client=5)
    registry.register(0.0, worker(1), "a")
    for _ in range(9):
        with pytest.raises(RegistryError, match="full"):
            registry.register(0.0, worker(2), "a")
    registry.check_invariants()


# --- how large -------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [LARGE, {"k": DEEP}, {"k": {1: 2}}])
def test_entry_with_unbounded_attributes_is_refused(attributes: Any) -> None:
    fields = WORKER.to_fields() | {"attributes": attributes}
    with pytest.raises(RegistryError, match="the entry of w1 "):
        Entry.from_fields(fields, BOUNDS)


def test_entry_with_very_many_endpoints_is_refused() -> None:
    fields = WORKER.to_fields() | {"endpoints": ["tcp://node7:9280"] * 100}
    with pytest.raises(RegistryError, match="larger than 1000 bytes"):
        Entry.from_fields(fields, BOUNDS)


def test_what_a_factory_took_in_is_understood_whatever_the_limits_here() -> None:
    entry = with_attributes(WORKER, k=DEEP[0][0][0][0][0][0][0], text="x" * 1_000_000)
    assert Delta.from_fields(Delta(7, "w1", entry).to_fields()).entry == entry


@pytest.mark.parametrize("ids", [["w1"], ["w1"] * 99, ["w1", *"abcdef"]])
def test_figures_without_bounds_renew_nothing(ids: list[str]) -> None:
    registry = limited(lease_s=10.0)
    registry.renew(1.0, ["w1"], b"x" * 1000)
    with pytest.raises(RegistryError, match="1001 bytes of figures for 1 members"):
        registry.renew(5.0, ids, b"x" * 1001)
    assert registry.snapshot()["figures"] == {"w1": b"x" * 1000}
    assert first_expiry(registry) == 11.0


def test_who_reports_for_several_may_say_more() -> None:
    registry = limited()
    registry.register(0.0, worker(2))
    registry.renew(1.0, ["w1", "w2"], b"x" * 2000)
    assert registry.snapshot()["figures"] == {"w1": b"x" * 2000}


@pytest.mark.parametrize("ids", [7, "w1", {"w1": 1}, None])
def test_renewal_that_is_none_renews_nothing(ids: Any) -> None:
    registry = limited(lease_s=10.0)
    with pytest.raises(RegistryError, match="no list"):
        registry.renew(5.0, ids)
    assert first_expiry(registry) == 10.0


@pytest.mark.parametrize("revision", [-1, 1 << 53, 2**64 - 1, True, 1.0, None])
def test_revisions_are_bounded(revision: Any) -> None:
    fields = Delta(7, "w1", WORKER).to_fields() | {"revision": revision}
    with pytest.raises(RegistryError, match="a revision is a whole number"):
        Delta.from_fields(fields)
    registry = limited()
    with pytest.raises(RegistryError, match="a revision is a whole number"):
        registry.restore(0.0, registry.snapshot() | {"revision": revision})


@pytest.mark.parametrize("more", [LARGE, {"k": DEEP}])
def test_report_of_a_job_without_bounds_is_refused(more: dict[str, Any]) -> None:
    registry = limited()
    with pytest.raises(RegistryError, match="a job report is"):
        registry.report_job(0.0, {"id": "j1"} | more)
    assert registry.snapshot()["jobs"] == []


@pytest.mark.parametrize("cause", [LARGE, {"k": DEEP}])
def test_cause_without_bounds_removes_nothing(cause: dict[str, Any]) -> None:
    registry = limited()
    with pytest.raises(RegistryError, match="the cause of a loss is"):
        registry.remove("w1", cause)
    assert registry.get("w1") == WORKER
