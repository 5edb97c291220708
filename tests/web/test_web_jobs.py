"""Jobs and tasks: what their pages say, what may be done, and what is downloaded."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from job_tools import NASTY, STARTED_AT, TYPES, job_row, news_of, timeline_of
from job_tools import write_record as write
from sign_in import token_of

from opencluster import WorkPiece
from opencluster.core.timeline import OUTCOMES
from opencluster.place import Place
from opencluster.store.history import History
from opencluster.taskqueue import Request, TaskQueue
from opencluster_web.jobs.colours import HUES, hues_of
from opencluster_web.jobs.columns import length_of, span_columns
from opencluster_web.jobs.lanes import lanes_of
from opencluster_web.jobs.pages import as_csv
from opencluster_web.jobs.report import report_html
from opencluster_web.jobs.source import listed, whole
from opencluster_web.jobs.spans import Columns, histogram, rates, thinned
from opencluster_web.jobs.words import took

ID, OTHER = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
MANAGER = "/nights/night.py:NightManager"


@pytest.fixture
def place(application: Flask) -> Place:
    """Return the directory of the cluster that the pages show."""
    place: Place = application.extensions["opencluster_jobs"]._place
    place.path.mkdir(mode=0o700)
    return place


@pytest.fixture
def recorded(place: Place) -> Place:
    """Return the directory with the record of a job in it."""
    write(place.jobs, job_row(ID), news_of(300))
    return place


@pytest.fixture
def queue(place: Place) -> Any:
    with TaskQueue(f"sqlite:///{place.path / 'tasks.db'}") as queue:
        yield queue


def text_of(client: FlaskClient, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    return answer.text


# --- what is drawn ----------------------------------------------------------


def test_few_spans_are_drawn_as_they_are() -> None:
    timeline = timeline_of(ID, 50)
    found = thinned(Columns(timeline), 0.0, 1e9, 100)
    assert len(found.start) == 50
    assert sorted(found.first.tolist()) == list(range(50))
    assert set(found.count.tolist()) == {1}
    # what did not end well is drawn above the others
    outcomes = [bool(outcome) for outcome in found.outcome.tolist()]
    assert outcomes == sorted(outcomes)


@pytest.mark.parametrize("workers", [1, 40])
def test_many_spans_are_taken_together_and_nothing_is_lost(workers: int) -> None:
    timeline = timeline_of(ID, 20_000, workers=workers, length_s=600.0)
    columns = Columns(timeline)
    found = thinned(columns, 0.0, columns.length, 1000)
    assert 100 < len(found.start) <= 1000
    assert found.pieces.sum() == 20_000 == found.count.sum()
    for outcome in range(len(OUTCOMES)):
        pieces = columns.pieces[columns.outcome == outcome].sum()
        assert found.pieces[found.outcome == outcome].sum() == pieces
    # the more of a bar is idle, the fainter it is
    worked = (found.busy * (found.end - found.start)).sum()
    assert worked <= columns.duration.sum() * (1 + 1e-9)
    closer = thinned(columns, 100.0, 101.0, 1000)
    near = (columns.end >= 100.0) & (columns.start <= 101.0)
    assert len(closer.start) == near.sum()


def test_gaps_stay_visible() -> None:
    timeline = timeline_of(ID, 400, workers=1)
    # nothing is done from 20 s to 40 s
    timeline.start_s = [s if s < 20 else s + 20 for s in timeline.start_s]
    found = thinned(Columns(timeline), 0.0, 80.0, 100)
    assert len(found.start) < 400
    assert not np.any((found.start < 21) & (found.end > 39))


def test_rates_and_histogram_count_every_piece() -> None:
    timeline = timeline_of(ID, 500)
    columns = Columns(timeline)
    length = length_of(timeline, columns)
    found = rates(columns, length)
    total = (found.done + found.failed).sum() * np.diff(found.edges)[0]
    assert total == pytest.approx(500)
    assert sum(counts.sum() for counts in histogram(columns).counts) == 500
    nothing = Columns(timeline_of(ID, 1))
    assert thinned(nothing, 5e8, 6e8).start.size == 0


def test_types_keep_their_colours() -> None:
    assert hues_of(["Image"]) == hues_of(["Image"])
    both = dict(zip(TYPES, hues_of(TYPES), strict=True))
    assert len(set(both.values())) == 2
    assert hues_of(TYPES[::-1]) == [both[name] for name in TYPES[::-1]]
    many = hues_of([f"Type{n}" for n in range(len(HUES))])
    assert sorted(many) == sorted(HUES)
    assert len(hues_of([f"Type{n}" for n in range(20)])) == 20


def test_lanes_are_grouped_by_computer_and_words_say_what_colours_do() -> None:
    timeline = timeline_of(ID, 300, workers=12, hosts=3)
    lanes = lanes_of(timeline)
    for name, low, top in lanes.hosts:
        inside = {lane for lane, y in lanes.middle.items() if low < y < top}
        assert {timeline.hosts[lane] for lane in inside} == {name}
    names = [timeline.workers[lane] for lane in lanes.middle]
    assert names.index("Calibrate-7") < names.index("Image-10")
    drawn = span_columns(timeline, Columns(timeline), 0, 100, "dark")
    failed = drawn["outcome"].index("failed")
    assert "ValueError" in drawn["error"][failed]
    assert drawn["what"][failed].startswith("Piece ")
    assert len({len(column) for column in drawn.values()}) == 1
    crowd = timeline_of(ID, 2000, workers=1000, hosts=200)
    assert lanes_of(crowd).total <= 1600


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 µs"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (600, "10 min")],
)
def test_how_long(seconds: float, words: str) -> None:
    assert took(seconds) == words


# --- jobs -------------------------------------------------------------------


def test_jobs_come_from_all_that_know_of_them(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    try:
        history.finish([job_row(OTHER, started_at=STARTED_AT - 10)])
        assert history.job(OTHER) == job_row(OTHER, started_at=STARTED_AT - 10)
        assert history.job(ID) is None
        running = job_row(ID, state="running", pieces_done=4, elapsed_s=10.0)
        old = job_row("cccccccccccc", started_at=STARTED_AT - 20, state="running")
        found = listed([running], history, [old, running], 10)
        assert [row["id"] for row in found] == [ID, OTHER, "cccccccccccc"]
        # nobody but its record knows of the oldest, and not how it ended
        assert [row["state"] for row in found] == ["running", "done", "recorded"]
        assert found[0]["left_s"] == pytest.approx(5 / (5 / 10))
        assert found[1]["left_s"] is None
        assert [r["id"] for r in listed([running], history, [], 1)] == [ID]
        assert [r["id"] for r in listed([running], history, [], 9, STARTED_AT)] == [
            OTHER
        ]
    finally:
        history.close()
    assert whole({})["part"] == 0.0


def test_an_empty_list_teaches_what_to_do(as_observer: FlaskClient) -> None:
    assert "opencluster demo" in text_of(as_observer, "/jobs/")
    assert "opencluster submit" in text_of(as_observer, "/tasks/")
    assert "No such job" in text_of(as_observer, "/jobs/?name=x")
    assert "job dddddddddddd" in text_of(as_observer, "/jobs/dddddddddddd", 404)
    assert "there is no task 7" in text_of(as_observer, "/tasks/7", 404)
    for wrong in ("/jobs/?before=x", "/tasks/?before=x", "/tasks/?state=x"):
        text_of(as_observer, wrong, 400)


def test_the_page_of_a_job(as_observer: FlaskClient, recorded: Place) -> None:
    assert f'href="/jobs/{ID}"' in text_of(as_observer, "/jobs/")
    page = text_of(as_observer, f"/jobs/{ID}")
    for words in ("NightManager aa", "Slowest runs", "failed: crossed", *TYPES):
        assert words in page
    assert "<script>alert" not in page
    assert "bad &lt;script&gt;" in page
    assert "<!-- plots -->" not in page
    assert f'data-figure="/jobs/{ID}/figure"' in page
    # it has ended, and an observer has nothing to order
    assert "data-live=" not in page
    assert "Cancel" not in page
    figure = text_of(as_observer, f"/jobs/{ID}/figure?shade=dark")
    assert json.loads(figure)["doc"]["roots"]
    # a cross on what failed, besides its colour
    assert '"group": "failed"' in figure
    assert '"hatch_pattern"' in figure
    assert json.loads(text_of(as_observer, f"/jobs/{ID}/histogram"))["doc"]
    spans = json.loads(text_of(as_observer, f"/jobs/{ID}/spans"))
    assert len(spans["left"]) == 300
    began_ms = 1e3 * STARTED_AT
    near = f"/jobs/{ID}/spans?start={began_ms}&end={began_ms + 5000}"
    assert 0 < len(json.loads(text_of(as_observer, near))["left"]) < 60
    assert len(json.loads(text_of(as_observer, f"/jobs/{ID}/rates"))["done"]) == 120
    text_of(as_observer, f"/jobs/{ID}/spans?start=nan", 400)
    for form in ("figure", "spans", "rates", "histogram"):
        text_of(as_observer, f"/jobs/{OTHER}/{form}", 404)


def test_a_record_that_grows_is_read_anew(
    as_observer: FlaskClient, recorded: Place
) -> None:
    address = f"/jobs/{ID}/spans"
    assert len(json.loads(text_of(as_observer, address))["left"]) == 300
    (recorded.jobs / f"{ID}.job").unlink()
    write(recorded.jobs, job_row(ID), news_of(100))
    assert len(json.loads(text_of(as_observer, address))["left"]) == 100


def test_downloads(as_observer: FlaskClient, recorded: Place) -> None:
    told = json.loads(text_of(as_observer, f"/jobs/{ID}.json"))
    assert told["job"]["id"] == ID
    assert told["summary"]["pieces"] == 300 == len(told["spans"])
    rows = list(csv.DictReader(io.StringIO(text_of(as_observer, f"/jobs/{ID}.csv"))))
    assert [int(row["piece"]) for row in rows] == list(range(300))
    assert {row["error"] for row in rows if row["outcome"] == "failed"} == {NASTY}
    answer = as_observer.get(f"/jobs/{ID}.html")
    assert f"job-{ID}.html" in answer.headers["Content-Disposition"]
    assert "Who did what, when" in answer.text


def test_a_table_holds_no_formulas() -> None:
    timeline = timeline_of(ID, 10)
    timeline.types[0] = "=HYPERLINK(1)"
    assert "'=HYPERLINK(1)" in as_csv(timeline)


def test_a_report_needs_nothing_but_itself() -> None:
    page = report_html(timeline_of(ID, 300))
    assert not re.findall(r"(?:src|href)=[\"']", page.partition("<script>")[0])
    assert "default-src 'none'" in page
    # BokehJS, two figures, and what draws them; nothing of the data ends one early
    assert page.count("<script") - page.count('"<script') >= 4
    figures = re.findall(r'type="application/json" id="[\w-]+">(.*?)</script>', page)
    assert [bool(json.loads(figure)["doc"]) for figure in figures] == [True, True]
    assert "<script>alert(1)" not in page
    assert "url_for" not in page
    tail = page.rpartition("</main>")[0].partition("<body>")[2]
    assert "http" not in tail


def test_orders_need_an_operator_and_are_written_down(
    as_operator: FlaskClient, as_observer: FlaskClient, recorded: Place
) -> None:
    form = {"csrf_token": token_of(as_observer)}
    assert as_observer.post(f"/jobs/{ID}/cancel", data=form).status_code == 403
    assert as_operator.post(f"/jobs/{ID}/cancel").status_code == 400
    form = {"csrf_token": token_of(as_operator)}
    answer = as_operator.post(f"/jobs/{ID}/cancel", data=form, follow_redirects=True)
    assert "no cluster is running" in answer.text
    assert "cancel job" in text_of(as_operator, "/audit")
    wrong = as_operator.post(f"/jobs/{ID}/priority", data=form | {"priority": "x"})
    assert wrong.status_code == 400


# --- tasks ------------------------------------------------------------------


def test_tasks_in_pages_by_state_and_class(
    as_observer: FlaskClient, queue: TaskQueue
) -> None:
    queue.submit_all([Request(MANAGER, WorkPiece(n=n)) for n in range(60)])
    queue.submit(MANAGER.replace("Night", "Day"), WorkPiece())
    queue.cancel(3)
    shown = re.compile(r'href="/tasks/(\d+)"')
    page = text_of(as_observer, "/tasks/")
    assert shown.findall(page) == [str(n) for n in range(61, 11, -1)]
    older = re.search(r'href="(/tasks/\?before=\d+)"', page)
    assert older is not None
    page = text_of(as_observer, older[1])
    assert shown.findall(page) == [str(n) for n in range(11, 0, -1)]
    page = text_of(as_observer, "/tasks/?state=cancelled")
    assert shown.findall(page) == ["3"]
    page = text_of(as_observer, "/tasks/?name=DayManager")
    assert shown.findall(page) == ["61"]


def test_one_task_and_what_may_be_done_to_it(
    as_operator: FlaskClient, as_observer: FlaskClient, queue: TaskQueue
) -> None:
    number = queue.submit(MANAGER, WorkPiece(night="2026-12-01 <b>"))
    queue.submit(MANAGER, WorkPiece(), depends_on=[number])
    page = text_of(as_observer, f"/tasks/{number}")
    assert "2026-12-01 &lt;b&gt;" in page
    assert "Cancel" not in page
    assert f'href="/tasks/{number}">{number}</a> (queued)' in text_of(
        as_observer, "/tasks/2"
    )
    form = {"csrf_token": token_of(as_operator)}

    def ordered(what: str, **more: str) -> str:
        address = f"/tasks/{number}/{what}"
        return as_operator.post(address, data=form | more, follow_redirects=True).text

    assert f"Task {number} has the priority -4." in ordered("priority", priority="-4")
    assert queue.show(number).priority == -4
    assert f"Task {number} is cancelled." in ordered("cancel")
    assert f"Task {number} had ended before." in ordered("cancel")
    assert f"Task {number} is queued again." in ordered("retry")
    for wrong in ("x", "99999999999"):
        answer = as_operator.post(
            f"/tasks/{number}/priority", data=form | {"priority": wrong}
        )
        assert answer.status_code == 400
    assert as_operator.post("/tasks/99/cancel", data=form).status_code == 404
    theirs = {"csrf_token": token_of(as_observer)}
    assert as_observer.post(f"/tasks/{number}/cancel", data=theirs).status_code == 403
    assert queue.show(number).state == "queued"
    audit = text_of(as_operator, "/audit")
    for action in ("cancel task", "retry task", "change priority of task"):
        assert action in audit
