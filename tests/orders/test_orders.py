"""Orders for a job that runs in another process, given from outside."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from opencluster import Manager, WorkPiece
from opencluster.cli import main
from opencluster.config import load
from opencluster.errors import PieceCancelled, RegistryError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.job_orders import find_job, order_job
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes
DEADLINE_S = 30.0


def wait_until(is_so: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := is_so()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def control(cluster: LocalCluster) -> Iterator[Control]:
    with connect(load(), cluster.place) as open_one:
        yield open_one


def running(control: Control, name: str) -> dict[str, Any] | None:
    """Return the job of a manager that runs, if it has reported."""
    jobs = control.factory("status")["jobs"]
    found = [j for j in jobs if j["name"] == name and j["state"] == "running"]
    return found[0] if found else None


def named(name: str) -> Manager:
    """Return a manager whose jobs have this name, and those of no other test."""
    made: Manager = type(name, (Manager,), {})()
    return made


def slow(number: int, seconds: float = 0.0, path: Path | None = None) -> WorkPiece:
    return WorkPiece(number=number, seconds=seconds, path=str(path or ""))


def test_a_program_whose_job_is_cancelled_fails_and_says_by_whom(
    cluster: LocalCluster, control: Control, program: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, program], stderr=subprocess.PIPE, text=True
    ) as process:
        job = wait_until(lambda: running(control, "LongManager"))
        result = CliRunner().invoke(main, ["job", "cancel", job["id"][:6]])
        assert (result.exit_code, result.stderr) == (
            0,
            f"job {job['id']} is cancelled\n",
        )
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert f"PieceCancelled: job {job['id']} (LongManager) was cancelled by " in said
    row = find_job(control, job["id"])
    assert (row["state"], row["pieces_done"]) == ("cancelled", 0)
    assert f"cancelled by {row['orders']['cancel']['by']};" in said
    with pytest.raises(RegistryError, match="has ended already: it is cancelled"):
        order_job(control, job["id"], "cancel")


def test_the_worker_of_a_cancelled_piece_is_free_again(
    cluster: LocalCluster, control: Control
) -> None:
    manager = named("Freed")
    future = manager.submit("Slow", slow(1, 600.0))
    job = wait_until(lambda: running(control, "Freed"))
    assert order_job(control, job["id"], "cancel", by="ann") == (
        f"job {job['id']} is cancelled"
    )
    with pytest.raises(PieceCancelled, match="was cancelled by ann;") as caught:
        future.result(DEADLINE_S)
    assert caught.value.ordered_by == "ann"
    # and what the program asks for afterwards ends the same way
    with pytest.raises(PieceCancelled, match="was cancelled by ann"):
        manager.submit("Slow", slow(2)).result(DEADLINE_S)
    other = Manager().submit("Slow", slow(3)).result(DEADLINE_S)
    assert other["number"] == 3


def test_what_waits_of_a_job_goes_before_others_by_an_order(
    cluster: LocalCluster, control: Control, tmp_path: Path
) -> None:
    path = tmp_path / "order"
    first, second = named("First"), named("Second")
    held = first.submit("Ordered", slow(0, 600.0, path))
    wait_until(path.exists)
    futures = [first.submit("Ordered", slow(n, 0.01, path)) for n in (1, 2)]
    futures += [second.submit("Ordered", slow(n, 0.01, path)) for n in (3, 4)]
    identity = wait_until(lambda: running(control, "Second"))["id"]
    told = order_job(control, identity, "priority", 7)
    assert told == f"job {identity} has the priority 7 now"
    assert find_job(control, identity)["priority"] == 7
    # what comes after the order has the priority as well
    futures.append(second.submit("Ordered", slow(5, 0.01, path)))
    held.cancel()
    for future in futures:
        future.result(DEADLINE_S)
    assert path.read_text().split()[1:] == ["3", "4", "5", "1", "2"]


def test_an_order_is_repeated_until_the_leader_of_the_day_knows_it(
    cluster: LocalCluster, control: Control
) -> None:
    future = named("Repeated").submit("Slow", slow(1, 600.0))
    job = wait_until(lambda: running(control, "Repeated"))
    given: list[str] = []

    class Forgetful:
        """A leader that is gone before it told anybody of the first order."""

        def factory(self, operation: str, arguments: Any = None) -> Any:
            if operation == "order_job":
                given.append(arguments["order"])
                if len(given) == 1:
                    return {}
            return control.factory(operation, arguments)

    order_job(Forgetful(), job["id"], "cancel")  # type: ignore[arg-type]
    assert given[:2] == ["cancel", "cancel"]
    with pytest.raises(PieceCancelled):
        future.result(DEADLINE_S)


@pytest.mark.parametrize("id", ["", "nonsense", "../x"])
def test_a_job_that_is_not_there_is_said_to_be_none(control: Control, id: str) -> None:
    with pytest.raises(RegistryError, match="no job .* is known to the factory"):
        order_job(control, id, "cancel")


def test_a_map_that_waits_in_another_thread_hears_of_it(
    cluster: LocalCluster, control: Control
) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            list(named("Mapped").map("Slow", (slow(n, 600.0) for n in range(1000))))
        except PieceCancelled as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    job = wait_until(lambda: running(control, "Mapped"))
    order_job(control, job["id"], "cancel", by="ann", wait_s=0.0)
    thread.join(DEADLINE_S)
    assert "was cancelled by ann" in str(errors[0])
