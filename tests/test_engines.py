"""One suite for every engine: the same calls, the same results, the same errors."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from cluster_programs import TARGET
from dask_site import on_dask, with_settings

from opencluster import Completed, Manager, Worker, WorkPiece
from opencluster.engines.base import Options, Outcome
from opencluster.engines.choice import ENGINES, close_engines, find_engine
from opencluster.errors import (
    ConfigError,
    LocalProtocolError,
    NoSuitableWorker,
    PieceCancelled,
    PieceFailed,
)
from opencluster.testing import LocalCluster

SETTINGS = {"manager.worker_wait_s": 0.5, "workshop.restart_delay_s": 0.05}
PATH_TO_LOCK = r'piece\["parts"\]\["lock"\]\[0\]'
HERE = {f"{TARGET}:ToolWorker": 2, f"{TARGET}:ToolboxService": 1}


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the name of an engine on which the tools can be used."""
    where: AbstractContextManager[object]
    if request.param == "dask":
        where = on_dask(request.getfixturevalue("dask_address"), SETTINGS)
    elif request.param == "cluster":
        where = LocalCluster(HERE, SETTINGS)
    else:
        directory = tmp_path_factory.mktemp("place")
        where = with_settings({**SETTINGS, "dir": directory})
    with where:
        yield request.param


@pytest.fixture
def manager(engine: str) -> Manager:
    """Return a manager on the engine."""
    return Manager(engine)


def numbers(count: int, do: str = "square") -> list[WorkPiece]:
    return [WorkPiece(do=do, number=number) for number in range(count)]


# --- map and as_completed ----------------------------------------------------


def test_map_keeps_the_order(manager: Manager) -> None:
    results = [r["number"] for r in manager.map("Tool", numbers(300))]
    assert results == [n**2 for n in range(300)]


def test_results_are_workpieces(manager: Manager) -> None:
    (result,) = manager.map("Tool", numbers(1))
    assert type(result) is WorkPiece


def test_unordered_map_yields_each_result_once(manager: Manager) -> None:
    results = manager.map("Tool", numbers(300), ordered=False)
    assert sorted(r["number"] for r in results) == [n**2 for n in range(300)]


def test_completed_results_come_with_their_pieces(manager: Manager) -> None:
    pieces = numbers(100)
    seen = set()
    for done in manager.as_completed("Tool", pieces):
        assert isinstance(done, Completed)
        assert done.piece is pieces[done.number]
        assert done.result["number"] == done.number**2
        seen.add(done.number)
    assert seen == set(range(100))


def test_map_of_nothing_is_nothing(manager: Manager) -> None:
    assert list(manager.map("Tool", [])) == []
    assert list(manager.map("NoSuchType", iter([]))) == []


def test_endless_pieces_are_read_as_far_as_the_window(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLUSTER_MANAGER_WINDOW", "10")
    read = 0

    def endless() -> Iterator[WorkPiece]:
        nonlocal read
        while True:
            read += 1
            yield WorkPiece(do="square", number=read)

    results = Manager(engine).map("Tool", endless())
    for taken, result in enumerate(itertools.islice(results, 100), 1):
        assert result["number"] == taken**2
        assert read <= taken + 10


@pytest.mark.parametrize("ordered", [True, False])
def test_results_do_not_wait_for_a_slow_source(manager: Manager, ordered: bool) -> None:
    read = 0

    def slow() -> Iterator[WorkPiece]:
        nonlocal read
        while read < 999:
            read += 1
            time.sleep(0.006)
            yield WorkPiece(do="square", number=2)

    results = manager.map("Tool", slow(), ordered=ordered)
    first = [next(results)["number"] for _ in range(5)]
    assert first == [4] * 5
    assert read < 999
    results.close()  # type: ignore[attr-defined]


def test_the_local_engine_takes_one_step_at_a_time() -> None:
    read: list[WorkPiece] = []

    def source() -> Iterator[WorkPiece]:
        for piece in numbers(100):
            read.append(piece)
            yield piece

    results = Manager("local").map("Tool", source())
    for taken in (1, 2, 3):
        next(results)
        assert len(read) == taken


def test_one_map_can_feed_another(manager: Manager) -> None:
    squares = manager.map("Tool", numbers(100))
    again = (WorkPiece(square, do="square") for square in squares)
    fourth = [r["number"] for r in manager.map("Tool", again)]
    assert fourth == [n**4 for n in range(100)]


def test_maps_run_side_by_side(manager: Manager) -> None:
    def total(count: int) -> int:
        return sum(r["number"] for r in manager.map("Tool", numbers(count)))

    with ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(total, [10, 20, 30, 40]))
    assert totals == [sum(n**2 for n in range(c)) for c in (10, 20, 30, 40)]


def test_leaving_a_loop_leaves_the_engine_usable(manager: Manager) -> None:
    for result in manager.map("Tool", numbers(200)):
        if result["number"] == 25:
            break
    assert [r["number"] for r in manager.map("Tool", numbers(3))] == [0, 1, 4]


def test_what_the_source_raises_comes_through(manager: Manager) -> None:
    def broken() -> Iterator[WorkPiece]:
        yield WorkPiece(do="square", number=1)
        raise RuntimeError("disk is gone")

    with pytest.raises(RuntimeError, match="disk is gone"):
        list(manager.map("Tool", broken()))


# --- values ------------------------------------------------------------------


def test_values_arrive_as_they_were(manager: Manager) -> None:
    piece = WorkPiece(
        do="echo",
        path=Path("a/b"),
        time=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        nested={"tuple": (1, [2.5, None]), "set": {1, 2}, 3: b"x"},
        array=np.arange(6, dtype=">i2").reshape(2, 3),
        large=np.arange(100_000, dtype="f4")[::2],
        inner=WorkPiece(a=1),
    )
    (result,) = manager.map("Tool", [piece])
    arrays = {name: result.pop(name) for name in ("array", "large")}
    for name, array in arrays.items():
        assert array.dtype == piece[name].dtype
        assert np.array_equal(array, piece[name])
    assert result == {k: v for k, v in piece.items() if k not in arrays}
    assert type(result["inner"]) is WorkPiece


def test_a_worker_has_a_piece_of_its_own(manager: Manager) -> None:
    piece = WorkPiece(do="spoil", list=[], array=np.zeros(10))
    (result,) = manager.map("Tool", [piece])
    assert result["is_writeable"] is False
    assert piece["list"] == []


# --- futures and handles -----------------------------------------------------


def test_submit_returns_a_future(manager: Manager) -> None:
    futures = [manager.submit("Tool", piece) for piece in numbers(20)]
    assert [f.result(30)["number"] for f in futures] == [n**2 for n in range(20)]
    assert not any(f.cancelled() for f in futures)
    assert not futures[0].cancel()


def test_progress_reaches_the_manager(manager: Manager) -> None:
    seen: list[tuple[float, float]] = []
    future = manager.submit(
        "Tool",
        WorkPiece(do="report_progress"),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert future.result(30) == {}
    assert seen == [(1, 4)]


def test_handles_perform_and_submit(manager: Manager) -> None:
    for worker in manager.get_available_workers("Tool"):
        assert worker.type == "Tool"
        assert worker.name in repr(worker)
        assert worker.host
        one = worker.perform(WorkPiece(do="who"))
        two = worker.submit(WorkPiece(do="who")).result(30)
        assert one["pid"] == two["pid"]


# --- failures ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "exception_type", "message"),
    [
        ("fail", "ValueError", "cannot do 5"),
        ("leave", "SystemExit", "the code called exit: enough"),
        ("return_nothing", "TypeError", "must return a WorkPiece, not NoneType"),
        ("return_number", "TypeError", "must return a WorkPiece, not int"),
        ("return_socket", "LocalProtocolError", 'result["parts"][1]'),
        ("no_such_tool", "AttributeError", "no_such_tool"),
    ],
)
def test_failures_are_the_same_everywhere(
    manager: Manager, do: str, exception_type: str, message: str
) -> None:
    piece = WorkPiece(do=do, number=5)
    with pytest.raises(PieceFailed) as caught:
        list(manager.map("Tool", [piece]))
    error = caught.value
    assert error.exception_type == exception_type
    assert message in error.message
    assert (
        error.remote_traceback.rstrip()
        .splitlines()[-1]
        .startswith((exception_type, f"opencluster.errors.{exception_type}"))
    )
    assert error.worker.startswith("Tool")
    future = manager.submit("Tool", piece)
    with pytest.raises(PieceFailed, match=exception_type):
        future.result(30)


def test_traceback_shows_the_users_lines_first(manager: Manager) -> None:
    with pytest.raises(PieceFailed) as caught:
        list(manager.map("Tool", [WorkPiece(do="fail", number=5)]))
    lines = caught.value.remote_traceback.splitlines()
    assert "cluster_programs.py" in lines[1]
    assert "raise ValueError" in caught.value.remote_traceback


def test_first_failure_is_raised_at_its_place(manager: Manager) -> None:
    results = manager.map("Tool", numbers(10, "fail_if_odd"))
    assert next(results)["number"] == 0
    with pytest.raises(PieceFailed, match="cannot do 1"):
        next(results)
    assert list(results) == []


def test_failures_can_be_returned(manager: Manager) -> None:
    results = manager.map("Tool", numbers(6, "fail_if_odd"), return_errors=True)
    shown = [r.message if isinstance(r, PieceFailed) else r["number"] for r in results]
    assert shown == [0, "cannot do 1", 2, "cannot do 3", 4, "cannot do 5"]
    done = manager.as_completed("Tool", numbers(6, "fail_if_odd"), return_errors=True)
    failed = {d.number for d in done if isinstance(d.result, PieceFailed)}
    assert failed == {1, 3, 5}


@pytest.mark.parametrize(("retries", "is_enough"), [(2, True), (1, False)])
def test_failures_are_retried_when_asked_for(
    manager: Manager, tmp_path: Path, retries: int, is_enough: bool
) -> None:
    piece = WorkPiece(do="fail_at_first", failures=2, log=tmp_path / "log")
    results = list(
        manager.map("Tool", [piece], error_retries=retries, return_errors=True)
    )
    if is_enough:
        assert results == [{"failures": 2}]
    else:
        assert "failure 2" in str(results[0])


@pytest.mark.parametrize("piece", [{"do": "square"}, None, 3, "x"])
def test_what_is_no_workpiece_is_refused(manager: Manager, piece: Any) -> None:
    with pytest.raises(TypeError, match="must be a WorkPiece"):
        list(manager.map("Tool", [piece]))
    with pytest.raises(TypeError, match="must be a WorkPiece"):
        manager.submit("Tool", piece)


def test_what_cannot_be_sent_is_named(manager: Manager) -> None:
    piece = WorkPiece(do="echo", parts={"lock": [object()]})
    with pytest.raises(LocalProtocolError, match=PATH_TO_LOCK):
        list(manager.map("Tool", [piece]))
    with pytest.raises(LocalProtocolError, match=PATH_TO_LOCK):
        manager.submit("Tool", piece)


def test_a_type_that_nobody_performs(manager: Manager) -> None:
    piece = WorkPiece()
    with pytest.raises(NoSuitableWorker, match="NoSuchType"):
        list(manager.map("NoSuchType", [piece]))
    future = manager.submit("NoSuchType", piece)
    with pytest.raises(NoSuitableWorker, match="NoSuchType"):
        future.result(30)
    (error,) = manager.map("NoSuchType", [piece], return_errors=True)
    assert isinstance(error, NoSuitableWorker)
    with pytest.raises(NoSuitableWorker, match="NoSuchType"):
        manager.get_available_workers("NoSuchType")


# --- services ----------------------------------------------------------------


def test_a_service_is_called_by_name(manager: Manager) -> None:
    toolbox = manager.service("toolbox")
    assert toolbox.add(1, 2) == 3
    assert toolbox.add(b=5, a=1) == 6
    assert repr(toolbox) == "<service toolbox>"


def test_workers_call_services(manager: Manager) -> None:
    # so that nobody but the workers has called the service
    close_engines()
    sums = [r["sum"] for r in manager.map("Tool", numbers(10, "ask"))]
    assert sums == list(range(1, 11))


@pytest.mark.parametrize(
    ("method", "exception_type", "message"),
    [
        ("fail", "KeyError", "no such tool"),
        ("leave", "SystemExit", "the code called exit: closed"),
        ("secret", "AttributeError", "has no remote method 'secret'; it has: add,"),
        ("startup", "AttributeError", "has no remote method 'startup'"),
        ("nothing", "AttributeError", "has no remote method 'nothing'"),
    ],
)
def test_failures_of_services_are_the_same_everywhere(
    manager: Manager, method: str, exception_type: str, message: str
) -> None:
    with pytest.raises(PieceFailed) as caught:
        getattr(manager.service("toolbox"), method)()
    assert caught.value.exception_type == exception_type
    assert message in caught.value.message


def test_a_service_that_is_not_there(manager: Manager) -> None:
    with pytest.raises(NoSuitableWorker, match="nosuchservice"):
        manager.service("nosuchservice").add(1)


def test_underscores_are_no_methods_of_services(manager: Manager) -> None:
    with pytest.raises(AttributeError):
        _ = manager.service("toolbox")._private


# --- jobs and the choice of an engine ----------------------------------------


class Squares(Manager):
    def schedule(self, task: WorkPiece) -> WorkPiece:
        results = self.map("Tool", numbers(task["count"]))
        return WorkPiece(total=sum(r["number"] for r in results))


class Careless(Squares):
    """Has a constructor that does not call the one of `Manager`."""

    def __init__(self, engine: str) -> None:
        self._engine_name = engine


@pytest.mark.parametrize("kind", [Squares, Careless])
def test_a_task_is_run(engine: str, kind: type[Squares]) -> None:
    assert kind(engine).run(WorkPiece(count=5)) == {"total": 30}


def test_a_manager_must_have_a_schedule(manager: Manager) -> None:
    with pytest.raises(NotImplementedError, match="must define schedule"):
        manager.run(WorkPiece())


def test_there_are_only_these_engines() -> None:
    with pytest.raises(ConfigError, match="no engine 'fog'; choose one of local"):
        Manager("fog").submit("Tool", WorkPiece())


def test_a_process_engine_tells_why_workers_do_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENCLUSTER_DIR", str(tmp_path))
    monkeypatch.setenv("OPENCLUSTER_WORKSHOP_RESTART_DELAY_S", "0.05")
    future = Manager("process").submit("Broken", WorkPiece())
    with pytest.raises(NoSuitableWorker, match="the camera is unplugged"):
        future.result(30)
    close_engines()


def test_a_process_engine_has_nothing_to_do_with_a_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENCLUSTER_DIR", str(tmp_path))
    # an address for documentation, at which nobody answers
    monkeypatch.setenv("OPENCLUSTER_CLUSTER_FACTORIES", "192.0.2.1:9100")
    results = Manager("process").map("Tool", numbers(3))
    assert [r["number"] for r in results] == [0, 1, 4]
    close_engines()
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_is_defined_anew_is_meant_from_then_on() -> None:
    ended = []

    def define(version: int) -> None:
        class NotebookWorker(Worker):
            def perform(self, work: WorkPiece) -> WorkPiece:
                return WorkPiece(version=version)

            def shutdown(self) -> None:
                ended.append(version)

        kept.append(NotebookWorker)

    kept: list[type[Worker]] = []
    manager = Manager("local")
    for version in (1, 2):
        define(version)
        (result,) = manager.map("Notebook", [WorkPiece()])
        assert result == {"version": version}
    assert ended == [1]


def test_an_engine_is_shared_until_it_is_closed(engine: str) -> None:
    first = find_engine(engine)
    assert find_engine(engine) is first
    close_engines()
    assert find_engine(engine) is not first


def test_what_is_submitted_to_a_closed_engine_ends() -> None:
    with LocalCluster() as cluster:
        engine = find_engine()
        close_engines(cluster.place)
        ended: SimpleQueue[Outcome] = SimpleQueue()
        piece = (WorkPiece(n=1), Options())
        engine.submit("Anything", [piece], lambda number, outcome: ended.put(outcome))
        with pytest.raises(PieceCancelled, match="closed"):
            ended.get(timeout=20).value()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_an_engine_of_its_own() -> None:
    with LocalCluster():
        before = find_engine()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write_end, b"own" if find_engine() is not before else b"same")
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read_end, 10) == b"own"
        for end in (read_end, write_end):
            os.close(end)
