"""One look serves everybody, and what is seen is kept."""

from __future__ import annotations

import copy
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opencluster.core.sampling import CLUSTER
from opencluster.errors import FactoryUnreachable
from opencluster.observe import watcher as watching
from opencluster.observe.status import status_of
from opencluster.observe.watcher import Status, Watcher
from opencluster.store.history import History

WAIT_S = 30.0


class Cluster:
    """A cluster that stands as a test says."""

    def __init__(self) -> None:
        entry = {"kind": "workshop", "type": "", "name": "node1", "host": "node1"}
        entry |= {"id": "shop", "pid": 1, "endpoints": [], "attributes": {}}
        entry |= {"workshop": ""}
        worker = entry | {"kind": "worker", "type": "Fit", "name": "Fit-1", "id": "w"}
        self.status = status_of({"entries": [entry, worker | {"workshop": "shop"}]})
        self.looks = 0
        self.error: Exception | None = None

    def look(self) -> Status:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return copy.deepcopy(self.status)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db")


@pytest.fixture
def watcher(cluster: Cluster, history: History) -> Iterator[Watcher]:
    made = Watcher(cluster.look, history, interval_s=0.01)
    made.start()
    yield made
    made.close()


def seen(watcher: Watcher) -> watching.View:
    """Return a look that began after this was called."""
    return watcher.wait(watcher.view.number + 1, WAIT_S)


def test_everybody_is_woken_by_the_same_look(
    watcher: Watcher, cluster: Cluster
) -> None:
    views: list[watching.View] = []
    threads = [
        threading.Thread(target=lambda: views.append(watcher.wait(0, WAIT_S)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(views) == 20
    assert all(view.status == cluster.status for view in views)


def test_a_cluster_that_is_gone_leaves_what_was_seen_last(
    watcher: Watcher, cluster: Cluster
) -> None:
    before = seen(watcher)
    cluster.error = FactoryUnreachable("no factory answers")
    view = seen(watcher)
    assert (view.error, view.status) == ("no factory answers", before.status)
    assert before.at <= view.at
    cluster.error = None
    assert seen(watcher).error == ""


def test_what_happens_is_kept(
    watcher: Watcher, cluster: Cluster, history: History
) -> None:
    seen(watcher)
    cluster.status["workers"][0]["state"] = "lost"
    cluster.status["jobs"] = [
        {"id": "1", "name": "J", "state": "done", "started_at": 1.0, "ended_at": 2.0}
        | {"pieces_done": 3, "pieces_submitted": 3}
    ]
    seen(watcher)
    seen(watcher)
    kinds = [each.event.kind for each in history.events()]
    assert sorted(kinds) == ["job-done", "worker-lost"]
    assert [job["id"] for job in history.jobs()] == ["1"]
    view = watcher.view
    found: dict[str, Any] = history.samples(CLUSTER, 0, view.at + 10)
    assert found["at"] == () or found["workers"][0] == 1
    fine = history.samples("node1", view.at - 60, view.at + 10)
    assert list(fine["workers"]) == [1]


def test_a_history_that_fails_does_not_keep_anybody_from_looking(
    watcher: Watcher,
    cluster: Cluster,
    history: History,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen(watcher)
    with sqlite3.connect(history.path) as other:
        other.execute("DROP TABLE opencluster_events")
    cluster.status["workers"][0]["state"] = "lost"
    view = seen(watcher)
    cluster.status["workers"][0]["state"] = "idle"
    view = seen(watcher)
    assert view.error == ""
    assert caplog.text.count("what happens is not kept") == 1


def test_closing_wakes_who_waits(cluster: Cluster) -> None:
    made = Watcher(cluster.look, interval_s=WAIT_S)
    made.start()
    number = made.wait(0, WAIT_S).number
    woken: list[watching.View] = []
    waiting = threading.Thread(target=lambda: woken.append(made.wait(number, WAIT_S)))
    waiting.start()
    made.close()
    waiting.join()
    assert woken[0].number == number
