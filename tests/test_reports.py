"""What a manager reports of its jobs, and of the work for which workers will come."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from typing import Any, cast

from opencluster.core.elastic_report import Work
from opencluster.engines.base import Job
from opencluster.engines.reports import Reports
from opencluster.net.link import FactoryLink


class FakeLink:
    """A factory that takes reports, and answers when the test says what."""

    def __init__(self) -> None:
        self.is_up = True
        self.rows: list[dict[str, Any]] = []
        self.asked: list[Future[Any]] = []

    def request(self, operation: str, arguments: dict[str, Any]) -> Future[Any]:
        assert operation == "job"
        self.rows.append(arguments["job"])
        future: Future[Any] = Future()
        self.asked.append(future)
        return future

    def answer(self, **fields: Any) -> None:
        asked, self.asked = self.asked, []
        for future in asked:
            future.set_result({"orders": {}} | fields)


class Desk:
    """Reports with a dispatcher that the test plays."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.told: list[list[str]] = []
        self.work = {"T": Work(7, 2.5), "U": Work()}
        self.reports = Reports(
            cast(FactoryLink, self.link),
            lambda job, answer: None,
            lambda types: self.told.append([*types]),
            self._work,
        )

    def _work(self, types: Collection[str]) -> dict[str, Work]:
        return {type: self.work[type] for type in types}

    def queued(self) -> list[Any]:
        self.link.rows.clear()
        self.reports.report()
        return [row.get("queued") for row in self.link.rows]


def test_nothing_is_told_of_work_that_nobody_asks_about() -> None:
    desk = Desk()
    desk.reports.note(Job("a", "A"))
    desk.link.answer(expected=[])
    assert desk.queued() == [None]
    assert desk.told == []


def test_one_job_tells_of_the_work_of_all() -> None:
    desk = Desk()
    first, second = Job("a", "A"), Job("b", "B")
    desk.reports.note(first)
    desk.reports.note(second)
    desk.link.rows.clear()
    desk.link.answer(expected=["T", "U"])
    # once it is known, it is told at once
    assert [row.get("queued") for row in desk.link.rows] == [
        {"T": [7, 2.5], "U": [0, None]},
        None,
    ]
    assert desk.told == [["T", "U"]]
    first.end("done")
    desk.reports.note(first)
    desk.link.answer(expected=["T", "U"])
    assert desk.queued() == [{"T": [7, 2.5], "U": [0, None]}]
    desk.link.answer(expected=[])
    assert desk.told == [["T", "U"], []]
    assert desk.queued() == [None]


def test_without_a_job_nobody_is_expected_as_nobody_is_told() -> None:
    desk = Desk()
    job = Job("a", "A")
    desk.reports.note(job)
    desk.link.answer(expected=["T"])
    job.end("done")
    desk.reports.note(job)
    assert desk.queued() == []
    desk.link.answer(expected=["T"])
    assert desk.told == [["T"], []]


def test_what_mappings_will_hand_in_counts() -> None:
    desk = Desk()
    first, second = Job("a", "A"), Job("b", "B")
    first.coming |= {1: ("T", 100), 2: ("V", 5)}
    second.coming |= {3: ("T", 1000), 4: ("U", 3)}
    desk.reports.note(first)
    desk.reports.note(second)
    desk.link.answer(expected=["T", "U"])
    assert desk.queued() == [{"T": [1107, 2.5], "U": [3, None]}, None]


def test_what_makes_no_sense_is_no_type() -> None:
    desk = Desk()
    desk.reports.note(Job("a", "A"))
    for wrong in (None, 7, "T", {"T": 1}, [None, 7, b"T"]):
        desk.link.answer(expected=wrong)
        assert desk.queued() == [None]
