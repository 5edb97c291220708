"""The pages of the cluster: what they say of one that is well, ill or out of reach."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from gallery_tools import Page, Stream

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.core.elastic_report import report_of
from opencluster.core.elasticity import Standing
from opencluster.errors import FactoryUnreachable
from opencluster.observe.status import Row, status_of
from opencluster.place import Place
from opencluster.testing import LocalCluster
from opencluster_web.cluster.parts import changed, parts_of
from opencluster_web.cluster.source import NOTHING, ClusterSource, Look
from opencluster_web.cluster.summary import cpu_of, memory_of, recent, types_of
from opencluster_web.cluster.verdict import verdict_of
from opencluster_web.logs.source import Found, LogSource
from opencluster_web.serving import WebServer

PROGRAM = f"{Path(__file__).with_name('cluster_workers.py')}:PatientWorker"
LEADER = {"endpoint": "tcp://a:1", "role": "leader"}


DEATH = {
    **{"id": "x", "kind": "worker", "type": "A", "name": "A-9", "host": "h1"},
    **{"pid": 9, "at": 1000.0},
    "cause": {"reason": "killed by SIGKILL <b>", "piece": "job/3"},
}


CUT_OFF = {
    **{"id": "aaaaaaaaaaaa", "name": "Night", "state": "running"},
    "unreached": ["h1 cannot reach A-1 on h2: no answer within 2 s <b>", "2 more"],
}


def process(name: str, state: str = "idle", **figures: Any) -> dict[str, Any]:
    entry = {
        **{"id": name, "kind": "worker", "type": name.partition("-")[0], "name": name},
        **{"pid": 1, "host": "h1", "workshop": "w1", "endpoints": []},
        **{"attributes": {}},
    }
    return {"entry": entry, "figures": {"state": state} | figures}


def failing(workshop: str) -> dict[str, Any]:
    message = f"A-1 did not start on {workshop}: exited with 1"
    entry = {
        **{"id": f"failure:{workshop}:A", "kind": "failure", "type": "A"},
        **{"name": "A-1", "host": workshop, "workshop": workshop, "pid": 0},
        "attributes": {"failures": 3, "message": message, "output": "<b>no disk</b>"},
    }
    return {"entry": entry, "figures": {}}


def elastic(state: str, reason: str) -> dict[str, Any]:
    standing = Standing("A", state, 9, 1.5, 1, 2, 3, reason)
    return report_of("e", 1.0, [standing], host="h1", pid=7)


def status_with(
    *processes: dict[str, Any],
    factories: list[Row] | None = None,
    has_workshop: bool = True,
    memory_used_bytes: float = 60e9,
    disk_used_bytes: float = 5e11,
    **rest: Any,
) -> dict[str, list[Row]]:
    """Return a status as a factory's answer would give it."""
    workshop = {
        **{"id": "w1", "kind": "workshop", "type": "", "name": "h1", "host": "h1"},
        **{"pid": 1, "workshop": "", "endpoints": [], "attributes": {}},
    }
    figures = {
        **{"cpu_percent": 50.0, "cpu_count": 8, "memory_total_bytes": 64e9},
        **{"memory_used_bytes": memory_used_bytes, "disk_total_bytes": 1e12},
        **{"disk_used_bytes": disk_used_bytes, "gpus": [{"name": "H200"}]},
    }
    entries = [p["entry"] for p in processes] + [workshop] * has_workshop
    found = {p["entry"]["id"]: p["figures"] for p in processes} | {"w1": figures}
    leaders = [LEADER] if factories is None else factories
    return status_of(
        {"entries": entries, "figures": found, "factories": leaders} | rest
    )


@pytest.fixture
def pages(
    open_pages: Callable[..., FlaskClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Look], FlaskClient]:
    """Return what makes a client of an application that sees a cluster."""

    def seen(look: Look) -> FlaskClient:
        monkeypatch.setattr(ClusterSource, "look", lambda _: look)
        return open_pages(None, place=Place(tmp_path))

    return seen


def test_a_cluster_that_is_out_of_reach_is_told(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    client = open_pages(None, place=Place(tmp_path / "c"))
    for address in ("/", "/computers", "/workers"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "The cluster is out of reach" in answer.text
    assert "opencluster start" in client.get("/").text
    error = client.get("/api/v1/status")
    assert error.status_code == 503
    assert str(tmp_path / "c") in error.json["error"]["message"]
    # what there is no folder for is not in the navigation
    assert "/muser" not in client.get("/").text
    assert client.get("/muser/").status_code == 404


@pytest.mark.parametrize(
    ("status", "level", "told"),
    [
        (status_with(process("A-1")), "good", "All is well, nothing to do"),
        (status_with(process("A-1", "busy")), "good", "All is well, 1 worker busy"),
        (status_with(process("A-1", "lost")), "bad", "1 process lost: A-1."),
        (
            status_with(*[process(f"A-{n}", "lost") for n in range(7)]),
            "bad",
            "7 processes lost: A-0, A-1, A-2, A-3, A-4 and 2 more.",
        ),
        (status_with(has_workshop=False), "bad", "nobody can start workers"),
        (
            status_with(process("A-1"), jobs=[elastic("stopped", "no disk")]),
            "bad",
            "Nothing launches A any more: no disk.",
        ),
        (
            status_with(failing("w1"), failing("w2"), failing("w3")),
            "bad",
            "A-1 did not start on w1: exited with 1, nor on 2 other computers.",
        ),
        (status_with(factories=[]), "bad", "No factory leads"),
        (
            status_with(factories=[LEADER, {"endpoint": "b", "role": "absent"}]),
            "bad",
            "1 factory absent: b.",
        ),
        (
            status_with(factories=[LEADER | {"has_other_list": True}]),
            "bad",
            "Another list of factories than the leader's: tcp://a:1.",
        ),
        (
            status_with(process("A-1"), deaths=[DEATH | {"at": time.time() - 60}]),
            "warn",
            "1 process died in the last hour, A-9 on h1 the last: killed by",
        ),
        (
            status_with(process("A-1"), deaths=[DEATH]),
            "good",
            "All is well, nothing to do",
        ),
        (
            status_with(process("A-1"), jobs=[CUT_OFF, CUT_OFF | {"state": "done"}]),
            "warn",
            "1 job without a way to some workers, Night the newest: h1 cannot reach",
        ),
        (status_with(memory_used_bytes=63e9), "warn", "The memory of h1 is nearly"),
        (status_with(disk_used_bytes=96e10), "warn", "The disk of h1 is nearly full."),
    ],
)
def test_how_a_cluster_is_and_why(
    status: dict[str, list[Row]], level: str, told: str
) -> None:
    verdict = verdict_of(Look(status))
    assert verdict.level == level
    assert told in " ".join([verdict.title, *(r.what for r in verdict.reasons)])
    assert all(reason.cure for reason in verdict.reasons)


def test_what_was_seen_last_stays_when_nobody_answers() -> None:
    verdict = verdict_of(Look(status_with(process("A-1")), "no factory answers"))
    assert (verdict.level, verdict.reasons[0].what) == ("unknown", "no factory answers")


def test_the_overview_adds_up(pages: Callable[[Look], FlaskClient]) -> None:
    status = status_with(
        process("A-1", "busy", pieces_done=1200),
        process("A-2", pieces_done=34, pieces_failed=1),
        process("B-1", "draining"),
        deaths=[DEATH],
        jobs=[{"name": "<job>", "state": "running", "pieces_submitted": 10,
               "pieces_done": 4, "elapsed_s": 30.0}, elastic("growing", "much waits")],
    )  # fmt: skip
    html = pages(Look(status)).get("/").text
    page = Page.of(html)
    assert "A 1 here, 2 coming, 3 wanted growing: much waits" in page.text
    assert "1 busy, 1 idle · 1,234 pieces done, 1 failed" in page.text
    assert "CPUs busy 4.0 of 8" in page.text
    assert "60 GB of 64 GB" in page.text
    assert "<job> running 4 of 10 30 s" in page.text
    assert "<job>" not in html
    # half a century ago is not the last hour
    assert "No process." in page.text
    assert 'width="50.00"' in html


def test_what_fails_to_start_is_shown_with_what_it_printed(
    pages: Callable[[Look], FlaskClient],
) -> None:
    client = pages(Look(status_with(*(failing(f"w{n}") for n in range(1, 12)))))
    overview = client.get("/").text
    assert "A-1 did not start on w8" in overview
    assert "A-1 did not start on w9" not in overview and "and 3 more" in overview
    assert "3 failed starts in a row on w1" in overview
    assert "&lt;b&gt;no disk&lt;/b&gt;</pre>" in overview
    assert "<code>opencluster logs A-1</code>" in overview
    computer = client.get("/computers/h1").text
    assert "A-1 did not start on w1" in computer and "on w2" not in computer


def test_a_job_says_which_workers_it_does_not_reach(
    pages: Callable[[Look], FlaskClient],
) -> None:
    ended = CUT_OFF | {"id": "bbbbbbbbbbbb", "state": "done"}
    client = pages(Look(status_with(process("A-1"), jobs=[CUT_OFF, ended])))
    html = client.get("/jobs/aaaaaaaaaaaa").text
    assert "does not reach all workers" in html
    assert "on h2: no answer within 2 s &lt;b&gt;</li>" in html
    assert ">2 more</li>" in html
    assert "does not reach" not in client.get("/jobs/bbbbbbbbbbbb").text


def test_a_computer_that_was_lost_is_shown_until_it_is_back(
    pages: Callable[[Look], FlaskClient],
) -> None:
    at = {"at": time.time() - 60}
    lost = [DEATH | at | {"kind": "workshop", "name": name} for name in ("h1", "h2")]
    status = status_with(process("A-1"), deaths=[*lost, DEATH | at])
    verdict = verdict_of(Look(status))
    assert verdict.level == "warn"
    assert [reason.what for reason in verdict.reasons] == [
        "1 computer lost: h2: killed by SIGKILL <b>.",
        # h1 is back, so its workshop is one of those that died
        "2 processes died in the last hour, A-9 on h1 the last: killed by SIGKILL <b>.",
    ]
    client = pages(Look(status))
    text = Page.of(client.get("/computers").text).text
    assert "h2 lost killed by SIGKILL <b>" in text
    assert "h1 lost" not in text
    text = Page.of(client.get("/computers/h2").text).text
    assert "not in the cluster now: killed by SIGKILL <b>, on 20" in text
    assert client.get("/computers/h3").status_code == 404


def test_who_does_not_answer_is_not_said_to_have_said_nothing(
    pages: Callable[[Look], FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        raise FactoryUnreachable("no route to h1, see `opencluster status`")

    monkeypatch.setattr(LogSource, "find", lambda _: Found({"h1": away}))
    text = pages(Look(status_with(process("A-1")))).get("/workers/A-1").text
    assert "does not answer: no route to h1, see <code>opencluster status<" in text
    assert "It has said nothing" not in text


def test_losses_of_the_last_hour_the_newest_first() -> None:
    deaths = status_of({"deaths": [DEATH, DEATH | {"at": 4500.0, "name": "A-8"}]})[
        "deaths"
    ]
    assert [row["name"] for row in recent(deaths, 4599.0)] == ["A-8", "A-9"]
    assert [row["name"] for row in recent(deaths, 4601.0)] == ["A-8"]


def test_nothing_adds_up_to_nothing() -> None:
    assert cpu_of(NOTHING).part == memory_of(NOTHING).part == 0.0
    assert types_of([]) == []


def test_computers_and_what_they_run(pages: Callable[[Look], FlaskClient]) -> None:
    status = status_with(process("A-1"), process("A-2"), process("B-1"))
    text = Page.of(pages(Look(status)).get("/computers").text).text
    assert "h1 2 A, 1 B 50 % of 8 60 GB of 64 GB 500 GB of 1 TB" in text
    assert text.endswith("H200 OpenCluster 0.1.0 · all times are UTC")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["A-1", "A-2", "B-1"]),
        ("?type=A", ["A-1", "A-2"]),
        ("?state=busy", ["A-2"]),
        ("?type=B&state=busy", []),
        ("?host=h2", []),
        ("?name=x&_external=1&endpoint=y", ["A-1", "A-2", "B-1"]),
    ],
)
def test_workers_can_be_chosen(
    pages: Callable[[Look], FlaskClient], query: str, names: list[str]
) -> None:
    status = status_with(process("A-1"), process("A-2", "busy"), process("B-1"))
    html = pages(Look(status)).get(f"/workers{query}").text
    shown = [name for name in ("A-1", "A-2", "B-1") if f'data-key="{name}"' in html]
    assert shown == names
    assert ("No worker here" in html) == (not names)


def test_the_status_is_there_for_programs(pages: Callable[[Look], FlaskClient]) -> None:
    status = status_with(process("A-1"))
    assert pages(Look(status)).get("/api/v1/status").json == status


def test_only_parts_that_changed_are_told() -> None:
    page = '<p>x</p><!-- part --><i data-key="a">1</i><!-- /part --> <b>y</b>'
    first = parts_of(page + '<!-- part --><i data-key="b">1</i><!-- /part -->')
    assert first == {"a": '<i data-key="a">1</i>', "b": '<i data-key="b">1</i>'}
    assert changed({}, first) == (first, ["a", "b"])
    assert changed(first, first) == ({}, None)
    assert changed(first, first | {"b": "2"}) == ({"b": "2"}, None)
    assert changed(first, {"a": first["a"]}) == ({}, ["a"])
    with pytest.raises(ValueError, match="data-key"):
        parts_of("<!-- part --><i>1</i><!-- /part -->")


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster({PROGRAM: 1}) as started:
        yield started


@pytest.mark.processes
def test_a_page_follows_a_cluster(
    cluster: LocalCluster, serve: Callable[..., WebServer], tmp_path: Path
) -> None:
    server = serve(None, place=cluster.place, config=load())
    stream = Stream(server.port, "/live/workers")
    end = tmp_path / "end"
    worker = Manager().get_available_workers("Patient")[0]
    states: list[str] = []
    done: Future[WorkPiece] | None = None
    for event in stream.events():
        for key, html in json.loads(event["data"])["tiles"].items():
            if key == "verdict":
                continue
            state = next(s for s in ("busy", "idle", "lost") if f"oc-state-{s}" in html)
            states += [state] * (states[-1:] != [state])
        if states == ["idle"] and done is None:
            done = worker.submit(WorkPiece(end=end))
        if states == ["idle", "busy"]:
            end.touch()
        if states == ["idle", "busy", "idle"]:
            break
    stream.close()
    assert done is not None
    done.result(10)
