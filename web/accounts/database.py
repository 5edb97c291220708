"""The file of the accounts, for its owner's eyes only, and transactions on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from opencluster.errors import AccountError
from opencluster_web.accounts.tables import TABLES

BUSY_S = 5.0
"""How long a transaction waits for those of others."""


class Database:
    """An SQLite file; may be used from several threads and processes.

    Parameters
    ----------
    path : Path
        The file; made with its tables if it is not there.

    Raises
    ------
    AccountError
        When it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
        except OSError as error:
            raise AccountError(f"no accounts in {path}: {error.strerror}") from None
        self._engine = sql.create_engine(
            f"sqlite:///{path}", connect_args={"timeout": BUSY_S}
        )
        event.listen(self._engine, "connect", _prepare)
        with self.work() as connection:
            TABLES.create_all(connection)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def work(self) -> Work:
        """Return a transaction, for a ``with`` statement."""
        return Work(self._engine, self.path)


class Work:
    """A transaction; what the database refuses is told as AccountError."""

    def __init__(self, engine: sql.Engine, path: Path) -> None:
        self._context = engine.begin()
        self._path = path

    def __enter__(self) -> sql.Connection:
        try:
            return self._context.__enter__()
        except SQLAlchemyError as error:
            raise self._told(error) from error

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            self._context.__exit__(kind, error, traceback)
        except SQLAlchemyError as failure:
            raise self._told(failure) from failure
        if isinstance(error, SQLAlchemyError):
            raise self._told(error) from error

    def _told(self, error: SQLAlchemyError) -> AccountError:
        return AccountError(f"the accounts in {self._path} fail: {error}")


def _prepare(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
