"""A cluster for users' tests: there when its block begins, gone when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.errors import NoSuitableWorker, PieceCancelled, StartFailed
from opencluster.testing import LocalCluster

DEADLINE_S = 30.0
PROGRAM = """
import time
from opencluster import Worker, WorkPiece

class EchoWorker(Worker):
    def perform(self, work):
        time.sleep(work.get("seconds", 0))
        return work

class BrokenWorker(Worker):
    def startup(self):
        raise RuntimeError("the camera is unplugged")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def opencluster_variables() -> dict[str, str]:
    return {n: v for n, v in os.environ.items() if n.startswith("OPENCLUSTER_")}


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(cluster: LocalCluster) -> list[int]:
    """Return all processes of a cluster."""
    status = cluster.ask_factory("status")
    return [each["pid"] for each in status["factories"] + status["entries"]]


def test_everything_is_ready_when_the_block_begins(program: Path) -> None:
    with LocalCluster({f"{program}:EchoWorker": 3}) as cluster:
        assert len(cluster.ask_factory("find", {"type": "Echo"})) == 3
        assert list(Manager().map("Echo", [WorkPiece(a=1)])) == [{"a": 1}]


def test_nothing_is_left_when_the_block_ends(program: Path) -> None:
    before = opencluster_variables()
    with LocalCluster({f"{program}:EchoWorker": 1}) as cluster:
        running = pids(cluster)
        assert len(running) == 3
        assert all(map(is_alive, running))
        assert cluster.place.logs.is_dir()
    assert not any(map(is_alive, running))
    assert not cluster.place.path.exists()
    assert opencluster_variables() == before


def test_an_error_in_the_block_ends_the_cluster_and_comes_through() -> None:
    before = opencluster_variables()
    with pytest.raises(ZeroDivisionError), LocalCluster() as cluster:
        running = pids(cluster)
        _ = 1 / 0
    assert not any(map(is_alive, running))
    assert opencluster_variables() == before


def test_settings_hold_for_the_cluster_and_for_this_process() -> None:
    settings = {"cluster.heartbeat_interval_s": 0.125, "worker.max_pieces": 5}
    with LocalCluster(settings=settings) as cluster:
        assert cluster.ask_factory("hello")["heartbeat_interval_s"] == 0.125
        assert load().worker.max_pieces == 5
    assert load().worker.max_pieces == 0


def test_a_worker_that_does_not_start_is_shown(program: Path) -> None:
    before = opencluster_variables()
    cluster = LocalCluster({f"{program}:BrokenWorker": 1})
    with pytest.raises(StartFailed, match="the camera is unplugged") as caught, cluster:
        pytest.fail("the block must not begin")
    assert "RuntimeError" in caught.value.output
    assert not cluster.place.path.exists()
    assert opencluster_variables() == before


def test_a_class_that_is_not_there_is_named(program: Path) -> None:
    cluster = LocalCluster({f"{program}:NoWorker": 1})
    with pytest.raises(StartFailed, match="has no class 'NoWorker'"), cluster:
        pytest.fail("the block must not begin")
    assert not cluster.place.path.exists()


def test_workers_need_not_be_waited_for(program: Path) -> None:
    with LocalCluster({f"{program}:BrokenWorker": 1}, wait=False) as cluster:
        assert len(cluster.ask_factory("find", {"kind": "workshop"})) == 1


def test_a_cluster_inside_another_hides_it(program: Path) -> None:
    with LocalCluster({f"{program}:EchoWorker": 1}):
        inner = LocalCluster(settings={"manager.worker_wait_s": 0.1})
        with inner, pytest.raises(NoSuitableWorker):
            Manager().get_available_workers("Echo")
        assert Manager().get_available_workers("Echo")


def test_what_is_set_outside_does_not_matter(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLUSTER_CLUSTER_FACTORIES", "192.0.2.1:9100")
    monkeypatch.setenv("OPENCLUSTER_ENGINE", "local")
    with LocalCluster({f"{program}:EchoWorker": 1}) as cluster:
        assert list(Manager().map("Echo", [WorkPiece(a=1)])) == [{"a": 1}]
        assert cluster.ask_factory("status")["jobs"]
    assert os.environ["OPENCLUSTER_ENGINE"] == "local"


def test_a_long_temporary_directory_is_no_obstacle(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with LocalCluster({f"{program}:EchoWorker": 1}) as cluster:
        assert long in cluster.place.path.parents
        assert list(Manager().map("Echo", [WorkPiece(a=1)])) == [{"a": 1}]
        sockets = cluster.place.sockets
    assert not sockets.exists()


def test_unfinished_pieces_are_given_up_at_the_end(program: Path) -> None:
    with LocalCluster({f"{program}:EchoWorker": 1}):
        future = Manager().submit("Echo", WorkPiece(seconds=60))
        queued = Manager().submit("Echo", WorkPiece())
    for each in (future, queued):
        with pytest.raises(PieceCancelled):
            each.result(DEADLINE_S)


def test_a_cluster_does_not_outlive_the_process_that_started_it(
    program: Path,
) -> None:
    script = (
        "import json, os, signal, sys\n"
        "from opencluster.testing import LocalCluster\n"
        "with LocalCluster({sys.argv[1]: 1}) as cluster:\n"
        "    status = cluster.ask_factory('status')\n"
        "    all = status['factories'] + status['entries']\n"
        "    print(json.dumps([each['pid'] for each in all]), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with tempfile.TemporaryDirectory(prefix="oc-") as directory:
        done = subprocess.run(
            [sys.executable, "-c", script, f"{program}:EchoWorker"],
            env=os.environ | {"TMPDIR": directory},
            stdout=subprocess.PIPE,
            timeout=DEADLINE_S,
        )
        assert done.returncode == -signal.SIGKILL
        running = json.loads(done.stdout)
        assert len(running) == 3
        deadline = time.monotonic() + DEADLINE_S
        while any(map(is_alive, running)):
            assert time.monotonic() < deadline, "the cluster lives on"
            time.sleep(0.02)
        assert not [path for path in Path(directory).rglob("*") if path.is_socket()]
