"""start, stop, status, worker and service, on clusters of real processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from cli_tools import PROGRAMS, Cli

from opencluster.launchers import embedded

pytestmark = pytest.mark.processes

FIELDS = [
    "factories",
    "workshops",
    "workers",
    "services",
    "jobs",
    "elastic",
    "failures",
    "deaths",
]


def target(name: str) -> str:
    return f"{PROGRAMS}:{name}"


def names(status: dict[str, list[dict[str, object]]], kind: str) -> list[object]:
    return [row["name"] for row in status[kind]]


# --- start and stop ---------------------------------------------------------


def test_start_and_stop(cli: Cli) -> None:
    done = cli("start", "--workers", f"{target('DoubleWorker')}=2")
    assert done.returncode == 0
    assert done.stdout == ""
    assert str(cli.place.logs) in done.stderr
    status = cli.status_when(lambda status: len(status["workers"]) == 2)
    assert names(status, "workers") == ["Double-1", "Double-2"]
    pids = [row["pid"] for kind in FIELDS[:3] for row in status[kind]]
    assert all(embedded.start_time(pid) is not None for pid in pids)

    again = cli.here("start")
    assert again.returncode == 1
    assert "runs already" in again.stderr

    assert "stopped the cluster" in cli("stop").stderr
    assert all(embedded.start_time(pid) is None for pid in pids)
    assert cli("status").returncode == 3
    assert "no cluster is running" in cli.here("stop").stderr


def test_start_with_a_class_that_is_not_there(cli: Cli) -> None:
    done = cli("start", "--workers", f"{target('NoWorker')}=1")
    assert done.returncode == 1
    assert "has no class 'NoWorker'" in done.stderr
    assert cli.here("status").returncode == 3


def test_the_directory_option_names_the_cluster(cli: Cli) -> None:
    other = {"OPENCLUSTER_DIR": str(cli.directory / "other")}
    cli.ok("start", "--dir", str(cli.place.path), environment=other)
    assert cli.here("status", environment=other).returncode == 3
    path = str(cli.place.path)
    assert cli.here("status", "--dir", path, environment=other).returncode == 0
    assert cli.here("--dir", path, "status", environment=other).returncode == 0


def test_a_cluster_that_died_is_told_from_none(cli: Cli) -> None:
    cli.ok_here("start")
    factory = cli.place.read()["factories"][0]
    os.kill(factory["pid"], signal.SIGKILL)
    cli.wait_until(lambda: not embedded.is_alive(factory))
    done = cli.here("status")
    assert done.returncode == 3
    assert "has ended, although nobody stopped it" in done.stderr


# --- status -----------------------------------------------------------------


def test_status_is_one_object_with_all_that_is_here(cli: Cli) -> None:
    cli.ok_here("start")
    cli.ok("worker", target("DoubleWorker"))
    cli.ok("service", target("GreetingService"))
    cli.ok("run", str(PROGRAMS), "double", "Double", "5")
    cli.status_when(
        lambda status: (
            status["workers"][0]["pieces_done"] == 5
            and status["workshops"][0]["cpu_count"]
            and status["jobs"][0]["state"] == "done"
        )
    )
    status = cli.status()
    assert list(status) == FIELDS
    [factory], [shop] = status["factories"], status["workshops"]
    [worker], [service], [job] = status["workers"], status["services"], status["jobs"]
    assert factory["role"] == "leader"
    assert factory["pid"] == cli.place.read()["factories"][0]["pid"]
    assert worker["workshop"] == service["workshop"] == shop["id"]
    assert (worker["type"], worker["name"]) == ("Double", "Double-1")
    assert worker["state"] == "idle"
    assert worker["rss_bytes"] > 0
    assert worker["endpoint"].startswith("unix://")
    assert service["type"] == "greeting"
    assert job["name"] == "DoubleManager"
    assert job["pieces_done"] == 5
    assert status["failures"] == status["deaths"] == []

    for_people = cli.ok("status")
    assert for_people.startswith("healthy: 1 factory, 1 workshop, 1 worker, 1 service")
    assert "Double-1" in for_people and "DoubleManager" in for_people


def test_status_tells_why_a_worker_was_lost(cli: Cli) -> None:
    cli.ok_here("start", "--workers", f"{target('DeafWorker')}=1")
    environment = {"OPENCLUSTER_MANAGER_RETRIES": "0"}
    done = cli("run", str(PROGRAMS), "double", "Deaf", "1", environment=environment)
    assert done.returncode == 1
    assert "WorkerDied" in done.stderr
    [death] = cli.status_when(lambda status: status["deaths"])["deaths"]
    assert death["name"] == "Deaf-1"
    assert death["exit_code"] == 7
    assert death["piece"]
    assert "these are my last words" in death["output"]
    assert "exited with code 7" in cli.ok_here("status")


def test_status_forgets_what_ended_in_order(cli: Cli) -> None:
    cli.ok_here("start", "--workers", f"{target('DoubleWorker')}=1")
    cli.status_when(lambda status: status["workers"])
    cli.ok_here("stop", "Double-1")
    assert cli.status()["deaths"] == []


def test_status_shows_what_fails_to_start(cli: Cli) -> None:
    started = cli("start", "--workers", f"{target('BrokenWorker')}=1")
    assert started.returncode == 1
    assert "the cluster runs, but Broken-1 did not start" in started.stderr
    assert "the table is missing" in started.stderr
    status = cli.status_when(lambda status: status["failures"])
    [failure] = status["failures"]
    assert failure["type"] == "Broken"
    assert "the table is missing" in failure["output"]
    for_people = cli.ok_here("status")
    assert for_people.startswith("in trouble: ")
    assert "failing to start: Broken" in for_people
    assert "the table is missing" in for_people


def test_status_watches_until_interrupted(running: Cli) -> None:
    watching = running.background("status", "--json", "--watch")
    for _ in range(2):
        assert list(json.loads(watching.line_with("{"))) == FIELDS
    assert watching.interrupt() == 0
    assert "Traceback" not in watching.rest()


# --- worker and service -----------------------------------------------------


def test_workers_are_ready_when_the_command_returns(running: Cli) -> None:
    options = ["--count", "2", "--type", "Triple", "--arg", "factor=3"]
    done = running("worker", target("DoubleWorker"), *options)
    assert done.returncode == 0
    assert done.stdout == ""
    assert "started Triple-1, Triple-2" in done.stderr
    assert names(running.status(), "workers") == ["Triple-1", "Triple-2"]
    assert running.ok("run", str(PROGRAMS), "double", "Triple", "4") == "18\n"

    running.ok_here("worker", target("DoubleWorker"), *options[2:])
    assert names(running.status(), "workers") == ["Triple-1", "Triple-2", "Triple-3"]


def test_a_file_is_found_from_where_the_command_runs(running: Cli) -> None:
    program = PROGRAMS.read_text().replace("DoubleWorker", "MineWorker")
    Path(running.directory, "mine.py").write_text(program)
    running.ok("worker", "mine.py:MineWorker")
    running.ok_here("worker", "mine:MineWorker", "--type", "Module")
    assert names(running.status(), "workers") == ["Mine-1", "Module-1"]


def test_a_service_is_called_by_name(running: Cli) -> None:
    options = ["--name", "goodbye", "--arg", "word=goodbye"]
    running.ok("service", target("GreetingService"), *options)
    assert running.ok("run", str(PROGRAMS), "greet", "goodbye") == "goodbye sun\n"


def test_a_worker_that_cannot_start_is_shown_with_its_output(running: Cli) -> None:
    done = running.here("worker", target("BrokenWorker"), "--count", "2")
    assert done.returncode == 1
    assert "did not start: exited with code 1" in done.stderr
    assert "RuntimeError: the table is missing" in done.stderr
    # and it is not tried again behind the user's back
    status = running.status_when(lambda status: not status["failures"])
    assert status["workers"] == []
    running.ok_here("worker", target("DoubleWorker"), "--type", "Broken")
    assert len(running.status()["workers"]) == 1


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [
        ("worker", "NoWorker", "has no class 'NoWorker'"),
        ("worker", "GreetingService", "use `opencluster service`"),
        ("service", "DoubleWorker", "use `opencluster worker`"),
        ("worker", "DoubleManager", "neither a Worker nor a Service"),
    ],
)
def test_a_class_that_will_not_do(
    running: Cli, command: str, name: str, expected: str
) -> None:
    done = running.here(command, target(name))
    assert done.returncode == 1
    assert expected in done.stderr


@pytest.mark.parametrize("name", ["../outside", "a" * 65])
def test_a_type_that_cannot_name_files(running: Cli, name: str) -> None:
    done = running.here("worker", target("DoubleWorker"), "--type", name)
    assert done.returncode == 1
    assert "cannot be the name of processes" in done.stderr


def test_without_a_workshop_there_is_a_way(cli: Cli) -> None:
    factory = cli.background("factory", "--host", "127.0.0.1")
    line = factory.line_with("factory at tcp://")
    address = line.split("tcp://")[1].split(",")[0]
    environment = {"OPENCLUSTER_CLUSTER_FACTORIES": address}
    done = cli.here("worker", target("DoubleWorker"), environment=environment)
    assert done.returncode == 1
    assert "no workshop runs on this computer" in done.stderr
    assert "--foreground" in done.stderr


def test_a_worker_in_the_foreground(running: Cli) -> None:
    worker = running.background(
        "worker", target("DoubleWorker"), "--foreground", "--arg", "factor=5"
    )
    running.status_when(lambda status: status["workers"])
    assert running.ok("run", str(PROGRAMS), "double", "Double", "3") == "15\n"
    worker.line_with("got 2")
    name = str(running.status()["workers"][0]["name"])
    done = running.here("stop", name)
    assert done.returncode == 1
    assert "without a workshop" in done.stderr
    assert worker.interrupt() == 0
    assert running.status()["workers"] == []


# --- stop NAME --------------------------------------------------------------


def test_stop_ends_the_workers_that_are_named(running: Cli) -> None:
    options = ["--count", "3", "--type", "Ended"]
    running.ok_here("worker", target("DoubleWorker"), *options)
    status = running.status_when(lambda status: len(status["workers"]) == 3)
    by_id = status["workers"][2]["id"]
    done = running("stop", "Ended-1", by_id)
    assert done.returncode == 0
    assert "stopped Ended-1, Ended-3" in done.stderr
    assert names(running.status(), "workers") == ["Ended-2"]


def test_stop_knows_who_is_here(running: Cli) -> None:
    running.ok_here("worker", target("DoubleWorker"), "--type", "Known")
    done = running.here("stop", "Known-1", "Known-7")
    assert done.returncode == 1
    assert "nothing named 'Known-7'" in done.stderr
    assert "Known-1" in done.stderr
    assert names(running.status(), "workers") == ["Known-1"]


def test_an_operator_changes_what_runs(cli: Cli) -> None:
    cli.ok_here("start", "--workers", f"{target('DoubleWorker')}=1")
    host = cli.status()["workshops"][0]["name"]
    assert f"Double: 2 on {host}" in cli("scale", "Double=2").stderr
    assert len(cli.status()["workers"]) == 2
    refused = cli.here("scale", "Triple=1")
    assert refused.returncode == 1
    assert "no computer has 'Triple'" in refused.stderr
    for deed in ("restart", "kill"):
        assert "Double-1" in cli.here(deed, "Double-1").stderr
    assert "runs no piece" in cli.here("interrupt", "Double-2").stderr
    assert f"{host} is drained" in cli.here("drain", host).stderr
    status = cli.status()
    assert (status["workers"], status["workshops"][0]["is_drained"]) == ([], True)
    assert f"{host} works again" in cli.here("undrain", host).stderr
    cli.status_when(lambda status: len(status["workers"]) == 2)
