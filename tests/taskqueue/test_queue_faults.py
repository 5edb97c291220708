"""The database goes away, stands still, or has no room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dispatcher_tools import Scene, await_end_of
from postgres_server import PostgresServer
from queue_tools import DEADLINE_S, MANAGER, wait_until

from opencluster import WorkPiece
from opencluster.config import Config
from opencluster.errors import QueueUnavailable
from opencluster.taskqueue import TaskQueue

pytestmark = pytest.mark.processes

on_a_server = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


@on_a_server
def test_a_request_outlives_the_restart_of_the_database(
    scene: Scene, postgres: PostgresServer
) -> None:
    queue = scene.queue
    first = queue.submit(MANAGER, WorkPiece(n=1))
    postgres.stop()
    postgres.start()
    # on a connection that is broken, and is not known to be
    second = queue.submit(MANAGER, WorkPiece(n=2))
    assert [task.id for task in queue.tasks()] == [second, first]
    assert queue.arguments(first) == WorkPiece(n=1)


@on_a_server
def test_a_database_that_is_not_there_is_named_without_its_password(
    scene: Scene, postgres: PostgresServer
) -> None:
    url = scene.url.replace("postgres@", "postgres:secret@")
    with TaskQueue(url, config=Config(), patience_s=0.2) as queue:
        postgres.stop()
        try:
            for ask in (queue.tasks, lambda: TaskQueue(url, config=Config())):
                with pytest.raises(QueueUnavailable, match=r"//postgres:\*\*\*@/"):
                    ask()
        finally:
            postgres.start()
        assert queue.tasks() == []


@on_a_server
def test_what_is_done_while_the_database_is_gone_is_recorded_when_it_is_back(
    scene: Scene, postgres: PostgresServer
) -> None:
    scene.dispatcher()
    number = submit_waiting(scene)
    pid = scene.await_begin(number)
    postgres.stop()
    try:
        scene.gate.touch()
        await_end_of(pid)
    finally:
        postgres.start()
    shown = scene.queue.wait(number)
    assert (shown.state, shown.attempt, shown.losses) == ("done", 1, 0)
    assert scene.queue.result(number)["pid"] == pid


@on_a_server
def test_a_lease_that_cannot_be_renewed_ends_with_its_manager(
    scene: Scene, postgres: PostgresServer
) -> None:
    """The database takes all that is sent to it, and does not answer."""
    scene.dispatcher(lease_s=4.0)
    number = submit_waiting(scene)
    pid = scene.await_begin(number)
    postgres.pause()
    try:
        # although the one who keeps the books waits for an answer
        await_end_of(pid)
    finally:
        postgres.resume()
    scene.await_begin(number, attempt=2)
    scene.gate.touch()
    assert scene.queue.wait(number).state == "done"
    assert scene.queue.result(number)["pid"] != pid


@on_a_server
def test_a_dispatcher_that_stops_without_its_database_ends_all_the_same(
    scene: Scene, postgres: PostgresServer
) -> None:
    dispatcher = scene.dispatcher()
    number = submit_waiting(scene)
    pid = scene.await_begin(number)
    postgres.pause()
    try:
        dispatcher.dispatcher.stop()
        dispatcher.stop()
        await_end_of(pid)
    finally:
        postgres.resume()
    wait_until(lambda: scene.queue.show(number).state in ("queued", "running"))


def submit_waiting(scene: Scene) -> int:
    task = WorkPiece(do="wait_for", file=scene.gate, log=scene.log)
    return scene.queue.submit(MANAGER, task)


FULL_DISK = Path(__file__).with_name("full_disk.py")


def test_a_full_disk_costs_nothing_that_was_accepted(tmp_path: Path) -> None:
    # only this process sees the small file system, which vanishes with it
    mount = 'mount -t tmpfs -o size=2m,mode=700 small "$0" && exec "$@"'
    run = [sys.executable, str(FULL_DISK), str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), *run],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
