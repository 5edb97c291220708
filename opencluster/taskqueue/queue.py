"""The queue as those see it who want something done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opencluster.config import Config, load
from opencluster.core import tasks as decisions
from opencluster.core.tasks import Changes, Moment, Standing, State
from opencluster.errors import NoSuchTask, QueueError, TaskFailed
from opencluster.node.host import boot_id
from opencluster.place import Place
from opencluster.store.database import Database, sql
from opencluster.store.schema import ARGUMENTS, NEEDS, RESULTS, TASKS, migrate
from opencluster.taskqueue.request import (
    Prepared,
    Request,
    checked_priority,
    prepared,
)
from opencluster.taskqueue.task import COLUMNS, STANDING, Task, standing_of, task_of
from opencluster.wire import stored
from opencluster.workpiece import WorkPiece

FILE_NAME = "tasks.db"
PATIENCE_S = 20.0
"""How long a request outlives the loss of a database that was there before."""
WAIT_INTERVAL_S = 0.25
"""Between two looks at a task that somebody waits for."""


class TaskQueue:
    """Takes tasks, keeps them until a dispatcher has done them, and has the results.

    Parameters
    ----------
    url : str, optional
        The database; by default ``[taskqueue] url``, else a file in the cluster's
        directory.
    config : Config, optional
        The settings.
    place : Place, optional
        The cluster's directory.
    patience_s : float
        How long a request goes on trying when the database is lost.

    Raises
    ------
    QueueUnavailable
        When the database cannot be reached.

    Examples
    --------
    >>> queue = TaskQueue()                                        # doctest: +SKIP
    >>> number = queue.submit(NightManager, WorkPiece(night="2026-12-01"))
    >>> queue.wait(number).state
    'done'
    >>> queue.result(number)
    WorkPiece(images=12)
    """

    def __init__(
        self,
        url: str = "",
        *,
        config: Config | None = None,
        place: Place | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._settings = (config or load()).taskqueue
        url = url or self._settings.url
        if not url:
            place = place or Place.find()
            place.make()
            url = f"sqlite:///{place.path / FILE_NAME}"
        self.database = Database(url, boot_id(), patience_s)
        try:
            migrate(self.database)
        except BaseException:
            self.database.close()
            raise

    # --- asking for something ------------------------------------------------

    def submit(self, manager: type | str, task: WorkPiece, **options: Any) -> int:
        """Put a task into the queue; when this returns, it is kept.

        Parameters
        ----------
        manager : type or str
            The Manager class that is to run it, or ``module:Class``, or
            ``path.py:Class``; the dispatcher imports it.
        task : WorkPiece
            What its ``schedule()`` gets.
        **options
            See `Request`.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        LocalProtocolError
            When something in the task cannot be kept.
        NoSuchTask
            When it depends on one that is not there.
        """
        return self.submit_all([Request(manager, task, **options)])[0]

    def submit_all(self, requests: Iterable[Request]) -> list[int]:
        """Put many tasks into the queue: all of them, or none.

        Parameters
        ----------
        requests : iterable of Request
            What to do.

        Returns
        -------
        list of int
            Their numbers, in the same order.
        """
        settings = self._settings
        # with their keys, so that what is done twice is known to be the same
        wanted = [prepared(request, settings) for request in requests]
        return self.database.transact(lambda c: self._insert(c, wanted))

    def _insert(self, connection: sql.Connection, wanted: list[Prepared]) -> list[int]:
        known = self._numbers_of(connection, [prepared.key for prepared in wanted])
        new = {p.key: p for p in wanted if p.key not in known}
        if new:
            # held, as one that is done meanwhile would not be counted down here
            needed = sorted({number for p in new.values() for number in p.needed})
            found = _locked(connection, needed).items()
            undone = {number for number, task in found if task.state != State.DONE}
            now = self.database.moment(connection).wall_s
            rows = [
                p.row | decisions.submitted(len(undone & p.needed), now)
                for p in new.values()
            ]
            connection.execute(sql.insert(TASKS), rows)
            known |= self._numbers_of(connection, list(new))
            data = [{"task": known[key], "data": p.data} for key, p in new.items()]
            connection.execute(sql.insert(ARGUMENTS), data)
            needs = [
                {"task": known[key], "needed": number}
                for key, p in new.items()
                for number in p.needed
            ]
            if needs:
                connection.execute(sql.insert(NEEDS), needs)
        return [known[prepared.key] for prepared in wanted]

    @staticmethod
    def _numbers_of(connection: sql.Connection, keys: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in _parts(keys):
            query = sql.select(TASKS.c.key, TASKS.c.id).where(TASKS.c.key.in_(part))
            found |= {row.key: row.id for row in connection.execute(query)}
        return found

    # --- looking -------------------------------------------------------------

    def tasks(
        self,
        states: Iterable[str] = (),
        limit: int = 100,
        *,
        before: int | None = None,
        name: str = "",
    ) -> list[Task]:
        """Return tasks, the newest first.

        Parameters
        ----------
        states : iterable of str, optional
            Only those that are in one of these states.
        limit : int
            How many at most.
        before : int, optional
            Only those with a smaller number: the next page of a long list.
        name : str, optional
            Only those whose manager class has this name.
        """
        wanted = [State(state).value for state in states]
        query = sql.select(*COLUMNS).order_by(TASKS.c.id.desc()).limit(limit)
        if wanted:
            query = query.where(TASKS.c.state.in_(wanted))
        if before is not None:
            query = query.where(TASKS.c.id < before)
        if name:
            query = query.where(TASKS.c.name == name)
        rows = self.database.read(lambda c: c.execute(query).all())
        return [task_of(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many tasks are in each state."""
        count = sql.func.count().label("tasks")
        query = sql.select(TASKS.c.state, count).group_by(TASKS.c.state)
        rows = self.database.read(lambda c: c.execute(query).all())
        found = {row.state: int(row.tasks) for row in rows}
        return {state.value: found.get(state.value, 0) for state in State}

    def show(self, number: int) -> Task:
        """Return one task, with what it depends on.

        Raises
        ------
        NoSuchTask
            When there is none of that number.
        """
        query = sql.select(*COLUMNS).where(TASKS.c.id == number)
        needs = sql.select(NEEDS.c.needed).where(NEEDS.c.task == number)

        def look(connection: sql.Connection) -> Task:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise _no_such([number])
            needed = connection.execute(needs.order_by(NEEDS.c.needed)).scalars()
            return task_of(row, tuple(needed))

        return self.database.read(look)

    def arguments(self, number: int) -> WorkPiece:
        """Return what a task is to do.

        Raises
        ------
        NoSuchTask
            When there is none of that number.
        """
        query = sql.select(ARGUMENTS.c.data).where(ARGUMENTS.c.task == number)
        data = self.database.read(lambda c: c.execute(query).scalar())
        if data is None:
            raise _no_such([number])
        value: WorkPiece = stored.unpack(data)
        return value

    def result(self, number: int) -> WorkPiece:
        """Return what came of a task that is done.

        Raises
        ------
        TaskFailed
            When it ended without a result.
        QueueError
            When it has not ended yet.
        NoSuchTask
            When there is none of that number.
        """
        query = sql.select(RESULTS.c.data).where(RESULTS.c.task == number)
        data = self.database.read(lambda c: c.execute(query).scalar())
        if data is not None:
            value: WorkPiece = stored.unpack(data)
            return value
        task = self.show(number)
        if not task.has_ended:
            raise QueueError(f"task {number} has no result yet: it is {task.state}")
        error = f": {task.error}" if task.error else ""
        message = f"task {number} ({task.name}) {_was(task.state)}{error}"
        raise TaskFailed(message, task.state, task.output)

    def wait(
        self,
        number: int,
        timeout_s: float | None = None,
        on_change: Callable[[Task], None] | None = None,
    ) -> Task:
        """Wait until a task has ended, and return it.

        Parameters
        ----------
        number : int
            Which one.
        timeout_s : float, optional
            How long at most.
        on_change : callable, optional
            Called with the task whenever it is another than before.

        Raises
        ------
        TimeoutError
            When it has not ended by then.
        QueueError
            When it waits for a task that has failed or was cancelled.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        seen = None
        while True:
            task = self.show(number)
            if task != seen and on_change is not None:
                on_change(task)
            seen = task
            if task.has_ended:
                return task
            if task.state == State.WAITING:
                self._check_hope(task)
            if time.monotonic() >= deadline:
                raise TimeoutError(f"task {number} is still {task.state}")
            time.sleep(WAIT_INTERVAL_S)

    def _check_hope(self, task: Task) -> None:
        """Raise an error if a task waits for what does not come."""
        for needed in task.depends_on:
            other = self.show(needed)
            if other.state in (State.FAILED, State.CANCELLED):
                raise QueueError(
                    f"task {task.id} waits for task {needed}, which "
                    f"{_was(other.state)}: see `opencluster tasks show {needed}`, and "
                    f"`opencluster tasks retry {needed}` goes on with both"
                )
            if other.state == State.WAITING:
                self._check_hope(other)

    # --- changing one's mind -------------------------------------------------

    def cancel(self, *numbers: int) -> list[int]:
        """Take tasks back: what waits is not begun, what runs is stopped soon.

        Returns
        -------
        list of int
            Those that had not ended before.

        Raises
        ------
        NoSuchTask
            When one is not there; nothing is changed then.
        """
        return self._change(numbers, decisions.cancelled)

    def retry(self, *numbers: int) -> list[int]:
        """Have tasks begun again that failed or were cancelled.

        Returns
        -------
        list of int
            Those of which this is so; the others are done, or under way already.

        Raises
        ------
        NoSuchTask
            When one is not there; nothing is changed then.
        """
        return self._change(numbers, decisions.wanted_again)

    def prioritise(self, priority: int, *numbers: int) -> list[int]:
        """Let tasks be begun before others, or behind them.

        Parameters
        ----------
        priority : int
            Higher goes first; 0 is usual.
        *numbers : int
            Which tasks.

        Returns
        -------
        list of int
            Those that had not ended before. One that runs goes on as it does, and has
            the priority when it is begun again.

        Raises
        ------
        NoSuchTask
            When one is not there; nothing is changed then.
        ValueError
            When the priority is beyond what can be kept.
        """
        priority = checked_priority(priority)
        return self._change(
            numbers, lambda task, now: decisions.prioritised(task, priority)
        )

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> TaskQueue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _change(
        self,
        numbers: Sequence[int],
        decide: Callable[[Standing, Moment], Changes | None],
    ) -> list[int]:
        def change(connection: sql.Connection) -> list[int]:
            now = self.database.moment(connection)
            changed = []
            for number, standing in _locked(connection, sorted(set(numbers))).items():
                changes = decide(standing, now)
                if changes is not None:
                    changed.append(number)
                    connection.execute(_update(number).values(**changes))
            return changed

        return self.database.transact(change)


def _locked(connection: sql.Connection, numbers: Sequence[int]) -> dict[int, Standing]:
    """Return how tasks stand, which nobody changes meanwhile; in rising order."""
    found: dict[int, Standing] = {}
    for part in _parts(numbers):
        query = (
            sql.select(TASKS.c.id, *STANDING)
            .where(TASKS.c.id.in_(part))
            .order_by(TASKS.c.id)
            .with_for_update()
        )
        found |= {row.id: standing_of(row) for row in connection.execute(query)}
    missing = [number for number in numbers if number not in found]
    if missing:
        raise _no_such(missing)
    return found


def _update(number: int) -> sql.Update:
    return sql.update(TASKS).where(TASKS.c.id == number)


def _parts(items: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """Yield a sequence in parts that fit into one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _no_such(numbers: Sequence[int]) -> NoSuchTask:
    listed = ", ".join(map(str, numbers))
    return NoSuchTask(
        f"there is no task {listed} in the queue: see `opencluster tasks`"
    )


def _was(state: str) -> str:
    return "failed" if state == State.FAILED else f"was {state}"
