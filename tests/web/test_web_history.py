"""Pages show what was: a night that another process watched, events and elections."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from gallery_tools import Page, ReadingClient, Stream
from sign_in import signed_in

from opencluster.config import load
from opencluster.core.journal import NOTE, TROUBLE, WARNING, Event
from opencluster.core.sampling import FIELDS
from opencluster.observe.status import status_of
from opencluster.place import Place
from opencluster.store.history import History
from opencluster_web.accounts import guard
from opencluster_web.accounts.guard import Role
from opencluster_web.application import WebSettings, close_app, create_app
from opencluster_web.cluster.past import SPANS
from opencluster_web.cluster.source import HISTORY, ClusterSource, Look
from opencluster_web.serving import WebServer

NIGHT = """
import sys, time
from pathlib import Path
from opencluster.core.journal import Event
from opencluster.core.sampling import FIELDS
from opencluster.store.history import History

history = History(Path(sys.argv[1]))
begin = float(sys.argv[2])
for minute in range(60):
    sample = dict.fromkeys(FIELDS, 0.0) | {"cpu": 0.5, "busy": minute}
    sample |= {"memory": 1e9, "memory_total": 4e9, "gpu": 0.25, "failures": 0.1}
    history.note(begin + 60 * minute, {"": sample, "node1": sample})
history.record(begin, [Event("worker-died", "trouble", "Fit-1", "node1",
    "worker Fit-1 died: killed by <SIGKILL>", "its last words")])
history.close()
"""


@pytest.fixture
def night(tmp_path: Path) -> tuple[Place, float]:
    """Return a cluster that another process watched for an hour, hours ago."""
    place = Place(tmp_path / "c")
    place.path.mkdir()
    begin = (time.time() - 8 * 3600) // 600 * 600
    program = [sys.executable, "-c", NIGHT, str(place.path / HISTORY), str(begin)]
    subprocess.run(program, check=True, timeout=60)
    return place, begin


def test_a_page_that_is_opened_in_the_morning_shows_the_night(
    open_pages: Callable[..., FlaskClient], night: tuple[Place, float]
) -> None:
    place, begin = night
    client = open_pages(None, place=place)
    data = client.get("/history/load/data?span=night&subject=").json
    lines = dict(zip(data["label"], data["value"], strict=True))
    assert lines == {"Processors": [0.5] * 60, "Memory": [0.25] * 60}
    assert data["time"][0][0] == 1000 * begin
    work = client.get("/history/work/data?span=night&subject=node1&shade=dark").json
    assert list(range(60)) in work["value"]
    assert work["colour"] != data["colour"]
    page = Page.of(client.get("/?span=night").text)
    assert "/history/gpu/figure?subject=&span=night" in page.links
    assert "Processors and memory Processors 50 % 50 % 50 %" in page.text
    assert "worker Fit-1 died: killed by <SIGKILL>" in page.text
    # it is not the last hour, and nobody has GPUs in it
    now = Page.of(client.get("/").text)
    assert "Nothing was kept of this time yet" in now.text
    assert not [link for link in now.links if "gpu" in link]


def test_what_is_too_old_is_shown_no_more(
    open_pages: Callable[..., FlaskClient], night: tuple[Place, float]
) -> None:
    place, begin = night
    history = History(place.path / HISTORY)
    history.forget(begin + 500 * 24 * 3600)
    history.close()
    client = open_pages(None, place=place)
    data = client.get("/history/load/data?span=month").json
    assert data["value"] == [[], []]
    assert "No such event" in client.get("/events").text


@pytest.mark.parametrize("span", [*SPANS, "nonsense"])
def test_every_plot_can_be_drawn(
    open_pages: Callable[..., FlaskClient], night: tuple[Place, float], span: str
) -> None:
    client = open_pages(None, place=night[0])
    for plot in ("load", "work", "pieces", "waiting", "network", "disk", "gpu"):
        answer = client.get(f"/history/{plot}/figure?span={span}&subject=node1")
        figure = json.loads(answer.text)
        assert f"/history/{plot}/data" in json.dumps(figure)
    assert client.get("/history/nonsense/data").status_code == 404


def test_a_computer_that_has_left_shows_what_it_was_like(
    open_pages: Callable[..., FlaskClient], night: tuple[Place, float]
) -> None:
    client = open_pages(None, place=night[0])
    answer = client.get("/computers/node1?span=night")
    page = Page.of(answer.text)
    assert "This computer is not in the cluster now" in page.text
    assert "/history/disk/figure?subject=node1&span=night" in page.links
    assert "'unsafe-inline'" in answer.headers["Content-Security-Policy"]
    missing = client.get("/computers/node2")
    assert missing.status_code == 404
    assert "There is no computer node2" in missing.text


def test_a_computer_shows_what_it_runs_and_may_run(
    open_pages: Callable[..., FlaskClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop: dict[str, Any] = {"id": "s", "kind": "workshop", "type": "", "name": "n1"}
    shop |= {"host": "h1", "pid": 1, "workshop": "", "endpoints": []}
    shop["attributes"] = {"catalogue": {"Fit": "worker", "Sun": "service"}}
    fit = shop | {"id": "w", "kind": "worker", "type": "Fit", "name": "Fit-1"}
    fit |= {"workshop": "s", "attributes": {}}
    sun = fit | {"id": "v", "kind": "service", "type": "Sun", "name": "Sun-1"}
    far = fit | {"id": "x", "name": "Fit-2", "workshop": "t"}
    figures = {"s": {"cpu_percent": 50.0, "cpu_count": 8, "gpus": [{"name": "H200"}]}}
    status = status_of({"entries": [shop, fit, sun, far], "figures": figures})
    monkeypatch.setattr(ClusterSource, "look", lambda _: Look(status))
    client = open_pages(None, place=Place(tmp_path))
    for address in ("/computers/n1", "/computers/h1"):
        page = Page.of(client.get(address).text)
        assert "50 % of 8" in page.text
        assert "H200" in page.text
        assert "Fit worker 1 Sun service 1" in page.text
        assert "Fit-1" in page.text
        assert "Fit-2" not in page.text
    assert "Sun-1" in client.get("/services").text
    assert "Fit-1" not in client.get("/services").text
    assert "Sun-1" not in client.get("/workers").text


def test_events_are_chosen_and_paged(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    place = Place(tmp_path / "c")
    place.path.mkdir()
    history = History(place.path / HISTORY)
    for number in range(120):
        weight = (NOTE, WARNING, TROUBLE)[number % 3]
        kind = "worker-died" if number % 2 else "worker-ready"
        host = f"node{number % 5}"
        text = f"event {number}."
        history.record(number, [Event(kind, weight, "", host, text)])
    history.close()
    client = open_pages(None, place=place)

    def told(query: str) -> set[int]:
        text = client.get(f"/events{query}").text
        return {n for n in range(120) if f"event {n}." in text}

    assert told("") == set(range(20, 120))
    assert told("?before=21") == set(range(20))
    assert 'rel="next"' in client.get("/events").text
    assert 'rel="next"' not in client.get("/events?before=21").text
    assert told("?weight=trouble") == set(range(2, 120, 3))
    assert told("?weight=warning&host=node1") == {
        n for n in range(1, 120, 5) if n % 3 != 0
    }
    assert told("?kind=worker-died&host=node0") == set(range(5, 120, 10))
    assert told("?before=nonsense&weight=nonsense") == set(range(20, 120))


def test_elections_of_the_last_day_are_told(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    place = Place(tmp_path / "c")
    place.path.mkdir()
    client = open_pages(None, place=place)
    assert "Nothing is kept" in client.get("/factories").text
    history = History(place.path / HISTORY)
    now = time.time()
    elected = Event("leader-elected", WARNING, "tcp://b:1", "", "b leads, in epoch 4")
    history.record(now - 90_000, [elected])
    history.record(now - 100, [elected, Event("job-done", NOTE, "", "", "a job")])
    history.close()
    text = Page.of(client.get("/factories").text).text
    assert "In the last day: 1 election " in text
    assert text.count("b leads, in epoch 4") == 1
    assert "a job" not in text


@pytest.mark.processes
def test_what_a_server_sees_is_kept_and_told_to_open_pages(
    serve: Callable[..., WebServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = [status_of({"factories": [{"endpoint": "a", "role": "leader"}]})]
    monkeypatch.setattr(ClusterSource, "_status", lambda _: statuses[-1])
    place = Place(tmp_path / "c")
    server = serve(None, place=place, config=load())
    second = serve(None, place=place, config=load())
    stream = Stream(server.port, "/live/events")
    events = stream.events()
    next(events)
    # a stream tells of changes against what it saw
    statuses.append(status_of({"factories": [{"endpoint": "a", "role": "absent"}]}))
    told = json.loads(next(events)["data"])
    while not any(
        "no factory leads any more" in tile for tile in told["tiles"].values()
    ):
        told = json.loads(next(events)["data"])
    stream.close()
    history = History(place.path / HISTORY)
    kinds = [each.event.kind for each in history.events()]
    # of two servers one keeps
    assert sorted(kinds) == ["factory-absent", "leader-lost"]
    assert history.samples("", 0, time.time() + 60, most=10**9)["at"]
    history.close()
    assert second.port != server.port


def test_what_operators_do_is_an_event(tmp_path: Path) -> None:
    place = Place(tmp_path)
    History(tmp_path / HISTORY).close()
    app = create_app(WebSettings(None, place=place))
    app.test_client_class = ReadingClient

    @app.route("/deed", methods=["GET"])
    def deed() -> str:
        with guard.audited("stop worker", "Fit-1"):
            return "done"

    client = signed_in(app, Role.OPERATOR, "ann")
    assert client.get("/deed").text == "done"
    assert "ann: stop worker Fit-1" in client.get("/events").text
    close_app(app)


def test_a_sample_has_all_fields_that_plots_need() -> None:
    from opencluster_web.cluster.past import PLOTS

    needed = {c.field for plot in PLOTS.values() for c in plot.curves}
    wholes = {c.whole for plot in PLOTS.values() for c in plot.curves if c.whole}
    assert needed | wholes <= set(FIELDS)
