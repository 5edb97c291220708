"""Every page is complete by itself, closed to strangers, and clear when empty."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from gallery_tools import (
    REASON,
    SECOND,
    START_S,
    Page,
    ReadingClient,
    paint,
    record,
    refused,
)
from sign_in import signed_in
from werkzeug.exceptions import MethodNotAllowed

from muser_pipeline.realtime import index as index_module
from muser_pipeline.realtime.index import ImageIndex, ImageRecord, default_url
from opencluster.place import Place
from opencluster_web.accounts.guard import Role
from opencluster_web.application import WebSettings, close_app, create_app

Archive = tuple[Path, list[ImageRecord]]
STREAMS = (
    *("cluster.live", "gallery.events", "jobs.live", "jobs.job_live"),
    *("logs.follow", "processes.live"),
)
_SET_LATER = re.compile(r"[\w-]*(?:\{\{.*?\}\}|\{%.*?%\})[\w-]*")
"""What a template puts together, with what it is put to."""
OF_A_KIND = 2
"""Pages of one kind that are looked at."""


@dataclass(frozen=True)
class Visit:
    """A page and what was sent before it."""

    page: Page
    headers: Mapping[str, str]


@pytest.fixture(scope="module")
def visits(archive: Archive) -> dict[str, Visit]:
    """Return all kinds of pages that links lead to; every other link is followed."""
    place = Place(archive[0] / "cluster")
    app = create_app(WebSettings(archive[0], place=place))
    app.test_client_class = ReadingClient
    found = follow(signed_in(app, Role.ADMINISTRATOR))
    close_app(app)
    return found


def follow(client: FlaskClient) -> dict[str, Visit]:
    """Return the pages, by their addresses."""
    found: dict[str, Visit] = {}
    kinds: Counter[str] = Counter()
    waiting = ["/", "/muser/?from=2015-11-01T04:00:00", "/muser/movies?band=1&pol=LL"]
    seen = set(waiting)
    adapter = client.application.url_map.bind("localhost")
    while waiting:
        address = waiting.pop(0)
        try:
            endpoint = str(adapter.match(address.partition("?")[0])[0])
        except MethodNotAllowed:
            # what a button does
            continue
        kinds[endpoint] += 1
        if kinds[endpoint] > OF_A_KIND or endpoint in STREAMS:
            continue
        answer = client.get(address, follow_redirects=True)
        assert answer.status_code == 200, (address, answer.text)
        if answer.mimetype != "text/html":
            continue
        page = Page.of(answer.text)
        found[address] = Visit(page, answer.headers)
        new = [link for link in page.links if link.startswith("/")]
        waiting += [link for link in dict.fromkeys(new) if link not in seen]
        seen.update(new)
    wanted = {"gallery.image", "gallery.movie", "gallery.curve_figure", "gallery.file"}
    wanted |= {"cluster.overview", "cluster.computers", "cluster.workers"}
    assert wanted <= kinds.keys()
    return found


def test_no_page_needs_anything_from_elsewhere(visits: dict[str, Visit]) -> None:
    for address, visit in visits.items():
        page = visit.page
        strange = [link for link in page.links if not link.startswith(("/", "#", "?"))]
        strange += [link for link in page.links if link.startswith("//")]
        assert not strange, address
        assert page.scripts == page.styles == 0, address


def test_every_page_can_be_read_aloud(visits: dict[str, Visit]) -> None:
    for address, visit in visits.items():
        page = visit.page
        assert page.headings.count("h1") == 1, address
        assert page.headings[0] == "h1", address
        assert all("alt" in picture for picture in page.pictures), address


def test_every_class_of_ours_has_a_style() -> None:
    folder = Path(create_app.__code__.co_filename).parent
    styles = "".join(p.read_text() for p in (folder / "static").glob("*.[cj]s*"))
    named = {
        (path.name, word)
        for path in (folder / "templates").rglob("*.html")
        for words in re.findall(
            r'class="([^"]*)"', _SET_LATER.sub("", path.read_text())
        )
        for word in words.split()
        if word.startswith("oc-")
    }
    assert ("_events.html", "oc-stack") in named
    assert not {
        (file, word)
        for file, word in named
        if not re.search(rf"""[.\s"']{word}(?![\w-])""", styles)
    }


def test_pages_allow_nothing_but_their_own_files(visits: dict[str, Visit]) -> None:
    for visit in visits.values():
        headers = visit.headers
        parts = headers["Content-Security-Policy"].split("; ")
        policy = dict(part.split(" ", 1) for part in parts)
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        has_plots = any("bokeh.min.js" in link for link in visit.page.links)
        assert ("unsafe-inline" in policy["style-src"]) == has_plots
        assert policy["frame-ancestors"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_the_latest_of_each_band_and_what_was_refused(
    client: FlaskClient, archive: Archive
) -> None:
    html = client.get("/muser/").text
    assert html.count("<article") == 8
    for image in archive[1][-8:]:
        assert f'data-id="{image.id}"' in html
    page = Page.of(html)
    assert "Refused" in page.text
    assert REASON in page.text
    assert "<only>" not in html
    assert "1.24 kJy/beam" in page.text


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("band=1", 2),
        ("pol=LL", 4),
        ("pol=rr&band=0&array=1", 1),
        ("array=2", 0),
        ("from=2015-11-01T04:00:00&to=2015-11-01T04:00:10", 8),
        ("from=2015-11-01T04:00:00&to=2015-11-01T04:01:00&band=2&pol=RR", 6),
        ("from=2015-11-01T04:00:00", 120),
        ("to=2014-01-01", 0),
    ],
)
def test_what_is_shown_is_chosen_in_the_address(
    client: FlaskClient, query: str, count: int
) -> None:
    html = client.get(f"/muser/?{query}").text
    assert html.count("<article") == count
    assert ("No images here" in html) == (count == 0)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("band=x", "band must be a whole number"),
        ("band=-1", "band must be a whole number"),
        ("array=99999999999999999999", "array must be a whole number"),
        ("pol=XX", "pol must be one of I, V, RR, LL"),
        ("from=yesterday", "from must be a time such as"),
        ("from=2015-11-01T04:00:00&to=2015-11-01T04:00:00", "ends before it begins"),
        ("span=0", "span is from 1 to"),
    ],
)
def test_a_wrong_address_is_told_what_may_be_written(
    client: FlaskClient, query: str, told: str
) -> None:
    answer = client.get(f"/muser/?{query}")
    assert answer.status_code == 400
    assert told in answer.text


def test_the_page_of_an_image_leads_on(client: FlaskClient, archive: Archive) -> None:
    images = {(r.time_utc_ns // SECOND, r.band, r.polarization): r for r in archive[1]}
    at = START_S + 100
    image = images[at, 1, "RR"]
    html = client.get(f"/muser/images/{image.id}").text
    before, after = images[at - 10, 1, "RR"], images[at + 10, 1, "RR"]
    assert f'data-key-link="ArrowLeft" href="/muser/images/{before.id}"' in html
    assert f'data-key-link="ArrowRight" href="/muser/images/{after.id}"' in html
    others = [f'href="/muser/images/{images[at, b, h].id}"' for b in range(4)
              for h in ("LL", "RR") if (b, h) != (1, "RR")]  # fmt: skip
    assert all(other in html for other in others)
    for number in ("1.100 kJy/beam", "7.50″", "1,000", "125 ms", "2015-11-01 04:01:40"):
        assert number in html
    first = client.get(f"/muser/images/{images[START_S, 1, 'RR'].id}").text
    assert "No earlier one" in first


def test_the_page_of_a_refused_image_says_why(
    client: FlaskClient, archive: Archive
) -> None:
    page = Page.of(client.get(f"/muser/images/{archive[1][-1].id}").text)
    assert f"Refused. {REASON}" in page.text
    assert "There is no picture." in page.text
    assert "Dynamic range" not in page.text


def test_an_item_that_could_not_be_read_is_of_no_band(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    whole = replace(refused(0), band=-1, frequency_hz=0.0, reason="frames: none")
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        index.add(whole)
    client = open_pages(tmp_path)
    page = Page.of(client.get("/muser/").text)
    assert "No band" in page.text
    assert "frames: none" in page.text
    assert "GHz" not in page.text
    assert "Refused. frames: none" in Page.of(client.get("/muser/images/1").text).text
    assert "No images here" in client.get("/muser/movies").text


@pytest.mark.parametrize(
    "address",
    [
        "/nothing",
        "/muser/images/99999",
        "/muser/images/99999999999999999999999",
        "/muser/images/x",
        "/muser/movies/1-0-0-V.webp",
        "/muser/movies/nonsense.webp",
        "/muser/files/images.db",
        "/muser/files/../images.db",
        "/muser/files/muser1/nothing.png",
        "/muser/files/..%2f..%2f..%2fetc%2fpasswd.png",
        "/assets/bokeh/1.0/bokeh.min.js",
        "/static/../application.py",
    ],
)
def test_what_is_not_there_is_not_found(client: FlaskClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert Page.of(answer.text).headings == ["h1"]


def test_files_outside_of_the_folder_are_not_sent(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_text("secret")
    folder = tmp_path / "images"
    folder.mkdir()
    client = open_pages(folder)
    for name in ("../secret.png", "%2e%2e/secret.png", "x/../../secret.png"):
        assert client.get(f"/muser/files/{name}").status_code == 404


def test_files_are_kept_by_browsers(client: FlaskClient, archive: Archive) -> None:
    image = archive[1][0]
    for name, kind in ((image.png, "image/png"), (image.fits, "")):
        answer = client.get(f"/muser/files/{name}")
        assert answer.headers["Cache-Control"].endswith("immutable")
        assert answer.data == (archive[0] / name).read_bytes()
        is_saved = "attachment" in answer.headers.get("Content-Disposition", "")
        assert is_saved == (name == image.fits)
        assert answer.mimetype == kind or name == image.fits


def test_without_images_it_is_said_what_to_do(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    ImageIndex(default_url(tmp_path), tmp_path).close()
    client = open_pages(tmp_path)
    for address in ("/muser/", "/muser/curve", "/muser/movies"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "No images yet" in answer.text
        assert "opencluster muser serve" in answer.text


def test_an_index_that_is_not_there_is_named_and_not_made(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    client = open_pages(tmp_path)
    answer = client.get("/muser/")
    assert answer.status_code == 503
    assert str(tmp_path / "images.db") in answer.text
    assert answer.headers["Retry-After"] == "10"
    assert not list(tmp_path.iterdir())
    # and it is found when it has come
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        index.add(record(0))
    paint(tmp_path, record(0))
    assert client.get("/muser/").text.count("<article") == 1


def test_an_index_that_is_locked_or_broken_is_told(
    open_pages: Callable[..., FlaskClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index_module, "BUSY_S", 0.05)
    ImageIndex(default_url(tmp_path), tmp_path).close()
    holder = sqlite3.connect(tmp_path / "images.db")
    holder.execute("BEGIN IMMEDIATE")
    locked = open_pages(tmp_path).get("/muser/")
    holder.close()
    assert locked.status_code == 503
    assert "database is locked" in locked.text
    (tmp_path / "images.db").write_text("no database" * 1000)
    broken = open_pages(tmp_path).get("/muser/")
    assert broken.status_code == 503
    assert "not a database" in broken.text


def test_another_name_than_its_own_is_turned_away(client: FlaskClient) -> None:
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example"):
        assert client.get("/muser/", headers={"Host": host}).status_code == 421
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        assert client.get("/muser/", headers={"Host": host}).status_code == 200


def test_a_defect_is_logged_and_not_shown(
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(ImageIndex, "latest", broken)
    answer = client.get("/muser/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret" in caplog.text
