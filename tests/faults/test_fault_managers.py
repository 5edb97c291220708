"""Managers that end, that wait in vain, and that have more work than memory."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_tools import (
    DEADLINE_S,
    HERE,
    all_idle,
    cluster,
    fault,
    figures,
    peak_bytes,
    perform,
    pids,
    runs,
    wait_until,
)

from opencluster import Manager, WorkPiece
from opencluster.errors import NoSuitableWorker, PieceCancelled
from opencluster.testing import LocalCluster

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("here")]

BUFFER_BYTES = 16_000_000
WINDOW = 200


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    settings = {
        "manager.buffer_bytes": BUFFER_BYTES,
        "manager.window": WINDOW,
        "manager.worker_wait_s": 1.5,
        "cluster.lease_s": 3,
    }
    with cluster(settings, FaultWorker=2) as here:
        yield here


@pytest.fixture
def both(here: LocalCluster) -> set[int]:
    """Both worker processes, which have nothing to do."""
    wait_until(lambda: all_idle(here, 2), "two idle workers")
    return pids(here)


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a function of ``fault_programs.py`` in a process of its own."""
    program = [sys.executable, str(HERE / "fault_programs.py"), *arguments]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_first_run(process: subprocess.Popen[str], path: Path) -> None:
    """Wait until the first piece of a program runs."""
    wait_until(lambda: runs(path) or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]


def output_of(*arguments: str) -> dict[str, int]:
    """Run a function of ``fault_programs.py``, and return what it printed."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    printed: dict[str, int] = json.loads(out)
    return printed


# --- managers that end ----------------------------------------------------------


@pytest.mark.parametrize("program", ["map", "perform", "pool"])
def test_ctrl_c_ends_a_manager_and_frees_its_workers(
    here: LocalCluster, both: set[int], tmp_path: Path, program: str
) -> None:
    path = tmp_path / "runs"
    with start(program, str(path)) as process:
        wait_for_first_run(process, path)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_S)
    # as Python ends after Ctrl-C
    assert process.returncode in (-signal.SIGINT, 130), err
    assert err.count("Traceback") == 1 and "KeyboardInterrupt" in err
    wait_until(lambda: all_idle(here, 2), "the workers are free again")
    assert perform(fault("ok"))["pid"] in both
    # what was queued was dropped with what was running
    assert len(runs(path)) <= 2
    assert pids(here) == both


@pytest.mark.parametrize("program", ["map", "perform"])
def test_a_killed_manager_frees_its_workers(
    here: LocalCluster, both: set[int], tmp_path: Path, program: str
) -> None:
    path = tmp_path / "runs"
    with start(program, str(path)) as process:
        wait_for_first_run(process, path)
        process.kill()
        process.communicate(timeout=DEADLINE_S)
    wait_until(lambda: all_idle(here, 2), "the workers are free again")
    assert perform(fault("ok"))["pid"] in both
    assert len(runs(path)) <= 2
    assert pids(here) == both


@pytest.mark.parametrize("way", ["ctrl-c", "kill"])
def test_the_job_of_a_manager_that_ended_is_known_not_to_run(
    here: LocalCluster, both: set[int], tmp_path: Path, way: str
) -> None:
    path = tmp_path / "runs"

    def jobs() -> dict[str, str]:
        found = here.ask_factory("status")["jobs"]
        return {j["id"]: j["state"] for j in found if j["name"] == "SlowManager"}

    before = set(jobs())
    with start("map", str(path)) as process:
        new = wait_until(lambda: set(jobs()) - before, "the job is reported")
        wait_for_first_run(process, path)
        assert jobs()[min(new)] == "running"
        os.kill(process.pid, signal.SIGINT if way == "ctrl-c" else signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
    ended = {"ctrl-c": "failed", "kill": "lost"}[way]
    wait_until(lambda: jobs()[min(new)] == ended, f"the job is {ended}")


# --- no worker, and new ones ----------------------------------------------------


def test_no_worker_of_the_type_is_told_with_the_types_that_are_here() -> None:
    with pytest.raises(NoSuitableWorker) as caught:
        perform(fault("ok"), type="Imaging")
    assert "no worker of type 'Imaging'" in str(caught.value)
    assert "Fault (2)" in str(caught.value)
    assert "--type Imaging" in str(caught.value)


def test_no_worker_of_the_type_for_a_map_and_for_a_handle() -> None:
    manager = Manager("cluster")
    with pytest.raises(NoSuitableWorker, match=r"Fault \(2\)"):
        list(manager.map("Imaging", [fault("ok")]))
    with pytest.raises(NoSuitableWorker, match=r"Fault \(2\)"):
        manager.get_available_workers("Imaging")


def test_while_there_is_no_worker_somebody_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future = Manager("cluster").submit("Imaging", fault("ok"))
    wait_until(lambda: "wait for a worker of type 'Imaging'" in caplog.text)
    assert "here are: Fault (2)" in caplog.text
    assert not future.done()
    future.cancel()
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)


def test_a_worker_that_comes_while_a_map_runs_is_used(
    here: LocalCluster, both: set[int]
) -> None:
    results: list[WorkPiece] = []
    pieces = (fault("sleep", s=0.01, n=n) for n in itertools.count())
    manager = Manager("cluster")
    asked = False
    try:
        for result in manager.map("Fault", pieces):
            results.append(result)
            if len(results) > 10 and not asked:
                here.ask_workshop("scale", {"type": "Fault", "count": 3})
                asked = True
            if result["pid"] not in both:
                break
            assert len(results) < 5000, "the new worker got nothing"
    finally:
        here.ask_workshop("scale", {"type": "Fault", "count": 2})
        wait_until(lambda: len(pids(here)) == 2)
    assert [result["n"] for result in results] == list(range(len(results)))


def test_a_type_whose_first_worker_comes_later_is_waited_for(
    here: LocalCluster,
) -> None:
    future = Manager("cluster").submit("Other", fault("ok", n=1))
    entry = {"kind": "worker", "name": "Other"}
    entry["target"] = str(HERE / "fault_workers.py") + ":OtherWorker"
    here.ask_workshop("start", {"entry": entry, "count": 1})
    assert future.result(DEADLINE_S)["n"] == 1
    assert future.result()["pid"] in pids(here, "Other")


# --- more work than memory ------------------------------------------------------


def test_large_pieces_do_not_pile_up(here: LocalCluster, both: set[int]) -> None:
    before = {pid: peak_bytes(pid) for pid in both}
    printed = output_of("large", "1000")
    assert printed["is_right"]
    # a thousand megabytes went through a buffer of sixteen
    assert printed["grown_bytes"] < 3 * BUFFER_BYTES
    for pid, bytes_before in before.items():
        assert peak_bytes(pid) - bytes_before < 3 * BUFFER_BYTES


def test_large_results_do_not_pile_up(here: LocalCluster, both: set[int]) -> None:
    printed = output_of("large_results", "1000")
    assert printed["is_right"]
    assert printed["grown_bytes"] < 5 * BUFFER_BYTES


def test_an_endless_iterable_is_read_as_results_are_taken(
    here: LocalCluster, both: set[int]
) -> None:
    printed = output_of("endless", "500")
    assert printed["last"] == 500
    assert printed["read"] <= 501 + WINDOW
    wait_until(lambda: all_idle(here, 2), "the workers are free again")


def test_leaving_a_map_cancels_the_rest(both: set[int], tmp_path: Path) -> None:
    path = tmp_path / "runs"
    pieces = [fault("sleep", s=0.05, n=n, runs=str(path)) for n in range(50)]
    for result in Manager("cluster").map("Fault", pieces):
        if result["n"] == 3:
            break
    assert perform(fault("ok"))["pid"] in both
    assert len(runs(path)) < 15


def test_the_pieces_of_a_worker_are_counted_in_its_status(
    here: LocalCluster, both: set[int]
) -> None:
    def done() -> int:
        return sum(figures(here, pid).get("pieces_done", 0) for pid in both)

    before = done()
    list(Manager("cluster").map("Fault", [fault("ok")] * 30))
    wait_until(lambda: done() >= before + 30)
