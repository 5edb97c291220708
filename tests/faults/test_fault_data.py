"""Values that workers hold, when those who hold or need them end, or are too slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_programs import TARGET
from fault_tools import (
    DEADLINE_S,
    FAST,
    all_idle,
    counts,
    entries,
    is_running,
    peak_bytes,
    pids,
    stopped,
    wait_until,
)

from opencluster import DataRef, Manager, WorkPiece
from opencluster.errors import DataLost, Interrupted, PieceTimeout
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes

MEGABYTE = 1 << 20


def cluster(
    settings: Mapping[str, object] | None = None, **counts: int
) -> LocalCluster:
    workers = {f"{TARGET}:{name}": count for name, count in counts.items()}
    return LocalCluster(workers, dict(FAST) | dict(settings or {}))


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    with cluster(DataWorker=2, JoinWorker=2) as here:
        yield here


@pytest.fixture
def manager(here: LocalCluster) -> Manager:
    """Return a manager whose workers are all there."""
    for type in ("Data", "Join"):
        wait_until(lambda type=type: all_idle(here, 2, type), "idle workers")
    manager = Manager("cluster")
    known = {info.id for info in manager.engine.workers("Data", DEADLINE_S)}
    wanted = {entry["id"] for entry in entries(here, "worker", "Data")}
    wait_until(
        lambda: {i.id for i in manager.engine.workers("Data", DEADLINE_S)} >= wanted,
        f"workers {wanted - known}",
    )
    return manager


def make(number: Any, size: int = 1, **more: Any) -> WorkPiece:
    return WorkPiece(do="make", number=number, size=size, **more)


def keep(manager: Manager, work: WorkPiece, **options: Any) -> DataRef:
    ref = manager.submit("Data", work, keep=True, **options).result(DEADLINE_S)
    assert isinstance(ref, DataRef)
    return ref


def pid_of(here: LocalCluster, worker: str) -> int:
    (pid,) = (e["pid"] for e in entries(here) if e["id"] == worker)
    return int(pid)


def kill_holder(here: LocalCluster, ref: DataRef) -> None:
    """Kill the worker that holds a value, and wait until all know of it."""
    pid = pid_of(here, ref.holder.worker)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


# --- holders that are killed -----------------------------------------------------


def test_values_of_a_killed_worker_are_lost_and_named(
    here: LocalCluster, manager: Manager
) -> None:
    ref = keep(manager, make(1))
    kill_holder(here, ref)
    for attempt in (
        lambda: manager.gather(ref),
        lambda: manager.submit("Data", WorkPiece(do="add", parts=[ref])).result(
            DEADLINE_S
        ),
    ):
        with pytest.raises(DataLost) as caught:
            attempt()
        assert list(caught.value.reasons) == [ref.id[-4:].hex()]
        assert "recompute=True" in str(caught.value)


def test_values_of_a_killed_worker_are_made_again(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    ref = keep(manager, make(5, 6000, log=log), recompute=True)
    first = pid_of(here, ref.holder.worker)
    assert manager.gather(ref)["pid"] == first
    kill_holder(here, ref)
    value = manager.gather(ref)
    assert (value["array"] == 5).all()
    assert value["pid"] != first
    assert counts(log) == {"5": 2}
    # it is held again, and need not be made once more
    work = WorkPiece(do="add", parts=[ref, ref])
    assert manager.submit("Data", work).result(DEADLINE_S)["number"] == 10
    assert counts(log) == {"5": 2}


def test_a_chain_of_lost_values_is_made_again(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    refs = [keep(manager, make(9, log=log), recompute=True)]
    for number in range(4):
        work = WorkPiece(do="add", parts=[refs[-1], refs[-1]], number=number, log=log)
        refs.append(keep(manager, work, recompute=True))
    last = refs.pop()
    del refs
    for pid in pids(here, "Data"):
        os.kill(pid, signal.SIGKILL)
    result = manager.submit("Join", WorkPiece(inputs=[last])).result(DEADLINE_S)
    assert result["array"] == 9 * 2**4
    assert counts(log) == dict.fromkeys("90123", 2)


def test_what_cannot_be_made_again_is_lost(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    work = WorkPiece(do="fail_later", died=tmp_path / "died", number=1)
    ref = keep(manager, work, recompute=True)
    kill_holder(here, ref)
    with pytest.raises(DataLost, match="cannot make it again"):
        manager.gather(ref)


def test_pieces_that_wait_for_a_value_outlive_its_holder(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    ref = keep(manager, make(3, MEGABYTE), recompute=True)
    held = pid_of(here, ref.holder.worker)
    with stopped(held):
        pieces = [WorkPiece(inputs=[ref, ref]) for _ in range(20)]
        futures = [manager.submit("Join", piece) for piece in pieces]
        os.kill(held, signal.SIGKILL)
    for future in futures:
        assert future.result(DEADLINE_S)["array"][0] == 6


def test_a_reduction_outlives_its_workers(here: LocalCluster, manager: Manager) -> None:
    futures = [
        manager.submit("Data", make(n, 50_000), keep=True, recompute=True)
        for n in range(24)
    ]
    victims = sorted(pids(here, "Data"))[:1] + sorted(pids(here, "Join"))[:1]
    refs = []
    for number, future in enumerate(futures):
        refs.append(future.result(DEADLINE_S))
        if number == 12:
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
    total = manager.reduce("Join", refs, recompute=True)
    assert (total["array"] == sum(range(24))).all()


# --- holders that are too slow ---------------------------------------------------


def test_a_piece_that_waits_for_a_value_has_its_time_limit(
    here: LocalCluster, manager: Manager
) -> None:
    ref = keep(manager, make(1, MEGABYTE))
    with stopped(pid_of(here, ref.holder.worker)):
        piece = WorkPiece(inputs=[ref])
        with pytest.raises(PieceTimeout):
            manager.submit("Join", piece, timeout_s=0.3).result(DEADLINE_S)
    assert manager.submit("Join", piece).result(DEADLINE_S)["array"][0] == 1


def test_a_piece_that_waits_for_a_value_can_be_interrupted(
    here: LocalCluster, manager: Manager
) -> None:
    ref = keep(manager, make(1, MEGABYTE))
    with stopped(pid_of(here, ref.holder.worker)):
        future = manager.submit("Join", WorkPiece(inputs=[ref]))
        wait_until(lambda: not all_idle(here, 2, "Join"), "a piece that waits")
        future.interrupt()  # type: ignore[attr-defined]
        with pytest.raises(Interrupted):
            future.result(DEADLINE_S)


# --- workers that leave ----------------------------------------------------------


def test_values_of_a_worker_that_is_restarted_are_saved(
    here: LocalCluster, manager: Manager
) -> None:
    refs = [keep(manager, make(n, 5000)) for n in range(10)]
    names = {ref.holder.name for ref in refs}
    before = pids(here, "Data")
    for name in names:
        here.ask_workshop("restart", {"name": name})
    wait_until(lambda: not pids(here, "Data") & before, "new workers")
    assert [v["number"] for v in manager.gather(refs)] == list(range(10))


def test_values_outlive_workers_that_are_replaced_after_some_pieces() -> None:
    with cluster({"worker.max_pieces": 3}, DataWorker=2, JoinWorker=1):
        manager = Manager("cluster")
        refs = [keep(manager, make(n, 5000)) for n in range(12)]
        assert [v["number"] for v in manager.gather(refs)] == list(range(12))
        assert len({ref.holder.worker for ref in refs}) > 2


# --- managers that end -----------------------------------------------------------

MANAGER = """
import sys, time
from opencluster import Manager, WorkPiece
manager = Manager("cluster")
pieces = [WorkPiece(do="make", number=n, size=1 << 18) for n in range(40)]
refs = list(manager.map("Data", pieces, keep=True))
print("kept", flush=True)
if sys.argv[1] == "killed":
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_values_of_a_manager_that_is_gone_are_let_go(end: str) -> None:
    settings = {"memory.kept_bytes": 4 * MEGABYTE, "cluster.lease_s": 1}
    with cluster(settings, DataWorker=1) as here:
        spill = here.place.path / "spill"
        with subprocess.Popen(
            [sys.executable, "-c", MANAGER, end], stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "kept\n"
            if end == "killed":
                # what is on disk tells what is held
                assert len(spilled(spill)) > 30
                program.kill()
        wait_until(lambda: not spilled(spill), "nothing is held")


def spilled(folder: Path) -> list[Path]:
    """Return the files of values on disk."""
    return [path for path in folder.glob("*/*") if len(path.name) == 32]


# --- memory ----------------------------------------------------------------------


def test_more_is_held_than_fits_into_memory() -> None:
    with cluster({"memory.kept_bytes": 16 * MEGABYTE}, DataWorker=1) as here:
        manager = Manager("cluster")
        (pid,) = pids(here, "Data")
        keep(manager, make(0, MEGABYTE))
        base = peak_bytes(pid)
        refs = [keep(manager, make(n, MEGABYTE)) for n in range(40)]
        assert peak_bytes(pid) - base < 100 * MEGABYTE
        folder = here.place.path / "spill"
        assert len(spilled(folder)) > 30
        for number, ref in enumerate(refs):
            value = manager.gather(ref)
            assert (value["array"] == number).all()
            work = WorkPiece(do="add", parts=[ref, refs[0]])
            total = manager.submit("Data", work).result(DEADLINE_S)
            assert total["number"] == number
            del value, total
        assert peak_bytes(pid) - base < 200 * MEGABYTE
        del ref, refs, work
        wait_until(lambda: not spilled(folder), "nothing is held")
    assert not folder.exists()


def test_a_broadcast_value_lies_in_memory_once() -> None:
    nbytes = 100 * MEGABYTE
    with cluster({"memory.kept_bytes": 300 * MEGABYTE}, DataWorker=4):
        manager = Manager("cluster")
        available = manager.get_available_workers
        wait_until(lambda: len(available("Data")) == 4, "four workers")
        nothing = manager.scatter(np.zeros(1))
        before = memory_of_each(manager, nothing)
        array = np.random.default_rng(1).random(nbytes // 8)
        ref = manager.broadcast(array)
        after = memory_of_each(manager, ref)
        assert after.keys() == before.keys()
        grown = [after[pid] - before[pid] for pid in after]
        # nobody has a copy of its own: all read it where it lies
        assert max(grown) < nbytes // 4


def memory_of_each(manager: Manager, ref: DataRef) -> dict[int, int]:
    """Have each worker look at a value, and return the memory that is its own."""
    found = {}
    for worker in manager.get_available_workers("Data"):
        result = worker.perform(WorkPiece(do="memory", value=ref))
        found[result["pid"]] = result["private"]
    assert len(found) == 4
    return found


def test_a_reduction_does_not_pass_the_manager(
    here: LocalCluster, manager: Manager
) -> None:
    refs = list(manager.map("Data", [make(n, MEGABYTE) for n in range(8)], keep=True))
    statistics = manager._job().statistics
    before = (statistics.bytes_sent, statistics.bytes_received)
    fetched = manager.engine._desk.values._exchange.received_bytes  # type: ignore[attr-defined]
    ref = manager.reduce("Join", refs, keep=True)
    after = (statistics.bytes_sent, statistics.bytes_received)
    passed = sum(after) - sum(before)
    assert passed < MEGABYTE // 8
    assert manager.engine._desk.values._exchange.received_bytes == fetched  # type: ignore[attr-defined]
    assert (manager.gather(ref)["array"] == sum(range(8))).all()


def test_pieces_go_where_their_values_are(here: LocalCluster, manager: Manager) -> None:
    refs = [keep(manager, make(n, MEGABYTE)) for n in range(6)]
    for ref in refs * 3:
        work = WorkPiece(do="add", parts=[ref])
        result = manager.submit("Data", work).result(DEADLINE_S)
        assert result["pid"] == pid_of(here, ref.holder.worker)


# --- managers inside workers -----------------------------------------------------


def test_a_reference_of_a_manager_inside_a_worker_outlives_it(
    here: LocalCluster, manager: Manager
) -> None:
    work = WorkPiece(do="nest", number=7)
    ref = manager.submit("Data", work).result(DEADLINE_S)["ref"]
    assert manager.gather(ref) == {"deep": 7}
    kept = keep(manager, work)
    assert manager.gather(manager.gather(kept)["ref"]) == {"deep": 7}
