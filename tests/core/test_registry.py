"""Entries, leases, revisions, jobs, and what is refused from a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from opencluster.core.registry import (
    KINDS,
    MAX_TEXT,
    Delta,
    Entry,
    Registry,
    Replica,
    with_attributes,
)
from opencluster.errors import RegistryError

WORKER = Entry(
    id="w1",
    kind="worker",
    type="WordCount",
    name="WordCount-1",
    host="node7",
    host_id="b00t",
    pid=42,
    endpoints=("ipc:///run/w1", "tcp://node7:9280"),
    workshop="s1",
    attributes={"class": "wordcount:WordCountWorker", "concurrency": 1},
)
SERVICE = Entry("e1", "service", type="ephemeris", name="ephemeris-1")
SHOP = Entry("s1", "workshop", name="node7")


def filled(*entries: Entry, **settings: Any) -> Registry:
    """Return a registry in which these registered at time 0."""
    registry = Registry(**settings)
    for entry in entries:
        registry.register(0.0, entry)
        registry.check_invariants()
    return registry


# --- entries and deltas as messages ----------------------------------------------


@pytest.mark.parametrize("entry", [WORKER, SERVICE, SHOP])
def test_entry_survives_a_message(entry: Entry) -> None:
    fields = entry.to_fields()
    assert all(isinstance(v, str | int | list | dict) for v in fields.values())
    assert Entry.from_fields(fields) == entry


def test_entry_of_a_newer_version_is_understood() -> None:
    assert Entry.from_fields(SHOP.to_fields() | {"shoe_size": 43}) == SHOP


def test_entry_needs_no_more_than_id_and_kind() -> None:
    assert Entry.from_fields({"id": "x", "kind": "failure"}) == Entry("x", "failure")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_registered(kind: str) -> None:
    assert Entry.from_fields({"id": "x", "kind": kind}).kind == kind


@pytest.mark.parametrize("name", ["id", "type", "name", "host", "host_id", "workshop"])
@pytest.mark.parametrize("value", [None, 7, b"bytes", "x" * (MAX_TEXT + 1)])
def test_entry_with_a_bad_text_is_refused(name: str, value: object) -> None:
    with pytest.raises(RegistryError, match=f"'{name}'") as caught:
        Entry.from_fields(WORKER.to_fields() | {name: value})
    assert len(str(caught.value)) < 200


def test_longest_text_is_taken() -> None:
    name = "x" * MAX_TEXT
    endpoint = "tcp://".ljust(MAX_TEXT, "x")
    entry = replace(SHOP, name=name, endpoints=(endpoint,))
    assert Entry.from_fields(entry.to_fields()) == entry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "needs an id"),
        ({"kind": "spaceship"}, "needs an id and a kind"),
        ({"kind": ""}, "needs an id and a kind"),
        ({"pid": "42"}, "'pid'"),
        ({"pid": None}, "'pid'"),
        ({"endpoints": "tcp://node7:9280"}, "'endpoints'"),
        ({"endpoints": None}, "'endpoints'"),
        ({"endpoints": [7]}, "'endpoints'"),
        ({"endpoints": ["tcp://".ljust(MAX_TEXT + 1, "x")]}, "'endpoints'"),
        ({"endpoints": ["tcp://node7:9280", "node7:9280"]}, "'endpoints'"),
        ({"endpoints": ["inproc://w1"]}, "'endpoints'"),
        ({"endpoints": ["ipc:///run/\ud800"]}, "'endpoints'"),
        ({"id": "w\ud800"}, "'id'"),
        ({"name": "WordCount-\udcff"}, "'name'"),
        ({"attributes": None}, "'attributes'"),
        ({"attributes": ["is_draining"]}, "'attributes'"),
    ],
)
def test_malformed_entry_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        Entry.from_fields(WORKER.to_fields() | change)


@pytest.mark.parametrize("fields", [{}, {"id": "x"}, {"kind": "worker"}])
def test_entry_without_id_or_kind_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RegistryError, match="needs an id and a kind"):
        Entry.from_fields(fields)


@pytest.mark.parametrize("fields", [None, [], "worker", 3])
def test_what_is_no_mapping_is_no_entry_and_no_delta(fields: Any) -> None:
    with pytest.raises(RegistryError, match="an entry is a mapping"):
        Entry.from_fields(fields)
    with pytest.raises(RegistryError, match="a delta is a mapping"):
        Delta.from_fields(fields)


@pytest.mark.parametrize(
    "delta",
    [
        Delta(7, "w1", WORKER),
        Delta(8, "w1"),
        Delta(9, "w1", None, {"reason": "exited with code 1", "exit_code": 1}),
    ],
)
def test_delta_survives_a_message(delta: Delta) -> None:
    assert Delta.from_fields(delta.to_fields()) == delta


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "7"},
        {"revision": None},
        {"id": 7},
        {"entry": {}},
        {"entry": []},
        {"entry": SHOP.to_fields()},
        {"cause": "died"},
    ],
)
def test_malformed_delta_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RegistryError):
        Delta.from_fields(Delta(7, "w1", WORKER).to_fields() | change)


def test_attributes_change_in_a_copy() -> None:
    changed = with_attributes(WORKER, is_draining=True, concurrency=2)
    assert changed.attributes == {
        "class": "wordcount:WordCountWorker",
        "concurrency": 2,
        "is_draining": True,
    }
    assert WORKER.attributes["concurrency"] == 1
    assert replace(changed, attributes=WORKER.attributes) == WORKER


# --- registering -----------------------------------------------------------------


def test_registration_makes_one_delta_and_one_revision() -> None:
    registry = Registry()
    assert registry.register(0.0, WORKER) == [Delta(1, "w1", WORKER)]
    assert registry.register(0.0, SHOP) == [Delta(2, "s1", SHOP)]
    assert registry.revision == 2
    assert registry.get("w1") == WORKER


def test_same_registration_again_is_a_renewal() -> None:
    registry = filled(WORKER, lease_s=10.0)
    assert registry.register(6.0, replace(WORKER)) == []
    assert registry.revision == 1
    assert registry.expire(15.9) == []


def test_changed_registration_takes_the_place_of_the_old() -> None:
    registry = filled(WORKER)
    registry.renew(0.0, ["w1"], {"w1": {"state": "busy"}})
    changed = with_attributes(WORKER, is_draining=True)
    assert registry.register(1.0, changed) == [Delta(2, "w1", changed)]
    assert registry.find() == [changed]
    assert registry.snapshot()["figures"] == {"w1": {"state": "busy"}}


def test_full_registry_refuses_the_new_and_keeps_the_old() -> None:
    registry = filled(WORKER, SHOP, max_entries=2)
    with pytest.raises(RegistryError, match=r"full \(2 entries\).*max_entries"):
        registry.register(1.0, SERVICE)
    changed = with_attributes(WORKER, is_draining=True)
    assert registry.register(1.0, changed) == [Delta(3, "w1", changed)]
    assert registry.remove("s1") == [Delta(4, "s1")]
    assert registry.register(1.0, SERVICE) == [Delta(5, "e1", SERVICE)]
    registry.check_invariants()


def test_removal_says_why() -> None:
    registry = filled(WORKER)
    cause = {"reason": "killed by signal SIGKILL"}
    assert registry.remove("w1", cause) == [Delta(2, "w1", None, cause)]
    assert registry.get("w1") is None
    assert registry.find() == []


def test_removal_of_the_unknown_is_no_change() -> None:
    registry = filled(WORKER)
    assert registry.remove("w2") == []
    assert registry.revision == 1


# --- leases ----------------------------------------------------------------------


def test_lease_ends_when_it_is_not_renewed() -> None:
    registry = filled(WORKER, lease_s=10.0)
    assert registry.expire(9.9) == []
    (delta,) = registry.expire(10.0)
    assert delta == Delta(
        2, "w1", None, {"reason": "no sign of life for 10 s", "expired": True}
    )
    assert registry.expire(10.0) == []


def test_every_lease_that_ended_is_a_revision() -> None:
    registry = filled(WORKER, SERVICE, SHOP)
    registry.renew(5.0, ["e1"])
    deltas = registry.expire(10.0)
    assert [(delta.revision, delta.id) for delta in deltas] == [(4, "w1"), (5, "s1")]
    assert registry.find() == [SERVICE]


def test_renewal_lengthens_the_lease_and_is_no_revision() -> None:
    registry = filled(WORKER, lease_s=10.0)
    assert registry.renew(9.0, ["w1"]) == []
    assert registry.revision == 1
    assert registry.expire(18.9) == []
    assert len(registry.expire(19.0)) == 1


def test_renewal_of_the_forgotten_says_who_should_register_again() -> None:
    registry = filled(WORKER, SHOP)
    registry.remove("w1")
    assert registry.renew(1.0, ["w1", "s1", "w1", "new"]) == ["w1", "w1", "new"]
    assert registry.renew(1.0, []) == []


def test_next_expiry_is_when_the_first_lease_ends() -> None:
    registry = Registry(lease_s=10.0)
    assert registry.next_expiry() is None
    registry.register(0.0, WORKER)
    registry.register(3.0, SHOP)
    assert registry.next_expiry() == 10.0
    registry.renew(5.0, ["w1"])
    assert registry.next_expiry() == 13.0


# --- figures ---------------------------------------------------------------------


def test_newest_figures_take_the_place_of_the_old() -> None:
    registry = filled(WORKER, SHOP)
    registry.renew(1.0, ["w1"], {"w1": {"pieces_done": 1, "state": "busy"}})
    registry.renew(2.0, ["w1", "s1"], {"w1": {"pieces_done": 2}, "other": {"x": 1}})
    registry.renew(3.0, ["w1", "s1"], {})
    registry.renew(4.0, ["w1", "s1"])
    assert registry.snapshot()["figures"] == {"w1": {"pieces_done": 2}, "s1": {}}
    assert registry.revision == 2


@pytest.mark.parametrize(
    "figures", [7, ["w1"], "w1", {"w1": None}, {"w1": 7}, {"w1": ["state"]}]
)
def test_figures_that_are_none_are_left_out_and_the_lease_is_renewed(
    figures: Any,
) -> None:
    registry = filled(WORKER, lease_s=10.0)
    registry.renew(0.0, ["w1"], {"w1": {"state": "idle"}})
    assert registry.renew(5.0, ["w1"], figures) == []
    assert registry.snapshot()["figures"] == {"w1": {"state": "idle"}}
    assert registry.next_expiry() == 15.0


# --- questions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [WORKER, SERVICE, SHOP]),
        ({"kind": "worker"}, [WORKER]),
        ({"kind": "service", "type": "ephemeris"}, [SERVICE]),
        ({"type": "WordCount"}, [WORKER]),
        ({"name": "node7"}, [SHOP]),
        ({"kind": "worker", "type": "WordCount", "name": "WordCount-1"}, [WORKER]),
        ({"kind": "worker", "name": "node7"}, []),
        ({"type": "ephemeris", "name": "WordCount-1"}, []),
        ({"kind": "spaceship"}, []),
    ],
)
def test_find_matches_all_that_is_asked(
    wanted: dict[str, str], expected: list[Entry]
) -> None:
    assert filled(WORKER, SERVICE, SHOP).find(**wanted) == expected


def test_get_of_the_unknown_is_none() -> None:
    assert filled(WORKER).get("w2") is None


def test_snapshot_is_a_copy() -> None:
    registry = filled(WORKER)
    registry.renew(0.0, ["w1"], {"w1": {"state": "idle"}})
    registry.report_job(0.0, {"id": "j1", "state": "running"})
    taken = registry.snapshot()
    taken["entries"][0]["attributes"]["class"] = "other"
    taken["figures"]["w1"]["state"] = "lost"
    taken["jobs"][0]["state"] = "done"
    fresh = registry.snapshot()
    assert fresh["entries"] == [WORKER.to_fields()]
    assert fresh["figures"] == {"w1": {"state": "idle"}}
    assert fresh["jobs"] == [{"id": "j1", "state": "running", "reported_at": 0.0}]
    assert fresh["revision"] == 1


# --- jobs ------------------------------------------------------------------------


def jobs(registry: Registry) -> list[str]:
    registry.check_invariants()
    return [job["id"] for job in registry.snapshot()["jobs"]]


def test_newest_report_of_a_job_counts() -> None:
    registry = Registry()
    registry.report_job(1.0, {"id": "j1", "state": "running", "done": 3})
    registry.report_job(2.0, {"id": "j1", "state": "done"})
    expected = [{"id": "j1", "state": "done", "reported_at": 2.0}]
    assert registry.snapshot()["jobs"] == expected
    assert registry.revision == 0


def test_oldest_finished_job_is_dropped_first() -> None:
    registry = Registry(jobs_kept=3)
    for name, state in [("a", "running"), ("b", "done"), ("c", "failed")]:
        registry.report_job(0.0, {"id": name, "state": state})
    registry.report_job(0.0, {"id": "d", "state": "running"})
    assert jobs(registry) == ["a", "c", "d"]
    registry.report_job(0.0, {"id": "e", "state": "running"})
    assert jobs(registry) == ["a", "d", "e"]


def test_oldest_job_is_dropped_when_all_run() -> None:
    registry = Registry(jobs_kept=2)
    for name in "abc":
        registry.report_job(0.0, {"id": name, "state": "running"})
    assert jobs(registry) == ["b", "c"]


def test_job_that_was_just_reported_is_kept() -> None:
    registry = Registry(jobs_kept=2)
    for name in "ab":
        registry.report_job(0.0, {"id": name, "state": "running"})
    registry.report_job(0.0, {"id": "c", "state": "done"})
    assert jobs(registry) == ["b", "c"]


def test_report_of_a_known_job_drops_none() -> None:
    registry = Registry(jobs_kept=2)
    for name in "abab":
        registry.report_job(0.0, {"id": name, "state": "done"})
    assert jobs(registry) == ["a", "b"]


@pytest.mark.parametrize("kept", [0, 1])
def test_one_job_is_kept_at_least(kept: int) -> None:
    registry = Registry(jobs_kept=kept)
    for name in "ab":
        registry.report_job(0.0, {"id": name, "state": "done"})
    assert jobs(registry) == ["b"]


def test_running_job_that_is_not_reported_again_is_lost() -> None:
    registry = Registry(lease_s=10.0)
    for name, state in [("a", "running"), ("b", "running"), ("c", "done")]:
        registry.report_job(1.0, {"id": name, "state": state})
    registry.report_job(5.0, {"id": "b", "state": "running"})

    def after(now: float) -> list[str]:
        assert registry.expire(now) == []
        return [job["state"] for job in registry.snapshot()["jobs"]]

    assert after(10.9) == ["running", "running", "done"]
    assert after(11.0) == ["lost", "running", "done"]
    registry.report_job(12.0, {"id": "a", "state": "running"})
    assert after(15.0) == ["running", "lost", "done"]


@pytest.mark.parametrize("job", [{}, {"id": ""}, {"id": 7}, None, ["j1"]])
def test_report_without_the_id_of_a_job_is_refused(job: Any) -> None:
    registry = Registry()
    with pytest.raises(RegistryError, match="needs the job's id"):
        registry.report_job(0.0, job)
    assert jobs(registry) == []


# --- replicas --------------------------------------------------------------------


def test_replica_without_a_snapshot_refuses_deltas() -> None:
    replica = Replica()
    assert not replica.apply(Delta(1, "w1", WORKER))
    assert replica.entries == {}


def test_replica_follows_by_deltas() -> None:
    registry = Registry()
    replica = Replica()
    assert replica.load(registry.snapshot()) == []
    assert replica.apply(*registry.register(0.0, WORKER))
    assert replica.apply(*registry.register(0.0, SHOP))
    assert replica.apply(*registry.remove("w1"))
    assert replica.entries == {"s1": SHOP}
    assert replica.revision == registry.revision == 3


def test_replica_ignores_a_delta_that_it_has() -> None:
    registry = filled(WORKER)
    replica = Replica()
    replica.load(registry.snapshot())
    registry.remove("w1")
    replica.load(registry.snapshot())
    assert replica.apply(Delta(1, "w1", WORKER))
    assert replica.entries == {}
    assert replica.revision == 2


def test_replica_refuses_a_gap_and_stays_as_it_was() -> None:
    replica = Replica()
    replica.load(filled(WORKER).snapshot())
    assert not replica.apply(Delta(3, "s1", SHOP))
    assert replica.entries == {"w1": WORKER}
    assert replica.revision == 1


def test_removal_of_what_a_replica_lacks_is_a_revision_like_any() -> None:
    replica = Replica()
    replica.load(filled(WORKER).snapshot())
    assert replica.apply(Delta(2, "s1"))
    assert replica.revision == 2


def test_snapshot_says_what_changed() -> None:
    replica = Replica()
    replica.load(filled(WORKER, SERVICE, SHOP).snapshot())
    changed = with_attributes(WORKER, is_draining=True)
    newer = filled(SHOP, changed, replace(SERVICE, id="e2"), SHOP, SHOP)
    deltas = replica.load(newer.snapshot())
    assert deltas == [
        Delta(3, "e1"),
        Delta(3, "w1", changed),
        Delta(3, "e2", replace(SERVICE, id="e2")),
    ]
    assert replica.entries == {entry.id: entry for entry in newer.find()}


def test_snapshot_of_a_factory_that_started_anew_is_taken() -> None:
    replica = Replica()
    replica.load(filled(WORKER, SHOP).snapshot())
    deltas = replica.load(Registry().snapshot())
    assert {delta.id: delta.entry for delta in deltas} == {"w1": None, "s1": None}
    assert (replica.revision, replica.entries) == (0, {})


@pytest.mark.parametrize(
    "change",
    [
        {"entries": None},
        {"entries": {"w1": WORKER.to_fields()}},
        {"entries": [WORKER.to_fields(), {"id": "x"}]},
        {"revision": None},
        {"revision": "9"},
    ],
)
def test_malformed_snapshot_is_refused_and_changes_nothing(
    change: dict[str, Any],
) -> None:
    replica = Replica()
    replica.load(filled(WORKER).snapshot())
    with pytest.raises(RegistryError):
        replica.load(filled(SHOP, SERVICE).snapshot() | change)
    assert (replica.revision, replica.entries) == (1, {"w1": WORKER})


def test_broken_rule_is_found() -> None:
    registry = Registry()
    registry.register(0.0, replace(WORKER, kind="spaceship"))
    with pytest.raises(AssertionError):
        registry.check_invariants()
