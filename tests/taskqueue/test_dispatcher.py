"""Dispatchers run what is in the queue, whatever managers and databases do."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from dispatcher_tools import Scene, await_end_of, has_ended
from queue_programs import begun
from queue_tools import MANAGER, TARGET, wait_until

from opencluster import TaskDispatcher, WorkPiece
from opencluster.dispatcher import daemon
from opencluster.dispatcher.running import Running
from opencluster.errors import QueueError, StartFailed
from opencluster.store import mounts
from opencluster.store.database import sql
from opencluster.store.schema import TASKS
from opencluster.taskqueue import Leases

pytestmark = pytest.mark.processes

one_kind = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
"""For what has nothing to do with the database."""
LEASE_S = 6.0
"""Longer than a busy computer keeps a dispatcher from its work."""


def submit(scene: Scene, do: str, **options: object) -> int:
    """Have a manager do something."""
    log = options.pop("log", scene.log)
    task = WorkPiece(do=do, file=scene.gate, log=log)
    for name in ("count", "size", "number"):
        if name in options:
            task[name] = options.pop(name)
    return scene.queue.submit(MANAGER, task, **options)


@one_kind
def test_tasks_are_run_and_what_came_of_them_is_recorded(scene: Scene) -> None:
    plain = submit(scene, "nothing", size=3)
    squares = submit(scene, "squares", count=5)
    later = submit(scene, "nothing", depends_on=[squares], priority=9)
    where = submit(scene, "where", directory=scene.directory)
    urgent = submit(scene, "where", piece_class="realtime")
    crash = submit(scene, "crash", retries=1)
    once = scene.directory / "once"
    crash_at_first = submit(scene, "crash_at_first", log=once, retries=1)
    fail = submit(scene, "fail")
    twice = scene.directory / "twice"
    fail_at_first = submit(scene, "fail_at_first", log=twice, error_retries=1)
    leave = submit(scene, "leave")
    nothing = submit(scene, "return_nothing")
    much = submit(scene, "return_much", size=20_000)
    no_class = scene.queue.submit(f"{TARGET}:Missing", WorkPiece())
    no_manager = scene.queue.submit(f"{TARGET}:SquareWorker", WorkPiece())
    no_folder = submit(scene, "nothing", directory="/nowhere", retries=0)
    late = submit(scene, "nothing", deadline=1.0)
    spoil = submit(scene, "spoil", retries=0)

    scene.dispatcher(until_empty=True, max_bytes=10_000).join()
    queue = scene.queue
    assert queue.result(plain)["size"] == 3
    assert queue.result(squares)["total"] == 30
    assert queue.show(squares).progress == 1.0
    assert queue.result(where)["directory"] == scene.directory.resolve()
    assert queue.result(where)["pieces"] == "batch"
    assert queue.result(urgent)["pieces"] == "realtime"
    assert queue.show(later).state == "done"
    assert queue.show(later).started_at >= queue.show(squares).ended_at  # type: ignore[operator]
    for number, path in ((crash_at_first, once), (fail_at_first, twice)):
        assert (queue.show(number).state, queue.show(number).attempt) == ("done", 2)
        assert begun(path) == 2
    errors = {
        crash: "lost 2 times, the last time since its manager's process ended: kil",
        fail: "ValueError: there is no data\n\ntraceback:\n",
        leave: "SystemExit: 3",
        nothing: "TypeError: schedule() must return a WorkPiece, not NoneType",
        much: "LocalProtocolError: result has 20",
        no_class: "ConfigError: ",
        no_manager: "ConfigError: ",
        no_folder: "lost once since its manager's process ended: ",
        late: "its deadline passed, it was not begun",
        spoil: "lost once since its manager has spoilt its reports: no report: 1",
    }
    for number, error in errors.items():
        shown = queue.show(number)
        assert shown.state == "failed"
        assert shown.error.startswith(error)
    assert "queue_programs.py" in queue.show(fail).error
    assert "taskrun.py" not in queue.show(fail).error
    for number in (crash, fail):
        assert "these are my last words" in queue.show(number).output
    assert "cannot use the working directory" in queue.show(no_folder).output
    logs = [path.read_text() for path in scene.place.logs.glob("manager-*.log")]
    assert sum(f"--- task {plain} (attempt 1): PlainManager\n" in t for t in logs) == 1


@one_kind
def test_a_dispatcher_takes_the_tasks_of_its_managers_only(scene: Scene) -> None:
    class OtherDispatcher(TaskDispatcher):
        only = ("OtherManager",)

    mine = scene.queue.submit(f"{TARGET}:OtherManager", WorkPiece())
    other = submit(scene, "nothing")
    assert OtherDispatcher.only == ("OtherManager",)
    scene.dispatcher(until_empty=True, only=OtherDispatcher.only).join()
    assert scene.queue.show(mine).state == "done"
    assert scene.queue.show(other).state == "queued"


@one_kind
def test_a_dispatcher_warns_of_a_disk_that_others_share(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounts_of_here = scene.directory / "mounts"
    mounts_of_here.write_text("server:/ / nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", mounts_of_here)
    scene.dispatcher(until_empty=True).join()
    assert "is on nfs4, where SQLite holds no locks" in caplog.text


@one_kind
def test_a_cancelled_task_is_interrupted_and_one_that_insists_is_killed(
    scene: Scene,
) -> None:
    dispatcher = scene.dispatcher(stop_grace_s=0.1, managers=1)
    for do in ("wait_for", "insist"):
        number = submit(scene, do)
        pid = scene.await_begin(number)
        assert scene.queue.cancel(number) == [number]
        await_end_of(pid)
    # the dispatcher is free again, and what was cancelled stays so
    assert scene.queue.wait(submit(scene, "nothing")).state == "done"
    assert scene.queue.show(number).state == "cancelled"
    dispatcher.stop()


@one_kind
def test_a_cancelled_task_that_is_wanted_again_waits_for_its_old_run(
    scene: Scene,
) -> None:
    for _ in range(2):
        scene.dispatcher(stop_grace_s=1.0, managers=1)
    number = submit(scene, "insist")
    pid = scene.await_begin(number)
    assert scene.queue.cancel(number) == scene.queue.retry(number) == [number]
    scene.await_begin(number, attempt=2)
    assert has_ended(pid)
    scene.queue.cancel(number)


@one_kind
def test_a_running_task_ends_at_its_deadline(scene: Scene) -> None:
    # all managers are busy meanwhile
    scene.dispatcher(managers=1)
    number = submit(scene, "wait_for")
    pid = scene.await_begin(number)
    passed = sql.update(TASKS).where(TASKS.c.id == number).values(deadline=1.0)
    scene.queue.database.transact(lambda connection: connection.execute(passed))
    assert scene.queue.wait(number).state == "failed"
    assert scene.queue.show(number).error == "its deadline passed, it was still running"
    await_end_of(pid)


@one_kind
def test_who_stops_gives_back_what_is_unfinished(scene: Scene) -> None:
    dispatcher = scene.dispatcher(stop_grace_s=60.0)
    numbers = [submit(scene, do) for do in ("wait_for", "insist")]
    waiting = submit(scene, "nothing", depends_on=numbers)
    pids = [scene.await_begin(number) for number in numbers]
    dispatcher.dispatcher.stop()
    wait_until(lambda: scene.queue.show(numbers[0]).state == "queued")
    # the other one does not stop by itself, until it is told again
    assert scene.queue.show(numbers[1]).state == "running"
    dispatcher.stop()
    for pid in pids:
        await_end_of(pid)
    for number in numbers:
        shown = scene.queue.show(number)
        assert (shown.state, shown.losses, shown.attempt) == ("queued", 0, 1)
    scene.gate.touch()
    scene.dispatcher(until_empty=True).join()
    assert scene.queue.show(waiting).state == "done"
    assert {scene.queue.show(number).attempt for number in numbers} == {2}


def test_a_killed_dispatchers_task_is_done_by_another_and_recorded_once(
    scene: Scene,
) -> None:
    first = scene.process(lease_s=LEASE_S)
    number = submit(scene, "wait_for")
    pid = scene.await_begin(number)
    first.send(signal.SIGKILL)
    first.wait()
    # its manager goes with it, and does not work beside the next one
    await_end_of(pid)
    second = scene.process(lease_s=LEASE_S)
    scene.await_begin(number, attempt=2)
    scene.gate.touch()
    assert scene.queue.wait(number).state == "done"
    shown = scene.queue.show(number)
    assert shown.losses == 1
    assert "was not heard of any more" not in shown.error
    assert scene.queue.result(number)["pid"] != pid
    second.send(signal.SIGTERM)
    assert second.wait() == 0
    assert "has ended" in second.said()


@one_kind
def test_who_stood_still_past_its_lease_records_nothing(scene: Scene) -> None:
    slow = scene.process(lease_s=LEASE_S)
    number = submit(scene, "wait_for")
    pid = scene.await_begin(number)
    scene.suspend(slow)
    scene.dispatcher()
    scene.await_begin(number, attempt=2)
    scene.gate.touch()
    shown = scene.queue.wait(number)
    assert (shown.state, shown.attempt) == ("done", 2)
    await_end_of(pid)
    # it finds a result, which is not wanted any more
    slow.send(signal.SIGCONT)
    wait_until(lambda: "is not ours any more" in slow.said())
    assert scene.queue.result(number)["pid"] != pid
    assert scene.queue.show(number).attempt == 2
    slow.send(signal.SIGINT)
    assert slow.wait() == 0


@one_kind
def test_a_task_that_cannot_be_started_is_given_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = submit(scene, "nothing", retries=0)
    refusals = iter([StartFailed("no more processes"), OSError("no more files")])

    def start(*arguments: object) -> Running:
        for refusal in refusals:
            raise refusal
        return Running(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(daemon, "Running", start)
    scene.dispatcher(until_empty=True).join()
    shown = scene.queue.show(number)
    assert (shown.state, shown.attempt, shown.losses) == ("done", 3, 0)


@one_kind
def test_a_result_that_the_database_refuses_fails_its_task(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(*arguments: object) -> None:
        raise QueueError("too strange")

    monkeypatch.setattr(Leases, "record", record)
    number = submit(scene, "nothing")
    scene.dispatcher(until_empty=True).join()
    assert scene.queue.show(number).state == "failed"
    assert scene.queue.show(number).error == "it cannot be recorded: too strange"


@one_kind
def test_a_mistake_of_its_own_ends_a_dispatcher_and_its_managers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = submit(scene, "wait_for")
    running = scene.dispatcher(raises=RuntimeError)
    pid = scene.await_begin(number)

    def take(self: Leases, count: int, only: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Leases, "take", take)
    running.join()
    assert str(running.error) == "a mistake"
    await_end_of(pid)


def test_many_dispatchers_never_run_a_task_twice_at_a_time(scene: Scene) -> None:
    numbers = [submit(scene, "nothing", number=n) for n in range(8)]
    dispatchers = [scene.dispatcher(managers=2, until_empty=True) for _ in range(3)]
    for dispatcher in dispatchers:
        dispatcher.join()
    assert {scene.queue.show(n).attempt for n in numbers} == {1}
    lines = [line.split() for line in Path(scene.log).read_text().splitlines()]
    for what in ("begun", "ended"):
        told = sorted(int(number) for said, number, *_ in lines if said == what)
        assert told == list(range(8))
