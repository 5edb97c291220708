"""What the tests of the queue share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from opencluster import WorkPiece
from opencluster.config import Config
from opencluster.config.settings import TaskQueueSettings
from opencluster.core.tasks import Moment
from opencluster.store.database import sql
from opencluster.taskqueue import Lease, Leases, Request, TaskQueue
from opencluster.taskqueue.leases import next_tasks

TARGET = f"{Path(__file__).with_name('queue_programs.py')}"
MANAGER = f"{TARGET}:PlainManager"
LEASE_S = 60.0
DELAY_S = 10.0
DEADLINE_S = 60.0
"""Nothing here waits longer than this for what a test has promised."""


class Clock:
    """Stands in for the clocks of a database."""

    def __init__(self) -> None:
        self.now = Moment(1.8e9, 1000.0, "first boot")

    def __call__(self, connection: object) -> Moment:
        return self.now

    def advance(self, seconds: float) -> None:
        now = self.now
        self.now = replace(
            now, wall_s=now.wall_s + seconds, lease_s=now.lease_s + seconds
        )


class Opener:
    """Opens one queue several times, as several processes would."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self.clock = Clock()
        self._stack = stack

    def queue(self, *, real_clock: bool = False, **settings: Any) -> TaskQueue:
        config = Config(taskqueue=TaskQueueSettings(**settings))
        queue = self._stack.enter_context(TaskQueue(self.url, config=config))
        if not real_clock:
            queue.database.moment = self.clock  # type: ignore[method-assign]
        return queue

    def leases(self, holder: str = "a", **settings: Any) -> Leases:
        queue = self.queue(**settings)
        return Leases(queue.database, holder, LEASE_S, DELAY_S)

    def plan(self, connection: sql.Connection) -> str:
        """Return how the database finds the tasks that come next."""
        query = next_tasks(self.clock.now, ()).limit(10).with_for_update(read=False)
        text = query.compile(
            connection, compile_kwargs={"literal_binds": True}
        ).string.partition(" FOR UPDATE")[0]
        rows = connection.exec_driver_sql(f"{explain(connection)} {text}")
        return "\n".join(str(row) for row in rows)


def explain(connection: sql.Connection) -> str:
    is_sqlite = connection.dialect.name == "sqlite"
    return "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"


def wanted(count: int, **options: Any) -> list[Request]:
    return [Request(MANAGER, WorkPiece(number=n), **options) for n in range(count)]


def numbers(leased: Sequence[Any]) -> list[int]:
    return [one.lease.task for one in leased]


def lease_of(leases: Leases) -> Lease:
    """Borrow the one task that there is."""
    (leased,) = leases.take(2)
    return leased.lease


def wait_until(has_come: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not has_come():
        assert time.monotonic() < deadline, what or "it did not come"
        time.sleep(0.02)
