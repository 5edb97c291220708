"""Real workers that come and go with the work, by the commands of docs/elastic.md."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from elastic_programs import NapManager

from opencluster import Manager, WorkPiece
from opencluster.cli import main
from opencluster.elastic.daemon import Elastic
from opencluster.elastic.running import elastic_of, settings_for
from opencluster.errors import NoSuitableWorker
from opencluster.observe.status import status_of
from opencluster.testing import LocalCluster

PROGRAM = Path(__file__).with_name("elastic_programs.py")
DEADLINE_S = 30.0
SETTINGS = {
    "cluster.heartbeat_interval_s": 0.1,
    "workshop.poll_interval_s": 0.05,
    "workshop.failing_after": 2,
    "workshop.restart_delay_s": 0.05,
    "workshop.restart_delay_max_s": 0.1,
    "manager.worker_wait_s": 2.0,
    "elastic.interval_s": 0.1,
    "elastic.rise_s": 0.2,
    "elastic.cooldown_s": 0.5,
    "elastic.first_step": 2,
    "elastic.launches_per_minute": 100,
    "elastic.failures": 2,
    "elastic.backoff_s": 0.2,
}
TYPES = """
[elastic:Nap]
maximum = 3
target_s = 0.2
[elastic:Broken]
maximum = 2
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Return a cluster whose workshop could run workers, and runs none."""
    path = tmp_path_factory.mktemp("elastic") / "config.ini"
    path.write_text(TYPES)
    workers = {f"{PROGRAM}:NapWorker": 0, f"{PROGRAM}:BrokenWorker": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENCLUSTER_CONFIG", str(path))
        with LocalCluster(workers, SETTINGS) as running:
            yield running


@pytest.fixture(scope="module")
def elastic(cluster: LocalCluster) -> Iterator[Elastic]:
    """Return what looks after the elastic types, in a thread of this process."""
    made = elastic_of(settings_for(cluster.place), cluster.place)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join()


class Cluster:
    """What the tests look at."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def status(self) -> dict[str, list[dict[str, Any]]]:
        return status_of(self._cluster.ask_factory("status"))

    def row(self, type: str) -> dict[str, Any]:
        found = [row for row in self.status()["elastic"] if row["type"] == type]
        return found[0] if found else {"state": ""}

    def naps(self) -> int:
        workers = self.status()["workers"]
        return sum(w["type"] == "Nap" and w["state"] != "draining" for w in workers)

    def wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.05)


@pytest.fixture
def seen(cluster: LocalCluster, elastic: Elastic) -> Cluster:
    made = Cluster(cluster)
    made.wait(lambda: made.row("Nap")["state"] != "")
    return made


def test_workers_come_with_the_work_and_go_without_it(
    seen: Cluster, tmp_path: Path
) -> None:
    seen.wait(lambda: seen.naps() == 0)
    task = WorkPiece(until=str(tmp_path / "morning"), count=40)
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(NapManager().run, task)
        try:
            # pieces count that a map has not handed in
            seen.wait(lambda: seen.row("Nap")["pieces"] == 40)
            seen.wait(lambda: seen.naps() == 3)
        finally:
            (tmp_path / "morning").touch()
        assert len(done.result(DEADLINE_S)["pids"]) == 3
    seen.wait(lambda: seen.naps() == 0)
    rest = {"running": 0, "wanted": 0, "state": "steady", "reason": "nothing waits"}
    seen.wait(lambda: seen.row("Nap").items() >= rest.items())


def test_who_asks_for_workers_gets_them(seen: Cluster) -> None:
    manager = Manager()
    (handle, *_) = manager.get_available_workers("Nap")
    assert handle.submit(WorkPiece(until="/")).result(DEADLINE_S)["pid"]


def test_a_worker_stays_that_keeps_what_somebody_refers_to(seen: Cluster) -> None:
    manager = Manager()
    pieces = [WorkPiece(until="/")] * 6
    refs = list(manager.map("Nap", pieces, keep=True))
    seen.wait(lambda: "workers keep values" in seen.row("Nap")["reason"])
    seen.wait(lambda: seen.row("Nap")["state"] == "steady" and seen.naps() == 1)
    assert len(manager.gather(refs)) == 6
    manager.release(refs)
    seen.wait(lambda: seen.naps() == 0)


def test_a_type_that_does_not_start_stops_loudly_until_somebody_resumes(
    seen: Cluster, cluster: LocalCluster
) -> None:
    manager = Manager()
    future = manager.submit("Broken", WorkPiece(number=7))
    seen.wait(lambda: seen.row("Broken")["state"] == "stopped")
    assert "launching failed 2 times in a row" in seen.row("Broken")["reason"]
    # nobody will come, and so nobody waits
    with pytest.raises(NoSuitableWorker, match="the instrument is not there") as caught:
        future.result(DEADLINE_S)
    assert "see `opencluster elastic status`" in str(caught.value)
    runner = CliRunner()
    told = runner.invoke(main, ["elastic", "status"])
    assert told.exit_code == 0
    assert "stopped until `opencluster elastic resume`" in " ".join(told.stdout.split())
    (cluster.place.path / "mended").touch()
    told = runner.invoke(main, ["elastic", "resume"])
    assert told.exit_code == 0
    assert "Broken: launched again" in told.stderr

    def is_performed() -> bool:
        # the manager hears of it with its next report
        with suppress(NoSuitableWorker):
            work = manager.submit("Broken", WorkPiece(number=8))
            return bool(work.result(DEADLINE_S)["number"] == 8)
        return False

    seen.wait(is_performed)
