"""Elasticity with a launcher that the test plays: no process, no net, no clock."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, cast

import pytest

from opencluster.config import Config
from opencluster.config.elastic import ElasticSettings, ElasticType
from opencluster.core.elastic_report import report_of
from opencluster.core.elasticity import Allocate
from opencluster.elastic.daemon import Elastic
from opencluster.elastic.keeper import Keeper, told
from opencluster.elastic.means import Jobs
from opencluster.elastic.memory import Memory
from opencluster.errors import ConfigError, FactoryUnreachable, LaunchFailed
from opencluster.launchers.base import Allocation
from opencluster.net.control import Control
from opencluster.place import Place


class AtOnce(Executor):
    """Does everything when it is asked for."""

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class FakeQueue:
    """A batch system."""

    def __init__(self) -> None:
        self.jobs = {"1": Allocation("1", "running", 1)}
        self.count = 1
        self.removed: list[str] = []
        self.refusal = ""
        self.is_mute = False

    def allocations(self) -> list[Allocation]:
        if self.is_mute:
            raise LaunchFailed("squeue does not answer")
        return list(self.jobs.values())

    def add(self, nodes: int) -> list[str]:
        assert nodes == 1
        if self.refusal:
            raise LaunchFailed(self.refusal, "sbatch: error: QOSMaxSubmit")
        self.count += 1
        id = str(self.count)
        self.jobs[id] = Allocation(id, "pending", 1)
        return [id]

    def remove(self, id: str) -> None:
        self.removed.append(id)
        del self.jobs[id]

    def describe(self) -> str:
        raise AssertionError

    launch = take_down = cast(Any, describe)


class FakeFactory:
    """A cluster as a factory tells of it, where jobs come to work when they run."""

    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue
        self.pieces = 0
        self.busy: set[str] = set()
        self.rows: dict[str, dict[str, Any]] = {}
        self.orders: dict[str, Any] = {}
        self.is_away = False

    def factory(
        self, operation: str, arguments: Any = None, timeout_s: float | None = None
    ) -> Any:
        if self.is_away:
            raise FactoryUnreachable("nobody leads")
        if operation == "job":
            row = arguments["job"]
            self.rows[row["id"]] = row
            return {"orders": self.orders, "expected": []}
        assert operation == "status"
        entries, figures = [], {}
        for job in self.queue.jobs.values():
            if job.state == "running":
                shop = f"n.{job.id}"
                entries.append(_entry("workshop", "", shop, shop, ""))
                for number in (1, 2):
                    id = f"{shop}:{number}"
                    entries.append(_entry("worker", "T", f"T-{number}", id, shop))
                    state = "busy" if job.id in self.busy else "idle"
                    figures[id] = {"state": state, "pieces_done": 0}
        work = {"id": "m", "state": "running", "queued": {"T": [self.pieces, 60.0]}}
        jobs = [work, *self.rows.values()]
        return {"entries": entries, "figures": figures, "jobs": jobs}


def _entry(kind: str, type: str, name: str, id: str, shop: str) -> dict[str, Any]:
    entry = {"kind": kind, "type": type, "name": name, "id": id, "workshop": shop}
    return entry | {"attributes": {}}


class Site:
    """Looks after one type, of which a job brings two workers."""

    def __init__(self, place: Place, **settings: Any) -> None:
        self.queue = FakeQueue()
        self.factory = FakeFactory(self.queue)
        self.place = place
        self.now = 1000.0
        limits = {"failures": 2, "backoff_s": 20.0, "rise_s": 5.0} | settings
        self.config = Config(
            elastic=ElasticSettings(**limits),
            elastic_types=(ElasticType("T", 0, 20, 60.0),),
        )
        self.keeper = self.begin()

    def begin(self) -> Keeper:
        """Return one that looks after the type."""
        queue, control = cast(Any, self.queue), cast(Control, self.factory)
        means = Jobs(queue, {"T": 2}, self.config, AtOnce())
        return Keeper(self.config, self.place, control, means)

    def pass_time(self, seconds: int) -> None:
        """Let it look once a second."""
        for _ in range(seconds):
            self.now += 1.0
            self.keeper.look(self.now)

    def row(self) -> dict[str, Any]:
        (type,) = self.keeper.report["types"]
        return dict(type)

    def run_all(self) -> None:
        for id in self.queue.jobs:
            self.queue.jobs[id] = Allocation(id, "running", 1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(Place(tmp_path / "c"))


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "opencluster.elastic"):
        yield


def test_jobs_are_submitted_for_the_work_that_waits_and_given_back(site: Site) -> None:
    site.pass_time(1)
    assert site.row()["running"] == 2
    site.factory.pieces, site.factory.busy = 8, {"1"}
    site.pass_time(6)
    # eight minutes of work want eight workers: three jobs more, at most as many again
    assert list(site.queue.jobs) == ["1", "2"]
    assert (site.row()["state"], site.row()["wanted"]) == ("growing", 4)
    site.pass_time(1)
    assert site.row()["coming"] == 2
    site.pass_time(5)
    assert list(site.queue.jobs) == ["1", "2", "3", "4"]
    # what waits in the queue for an hour brings no more jobs
    site.pass_time(3600)
    assert list(site.queue.jobs) == ["1", "2", "3", "4"]
    site.run_all()
    site.factory.busy = {"1", "2", "3", "4"}
    site.pass_time(60)
    assert site.row()["running"] == 8
    site.factory.pieces, site.factory.busy = 0, {"1"}
    site.pass_time(60)
    assert site.queue.removed == []
    site.pass_time(180)
    # the first is not ours, and busy
    assert site.queue.removed == ["4", "3"]
    assert list(site.queue.jobs) == ["1", "2"]


def test_a_queue_that_refuses_is_left_alone_after_some_tries(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.queue.refusal = "sbatch refused"
    site.factory.pieces, site.factory.busy = 80, {"1"}
    site.pass_time(3600)
    assert site.row()["state"] == "stopped"
    assert "sbatch refused (sbatch: error: QOSMaxSubmit)" in site.row()["reason"]
    halts = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    (halt,) = halts
    assert "then run `opencluster elastic resume`" in halt
    site.queue.refusal = ""
    site.pass_time(60)
    assert list(site.queue.jobs) == ["1"]
    site.factory.orders = {"resume": {"at": 5.0, "by": "ann"}}
    site.pass_time(2)
    assert list(site.queue.jobs) == ["1", "2"]
    # the same order means nothing more
    site.queue.refusal = "again"
    site.pass_time(3600)
    assert site.row()["state"] == "stopped"


def test_while_the_queue_does_not_answer_nothing_is_launched(site: Site) -> None:
    site.queue.is_mute = True
    site.factory.pieces = 80
    site.pass_time(100)
    assert list(site.queue.jobs) == ["1"]
    assert "the batch system cannot be asked" in site.row()["reason"]
    site.queue.is_mute = False
    site.pass_time(30)
    assert len(site.queue.jobs) > 1


def test_a_job_of_which_nobody_comes_to_work_is_given_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.factory.pieces, site.factory.busy = 4, {"1"}
    site.pass_time(7)
    assert list(site.queue.jobs) == ["1", "2"]

    def entries_of_the_first_alone(*given: Any) -> Any:
        answer = FakeFactory.factory(site.factory, *given)
        if given[0] == "status":
            shop = [e for e in answer["entries"] if "n.1" in (e["id"], e["workshop"])]
            answer["entries"] = shop
        return answer

    site.run_all()
    monkeypatch.setattr(site.factory, "factory", entries_of_the_first_alone)
    site.pass_time(330)
    assert site.queue.removed[0] == "2"


def test_jobs_that_die_as_soon_as_they_are_at_work_are_no_endless_chain(
    site: Site,
) -> None:
    site.factory.pieces, site.factory.busy = 80, {"1"}
    born: dict[str, float] = {}
    for _ in range(3600):
        for id in [id for id in site.queue.jobs if id != "1"]:
            age_s = site.now - born.setdefault(id, site.now)
            if age_s == 3.0:
                site.queue.jobs[id] = Allocation(id, "running", 1)
            elif age_s == 8.0:
                del site.queue.jobs[id]
        site.pass_time(1)
    assert site.row()["state"] == "stopped"
    assert "ended, but was not given back: job" in site.row()["reason"]
    assert site.queue.count < 10


def test_a_stop_holds_for_whoever_comes_after_one_that_was_killed(site: Site) -> None:
    site.queue.refusal = "sbatch refused"
    site.factory.pieces, site.factory.busy = 80, {"1"}
    site.pass_time(180)
    assert site.row()["state"] == "stopped"
    site.queue.refusal = ""
    site.factory.rows.clear()
    site.keeper = site.begin()
    site.pass_time(600)
    assert (site.row()["state"], list(site.queue.jobs)) == ("stopped", ["1"])
    Memory(site.place).forgive()
    site.factory.rows.clear()
    site.keeper = site.begin()
    site.pass_time(10)
    assert "2" in site.queue.jobs


def test_a_launch_is_noted_before_it_is_carried_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []

    def killed(nodes: int) -> list[str]:
        path = site.place.path / "elastic.json"
        noted.append(len(json.loads(path.read_text())["launches"]))
        raise SystemExit

    monkeypatch.setattr(site.queue, "add", killed)
    site.factory.pieces, site.factory.busy = 80, {"1"}
    with pytest.raises(SystemExit):
        site.pass_time(20)
    assert noted == [1]


def test_what_cannot_be_given_back_now_is_given_back_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.factory.pieces, site.factory.busy = 8, {"1"}
    site.pass_time(60)
    site.run_all()
    site.factory.busy = set(site.queue.jobs)
    site.pass_time(60)
    remove = site.queue.remove

    def fail(id: str) -> None:
        raise LaunchFailed("squeue does not answer")

    monkeypatch.setattr(site.queue, "remove", fail)
    site.factory.pieces, site.factory.busy = 0, {"1"}
    site.pass_time(600)
    assert list(site.queue.jobs) == ["1", "2", "3", "4"]
    monkeypatch.setattr(site.queue, "remove", remove)
    site.pass_time(600)
    assert list(site.queue.jobs) == ["1", "2"]


def test_a_job_is_given_back_though_who_did_it_was_killed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.factory.pieces, site.factory.busy = 4, {"1"}
    site.pass_time(10)
    site.run_all()
    site.pass_time(70)
    remove = site.queue.remove
    monkeypatch.setattr(site.queue, "remove", lambda id: None)
    site.factory.pieces, site.factory.busy = 0, set()
    site.pass_time(100)
    assert list(site.queue.jobs) == ["1", "2"]
    monkeypatch.setattr(site.queue, "remove", remove)
    site.factory.rows.clear()
    site.keeper = site.begin()
    site.pass_time(1)
    assert site.queue.removed == ["2"]


def test_what_was_given_back_before_a_restart_is_no_failure(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.factory.pieces, site.factory.busy = 4, {"1"}
    site.pass_time(10)
    site.run_all()
    site.pass_time(70)
    site.factory.pieces, site.factory.busy = 0, set()
    while not site.queue.removed:
        site.pass_time(1)
    caplog.clear()
    site.factory.rows.clear()
    site.keeper = site.begin()
    site.pass_time(5)
    assert site.queue.removed == ["2"]
    assert [r.message for r in caplog.records if r.levelno > logging.INFO] == []


def test_what_is_given_back_stands_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(Place(tmp_path / "c"), allocations=3)
    site.factory.pieces, site.factory.busy = 80, {"1"}
    site.pass_time(40)
    assert list(site.queue.jobs) == ["1", "2", "3", "4"]
    site.run_all()
    site.pass_time(70)
    # those that are given back have long pieces in hand
    monkeypatch.setattr(site.queue, "remove", site.queue.removed.append)
    site.factory.pieces = 0
    site.pass_time(200)
    assert site.queue.removed == ["4", "3"]
    site.factory.pieces = 80
    site.pass_time(60)
    assert list(site.queue.jobs) == ["1", "2", "3", "4"]
    assert "3 allocations may stand or wait at a time" in site.row()["reason"]
    del site.queue.jobs["4"]
    site.pass_time(60)
    assert list(site.queue.jobs) == ["1", "2", "3", "5"]


def test_a_job_that_ends_soon_is_replaced_before(site: Site) -> None:
    site.factory.pieces, site.factory.busy = 2, {"1"}
    site.pass_time(60)
    assert list(site.queue.jobs) == ["1"]
    soon = 1.0
    site.queue.jobs["1"] = Allocation("1", "running", 1, ends_at=soon)
    site.pass_time(11)
    assert list(site.queue.jobs) == ["1", "2"]


def test_after_a_restart_jobs_and_launches_are_known(site: Site) -> None:
    site.factory.pieces, site.factory.busy = 80, {"1"}
    site.pass_time(1000)
    before = len(site.queue.jobs)
    assert before == 10
    site.keeper.end()
    assert list(site.factory.rows.values())[-1]["state"] == "done"
    noted = json.loads((site.place.path / "elastic.json").read_text())
    assert noted["means"]["own"] == [str(n) for n in range(2, before + 1)]
    site.keeper = site.begin()
    site.run_all()
    site.factory.pieces, site.factory.busy = 0, set()
    site.pass_time(3600)
    # all but the one that was not asked for here
    assert list(site.queue.jobs) == ["1"]


def test_of_two_the_one_that_began_first_is_at_work(site: Site) -> None:
    site.pass_time(1)
    site.factory.rows["senior"] = report_of("senior", 1.0, (), host="n", pid=7)
    site.factory.pieces = 80
    site.pass_time(60)
    assert list(site.queue.jobs) == ["1"]
    site.factory.rows["senior"]["state"] = "lost"
    site.pass_time(60)
    assert len(site.queue.jobs) > 1


def test_a_cluster_that_is_away_is_waited_for(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.factory.is_away = True
    site.factory.pieces = 80
    site.pass_time(50)
    told = [r for r in caplog.records if "cannot be looked at" in r.getMessage()]
    assert len(told) == 1
    site.factory.is_away = False
    site.pass_time(50)
    assert len(site.queue.jobs) > 1


def test_it_ends_when_all_jobs_of_the_cluster_have(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.pass_time(20)
    site.factory.is_away = True
    # a silent queue, a job that waits and one whose computer is cut off are no end
    site.queue.is_mute = True
    site.pass_time(300)
    site.queue.is_mute = False
    site.queue.jobs = {"1": Allocation("1", "pending", 1)}
    site.pass_time(300)
    site.run_all()
    site.pass_time(300)
    assert not site.keeper.is_over
    # nor is that the queue is empty for a moment
    site.queue.jobs.clear()
    site.pass_time(100)
    site.queue.jobs["1"] = Allocation("1", "running", 1)
    site.pass_time(60)
    site.queue.jobs.clear()
    site.pass_time(100)
    site.queue.is_mute = True
    site.pass_time(60)
    site.queue.is_mute = False
    site.pass_time(100)
    assert not site.keeper.is_over
    # nor that a directory is away with all that is noted in it
    site.place.path.rename(tmp_path / "elsewhere")
    site.pass_time(60)
    (tmp_path / "elsewhere").rename(site.place.path)
    site.pass_time(100)
    assert not site.keeper.is_over
    site.pass_time(60)
    assert site.keeper.is_over
    told = [r.getMessage() for r in caplog.records if "has ended" in r.getMessage()]
    (line,) = told
    assert f"the cluster of {site.place.path} has ended: no factory answers" in line
    # so does the daemon that has it look
    closed: list[bool] = []
    Elastic(site.config, site.keeper, lambda: closed.append(True)).run()
    assert closed == [True]


def test_a_cluster_that_answers_has_not_ended_whatever_the_queue_says(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.queue, "allocations", lambda: [])
    site.pass_time(300)
    site.factory.is_away = True
    site.pass_time(100)
    site.factory.is_away = False
    site.pass_time(20)
    site.factory.is_away = True
    site.pass_time(100)
    assert not site.keeper.is_over


@pytest.mark.parametrize(("count", "jobs"), [(1, "1 more job"), (2, "2 more jobs")])
def test_launches_are_told_in_a_line(count: int, jobs: str) -> None:
    line = f"{jobs} of the batch system, since T: 4 pieces wait"
    assert told(Allocate(count, "T: 4 pieces wait")) == line


def test_without_an_elastic_type_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write a section"):
        Keeper(Config(), Place(tmp_path), cast(Any, None), cast(Any, None))
