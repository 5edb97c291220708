"""All logs in one place, and the pages of single processes; logs are hostile input."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from gallery_tools import Page, ReadingClient, Stream

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.errors import PieceFailed
from opencluster.place import Place
from opencluster.testing import LocalCluster
from opencluster_web.application import WebSettings, close_app, create_app
from opencluster_web.logs.choice import Choice
from opencluster_web.serving import WebServer

PROGRAM = f"{Path(__file__).with_name('cluster_workers.py')}:SayingWorker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster({PROGRAM: 1}) as started:
        say("hello <script>alert(1)</script> \x1b[31mred\x1b[0m \x00\u202eend")
        for text in ("one", "two"):
            say(text, is_wrong=text == "two")
        yield started


def say(text: str, is_wrong: bool = False) -> None:
    worker = Manager().get_available_workers("Saying")[0]
    done = worker.submit(WorkPiece(text=text, wrong=is_wrong))
    if is_wrong:
        with pytest.raises(PieceFailed):
            done.result(60)
    else:
        done.result(60)


@pytest.fixture(scope="module")
def app(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    accounts = tmp_path_factory.mktemp("accounts") / "web.db"
    place = cluster.place
    made = create_app(
        WebSettings(None, config=load(), place=place, accounts=accounts, guests=True)
    )
    made.test_client_class = ReadingClient
    yield made
    close_app(made)


@pytest.fixture
def pages(app: Flask) -> FlaskClient:
    return app.test_client()


def html(client: FlaskClient, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.get_data(as_text=True)


def said(text: str) -> list[str]:
    """Return the messages of a page."""
    found = re.findall(r'oc-said-text">(.*?)</span>', text, re.DOTALL)
    return [each.strip() for each in found]


@pytest.mark.processes
def test_all_logs_are_on_one_page(pages: FlaskClient) -> None:
    text = html(pages, "/logs")
    for process in ("factory", "workshop", "Saying-1"):
        assert f"process={process}" in text
    page = Page.of(text)
    assert "two" in said(text)[-2:] or "two" in page.text
    assert page.scripts == page.styles == 0


@pytest.mark.processes
def test_what_is_in_a_log_is_harmless(pages: FlaskClient) -> None:
    for address in ("/logs?process=Saying-1", "/workers/Saying-1"):
        text = html(pages, address)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt; red \ufffd\ufffdend" in text
        assert not re.search("[\x00-\x08\x1b\u202e]", text)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("asked", "some", "none"),
    [
        ("text=ONE&process=Saying-1", "one", "two"),
        ("level=WARNING&type=Saying", "is wrong", "hello"),
        ("process=Saying-1&since=1h", "is wrong", "factory at"),
        ("process=factory", "factory at", "is wrong"),
    ],
)
def test_messages_are_chosen(
    pages: FlaskClient, asked: str, some: str, none: str
) -> None:
    found = "\n".join(said(html(pages, f"/logs?{asked}")))
    assert some in found
    assert none not in found


@pytest.mark.processes
def test_messages_of_a_piece(pages: FlaskClient) -> None:
    text = html(pages, "/logs?level=WARNING&type=Saying")
    pieces = re.findall(r"\?piece=([0-9a-f]+)%3A(\d+)|\?piece=([0-9a-f]+):(\d+)", text)
    manager = next(name for name in pieces[0] if name)
    assert "is wrong" in "\n".join(said(html(pages, f"/logs?piece={manager}")))
    assert said(html(pages, "/logs?piece=ffffffff")) == []


@pytest.mark.processes
def test_what_makes_no_sense_is_told_and_nothing_is_found(pages: FlaskClient) -> None:
    text = html(pages, "/logs?since=soon")
    assert "neither such as 10min" in Page.of(text).text
    assert "is none of DEBUG" in html(pages, "/logs?level=LOUD")
    for asked in ("type=Nobody", "process=../../x", "text=" + "n" * 500):
        text = html(pages, f"/logs?{asked}")
        assert said(text) == []
        assert "No such message" in Page.of(text).text
    away = html(pages, "/logs?host=elsewhere")
    assert "elsewhere does not answer" in Page.of(away).text


@pytest.mark.processes
def test_a_worker_tells_how_it_failed(pages: FlaskClient) -> None:
    deadline = time.monotonic() + 30.0
    # the next heartbeat tells how many failed
    while "1 failed" not in Page.of(text := html(pages, "/workers/Saying-1")).text:
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    page = Page.of(text)
    assert "ValueError" in page.text
    assert "two is wrong" in page.text
    assert "in perform" in page.text
    assert "Last error" in page.text
    assert page.scripts == page.styles == 0
    assert "/logs?process=Saying-1" in text


@pytest.mark.processes
def test_the_page_of_nobody(pages: FlaskClient) -> None:
    assert pages.get("/workers/Nobody-1").status_code == 404
    # a worker has one address
    led = pages.get("/services/Saying-1")
    assert (led.status_code, led.location) == (302, "/workers/Saying-1")
    assert 'href="/workers/Saying-1"' in html(pages, "/workers")
    assert pages.get("/trails/x/disk/figure").status_code == 404


@pytest.mark.processes
def test_a_page_follows_the_logs(
    cluster: LocalCluster, serve: Callable[..., WebServer]
) -> None:
    server = serve(None, place=cluster.place, config=load())
    stream = Stream(server.port, "/logs/follow?process=Saying-1")
    events = stream.events()
    first = json.loads(next(events)["data"])
    assert first["replace"] and "hello" in first["html"]
    say("something new")
    found = ""
    while "something new" not in found:
        after = json.loads(next(events)["data"])
        assert not after["replace"]
        found += after["html"]
    assert "hello" not in found
    stream.close()

    stream = Stream(server.port, "/live/process/Saying-1")
    assert "something new" in json.loads(stream.next()["data"])["tiles"]["log"]
    stream.close()


def test_logs_of_a_cluster_that_is_gone(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.logs.mkdir(parents=True)
    lines = [
        f"2026-11-30T00:{number // 60:02}:{number % 60:02}.000Z INFO a.b said {number}"
        for number in range(500)
    ]
    (place.logs / "Word-1.log").write_text("\n".join([*lines, ""]))
    shutil.copy(place.logs / "Word-1.log", place.logs / "Word-2.log")
    with_guests: dict[str, Any] = {"accounts": tmp_path / "web.db", "guests": True}
    app = create_app(WebSettings(None, place=place, **with_guests))
    app.test_client_class = ReadingClient
    client = app.test_client()
    address, seen = "/logs", list[str]()
    for _ in range(20):
        text = html(client, address)
        assert "left on this computer" in Page.of(text).text
        seen = said(text) + seen
        older = re.search(r'rel="prev" href="([^"]+)"', text)
        if older is None:
            break
        address = older[1].replace("&amp;", "&")
    # each of both logs, all and once
    assert sorted(seen) == sorted(f"said {n}" for n in range(500) for _ in "12")
    assert "does not run now" in Page.of(html(client, "/workers/Word-1")).text
    close_app(app)


def test_what_an_address_asks_for() -> None:
    choice = Choice.of({"text": " a ", "level": "error", "piece": "", "next": "x"})
    assert choice.asked == {"text": "a", "level": "error"}
    assert choice.wanted.level == "ERROR"
    workers = [{"name": "W-1", "type": "W"}, {"name": "X-1", "type": "X"}]
    both = Choice.of({"type": "W", "process": "X-1"})
    assert both.question(5, workers)["names"] == ["/"]
    assert Choice.of({"type": "W"}).question(5, workers)["names"] == ["W-1"]
