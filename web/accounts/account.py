"""An account, and what holds of all of them: plain names, and somebody to see to them.

What is done here to rows is part of a transaction that somebody else began.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from opencluster.errors import AccountError
from opencluster_web.accounts.roles import Role
from opencluster_web.accounts.tables import ACCOUNTS, LINKS

NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")


@dataclass(frozen=True)
class Account:
    """Somebody who may log in.

    Attributes
    ----------
    name : str
        Short, in small letters.
    role : Role
        What they may do.
    is_open : bool
        They may log in.
    has_password : bool
        One was chosen; until then a one-time link lets them choose.
    stamp : str
        Changes with the password, the role and a log-out everywhere; sessions that
        were begun with another one are over.
    created_at, seen_at : float
        Seconds since 1970; 0 for never.
    """

    name: str
    role: Role
    is_open: bool
    has_password: bool
    stamp: str
    created_at: float
    seen_at: float


def account_of(row: Mapping[Any, Any]) -> Account:
    """Return the account that a row tells of."""
    return Account(
        row["name"],
        Role(row["role"]),
        bool(row["is_open"]),
        bool(row["password"]),
        row["stamp"],
        row["created_at"],
        row["seen_at"],
    )


def find_row(connection: sql.Connection, name: str) -> sql.RowMapping | None:
    """Return the row of an account, if there is one of that name."""
    asked = sql.select(ACCOUNTS).where(ACCOUNTS.c.name == name)
    return connection.execute(asked).mappings().first()


def known_row(connection: sql.Connection, name: str) -> sql.RowMapping:
    """Return the row of an account.

    Raises
    ------
    AccountError
        When there is none of that name.
    """
    row = find_row(connection, name)
    if row is None:
        raise AccountError(f"there is no account {name}")
    return row


def added(connection: sql.Connection, name: str, role: Role, hashed: str) -> Account:
    """Make an account.

    Parameters
    ----------
    connection : Connection
        The transaction.
    name, role : str, Role
        Who, and what they may do.
    hashed : str
        The hash of the password; empty for none yet.

    Raises
    ------
    AccountError
        When there is one of that name, or the name will not do.
    """
    if not NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} will not do as a name: begin with a letter, then small "
            "letters, digits, dots, hyphens; 32 at most"
        )
    if find_row(connection, name) is not None:
        raise AccountError(f"there is an account {name} already")
    row = {
        "name": name,
        "password": hashed,
        "role": int(role),
        "is_open": True,
        "stamp": _stamp(),
        "created_at": time.time(),
        "seen_at": 0.0,
    }
    connection.execute(sql.insert(ACCOUNTS), row)
    return account_of(row)


def changed(connection: sql.Connection, name: str, **values: Any) -> Account:
    """Change columns of an account; its sessions end, and its links if it is closed.

    Raises
    ------
    AccountError
        When there is none of that name, or it was the last administrator.
    """
    before = known_row(connection, name)
    change = sql.update(ACCOUNTS).where(ACCOUNTS.c.name == name)
    connection.execute(change.values(stamp=_stamp(), **values))
    after = known_row(connection, name)
    if not after["is_open"]:
        connection.execute(sql.delete(LINKS).where(LINKS.c.name == name))
    check_administrator(connection, before)
    return account_of(after)


def check_administrator(connection: sql.Connection, before: sql.RowMapping) -> None:
    """Refuse a change that leaves nobody to see to accounts.

    Parameters
    ----------
    connection : Connection
        The transaction, with the change.
    before : RowMapping
        The row of the account before it.

    Raises
    ------
    AccountError
        When it was the last administrator.
    """
    account = account_of(before)
    was_one = account.role == Role.ADMINISTRATOR and account.is_open
    if was_one and account.has_password and not has_administrator(connection):
        raise AccountError("the last administrator stays: make another one first")


def has_administrator(connection: sql.Connection) -> bool:
    """Return whether an administrator can log in."""
    is_one = (
        ACCOUNTS.c.role == int(Role.ADMINISTRATOR),
        ACCOUNTS.c.is_open,
        ACCOUNTS.c.password != "",
    )
    asked = sql.select(ACCOUNTS.c.name).where(*is_one).limit(1)
    return connection.execute(asked).first() is not None


def _stamp() -> str:
    return secrets.token_hex(8)
