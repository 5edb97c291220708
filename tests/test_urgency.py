"""Real-time pieces on a cluster of processes that is full of batch pieces.

Batch pieces here go on until a file is there, which is made when the real-time pieces
have their results: so these can have come only by the batch pieces making way.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from urgency_programs import DEADLINE_S, TARGET, pids, runs

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.core.crew import Crew
from opencluster.core.pieces import MAX_CUTS
from opencluster.engines.base import Options, perform
from opencluster.engines.cluster import connect
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes

URGENT = 1000
"""The number of the first real-time piece of a test."""
FAST = {
    "cluster.heartbeat_interval_s": 0.2,
    "workshop.poll_interval_s": 0.1,
    "workshop.restart_delay_s": 0.05,
    "workshop.restart_delay_max_s": 0.1,
    "manager.deadline_s": 0,
}


class User:
    """Whose pieces they are, and who performs them."""

    def __init__(self, folder: Path, type: str = "Patient") -> None:
        self.type = type
        self.log = folder / "log"
        self.gate = folder / "gate"
        self.manager = Manager()
        self.manager.get_available_workers(type)

    def work(self, n: int, do: str) -> WorkPiece:
        return WorkPiece(n=n, do=do, log=self.log, gate=self.gate)

    def submit(self, n: int, do: str, **options: Any) -> Future[WorkPiece]:
        return self.manager.submit(self.type, self.work(n, do), **options)

    def perform_urgent(self, n: int, do: str = "answer") -> None:
        """Have a real-time piece performed, and wait for it."""
        result = self.submit(n, do, priority="realtime").result(DEADLINE_S)
        assert (result["n"], result["is_whole"]) == (n, True)

    def until_begun(self, *any_of: int, times: int = 1) -> int:
        """Wait until one of these pieces was begun so often, and return which one."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            begun = runs(self.log)
            found = [n for n in any_of if begun[n] >= times]
            if found:
                return found[0]
            time.sleep(0.005)
        raise AssertionError(f"none of the pieces {any_of} was begun")

    def open_gate(self) -> None:
        self.gate.touch()

    def check(self, *futures: Future[WorkPiece]) -> None:
        """See that pieces had their own results in the end, whole ones."""
        for n, future in enumerate(futures):
            result = future.result(DEADLINE_S)
            assert (result["n"], result["is_whole"]) == (n, True)

    @property
    def cuts(self) -> int:
        return self.manager._job().statistics.pieces_cut


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    workers = {f"{TARGET}:PatientWorker": 1, f"{TARGET}:PairWorker": 2}
    with LocalCluster(workers, FAST) as here:
        yield here


@pytest.fixture
def user(here: LocalCluster, tmp_path: Path) -> User:
    return User(tmp_path)


@pytest.fixture
def user_of_two(here: LocalCluster, tmp_path: Path) -> User:
    return User(tmp_path, "Pair")


def test_a_real_time_piece_gets_in_though_all_workers_are_full(
    user_of_two: User,
) -> None:
    user = user_of_two
    futures = [user.submit(n, "report") for n in range(6)]
    user.until_begun(0)
    user.until_begun(1)
    for n in range(4):
        user.perform_urgent(URGENT + n)
    user.open_gate()
    user.check(*futures)
    assert user.cuts >= 1
    # what made way was begun again, and nothing else
    begun = runs(user.log)
    assert sum(begun[n] for n in range(6)) == 6 + user.cuts


def test_a_real_time_piece_gets_in_before_the_pieces_of_another_manager(
    user: User, here: LocalCluster
) -> None:
    futures = [user.submit(n, "report") for n in range(3)]
    user.until_begun(0)
    other = connect(load(), here.place)
    try:
        other.workers(user.type, DEADLINE_S)
        work, options = user.work(URGENT, "answer"), Options(deadline_s=0.0)
        assert perform(other, user.type, work, options)["n"] == URGENT
    finally:
        other.close()
    user.open_gate()
    user.check(*futures)
    assert user.cuts == 1


def test_what_a_piece_returns_after_it_looked_if_it_should_stop_is_dropped(
    user: User,
) -> None:
    future = user.submit(0, "look")
    user.until_begun(0)
    user.perform_urgent(URGENT)
    user.until_begun(0, times=2)
    user.open_gate()
    user.check(future)
    assert user.cuts == 1


def test_what_a_piece_makes_of_its_end_is_no_failure(user: User) -> None:
    future = user.submit(0, "swallow", retries=0)
    user.until_begun(0)
    user.perform_urgent(URGENT)
    user.open_gate()
    user.check(future)
    assert user.cuts == 1


@pytest.mark.parametrize("do", ["fork", "set_alarm"])
def test_nobody_sees_what_came_who_could_lose_it(user: User, do: str) -> None:
    future = user.submit(0, do)
    user.until_begun(0)
    for n in range(3):
        user.perform_urgent(URGENT + n)
    user.check(future)
    user.perform_urgent(URGENT + 3)


def test_a_piece_that_made_way_often_enough_is_left_to_end(user: User) -> None:
    future = user.submit(0, "report")
    for cut in range(MAX_CUTS):
        user.until_begun(0, times=1 + cut)
        user.perform_urgent(URGENT + cut)
    user.until_begun(0, times=1 + MAX_CUTS)
    last = user.submit(URGENT + MAX_CUTS, "answer", priority="realtime")
    user.open_gate()
    assert last.result(DEADLINE_S)["is_whole"]
    user.check(future)
    assert user.cuts == MAX_CUTS
    assert runs(user.log)[0] == 1 + MAX_CUTS


def test_the_pieces_of_a_bundle_that_makes_way_are_done_once(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.submit(0, "answer").result(DEADLINE_S)
    user.log.unlink()
    monkeypatch.setattr(Crew, "bundle_size", property(lambda self: 8))
    works = (user.work(n, "report" if n == 3 else "answer") for n in range(8))
    results: list[Any] = []
    flow = user.manager.map(user.type, works, progress=False)
    first = next(flow)
    user.until_begun(3)
    user.perform_urgent(URGENT)
    user.open_gate()
    results = [first, *flow]
    assert [result["n"] for result in results] == list(range(8))
    assert user.cuts == 1
    begun = runs(user.log)
    assert {n: begun[n] for n in range(8)} == dict.fromkeys(range(8), 1) | {3: 2}


def test_a_worker_that_is_killed_with_a_piece_that_had_made_way(
    user_of_two: User,
) -> None:
    user = user_of_two
    futures = [user.submit(n, "report") for n in range(2)]
    user.until_begun(0)
    user.until_begun(1)
    user.perform_urgent(URGENT)
    cut = user.until_begun(0, 1, times=2)
    os.kill(pids(user.log, cut)[-1], signal.SIGKILL)
    user.until_begun(cut, times=3)
    user.open_gate()
    user.check(*futures)
    assert user.cuts == 1


def test_a_real_time_piece_that_kills_its_worker_takes_no_batch_piece_with_it(
    user_of_two: User,
) -> None:
    user = user_of_two
    # without a retry, what made way must not count as lost
    futures = [user.submit(n, "report", retries=0) for n in range(2)]
    user.until_begun(0)
    user.until_begun(1)
    user.perform_urgent(URGENT, "kill_once")
    user.open_gate()
    user.check(*futures)
    assert user.cuts >= 1
