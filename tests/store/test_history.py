"""What was is kept, grows coarse with age, and is forgotten in the end."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from opencluster.core.journal import NOTE, TROUBLE, Event
from opencluster.core.sampling import CLUSTER, FIELDS
from opencluster.errors import HistoryError
from opencluster.store.history import DAY_S, EVENTS_S, History

NIGHT = 1_800_000_000
"""A whole multiple of every step."""


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db")


def sample(value: float) -> dict[str, float]:
    return dict.fromkeys(FIELDS, value)


def fill(history: History, seconds: int) -> None:
    """Note a sample each five seconds whose numbers are how long ago it began."""
    for second in range(0, seconds + 1, 5):
        history.note(NIGHT + second, {CLUSTER: sample(second), "node1": sample(-1)})


def test_samples_come_back_in_order_of_time(history: History) -> None:
    fill(history, 20)
    found = history.samples(CLUSTER, NIGHT, NIGHT + 100)
    assert list(found["at"]) == [NIGHT + n for n in (0, 5, 10, 15, 20)]
    assert list(found["pieces"]) == [0, 5, 10, 15, 20]
    assert set(found) == {"at", *FIELDS}
    assert list(history.samples("node1", NIGHT + 5, NIGHT + 10)["cpu"]) == [-1, -1]
    assert history.samples("node2", NIGHT, NIGHT + 100)["at"] == ()


def test_long_times_are_shown_by_means(history: History) -> None:
    fill(history, 1260)
    minutes = history.samples(CLUSTER, NIGHT, NIGHT + 3600, most=100)
    assert list(minutes["at"]) == [NIGHT + 60 * n for n in range(22)]
    assert list(minutes["cpu"][:2]) == [27.5, 87.5]
    # the minute that is not over yet
    assert minutes["cpu"][21] == 1260
    coarse = history.samples(CLUSTER, NIGHT, NIGHT + DAY_S, most=200)
    assert list(coarse["at"]) == [NIGHT, NIGHT + 600, NIGHT + 1200]
    assert coarse["cpu"][0] == pytest.approx(297.5)
    month = history.samples(CLUSTER, NIGHT + 1200 - 30 * DAY_S, NIGHT + 1200)
    assert list(month["at"]) == [NIGHT]
    assert month["cpu"][0] == pytest.approx(600, abs=5)


def test_one_figure_of_everybody(history: History) -> None:
    fill(history, 130)
    found = history.everybody("cpu", NIGHT, NIGHT + 200)
    assert found == {
        CLUSTER: [(NIGHT, 27.5), (NIGHT + 60, 87.5)],
        "node1": [(NIGHT, -1), (NIGHT + 60, -1)],
    }


def test_means_are_made_once_and_none_is_left_out_by_a_restart(
    history: History, tmp_path: Path
) -> None:
    fill(history, 90)
    history.close()
    again = History(tmp_path / "history.db")
    for second in range(95, 200, 5):
        again.note(NIGHT + second, {CLUSTER: sample(second)})
    found = again.samples(CLUSTER, NIGHT, NIGHT + 3600, most=100)
    assert list(found["at"]) == [NIGHT, NIGHT + 60, NIGHT + 120, NIGHT + 180]
    assert list(found["cpu"]) == [27.5, 87.5, 147.5, 187.5]


def test_what_is_old_is_forgotten_the_fine_first(history: History) -> None:
    fill(history, 1260)
    history.record(NIGHT, [Event("a", NOTE, "b", "c", "d")])
    history.finish([{"id": "1", "started_at": NIGHT, "ended_at": NIGHT + 1}])
    history.forget(NIGHT + 2 * DAY_S)
    assert history.samples(CLUSTER, NIGHT, NIGHT + 100)["at"] == ()
    assert len(history.samples(CLUSTER, NIGHT, NIGHT + 3600, most=100)["at"]) == 21
    history.forget(NIGHT + 30 * DAY_S)
    assert history.samples(CLUSTER, NIGHT, NIGHT + 3600, most=100)["at"] == ()
    assert len(history.samples(CLUSTER, NIGHT, NIGHT + DAY_S, most=200)["at"]) == 2
    assert (len(history.events()), len(history.jobs())) == (1, 1)
    history.forget(NIGHT + EVENTS_S + 1)
    assert (len(history.events()), len(history.jobs())) == (0, 0)


def test_events_are_paged_and_chosen(history: History) -> None:
    for number in range(5):
        weight = TROUBLE if number % 2 else NOTE
        history.record(NIGHT + number, [Event("k", weight, str(number), "h", "t", "d")])
    newest = history.events(limit=2)
    assert [each.event.subject for each in newest] == ["4", "3"]
    assert newest[1].event == Event("k", TROUBLE, "3", "h", "t", "d")
    assert newest[1].at == NIGHT + 3
    older = history.events(before=newest[-1].id)
    assert [each.event.subject for each in older] == ["2", "1", "0"]
    troubles = history.events(weights=[TROUBLE])
    assert [each.event.subject for each in troubles] == ["3", "1"]
    history.record(NIGHT + 9, [Event("j", NOTE, "5", "h2", "t")])
    for choice, subjects in (
        ({"kinds": ["j"]}, ["5"]),
        ({"kinds": ["j", "k"], "limit": 2}, ["5", "4"]),
        ({"host": "h2"}, ["5"]),
        ({"since": NIGHT + 3}, ["5", "4"]),
        ({"host": "h", "weights": [NOTE], "since": NIGHT + 1}, ["4", "2"]),
    ):
        assert [e.event.subject for e in history.events(**choice)] == subjects


def test_a_job_is_kept_once_as_it_ended(history: History) -> None:
    job = {"id": "1", "name": "Fits", "started_at": 5.0, "ended_at": 9.0, "state": "x"}
    history.finish([job])
    history.finish([job | {"name": "other"}, job | {"id": "2", "started_at": 7.0}])
    assert [each["id"] for each in history.jobs()] == ["2", "1"]
    assert history.jobs(before=7.0) == [job]


def test_a_file_that_is_none_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(HistoryError, match=r"history.db: file is not a database"):
        History(tmp_path / "history.db")
    with pytest.raises(HistoryError, match="No such file"):
        History(tmp_path / "nowhere" / "history.db")


def test_a_file_that_another_holds_is_told_of(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("opencluster.store.history.BUSY_S", 0.05)
    impatient = History(tmp_path / "history.db")
    with sqlite3.connect(tmp_path / "history.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(HistoryError, match="locked"):
            impatient.record(0, [Event("a", NOTE, "b", "c", "d")])
