"""Pages hear of images as they come, over a real server."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gallery_tools import TIMEOUT_S, Stream, record, refused

from muser_pipeline.realtime.index import ImageIndex, default_url
from opencluster_web import events as events_module
from opencluster_web.events import Event
from opencluster_web.serving import WebServer

Listen = Callable[..., Stream]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return what opens a stream; all are closed at the end."""
    with ExitStack() as ending:

        def opened(*arguments: Any, **options: Any) -> Stream:
            stream = Stream(*arguments, **options)
            ending.callback(stream.close)
            return stream

        yield opened


@pytest.fixture
def index(tmp_path: Path) -> Iterator[ImageIndex]:
    with ImageIndex(default_url(tmp_path), tmp_path) as opened:
        opened.add(record(0))
        yield opened


def test_a_new_image_is_told_with_its_tile(
    index: ImageIndex, tmp_path: Path, serve: Callable[..., WebServer], listen: Listen
) -> None:
    server = serve(tmp_path)
    stream = listen(server.port, "/muser/events?after=1")
    assert stream.response.headers["Content-Type"].startswith("text/event-stream")
    index.add_all([record(5, 1), record(10), refused(7)])
    event = stream.next()
    assert (event["event"], event["id"]) == ("tiles", "4")
    tiles = json.loads(event["data"])["tiles"]
    assert set(tiles) == {"1-0-0-RR", "1-1-0-RR"}
    # what was refused before the latest image does not matter any more
    assert 'data-id="3"' in tiles["1-0-0-RR"]
    assert "Refused" not in tiles["1-0-0-RR"]
    index.add(refused(20))
    assert "Refused" in json.loads(stream.next()["data"])["tiles"]["1-0-0-RR"]


def test_only_what_the_page_shows_is_told(
    index: ImageIndex, tmp_path: Path, serve: Callable[..., WebServer], listen: Listen
) -> None:
    stream = listen(serve(tmp_path).port, "/muser/events?after=1&band=1&pol=LL")
    index.add_all([record(5, 1, "RR"), record(5, 0, "LL"), record(5, 1, "LL")])
    assert set(json.loads(stream.next()["data"])["tiles"]) == {"1-1-0-LL"}


def test_who_comes_again_misses_nothing(
    index: ImageIndex, tmp_path: Path, serve: Callable[..., WebServer], listen: Listen
) -> None:
    server = serve(tmp_path, stream_s=0.2)
    first = listen(server.port, "/muser/events?after=1")
    index.add(record(10))
    seen = [event["id"] for event in first.events()]
    # it ended by itself; what the browser got last counts, not what the page began with
    assert seen in (["2"], [])
    index.add(record(20, 1))
    again = listen(server.port, "/muser/events?after=1", last="2")
    event = again.next()
    assert event["id"] == "3"
    assert set(json.loads(event["data"])["tiles"]) == {"1-1-0-RR"}


def test_a_page_that_missed_much_gets_only_the_latest(
    index: ImageIndex,
    tmp_path: Path,
    serve: Callable[..., WebServer],
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("opencluster_web.gallery.live.AT_ONCE", 10)
    index.add_all([record(second) for second in range(1, 50)])
    stream = listen(serve(tmp_path).port, "/muser/events?after=1")
    event = stream.next()
    assert event["id"] == "50"
    assert 'data-id="50"' in json.loads(event["data"])["tiles"]["1-0-0-RR"]


def test_streams_are_bounded_and_pages_still_answer(
    index: ImageIndex,
    tmp_path: Path,
    serve: Callable[..., WebServer],
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events_module, "BEAT_S", 0.05)
    server = serve(tmp_path, streams=2)
    held = [listen(server.port, "/muser/events?after=1") for _ in range(2)]
    assert [stream.response.status for stream in held] == [200, 200]
    assert listen(server.port, "/muser/events?after=1").response.status == 503
    page = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    page.request("GET", "/muser/")
    assert page.getresponse().status == 200
    page.close()
    held[0].close()
    # the place of one that went away is free again
    deadline = time.monotonic() + TIMEOUT_S
    while listen(server.port, "/muser/events?after=1").response.status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    held[1].close()


def test_an_index_that_goes_away_is_told_in_the_stream(
    index: ImageIndex, tmp_path: Path, serve: Callable[..., WebServer], listen: Listen
) -> None:
    stream = listen(serve(tmp_path).port, "/muser/events?after=1")
    index.add(record(10))
    assert stream.next()["id"] == "2"
    (tmp_path / "images.db").rename(tmp_path / "other.db")
    event = stream.next()
    assert event["event"] == "trouble"
    assert "There is no index" in event["data"]
    assert event["id"] == "2"


def test_a_stream_ends_with_the_server(
    index: ImageIndex, tmp_path: Path, serve: Callable[..., WebServer], listen: Listen
) -> None:
    server = serve(tmp_path)
    stream = listen(server.port, "/muser/events?after=1")
    begun = time.monotonic()
    server.stop()
    assert list(stream.events()) == []
    assert time.monotonic() - begun < events_module.BEAT_S


def test_a_strange_number_begins_from_the_first(
    index: ImageIndex, tmp_path: Path, serve: Callable[..., WebServer], listen: Listen
) -> None:
    stream = listen(serve(tmp_path).port, "/muser/events?after=1", last="x")
    assert stream.next()["id"] == "1"


def test_an_event_cannot_be_made_of_several_lines() -> None:
    assert Event("1", "a", "b").text() == "id: 1\nevent: a\ndata: b\n\n"
    with pytest.raises(ValueError, match="single lines"):
        Event("1", "a", "b\n\ndata: c").text()
