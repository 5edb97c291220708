"""The audit log: who did what, from where, and how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sql

from opencluster_web.accounts.database import Database
from opencluster_web.accounts.tables import AUDIT, MAX_NUMBER

AUDIT_S = 400 * 86_400.0
"""How long the audit log reaches back."""
MAX_TEXT = 1000
"""Characters of what is noted; the rest of a longer text is lost."""


class AuditLog:
    """What was done, and tried.

    Parameters
    ----------
    database : Database
        Where it is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(
        self,
        who: str,
        via: str,
        address: str,
        action: str,
        subject: str,
        outcome: str,
        details: Mapping[str, Any],
    ) -> None:
        """Write down what somebody did, or tried to."""
        now = time.time()
        row = {
            "at": now,
            "who": who[:MAX_TEXT],
            "via": via,
            "address": address,
            "action": action,
            "subject": subject[:MAX_TEXT],
            "outcome": outcome[:MAX_TEXT],
            "details": json.dumps(details, default=str)[:MAX_TEXT],
        }
        with self._database.work() as connection:
            connection.execute(sql.insert(AUDIT), row)
            old = AUDIT.c.at < now - AUDIT_S
            connection.execute(sql.delete(AUDIT).where(old))

    def rows(
        self, before: int = 0, limit: int = 100, who: str = ""
    ) -> list[dict[str, Any]]:
        """Return what was done, the newest first.

        Parameters
        ----------
        before : int
            Only rows with a smaller ``id``; 0 for the newest of all.
        limit : int
            How many at most.
        who : str
            By whom; by default by all.
        """
        asked = sql.select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if before:
            asked = asked.where(AUDIT.c.id < min(before, MAX_NUMBER))
        if who:
            asked = asked.where(AUDIT.c.who == who)
        with self._database.work() as connection:
            return [dict(row) for row in connection.execute(asked).mappings()]
