"""Requests on a cluster: workers that are killed, the queue, the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from raw_tools import NOON_NS, coded, random_frames, save

from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.batch import UVFITSManager, UVFITSTaskDispatcher
from muser_pipeline.batch.command import parse_numbers
from muser_pipeline.cli import muser_command
from opencluster import TaskQueue, WorkPiece
from opencluster.testing import LocalCluster

COUNT = 160
END = NOON_NS + COUNT * FRAME_PERIOD_NS
WORKERS = {"muser_pipeline.batch:UVFITSWorker": 2}
DEADLINE_S = 90.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    return save(folder / "20151101-1208", coded(random_frames(1, COUNT)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(WORKERS) as here:
        yield here


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def workers_of(cluster: LocalCluster) -> set[int]:
    return {row["pid"] for row in cluster.ask_factory("find", {"kind": "worker"})}


def everything_below(folder: Path) -> dict[str, bytes]:
    """Return the files of a directory, but for those of workers that were killed."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix != ".part"
    }


@pytest.mark.processes
@pytest.mark.parametrize("kind", [{"integrate_s": 0.0125}, {"per": "band"}])
def test_workers_that_are_killed_leave_the_same_files(
    kind: dict[str, Any], cluster: LocalCluster, archive: Path, tmp_path: Path
) -> None:
    asked = {"archive": archive, "start": NOON_NS, "end": END, "integrate_s": 0.025}
    task = WorkPiece(asked | kind)
    undisturbed = tmp_path / "undisturbed"
    UVFITSManager("local").run(WorkPiece(task | {"out": undisturbed}))

    out = tmp_path / "out"
    pids = workers_of(cluster)
    assert len(pids) == 2

    def kill_all() -> None:
        wait_until(lambda: out.is_dir() and any(out.glob("*.uvfits")))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    result = UVFITSManager().run(WorkPiece(task | {"out": out}))
    killer.join()
    assert result["frames"] == COUNT
    assert everything_below(out) == everything_below(undisturbed)
    wait_until(lambda: len(now := workers_of(cluster)) == 2 and now.isdisjoint(pids))


@pytest.mark.processes
def test_a_dispatcher_that_is_killed_leaves_the_same_files(
    cluster: LocalCluster,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = WorkPiece(archive=archive, start=NOON_NS, end=END, integrate_s=0.025)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    UVFITSManager("local").run(WorkPiece(task | {"out": undisturbed}))

    monkeypatch.setenv("OPENCLUSTER_TASKQUEUE_LEASE_S", "2")
    monkeypatch.setenv("OPENCLUSTER_TASKQUEUE_POLL_INTERVAL_S", "0.1")
    monkeypatch.setenv("OPENCLUSTER_TASKQUEUE_URL", f"sqlite:///{tmp_path}/tasks.db")
    workers = workers_of(cluster)
    with TaskQueue() as queue:
        number = queue.submit(UVFITSManager, WorkPiece(task | {"out": out}))
        killed = subprocess.Popen([sys.executable, "-m", "opencluster", "dispatcher"])
        wait_until(lambda: out.is_dir() and any(out.glob("*.uvfits")))
        # so that the request cannot end before its dispatcher is killed
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        killed.kill()
        killed.wait()
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert queue.show(number).state == "running"
        assert [path.name for path in out.glob("*.json")] == ["recipe.json"]
        dispatcher = UVFITSTaskDispatcher(managers=1)

        def stop_when_done() -> None:
            with TaskQueue() as own:
                own.wait(number)
            dispatcher.stop()

        waiting = threading.Thread(target=stop_when_done)
        waiting.start()
        dispatcher.run()
        waiting.join()
        assert queue.show(number).state == "done"
        assert queue.show(number).attempt == 2
    assert everything_below(out) == everything_below(undisturbed)


@pytest.mark.processes
def test_a_request_goes_through_the_queue(
    cluster: LocalCluster, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [
        *("uvfits", "--archive", str(archive), "--out", str(out), "--band", "1-2"),
        *("--start", "2015-11-01T04:08:49", "--end", "2015-11-01T04:08:50"),
    ]
    left = CliRunner().invoke(muser_command, arguments)
    assert left.exit_code == 0, left.output
    number = int(left.stdout)
    assert f"opencluster tasks show {number}" in left.stderr
    with TaskQueue() as queue:
        queue.submit("nowhere.py:OtherManager", WorkPiece())
        dispatcher = UVFITSTaskDispatcher(until_empty=True)
        dispatcher.run()
        assert queue.show(number).state == "done", queue.show(number).error
        assert queue.counts()["queued"] == 1
        found = queue.result(number)
    assert (found["files"], found["frames"], found["missing"]) == (1, 80, 160)

    waiting = subprocess.Popen(
        [sys.executable, "-m", "opencluster", "muser", *arguments, "--wait", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with TaskQueue() as queue:
        wait_until(lambda: queue.counts()["queued"] == 2)
    UVFITSTaskDispatcher(until_empty=True).run()
    stdout, _ = waiting.communicate(timeout=DEADLINE_S)
    assert waiting.returncode == 0
    again = json.loads(stdout)
    assert again["manifest"] == found["manifest"]


def command(archive: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(
        muser_command,
        [
            *("uvfits", "--archive", str(archive), "--out", str(out), "--now"),
            *("--start", "2015-11-01T04:08:49", "--end", "2015-11-01T04:08:50"),
            *("--engine", "local", *more),
        ],
    )


def test_the_command_does_it_here(archive: Path, tmp_path: Path) -> None:
    done = command(
        archive,
        tmp_path / "out",
        *("--polarization", "LL", "--integrate", "loop", "--flag", "1,3-4"),
        *("--per", "range", "--array", "I"),
    )
    assert done.exit_code == 0, done.output
    manifest = json.loads(Path(done.stdout.strip()).read_text())
    assert "1 files of 80 frames of MUSER-I in" in done.stderr
    assert manifest["request"]["integrate_s"] is None
    assert manifest["request"]["flag_inputs"] == [1, 3, 4]
    (row,) = manifest["files"]
    assert (row["polarizations"], row["averages"]) == (["LL"], 20)


def test_what_cannot_be_read_is_said(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "20151101-1207").write_bytes(b"nothing")
    (tmp_path / "20151101-1208").symlink_to(archive)
    done = command(tmp_path, tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["unreadable"] == 1
    assert "1 raw files could not be read" in done.stderr
    empty = command(archive, tmp_path / "o", "--end", "2015-11-01T04:08:49.1")
    assert empty.exit_code == 0
    assert "no data: there are no frames of this time" in empty.stderr


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--start", "noon"], "'noon' is no time"),
        (["--end", "2015-11-01"], "end: it is not after the start"),
        (["--band", "one"], "'one' is no list such as 0,2-5"),
        (["--integrate", "a while"], "is no duration such as 25ms"),
        (["--source", "Moon"], "source: there is no source 'Moon'"),
        (["--wait"], "leave out --wait"),
        (["--array", "III"], "is not one of"),
    ],
)
def test_wrong_usage_is_explained(
    more: list[str], expected: str, archive: Path, tmp_path: Path
) -> None:
    done = command(archive, tmp_path / "out", *more)
    assert done.exit_code == 2
    assert expected in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.processes
def test_without_workers_it_is_said_how_to_start_some(
    archive: Path, tmp_path: Path
) -> None:
    with LocalCluster(settings={"manager.worker_wait_s": 0.1}) as cluster:
        assert cluster.place.path.exists()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "opencluster", "muser", "uvfits", "--now"),
                *("--archive", archive, "--out", tmp_path / "out"),
                *("--start", "2015-11-01T04:08:49", "--end", "2015-11-01T04:08:50"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "opencluster worker muser_pipeline.batch:UVFITSWorker" in done.stderr


def test_without_the_extra_it_is_said_what_to_install(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "muser_pipeline.batch.request", None)
    done = command(archive, tmp_path / "out")
    assert done.exit_code == 1
    assert "is not installed: pip install 'opencluster[muser]'" in done.stderr


def test_lists_of_numbers() -> None:
    assert parse_numbers("") == []
    assert parse_numbers("0,2-5,9") == [0, 2, 3, 4, 5, 9]
