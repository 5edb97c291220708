"""Factories and workshops that are killed, late, or in each other's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from fault_tools import (
    DEADLINE_S,
    FAST,
    cluster,
    counts,
    entries,
    fault,
    figures,
    is_running,
    log_of,
    perform,
    pids,
    runs,
    stopped,
    target,
    wait_until,
)

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.engines.choice import close_engines
from opencluster.errors import FactoryUnreachable, WorkerDied
from opencluster.net.control import Control
from opencluster.place import Place, factories
from opencluster.testing import LocalCluster
from opencluster.wire import figures as figures_of_heartbeat

pytestmark = pytest.mark.processes


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory that has room for sockets."""
    with tempfile.TemporaryDirectory(prefix="c-") as path:
        yield Path(path)


@contextmanager
def program(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program for as long as the block lasts."""
    with (
        log.open("ab") as file,
        subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=file) as it,
    ):
        try:
            yield it
        finally:
            it.terminate()
            try:
                it.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                it.kill()


def restarted_factory(here: LocalCluster) -> Sequence[str]:
    endpoint = here.place.read()["factories"][0]["endpoints"][0]
    options = ["--listen", endpoint, "--dir", str(here.place.path)]
    return ["-m", "opencluster", "factory", *options]


def kill(here: LocalCluster, daemon: str) -> None:
    pid = here.place.read()[daemon][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


# --- the factory ----------------------------------------------------------------


def test_a_map_does_not_notice_that_the_factory_is_killed_and_restarted(
    tmp_path: Path,
) -> None:
    path, log = tmp_path / "runs", tmp_path / "factory.log"
    with cluster(FaultWorker=2) as here:
        before = {entry["id"] for entry in entries(here, kind="")}
        pieces = [fault("sleep", s=0.02, n=n, runs=str(path)) for n in range(100)]
        results = Manager("cluster").map("Fault", pieces)
        done = [next(results)]
        kill(here, "factories")
        done += [next(results) for _ in range(20)]
        with program(restarted_factory(here), log):
            done += list(results)
            assert [result["n"] for result in done] == list(range(100))
            assert counts(path) == {str(n): 1 for n in range(100)}
            wait_until(lambda: {e["id"] for e in entries(here, kind="")} == before)
            status = here.ask_factory("status")
            assert status["factories"][0]["epoch"][:2] == [2, 0]
            # a worker that went and came back since is used again
            victim = min(pids(here))
            with stopped(victim):
                wait_until(lambda: figures(here, victim).get("state") == "lost")
                for n in range(20):
                    work = fault("sleep", s=0.05, n=n)
                    assert perform(work)["pid"] != victim
            wait_until(lambda: perform(fault("ok"))["pid"] == victim)
            # and a worker that dies is still explained
            with pytest.raises(WorkerDied, match="exited with code 3"):
                perform(fault("exit"), retries=0)


def test_while_the_factory_is_away_managers_wait_and_commands_fail(
    tmp_path: Path,
) -> None:
    with cluster({"factory.request_timeout_s": 0.5}, FaultWorker=1) as here:
        kill(here, "factories")
        # it may have ended while it greeted a connection that was made anew
        with pytest.raises(FactoryUnreachable, match="no factory (answered|let us in)"):
            here.ask_factory("status")
        future = Manager("cluster").submit("Fault", fault("ok", n=1))
        with program(restarted_factory(here), tmp_path / "factory.log"):
            assert future.result(DEADLINE_S)["n"] == 1


def test_a_late_heartbeat_is_no_error() -> None:
    with cluster(FaultWorker=1) as here:
        worker = entries(here)[0]["id"]
        told = figures_of_heartbeat.pack({"nobody.123": {"state": "idle"}})
        arguments = {"ids": ["nobody.123", worker], "figures": told}
        assert here.ask_factory("renew", arguments)["unknown"] == ["nobody.123"]
        assert here.ask_factory("deregister", {"id": "nobody.123"}) is None
        # whoever is forgotten registers again with the next heartbeat
        here.ask_factory("deregister", {"id": worker})
        wait_until(lambda: [e["id"] for e in entries(here)] == [worker])
        assert perform(fault("ok"))["pid"] in pids(here)


def test_a_port_in_use_is_told(tmp_path: Path, short_path: Path) -> None:
    options = ["-m", "opencluster", "factory", "--host", "127.0.0.1"]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    directories = [["--dir", str(short_path / name)] for name in ("one", "two")]
    with program([*options, "--port", "0", *directories[0]], logs[0]):
        wait_until(lambda: "factory at tcp://" in logs[0].read_text())
        text = logs[0].read_text()
        port = text.partition("tcp://127.0.0.1:")[2].split()[0]
        with program([*options, "--port", port, *directories[1]], logs[1]) as second:
            assert second.wait(DEADLINE_S) == 1
        said = logs[1].read_text()
    assert f"cannot listen at tcp://127.0.0.1:{port}" in said
    assert "in use" in said and "Traceback" not in said


# --- the workshop ---------------------------------------------------------------


def test_a_killed_workshop_leaves_no_worker_and_its_successor_finds_none(
    tmp_path: Path,
) -> None:
    path, log = tmp_path / "runs", tmp_path / "workshop.log"
    with cluster({"cluster.lease_s": 2}, FaultWorker=2) as here:
        before = pids(here)
        pieces = [fault("sleep", s=0.05, n=n, runs=str(path)) for n in range(40)]
        results = Manager("cluster").map("Fault", pieces)
        done = [next(results)]
        kill(here, "workshops")
        wait_until(lambda: not any(map(is_running, before)), "the workers are gone")
        options = ["--dir", str(here.place.path), "--workers", target("FaultWorker=2")]
        with program(["-m", "opencluster", "workshop", *options], log):
            done += list(results)
            assert [result["n"] for result in done] == list(range(40))
            wait_until(lambda: len(pids(here) - before) == 2 and len(pids(here)) == 2)
            assert "left by an earlier workshop" not in log.read_text()
            assert perform(fault("ok"))["pid"] in pids(here) - before


def test_what_a_killed_workshop_left_behind_is_ended_by_its_successor(
    tmp_path: Path,
) -> None:
    """A process that took itself out of its parent's hands is found by its mark."""
    log, note = tmp_path / "workshop.log", tmp_path / "daemon"
    with cluster(FaultWorker=1) as here:
        perform(fault("daemon", note=str(note)))
        daemon = int(note.read_text())
        assert is_running(daemon)
        kill(here, "workshops")
        wait_until(lambda: not any(map(is_running, pids(here))))
        assert is_running(daemon)
        options = ["--dir", str(here.place.path), "--workers", target("FaultWorker=1")]
        with program(["-m", "opencluster", "workshop", *options], log):
            wait_until(lambda: not is_running(daemon))
            said = "ended 1 processes left by an earlier workshop"
            wait_until(lambda: said in log.read_text(), said)


# --- workers on their own -------------------------------------------------------


@contextmanager
def alone(place: Path, log: Path, type: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker without a workshop, for the cluster in a directory."""
    code = "import sys; from opencluster.start import serve, set_up_logging; "
    code += "set_up_logging('INFO'); serve(sys.argv[1], {'type': sys.argv[2]})"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENCLUSTER_DIR", str(place))
        arguments = ["-c", code, target("FaultWorker"), type]
        with program(arguments, log) as process:
            yield process


def test_a_worker_waits_for_a_factory_that_comes_later(
    tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "worker.log"
    place = Place(short_path)
    place.make()
    for name, value in FAST.items():
        variable = f"OPENCLUSTER_{name.replace('.', '_', 1).upper()}"
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("OPENCLUSTER_DIR", str(place.path))
    endpoint = f"ipc://{place.sockets}/factory.sock"
    options = ["-m", "opencluster", "factory", "--listen", endpoint]
    with alone(place.path, log, "Early") as worker:
        wait_until(lambda: "waiting for a factory" in log.read_text())
        place.write({"factories": [{"endpoints": [endpoint]}]})
        with program([*options, "--dir", str(place.path)], tmp_path / "factory.log"):
            assert perform(fault("ok"), type="Early")["pid"] == worker.pid
            # asked to end, it says goodbye and ends well
            worker.terminate()
            assert worker.wait(DEADLINE_S) == 0
            with Control(load(), partial(factories, load(), place)) as control:
                assert control.factory("find", {"type": "Early"}) == []
        close_engines(place)
    assert not [path for path in place.sockets.iterdir() if path.is_socket()]


def test_holding_the_interpreter_does_not_make_a_worker_look_dead(
    tmp_path: Path,
) -> None:
    """Under a workshop and on its own, for several leases and several timeouts."""
    path, log = tmp_path / "runs", tmp_path / "worker.log"
    settings = {"cluster.lease_s": 3, "network.zmtp_timeout_s": 2}
    with (
        cluster(settings, FaultWorker=1) as here,
        alone(here.place.path, log, "Alone") as process,
    ):
        wait_until(lambda: process.pid in pids(here, "Alone"))
        before = {entry["id"]: entry for entry in entries(here)}
        assert len(before) == 2
        gone: list[str] = []
        is_over = threading.Event()

        def look() -> None:
            while not is_over.is_set():
                gone.extend(before.keys() - {entry["id"] for entry in entries(here)})
                is_over.wait(0.1)

        futures = [
            Manager("cluster").submit(
                type, fault("hold_gil", s=8, n=type, runs=str(path)), retries=0
            )
            for type in ("Fault", "Alone")
        ]
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            results: list[WorkPiece] = [future.result(60) for future in futures]
        finally:
            is_over.set()
            watcher.join()
        assert [result["n"] for result in results] == ["Fault", "Alone"]
        assert sorted(runs(path)) == sorted((r["n"], r["pid"]) for r in results)
        assert gone == []
        assert "is gone" not in log_of(here, "factory")
        # and both are as good as before
        assert perform(fault("ok"), type="Alone")["pid"] == process.pid
        assert perform(fault("ok"))["pid"] in pids(here)


def test_a_worker_on_its_own_that_is_killed_is_replaced_by_another(
    tmp_path: Path,
) -> None:
    path, log = tmp_path / "runs", tmp_path / "worker.log"
    with (
        cluster({"cluster.lease_s": 2}, FaultWorker=0) as here,
        alone(here.place.path, log, "Alone") as first,
        alone(here.place.path, log, "Alone") as second,
    ):
        processes = {first.pid, second.pid}
        wait_until(lambda: pids(here, "Alone") == processes)
        work = fault("sleep_first", s=60, n="a", runs=str(path))
        future = Manager("cluster").submit("Alone", work)
        _, victim = wait_until(lambda: runs(path) and runs(path)[0])
        os.kill(victim, signal.SIGKILL)
        result = future.result(DEADLINE_S)
        assert {result["pid"]} == processes - {victim}
        assert counts(path) == {"a": 2}
        # its lease runs out, since nobody else vouches for it
        wait_until(lambda: pids(here, "Alone") == processes - {victim})


def test_a_time_limit_is_enforced_on_a_worker_on_its_own(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with (
        cluster({"cluster.lease_s": 2}, FaultWorker=0) as here,
        alone(here.place.path, log, "Alone") as process,
    ):
        wait_until(lambda: pids(here, "Alone"))
        future = Manager("cluster").submit(
            "Alone", fault("hold_gil", s=60), timeout_s=0.5, retries=0
        )
        with pytest.raises(WorkerDied):
            future.result(DEADLINE_S)
        assert process.wait(DEADLINE_S) == -signal.SIGALRM
