"""Tokens, which programs show instead of a password."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from opencluster.errors import AccountError
from opencluster_web.accounts.account import Account, account_of, find_row, known_row
from opencluster_web.accounts.database import Database
from opencluster_web.accounts.digests import digest, new_secret
from opencluster_web.accounts.roles import Role
from opencluster_web.accounts.tables import MAX_NUMBER, TOKENS

TOKEN_PREFIX = "oc_"
"""By which people, and programs that look for secrets, recognise a token."""
MAX_NOTE = 100
"""Characters of what a token is for."""
USED_S = 60.0
"""How often it is noted that a token was used."""


@dataclass(frozen=True)
class Token:
    """What a program shows instead of a password.

    Attributes
    ----------
    id : int
        Its number.
    owner : str
        Whose it is; it is worth no more than they are.
    note : str
        What it is for.
    role : Role
        What it may do at most.
    created_at, used_at, expires_at : float
        Seconds since 1970; 0 for never.
    """

    id: int
    owner: str
    note: str
    role: Role
    created_at: float
    used_at: float
    expires_at: float


class Tokens:
    """All tokens.

    Parameters
    ----------
    database : Database
        Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def make(
        self, owner: str, note: str, role: Role, valid_s: float = 0.0
    ) -> tuple[Token, str]:
        """Make a token, and return it with its secret, which is told only now.

        Parameters
        ----------
        owner : str
            Whose it is.
        note : str
            What it is for.
        role : Role
            What it may do; not more than its owner.
        valid_s : float
            For how long, in seconds; 0 for ever.
        """
        secret = TOKEN_PREFIX + new_secret()
        now = time.time()
        row = {
            "digest": digest(secret),
            "owner": owner,
            "note": note.strip()[:MAX_NOTE],
            "role": int(role),
            "created_at": now,
            "used_at": 0.0,
            "expires_at": now + valid_s if valid_s else 0.0,
        }
        with self._database.work() as connection:
            account = account_of(known_row(connection, owner))
            if role > account.role:
                said = f"{owner} is {account.role.word}, so no token is more"
                raise AccountError(said)
            if not row["note"]:
                raise AccountError("say what the token is for")
            done = connection.execute(sql.insert(TOKENS), row)
            assert done.inserted_primary_key is not None
            return _token(row | {"id": done.inserted_primary_key[0]}), secret

    def all(self) -> list[Token]:
        """Return all tokens, the oldest first."""
        return self._found(sql.select(TOKENS))

    def of(self, owner: str) -> list[Token]:
        """Return the tokens of somebody, the oldest first."""
        return self._found(sql.select(TOKENS).where(TOKENS.c.owner == owner))

    def remove(self, id: int, owner: str = "") -> None:
        """Remove a token, if it is that owner's.

        Raises
        ------
        AccountError
            When there is none.
        """
        gone = sql.delete(TOKENS).where(TOKENS.c.id == min(id, MAX_NUMBER))
        if owner:
            gone = gone.where(TOKENS.c.owner == owner)
        with self._database.work() as connection:
            if not connection.execute(gone).rowcount:
                raise AccountError(f"there is no token {id}")

    def bearer(self, secret: str) -> tuple[Account, Token] | None:
        """Return whose token it is, and the token, if it opens anything."""
        now = time.time()
        asked = sql.select(TOKENS).where(TOKENS.c.digest == digest(secret))
        with self._database.work() as connection:
            row = connection.execute(asked).mappings().first()
            owner = None if row is None else find_row(connection, row["owner"])
            if row is None or owner is None or not owner["is_open"]:
                return None
            token = _token(row)
            if token.expires_at and token.expires_at < now:
                return None
            if now - token.used_at > USED_S:
                used = sql.update(TOKENS).where(TOKENS.c.id == token.id)
                connection.execute(used.values(used_at=now))
            return account_of(owner), token

    def _found(self, asked: sql.Select[Any]) -> list[Token]:
        with self._database.work() as connection:
            rows = connection.execute(asked.order_by(TOKENS.c.id)).mappings()
            return [_token(row) for row in rows]


def _token(row: Mapping[Any, Any]) -> Token:
    names = ("id", "owner", "note", "role", "created_at", "used_at", "expires_at")
    return Token(**{name: row[name] for name in names} | {"role": Role(row["role"])})
