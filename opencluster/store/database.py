"""A database of SQL: SQLite in a file of this computer, or PostgreSQL by a URL.

Owns connections, transactions, the clocks by which leases are told, and the words for
what goes wrong. Must not know what is kept there.

**Clocks.** In PostgreSQL all times are those of the server. SQLite is for the processes
of one computer, so leases are told by its monotonic clock, which nobody can set, which
stands still while the computer sleeps as everything else does, and whose beginnings are
told apart by the kernel's boot id.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from opencluster.core.tasks import Moment
from opencluster.errors import ConfigError, QueueError, QueueUnavailable

try:
    import sqlalchemy as sql
    from sqlalchemy import event
    from sqlalchemy.engine import URL, Connection, make_url
    from sqlalchemy.exc import (
        ArgumentError,
        DBAPIError,
        IntegrityError,
        InterfaceError,
        NoSuchModuleError,
        OperationalError,
        SQLAlchemyError,
    )
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"the task queue needs the Python package {missing.name}: install it with "
        "pip install 'opencluster[queue]'"
    ) from missing

__all__ = ["Database", "sql"]

Result = TypeVar("Result")

BUSY_S = 10.0
"""How long a process waits for another that writes to the same SQLite file."""
CONNECT_S = 5
"""How long connecting to PostgreSQL may take; libpq takes whole seconds."""
STATEMENT_S = 30
"""How long a statement may take before PostgreSQL gives it up."""
SILENCE_S = 10
"""How long a peer may leave what was sent unanswered before the connection is cut."""
FIRST_DELAY_S = 0.05
MAX_DELAY_S = 2.0
"""Between two tries, doubled each time."""
POSTGRESQL = "postgresql"
_ERA_OF_SERVER = "server"
_READING = "opencluster_reading"
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PASSING = _BUSY | frozenset(
    {
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""What SQLite says of a file that is busy, or of a disk in trouble."""
_CONFLICTS = 10
"""Tries when two processes write the same thing at the same time."""


class Database:
    """A connection to a database; may be used from several threads.

    Parameters
    ----------
    url : str
        ``sqlite:////absolute/path`` or ``postgresql://user@host/name``.
    boot : str
        Names the time since this computer was started.
    patience_s : float
        How long to go on trying when the database, once reached, is lost.

    Raises
    ------
    ConfigError
        When the URL is none, or its kind of database is not supported.
    """

    def __init__(self, url: str, boot: str, patience_s: float = 0.0) -> None:
        self._url = _parsed(url)
        self._boot = boot
        self._patience_s = patience_s
        self._was_reached = False
        self.is_postgresql = self._url.get_backend_name() == POSTGRESQL
        self._engine = (
            _postgresql(self._url) if self.is_postgresql else _sqlite(self._url)
        )
        _open.add(self)

    @property
    def name(self) -> str:
        """The URL without its password, for people."""
        shown = self._url.set(
            drivername=self._url.get_backend_name(),
            # not what else may stand there, which libpq takes a password from
            query={k: v for k, v in self._url.query.items() if k in ("host", "port")},
        )
        return shown.render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        return None if self.is_postgresql else _path_of(self._url)

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Look at things as they are at one moment, as `transact` does it.

        Nobody who writes is kept waiting meanwhile.
        """
        return self.transact(work, is_reading=True)

    def transact(
        self, work: Callable[[Connection], Result], *, is_reading: bool = False
    ) -> Result:
        """Do something in one transaction, which happens as a whole or not at all.

        Parameters
        ----------
        work : callable
            Given the connection. It may be called again, after a transaction that did
            not happen or one of which this is not known; so it must find out by itself
            what is done already.
        is_reading : bool
            It changes nothing.

        Raises
        ------
        QueueUnavailable
            When the database cannot be reached, or cannot write.
        QueueError
            When it refuses what is asked.
        """
        began_s = time.monotonic()
        delay_s = FIRST_DELAY_S
        conflicts = 0
        while True:
            try:
                with self._begin(is_reading) as connection:
                    result = work(connection)
                self._was_reached = True
                return result
            except IntegrityError as error:
                conflicts += 1
                if conflicts == _CONFLICTS:
                    raise QueueError(self._told(error)) from error
            except SQLAlchemyError as error:
                if not _may_pass(error):
                    raise QueueError(self._told(error)) from error
                waited_s = time.monotonic() + delay_s - began_s
                if waited_s > self._patience_for(error):
                    raise QueueUnavailable(self._told(error)) from error
            # apart from those that wait for the same
            time.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, MAX_DELAY_S)

    def moment(self, connection: Connection) -> Moment:
        """Return what the clocks say."""
        if not self.is_postgresql:
            return Moment(time.time(), time.monotonic(), self._boot)
        now = sql.func.extract("epoch", sql.func.clock_timestamp())
        seconds = float(connection.execute(sql.select(now)).scalar_one())
        return Moment(seconds, seconds, _ERA_OF_SERVER)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def forget(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        self._engine.dispose(close=False)

    # --- inside --------------------------------------------------------------

    @contextmanager
    def _begin(self, is_reading: bool) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection.execution_options(**{_READING: is_reading})
            with connection.begin():
                yield connection

    def _patience_for(self, error: SQLAlchemyError) -> float:
        if _code_of(error) in _BUSY:
            # not even a first one may find that another is making the file
            return max(BUSY_S, self._patience_s)
        return self._patience_s if self._was_reached else 0.0

    def _told(self, error: SQLAlchemyError) -> str:
        cause: BaseException = error
        if isinstance(error, DBAPIError) and error.orig is not None:
            cause = error.orig
        reason = next(iter(str(cause).splitlines()), "") or type(cause).__name__
        advice = ""
        if "disk is full" in reason or "disk I/O error" in reason:
            advice = "; make room on that disk"
        return f"the task queue in {self.name} cannot be used: {reason}{advice}"


def _may_pass(error: SQLAlchemyError) -> bool:
    """Return whether the same may succeed later."""
    if not isinstance(error, DBAPIError):
        return False
    code = _code_of(error)
    if code is not None:
        return code in _PASSING
    is_passing = isinstance(error, OperationalError | InterfaceError)
    return is_passing or error.connection_invalidated


def _code_of(error: SQLAlchemyError) -> int | None:
    """Return the kind of an error of SQLite."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    # the lowest byte is the kind, the rest tells it apart further
    return None if code is None else code & 0xFF


_open: weakref.WeakSet[Database] = weakref.WeakSet()


def _forget_connections() -> None:
    for database in list(_open):
        database.forget()


os.register_at_fork(after_in_child=_forget_connections)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # the text is not shown, as it may hold a password
        raise ConfigError(
            "[taskqueue] url is no URL of a database: write "
            "postgresql://user@host/name, or sqlite:////path/of/a/file"
        ) from None
    backend = parsed.get_backend_name()
    if backend == POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ConfigError(
            "[taskqueue] url must begin with postgresql:// or name a file by "
            f"sqlite:////path, not {parsed.render_as_string(hide_password=True)}"
        )
    return parsed


def _postgresql(url: URL) -> sql.Engine:
    quick = {
        "connect_timeout": CONNECT_S,
        "keepalives_idle": SILENCE_S // 2,
        "keepalives_interval": SILENCE_S // 4,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENCE_S * 1000,
        "application_name": "opencluster",
    }
    try:
        engine = sql.create_engine(
            url,
            connect_args={k: v for k, v in quick.items() if k not in url.query},
            isolation_level="READ COMMITTED",
            pool_size=2,
            pool_pre_ping=True,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(
            "PostgreSQL needs the Python package psycopg: install it with "
            "pip install 'opencluster[postgresql]'"
        ) from error

    @event.listens_for(engine, "connect")
    def limit(connection: Any, record: object) -> None:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{STATEMENT_S}s'")
            cursor.execute(
                f"SET idle_in_transaction_session_timeout = '{STATEMENT_S}s'"
            )
        connection.autocommit = False

    return engine


def _path_of(url: URL) -> Path:
    return Path(str(url.database)).expanduser().absolute()


def _sqlite(url: URL) -> sql.Engine:
    path = _path_of(url)
    try:
        # for its owner alone: who writes into it has code run
        path.touch(mode=0o600)
    except OSError as error:
        raise QueueUnavailable(
            f"the task queue in {path} cannot be used: {error.strerror}"
        ) from error
    engine = sql.create_engine(
        url.set(database=str(path)),
        connect_args={
            **{"timeout": BUSY_S, "isolation_level": None},
            "check_same_thread": False,
        },
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # a power cut must not take back what was promised
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        is_reading = connection.get_execution_options().get(_READING)
        # with the right to write from the start: to ask for it later may fail
        connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")

    return engine
