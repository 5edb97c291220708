"""Time limits, interrupts and cancelling, from the gentle to the forced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_tools import (
    DEADLINE_S,
    all_idle,
    cluster,
    counts,
    fault,
    figures,
    is_running,
    log_of,
    perform,
    pids,
    runs,
    wait_until,
)

from opencluster import Manager
from opencluster.errors import Interrupted, PieceCancelled, PieceTimeout
from opencluster.testing import LocalCluster

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("here")]

LONG_S = 60.0
"""A piece that is not stopped runs past every deadline of these tests."""


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    with cluster(FaultWorker=1) as here:
        yield here


@pytest.fixture
def worker(here: LocalCluster) -> int:
    """The only worker process, which has nothing to do."""
    wait_until(lambda: all_idle(here, 1), "an idle worker")
    return pids(here).pop()


def is_replaced(here: LocalCluster, worker: int) -> bool:
    return not is_running(worker) and len(pids(here) - {worker}) == 1


# --- time limits ----------------------------------------------------------------


def test_a_sleeping_piece_is_ended_by_an_exception(
    here: LocalCluster, worker: int, tmp_path: Path
) -> None:
    work = fault("sleep", s=LONG_S, n="a", runs=str(tmp_path / "runs"))
    with pytest.raises(PieceTimeout, match=r"time limit of 0\.3 s on Fault-1"):
        perform(work, timeout_s=0.3)
    assert perform(fault("ok"))["pid"] == worker
    assert counts(tmp_path / "runs") == {"a": 1}


@pytest.mark.parametrize("stubborn", ["swallow", "hold_gil"])
def test_a_piece_that_cannot_be_ended_so_is_killed_with_its_worker(
    here: LocalCluster, worker: int, tmp_path: Path, stubborn: str
) -> None:
    work = fault(stubborn, s=LONG_S, n="a", runs=str(tmp_path / "runs"))
    with pytest.raises(PieceTimeout, match=r"time limit of 0\.3 s"):
        perform(work, timeout_s=0.3)
    wait_until(lambda: is_replaced(here, worker), "a fresh worker")
    assert perform(fault("ok"))["pid"] != worker
    assert counts(tmp_path / "runs") == {"a": 1}
    log = f"(pid {worker}): ended by its workshop: piece "
    assert log in log_of(here, "workshop")
    assert "ran past its time limit" in log_of(here, "workshop")


def test_a_piece_that_looks_whether_it_is_interrupted_may_return_what_it_has(
    worker: int,
) -> None:
    work = fault("cooperate", s=LONG_S)
    result = perform(work, timeout_s=0.3)
    assert result == {"was_interrupted": True, "pid": worker}


def test_a_piece_in_time_is_not_interrupted(worker: int) -> None:
    result = perform(fault("cooperate", s=0.05), timeout_s=20)
    assert result == {"was_interrupted": False, "pid": worker}


# --- interrupts -----------------------------------------------------------------


def test_progress_is_reported_and_ends_an_interrupted_piece(
    worker: int, tmp_path: Path
) -> None:
    path, stopped = tmp_path / "runs", tmp_path / "stopped"
    seen: list[tuple[float, float]] = []
    future = Manager("cluster").submit(
        "Fault",
        fault("progress", stopped=str(stopped), n="a", runs=str(path)),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    wait_until(lambda: len(seen) > 1, "progress")
    assert seen == sorted(seen) and seen[-1][1] == 100_000
    future.interrupt()  # type: ignore[attr-defined]
    with pytest.raises(Interrupted, match="interrupted on Fault-1"):
        future.result(DEADLINE_S)
    # where it looks, before the exception that comes from outside
    assert stopped.read_text() == "check"
    assert perform(fault("ok"))["pid"] == worker


def test_progress_is_shown_in_the_status(
    here: LocalCluster, worker: int, tmp_path: Path
) -> None:
    stopped = str(tmp_path / "stopped")
    future = Manager("cluster").submit("Fault", fault("progress", stopped=stopped))
    wait_until(lambda: figures(here, worker).get("progress_done", 0) > 0)
    newest = figures(here, worker)
    assert newest["state"] == "busy" and newest["piece"]
    assert newest["progress_total"] == 100_000
    future.cancel()


def test_a_handle_interrupts_what_its_worker_runs(worker: int, tmp_path: Path) -> None:
    handle = Manager("cluster").get_available_workers("Fault")[0]
    work = fault("sleep", s=LONG_S, n="a", runs=str(tmp_path / "runs"))
    future = handle.submit(work)
    wait_until(lambda: runs(tmp_path / "runs"))
    handle.interrupt()
    with pytest.raises(Interrupted):
        future.result(DEADLINE_S)
    assert perform(fault("ok"))["pid"] == worker
    assert counts(tmp_path / "runs") == {"a": 1}


@pytest.mark.parametrize("stubborn", ["swallow", "hold_gil"])
def test_a_piece_that_ignores_its_interrupt_is_killed_with_its_worker(
    here: LocalCluster, worker: int, tmp_path: Path, stubborn: str
) -> None:
    handle = Manager("cluster").get_available_workers("Fault")[0]
    work = fault(stubborn, s=LONG_S, n="a", runs=str(tmp_path / "runs"))
    future = handle.submit(work)
    wait_until(lambda: runs(tmp_path / "runs"))
    handle.interrupt()
    with pytest.raises(Interrupted):
        future.result(DEADLINE_S)
    wait_until(lambda: is_replaced(here, worker), "a fresh worker")
    assert counts(tmp_path / "runs") == {"a": 1}
    assert "was interrupted and did not stop" in log_of(here, "workshop")


# --- cancelling -----------------------------------------------------------------


def test_a_queued_piece_is_cancelled_unseen(worker: int, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    manager = Manager("cluster")
    running = manager.submit("Fault", fault("sleep", s=0.5, n="a", runs=str(path)))
    wait_until(lambda: runs(path))
    queued = manager.submit("Fault", fault("ok", n="b", runs=str(path)))
    assert queued.cancel()
    with pytest.raises(PieceCancelled):
        queued.result(DEADLINE_S)
    assert queued.cancelled()
    assert running.result(DEADLINE_S)["n"] == "a"
    assert perform(fault("ok", n="c", runs=str(path)))["pid"] == worker
    assert [name for name, _ in runs(path)] == ["a", "c"]


def test_a_running_piece_is_interrupted_when_it_is_cancelled(
    here: LocalCluster, worker: int, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    work = fault("sleep", s=LONG_S, n="a", runs=str(path))
    future = Manager("cluster").submit("Fault", work)
    wait_until(lambda: runs(path))
    assert future.cancel()
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)
    wait_until(lambda: all_idle(here, 1), "the worker is free again")
    assert perform(fault("ok"))["pid"] == worker
    assert counts(path) == {"a": 1}
    assert not future.cancel()


@pytest.mark.parametrize("stubborn", ["swallow", "hold_gil"])
def test_a_cancelled_piece_that_does_not_stop_is_killed_with_its_worker(
    here: LocalCluster, worker: int, tmp_path: Path, stubborn: str
) -> None:
    work = fault(stubborn, s=LONG_S, n="a", runs=str(tmp_path / "runs"))
    future = Manager("cluster").submit("Fault", work)
    wait_until(lambda: runs(tmp_path / "runs"))
    future.cancel()
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)
    wait_until(lambda: is_replaced(here, worker), "a fresh worker")
    assert counts(tmp_path / "runs") == {"a": 1}
