"""The tables of the task queue, and the numbered steps that make them.

A database notes its version. Whoever opens it takes the steps that it has not seen, in
one transaction and one process at a time. A step that was released is never changed:
what changes is a further step.
"""

from __future__ import annotations

from collections.abc import Sequence

from opencluster.errors import QueueError
from opencluster.store.database import Database, sql

_tables = sql.MetaData()

VERSION = sql.Table(
    "opencluster_schema_version", _tables, sql.Column("version", sql.Integer)
)

TASKS = sql.Table(
    "opencluster_tasks",
    _tables,
    sql.Column("id", sql.BigInteger, primary_key=True),
    sql.Column("key", sql.Text),
    sql.Column("name", sql.Text),
    sql.Column("manager", sql.Text),
    sql.Column("directory", sql.Text),
    sql.Column("engine", sql.Text),
    sql.Column("state", sql.Text),
    sql.Column("priority", sql.Integer),
    sql.Column("deadline", sql.Double),
    sql.Column("unmet", sql.Integer),
    sql.Column("retries", sql.Integer),
    sql.Column("error_retries", sql.Integer),
    sql.Column("attempt", sql.Integer),
    sql.Column("losses", sql.Integer),
    sql.Column("failures", sql.Integer),
    sql.Column("holder", sql.Text),
    sql.Column("era", sql.Text),
    sql.Column("until", sql.Double),
    sql.Column("progress_done", sql.Double),
    sql.Column("progress_total", sql.Double),
    sql.Column("submitted_at", sql.Double),
    sql.Column("started_at", sql.Double),
    sql.Column("ended_at", sql.Double),
    sql.Column("error", sql.Text),
    sql.Column("output", sql.Text),
    sql.Column("piece_class", sql.Text),
)
"""What is known of each task; what it is to do, and what came of it, lie apart, so that
lists are short to read. Times are seconds since 1970, 0 for not yet; `era` and `until`
are by the clock of leases."""

ARGUMENTS = sql.Table(
    "opencluster_arguments",
    _tables,
    sql.Column("task", sql.BigInteger, primary_key=True),
    sql.Column("data", sql.LargeBinary),
)
"""What each task is to do, as `wire.stored` packs it."""

RESULTS = sql.Table(
    "opencluster_results",
    _tables,
    sql.Column("task", sql.BigInteger, primary_key=True),
    sql.Column("attempt", sql.Integer),
    sql.Column("data", sql.LargeBinary),
)
"""What came of each task that is done. The key admits one result of each."""

NEEDS = sql.Table(
    "opencluster_needs",
    _tables,
    sql.Column("task", sql.BigInteger, primary_key=True),
    sql.Column("needed", sql.BigInteger, primary_key=True),
)
"""Which task depends on which."""

STEPS: Sequence[Sequence[str]] = (
    (
        """CREATE TABLE opencluster_tasks (
            id {identity},
            key TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            manager TEXT NOT NULL,
            directory TEXT NOT NULL,
            engine TEXT NOT NULL,
            state TEXT NOT NULL,
            priority INTEGER NOT NULL,
            deadline DOUBLE PRECISION NOT NULL,
            unmet INTEGER NOT NULL,
            retries INTEGER NOT NULL,
            error_retries INTEGER NOT NULL,
            attempt INTEGER NOT NULL DEFAULT 0,
            losses INTEGER NOT NULL DEFAULT 0,
            failures INTEGER NOT NULL DEFAULT 0,
            holder TEXT NOT NULL DEFAULT '',
            era TEXT NOT NULL DEFAULT '',
            until DOUBLE PRECISION NOT NULL DEFAULT 0,
            progress_done DOUBLE PRECISION NOT NULL DEFAULT 0,
            progress_total DOUBLE PRECISION NOT NULL DEFAULT 0,
            submitted_at DOUBLE PRECISION NOT NULL,
            started_at DOUBLE PRECISION NOT NULL DEFAULT 0,
            ended_at DOUBLE PRECISION NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '',
            output TEXT NOT NULL DEFAULT ''
        )""",
        # in the order in which tasks are begun
        """CREATE INDEX opencluster_tasks_order
            ON opencluster_tasks (state, priority DESC, deadline, id)""",
        """CREATE INDEX opencluster_tasks_deadline
            ON opencluster_tasks (state, deadline)""",
        "CREATE INDEX opencluster_tasks_holder ON opencluster_tasks (holder)",
        "CREATE INDEX opencluster_tasks_ended ON opencluster_tasks (ended_at)",
        """CREATE TABLE opencluster_arguments (
            task BIGINT PRIMARY KEY REFERENCES opencluster_tasks (id),
            data {bytes} NOT NULL
        )""",
        """CREATE TABLE opencluster_results (
            task BIGINT PRIMARY KEY REFERENCES opencluster_tasks (id),
            attempt INTEGER NOT NULL,
            data {bytes} NOT NULL
        )""",
        """CREATE TABLE opencluster_needs (
            task BIGINT NOT NULL REFERENCES opencluster_tasks (id),
            needed BIGINT NOT NULL REFERENCES opencluster_tasks (id),
            PRIMARY KEY (task, needed)
        )""",
        "CREATE INDEX opencluster_needs_needed ON opencluster_needs (needed)",
    ),
    ("ALTER TABLE opencluster_tasks ADD COLUMN piece_class TEXT NOT NULL DEFAULT ''",),
)
"""From nothing to version 1, and from each version to the next."""

_WORDS = {
    True: {
        "identity": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        "bytes": "BYTEA",
    },
    # numbers of tasks that were removed are not given again
    False: {"identity": "INTEGER PRIMARY KEY AUTOINCREMENT", "bytes": "BLOB"},
}
_LOCK = 0x6F63_7461_736B
"""Any number that no other program locks in a database that is shared."""


def migrate(database: Database) -> int:
    """Bring the tables of a database to the version of this program.

    Returns
    -------
    int
        The version.

    Raises
    ------
    QueueError
        When a newer program has changed the database.
    """
    return database.transact(lambda connection: _migrate(database, connection))


def _migrate(database: Database, connection: sql.Connection) -> int:
    if database.is_postgresql:
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS opencluster_schema_version "
        "(version INTEGER NOT NULL)"
    )
    version = connection.execute(sql.select(VERSION.c.version)).scalar()
    if version is None:
        version = 0
        connection.execute(sql.insert(VERSION).values(version=0))
    if version > len(STEPS):
        raise QueueError(
            f"the task queue in {database.name} is of version {version}, and this "
            f"program knows versions up to {len(STEPS)}: use a newer OpenCluster"
        )
    words = _WORDS[database.is_postgresql]
    for step in STEPS[version:]:
        for statement in step:
            connection.exec_driver_sql(statement.format(**words))
    if version < len(STEPS):
        connection.execute(sql.update(VERSION).values(version=len(STEPS)))
    return len(STEPS)
