"""Sessions: a browser remembers its own, and here is kept which of them have ended."""

from __future__ import annotations

import hmac
import time

import sqlalchemy as sql

from opencluster_web.accounts.account import Account, account_of, find_row
from opencluster_web.accounts.database import Database
from opencluster_web.accounts.tables import ENDED


class Sessions:
    """Tells which sessions are over.

    Parameters
    ----------
    database : Database
        Where that is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def account(self, name: str, stamp: str, session: str) -> Account | None:
        """Return the account of a session that is not over.

        Parameters
        ----------
        name : str
            Whose.
        stamp : str
            The account's as the session began.
        session : str
            What tells it from others of the same account.
        """
        is_over = sql.select(ENDED.c.session).where(ENDED.c.session == session)
        with self._database.work() as connection:
            row = find_row(connection, name)
            if row is None or not row["is_open"]:
                return None
            if not hmac.compare_digest(row["stamp"].encode(), stamp.encode()):
                return None
            if connection.execute(is_over).first() is not None:
                return None
            return account_of(row)

    def end(self, session: str, until: float) -> None:
        """End one session, though a copy of its cookie may be left somewhere.

        Parameters
        ----------
        session : str
            Which.
        until : float
            When it would have ended anyway, in seconds since 1970.
        """
        ended = sql.insert(ENDED).prefix_with("OR IGNORE")
        with self._database.work() as connection:
            past = ENDED.c.until < time.time()
            connection.execute(sql.delete(ENDED).where(past))
            connection.execute(ended, {"session": session, "until": until})
