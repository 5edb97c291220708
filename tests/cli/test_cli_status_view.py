from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from opencluster.cli.status_tables import page, size
from opencluster.core.elastic_report import report_of
from opencluster.core.elasticity import Standing
from opencluster.observe.status import health, is_healthy, status_of

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "status.md"


def entry(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"{name}.id",
        "kind": kind,
        "type": name.rpartition("-")[0],
        "name": name,
        "host": "node1",
        "host_id": "h1",
        "pid": 11,
        "endpoints": [f"ipc:///run/{name}.sock", "tcp://10.0.0.1:5000"],
        "workshop": "node1.id",
        "attributes": {},
    } | fields


def death(**cause: Any) -> dict[str, Any]:
    names = ("id", "kind", "type", "name", "host", "pid")
    who = {name: entry("worker", "Word-9")[name] for name in names}
    return who | {"at": 100.0, "cause": {"reason": "killed by SIGKILL"} | cause}


def answer(*entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    factory = {
        "endpoint": "ipc:///run/factory.sock",
        "endpoints": ["ipc:///run/factory.sock"],
        "pid": 10,
        "role": "leader",
        "epoch": [3, 0, 5],
        "revision": 7,
        "lag": 0,
        "silence_s": 0.0,
        "uptime_s": 5.0,
        "has_other_list": False,
        "rejected_messages": 1,
        "rejected_handshakes": 0,
        "dropped_connections": 2,
        "rejected_credentials": 0,
    }
    return {
        "revision": 7,
        "entries": [entry("workshop", "node1", type="", workshop=""), *entries],
        "figures": {},
        "jobs": [],
        "factories": [factory],
        "deaths": [],
    } | fields


def elastic(how: str, **fields: Any) -> dict[str, Any]:
    reason = "12 pieces of about 3 s"
    standing = Standing("Word", how, 12, 3.0, 2, 1, 3, reason)
    return report_of("e1", 5.0, [standing], host="node1", pid=12) | fields


def worker_with(attributes: dict[str, Any], **figures: Any) -> dict[str, Any]:
    worker = entry("worker", "Word-1", attributes=attributes)
    status = status_of(answer(worker, figures={"Word-1.id": figures}))
    return status["workers"][0]


def test_a_factory() -> None:
    assert status_of(answer())["factories"] == [
        {
            "endpoint": "ipc:///run/factory.sock",
            "pid": 10,
            "role": "leader",
            "epoch": [3, 0, 5],
            "revision": 7,
            "lag": 0,
            "silence_s": 0.0,
            "uptime_s": 5.0,
            "has_other_list": False,
            "rejected_messages": 1,
            "rejected_handshakes": 0,
            "dropped_connections": 2,
            "rejected_credentials": 0,
        }
    ]


@pytest.mark.parametrize(
    ("role", "words"), [("absent", "1 factory absent"), ("looking", "no factory leads")]
)
def test_a_factory_that_is_missed_is_trouble(role: str, words: str) -> None:
    status = answer()
    first = status["factories"][0]
    status["factories"] = (
        [first | {"role": role}] if role == "looking" else [first, {"role": role}]
    )
    assert not is_healthy(status_of(status))
    assert words in health(status_of(status))


def test_a_factory_that_goes_by_another_list_is_trouble() -> None:
    status = answer()
    first = status["factories"][0]
    assert is_healthy(status_of(status))
    status["factories"] = [first, first | {"role": "follower", "has_other_list": True}]
    assert not is_healthy(status_of(status))
    words = "1 factory with another [cluster] factories than the leader"
    assert words in health(status_of(status))


def test_a_worker_with_figures() -> None:
    row = worker_with(
        {},
        state="busy",
        piece="ab:3",
        progress_done=1.0,
        progress_total=4.0,
        pieces_done=5,
        pieces_failed=1,
        kept_bytes=99,
        rss_bytes=1000,
        cpu_percent=99.0,
        threads=4,
        last_error={"at": 1.5, "piece": "ab:2", "kind": "ValueError", "message": 7},
        rejected_messages=2,
        rejected_handshakes=3,
        dropped_connections=4,
        rejected_credentials=5,
    )
    assert row == {
        "id": "Word-1.id",
        "type": "Word",
        "name": "Word-1",
        "pid": 11,
        "host": "node1",
        "endpoint": "ipc:///run/Word-1.sock",
        "workshop": "node1.id",
        "state": "busy",
        "pieces_done": 5,
        "pieces_failed": 1,
        "kept_bytes": 99,
        "last_error": {"at": 1.5, "piece": "ab:2", "kind": "ValueError", "message": ""},
        "piece": "ab:3",
        "progress": 0.25,
        "rss_bytes": 1000,
        "cpu_percent": 99.0,
        "rejected_messages": 2,
        "rejected_handshakes": 3,
        "dropped_connections": 4,
        "rejected_credentials": 5,
    }


@pytest.mark.parametrize(
    ("attributes", "reported", "expected"),
    [
        ({}, None, "idle"),
        ({}, "starting", "idle"),
        ({}, "idle", "idle"),
        ({}, "busy", "busy"),
        ({}, "draining", "draining"),
        ({}, "stopped", "draining"),
        ({}, "lost", "lost"),
        ({}, "from a later version", "idle"),
        ({"is_draining": True}, "busy", "draining"),
        ({"is_draining": True}, "lost", "lost"),
    ],
)
def test_state(attributes: dict[str, Any], reported: str, expected: str) -> None:
    figures = {} if reported is None else {"state": reported}
    assert worker_with(attributes, **figures)["state"] == expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"piece": "a:1"}, None),
        ({"piece": "a:1", "progress_done": 1.0, "progress_total": 0.0}, None),
        ({"piece": "", "progress_done": 1.0, "progress_total": 2.0}, None),
        ({"piece": "a:1", "progress_done": 9.0, "progress_total": 4.0}, 1.0),
        ({"piece": "a:1", "progress_done": -1.0, "progress_total": 4.0}, 0.0),
    ],
)
def test_progress(figures: dict[str, Any], expected: float | None) -> None:
    assert worker_with({}, **figures)["progress"] == expected


def test_members_are_sorted_as_people_count() -> None:
    names = ["Word-10", "Word-9", "Arc-2", "clock"]
    status = status_of(answer(*(entry("worker", name) for name in names)))
    found = [row["name"] for row in status["workers"]]
    assert found == ["Arc-2", "Word-9", "Word-10", "clock"]


def test_kinds_do_not_mix() -> None:
    status = status_of(answer(entry("worker", "Word-1"), entry("service", "clock-1")))
    assert [row["name"] for row in status["workers"]] == ["Word-1"]
    assert [row["name"] for row in status["services"]] == ["clock-1"]
    assert [row["name"] for row in status["workshops"]] == ["node1"]


def test_a_failure_has_its_output() -> None:
    attributes = {
        "message": "Word-1 did not start",
        "output": "no such table",
        "failures": 3,
        "is_failing": True,
    }
    failing = entry("failure", "Word-1", endpoints=[], attributes=attributes)
    assert status_of(answer(failing))["failures"] == [
        {"type": "Word", "name": "Word-1", "host": "node1", "workshop": "node1.id"}
        | attributes
    ]


def test_a_death_has_its_cause() -> None:
    [row] = status_of(answer(deaths=[death(signal="SIGKILL", piece="ab:3")]))["deaths"]
    assert row["name"] == "Word-9"
    assert row["at"] == 100.0
    assert row["reason"] == "killed by SIGKILL"
    assert row["signal"] == "SIGKILL"
    assert row["piece"] == "ab:3"
    assert row["exit_code"] is None


def test_health_of_a_cluster_that_works() -> None:
    busy = {"Word-1.id": {"state": "busy"}}
    status = status_of(
        answer(
            entry("worker", "Word-1"),
            entry("worker", "Word-2"),
            entry("service", "clock-1"),
            figures=busy,
            jobs=[{"id": "a", "state": "running"}, {"id": "b", "state": "done"}],
        )
    )
    assert is_healthy(status)
    assert health(status) == (
        "healthy: 1 factory, 1 workshop, 2 workers (1 busy), 1 service, 1 job running"
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"entries": []}, "nobody can start workers"),
        ({"figures": {"Word-1.id": {"state": "lost"}}}, "(1 lost)"),
        (
            {"entries": [entry("workshop", "node1"), entry("failure", "Word-1")]},
            "failing to start: Word",
        ),
    ],
    ids=["no workshop", "a lost worker", "a failing type"],
)
def test_health_of_a_cluster_in_trouble(changed: dict[str, Any], expected: str) -> None:
    status = status_of(answer(entry("worker", "Word-1")) | changed)
    assert not is_healthy(status)
    assert health(status).startswith("in trouble: ")
    assert expected in health(status)


def test_who_is_not_reached_is_told_while_the_job_runs() -> None:
    why = "node1 (10.0.0.1) cannot reach Word-1 on node2 at tcp://10.0.0.2:5000"
    job = {
        "id": "a",
        "name": "Count",
        "state": "running",
        "unreached": [why, "\x1b[2J"],
    }
    others: list[dict[str, Any]] = [
        {"id": "b", "state": "running", "unreached": []},
        {"id": "c", "state": "running", "unreached": "all"},
        {"id": "d", "state": "done", "unreached": [why]},
    ]
    status = status_of(answer(jobs=[job, *others]))
    assert "1 job without a way to some workers" in health(status)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(page(status))
    text = captured.get()
    assert text.count("does not reach all workers") == 1
    assert f"Count does not reach all workers:\n    {why}\n    ?[2J" in text
    assert "without a way" not in health(status_of(answer(jobs=others)))


def test_elastic_types_stand_beside_the_jobs() -> None:
    status = status_of(answer(jobs=[{"id": "a", "state": "done"}, elastic("held")]))
    assert [job["id"] for job in status["jobs"]] == ["a"]
    (row,) = status["elastic"]
    assert (row["type"], row["state"], row["pid"]) == ("Word", "held", 12)
    assert is_healthy(status)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(page(status))
    assert "12 pieces of about 3 s" in captured.get()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (elastic("stopped"), "12 pieces of about 3 s"),
        (elastic("steady", state="lost"), "on node1 is not heard any more"),
    ],
    ids=["stopped", "lost"],
)
def test_types_that_nobody_launches_are_trouble(
    row: dict[str, Any], reason: str
) -> None:
    status = status_of(answer(jobs=[row]))
    assert not is_healthy(status)
    assert "nothing launches Word any more" in health(status)
    assert reason in status["elastic"][0]["reason"]


def test_an_elasticity_that_ended_in_order_is_not_told_of() -> None:
    assert status_of(answer(jobs=[elastic("steady", state="done")]))["elastic"] == []


def test_the_document_explains_every_field() -> None:
    job = {"id": "a", "state": "done"}
    members = [entry("worker", "Word-1"), entry("service", "clock-1")]
    failing = entry("failure", "Word-1")
    jobs = [job, elastic("steady")]
    full = status_of(answer(*members, failing, jobs=jobs, deaths=[death()]))
    explained: dict[str, list[str]] = {}
    for line in DOCUMENT.read_text().splitlines():
        if heading := re.fullmatch(r"## `(\w+)`.*", line):
            names = explained[heading[1]] = []
        elif row := re.match(r"\| `(\w+)` \|", line):
            names.append(row[1])
    assert explained.pop("services", []) == []
    services = full.pop("services")
    assert {name: list(rows[0]) for name, rows in full.items()} == explained
    assert list(services[0]) == explained["workers"]


def test_the_page_shows_members_and_hides_what_steers_a_terminal() -> None:
    worker = entry("worker", "Word\x1b[2J-1")
    failing = entry("failure", "Arc-1", attributes={"output": "\x07no [red]table"})
    status = status_of(answer(worker, failing, deaths=[death()]))
    console = Console(width=160)
    with console.capture() as captured:
        console.print(page(status))
    text = captured.get()
    assert text.startswith("in trouble: ")
    assert "Word?[2J-1" in text
    assert "?no [red]table" in text
    assert "Word-9" in text and "killed by SIGKILL" in text
    assert "\x07" not in text


@pytest.mark.parametrize(
    "value",
    [None, "x", b"x", 7, -1.5, [7], {"a": b"b"}, {7: 7}, [[]], True, "\ud800"],
    ids=repr,
)
def test_nothing_that_a_process_says_spoils_the_status_of_the_others(
    value: Any,
) -> None:
    names = ["state", "piece", "progress_done", "progress_total", "pieces_done"]
    names += ["rss_bytes", "cpu_percent", "gpus", "memory_total_bytes", "load_1"]
    said = dict.fromkeys(names, value)
    job = dict.fromkeys(["name", "state", "elapsed_s", "bytes_sent", "id"], value)
    wrong = {"catalogue": value, "output": value, "message": value, "failures": value}
    told = answer(
        entry("worker", "Word-1"),
        entry("workshop", "node2", attributes=wrong),
        entry("failure", "Arc-" + "1" * 4000, attributes=wrong),
        figures=dict.fromkeys(["Word-1.id", "node1.id"], said),
        jobs=[job, elastic("steady", types=[value, wrong | said | {"type": value}])],
        deaths=[death(reason=value, peak_memory_bytes=value, output=value)],
    )
    status = status_of(told)
    json.dumps(status)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(page(status))
    assert "Word-1" in captured.get()
    for rows, row in status_of(answer(entry("worker", "Word-1"))).items():
        for name in row[0] if row else ():
            assert name in status[rows][0]


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (27_100_000, "27.1 MB"),
        (2.5e13, "25 TB"),
    ],
)
def test_size(size_bytes: float | None, expected: str) -> None:
    assert size(size_bytes) == expected
