"""The journal tells everything that happened once, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.journal import NOTE, TROUBLE, WARNING, Event, changes
from opencluster.observe.status import status_of

Status = dict[str, list[dict[str, Any]]]


def status() -> Status:
    """Return a cluster in which something of each kind is, as it is printed."""
    entry = {"kind": "workshop", "type": "", "name": "node1", "host": "node1"}
    entry |= {"id": "shop", "pid": 1, "endpoints": [], "workshop": "", "attributes": {}}
    worker = entry | {"kind": "worker", "type": "Fit", "name": "Fit-1", "id": "w1"}
    service = entry | {"kind": "service", "type": "Sun", "name": "Sun-1", "id": "s1"}
    return status_of(
        {
            "entries": [entry, worker, service],
            "factories": [
                {"endpoint": "tcp://a:1", "role": "leader", "epoch": [3, 0, 1]},
                {"endpoint": "tcp://b:1", "role": "follower", "epoch": [3, 0, 1]},
            ],
            "jobs": [{"id": "0123456789", "name": "Fits", "state": "running"}],
        }
    )


def told(before: Status, after: Status) -> list[tuple[str, str, str]]:
    return [(e.kind, e.weight, e.subject) for e in changes(before, after)]


def test_the_first_look_tells_nothing() -> None:
    assert changes(None, status()) == []


def test_what_stays_is_not_told() -> None:
    assert changes(status(), status()) == []


def test_pieces_come_and_go_without_a_word() -> None:
    after = status()
    after["workers"][0] |= {"state": "busy", "piece": "1:2", "pieces_done": 7}
    after["jobs"][0]["pieces_done"] = 7
    assert changes(status(), after) == []


def test_a_worker_that_dies_is_told_of_with_its_last_words() -> None:
    after = status()
    (row,) = after["workers"]
    after["workers"] = []
    death = {"id": "w1", "kind": "worker", "type": "Fit", "name": "Fit-1", "at": 5.0}
    death |= {"host": "node1", "pid": 9, "reason": "killed by SIGKILL"}
    death |= {"piece": "1f:7", "output": "last words"}
    after["deaths"] = [death]
    text = "worker Fit-1 died: killed by SIGKILL, during piece 1f:7"
    expected = Event("worker-died", TROUBLE, "Fit-1", "node1", text, "last words")
    assert changes(status(), after) == [expected]
    assert changes(after, after) == []
    assert row["name"] == "Fit-1"


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        ("workers", [], ("worker-left", NOTE, "Fit-1")),
        ("services", [], ("service-left", NOTE, "Sun-1")),
        ("workshops", [], ("computer-left", WARNING, "node1")),
        ("workers.0", {"state": "lost"}, ("worker-lost", TROUBLE, "Fit-1")),
        ("workers.0", {"state": "draining"}, ("worker-draining", NOTE, "Fit-1")),
        ("factories.1", {"role": "absent"}, ("factory-absent", TROUBLE, "tcp://b:1")),
        ("factories.0", {"role": "looking"}, ("leader-lost", TROUBLE, "tcp://a:1")),
        (
            "factories.0",
            {"epoch": [4, 0, 2]},
            ("leader-elected", WARNING, "tcp://a:1"),
        ),
        ("jobs.0", {"state": "done"}, ("job-done", NOTE, "Fits 01234567")),
        ("jobs.0", {"state": "failed"}, ("job-failed", WARNING, "Fits 01234567")),
        ("jobs.0", {"state": "lost"}, ("job-lost", WARNING, "Fits 01234567")),
    ],
)
def test_one_change_is_one_event(
    path: str, change: Any, expected: tuple[str, str, str]
) -> None:
    after = status()
    name, _, place = path.partition(".")
    if place:
        after[name][int(place)] |= change
    else:
        after[name] = change
    assert told(status(), after) == [expected]


def test_who_ordered_the_end_of_a_job_is_told() -> None:
    after = status()
    after["jobs"][0] |= {"state": "cancelled"}
    after["jobs"][0]["orders"] = {"cancel": {"by": "ann@desk", "at": 1.0}}
    (event,) = changes(status(), after)
    assert event.kind == "job-cancelled"
    assert event.text.startswith("job Fits 01234567 is cancelled by order of ann@desk:")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("workers", {"worker-ready"}),
        ("services", {"service-ready"}),
        ("workshops", {"computer-joined"}),
        ("factories", {"leader-elected", "factory-back"}),
        ("jobs", {"job-started"}),
    ],
)
def test_what_comes_is_told(name: str, kinds: set[str]) -> None:
    before = status()
    before[name] = []
    assert {kind for kind, _, _ in told(before, status())} == kinds


def test_types_that_are_no_longer_launched_and_are_again() -> None:
    steady, stopped = status(), status()
    row = {"type": "Fit", "host": "node1", "state": "steady", "reason": "nothing waits"}
    steady["elastic"] = [row]
    stopped["elastic"] = [row | {"state": "stopped", "reason": "the disk is full"}]
    (event,) = changes(steady, stopped)
    assert (event.kind, event.weight) == ("elastic-stopped", TROUBLE)
    assert event.text == "nothing launches Fit any more: the disk is full"
    assert told(stopped, stopped) == []
    assert told(stopped, steady) == [("elastic-back", NOTE, "Fit")]
    assert told(status(), steady) == told(steady, status()) == []


def test_types_that_fail_and_start_again() -> None:
    failing = status()
    failure = {"type": "Fit", "name": "Fit-2", "host": "node1", "workshop": "shop"}
    failure |= {"failures": 1, "is_failing": False, "message": "no", "output": "trace"}
    once = status()
    once["failures"] = [failure]
    failing["failures"] = [failure | {"failures": 3, "is_failing": True}]
    assert told(status(), once) == []
    assert told(once, failing) == [("type-failing", TROUBLE, "Fit")]
    assert changes(once, failing)[0].details == "trace"
    assert told(failing, failing) == []
    assert told(failing, status()) == [("type-recovered", NOTE, "Fit")]


@given(st.data())
def test_every_change_of_members_is_told_exactly_once(data: st.DataObject) -> None:
    before, after = status(), status()
    (row,) = before["workers"]
    names = data.draw(st.lists(st.sets(st.integers(0, 9)), min_size=2, max_size=2))
    for which, numbers in zip((before, after), names, strict=True):
        which["workers"] = [
            copy.deepcopy(row) | {"id": f"w{n}", "name": f"Fit-{n}"} for n in numbers
        ]
    events = {(e.kind, e.subject) for e in changes(before, after)}
    came = {("worker-ready", f"Fit-{n}") for n in names[1] - names[0]}
    went = {("worker-left", f"Fit-{n}") for n in names[0] - names[1]}
    assert events == came | went
