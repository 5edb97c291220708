"""Data that stay in the workers: one suite for every engine."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask_site import on_dask, with_settings
from data_programs import TARGET

from opencluster import DataRef, Manager, WorkPiece
from opencluster.engines.choice import ENGINES
from opencluster.errors import (
    DataLost,
    LocalProtocolError,
    NoSuitableWorker,
    PieceCancelled,
    PieceFailed,
)
from opencluster.testing import LocalCluster

DEADLINE_S = 60.0
HERE = {
    f"{TARGET}:DataWorker": 2,
    f"{TARGET}:JoinWorker": 2,
    f"{TARGET}:TallyService": 1,
}
SETTINGS = {"manager.worker_wait_s": 2, "workshop.restart_delay_s": 0.05}


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the name of an engine on which the workers can be used."""
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
    """Return a manager on the engine, whose workers run."""
    manager = Manager(engine)
    # on some engines workers are started when they are first used
    manager.submit("Data", make(0)).result(DEADLINE_S)
    return manager


def make(number: Any, size: int = 1, **more: Any) -> WorkPiece:
    return WorkPiece(do="make", number=number, size=size, **more)


def look(manager: Manager, value: Any) -> Any:
    """Return a value as perform() sees it."""
    work = WorkPiece(do="look", value=value)
    return manager.submit("Data", work).result(DEADLINE_S)["value"]


# --- kept results ----------------------------------------------------------------


def test_a_kept_result_is_a_reference_to_it(manager: Manager) -> None:
    ref = manager.submit("Data", make(3, 10_000), keep=True).result(DEADLINE_S)
    assert type(ref) is DataRef
    assert ref.nbytes > 80_000
    value = manager.gather(ref)
    assert type(value) is WorkPiece
    assert (value["array"] == 3).all()


def test_a_worker_of_choice_keeps_its_result(manager: Manager) -> None:
    for handle in manager.get_available_workers("Data"):
        ref = handle.submit(make(4), keep=True).result(DEADLINE_S)
        assert type(ref) is DataRef
        assert ref.holder is not None
        assert ref.holder.worker in (handle.id, "this process")
        assert manager.gather(ref)["number"] == 4


def test_map_keeps_results_in_order(manager: Manager) -> None:
    refs = list(manager.map("Data", [make(n) for n in range(50)], keep=True))
    assert [value["number"] for value in manager.gather(refs)] == list(range(50))


def test_completed_results_may_be_kept(manager: Manager) -> None:
    pieces = [make(n) for n in range(20)]
    for done in manager.as_completed("Data", pieces, keep=True):
        assert manager.gather(done.result)["number"] == done.piece["number"]


def test_a_later_piece_finds_values_in_the_place_of_references(
    manager: Manager,
) -> None:
    refs = list(manager.map("Data", [make(n, 5000) for n in range(10)], keep=True))
    result = manager.submit("Data", WorkPiece(do="add", parts=refs)).result(DEADLINE_S)
    assert (result["array"] == sum(range(10))).all()


def test_a_chain_of_kept_results(manager: Manager) -> None:
    ref = manager.submit("Data", make(1), keep=True).result(DEADLINE_S)
    for _ in range(10):
        work = WorkPiece(do="add", parts=[ref, ref])
        ref = manager.submit("Data", work, keep=True).result(DEADLINE_S)
    assert manager.gather(ref)["number"] == 2**10


def test_references_stand_anywhere_in_a_piece(manager: Manager) -> None:
    one = manager.scatter([1, "one"])
    array = manager.scatter(np.arange(5000))
    seen = look(
        manager, {"a": [one, (array, {"b": one})], one.nbytes: WorkPiece(deep=array)}
    )
    assert seen["a"][0] == [1, "one"]
    assert (seen["a"][1][0] == np.arange(5000)).all()
    assert seen["a"][1][1]["b"] == [1, "one"]
    assert (seen[one.nbytes]["deep"] == np.arange(5000)).all()


def test_values_may_contain_references(manager: Manager) -> None:
    inner = manager.scatter("inner")
    middle = manager.scatter([inner, "middle"])
    outer = manager.scatter({"middle": middle})
    del inner, middle
    gc.collect()
    assert look(manager, outer) == {"middle": ["inner", "middle"]}
    gathered = manager.gather(outer)["middle"]
    del outer
    gc.collect()
    assert type(gathered) is DataRef
    assert look(manager, gathered) == ["inner", "middle"]


def test_kept_results_may_contain_references(manager: Manager) -> None:
    work = WorkPiece(do="look", value=manager.scatter("inner"))
    kept = manager.submit("Data", work, keep=True).result(DEADLINE_S)
    assert manager.gather(kept)["value"] == "inner"


def test_many_references_in_one_piece(manager: Manager) -> None:
    refs = manager.scatter_each(range(1000))
    assert look(manager, refs) == list(range(1000))


def test_a_worker_cannot_change_what_is_held(manager: Manager) -> None:
    ref = manager.scatter({"list": [], "array": np.zeros(5000)})
    for _ in range(2):
        work = WorkPiece(do="spoil", value=ref)
        result = manager.submit("Data", work).result(DEADLINE_S)
        assert result == WorkPiece(is_writeable=False)
    assert manager.gather(ref)["list"] == []


def test_memory_that_a_worker_uses_again_does_not_change_what_is_held(
    manager: Manager,
) -> None:
    pieces = [WorkPiece(do="reuse", number=n) for n in range(6)]
    refs = list(manager.map("Data", pieces, keep=True))
    assert [v["array"][7] for v in manager.gather(refs)] == list(range(6))


def test_a_kept_result_that_cannot_be_sent_is_a_failure(manager: Manager) -> None:
    future = manager.submit("Data", WorkPiece(do="lock"), keep=True)
    with pytest.raises(PieceFailed, match=r'result\["lock"\]'):
        future.result(DEADLINE_S)


def test_failures_are_failures_with_references_too(manager: Manager) -> None:
    ref = manager.scatter("value")
    work = WorkPiece(do="fail", value=ref)
    with pytest.raises(PieceFailed, match="cannot make it"):
        manager.submit("Data", work, keep=True).result(DEADLINE_S)


def test_recompute_is_for_kept_results(manager: Manager) -> None:
    with pytest.raises(ValueError, match="add keep=True"):
        manager.submit("Data", make(1), recompute=True)


def test_services_get_values_too(manager: Manager) -> None:
    ref = manager.submit("Data", make(2, 6000), keep=True).result(DEADLINE_S)
    assert manager.service("tally").total(ref) == 12_000
    # in perform() there is the value itself, which goes on to the service
    work = WorkPiece(do="call", service_value=ref)
    assert manager.submit("Data", work).result(DEADLINE_S)["total"] == 12_000


# --- scatter, gather, broadcast --------------------------------------------------


def test_values_of_all_kinds_come_back(manager: Manager) -> None:
    values = [None, 3, "text", [1, (2, {3})], np.arange(10_000).reshape(100, -1)]
    refs = manager.scatter_each(values, to="Data")
    gathered = manager.gather(refs)
    assert gathered[:-1] == values[:-1]
    assert (gathered[-1] == values[-1]).all()
    assert manager.gather([]) == []


def test_values_go_to_the_workers_that_are_named(engine: str, manager: Manager) -> None:
    workers = manager.get_available_workers("Data")
    refs = [manager.scatter(n, to=worker) for n, worker in enumerate(workers)]
    refs.append(manager.scatter("of one of them", to=workers))
    assert manager.gather(refs) == [*range(len(workers)), "of one of them"]
    if engine != "local":
        assert [ref.holder.worker for ref in refs[:-1]] == [w.id for w in workers]
    for wrong in (7, [7], []):
        with pytest.raises(TypeError, match="is a worker type"):
            manager.scatter("value", to=wrong)


def test_a_value_that_cannot_be_sent_is_not_scattered(manager: Manager) -> None:
    with pytest.raises(LocalProtocolError, match="value"):
        manager.scatter_each([1, object()])


def test_a_broadcast_value_is_there_for_everyone(manager: Manager) -> None:
    ref = manager.broadcast(np.arange(200_000.0))
    pieces = [WorkPiece(do="look", value=ref) for _ in range(10)]
    for result in manager.map("Data", pieces):
        assert (result["value"] == np.arange(200_000.0)).all()


def test_gathering_takes_futures_of_references(manager: Manager) -> None:
    futures = [manager.submit("Data", make(n), keep=True) for n in range(5)]
    assert [v["number"] for v in manager.gather(futures)] == list(range(5))
    assert manager.gather(futures[3])["number"] == 3


@pytest.mark.parametrize("wrong", [7, [7], [None]])
def test_what_is_no_reference_cannot_be_gathered(manager: Manager, wrong: Any) -> None:
    with pytest.raises(TypeError):
        manager.gather(wrong)


def test_released_values_are_gone(manager: Manager) -> None:
    ref, other = manager.scatter_each(["one", "other"])
    manager.release(ref)
    for attempt in (
        lambda: manager.gather([other, ref]),
        lambda: look(manager, [ref]),
    ):
        with pytest.raises(DataLost, match="it was released") as caught:
            attempt()
        assert list(caught.value.reasons) == [ref.id[-4:].hex()]
    assert manager.gather(other) == "other"
    manager.release([ref, other])


# --- reduce ----------------------------------------------------------------------


def tree(names: list[str], arity: int) -> str:
    while len(names) > 1:
        groups = [names[n : n + arity] for n in range(0, len(names), arity)]
        names = [g[0] if len(g) == 1 else f"({' '.join(g)})" for g in groups]
    return names[0]


@pytest.mark.parametrize(("count", "arity"), [(2, 2), (7, 2), (16, 4), (11, 3)])
def test_a_reduction_is_a_tree_of_neighbours(
    manager: Manager, count: int, arity: int
) -> None:
    refs = list(manager.map("Data", [make(n, 100) for n in range(count)], keep=True))
    result = manager.reduce("Join", refs, arity=arity)
    assert result["number"] == tree([str(n) for n in range(count)], arity)
    assert (result["array"] == sum(range(count))).all()


def test_a_reduction_takes_what_is_still_to_come(manager: Manager) -> None:
    futures = (manager.submit("Data", make(n), keep=True) for n in range(9))
    assert manager.reduce("Join", futures)["array"] == 36
    kept = manager.map("Data", (make(n) for n in range(9)), keep=True)
    ref = manager.reduce("Join", kept, keep=True)
    assert manager.gather(ref)["array"] == 36


def test_one_value_is_its_own_reduction(manager: Manager) -> None:
    ref = manager.scatter("alone")
    assert manager.reduce("Join", [ref]) == "alone"
    with pytest.raises(ValueError, match="nothing to reduce"):
        manager.reduce("Join", [])


def test_a_failure_ends_a_reduction(manager: Manager) -> None:
    pieces = [make("poison" if n == 5 else n) for n in range(8)]
    with pytest.raises((PieceFailed, ValueError)):
        refs = list(manager.map("Data", pieces[:5], keep=True))
        manager.reduce("Join", [*refs, *map(manager.scatter, [POISON, POISON])])
    with pytest.raises(TypeError, match="a DataRef is wanted, not int"):
        manager.reduce("Join", [manager.scatter(1), 2])


POISON = WorkPiece(number="poison", array=np.zeros(1))


def test_what_makes_the_inputs_may_fail(manager: Manager) -> None:
    works = [make(1), WorkPiece(do="fail"), make(2), make(3)]
    futures = [manager.submit("Data", work, keep=True) for work in works]
    with pytest.raises(PieceFailed, match="cannot make it"):
        manager.reduce("Join", futures)


# --- waiting, and giving up ------------------------------------------------------


# on the engine of this process pieces are over before they can be withdrawn
@pytest.mark.parametrize("engine", ["process", "cluster", "dask"], indirect=True)
def test_a_piece_with_references_can_be_withdrawn(
    manager: Manager, tmp_path: Path
) -> None:
    ref = manager.scatter("value")
    started, until = tmp_path / "started", tmp_path / "until"
    work = WorkPiece(do="wait", started=started, until=until, value=ref, number=1)
    future = manager.submit("Data", work, keep=True)
    future.cancel()
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)
    assert look(manager, ref) == "value"


# the other engines start workers, or need none
@pytest.mark.parametrize("engine", ["cluster", "dask"], indirect=True)
def test_nobody_holds_values_where_nobody_is(engine: str) -> None:
    with pytest.raises(NoSuitableWorker, match="no worker of type 'Nobody'"):
        Manager(engine).scatter("value", to="Nobody")
