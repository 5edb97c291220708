"""What is special about the engine on a Dask cluster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask_programs
import numpy as np
import pytest
from dask_site import dask_scheduler, dask_workers, on_dask

from opencluster import Manager, Worker, WorkPiece
from opencluster.engines.choice import close_engines, engine_at, find_engine
from opencluster.engines.dask import classes as dask_classes
from opencluster.errors import (
    ConfigError,
    DataLost,
    FactoryUnreachable,
    Interrupted,
    NoSuitableWorker,
    PieceCancelled,
    PieceTimeout,
    PoisonPiece,
    WorkerDied,
)

DEADLINE_S = 60.0
SETTINGS = {
    "manager.worker_wait_s": 20,
    "manager.max_kills": 2,
    "worker.interrupt_grace_s": 0.1,
    "worker.kill_grace_s": 0.2,
}


@pytest.fixture(scope="module")
def engine(dask_address: str) -> Iterator[None]:
    with on_dask(dask_address, SETTINGS):
        yield


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the classes of these tests: others have some of the same types."""
    ours = {"Pair": dask_programs.PairWorker, "Solo": dask_programs.SoloWorker}
    known = dask_classes.worker_class
    monkeypatch.setattr(
        dask_classes,
        "worker_class",
        lambda type, config: ours.get(type) or known(type, config),
    )


@pytest.fixture
def manager(engine: None) -> Manager:
    return Manager("dask")


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was awaited did not come"
        time.sleep(0.01)
    return found


# --- how it is found -------------------------------------------------------------


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'opencluster\[dask\]'"):
        find_engine("dask@tcp://127.0.0.1:1")


def test_a_scheduler_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCLUSTER_DASK_ADDRESS", raising=False)
    close_engines()
    with pytest.raises(ConfigError, match="--dask-address"):
        find_engine("dask")


def test_a_scheduler_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLUSTER_DASK_CONNECT_TIMEOUT_S", "0.2")
    with pytest.raises(
        FactoryUnreachable, match="no Dask scheduler answers at tcp://"
    ) as caught:
        find_engine("dask@tcp://127.0.0.1:1")
    # the inside of Dask would hide it
    assert caught.value.__suppress_context__


def test_a_scheduler_must_write_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENCLUSTER_DASK_ADDRESS", raising=False)
    monkeypatch.setenv("OPENCLUSTER_DASK_SCHEDULER_FILE", str(tmp_path / "none.json"))
    monkeypatch.setenv("OPENCLUSTER_DASK_CONNECT_TIMEOUT_S", "0.1")
    close_engines()
    with pytest.raises(FactoryUnreachable, match=r"its address into .*none\.json"):
        find_engine("dask")


def test_an_address_is_for_dask_alone(dask_address: str) -> None:
    assert engine_at("cluster", None) == "cluster"
    assert engine_at(None, "a:1") == engine_at("dask", "a:1") == "dask@a:1"
    with pytest.raises(ConfigError, match="not for the engine local"):
        engine_at("local", "a:1")
    with pytest.raises(ConfigError, match="no engine"):
        find_engine("local@a:1")


def test_what_is_missing_is_told_with_the_command_that_helps(
    dask_address: str,
) -> None:
    with on_dask(dask_address, {"manager.worker_wait_s": 0.2}):
        future = Manager("dask").submit("Telescope", WorkPiece())
        with pytest.raises(NoSuitableWorker) as caught:
            future.result(DEADLINE_S)
        engine: Any = find_engine("dask")

        def left() -> list[str]:
            keys = engine._client.run_on_scheduler(
                lambda dask_scheduler: list(map(str, dask_scheduler.tasks))
            )
            return [key for key in keys if "Telescope" in key]

        # it would begin when such a worker comes
        wait_until(lambda: not left())
    assert "no Dask worker offers a resource of that name" in str(caught.value)
    assert f'dask worker {dask_address} --resources "Telescope=1"' in str(caught.value)
    assert "Tool (2)" in str(caught.value)


# --- classes and instances -------------------------------------------------------


def test_a_worker_with_two_of_a_resource_has_two_instances(
    manager: Manager, tmp_path: Path
) -> None:
    pieces = [WorkPiece(do="meet", folder=tmp_path) for _ in range(2)]
    first = list(manager.map("Pair", pieces))
    again = list(manager.map("Pair", pieces))
    assert len({result["instance"] for result in first}) == 2
    assert len({result["pid"] for result in first + again}) == 1
    # they stay, and count on
    assert max(result["count"] for result in again) > 1
    handles = manager.get_available_workers("Pair")
    assert len({handle.id for handle in handles}) == 2
    assert manager.worker_types()["Pair"] == 2


def test_instances_end_with_the_client(dask_address: str, tmp_path: Path) -> None:
    for is_sudden in (False, True):
        folder = tmp_path / str(is_sudden)
        folder.mkdir()
        with on_dask(dask_address, SETTINGS):
            pieces = [WorkPiece(do="meet", folder=folder) for _ in range(2)]
            list(Manager("dask").map("Pair", pieces))
            engine: Any = find_engine("dask")
            if is_sudden:
                # as if the program was killed: the scheduler sees that it is gone
                engine._client.close()
            else:
                close_engines()
            wait_until(lambda: len(list(folder.glob("ended-*"))) == 2)  # noqa: B023


def test_a_class_that_workers_cannot_import_goes_by_value(manager: Manager) -> None:
    secret = os.urandom(4)

    class SpareWorker(Worker):
        def perform(self, work: WorkPiece) -> WorkPiece:
            return WorkPiece(secret=secret)

    assert manager.submit("Spare", WorkPiece()).result(DEADLINE_S) == {"secret": secret}
    del SpareWorker


def test_what_does_not_start_is_told(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    stillborn = dask_programs.StillbornWorker
    monkeypatch.setattr(dask_classes, "worker_class", lambda type, config: stillborn)
    with pytest.raises(NoSuitableWorker, match="the camera is unplugged"):
        manager.submit("Spare", WorkPiece()).result(DEADLINE_S)
    with pytest.raises(NoSuitableWorker, match="the clock has stopped"):
        manager.service("stillborn").time()


def test_every_worker_may_perform_every_type(dask_address: str) -> None:
    class AnyWorker(Worker):
        def perform(self, work: WorkPiece) -> WorkPiece:
            return WorkPiece(number=-work["number"])

    with on_dask(dask_address, SETTINGS | {"dask.resources": "no"}):
        manager = Manager("dask")
        results = manager.map("Any", [WorkPiece(number=n) for n in range(9)])
        assert [result["number"] for result in results] == [-n for n in range(9)]
        # one worker has two threads, the other one
        assert manager.worker_types() == {"Any": 3}
        assert len(manager.get_available_workers("Any")) == 3
    del AnyWorker


def test_a_piece_may_be_a_manager(manager: Manager) -> None:
    work = WorkPiece(do="manage", number=7)
    result = manager.submit("Solo", work).result(DEADLINE_S)
    assert result["total"] == 20
    assert manager.gather(result["ref"]) == {"deep": 7}


# --- order, and the end of pieces ------------------------------------------------


def gate(folder: Path, do: str = "wait") -> WorkPiece:
    started, until = folder / "started", folder / "until"
    return WorkPiece(do=do, started=started, until=until, folder=folder)


def constrained() -> int:
    """Return how many tasks wait for a resource, with the Dask worker that has most."""
    engine: Any = find_engine("dask")
    counts = engine._client.run(lambda dask_worker: len(dask_worker.state.constrained))
    return int(max(counts.values()))


def test_what_is_urgent_goes_first(manager: Manager, tmp_path: Path) -> None:
    work = gate(tmp_path)
    first = manager.submit("Solo", work)
    wait_until(work["started"].exists)
    note = {"do": "note", "log": tmp_path / "log"}
    options: list[dict[str, Any]] = [
        {},
        {"priority": -1},
        {"priority": 5},
        # so long that nothing makes way for it
        {"priority": "realtime", "deadline_s": DEADLINE_S},
    ]
    futures = [
        manager.submit("Solo", WorkPiece(note, number=number), **option)
        for number, option in enumerate(options)
    ]
    # all of them are with the worker when it comes to choose
    wait_until(lambda: constrained() == len(options))
    work["until"].touch()
    for future in [first, *futures]:
        future.result(DEADLINE_S)
    assert (tmp_path / "log").read_text().split() == ["3", "2", "0", "1"]


def test_what_is_equally_urgent_goes_in_the_order_of_submission(
    manager: Manager, tmp_path: Path
) -> None:
    work = gate(tmp_path)
    first = manager.submit("Solo", work)
    wait_until(work["started"].exists)
    note = {"do": "note", "log": tmp_path / "log"}
    pieces = [WorkPiece(note, number=number) for number in range(8)]
    futures = [manager.submit("Solo", piece) for piece in pieces]
    wait_until(lambda: constrained() == len(pieces))
    work["until"].touch()
    for future in [first, *futures]:
        future.result(DEADLINE_S)
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(8)]


def test_pieces_of_a_map_go_in_their_order(manager: Manager, tmp_path: Path) -> None:
    work = gate(tmp_path)
    first = manager.submit("Solo", work)
    wait_until(work["started"].exists)
    note = {"do": "note", "log": tmp_path / "log"}
    pieces = [WorkPiece(note, number=number) for number in range(8)]
    with ThreadPoolExecutor(1) as thread:
        # each is a task of its own when its result is kept
        kept = thread.submit(lambda: list(manager.map("Solo", pieces, keep=True)))
        wait_until(lambda: constrained() == len(pieces))
        work["until"].touch()
        assert len(kept.result(DEADLINE_S)) == len(pieces)
    first.result(DEADLINE_S)
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(8)]


def test_a_batch_piece_is_cut_short_for_one_that_cannot_wait(
    manager: Manager, tmp_path: Path
) -> None:
    work = gate(tmp_path)
    batch = manager.submit("Solo", work)
    wait_until(work["started"].exists)
    note = WorkPiece(do="note", number=1, log=tmp_path / "log")
    manager.submit("Solo", note, deadline_s=0.05).result(DEADLINE_S)
    assert not batch.done()
    # it is performed again from the start
    work["until"].touch()
    assert batch.result(DEADLINE_S)
    assert manager._job().statistics.pieces_cut == 1


def test_a_piece_that_asks_is_interrupted_at_once(
    manager: Manager, tmp_path: Path
) -> None:
    work = gate(tmp_path)
    future: Any = manager.submit("Solo", work)
    wait_until(work["started"].exists)
    never = manager.submit("Solo", gate(tmp_path / "never"))
    assert never.cancel()
    future.interrupt()
    with pytest.raises(Interrupted, match="interrupted on Solo@"):
        future.result(DEADLINE_S)
    with pytest.raises(PieceCancelled):
        never.result(DEADLINE_S)
    assert manager.submit("Solo", WorkPiece(do="who")).result(DEADLINE_S)


def test_a_handle_interrupts(manager: Manager, tmp_path: Path) -> None:
    (solo,) = manager.get_available_workers("Solo")
    work = gate(tmp_path)
    future = solo.submit(work)
    wait_until(work["started"].exists)
    solo.interrupt()
    with pytest.raises(Interrupted):
        future.result(DEADLINE_S)


def test_what_asks_nobody_has_an_exception_raised(
    manager: Manager, tmp_path: Path
) -> None:
    with pytest.raises(PieceTimeout, match="time limit of 0.1 s on Pair@"):
        manager.submit("Pair", gate(tmp_path, "ignore"), timeout_s=0.1).result(
            DEADLINE_S
        )


def test_what_goes_on_nevertheless_is_given_up(
    manager: Manager, tmp_path: Path
) -> None:
    work = gate(tmp_path, "resist")
    with pytest.raises(PieceTimeout):
        manager.submit("Pair", work, timeout_s=0.1).result(DEADLINE_S)
    assert (tmp_path / "resisted").exists()
    work["until"].touch()


def test_pieces_that_turn_out_long_do_not_wait_for_each_other(
    manager: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # from these it seems that they are short
    quick = [WorkPiece(do="note", number=0, log=tmp_path / "quick") for _ in range(40)]
    list(manager.map("Solo", quick))
    pieces = [WorkPiece(do="nap", number=n, log=log) for n in range(8)]
    assert len(list(manager.map("Solo", pieces))) == 8
    assert sorted(log.read_text().split()) == [str(n) for n in range(8)]


# --- losses ----------------------------------------------------------------------


def test_lost_workers_are_counted_for_each_piece(tmp_path: Path) -> None:
    with dask_scheduler() as address, on_dask(address, SETTINGS):
        manager = Manager("dask")
        log = tmp_path / "log"
        with dask_workers(address, 1, "Solo") as first:
            handle = manager.get_available_workers("Solo")[0]
            ref = manager.scatter("value", to=handle)
            assert manager.gather(ref) == "value"
            doomed = handle.submit(WorkPiece(do="die", log=log, times=9))
            first.wait(DEADLINE_S)
        with pytest.raises(DataLost, match="are gone"):
            manager.gather(ref)
        # what was for the worker that is lost goes to another
        with dask_workers(address, 1, "Solo"):
            with pytest.raises(PoisonPiece, match="ended 2 workers") as poisoned:
                doomed.result(DEADLINE_S)
            assert len({death.worker for death in poisoned.value.deaths}) == 2
        future = handle.submit(WorkPiece(do="who"))
        with dask_workers(address, 1, "Solo") as third:
            assert future.result(DEADLINE_S) == {"pid": third.pid}
            once = WorkPiece(do="die", log=tmp_path / "once", times=1)
            with pytest.raises(WorkerDied, match="once, 0 retries") as caught:
                manager.submit("Solo", once, retries=0).result(DEADLINE_S)
            assert "was lost" in caught.value.evidence.reason
        assert manager._job().statistics.pieces_retried == 1


def test_a_lost_scheduler_ends_what_waits_and_may_come_back() -> None:
    def plugins() -> list[str]:
        names: list[str] = engine._client.run_on_scheduler(
            lambda dask_scheduler: list(dask_scheduler.plugins)
        )
        return names

    with dask_scheduler() as address:
        manager = Manager(f"dask@{address}")
        engine: Any = manager.engine
        assert "opencluster" in plugins()
        futures = [
            manager.submit("Tool", WorkPiece(do="who")),
            manager.submit("Tool", WorkPiece(array=np.zeros(100_000))),
        ]
    with pytest.raises(PieceCancelled, match="the Dask scheduler at .* was lost"):
        futures[0].result(DEADLINE_S)
    futures[1].cancel()
    with dask_scheduler(int(address.rpartition(":")[2])):
        wait_until(lambda: engine._client.status == "running")
        wait_until(lambda: manager.worker_types() == {} and "opencluster" in plugins())
        engine._client.close()
    again = manager.submit("Tool", WorkPiece(do="who"))
    with pytest.raises(PieceCancelled, match="was lost"):
        again.result(DEADLINE_S)
    close_engines()
