"""What a manager does with the workers of a real cluster."""

from __future__ import annotations

import gc
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_programs import TARGET

from opencluster import Manager, ManagerPool, WorkPiece
from opencluster.engines.choice import close_engines
from opencluster.errors import (
    Interrupted,
    PieceCancelled,
    PieceFailed,
    PieceTimeout,
    WorkerDied,
)
from opencluster.testing import LocalCluster

DEADLINE_S = 30.0
WORKERS = {
    f"{TARGET}:ToolWorker": 2,
    f"{TARGET}:SoloWorker": 1,
    f"{TARGET}:ToolboxService": 1,
}
SETTINGS = {"workshop.restart_delay_s": 0.05, "cluster.heartbeat_interval_s": 0.2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(WORKERS, SETTINGS) as started:
        yield started


@pytest.fixture
def manager(cluster: LocalCluster) -> Manager:
    return Manager()


def wait_until(condition: Callable[[], Any]) -> Any:
    """Return the first true value of a condition, which has to come."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return value


class Gate:
    """A piece that runs from the moment it is seen to start until it is let go."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self._started = folder / f"{name}.started"
        self._until = folder / f"{name}.open"
        self.piece = WorkPiece(do="wait", started=self._started, until=self._until)

    def wait_for_start(self) -> None:
        wait_until(self._started.exists)

    def open(self) -> None:
        self._until.touch()


# --- handles -----------------------------------------------------------------


def test_available_workers_are_those_of_the_type(manager: Manager) -> None:
    tools = wait_until(lambda: _at_least(manager, "Tool", 2))
    assert len({tool.id for tool in tools}) == len(tools)
    assert {tool.type for tool in tools} == {"Tool"}
    (solo,) = manager.get_available_workers("Solo")
    assert solo.type == "Solo"


def _at_least(manager: Manager, type: str, count: int) -> list[Any]:
    found = manager.get_available_workers(type)
    return found if len(found) >= count else []


def test_a_handle_means_its_worker(manager: Manager) -> None:
    tools = wait_until(lambda: _at_least(manager, "Tool", 2))
    who = WorkPiece(do="who")
    pids = [[tool.perform(who)["pid"] for _ in range(3)] for tool in tools]
    # one that ended meanwhile, as another test had it replaced, is stood in for
    here = {tool.id for tool in manager.get_available_workers("Tool")}
    stayed = [own for tool, own in zip(tools, pids, strict=True) if tool.id in here]
    assert stayed and all(len(set(own)) == 1 for own in stayed)
    assert len({own[0] for own in stayed}) == len(stayed)


def test_the_least_loaded_worker_comes_first(manager: Manager, tmp_path: Path) -> None:
    busy, *_ = wait_until(lambda: _at_least(manager, "Tool", 2))
    gate = Gate(tmp_path)
    future = busy.submit(gate.piece)
    gate.wait_for_start()
    assert manager.get_available_workers("Tool")[-1].id == busy.id
    gate.open()
    future.result(DEADLINE_S)


def test_a_handle_interrupts_what_its_worker_runs(
    manager: Manager, tmp_path: Path
) -> None:
    (solo,) = manager.get_available_workers("Solo")
    pid = solo.perform(WorkPiece(do="who"))["pid"]
    gate = Gate(tmp_path)
    future = solo.submit(gate.piece)
    gate.wait_for_start()
    solo.interrupt()
    with pytest.raises(Interrupted, match="interrupted on Solo"):
        future.result(DEADLINE_S)
    assert solo.perform(WorkPiece(do="who"))["pid"] == pid


def test_a_worker_may_return_what_it_has_when_interrupted(
    manager: Manager, tmp_path: Path
) -> None:
    (solo,) = manager.get_available_workers("Solo")
    started = tmp_path / "started"
    future = solo.submit(WorkPiece(do="linger", started=started))
    wait_until(started.exists)
    solo.interrupt()
    assert future.result(DEADLINE_S) == {"is_interrupted": True}


def test_the_piece_of_a_lost_worker_goes_to_another(
    manager: Manager, tmp_path: Path
) -> None:
    (solo,) = manager.get_available_workers("Solo")
    before = solo.perform(WorkPiece(do="who"))["pid"]
    after = solo.perform(WorkPiece(do="die_at_first", died=tmp_path / "died"))["pid"]
    assert after != before


# --- futures -----------------------------------------------------------------


def test_a_cancelled_piece_does_not_run(manager: Manager, tmp_path: Path) -> None:
    gate, never = Gate(tmp_path, "first"), Gate(tmp_path, "second")
    first: Any = manager.submit("Solo", gate.piece)
    gate.wait_for_start()
    second = manager.submit("Solo", never.piece)
    assert second.cancel()
    with pytest.raises(PieceCancelled):
        second.result(DEADLINE_S)
    assert second.cancelled()
    # the worker learns of this after it has learned of that
    first.interrupt()
    with pytest.raises(Interrupted):
        first.result(DEADLINE_S)
    assert manager.submit("Solo", WorkPiece(do="who")).result(DEADLINE_S)
    assert not never.piece["started"].exists()


def test_cancelling_interrupts_what_runs(manager: Manager, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    future = manager.submit("Solo", gate.piece)
    gate.wait_for_start()
    future.cancel()
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)
    # the worker is free again although nobody opened the gate
    assert manager.submit("Solo", WorkPiece(do="who")).result(DEADLINE_S)


def test_a_future_interrupts(manager: Manager, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    future: Any = manager.submit("Solo", gate.piece)
    gate.wait_for_start()
    future.interrupt()
    with pytest.raises(Interrupted):
        future.result(DEADLINE_S)


def test_a_time_limit_ends_a_piece(manager: Manager, tmp_path: Path) -> None:
    piece = Gate(tmp_path).piece
    with pytest.raises(PieceTimeout, match="longer than its time limit of 0.2 s"):
        manager.submit("Solo", piece, timeout_s=0.2).result(DEADLINE_S)
    with pytest.raises(PieceTimeout):
        list(manager.map("Solo", [piece], timeout_s=0.2))
    (solo,) = manager.get_available_workers("Solo")
    with pytest.raises(PieceTimeout):
        solo.perform(piece, timeout_s=0.2)


def test_retries_are_as_many_as_asked_for(manager: Manager, tmp_path: Path) -> None:
    piece = WorkPiece(do="die_at_first", died=tmp_path / "died")
    with pytest.raises(WorkerDied, match="once, 0 retries") as caught:
        manager.submit("Solo", piece, retries=0).result(DEADLINE_S)
    assert caught.value.evidence.signal == "SIGKILL"


def test_progress_of_a_running_piece(manager: Manager, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    seen: list[tuple[float, float]] = []
    future = manager.submit(
        "Solo", gate.piece, on_progress=lambda done, total: seen.append((done, total))
    )
    wait_until(lambda: seen)
    assert not future.done()
    gate.open()
    future.result(DEADLINE_S)
    assert set(seen) == {(0.5, 1.0)}


# --- maps --------------------------------------------------------------------


class Prioritised(Manager):
    """Has a job of its own."""


def test_higher_priority_goes_first(tmp_path: Path) -> None:
    # what a worker holds ahead has left the queue, so here it holds nothing ahead
    settings = {**SETTINGS, "manager.max_credit": 1}
    with LocalCluster({f"{TARGET}:SoloWorker": 1}, settings) as cluster:
        manager = Prioritised()
        gate = Gate(tmp_path)
        first = manager.submit("Solo", gate.piece)
        gate.wait_for_start()
        log = tmp_path / "log"
        futures = [
            manager.submit(
                "Solo", WorkPiece(do="note", log=log, number=n), priority=priority
            )
            for n, priority in enumerate([0, -1, 5, 0, 5, 1])
        ]
        wait_until(
            lambda: (
                job_named(cluster, "Prioritised", "running")["pieces_submitted"] == 7
            )
        )
        gate.open()
        for future in [first, *futures]:
            future.result(DEADLINE_S)
    assert log.read_text().split() == ["2", "4", "5", "0", "3", "1"]


def test_leaving_a_loop_cancels_what_is_unfinished(
    manager: Manager, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    log = tmp_path / "log"
    pieces = [
        WorkPiece(do="who"),
        gate.piece,
        *[WorkPiece(do="note", log=log, number=n) for n in range(100)],
    ]
    for _ in manager.map("Solo", pieces):
        gate.wait_for_start()
        break
    # neither the gate, which is shut, nor what waits behind it is in the way
    assert manager.submit("Solo", WorkPiece(do="who")).result(DEADLINE_S)
    assert not log.exists()


def test_a_new_worker_is_used_while_a_map_runs(
    cluster: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    piece = WorkPiece(do="meet", folder=folder, workers=3)
    results = manager.map("Tool", [piece] * 3, ordered=False)
    pids: Future[set[int]] = Future()
    threading.Thread(
        target=lambda: pids.set_result({r["pid"] for r in results}), daemon=True
    ).start()
    wait_until(lambda: len(list(folder.iterdir())) == 2)
    assert not pids.done()
    cluster.ask_workshop("scale", {"type": "Tool", "count": 3})
    try:
        assert len(pids.result(DEADLINE_S)) == 3
    finally:
        cluster.ask_workshop("scale", {"type": "Tool", "count": 2})


def test_a_worker_that_dies_costs_no_result(manager: Manager, tmp_path: Path) -> None:
    pieces: list[WorkPiece] = [WorkPiece(do="square", number=n) for n in range(200)]
    pieces[50] = WorkPiece(do="die_at_first", died=tmp_path / "died")
    results = list(manager.map("Tool", pieces))
    del results[50], pieces[50]
    assert [r["number"] for r in results] == [p["number"] ** 2 for p in pieces]


def test_services_take_several_calls_at_a_time(manager: Manager) -> None:
    toolbox = manager.service("toolbox")
    with ThreadPoolExecutor(2) as threads:
        places = list(threads.map(lambda _: toolbox.meet(), range(2)))
    assert sorted(places) == [0, 1]


# --- jobs --------------------------------------------------------------------


def job_named(cluster: LocalCluster, name: str, state: str) -> dict[str, Any]:
    """Return what the factory says of a job, when it is in this state."""

    def find() -> dict[str, Any] | None:
        jobs = cluster.ask_factory("status")["jobs"]
        mine = [job for job in jobs if job["name"] == name]
        return mine[-1] if mine and mine[-1]["state"] == state else None

    found: dict[str, Any] = wait_until(find)
    return found


class Measured(Manager):
    def schedule(self, task: WorkPiece) -> WorkPiece:
        pieces = [WorkPiece(do="echo", data=np.zeros(100_000, "u1"))] * 5
        pieces += [WorkPiece(do="die_at_first", died=task["died"])]
        return WorkPiece(count=len(list(self.map("Tool", pieces))))


def test_statistics_of_a_job_are_in_the_factory(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    before = time.time()
    assert Measured().run(WorkPiece(died=tmp_path / "died")) == {"count": 6}
    job = job_named(cluster, "Measured", "done")
    assert job["pieces_submitted"] == job["pieces_done"] == 6
    assert job["pieces_failed"] == 0
    assert job["pieces_retried"] == 1
    assert job["bytes_sent"] > 500_000
    assert job["bytes_received"] > 500_000
    assert before <= job["started_at"] <= job["ended_at"] <= time.time()
    assert job["elapsed_s"] == pytest.approx(job["ended_at"] - job["started_at"])


class Failing(Manager):
    def schedule(self, task: WorkPiece) -> WorkPiece:
        pieces = [WorkPiece(do="fail_if_odd", number=n) for n in (0, 2, 3)]
        list(self.map("Solo", pieces, error_retries=2))
        return WorkPiece()


def test_statistics_of_a_failed_job(cluster: LocalCluster) -> None:
    with pytest.raises(PieceFailed, match="cannot do 3"):
        Failing().run(WorkPiece())
    job = job_named(cluster, "Failing", "failed")
    assert (job["pieces_done"], job["pieces_failed"]) == (2, 1)
    assert job["pieces_retried"] == 2
    assert job["pieces_submitted"] == 3


class Threaded(Manager):
    """Uses its workers as in the paper: each in a thread of its own."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        workers = self.get_available_workers("Tool")
        who = WorkPiece(do="who")
        with ThreadPoolExecutor() as threads:
            return WorkPiece(
                done=len(list(threads.map(lambda w: w.perform(who), workers)))
            )


def test_pieces_of_threads_belong_to_the_job(cluster: LocalCluster) -> None:
    done = Threaded().run(WorkPiece())["done"]
    assert job_named(cluster, "Threaded", "done")["pieces_done"] == done
    jobs = cluster.ask_factory("status")["jobs"]
    assert [job["state"] for job in jobs if job["name"] == "Threaded"] == ["done"]


class Unscheduled(Manager):
    """Is used without a task."""


def test_a_manager_without_a_task_has_a_job_as_long_as_it_lives(
    cluster: LocalCluster,
) -> None:
    manager = Unscheduled()
    list(manager.map("Tool", [WorkPiece(do="who")] * 2))
    manager.submit("Tool", WorkPiece(do="who")).result(DEADLINE_S)
    wait_until(lambda: job_named(cluster, "Unscheduled", "running")["pieces_done"] == 3)
    del manager
    gc.collect()
    assert job_named(cluster, "Unscheduled", "done")["pieces_done"] == 3


def test_the_job_of_a_program_that_ended_is_done(cluster: LocalCluster) -> None:
    script = (
        "from opencluster import Manager, WorkPiece\n"
        "class Brief(Manager):\n"
        "    def schedule(self, task):\n"
        "        return self.submit('Tool', task).result()\n"
        "Brief().run(WorkPiece(do='who'))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=DEADLINE_S)
    assert job_named(cluster, "Brief", "done")["pieces_done"] == 1


class Hasty(Manager):
    """Has a job of its own."""


def test_an_engine_that_closes_says_how_its_jobs_stand(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    manager = Hasty()
    gate = Gate(tmp_path)
    future = manager.submit("Tool", gate.piece)
    # called by the thread that also has to send the report
    future.add_done_callback(lambda _: close_engines(cluster.place))
    gate.open()
    future.result(DEADLINE_S)
    assert job_named(cluster, "Hasty", "done")["pieces_done"] == 1


# --- several tasks at a time -------------------------------------------------


class Meeting(Manager):
    """Gets nowhere until another one is there."""

    barrier = threading.Barrier(2)

    def schedule(self, task: WorkPiece) -> WorkPiece:
        self.barrier.wait(DEADLINE_S)
        numbers = range(task["first"], task["first"] + 5)
        pieces = [WorkPiece(do="square", number=n) for n in numbers]
        return WorkPiece(total=sum(r["number"] for r in self.map("Tool", pieces)))


def test_a_pool_runs_several_tasks_at_a_time(cluster: LocalCluster) -> None:
    with ManagerPool(2) as pool:
        one = pool.submit(Meeting(), WorkPiece(first=0))
        two = pool.submit(Meeting(), WorkPiece(first=10))
        assert one.result(DEADLINE_S) == {"total": sum(n**2 for n in range(5))}
        assert two.result(DEADLINE_S) == {"total": sum(n**2 for n in range(10, 15))}
    wait_until(lambda: pieces_done(cluster, "Meeting") == [5, 5])


def pieces_done(cluster: LocalCluster, name: str) -> list[int]:
    """Return how many pieces the jobs of a manager have done, as a factory knows."""
    jobs = cluster.ask_factory("status")["jobs"]
    return [job["pieces_done"] for job in jobs if job["name"] == name]


class Held(Manager):
    """Is under way until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def schedule(self, task: WorkPiece) -> WorkPiece:
        self.has_begun.set()
        assert self.may_end.wait(DEADLINE_S)
        return task


def test_a_pool_has_a_size(cluster: LocalCluster) -> None:
    first, second = Held(), Held()
    with ManagerPool(1) as pool:
        one = pool.submit(first, WorkPiece(n=1))
        two = pool.submit(second, WorkPiece(n=2))
        assert first.has_begun.wait(DEADLINE_S)
        assert not second.has_begun.is_set()
        second.may_end.set()
        first.may_end.set()
    # the end of the block has waited for both
    assert (one.result(0), two.result(0)) == ({"n": 1}, {"n": 2})


def test_a_pool_that_is_left_by_an_error_starts_nothing_more(
    cluster: LocalCluster,
) -> None:
    first, second = Held(), Held()
    with pytest.raises(ZeroDivisionError), ManagerPool(1) as pool:
        one = pool.submit(first, WorkPiece())
        two = pool.submit(second, WorkPiece())
        assert first.has_begun.wait(DEADLINE_S)
        _ = 1 / 0
    assert two.cancelled()
    first.may_end.set()
    one.result(DEADLINE_S)


def test_a_pool_passes_on_what_a_task_raises(cluster: LocalCluster) -> None:
    with ManagerPool(2) as pool:
        failed = pool.submit(Failing(), WorkPiece())
        assert isinstance(failed.exception(DEADLINE_S), PieceFailed)


# --- the progress bar --------------------------------------------------------

SQUARES = """
from opencluster import Manager, WorkPiece
pieces = [WorkPiece(do="square", number=n) for n in range(6)]
for result in Manager().map("Tool", pieces):
    print(result["number"])
"""
CHAINED = """
from opencluster import Manager, WorkPiece
pieces = [WorkPiece(do="square", number=n) for n in range(6)]
squares = (WorkPiece(r, do="square") for r in Manager().map("Tool", pieces))
for result in Manager().map("Solo", squares):
    print(result["number"])
"""


def on_a_terminal(script: str, **environment: str) -> tuple[str, str]:
    """Return what a script writes to a pipe, and what to the terminal behind it."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment,
    ) as process:
        os.close(theirs)
        shown = b""
        # a terminal that everyone has left cannot be read
        while chunk := _read(ours):
            shown += chunk
        out, _ = process.communicate(timeout=DEADLINE_S)
    os.close(ours)
    assert process.returncode == 0, shown
    return out, shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_bar_is_shown_on_a_terminal(cluster: LocalCluster) -> None:
    out, shown = on_a_terminal(SQUARES)
    assert "Tool" in shown
    assert "/6" in shown
    # results go where they belong and not above the bar
    assert out.split() == ["0", "1", "4", "9", "16", "25"]


def test_maps_in_a_row_share_the_terminal(cluster: LocalCluster) -> None:
    out, shown = on_a_terminal(CHAINED)
    assert "Tool" in shown
    assert "Solo" in shown
    assert out.split() == [str(n**4) for n in range(6)]


def test_no_bar_is_shown_when_none_is_wanted(cluster: LocalCluster) -> None:
    _, shown = on_a_terminal(SQUARES, OPENCLUSTER_MANAGER_PROGRESS="never")
    assert shown == ""


def test_no_bar_is_shown_to_a_debugger(cluster: LocalCluster) -> None:
    tools = f"import sys; sys.path.insert(0, {str(Path(TARGET).parent)!r})\n"
    tools += "import cluster_programs\n"
    out, shown = on_a_terminal(tools + SQUARES, OPENCLUSTER_ENGINE="local")
    assert out.split()[-1] == "25"
    assert shown == ""


def test_no_bar_is_shown_elsewhere(cluster: LocalCluster) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SQUARES],
        capture_output=True,
        check=True,
        timeout=DEADLINE_S,
    )
    assert done.stderr == b""
