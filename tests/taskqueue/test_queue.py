"""The queue as those see it who want something done."""

from __future__ import annotations

import math
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from queue_programs import PlainManager
from queue_tools import MANAGER, Opener, lease_of, wanted

from opencluster import Manager, WorkPiece
from opencluster.config import Config
from opencluster.errors import (
    ConfigError,
    LocalProtocolError,
    NoSuchTask,
    QueueError,
    TaskFailed,
)
from opencluster.place import Place
from opencluster.references import DataRef
from opencluster.store.database import Database
from opencluster.taskqueue import Request, TaskQueue
from opencluster.wire import stored


def test_a_task_is_kept_as_it_was_asked_for(opener: Opener) -> None:
    task = WorkPiece(path=Path("/data"), array=np.arange(30_000.0), when={1: (2, "ü")})
    number = opener.queue().submit(
        PlainManager,
        task,
        priority=3,
        deadline=datetime(2100, 1, 1, tzinfo=UTC),
        retries=7,
        error_retries=2,
        engine="local",
        piece_class="realtime",
        directory="/tmp",
        key="once",
    )
    queue = opener.queue()
    kept = queue.arguments(number)
    assert np.array_equal(kept.pop("array"), task.pop("array"))
    assert kept == task
    shown = queue.show(number)
    assert shown.manager == MANAGER
    assert (shown.name, shown.state, shown.key) == ("PlainManager", "queued", "once")
    assert (shown.priority, shown.retries, shown.error_retries) == (3, 7, 2)
    assert (shown.engine, shown.directory) == ("local", "/tmp")
    assert shown.piece_class == "realtime"
    assert shown.deadline == datetime(2100, 1, 1, tzinfo=UTC).timestamp()
    assert shown.submitted_at == opener.clock.now.wall_s
    assert (shown.started_at, shown.ended_at, shown.attempt) == (None, None, 0)
    assert not shown.has_ended
    assert shown.progress is None


def test_defaults_of_a_task(opener: Opener) -> None:
    queue = opener.queue(retries=5)
    shown = queue.show(queue.submit("observatory.night:NightManager", WorkPiece()))
    assert (shown.name, shown.retries, shown.piece_class) == ("NightManager", 5, "")
    assert (shown.priority, shown.error_retries, shown.deadline) == (0, 0, None)
    assert shown.directory == str(Path.cwd())


def test_many_tasks_are_listed_newest_first(opener: Opener) -> None:
    queue = opener.queue()
    made = queue.submit_all(wanted(30))
    assert made == sorted(made)
    assert [task.id for task in queue.tasks(limit=10)] == made[:-11:-1]
    queue.cancel(made[3], made[7])
    assert [task.id for task in queue.tasks(["cancelled"])] == [made[7], made[3]]
    assert [task.id for task in queue.tasks(["done", "running"])] == []
    assert queue.counts() == {
        **dict.fromkeys(("waiting", "running", "done", "failed"), 0),
        **{"queued": 28, "cancelled": 2},
    }
    with pytest.raises(ValueError, match="nonsense"):
        queue.tasks(["nonsense"])


def test_who_asks_again_with_the_same_key_asks_for_one_task(opener: Opener) -> None:
    queue = opener.queue()
    first = queue.submit(MANAGER, WorkPiece(a=1), key="night 1")
    assert queue.submit(MANAGER, WorkPiece(a=2), key="night 1") == first
    assert queue.arguments(first) == WorkPiece(a=1)
    made = queue.submit_all(
        [Request(MANAGER, WorkPiece(), key=f"night {n}") for n in (3, 1, 2, 3)]
    )
    assert made[1] == first
    assert made[0] == made[3]
    assert len(set(made)) == 3 == len(queue.tasks())


def test_many_ask_with_the_same_key_at_the_same_time(opener: Opener) -> None:
    queues = [opener.queue(real_clock=True) for _ in range(4)]
    found: list[int] = []
    gate = threading.Barrier(4)

    def ask(queue: TaskQueue) -> None:
        gate.wait()
        for n in range(4):
            found.append(queue.submit(MANAGER, WorkPiece(), key=f"night {n}"))

    threads = [threading.Thread(target=ask, args=[queue]) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 4 == len(queues[0].tasks())


WRONG = [
    ({"priority": 2**31}, ValueError, "priority must be an integer from"),
    ({"priority": 1.5}, ValueError, "not 1.5"),
    ({"retries": -1}, ValueError, "retries must be an integer from 0"),
    ({"error_retries": -1}, ValueError, "error_retries must be"),
    ({"deadline": math.nan}, ValueError, "not a number"),
    ({"piece_class": "urgent"}, ValueError, "must be 'realtime', 'batch', or empty"),
    ({"depends_on": [12345]}, NoSuchTask, "no task 12345"),
]


def test_wrong_options_are_refused(opener: Opener) -> None:
    queue = opener.queue()
    for options, error, message in WRONG:
        with pytest.raises(error, match=message):
            queue.submit_all([*wanted(2), Request(MANAGER, WorkPiece(), **options)])
    assert queue.tasks() == []


def test_what_cannot_be_kept_is_refused_with_its_place(opener: Opener) -> None:
    queue = opener.queue(max_bytes=10_000)
    with pytest.raises(LocalProtocolError, match=r'task\["a"\]'):
        queue.submit(MANAGER, WorkPiece(a=object()))
    with pytest.raises(LocalProtocolError, match=r"\[taskqueue\] max_bytes"):
        queue.submit(MANAGER, WorkPiece(a=np.zeros(10_000, np.uint8)))
    with pytest.raises(TypeError, match="a task is a WorkPiece, not dict"):
        queue.submit(MANAGER, {"a": 1})  # type: ignore[arg-type]

    class LocalManager(Manager):
        pass

    with pytest.raises(ConfigError, match="inside a function"):
        queue.submit(LocalManager, WorkPiece())
    assert queue.tasks() == []


def test_a_reference_to_a_workers_value_cannot_be_kept(opener: Opener) -> None:
    from opencluster.engines.local import LocalEngine

    engine = LocalEngine(Config())
    try:
        reference = engine.scatter([1], None)[0]  # type: ignore[arg-type]
        assert isinstance(reference, DataRef)
        with pytest.raises(LocalProtocolError, match=r"gather\(\) the value first"):
            opener.queue().submit(MANAGER, WorkPiece(a=[reference]))
    finally:
        engine.close()


def test_tasks_that_are_not_there(opener: Opener) -> None:
    queue = opener.queue()
    number = queue.submit(MANAGER, WorkPiece())
    for call in (queue.show, queue.arguments, queue.result, queue.wait):
        with pytest.raises(NoSuchTask, match="no task 99"):
            call(99)
    for change in (queue.cancel, queue.retry):
        with pytest.raises(NoSuchTask, match="no task 98, 99"):
            change(number, 99, 98)
    assert queue.show(number).state == "queued"


def test_lists_come_in_pages_and_may_be_of_one_class(opener: Opener) -> None:
    queue = opener.queue()
    other = MANAGER.replace("PlainManager", "OtherManager")
    queue.submit_all([*wanted(4), Request(other, WorkPiece())])
    first = queue.tasks(limit=2)
    assert [task.id for task in first] == [5, 4]
    assert [task.id for task in queue.tasks(limit=2, before=4)] == [3, 2]
    assert queue.tasks(before=0) == queue.tasks(before=1) == []
    assert [task.id for task in queue.tasks(name="OtherManager")] == [5]
    assert queue.tasks(["done"], name="OtherManager") == []


def test_another_priority_is_another_order(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    queue.submit_all(wanted(4))
    queue.cancel(4)
    assert queue.prioritise(5, 3, 4, 1) == [1, 3]
    assert queue.prioritise(7, 3) == [3]
    assert [leased.lease.task for leased in leases.take(9)] == [3, 1, 2]
    # one that runs has it when it is begun again
    assert queue.prioritise(-1, 3) == [3]
    assert [queue.show(n).priority for n in (1, 2, 3, 4)] == [5, 0, -1, 0]
    with pytest.raises(ValueError, match="priority must be an integer from"):
        queue.prioritise(2**31, 1)
    with pytest.raises(NoSuchTask, match="no task 9"):
        queue.prioritise(1, 2, 9)
    assert queue.show(2).priority == 0


def test_results_and_the_lack_of_them(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece())
    with pytest.raises(QueueError, match="has no result yet: it is queued"):
        queue.result(number)
    assert leases.record(lease_of(leases), stored.pack(WorkPiece(x=1), "r", 1000))
    assert queue.result(number) == WorkPiece(x=1)
    assert queue.wait(number).state == "done"

    number = queue.submit(MANAGER, WorkPiece())
    leases.fail(lease_of(leases), "ValueError: no data", "last words")
    with pytest.raises(TaskFailed, match="failed: ValueError: no data") as caught:
        queue.result(number)
    assert (caught.value.state, caught.value.output) == ("failed", "last words")

    number = queue.submit(MANAGER, WorkPiece())
    queue.cancel(number)
    with pytest.raises(TaskFailed, match="was cancelled") as caught:
        queue.result(number)
    assert caught.value.state == "cancelled"


def test_waiting_for_a_task(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece())
    with pytest.raises(TimeoutError, match="still queued"):
        queue.wait(number, timeout_s=0)
    seen = []

    def follow(task: object) -> None:
        seen.append(task)
        if len(seen) == 1:
            lease = lease_of(leases)
            leases.renew({lease: (1, 4)}, {lease})
        elif len(seen) == 2:
            leases.give_back(lease_of_running(queue, number))
            queue.cancel(number)

    def lease_of_running(queue: TaskQueue, number: int):  # type: ignore[no-untyped-def]
        from opencluster.taskqueue import Lease

        return Lease(number, queue.show(number).attempt)

    assert queue.wait(number, on_change=follow).state == "cancelled"
    states = [task.state for task in seen]  # type: ignore[attr-defined]
    assert states == ["queued", "running", "cancelled"]
    assert seen[1].progress == 0.25  # type: ignore[attr-defined]


def test_waiting_for_what_waits_for_a_failure_ends(opener: Opener) -> None:
    queue = opener.queue()
    first = queue.submit(MANAGER, WorkPiece())
    second = queue.submit(MANAGER, WorkPiece(), depends_on=[first])
    third = queue.submit(MANAGER, WorkPiece(), depends_on=[second])
    queue.cancel(first)
    with pytest.raises(QueueError, match=f"task {second} waits for task {first}, whic"):
        queue.wait(third)


def test_the_name_of_a_database_has_no_password() -> None:
    url = "postgresql://me:secret@db/night?password=secret&host=there&sslmode=require"
    database = Database(url, "boot")
    assert database.name == "postgresql://me:***@db/night?host=there"
    assert database.path is None


def test_without_a_url_the_queue_is_in_the_clusters_directory() -> None:
    with tempfile.TemporaryDirectory(prefix="oc-") as directory:
        place = Place(Path(directory) / "c")
        with TaskQueue(config=Config(), place=place) as queue:
            queue.submit(MANAGER, WorkPiece())
        assert (place.path / "tasks.db").stat().st_mode & 0o077 == 0
        with TaskQueue(config=Config(), place=place) as queue:
            assert len(queue.tasks()) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("no url", "no URL of a database"),
        ("sqlite://", "must begin with postgresql:// or name a file"),
        ("sqlite:///:memory:", "must begin with"),
        ("mysql://user:secret@host/name", r"not mysql://user:\*\*\*@host/name"),
    ],
)
def test_other_databases_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        TaskQueue(url, config=Config())
    assert "secret" not in str(caught.value)
