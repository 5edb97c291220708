"""What ``perform()`` may do wrong, and what becomes of the piece and of the worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_tools import (
    DEADLINE_S,
    cluster,
    counts,
    fault,
    is_running,
    log_of,
    peak_bytes,
    perform,
    pids,
    runs,
    wait_until,
)

from opencluster import Manager
from opencluster.errors import LocalProtocolError, PieceFailed, PoisonPiece, WorkerDied
from opencluster.testing import LocalCluster

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("here")]

LOG_BYTES, LOG_FILES = 1_000_000, 2


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    settings = {"workshop.log_bytes": LOG_BYTES, "workshop.log_files": LOG_FILES}
    with cluster(settings, FaultWorker=2) as here:
        yield here


@pytest.fixture
def living(here: LocalCluster) -> Iterator[set[int]]:
    """Both worker processes, which must be the same ones after the test."""
    before = wait_until(lambda: len(pids(here)) == 2 and pids(here))
    yield before
    assert pids(here) == before
    assert all(map(is_running, before))


# --- exceptions and results ---------------------------------------------------


def test_what_perform_raises_arrives_with_the_users_own_lines(living: set[int]) -> None:
    with pytest.raises(PieceFailed) as caught:
        perform(fault("raise"))
    error = caught.value
    assert error.exception_type == "ValueError"
    assert error.message == "the sky is falling"
    assert error.worker.startswith("Fault-")
    trace = error.remote_traceback
    assert "fault_workers.py" in trace and "in do_raise" in trace
    assert 'raise ValueError("the sky is falling")' in trace
    assert "opencluster/worker.py" not in trace
    assert "in do_raise" in str(error)


def test_error_retries_run_the_piece_again(living: set[int], tmp_path: Path) -> None:
    work = fault("raise_at_first", times=2, n="a", runs=str(tmp_path / "runs"))
    assert perform(work, error_retries=2)["n"] == "a"
    assert counts(tmp_path / "runs") == {"a": 3}


def test_error_retries_are_limited(living: set[int], tmp_path: Path) -> None:
    work = fault("raise_at_first", times=9, n="a", runs=str(tmp_path / "runs"))
    with pytest.raises(PieceFailed, match="ConnectionError: run 3"):
        perform(work, error_retries=2)
    assert counts(tmp_path / "runs") == {"a": 3}


@pytest.mark.parametrize(("value", "name"), [(None, "NoneType"), ({"a": 1}, "dict")])
def test_a_result_that_is_no_workpiece(
    living: set[int], value: object, name: str
) -> None:
    with pytest.raises(PieceFailed) as caught:
        perform(fault("return", value=value))
    assert caught.value.exception_type == "TypeError"
    assert f"must return a WorkPiece, not {name}" in caught.value.message


def test_a_result_that_cannot_be_sent(living: set[int]) -> None:
    with pytest.raises(PieceFailed) as caught:
        perform(fault("return_unsendable"))
    assert caught.value.exception_type == "LocalProtocolError"
    assert 'result["image"]["bad"][1]' in caught.value.message


def test_a_piece_that_cannot_be_sent_is_refused_at_submit(living: set[int]) -> None:
    work = fault("ok", image={"bad": [1, object()]})
    with pytest.raises(LocalProtocolError, match=r'piece\["image"\]\["bad"\]\[1\]'):
        Manager("cluster").submit("Fault", work)


def test_a_map_with_a_piece_that_cannot_be_sent(living: set[int]) -> None:
    pieces = [fault("ok", n=0), fault("ok", n=object())]
    with pytest.raises(LocalProtocolError, match=r'piece\["n"\]'):
        list(Manager("cluster").map("Fault", pieces))


def test_what_is_no_workpiece_is_refused_at_submit(living: set[int]) -> None:
    with pytest.raises(TypeError, match="must be a WorkPiece, not dict"):
        Manager("cluster").submit("Fault", {"do": "ok"})  # type: ignore[arg-type]


def test_sys_exit_fails_the_piece_and_not_the_worker(living: set[int]) -> None:
    with pytest.raises(PieceFailed) as caught:
        perform(fault("sys_exit"))
    assert caught.value.exception_type == "SystemExit"
    assert "no more" in caught.value.message
    assert "in do_sys_exit" in caught.value.remote_traceback


def test_output_without_end_is_kept_within_bounds(
    here: LocalCluster, living: set[int]
) -> None:
    result = perform(fault("print", megabytes=200))
    assert result["pid"] in living
    logs = list(here.place.logs.glob("Fault-*"))
    sizes = {path.name: path.stat().st_size for path in logs}
    assert max(sizes.values()) == LOG_BYTES
    for name in ("Fault-1", "Fault-2"):
        kept = [size for file, size in sizes.items() if file.startswith(name)]
        assert len(kept) <= LOG_FILES and sum(kept) <= LOG_BYTES * LOG_FILES
    workshop = here.place.read()["workshops"][0]["pid"]
    assert peak_bytes(workshop) < 150e6


# --- forks ----------------------------------------------------------------------


@pytest.mark.parametrize("child", ["returns", "raises", "exits"])
def test_a_forked_child_that_comes_back_from_perform(
    here: LocalCluster, living: set[int], tmp_path: Path, child: str
) -> None:
    def said() -> int:
        logs = here.place.logs.glob("Fault-*")
        return sum(path.read_text().count("the child ends here") for path in logs)

    before = said()
    work = fault("fork", child=child, n=child, runs=str(tmp_path / "runs"))
    result = perform(work)
    assert "is_child" not in result
    assert result["pid"] in living
    assert result["child_status"] == 1
    assert counts(tmp_path / "runs") == {child: 1}
    wait_until(lambda: said() == before + 1, "the log tells")


def test_perform_may_use_a_pool_of_processes(living: set[int]) -> None:
    result = perform(fault("pool", wait_s=DEADLINE_S / 2))
    assert result["squares"] == [n * n for n in range(10)]
    assert result["exit_code"] == -signal.SIGTERM


# --- processes that end ---------------------------------------------------------


def test_a_segfault_is_told_with_signal_memory_and_output(here: LocalCluster) -> None:
    with pytest.raises(WorkerDied) as caught:
        perform(fault("segfault"), retries=0)
    assert not isinstance(caught.value, PoisonPiece)
    evidence = caught.value.evidence
    assert evidence.signal == "SIGSEGV" and evidence.exit_code is None
    assert "invalid memory access" in evidence.reason
    assert evidence.peak_memory_bytes > 1e6
    assert not evidence.out_of_memory
    assert "about to read address 0" in evidence.output
    assert "Segmentation fault" in evidence.output and "do_segfault" in evidence.output
    assert caught.value.worker.startswith("Fault-")
    for part in ("SIGSEGV", "do_segfault", "0 retries", caught.value.worker):
        assert part in str(caught.value)
    log = wait_until(lambda: log_of(here, "workshop"))
    assert "killed by SIGSEGV" in log


def test_a_piece_that_ends_its_workers_is_quarantined(tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    pieces = [fault("ok", n=n, runs=path) for n in range(60)]
    pieces[20] = fault("exit", n="poison", runs=path)
    results = list(Manager("cluster").map("Fault", pieces, return_errors=True))
    error = results.pop(20)
    assert isinstance(error, PoisonPiece)
    assert [result["n"] for result in results] == [n for n in range(60) if n != 20]
    assert [death.exit_code for death in error.deaths] == [3, 3, 3]
    assert all("about to leave" in death.output for death in error.deaths)
    assert "ended 3 workers" in str(error) and "about to leave" in str(error)
    killed = {pid for name, pid in runs(tmp_path / "runs") if name == "poison"}
    assert len(killed) == 3
    assert counts(tmp_path / "runs")["poison"] == 3


def test_a_piece_that_segfaults_again_and_again_is_quarantined() -> None:
    with pytest.raises(PoisonPiece) as caught:
        perform(fault("segfault"), retries=9)
    assert [death.signal for death in caught.value.deaths] == ["SIGSEGV"] * 3


def test_a_loss_is_retried_no_more_often_than_allowed(tmp_path: Path) -> None:
    work = fault("exit", n="a", runs=str(tmp_path / "runs"))
    with pytest.raises(WorkerDied, match=r"2 times, 1 retries") as caught:
        perform(work, retries=1)
    assert caught.value.evidence.exit_code == 3
    assert counts(tmp_path / "runs") == {"a": 2}


def test_sigkill_of_a_worker_with_pieces_queued(
    here: LocalCluster, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    manager = Manager("cluster")
    wait_until(lambda: len(manager.get_available_workers("Fault")) == 2)
    # so short that both workers are handed many ahead from now on
    assert len(list(manager.map("Fault", [fault("ok")] * 200))) == 200
    pieces = [fault("sleep", s=0.02, n=n, runs=str(path)) for n in range(80)]
    futures = [manager.submit("Fault", piece) for piece in pieces]
    victim = wait_until(lambda: runs(path)[3:] and runs(path)[-1][1])
    os.kill(victim, signal.SIGKILL)
    results = [future.result(DEADLINE_S) for future in futures]
    assert [result["n"] for result in results] == list(range(80))
    assert set(counts(path)) == {str(n) for n in range(80)}
    assert len({pid for _, pid in runs(path)}) >= 2
    # what was queued behind the running piece had not been run
    assert sum(counts(path).values()) < 90
    log = f"(pid {victim}): killed by SIGKILL"
    wait_until(lambda: log in log_of(here, "workshop"), log)
