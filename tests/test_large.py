"""Large pieces over ZeroMQ: small ones pass them, and what becomes of lost ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from large_programs import TARGET

from opencluster import Manager, WorkPiece
from opencluster.errors import PieceCancelled
from opencluster.testing import LocalCluster

DEADLINE_S = 60.0
SETTINGS = {
    "network.express_lane": "false",
    "workshop.restart_delay_s": 0.05,
    "manager.worker_wait_s": 30,
    "manager.buffer_bytes": 1 << 30,
}
LARGE = np.arange(8 << 20, dtype=float)
"""An array of 64 MiB."""


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Yield a manager with one worker, which is reached over ZeroMQ."""
    with LocalCluster({f"{TARGET}:LargeWorker": 1}, SETTINGS):
        yield Manager()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def stop(pid: int) -> None:
    """Stop a process, and wait until none of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)
    states = [Path(thread, "stat") for thread in Path(f"/proc/{pid}/task").iterdir()]
    wait_for(lambda: all(state.read_text().split()[2] == "T" for state in states))


def pid_of_worker(manager: Manager) -> int:
    pid: int = manager.submit("Large", WorkPiece()).result(DEADLINE_S)["pid"]
    return pid


def test_small_pieces_pass_large_ones_on_their_way(manager: Manager) -> None:
    pid_of_worker(manager)
    pieces = [WorkPiece(array=LARGE), *(WorkPiece(array=n) for n in range(3))]
    done = list(manager.as_completed("Large", pieces))
    assert [completed.number for completed in done] == [1, 2, 3, 0]
    assert np.array_equal(done[-1].result["array"], LARGE)


def test_a_worker_that_dies_while_a_piece_comes_does_not_lose_it(
    manager: Manager,
) -> None:
    before = pid_of_worker(manager)
    stop(before)
    future = manager.submit("Large", WorkPiece(array=LARGE))
    wait_for(lambda: manager.engine.moved().to_send > 0)
    os.kill(before, signal.SIGKILL)
    result = future.result(DEADLINE_S)
    assert result["pid"] != before
    assert np.array_equal(result["array"], LARGE)
    assert manager.engine.moved().to_send == 0


def test_a_piece_that_is_cancelled_on_its_way_does_not_run(
    manager: Manager, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    worker = pid_of_worker(manager)
    stop(worker)
    future = manager.submit("Large", WorkPiece(array=LARGE, log=log, number=1))
    wait_for(lambda: manager.engine.moved().to_send > 0)
    assert future.cancel()
    os.kill(worker, signal.SIGCONT)
    # before all of it has come
    wait_for(lambda: manager.engine.moved().to_send == 0)
    manager.submit("Large", WorkPiece(log=log, number=2)).result(DEADLINE_S)
    assert log.read_text() == "2\n"
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)


def test_a_result_is_as_it_was_though_its_memory_is_used_again(
    manager: Manager,
) -> None:
    pieces = [WorkPiece(reuse=float(number)) for number in range(30)]
    for number, result in enumerate(manager.map("Large", pieces)):
        assert result["array"].min() == result["array"].max() == number
