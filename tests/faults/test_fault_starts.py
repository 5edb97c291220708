"""Processes that do not start, and what those that do are given and limited to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_tools import (
    DEADLINE_S,
    FAST,
    entries,
    fault,
    log_of,
    perform,
    pids,
    runs,
    target,
    wait_until,
)

from opencluster import Manager, WorkPiece
from opencluster.errors import (
    NoSuitableWorker,
    PieceFailed,
    PoisonPiece,
    StartFailed,
    WorkerDied,
)
from opencluster.node.cgroup import Cgroups
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes


@contextmanager
def catalogued(
    directory: Path, text: str, failing_after: int = 2, **counts: int
) -> Iterator[LocalCluster]:
    """Run a cluster with a catalogue, from a configuration file."""
    path = directory / "config.ini"
    path.write_text(text)
    settings = {"manager.worker_wait_s": 30, "workshop.failing_after": failing_after}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENCLUSTER_CONFIG", str(path))
        with LocalCluster(counts, dict(FAST) | settings, wait=False) as here:
            yield here


def sections(*names: str, **keys: object) -> str:
    """Return a section for each of these classes."""
    lines = []
    for name in names:
        kind = "service" if name.endswith("Service") else "worker"
        short = name.removesuffix("Worker").removesuffix("Service")
        lines += [f"[{kind}:{short}]", f"target = {target(name)}"]
        lines += [f"{key.replace('__', '.')} = {value}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


# --- processes that do not start ------------------------------------------------


def test_a_worker_that_cannot_be_made_is_told_at_once_with_its_output(
    tmp_path: Path,
) -> None:
    with catalogued(tmp_path, sections("UnbornWorker")) as here:
        with pytest.raises(StartFailed) as caught:
            here.ask_workshop("scale", {"type": "Unborn", "count": 1})
        assert "Unborn-1 did not start" in str(caught.value)
        assert "exited with code 1" in str(caught.value)
        assert "looking for the calibration table" in caught.value.output
        assert "FileNotFoundError: calibration.tbl is missing" in caught.value.output
        assert "calibration.tbl is missing" in log_of(here, "Unborn-1")
        failure = wait_until(lambda: entries(here, "failure"))[0]
        assert failure["type"] == "Unborn"
        assert "calibration.tbl is missing" in failure["attributes"]["output"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("UnbornWorker", "calibration.tbl is missing"),
        ("UnreadyWorker", "no GPU to warm up"),
        ("BornInVainService", "the table of planets is empty"),
    ],
)
def test_a_type_that_fails_to_start_again_and_again_is_told_to_who_waits(
    tmp_path: Path, name: str, said: str
) -> None:
    type = name.removesuffix("Worker").removesuffix("Service")
    with catalogued(tmp_path, sections(name), **{type: 1}) as here:
        manager = Manager("cluster")
        for _ in range(2):  # the second one comes when it is known already
            with pytest.raises(NoSuitableWorker) as caught:
                if name.endswith("Service"):
                    manager.service(type).anything()
                else:
                    manager.submit(type, fault("ok")).result(DEADLINE_S)
            assert said in str(caught.value)
            assert f"{type}-1 did not start" in str(caught.value)
        failure = entries(here, "failure")[0]
        assert failure["attributes"]["failures"] >= 2
        assert failure["attributes"]["is_failing"]
        # nothing is left of the processes that were tried
        wait_until(lambda: not list(here.place.sockets.glob("w-*")))


def test_a_map_over_a_type_that_fails_to_start(tmp_path: Path) -> None:
    with catalogued(tmp_path, sections("UnbornWorker"), Unborn=2):
        manager = Manager("cluster")
        with pytest.raises(NoSuitableWorker, match="calibration"):
            list(manager.map("Unborn", [fault("ok")] * 10))
        with pytest.raises(NoSuitableWorker, match="calibration"):
            manager.get_available_workers("Unborn")


def test_a_type_that_starts_again_is_not_failing_any_more(tmp_path: Path) -> None:
    needed = tmp_path / "table"
    text = sections("OnceUnbornWorker", arg__needs=repr(str(needed)))
    with catalogued(tmp_path, text, 1, OnceUnborn=1) as here:
        failing = wait_until(lambda: entries(here, "failure"))
        assert failing[0]["attributes"]["is_failing"]
        needed.touch()
        wait_until(lambda: not entries(here, "failure"))
        assert perform(fault("ok", n=1), type="OnceUnborn")["n"] == 1


def test_a_class_that_cannot_be_imported_is_told_when_the_cluster_starts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import no_such_library\n")
    with (
        pytest.raises(StartFailed, match="No module named 'no_such_library'"),
        LocalCluster({f"{path}:Broken": 1}),
    ):
        pytest.fail("it started")


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    text = "[worker:Tool]\ncommand = no-such-program --fast\n"
    with (
        catalogued(tmp_path, text) as here,
        pytest.raises(StartFailed, match="exited with code 127") as caught,
    ):
        here.ask_workshop("scale", {"type": "Tool", "count": 1})
    assert "cannot run 'no-such-program'" in caught.value.output


# --- what a process is given ----------------------------------------------------


def test_environment_directory_arguments_and_cpus(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    cpu = max(os.sched_getaffinity(0))
    text = sections(
        "WithArgumentsWorker",
        directory="folder",
        env__OMP_NUM_THREADS="4",
        env__GREETING='"good morning "',
        arg__pixels="1024",
        arg__label="'a # b'",
        cpus=str(cpu),
    )
    with catalogued(tmp_path, text, WithArguments=1) as here:
        names = ["OMP_NUM_THREADS", "GREETING", "OPENCLUSTER_SCOREBOARD"]
        result = perform(WorkPiece(names=names), type="WithArguments")
        assert result == {
            "pixels": 1024,
            "label": "a # b",
            "directory": str(folder),
            # what the workshop hands over is not for programs of the user's
            "environment": {
                "OMP_NUM_THREADS": "4",
                "GREETING": "good morning ",
                "OPENCLUSTER_SCOREBOARD": None,
            },
            "cpus": [cpu],
        }
        assert "OMP_NUM_THREADS" not in os.environ
        assert len(pids(here, "WithArguments")) == 1


def test_a_cpu_that_is_not_there(tmp_path: Path) -> None:
    text = sections("FaultWorker", cpus="1000")
    with (
        catalogued(tmp_path, text) as here,
        pytest.raises(StartFailed) as caught,
    ):
        here.ask_workshop("scale", {"type": "Fault", "count": 1})
    assert "cannot run on CPUs [1000]" in caught.value.output


# --- memory ---------------------------------------------------------------------


def test_a_worker_that_takes_too_much_memory(tmp_path: Path) -> None:
    text = sections("FaultWorker", memory_bytes="300 MB")
    work = fault("hoard", megabytes=1000, n="a", runs=str(tmp_path / "runs"))
    is_held_by_group = can_limit_groups()
    with catalogued(tmp_path, text, Fault=1) as here:
        if is_held_by_group:
            with pytest.raises(WorkerDied) as caught:
                perform(work, retries=0)
            evidence = caught.value.evidence
            assert evidence.out_of_memory and evidence.signal == "SIGKILL"
            assert "out of memory (limit 300 MB)" in evidence.reason
            assert 250e6 < evidence.peak_memory_bytes < 350e6
            assert "out of memory (limit 300 MB)" in str(caught.value)
            log = log_of(here, "workshop")
            assert "out of memory (limit 300 MB)" in log
        else:
            with pytest.raises(PieceFailed, match="MemoryError"):
                perform(work)
        assert len(runs(tmp_path / "runs")) == 1
        # neither the workshop nor the next worker suffers
        assert perform(fault("ok", n=1))["n"] == 1
        for daemons in here.place.read().values():
            if isinstance(daemons, list):
                assert all(Path(f"/proc/{d['pid']}").exists() for d in daemons)


def test_a_piece_that_takes_too_much_memory_again_and_again(tmp_path: Path) -> None:
    text = sections("FaultWorker", memory_bytes="300 MB")
    is_held_by_group = can_limit_groups()
    with catalogued(tmp_path, text, Fault=1):
        if is_held_by_group:
            with pytest.raises(PoisonPiece) as caught:
                perform(fault("hoard", megabytes=1000))
            assert [death.out_of_memory for death in caught.value.deaths] == [True] * 3
        else:
            with pytest.raises(PieceFailed, match="MemoryError"):
                perform(fault("hoard", megabytes=1000))


def test_workers_are_killed_for_memory_before_daemons(tmp_path: Path) -> None:
    with catalogued(tmp_path, sections("FaultWorker"), Fault=1) as here:
        wait_until(lambda: pids(here))

        def score(pid: int) -> int:
            return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

        worker = score(pids(here).pop())
        for daemon in ("factories", "workshops"):
            assert score(here.place.read()[daemon][0]["pid"]) < worker


def can_limit_groups() -> bool:
    """Return whether a workshop can hold its workers' memory in control groups."""
    groups = Cgroups.detect("probe")
    return groups is not None and groups.close()
