"""Entries, leases, revisions, jobs, and what is refused from a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from registry_tools import first_expiry

from opencluster.core.bounds import Bounds
from opencluster.core.entries import KINDS, Delta, Entry, with_attributes
from opencluster.core.registry import (
    BURSTS,
    DEATHS_KEPT,
    HEARTBEATS_PER_LEASE,
    HEARTBEATS_PER_S,
    Registry,
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
MAX_TEXT = Bounds().max_text
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
    registry.renew(0.0, ["w1"], b"busy")
    changed = with_attributes(WORKER, is_draining=True)
    assert registry.register(1.0, changed) == [Delta(2, "w1", changed)]
    assert registry.find() == [changed]
    assert registry.snapshot()["figures"] == {"w1": b"busy"}


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
    dated = cause | {"at": 77.0}
    assert registry.remove("w1", cause, 77.0) == [Delta(2, "w1", None, dated)]
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
    (delta,) = registry.expire(10.0, 77.0)
    cause = {"reason": "no sign of life for 10 s", "expired": True, "at": 77.0}
    assert delta == Delta(2, "w1", None, cause)
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


def test_a_lease_begins_again_when_it_is_renewed() -> None:
    registry = Registry(lease_s=10.0)
    assert first_expiry(registry) is None
    registry.register(0.0, WORKER)
    registry.register(3.0, SHOP)
    assert first_expiry(registry) == 10.0
    registry.renew(5.0, ["w1"])
    assert first_expiry(registry) == 13.0


# --- figures ---------------------------------------------------------------------


def test_newest_figures_take_the_place_of_the_old() -> None:
    registry = filled(WORKER, SHOP)
    registry.renew(1.0, ["w1"], b"one piece")
    registry.renew(2.0, ["w1", "s1"], b"two pieces")
    registry.renew(3.0, ["w1", "s1"])
    registry.renew(4.0, ["s1"], b"a shop")
    figures = {"w1": b"two pieces", "s1": b"a shop"}
    assert registry.snapshot()["figures"] == figures
    assert registry.revision == 2


def test_figures_of_the_forgotten_are_not_kept() -> None:
    registry = filled(WORKER)
    assert registry.renew(1.0, ["s1", "w1"], b"figures") == ["s1"]
    assert registry.renew(1.0, [], b"") == []
    assert registry.snapshot()["figures"] == {}


@pytest.mark.parametrize("figures", [None, 7, "text", {"w1": {}}, bytearray(3)])
def test_figures_that_are_none_are_refused_and_the_lease_is_as_it_was(
    figures: Any,
) -> None:
    registry = filled(WORKER, lease_s=10.0)
    with pytest.raises(RegistryError, match="no bytes"):
        registry.renew(5.0, ["w1"], figures)
    assert first_expiry(registry) == 10.0


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
    registry = filled(WORKER, SHOP)
    registry.renew(0.0, ["w1"], b"idle")
    registry.remove("s1", {"reason": "killed"}, 1.0)
    registry.report_job(0.0, {"id": "j1", "state": "running"})
    taken = registry.snapshot()
    taken["entries"][0]["attributes"]["class"] = "other"
    del taken["figures"]["w1"]
    taken["jobs"][0]["state"] = "done"
    taken["deaths"].clear()
    fresh = registry.snapshot()
    assert fresh["entries"] == [WORKER.to_fields()]
    assert fresh["figures"] == {"w1": b"idle"}
    assert fresh["jobs"] == [{"id": "j1", "state": "running", "reported_at": 0.0}]
    assert [death["id"] for death in fresh["deaths"]] == ["s1"]
    assert fresh["revision"] == 3


def test_ids_are_of_everyone_who_is_here() -> None:
    registry = filled(WORKER, SHOP)
    registry.remove("w1")
    assert registry.ids == ["s1"]


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


def test_job_is_changed_by_its_reporter_alone() -> None:
    registry = Registry()
    registry.report_job(0.0, {"id": "a", "owner": "me", "pieces_done": 1})
    for owner in ({"owner": "you"}, {}):
        with pytest.raises(RegistryError, match="job a is another's"):
            registry.report_job(1.0, {"id": "a", "pieces_done": 9} | owner)
    registry.report_job(1.0, {"id": "a", "owner": "me", "pieces_done": 2})
    assert [job["pieces_done"] for job in registry.snapshot()["jobs"]] == [2]


# --- copies ----------------------------------------------------------------------


def copied(registry: Registry, now: float = 0.0, **settings: Any) -> Registry:
    """Return what became of a registry on its way to another factory."""
    copy = Registry(**settings)
    copy.restore(now, registry.snapshot())
    copy.check_invariants()
    return copy


def test_copy_has_all_that_the_registry_has() -> None:
    registry = filled(WORKER, SERVICE, SHOP)
    registry.renew(0.0, ["w1"], b"figures")
    registry.remove("e1", {"reason": "killed"}, 5.0)
    registry.report_job(3.0, {"id": "j1", "state": "running"})
    copy = copied(registry, 3.0)
    assert copy.snapshot() == registry.snapshot()
    assert copy.find(type="WordCount") == [WORKER]


def test_copy_takes_the_place_of_all_that_was_there() -> None:
    copy = filled(WORKER, SERVICE)
    copy.report_job(0.0, {"id": "old"})
    copy.remove("e1", {"reason": "killed"})
    copy.restore(0.0, filled(SHOP).snapshot())
    copy.check_invariants()
    assert copy.snapshot() == filled(SHOP).snapshot()
    assert copy.find(type="WordCount") == []


def test_leases_and_jobs_of_a_copy_begin_when_it_is_taken() -> None:
    registry = filled(WORKER, lease_s=10.0)
    registry.report_job(0.0, {"id": "j1", "state": "running"})
    copy = copied(registry, 1000.0, lease_s=20.0)
    assert first_expiry(copy) == 1020.0
    assert copy.expire(1019.9) == []
    assert [job["state"] for job in copy.snapshot()["jobs"]] == ["running"]


def test_copy_shares_nothing_with_the_message() -> None:
    snapshot = filled(WORKER).snapshot()
    snapshot["jobs"] = [{"id": "j1", "state": "running"}]
    copy = Registry()
    copy.restore(0.0, snapshot)
    copy.report_job(1.0, {"id": "j2"})
    copy.remove("w1", {"reason": "killed"})
    snapshot["jobs"][0]["state"] = "done"
    assert snapshot["deaths"] == []
    assert copy.snapshot()["jobs"][0]["state"] == "running"


def test_snapshot_of_an_older_version_lacks_what_is_newer() -> None:
    snapshot = filled(WORKER).snapshot()
    copy = Registry()
    copy.restore(0.0, {name: snapshot[name] for name in ("revision", "entries")})
    assert copy.snapshot() == snapshot


@pytest.mark.parametrize(
    "change",
    [
        {"entries": None},
        {"entries": {"w1": WORKER.to_fields()}},
        {"entries": [WORKER.to_fields(), {"id": "x"}]},
        {"entries": [7]},
        {"revision": None},
        {"revision": "9"},
        {"figures": None},
        {"figures": [b"w1"]},
        {"figures": {"s1": {"state": "busy"}}},
        {"jobs": None},
        {"jobs": {"j1": {}}},
        {"jobs": [{"id": "j1"}, {"state": "running"}]},
        {"jobs": [7]},
        {"jobs": [{"id": 7}]},
        {"deaths": None},
        {"deaths": "w1"},
        {"deaths": [{}]},
        {"deaths": [None]},
    ],
)
def test_copy_of_what_is_no_snapshot_is_refused_and_changes_nothing(
    change: dict[str, Any],
) -> None:
    copy = filled(WORKER)
    before = copy.snapshot()
    with pytest.raises(RegistryError):
        copy.restore(5.0, filled(SHOP, SERVICE).snapshot() | change)
    copy.check_invariants()
    assert copy.snapshot() == before
    assert first_expiry(copy) == 10.0


def test_copy_follows_by_changes() -> None:
    registry, copy = Registry(), Registry()
    changed = with_attributes(WORKER, is_draining=True)
    cause = {"reason": "killed by signal SIGKILL"}

    def follow(delta: Delta) -> None:
        assert copy.apply(0.0, Delta.from_fields(delta.to_fields()))
        copy.check_invariants()
        assert copy.snapshot() == registry.snapshot()

    follow(*registry.register(0.0, WORKER))
    follow(*registry.register(0.0, SHOP))
    follow(*registry.register(0.0, changed))
    follow(*registry.register(0.0, replace(SHOP, type="big")))
    follow(*registry.remove("w1", cause, 77.0))
    assert copy.revision == 5


def test_change_keeps_the_figures_and_renews_the_lease() -> None:
    registry = filled(WORKER, lease_s=10.0)
    registry.renew(0.0, ["w1"], b"busy")
    copy = copied(registry, lease_s=10.0)
    assert copy.apply(6.0, Delta(2, "w1", with_attributes(WORKER, is_draining=True)))
    assert copy.snapshot()["figures"] == {"w1": b"busy"}
    assert first_expiry(copy) == 16.0


@pytest.mark.parametrize("revision", [-1, 0, 1, 2])
def test_change_that_is_here_already_is_no_change(revision: int) -> None:
    copy = filled(WORKER, SHOP)
    before = copy.snapshot()
    assert copy.apply(5.0, Delta(revision, "w1"))
    assert copy.snapshot() == before


@pytest.mark.parametrize("revision", [4, 5, 1 << 60])
def test_change_that_leaves_a_gap_is_refused(revision: int) -> None:
    copy = filled(WORKER, SHOP)
    before = copy.snapshot()
    assert not copy.apply(5.0, Delta(revision, "w1"))
    assert copy.snapshot() == before


def test_removal_of_what_a_copy_lacks_is_a_revision_like_any() -> None:
    copy = filled(WORKER)
    assert copy.apply(0.0, Delta(2, "s1", None, {"reason": "killed"}))
    assert (copy.revision, copy.ids) == (2, ["w1"])
    assert copy.snapshot()["deaths"] == []


def test_copied_entries_count_for_no_client() -> None:
    registry = Registry(max_entries_per_client=1)
    registry.register(0.0, WORKER, "client")
    copy = copied(registry, max_entries_per_client=1)
    copy.register(0.0, SHOP, "client")
    assert copy.apply(0.0, Delta(3, "e1", SERVICE))
    copy.remove("w1")
    copy.check_invariants()


def test_new_leader_gives_everyone_a_whole_lease() -> None:
    registry = filled(WORKER, SHOP, lease_s=10.0)
    registry.report_job(0.0, {"id": "j1", "state": "running"})
    registry.extend(9.0)
    assert registry.expire(18.9) == []
    assert registry.snapshot()["jobs"][0]["state"] == "running"
    assert registry.revision == 2
    assert len(registry.expire(19.0)) == 2
    assert registry.snapshot()["jobs"][0]["state"] == "lost"


# --- who was lost ----------------------------------------------------------------


def test_death_tells_who_it_was_and_why() -> None:
    registry = filled(WORKER)
    registry.remove("w1", {"reason": "killed", "piece": "p1"}, 77.0)
    assert registry.snapshot()["deaths"] == [
        {
            "id": "w1",
            "kind": "worker",
            "type": "WordCount",
            "name": "WordCount-1",
            "host": "node7",
            "pid": 42,
            "at": 77.0,
            "cause": {"reason": "killed", "piece": "p1"},
        }
    ]


@pytest.mark.parametrize(
    ("cause", "is_death"),
    [
        (None, False),
        ({"reason": "ended", "exit_code": 0}, False),
        ({"reason": "ended", "exit_code": 0, "piece": "", "exceeded": ""}, False),
        ({"reason": "ended", "exit_code": 0, "piece": "p1"}, True),
        ({"reason": "ended", "exit_code": 0, "exceeded": "time"}, True),
        ({"reason": "ended", "exit_code": 1}, True),
        ({"reason": "killed", "exit_code": None}, True),
        ({"reason": "no sign of life"}, True),
    ],
)
def test_only_who_did_not_leave_in_order_was_lost(
    cause: dict[str, Any] | None, is_death: bool
) -> None:
    registry = filled(WORKER)
    copy = copied(registry)
    for delta in registry.remove("w1", cause):
        assert copy.apply(0.0, delta)
    assert len(registry.snapshot()["deaths"]) == is_death
    assert copy.snapshot() == registry.snapshot()


def test_only_the_last_deaths_are_remembered() -> None:
    registry = Registry()
    for number in range(DEATHS_KEPT + 2):
        registry.register(0.0, Entry(f"w{number}", "worker"))
        registry.remove(f"w{number}", {"reason": "killed"})
    deaths = [death["id"] for death in registry.snapshot()["deaths"]]
    assert deaths == [f"w{number}" for number in range(2, DEATHS_KEPT + 2)]
    assert copied(registry).snapshot()["deaths"] == registry.snapshot()["deaths"]


def test_broken_rule_is_found() -> None:
    registry = Registry()
    registry.register(0.0, replace(WORKER, kind="spaceship"))
    with pytest.raises(AssertionError):
        registry.check_invariants()


# --- how often members report ----------------------------------------------------


def crowd(count: int) -> Registry:
    registry = Registry(lease_s=10.0)
    for number in range(count):
        shop = Entry(f"s{number}", "workshop", name=f"node{number}")
        worker = replace(WORKER, id=f"w{number}", workshop=shop.id)
        for entry in (shop, worker):
            registry.register(0.0, entry)
    return registry


def test_a_few_members_report_as_often_as_the_setting_says() -> None:
    assert crowd(0).heartbeat_interval_s(1.0) == 1.0
    assert crowd(HEARTBEATS_PER_S).heartbeat_interval_s(1.0) == 1.0
    assert crowd(10).heartbeat_interval_s(0.01) == 10 / HEARTBEATS_PER_S


def test_many_members_report_more_rarely_but_several_times_in_a_lease() -> None:
    many = crowd(2 * HEARTBEATS_PER_S)
    assert many.heartbeat_interval_s(1.0) == 2.0
    assert many.heartbeat_interval_s(3.0) == 3.0
    many.lease_s = 4.0
    assert many.heartbeat_interval_s(0.1) == 4.0 / HEARTBEATS_PER_LEASE


def test_who_leaves_or_belongs_to_a_workshop_does_not_count() -> None:
    registry = crowd(3 * HEARTBEATS_PER_S)
    for number in range(2 * HEARTBEATS_PER_S):
        registry.remove(f"s{number}")
    assert registry.heartbeat_interval_s(0.5) == 1.0
    copy = Registry()
    copy.restore(0.0, registry.snapshot())
    assert copy.heartbeat_interval_s(0.5) == 1.0
    copy.check_invariants()


@pytest.mark.parametrize("now", [0.0, 0.001, 12.34, 99.999, 1e6])
@pytest.mark.parametrize("interval_s", [0.02, 1.0, 10 / 3])
def test_heartbeats_are_asked_for_in_bursts(now: float, interval_s: float) -> None:
    wait_s = Registry().heartbeat_in_s(now, interval_s)
    burst_s = interval_s / BURSTS
    assert abs(wait_s - interval_s) <= burst_s / 2 + 1e-9
    assert (now + wait_s) / burst_s == pytest.approx(round((now + wait_s) / burst_s))


def test_who_keeps_the_interval_stays_in_its_burst() -> None:
    registry, now = Registry(), 5.4321
    first = now + registry.heartbeat_in_s(now, 2.0)
    # a little late, as timers are
    late = first + 0.005
    assert late + registry.heartbeat_in_s(late, 2.0) == pytest.approx(first + 2.0)
