"""Who may log in: accounts are made, changed and removed, and passwords are checked."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sql

from opencluster_web.accounts.account import (
    Account,
    account_of,
    added,
    changed,
    check_administrator,
    find_row,
    has_administrator,
    known_row,
)
from opencluster_web.accounts.database import Database
from opencluster_web.accounts.passwords import Passwords
from opencluster_web.accounts.roles import Role
from opencluster_web.accounts.tables import ACCOUNTS, LINKS, TOKENS

SEEN_S = 60.0
"""How often it is noted that somebody was here."""


class People:
    """All accounts.

    Parameters
    ----------
    database : Database
        Where they are kept.
    passwords : Passwords
        What hashes their passwords, and checks them.
    """

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def all(self) -> list[Account]:
        """Return all accounts by name."""
        with self._database.work() as connection:
            rows = connection.execute(sql.select(ACCOUNTS).order_by(ACCOUNTS.c.name))
            return [account_of(row) for row in rows.mappings()]

    def find(self, name: str) -> Account | None:
        """Return an account, if there is one of that name."""
        with self._database.work() as connection:
            row = find_row(connection, name)
            return None if row is None else account_of(row)

    def add(self, name: str, role: Role, password: str = "") -> Account:
        """Make an account; without a password it needs a one-time link first.

        Raises
        ------
        AccountError
            When there is one of that name, or the name or the password will not do.
        """
        hashed = self._passwords.hashed(password) if password else ""
        with self._database.work() as connection:
            return added(connection, name, role, hashed)

    def set_password(self, name: str, password: str) -> Account:
        """Change a password; all sessions of the account end."""
        return self._change(name, password=self._passwords.hashed(password))

    def set_role(self, name: str, role: Role) -> Account:
        """Change what somebody may do; the last administrator stays one."""
        return self._change(name, role=int(role))

    def set_open(self, name: str, is_open: bool) -> Account:
        """Open or close an account; not that of the last administrator."""
        return self._change(name, is_open=is_open)

    def end_sessions(self, name: str) -> Account:
        """Log somebody out everywhere."""
        return self._change(name)

    def remove(self, name: str) -> None:
        """Remove an account with its tokens; not that of the last administrator."""
        with self._database.work() as connection:
            before = known_row(connection, name)
            connection.execute(sql.delete(ACCOUNTS).where(ACCOUNTS.c.name == name))
            connection.execute(sql.delete(TOKENS).where(TOKENS.c.owner == name))
            connection.execute(sql.delete(LINKS).where(LINKS.c.name == name))
            check_administrator(connection, before)

    def log_in(self, name: str, password: str) -> Account | None:
        """Return the account, if the password is right and it is open.

        It takes as long whether or not there is such an account, and a password.
        """
        with self._database.work() as connection:
            row = find_row(connection, name)
        expected = "" if row is None else row["password"]
        if not self._passwords.is_right(expected, password):
            return None
        if row is None or not row["is_open"]:
            return None
        if self._passwords.is_weak(expected):
            better = sql.update(ACCOUNTS).where(ACCOUNTS.c.name == name)
            hashed = self._passwords.hashed(password)
            with self._database.work() as connection:
                connection.execute(better.values(password=hashed))
        return account_of(row)

    def seen(self, account: Account) -> None:
        """Note that somebody was here, now and then."""
        now = time.time()
        if now - account.seen_at > SEEN_S:
            noted = sql.update(ACCOUNTS).where(ACCOUNTS.c.name == account.name)
            with self._database.work() as connection:
                connection.execute(noted.values(seen_at=now))

    @property
    def has_administrator(self) -> bool:
        """Whether an administrator can log in."""
        with self._database.work() as connection:
            return has_administrator(connection)

    def _change(self, name: str, **values: Any) -> Account:
        with self._database.work() as connection:
            return changed(connection, name, **values)
