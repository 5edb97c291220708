"""Workers that go away: stopped, asked to end, replaced; no piece goes with them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
from fault_tools import (
    DEADLINE_S,
    Liar,
    all_idle,
    cluster,
    counts,
    entries,
    fault,
    figures,
    is_running,
    log_of,
    pids,
    registered,
    runs,
    stopped,
    wait_until,
)

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.engines.base import Job, Options, Outcome
from opencluster.engines.cluster import connect
from opencluster.testing import LocalCluster
from opencluster.wire import codec, frames, kinds

pytestmark = pytest.mark.processes

LONG_S = 60.0


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    with cluster({"worker.drain_timeout_s": 1}, FaultWorker=2) as here:
        yield here


@pytest.fixture
def both(here: LocalCluster) -> set[int]:
    """Both worker processes, which have nothing to do and take many ahead."""
    wait_until(lambda: all_idle(here, 2), "two idle workers")
    manager = Manager("cluster")
    wait_until(lambda: len(manager.get_available_workers("Fault")) == 2)
    seen: Counter[int] = Counter()
    while len(seen) < 2 or min(seen.values()) < 50:
        quick = manager.map("Fault", [fault("ok")] * 200)
        seen.update(result["pid"] for result in quick)
    return pids(here)


@pytest.fixture
def only(here: LocalCluster, both: set[int]) -> Iterator[int]:
    """The worker process that is left when the other one was stopped for good."""
    here.ask_workshop("stop", {"name": name_of(here, min(both))})
    wait_until(lambda: len(pids(here)) == 1)
    yield pids(here).pop()
    here.ask_workshop("scale", {"type": "Fault", "count": 2})


def name_of(here: LocalCluster, pid: int) -> str:
    return next(entry["name"] for entry in entries(here) if entry["pid"] == pid)


# --- stopped --------------------------------------------------------------------


def test_the_pieces_of_a_stopped_worker_go_elsewhere(
    here: LocalCluster, both: set[int], tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    manager = Manager("cluster")
    pieces = [fault("sleep", s=0.02, n=n, runs=str(path)) for n in range(60)]
    futures = [manager.submit("Fault", piece) for piece in pieces]
    victim = wait_until(lambda: runs(path)[3:] and runs(path)[-1][1])
    with stopped(victim):
        results = [future.result(DEADLINE_S) for future in futures]
        assert [result["n"] for result in results] == list(range(60))
        wait_until(lambda: figures(here, victim).get("state") == "lost")
        assert is_running(victim)
    assert set(counts(path)) == {str(n) for n in range(60)}

    def takes_part() -> bool:
        results = list(manager.map("Fault", (fault("ok", n=n) for n in range(64))))
        assert [result["n"] for result in results] == list(range(64))
        return victim in {result["pid"] for result in results}

    wait_until(takes_part, "the worker is used again")
    assert pids(here) == both


def test_a_worker_that_comes_back_at_the_address_of_one_that_is_gone(
    here: LocalCluster,
) -> None:
    """As one does that has a port of its own, and is started again at once."""
    manager = Manager("cluster")
    result, _ = codec.encode(WorkPiece(n=1))
    with Liar("tcp://127.0.0.1:*") as first, registered(here, first.endpoint):
        future = manager.submit("Liar", fault("ok"))
        first.answer(first.take(), "done", result, 0, 0.1)
        assert future.result(DEADLINE_S) == {"n": 1}
        first.__exit__()
        # the first one is still in the registry
        with Liar(first.endpoint) as second, registered(here, second.endpoint) as new:
            future = manager.submit("Liar", fault("ok"))
            second.answer(second.take(), "done", result, 0, 0.1)
            assert future.result(DEADLINE_S) == {"n": 1}
            # and goes for good, while the second one works on
            for entry in entries(here, type="Liar"):
                if entry["id"] != new:
                    here.ask_factory("deregister", {"id": entry["id"]})
            for _ in range(3):
                future = manager.submit("Liar", fault("ok"))
                second.answer(second.take(), "done", result, 0, 0.1)
                assert future.result(DEADLINE_S) == {"n": 1}


def test_pieces_for_a_worker_whose_address_has_another_process_go_elsewhere(
    here: LocalCluster,
) -> None:
    manager = Manager("cluster")
    result, _ = codec.encode(WorkPiece(n=1))
    with (
        Liar("tcp://127.0.0.1:*") as other,
        Liar("tcp://127.0.0.1:*") as right,
        registered(here, other.endpoint) as gone,
    ):
        future = manager.submit("Liar", fault("ok"))
        number = other.take()
        # of somebody else that says nothing; of the one that was meant, all
        other.say(frames.pack(kinds.GONE, "somebody"))
        other.say(frames.pack(kinds.GONE, gone))
        with registered(here, right.endpoint):
            assert right.take() == number
            right.answer(number, "done", result, 0, 0.1)
            assert future.result(DEADLINE_S) == {"n": 1}


def test_a_worker_is_met_again_when_the_registry_told_of_its_predecessor_last(
    here: LocalCluster,
) -> None:
    """As a new leader of the factories may, whose copy was behind."""
    manager = Manager("cluster")
    result, _ = codec.encode(WorkPiece(n=1))
    with (
        Liar("tcp://127.0.0.1:*") as liar,
        registered(here, liar.endpoint) as alive,
    ):
        future = manager.submit("Liar", fault("ok"))
        liar.answer(liar.take(), "done", result, 0, 0.1)
        assert future.result(DEADLINE_S) == {"n": 1}
        with registered(here, liar.endpoint) as dead:
            future = manager.submit("Liar", fault("ok"))
            number = liar.take()
            if liar.meant == alive:
                # word of the other one was still on its way
                assert liar.take() == number
            assert liar.meant == dead
            liar.say(frames.pack(kinds.GONE, dead))
            assert (liar.take(), liar.meant) == (number, alive)
            liar.answer(number, "done", result, 0, 0.1)
            assert future.result(DEADLINE_S) == {"n": 1}


# --- asked to end ---------------------------------------------------------------


def test_sigterm_finishes_the_running_piece_and_returns_the_queued_ones(
    here: LocalCluster, both: set[int], tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    manager = Manager("cluster")
    pieces = [fault("sleep", s=0.1, n=n, runs=str(path)) for n in range(30)]
    futures = [manager.submit("Fault", piece) for piece in pieces]
    name, victim = wait_until(lambda: runs(path) and runs(path)[-1])
    identity = next(e["id"] for e in entries(here) if e["pid"] == victim)
    os.kill(victim, signal.SIGTERM)
    results = [future.result(DEADLINE_S) for future in futures]
    assert [result["n"] for result in results] == list(range(30))
    # each was run once: nothing was lost with the worker, nothing was run again
    assert counts(path) == {str(n): 1 for n in range(30)}
    assert (name, victim) in runs(path)
    assert sum(pid == victim for _, pid in runs(path)) < 5
    assert len({pid for _, pid in runs(path)}) >= 2
    wait_until(lambda: identity not in {e["id"] for e in entries(here)})
    log = f"(pid {victim}): exited with code 0"
    wait_until(lambda: log in log_of(here, "workshop"), log)


@pytest.mark.parametrize("stubborn", ["sleep_first", "swallow_first"])
def test_the_end_of_a_worker_is_not_put_off_for_ever(
    here: LocalCluster, both: set[int], tmp_path: Path, stubborn: str
) -> None:
    path = tmp_path / "runs"
    work = fault(stubborn, s=LONG_S, n="a", runs=str(path))
    future = Manager("cluster").submit("Fault", work)
    _, victim = wait_until(lambda: runs(path) and runs(path)[0])
    os.kill(victim, signal.SIGTERM)
    result = future.result(DEADLINE_S)
    assert result["n"] == "a" and result["pid"] != victim
    assert counts(path) == {"a": 2}
    wait_until(lambda: not is_running(victim))


def test_a_draining_worker_is_shown_as_such(
    here: LocalCluster, both: set[int], tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    work = fault("sleep", s=0.8, n="a", runs=str(path))
    future = Manager("cluster").submit("Fault", work)
    _, victim = wait_until(lambda: runs(path) and runs(path)[0])
    os.kill(victim, signal.SIGTERM)
    wait_until(lambda: figures(here, victim).get("state") == "draining")
    assert future.result(DEADLINE_S)["pid"] == victim


def test_a_draining_worker_sends_a_new_piece_back_once(
    here: LocalCluster, only: int, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    work = fault("sleep", s=0.8, n="a", runs=str(path))
    future = Manager("cluster").submit("Fault", work)
    wait_until(lambda: runs(path))
    os.kill(only, signal.SIGTERM)
    wait_until(lambda: figures(here, only).get("state") == "draining")
    # another manager, to which the worker has not said that it drains
    other = connect(load(), here.place)
    job = Job("other", "Other")
    outcomes: Queue[Outcome] = Queue()
    rows = [(fault("ok", n="b", ballast=bytes(10_000)), Options())]
    other.submit("Fault", rows, lambda _, outcome: outcomes.put(outcome), job)
    result = outcomes.get(timeout=DEADLINE_S).value()
    other.close()
    assert result["n"] == "b" and result["pid"] != only
    assert future.result(DEADLINE_S)["pid"] == only
    # to this worker, back, and to the next one
    assert job.statistics.bytes_sent < 2.5 * 10_000


def test_a_worker_is_stopped_by_its_workshop_for_good(
    here: LocalCluster, both: set[int], only: int
) -> None:
    victim = (both - {only}).pop()
    wait_until(lambda: not is_running(victim))
    # a process that took its place would have been started at once
    assert here.ask_workshop("scale", {"type": "Fault", "count": 1}) == {"names": []}
    assert pids(here) == {only}


# --- replaced -------------------------------------------------------------------


def test_workers_are_replaced_after_so_many_pieces(tmp_path: Path) -> None:
    # a replacement that counted as a failure would come after the end of this test
    settings = {"worker.max_pieces": 5, "workshop.restart_delay_s": 300}
    settings |= {"workshop.restart_delay_max_s": 300}
    path = tmp_path / "runs"
    with cluster(settings, FaultWorker=2) as here:
        pieces = (fault("ok", n=n, runs=str(path)) for n in range(30))
        results = list(Manager("cluster").map("Fault", pieces, retries=0))
        assert [result["n"] for result in results] == list(range(30))
        assert counts(path) == {str(n): 1 for n in range(30)}
        by_process = Counter(pid for _, pid in runs(path))
        assert max(by_process.values()) == 5
        assert len(by_process) >= 6
        wait_until(lambda: len(pids(here) - set(by_process)) == 2, "fresh workers")


def test_workers_are_replaced_above_so_much_memory(tmp_path: Path) -> None:
    settings = {"worker.max_memory": "200 MB", "workshop.restart_delay_s": 300}
    settings |= {"workshop.restart_delay_max_s": 300}
    path = tmp_path / "runs"
    with cluster(settings, FaultWorker=1):
        work = [fault("hoard", megabytes=120, n=n, runs=str(path)) for n in range(6)]
        results = list(Manager("cluster").map("Fault", work, retries=0))
        assert [result["n"] for result in results] == list(range(6))
        assert counts(path) == {str(n): 1 for n in range(6)}
        # the first piece of a process leaves it below the limit, the second above
        assert list(Counter(pid for _, pid in runs(path)).values()) == [2, 2, 2]
