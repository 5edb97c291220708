"""The queue from the command line."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime

import click
import pytest
from cli_tools import PROGRAMS, Cli

from opencluster import WorkPiece
from opencluster.cli.submit import parse_deadline, submit_command
from opencluster.config import Config
from opencluster.taskqueue import TaskQueue

SCRIPT = str(PROGRAMS)
DOUBLE = f"{SCRIPT}:DoubleManager"
LOCAL = {"OPENCLUSTER_ENGINE": "local", "OPENCLUSTER_TASKQUEUE_POLL_INTERVAL_S": "0.05"}


@pytest.fixture(autouse=True)
def _local_and_quick(cli: Cli) -> None:
    cli.environment |= LOCAL


@pytest.fixture
def queue(cli: Cli) -> Iterator[TaskQueue]:
    """Return what the commands see, without a process for each look."""
    with TaskQueue(config=Config(), place=cli.place) as queue:
        yield queue


@pytest.mark.processes
def test_from_a_request_to_its_result(cli: Cli, queue: TaskQueue) -> None:
    options = ("--priority", "2", "--pieces", "batch")
    first = cli.ok("submit", DOUBLE, "type=Double", "count=4", *options)
    assert first == "1\n"
    second = cli.ok("submit", DOUBLE, "type=Missing", "--json", "count=4")
    assert json.loads(second) == {"task": 2}
    queue.submit(DOUBLE, WorkPiece(), depends_on=[1, 2])
    cli.ok("dispatcher", "--until-empty", "--managers", "2")

    table = cli.ok("tasks")
    assert "1 waiting, 1 done, 1 failed" in table
    assert "NoSuitableWorker: " in table
    listed = json.loads(cli.ok_here("tasks", "--json", "--state", "failed", "-n", "1"))
    assert listed["counts"]["done"] == 1
    assert [task["id"] for task in listed["tasks"]] == [2]
    assert "1 (done), 2 (failed)" in cli.ok_here("tasks", "show", "3")
    sheet = cli.ok_here("tasks", "show", "1")
    assert "WorkPiece(total=12)" in sheet
    assert "WorkPiece(type='Double', count=4)" in sheet
    assert "got 3" in "".join(p.read_text() for p in cli.place.logs.glob("manager-*"))
    shown = json.loads(cli.ok_here("tasks", "show", "1", "--json"))
    assert shown["result"] == {"total": 12}
    assert shown["arguments"] == {"type": "Double", "count": 4}
    assert (shown["state"], shown["priority"]) == ("done", 2)
    assert shown["piece_class"] == "batch"
    sheet = cli.ok_here("tasks", "show", "2")
    assert "traceback:" in sheet
    assert "last output:" in sheet

    # waiting for what cannot come is no waiting
    done = cli("submit", DOUBLE, "--after", "3", "--wait", "--unchecked")
    assert done.returncode == 1
    assert "task 3 waits for task 2, which failed" in done.stderr
    assert "opencluster tasks retry 2" in done.stderr


@pytest.mark.processes
def test_waiting_for_a_result(cli: Cli) -> None:
    dispatcher = cli.background("dispatcher")
    dispatcher.line_with("takes tasks from sqlite:///")
    request = ("submit", DOUBLE, "--key", "mine", "--wait")
    done = cli(*request, "type=Double", "count=3")
    assert (done.returncode, done.stdout) == (0, "WorkPiece(total=6)\n")
    assert "task 1 is done" in done.stderr
    # the same request is not done again
    again = cli.ok(*request, "--json", "--unchecked")
    assert json.loads(again)["result"] == {"total": 6}
    done = cli("submit", DOUBLE, "--wait")
    assert done.returncode == 1
    assert "task 2 (DoubleManager) failed: KeyError: 'count'" in done.stderr
    assert dispatcher.interrupt() == 0
    assert "has ended" in dispatcher.rest()


@pytest.mark.processes
def test_a_dispatcher_ends_with_a_process_and_gives_back_what_it_has(
    cli: Cli, queue: TaskQueue
) -> None:
    queue.submit(DOUBLE, WorkPiece(type="Slow", count=1))
    with subprocess.Popen(["sleep", "600"]) as other:
        dispatcher = cli.background("dispatcher", "--while-pid", str(other.pid))
        dispatcher.line_with("task 1 (attempt 1) begins: DoubleManager")
        other.kill()
    assert dispatcher.process.wait(60) == 0
    shown = queue.show(1)
    assert (shown.state, shown.losses, shown.attempt) == ("queued", 0, 1)


def test_changing_ones_mind(cli: Cli, queue: TaskQueue) -> None:
    for _ in range(3):
        queue.submit(DOUBLE, WorkPiece())
    done = cli.here("tasks", "cancel", "1", "3")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "task 1 is cancelled\ntask 3 is cancelled\n"
    done = cli.here("tasks", "cancel", "1")
    assert (done.returncode, done.stderr) == (1, "task 1 had ended before\n")
    done = cli.here("tasks", "retry", "2", "3", "--json")
    assert json.loads(done.stdout) == {"changed": [3], "unchanged": [2]}
    done = cli.here("tasks", "retry", "1", "9")
    assert done.returncode == 1
    assert "there is no task 9 in the queue" in done.stderr
    assert [queue.show(n).state for n in (1, 2, 3)] == ["cancelled", "queued", "queued"]
    done = cli.here("tasks", "priority", "1", "2", "--to", "-5")
    assert done.stderr == "task 2 is of priority -5 now\ntask 1 had ended before\n"
    assert [queue.show(n).priority for n in (1, 2)] == [0, -5]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing.py:A", "there is no file"),
        (f"{SCRIPT}:DoubleWorker", "is a worker: a task is for a Manager"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    cli: Cli, queue: TaskQueue, target: str, message: str
) -> None:
    done = cli.here("submit", target)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr
    assert queue.tasks() == []


@pytest.mark.parametrize(
    ("text", "ahead_s"),
    [("+90s", 90), ("+1.5h", 5400), ("+30m", 1800), ("+2d", 172_800)],
)
def test_deadlines_ahead(text: str, ahead_s: float) -> None:
    before = time.time()
    assert before <= parsed(text) - ahead_s <= time.time()


def test_deadlines_at_a_time() -> None:
    for text in ("2100-01-01T06:00+08:00", "2100-01-01T06:00", "2100-01-01"):
        assert parsed(text) == datetime.fromisoformat(text).timestamp()
    with pytest.raises(click.BadParameter, match=r"write \+30m"):
        parsed("tomorrow")


def parsed(text: str) -> float:
    [option] = [p for p in submit_command.params if p.name == "deadline"]
    deadline = parse_deadline(click.Context(submit_command), option, text)
    assert deadline is not None
    return deadline


def test_a_queue_that_cannot_be_used(cli: Cli) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/none"
    done = cli.here("tasks", environment={"OPENCLUSTER_TASKQUEUE_URL": url})
    assert done.returncode == 1
    assert "postgresql://me:***@127.0.0.1:1/none cannot be used: conn" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
