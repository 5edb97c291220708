"""What Wei et al. (2017) say of the base classes, each statement as a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paper_programs import FOLDER

import opencluster
from opencluster import Manager, ManagerPool, Service, Worker, WorkPiece
from opencluster.errors import NoSuitableWorker
from opencluster.testing import LocalCluster

DEADLINE_S = 30.0
PROGRAMS = FOLDER / "paper_programs.py"
WORKERS = {
    f"{PROGRAMS}:MUSERImageCPUWorker": 1,
    f"{PROGRAMS}:MUSERImageGPUWorker": 2,
    f"{PROGRAMS}:EphemerisService": 1,
}
SETTINGS = {"cluster.heartbeat_interval_s": 0.1, "manager.worker_wait_s": 0.5}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(WORKERS, SETTINGS) as started:
        yield started


def wait_until(condition: Callable[[], Any]) -> Any:
    """Return the first true value of a condition, which has to come."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return value


# --- the five base classes ---------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Factory", "Workshop", "Worker", "Service", "Manager"]
)
def test_there_are_five_base_classes(name: str) -> None:
    assert isinstance(getattr(opencluster, name), type)


def test_users_write_perform_and_schedule() -> None:
    with pytest.raises(NotImplementedError, match="must define perform"):
        Worker().perform(WorkPiece())
    with pytest.raises(NotImplementedError, match="must define schedule"):
        Manager().schedule(WorkPiece())


# --- Factory -----------------------------------------------------------------


def test_the_factory_tracks_workshops_workers_and_services(
    cluster: LocalCluster,
) -> None:
    entries = cluster.ask_factory("find")
    here = sorted((entry["kind"], entry["type"]) for entry in entries)
    assert here == [
        ("service", "ephemeris"),
        ("worker", "MUSERImageCPU"),
        ("worker", "MUSERImageGPU"),
        ("worker", "MUSERImageGPU"),
        ("workshop", ""),
    ]


def test_tasks_run_while_the_factory_is_away(cluster: LocalCluster) -> None:
    pid = cluster.ask_factory("status")["factories"][0]["pid"]
    manager = Manager()
    list(manager.map("MUSERImageGPU", [WorkPiece(frame=0)]))
    os.kill(pid, signal.SIGSTOP)
    try:
        frames = [WorkPiece(frame=n) for n in range(50)]
        results = list(manager.map("MUSERImageGPU", frames))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [r["frame"] for r in results] == list(range(50))


# --- Workshop ----------------------------------------------------------------


def test_a_workshop_tells_the_state_of_its_computer(cluster: LocalCluster) -> None:
    (shop,) = cluster.ask_factory("find", {"kind": "workshop"})
    figures = wait_until(
        lambda: cluster.ask_factory("status")["figures"].get(shop["id"])
    )
    assert 0 <= figures["cpu_percent"] <= 100
    assert 0 < figures["memory_used_bytes"] <= figures["memory_total_bytes"]
    assert figures["network_received_bytes_per_s"] >= 0
    assert figures["network_sent_bytes_per_s"] >= 0
    assert isinstance(figures["gpus"], list)


def test_a_workshop_tells_it_again_and_again(cluster: LocalCluster) -> None:
    (shop,) = cluster.ask_factory("find", {"kind": "workshop"})

    def sampled() -> dict[str, Any]:
        figures: dict[str, Any] = cluster.ask_factory("status")["figures"][shop["id"]]
        return figures

    first = wait_until(sampled)
    wait_until(lambda: sampled() != first)


def test_a_workshop_starts_and_stops_workers(cluster: LocalCluster) -> None:
    def workers() -> int:
        return len(cluster.ask_factory("find", {"type": "MUSERImageCPU"}))

    cluster.ask_workshop("scale", {"type": "MUSERImageCPU", "count": 2})
    wait_until(lambda: workers() == 2)
    cluster.ask_workshop("scale", {"type": "MUSERImageCPU", "count": 1})
    wait_until(lambda: workers() == 1)


# --- Worker ------------------------------------------------------------------


def start_by_hand(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROGRAMS), *map(str, arguments)]
    return subprocess.Popen(command, cwd=FOLDER)


def test_a_worker_makes_itself_ready_with_type_host_and_port(
    cluster: LocalCluster, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with start_by_hand("Calibration", "*", port) as process:
        try:
            (worker,) = wait_until(
                lambda: cluster.ask_factory("find", {"type": "Calibration"})
            )
            assert worker["kind"] == "worker"
            assert worker["pid"] == process.pid
            assert f"tcp://127.0.0.1:{port}" in worker["endpoints"]
            (result,) = Manager().map("Calibration", [WorkPiece(frame=7)])
            assert (result["frame"], result["pid"]) == (7, process.pid)
        finally:
            process.terminate()
    assert process.returncode == 0
    # it has taken itself out of the registry before it ended
    assert cluster.ask_factory("find", {"type": "Calibration"}) == []


def test_a_worker_waits_for_a_factory_that_comes_later(tmp_path: Path) -> None:
    place = tmp_path / "c"
    environment = os.environ | {"OPENCLUSTER_DIR": str(place)}
    command = [sys.executable, str(PROGRAMS), "Calibration", "*", "0"]
    worker = subprocess.Popen(command, cwd=FOLDER, env=environment)
    cli = [sys.executable, "-m", "opencluster", "--dir", str(place)]
    try:
        subprocess.run([*cli, "start"], check=True, timeout=DEADLINE_S)
        wait_until(
            lambda: (
                b'"Calibration"'
                in subprocess.run(
                    [*cli, "status", "--json"], check=True, capture_output=True
                ).stdout
            )
        )
    finally:
        worker.terminate()
        worker.wait(DEADLINE_S)
        subprocess.run([*cli, "stop"], check=True, timeout=DEADLINE_S)


def test_pieces_go_to_workers_of_their_type(cluster: LocalCluster) -> None:
    manager = Manager()
    frames = [WorkPiece(frame=n) for n in range(20)]
    for type in ("MUSERImageCPU", "MUSERImageGPU"):
        pids = {r["pid"] for r in manager.map(type, frames)}
        workers = cluster.ask_factory("find", {"type": type})
        assert pids <= {worker["pid"] for worker in workers}
        assert pids


def test_a_type_without_workers_is_reported_with_those_that_are_there(
    cluster: LocalCluster,
) -> None:
    with pytest.raises(NoSuitableWorker) as caught:
        Manager().get_available_workers("MUSERImageFPGA")
    assert "MUSERImageFPGA" in str(caught.value)
    assert "MUSERImageCPU (1)" in str(caught.value)
    assert "MUSERImageGPU (2)" in str(caught.value)


# --- Manager -----------------------------------------------------------------


def test_a_manager_gets_the_available_workers_of_a_type(cluster: LocalCluster) -> None:
    # the second worker may be connected to a moment after the first
    workers = wait_until(lambda: _both(Manager().getAvailableWorkers("MUSERImageGPU")))
    assert {worker.type for worker in workers} == {"MUSERImageGPU"}
    results = [worker.perform(WorkPiece(frame=3)) for worker in workers]
    assert len({result["pid"] for result in results}) == 2


def _both(workers: list[Any]) -> list[Any]:
    return workers if len(workers) == 2 else []


class Imaging(Manager):
    """Is done when all the others are under way too."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.barrier = barrier

    def schedule(self, task: WorkPiece) -> WorkPiece:
        self.barrier.wait(DEADLINE_S)
        (result,) = self.map("MUSERImageGPU", [task])
        return result


def test_managers_run_asynchronously_in_a_pool(cluster: LocalCluster) -> None:
    barrier = threading.Barrier(4)
    with ManagerPool(4) as pool:
        futures = [
            pool.submit(Imaging(barrier), WorkPiece(frame=frame)) for frame in range(4)
        ]
        assert [f.result(DEADLINE_S)["frame"] for f in futures] == [0, 1, 2, 3]


# --- Service -----------------------------------------------------------------


def test_a_service_is_called_by_its_name_from_managers(cluster: LocalCluster) -> None:
    assert Manager().service("ephemeris").declination_deg(172) == pytest.approx(
        23.4, abs=0.1
    )


def test_a_service_is_called_by_its_name_from_workers(cluster: LocalCluster) -> None:
    (result,) = Manager().map("MUSERImageCPU", [WorkPiece(frame=1, day=172)])
    assert result["declination_deg"] == pytest.approx(23.4, abs=0.1)


def test_a_service_is_no_worker(cluster: LocalCluster) -> None:
    assert not issubclass(Service, Worker)
    with pytest.raises(NoSuitableWorker):
        Manager().get_available_workers("ephemeris")


# --- WorkPiece ---------------------------------------------------------------


def test_a_workpiece_is_a_dictionary_of_objects() -> None:
    work = WorkPiece(True)
    work.setObj("filepath", "/data/frame.dat")
    work[3] = [1, 2]
    assert isinstance(work, dict)
    assert work.getObj("filepath") == work["filepath"] == "/data/frame.dat"
    assert work.getObj("nothing") is None
    assert work.ready


def test_the_marker_of_a_workpiece_travels_with_it(cluster: LocalCluster) -> None:
    for marker in (True, False):
        piece = WorkPiece(marker)
        piece.setObj("frame", 1)
        piece.setObj("is_echo", True)
        (result,) = Manager().map("MUSERImageCPU", [piece])
        assert result.ready is marker
