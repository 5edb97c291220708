"""One-time links, by which people choose a password, and the first administrator."""

from __future__ import annotations

import time

import sqlalchemy as sql

from opencluster.errors import AccountError
from opencluster_web.accounts.account import (
    Account,
    added,
    changed,
    has_administrator,
    known_row,
)
from opencluster_web.accounts.database import Database
from opencluster_web.accounts.digests import digest, new_secret
from opencluster_web.accounts.passwords import Passwords
from opencluster_web.accounts.roles import Role
from opencluster_web.accounts.tables import LINKS

LINK_S = 86_400.0
"""How long a one-time link opens."""


class Links:
    """All one-time links.

    Parameters
    ----------
    database : Database
        Where they are kept.
    passwords : Passwords
        What hashes the passwords that are chosen.
    """

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def make(self, name: str = "") -> str:
        """Return a secret that lets somebody choose a password, once.

        Parameters
        ----------
        name : str
            Whose; empty for the first administrator, who chooses a name as well. There
            is one link at a time for each.
        """
        secret = new_secret()
        row = {
            "digest": digest(secret),
            "name": name,
            "expires_at": time.time() + LINK_S,
        }
        with self._database.work() as connection:
            if name and not known_row(connection, name)["is_open"]:
                raise AccountError(f"the account {name} is closed: open it first")
            connection.execute(sql.delete(LINKS).where(LINKS.c.name == name))
            connection.execute(sql.insert(LINKS), row)
        return secret

    def name(self, secret: str) -> str | None:
        """Return whose link it is; ``None`` when it opens nothing (any more)."""
        with self._database.work() as connection:
            return _name(connection, secret)

    def use(self, secret: str, name: str, password: str) -> Account:
        """Let somebody choose a password, and the first administrator the name.

        Raises
        ------
        AccountError
            When the link opens nothing, or the name or the password will not do; the
            link can be used again then.
        """
        if self.name(secret) is None:
            raise AccountError("this link was used or is too old: ask for a new one")
        hashed = self._passwords.hashed(password)
        gone = sql.delete(LINKS).where(LINKS.c.digest == digest(secret))
        with self._database.work() as connection:
            # the file is ours alone from here on: nobody else uses the link, too
            connection.execute(sql.text("BEGIN IMMEDIATE"))
            for_name = _name(connection, secret)
            if for_name is None:
                raise AccountError("this link was used a moment ago")
            connection.execute(gone)
            if for_name:
                return changed(connection, for_name, password=hashed)
            return added(connection, name, Role.ADMINISTRATOR, hashed)


def _name(connection: sql.Connection, secret: str) -> str | None:
    is_it = LINKS.c.digest == digest(secret)
    asked = sql.select(LINKS.c.name).where(is_it, LINKS.c.expires_at > time.time())
    name = connection.execute(asked).scalar()
    # once there is an administrator the link of the first one opens nothing
    if name is None or (name == "" and has_administrator(connection)):
        return None
    return str(name)
