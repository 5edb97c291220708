"""All that is kept of those who use the pages, in one file of SQLite.

Nothing that opens a door is kept as it is: passwords as argon2 hashes, and tokens and
links, which are random and long, as SHA-256.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import sqlalchemy as sql
from argon2 import PasswordHasher

from opencluster_web.accounts.audit import AuditLog
from opencluster_web.accounts.database import Database
from opencluster_web.accounts.links import Links
from opencluster_web.accounts.passwords import Passwords
from opencluster_web.accounts.people import People
from opencluster_web.accounts.sessions import Sessions
from opencluster_web.accounts.tables import SECRETS
from opencluster_web.accounts.tokens import Tokens


class AccountStore:
    """Keeps who may log in; may be used from several threads and processes.

    Parameters
    ----------
    path : Path
        The file; made if it is not there, for its owner's eyes only.
    hasher : PasswordHasher, optional
        How passwords are hashed; by default as argon2-cffi recommends.

    Attributes
    ----------
    people : People
        The accounts.
    sessions : Sessions
        Which of them are over.
    links : Links
        By which passwords are chosen.
    tokens : Tokens
        What programs show.
    audit : AuditLog
        What was done.

    Raises
    ------
    AccountError
        When it cannot be used.
    """

    def __init__(self, path: Path, hasher: PasswordHasher | None = None) -> None:
        self.path = path
        self._database = Database(path)
        passwords = Passwords(hasher)
        self.people = People(self._database, passwords)
        self.sessions = Sessions(self._database)
        self.links = Links(self._database, passwords)
        self.tokens = Tokens(self._database)
        self.audit = AuditLog(self._database)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def secret(self, name: str) -> str:
        """Return a secret of the server, made at its first use."""
        made = sql.insert(SECRETS).prefix_with("OR IGNORE")
        asked = sql.select(SECRETS.c.value).where(SECRETS.c.name == name)
        with self._database.work() as connection:
            connection.execute(made, {"name": name, "value": secrets.token_hex(32)})
            return str(connection.execute(asked).scalar_one())
