"""Tables come into being, and are brought from each version to the next."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from queue_tools import MANAGER, Opener, wanted

from opencluster import WorkPiece
from opencluster.config import Config
from opencluster.errors import QueueError, QueueUnavailable
from opencluster.store import schema
from opencluster.store.database import Database, sql
from opencluster.store.schema import ARGUMENTS, NEEDS, RESULTS, TASKS
from opencluster.taskqueue import TaskQueue

NEXT = [*schema.STEPS, ["ALTER TABLE opencluster_tasks ADD COLUMN owner {bytes}"]]


def columns(database: Database, table: str) -> dict[str, bool]:
    """Return the columns of a table, and whether each may be empty."""
    found = database.transact(lambda c: sql.inspect(c).get_columns(table))
    return {column["name"]: column["nullable"] for column in found}


def test_the_tables_are_as_queries_know_them(opener: Opener) -> None:
    database = opener.queue().database
    for table in (TASKS, ARGUMENTS, RESULTS, NEEDS):
        there = columns(database, table.name)
        assert list(there) == [column.name for column in table.columns]
        assert not any(there[name] for name in there if name not in ("id", "task"))


def test_a_database_is_brought_to_the_next_version(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opener.queue().submit_all(wanted(3))
    monkeypatch.setattr(schema, "STEPS", NEXT)
    queue = opener.queue()
    assert "owner" in columns(queue.database, TASKS.name)
    assert [task.id for task in queue.tasks()] == made[::-1]
    assert schema.migrate(queue.database) == len(NEXT)


def test_a_newer_database_is_refused(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(schema, "STEPS", NEXT)
        opener.queue()
    with pytest.raises(QueueError, match=rf"of version {len(NEXT)}, and this program"):
        opener.queue()


def test_a_step_that_fails_leaves_the_version_before(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opener.queue()
    queue.submit(MANAGER, WorkPiece())
    with monkeypatch.context() as broken:
        broken.setattr(schema, "STEPS", [*NEXT, ["DROP TABLE nothing_of_that_name"]])
        with pytest.raises(QueueError):
            opener.queue()
    assert "owner" not in columns(queue.database, TASKS.name)
    assert len(opener.queue().tasks()) == 1


def test_many_processes_open_a_new_database_at_the_same_time(opener: Opener) -> None:
    gate = threading.Barrier(6)
    made: list[int] = []

    def open_it() -> None:
        gate.wait()
        with TaskQueue(opener.url, config=Config()) as queue:
            made.append(queue.submit(MANAGER, WorkPiece()))

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 7))


def test_the_file_of_a_queue_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    with TaskQueue(f"sqlite:///{path}", config=Config()) as queue:
        queue.submit(MANAGER, WorkPiece())
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
        assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_is_no_queue(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_text("this is something else, and long enough to be told from nothing")
    with pytest.raises(QueueError, match="file is not a database") as caught:
        TaskQueue(f"sqlite:///{path}", config=Config())
    assert not isinstance(caught.value, QueueUnavailable)
    with pytest.raises(QueueUnavailable, match="No such file or directory"):
        TaskQueue(f"sqlite:///{tmp_path}/missing/tasks.db", config=Config())
