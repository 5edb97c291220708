"""The tables of the accounts: what is kept, and by what it is found.

All stand here, as what is done to one of them reaches into others: with an account its
tokens and links go.
"""

from __future__ import annotations

import sqlalchemy as sql

MAX_NUMBER = 2**63 - 1
"""The largest that SQLite takes."""

TABLES = sql.MetaData()
ACCOUNTS = sql.Table(
    "accounts",
    TABLES,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("password", sql.Text, nullable=False),
    sql.Column("role", sql.Integer, nullable=False),
    sql.Column("is_open", sql.Boolean, nullable=False),
    sql.Column("stamp", sql.Text, nullable=False),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("seen_at", sql.Float, nullable=False),
)
TOKENS = sql.Table(
    "tokens",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("digest", sql.Text, nullable=False, unique=True),
    sql.Column("owner", sql.Text, nullable=False, index=True),
    sql.Column("note", sql.Text, nullable=False),
    sql.Column("role", sql.Integer, nullable=False),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("used_at", sql.Float, nullable=False),
    sql.Column("expires_at", sql.Float, nullable=False),
)
LINKS = sql.Table(
    "links",
    TABLES,
    sql.Column("digest", sql.Text, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("expires_at", sql.Float, nullable=False),
)
ENDED = sql.Table(
    "ended_sessions",
    TABLES,
    sql.Column("session", sql.Text, primary_key=True),
    sql.Column("until", sql.Float, nullable=False),
)
SECRETS = sql.Table(
    "secrets",
    TABLES,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("value", sql.Text, nullable=False),
)
AUDIT = sql.Table(
    "audit",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False, index=True),
    *(
        sql.Column(name, sql.Text, nullable=False)
        for name in ("who", "via", "address", "action", "subject", "outcome", "details")
    ),
)
