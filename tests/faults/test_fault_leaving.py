"""Workers that end in good order: what they keep goes on living with others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from data_programs import TARGET
from fault_tools import (
    DEADLINE_S,
    FAST,
    all_idle,
    counts,
    entries,
    figures,
    log_of,
    runs,
    wait_until,
)

from opencluster import DataRef, Manager, WorkPiece
from opencluster.errors import DataLost
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
COUNT = 12


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    workers = {f"{TARGET}:DataWorker": 2, f"{TARGET}:JoinWorker": 1}
    with LocalCluster(workers, FAST) as here:
        yield here


@pytest.fixture
def manager(here: LocalCluster) -> Manager:
    """Return a manager with two workers of the one type and one of the other."""
    wanted = {"Data": 2, "Join": 1}
    here.ask_workshop("undrain", {})
    for type, count in wanted.items():
        here.ask_workshop("scale", {"type": type, "count": count})
        wait_until(lambda t=type, n=count: all_idle(here, n, t), f"workers of {type}")
    manager = Manager("cluster")
    wait_until(lambda: manager.worker_types() == wanted, "what the manager knows")
    return manager


def keep(manager: Manager, log: Path) -> list[DataRef]:
    """Keep values with all workers, which could be made again; each making is noted."""
    pieces = (WorkPiece(do="make", number=n, size=5000, log=log) for n in range(COUNT))
    refs = list(manager.map("Data", pieces, keep=True, recompute=True))
    assert len({ref.holder.worker for ref in refs}) == 2
    return refs


def check(manager: Manager, refs: list[DataRef], log: Path) -> None:
    """Use the values here and in a piece: none of them was made again."""
    assert [value["number"] for value in manager.gather(refs)] == list(range(COUNT))
    total = manager.submit("Data", WorkPiece(do="add", parts=refs)).result(DEADLINE_S)
    assert total["number"] == sum(range(COUNT))
    assert counts(log) == {str(n): 1 for n in range(COUNT)}


def name_of(here: LocalCluster, ref: DataRef) -> str:
    (name,) = (e["name"] for e in entries(here) if e["id"] == ref.holder.worker)
    return str(name)


def workers(here: LocalCluster) -> set[int]:
    return {entry["pid"] for entry in entries(here)}


def test_values_of_a_worker_that_is_stopped_are_not_made_again(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    refs = keep(manager, log)
    started, until, run = tmp_path / "started", tmp_path / "until", tmp_path / "run"
    work = WorkPiece(do="wait", number=99, started=started, until=until, log=run)
    last = manager.submit("Data", work, keep=True)
    wait_until(started.exists)
    ((_, busy),) = runs(run)
    (name,) = (entry["name"] for entry in entries(here) if entry["pid"] == busy)
    here.ask_workshop("stop", {"name": name})
    wait_until(lambda: figures(here, busy).get("state") == "draining")
    # what it keeps moves while its last piece runs, and the result of that after it
    check(manager, refs, log)
    until.touch()
    assert manager.gather(last)["pid"] == busy
    wait_until(lambda: busy not in workers(here))
    check(manager, refs, log)
    assert manager.gather(last)["pid"] == busy


def test_values_for_all_and_values_that_are_joined_outlive_who_held_them(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    refs = keep(manager, tmp_path / "log")
    flat = manager.broadcast({"array": np.full(5000, 2.0), "number": "flat"})
    deep = manager.reduce("Join", refs, keep=True)
    # the only one of its type, whose values another type takes
    for name in {name_of(here, flat), name_of(here, deep)}:
        here.ask_workshop("restart", {"name": name})
    before = {flat.holder.worker, deep.holder.worker}
    wait_until(lambda: not before & {e["id"] for e in entries(here)})
    wait_until(lambda: all_idle(here, 1, "Join"))
    work = WorkPiece(inputs=[deep, flat])
    joined = manager.submit("Join", work).result(DEADLINE_S)
    assert (joined["array"] == sum(range(COUNT)) + 2).all()
    assert manager.gather([flat, deep])[0]["number"] == "flat"


def holders(manager: Manager, refs: list[DataRef]) -> set[str]:
    """Return the names of those who hold values, as far as the manager knows."""
    known = manager.engine._desk.values._whereabouts  # type: ignore[attr-defined]
    ids = {worker for ref in refs for worker in known.value(ref.id).holders}
    return {id.rpartition(".")[0] for id in ids}


@contextmanager
def alone(place: Path) -> Iterator[int]:
    """Run a worker that is none of the workshop's, as if on another computer."""
    command = [sys.executable, "-m", "opencluster.start", f"{TARGET}:JoinWorker"]
    environment = os.environ | {"OPENCLUSTER_DIR": str(place), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, '{"type": "Alone"}'], env=environment) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def test_values_of_a_computer_that_is_drained_go_to_another(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with alone(here.place.path) as pid:
        wait_until(lambda: "Alone" in manager.worker_types())
        refs = keep(manager, log)
        started, until = tmp_path / "started", tmp_path / "until"
        work = WorkPiece(do="blind", number=9, started=started, until=until)
        blind = manager.submit("Data", work)
        wait_until(started.exists)
        here.ask_workshop("drain", {})
        # one of them does not know yet that it is to end, and the manager does
        wait_until(lambda: holders(manager, refs) == {f"Alone-{pid}"}, "who holds them")
        assert not blind.done()
        until.touch()
        assert blind.result(DEADLINE_S)["number"] == 9
        wait_until(lambda: workers(here) == {pid}, "the others to end")
        assert [value["number"] for value in manager.gather(refs)] == list(range(COUNT))
        here.ask_workshop("undrain", {})
        check(manager, refs, log)


def test_who_has_nobody_to_leave_its_values_to_says_so_and_ends(
    here: LocalCluster, manager: Manager, tmp_path: Path
) -> None:
    ref = manager.scatter("value", to="Data")
    name = name_of(here, ref)
    here.ask_workshop("drain", {})
    wait_until(lambda: not workers(here), "all of them to end")
    assert "nobody is here who could take them" in log_of(here, name)
    with pytest.raises(DataLost):
        manager.gather(ref)
