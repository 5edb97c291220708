"""The queue as dispatchers see it: tasks that are lent, and come back with results.

Everything that is said of a lease names the attempt. A dispatcher whose lease ran out,
and whose task somebody else was lent since, or somebody cancelled, is told so, and what
it says of the task is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core import tasks as decisions
from opencluster.core.tasks import ENDED, OPEN, Changes, Moment, Standing, State
from opencluster.store.database import Database, sql
from opencluster.store.schema import ARGUMENTS, NEEDS, RESULTS, TASKS
from opencluster.taskqueue.task import COLUMNS, STANDING, Task, standing_of, task_of

SWEEP = 200
"""Tasks whose end is noticed in one transaction; the rest is left to the next."""


@dataclass(frozen=True)
class Lease:
    """The right to run a task, and to say what came of it.

    Attributes
    ----------
    task : int
        Its number.
    attempt : int
        Which run of it.
    """

    task: int
    attempt: int

    def __str__(self) -> str:
        return f"task {self.task} (attempt {self.attempt})"


@dataclass(frozen=True)
class Leased:
    """A task that was lent.

    Attributes
    ----------
    lease : Lease
        What identifies the run.
    task : Task
        What is known of it.
    arguments : bytes
        What it is to do, as `wire.stored` packs it.
    """

    lease: Lease
    task: Task
    arguments: bytes


class Leases:
    """What one dispatcher has been lent.

    Parameters
    ----------
    database : Database
        Where the queue is.
    holder : str
        Names the dispatcher; no other ever has the same name.
    lease_s : float
        How long a lease lasts without being renewed.
    retry_delay_s : float
        How long a task is put off after its first error.
    """

    def __init__(
        self, database: Database, holder: str, lease_s: float, retry_delay_s: float
    ) -> None:
        self._database = database
        self.holder = holder
        self.lease_s = lease_s
        self._retry_delay_s = retry_delay_s

    def take(self, count: int, only: Collection[str] = ()) -> list[Leased]:
        """Borrow the tasks that come next.

        Leases of others that ran out, and deadlines that passed, are noticed before.

        Parameters
        ----------
        count : int
            How many at most.
        only : collection of str, optional
            Names of the manager classes that are wanted; all by default.
        """

        def take(connection: sql.Connection) -> list[Leased]:
            now = self._database.moment(connection)
            self._sweep(connection, now)
            query = next_tasks(now, only).limit(count)
            return [
                self._lend(connection, now, row) for row in connection.execute(query)
            ]

        return self._database.transact(take)

    def sweep(self) -> None:
        """Notice leases of others that ran out, and deadlines that passed."""
        self._database.transact(
            lambda connection: self._sweep(
                connection, self._database.moment(connection)
            )
        )

    def renew(
        self, progress: Mapping[Lease, tuple[float, float]], known: Collection[Lease]
    ) -> set[Lease]:
        """Say that this dispatcher is alive, and how far its tasks are.

        Parameters
        ----------
        progress : mapping of Lease to (float, float)
            How much of how much is done, of those that have changed.
        known : collection of Lease
            What the dispatcher has. What was lent to it without its hearing of it goes
            back.

        Returns
        -------
        set of Lease
            What it still holds.
        """

        def renew(connection: sql.Connection) -> set[Lease]:
            now = self._database.moment(connection)
            held = _leases_in(connection.execute(self._held_query().with_for_update()))
            for lease in held:
                changes = dict(decisions.renewed(now, self.lease_s))
                if lease in progress:
                    done, total = progress[lease]
                    changes |= {"progress_done": done, "progress_total": total}
                if lease not in known:
                    changes = dict(decisions.given_back(now))
                _write(connection, lease.task, changes)
            return held & set(known)

        return self._database.transact(renew)

    def held(self) -> set[Lease]:
        """Return what this dispatcher holds."""
        query = self._held_query()
        return self._database.read(lambda c: _leases_in(c.execute(query)))

    def is_more(self, only: Collection[str] = ()) -> bool:
        """Return whether tasks are queued, be it that they are put off.

        Parameters
        ----------
        only : collection of str, optional
            As for `take`.
        """
        query = sql.select(TASKS.c.id).where(TASKS.c.state == State.QUEUED).limit(1)
        if only:
            query = query.where(TASKS.c.name.in_(only))
        return self._database.read(lambda c: c.execute(query).first() is not None)

    def record(self, lease: Lease, result: bytes) -> bool:
        """Record what came of a task.

        Returns
        -------
        bool
            Whether it is recorded, now or by an earlier call of which the answer was
            lost; otherwise the lease does not hold any more.
        """

        def record(connection: sql.Connection) -> bool:
            if self._is_recorded(connection, lease):
                return True
            standing = self._standing(connection, lease)
            if standing is None:
                return False
            now = self._database.moment(connection)
            _write(connection, lease.task, decisions.done(now))
            row = {"task": lease.task, "attempt": lease.attempt, "data": result}
            connection.execute(sql.insert(RESULTS), [row])
            _release_dependents(connection, lease.task)
            return True

        return self._database.transact(record)

    def fail(self, lease: Lease, error: str, output: str = "") -> bool:
        """Record that a task's manager raised; True if the lease still held."""
        told, delay_s = (_clean(error), _clean(output)), self._retry_delay_s
        return self._settle(
            lease, lambda task, now: decisions.failed(task, now, *told, delay_s)
        )

    def lose(self, lease: Lease, reason: str, output: str = "") -> bool:
        """Record that the process of a task's manager died; True if the lease held."""
        told = _clean(reason), _clean(output)
        return self._settle(lease, lambda task, now: decisions.lost(task, now, *told))

    def give_back(self, lease: Lease) -> bool:
        """Let others run a task; True if the lease still held."""
        return self._settle(lease, lambda task, now: decisions.given_back(now))

    def let_go(self, lease: Lease) -> None:
        """Say that a run has ended whose task was taken away from this dispatcher."""
        # nothing, if somebody else runs it
        update = sql.update(TASKS).where(
            *(TASKS.c.id == lease.task, TASKS.c.attempt == lease.attempt),
            *(TASKS.c.holder == "", TASKS.c.state != State.RUNNING),
        )
        update = update.values(**decisions.let_go())
        self._database.transact(lambda connection: connection.execute(update))

    def forget(self, kept_s: float) -> int:
        """Remove tasks that ended long ago, unless others still depend on them.

        Parameters
        ----------
        kept_s : float
            How long ended tasks are kept.

        Returns
        -------
        int
            How many were removed, `SWEEP` at most.
        """

        def forget(connection: sql.Connection) -> int:
            before = self._database.moment(connection).wall_s - kept_s
            dependent = TASKS.alias()
            is_needed = sql.exists().where(
                NEEDS.c.needed == TASKS.c.id,
                dependent.c.id == NEEDS.c.task,
                dependent.c.state != State.DONE,
            )
            query = (
                sql.select(TASKS.c.id)
                .where(TASKS.c.ended_at.between(1.0, before))
                .where(TASKS.c.state.in_(ENDED), ~is_needed)
                .limit(SWEEP)
                .with_for_update(skip_locked=True, of=TASKS)
            )
            found = list(connection.execute(query).scalars())
            for table, column in (
                (ARGUMENTS, ARGUMENTS.c.task),
                (RESULTS, RESULTS.c.task),
                (NEEDS, NEEDS.c.task),
                (NEEDS, NEEDS.c.needed),
                (TASKS, TASKS.c.id),
            ):
                connection.execute(sql.delete(table).where(column.in_(found)))
            return len(found)

        return self._database.transact(forget)

    def close(self) -> None:
        """Let go of the database; what is held runs out."""
        self._database.close()

    # --- inside --------------------------------------------------------------

    def _sweep(self, connection: sql.Connection, now: Moment) -> None:
        """Notice what has happened to tasks by the passing of time alone."""
        is_over = sql.or_(TASKS.c.era != now.era, TASKS.c.until <= now.lease_s)
        silent = sql.and_(TASKS.c.state == State.RUNNING, is_over)
        due = sql.and_(TASKS.c.state.in_(OPEN), TASKS.c.deadline <= now.wall_s)
        for condition in (due, silent):
            query = sql.select(TASKS.c.id, TASKS.c.holder, *STANDING).where(condition)
            query = query.limit(SWEEP).with_for_update(skip_locked=True)
            for row in connection.execute(query).all():
                standing = standing_of(row)
                if decisions.is_overdue(standing, now):
                    changes = decisions.overdue(standing, now)
                else:
                    reason = f"its dispatcher {row.holder} was not heard of any more"
                    changes = decisions.lost(standing, now, reason)
                _write(connection, row.id, changes)

    def _lend(
        self, connection: sql.Connection, now: Moment, row: sql.Row[Any]
    ) -> Leased:
        standing = standing_of(row)
        changes = decisions.begun(standing, now, self.holder, self.lease_s)
        _write(connection, row.id, changes)
        data = sql.select(ARGUMENTS.c.data).where(ARGUMENTS.c.task == row.id)
        fresh = sql.select(*COLUMNS).where(TASKS.c.id == row.id)
        return Leased(
            Lease(row.id, changes["attempt"]),
            task_of(connection.execute(fresh).one()),
            connection.execute(data).scalar_one(),
        )

    def _held_query(self) -> sql.Select[Any]:
        return (
            sql.select(TASKS.c.id, TASKS.c.attempt)
            .where(TASKS.c.holder == self.holder, TASKS.c.state == State.RUNNING)
            # in the order in which everyone locks
            .order_by(TASKS.c.id)
        )

    def _standing(self, connection: sql.Connection, lease: Lease) -> Standing | None:
        """Return how a task stands, or None when the lease does not hold any more."""
        query = (
            sql.select(*STANDING)
            .where(TASKS.c.id == lease.task, TASKS.c.attempt == lease.attempt)
            .where(TASKS.c.state == State.RUNNING, TASKS.c.holder == self.holder)
            .with_for_update()
        )
        row = connection.execute(query).one_or_none()
        return None if row is None else standing_of(row)

    @staticmethod
    def _is_recorded(connection: sql.Connection, lease: Lease) -> bool:
        query = sql.select(RESULTS.c.attempt).where(RESULTS.c.task == lease.task)
        return connection.execute(query).scalar() == lease.attempt

    def _settle(
        self, lease: Lease, decide: Callable[[Standing, Moment], Changes]
    ) -> bool:
        def settle(connection: sql.Connection) -> bool:
            standing = self._standing(connection, lease)
            if standing is not None:
                now = self._database.moment(connection)
                _write(connection, lease.task, decide(standing, now))
            return standing is not None

        return self._database.transact(settle)


def _leases_in(rows: Iterable[sql.Row[Any]]) -> set[Lease]:
    return {Lease(row.id, row.attempt) for row in rows}


def _clean(text: str) -> str:
    """Return a text without what PostgreSQL takes in no text."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def next_tasks(now: Moment, only: Collection[str]) -> sql.Select[Any]:
    """Return the query for what may be begun, in order, that nobody else looks at."""
    order: Sequence[Any] = (TASKS.c.priority.desc(), TASKS.c.deadline, TASKS.c.id)
    query = (
        sql.select(TASKS.c.id, *STANDING)
        .where(TASKS.c.state == State.QUEUED)
        .where(sql.or_(TASKS.c.era != now.era, TASKS.c.until <= now.lease_s))
        .order_by(*order)
        .with_for_update(skip_locked=True)
    )
    return query.where(TASKS.c.name.in_(only)) if only else query


def _write(connection: sql.Connection, task: int, changes: Changes) -> None:
    connection.execute(sql.update(TASKS).where(TASKS.c.id == task).values(**changes))


def _release_dependents(connection: sql.Connection, task: int) -> None:
    """Count a task that is done as met for those that depend on it."""
    dependents = (
        sql.select(TASKS.c.id, TASKS.c.unmet, TASKS.c.state)
        .where(TASKS.c.id.in_(sql.select(NEEDS.c.task).where(NEEDS.c.needed == task)))
        .order_by(TASKS.c.id)
        .with_for_update()
    )
    for row in connection.execute(dependents).all():
        changes = decisions.met(Standing(row.state, unmet=row.unmet))
        _write(connection, row.id, changes)
