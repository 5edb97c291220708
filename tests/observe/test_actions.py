"""What an operator has done to a real cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_programs import TARGET

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.errors import Interrupted, RegistryError, RequestRefused
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe import actions
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes

DEADLINE_S = 60.0
PROGRAM = f"{TARGET}:ToolWorker"
TYPE = "Tool"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster({PROGRAM: 2}) as here:
        yield here


@pytest.fixture
def control(cluster: LocalCluster) -> Iterator[Control]:
    with connect(load(), cluster.place) as asked:
        yield asked
        actions.undrain(asked, computer(asked))
        actions.scale(asked, TYPE, 2)
        # the names of workers differ from test to test
        wait_until(lambda: len(workers(asked)) == 2)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def workers(control: Control) -> dict[str, int]:
    found = control.factory("find", {"kind": "worker"})
    return {entry["name"]: entry["pid"] for entry in found}


def computer(control: Control) -> str:
    return str(control.factory("find", {"kind": "workshop"})[0]["name"])


def waiting_piece(folder: Path) -> tuple[Any, Path]:
    """Return a piece that runs until a file is there, and the file."""
    started, until = folder / "started", folder / "until"
    work = WorkPiece(do="wait", started=started, until=until)
    future = Manager().get_available_workers(TYPE)[0].submit(work)
    wait_until(started.exists)
    return future, until


def busy(control: Control) -> str:
    """Return the name of the worker that runs a piece."""
    name = ""

    def look() -> bool:
        nonlocal name
        status = control.factory("status")
        ids = [i for i, own in status["figures"].items() if own.get("piece")]
        found = [e["name"] for e in status["entries"] if e["id"] in ids]
        name = found[0] if found else ""
        return bool(found)

    wait_until(look)
    return name


def test_as_many_of_a_type_run_as_are_wanted(control: Control) -> None:
    here = computer(control)
    assert actions.scale(control, TYPE, 3) == f"Tool: 3 on {here}"
    assert actions.scale(control, TYPE, 1, may_end=False) == f"Tool: 3 on {here}"
    assert len(workers(control)) == 3
    assert actions.scale(control, TYPE, 1, here) == f"Tool: 1 on {here}"
    wait_until(lambda: len(workers(control)) == 1)


def test_what_is_unknown_is_told_with_what_is_known(control: Control) -> None:
    with pytest.raises(RegistryError, match=r"no computer has 'Loom' .*Tool"):
        actions.scale(control, "Loom", 1)
    with pytest.raises(RegistryError, match=r"'Loom' is not in the catalogue"):
        actions.scale(control, "Loom", 1, computer(control))
    with pytest.raises(RegistryError, match="no computer 'moon'"):
        actions.drain(control, "moon", load())
    with pytest.raises(RegistryError, match="nothing named 'Loom-1'"):
        actions.restart(control, "Loom-1")
    with pytest.raises(RegistryError, match="give a number from 0"):
        actions.scale(control, TYPE, -1)
    with pytest.raises(RegistryError, match="too many"):
        actions.scale(control, TYPE, 10**6)


def test_a_worker_is_replaced(control: Control) -> None:
    for deed in (actions.restart, actions.kill):
        before = workers(control)
        name = next(iter(before))
        assert name in deed(control, name)

        def is_replaced(name: str = name, pid: int = before[name]) -> bool:
            return workers(control).get(name, pid) != pid

        wait_until(is_replaced)
        assert len(workers(control)) == 2


def test_a_worker_is_stopped_for_good(control: Control) -> None:
    name = next(iter(workers(control)))
    assert actions.stop(control, [name], load()) == f"stopped {name}"
    assert name not in workers(control)
    assert len(workers(control)) == 1


def test_who_does_not_wait_hears_what_will_be(control: Control, tmp_path: Path) -> None:
    future, until = waiting_piece(tmp_path)
    name = busy(control)
    said = actions.stop(control, [name], load(), wait_s=0.0)
    assert said == f"{name} will end with what is in hand, and nothing takes its place"
    until.touch()
    assert future.result(DEADLINE_S)["pid"]


def test_a_drained_computer_ends_its_pieces_and_starts_nothing(
    control: Control, tmp_path: Path
) -> None:
    here, before = computer(control), workers(control)
    future, until = waiting_piece(tmp_path)
    said = actions.drain(control, here, load())
    assert "starts nothing more" in said
    until.touch()
    assert future.result(DEADLINE_S)["pid"] in before.values()
    assert actions.drain(control, here, load(), DEADLINE_S).endswith("nothing starts")
    assert workers(control) == {}
    with pytest.raises(RegistryError, match="is drained: see"):
        actions.scale(control, TYPE, 3)
    with pytest.raises(RequestRefused, match="drained, so nothing starts"):
        actions.scale(control, TYPE, 3, here)
    assert actions.undrain(control, here) == f"{here} works again"
    wait_until(lambda: len(workers(control)) == 2)
    assert not set(before.values()) & set(workers(control).values())


def test_a_piece_is_interrupted_and_does_not_run_again(
    control: Control, tmp_path: Path
) -> None:
    future, _ = waiting_piece(tmp_path)
    name, before = busy(control), workers(control)
    assert actions.interrupt(control, name, DEADLINE_S).endswith(f"of {name} is over")
    with pytest.raises(Interrupted):
        future.result(DEADLINE_S)
    assert workers(control) == before
    with pytest.raises(RegistryError, match="runs no piece"):
        actions.interrupt(control, name)
