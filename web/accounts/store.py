"""Accounts, tokens for programs, one-time links and the audit log, in SQLite.

Nothing that opens a door is kept as it is: passwords as argon2 hashes, and tokens and
links, which are random and long, as SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from opencluster.errors import AccountError

BUSY_S = 5.0
LINK_S = 86_400.0
"""How long a one-time link opens."""
AUDIT_S = 400 * 86_400.0
"""How long the audit log reaches back."""
SEEN_S = 60.0
"""How often it is noted that somebody was here."""
MIN_PASSWORD = 10
MAX_PASSWORD = 1000
"""Characters; a longer one would only keep the server busy."""
NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
TOKEN_PREFIX = "oc_"
"""By which people, and programs that look for secrets, recognise a token."""
MAX_TEXT = 1000
HASHED_AT_ONCE = 2
"""Passwords; each takes 64 MiB, so that many who knock cannot fill the memory."""
MAX_NUMBER = 2**63 - 1
"""The largest that SQLite takes."""


class Role(IntEnum):
    """What somebody may do; each role may also what those before it may."""

    OBSERVER = 1
    OPERATOR = 2
    ADMINISTRATOR = 3

    @property
    def word(self) -> str:
        """The role as people write it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Return the role of a word.

        Raises
        ------
        AccountError
            When it is none.
        """
        try:
            return cls[word.upper()]
        except KeyError:
            names = ", ".join(role.word for role in cls)
            raise AccountError(f"{word!r} is no role; there are {names}") from None


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


_tables = sql.MetaData()
_ACCOUNTS = sql.Table(
    "accounts",
    _tables,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("password", sql.Text, nullable=False),
    sql.Column("role", sql.Integer, nullable=False),
    sql.Column("is_open", sql.Boolean, nullable=False),
    sql.Column("stamp", sql.Text, nullable=False),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("seen_at", sql.Float, nullable=False),
)
_TOKENS = sql.Table(
    "tokens",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("digest", sql.Text, nullable=False, unique=True),
    sql.Column("owner", sql.Text, nullable=False, index=True),
    sql.Column("note", sql.Text, nullable=False),
    sql.Column("role", sql.Integer, nullable=False),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("used_at", sql.Float, nullable=False),
    sql.Column("expires_at", sql.Float, nullable=False),
)
_LINKS = sql.Table(
    "links",
    _tables,
    sql.Column("digest", sql.Text, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("expires_at", sql.Float, nullable=False),
)
_ENDED = sql.Table(
    "ended_sessions",
    _tables,
    sql.Column("session", sql.Text, primary_key=True),
    sql.Column("until", sql.Float, nullable=False),
)
_SECRETS = sql.Table(
    "secrets",
    _tables,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("value", sql.Text, nullable=False),
)
_AUDIT = sql.Table(
    "audit",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False, index=True),
    *(
        sql.Column(name, sql.Text, nullable=False)
        for name in ("who", "via", "address", "action", "subject", "outcome", "details")
    ),
)


class AccountStore:
    """Keeps who may log in; may be used from several threads and processes.

    Parameters
    ----------
    path : Path
        The file; made if it is not there, for its owner's eyes only.
    hasher : PasswordHasher, optional
        How passwords are hashed; by default as argon2-cffi recommends.

    Raises
    ------
    AccountError
        When it cannot be used.
    """

    def __init__(self, path: Path, hasher: PasswordHasher | None = None) -> None:
        self.path = path
        self._hasher = hasher or PasswordHasher()
        self._hashing = threading.BoundedSemaphore(HASHED_AT_ONCE)
        self._nobody = self._hasher.hash(secrets.token_urlsafe())
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
        with self._work() as connection:
            _tables.create_all(connection)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def secret(self, name: str) -> str:
        """Return a secret of the server, made at its first use."""
        made = sql.insert(_SECRETS).prefix_with("OR IGNORE")
        asked = sql.select(_SECRETS.c.value).where(_SECRETS.c.name == name)
        with self._work() as connection:
            connection.execute(made, {"name": name, "value": secrets.token_hex(32)})
            return str(connection.execute(asked).scalar_one())

    # --- accounts ------------------------------------------------------------

    def accounts(self) -> list[Account]:
        """Return all accounts by name."""
        with self._work() as connection:
            rows = connection.execute(sql.select(_ACCOUNTS).order_by(_ACCOUNTS.c.name))
            return [_account(row) for row in rows.mappings()]

    def account(self, name: str) -> Account | None:
        """Return an account, if there is one of that name."""
        with self._work() as connection:
            row = _find(connection, name)
            return None if row is None else _account(row)

    def in_session(self, name: str, stamp: str, session: str) -> Account | None:
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
        is_over = sql.select(_ENDED.c.session).where(_ENDED.c.session == session)
        with self._work() as connection:
            row = _find(connection, name)
            if row is None or not row["is_open"]:
                return None
            if not hmac.compare_digest(row["stamp"].encode(), stamp.encode()):
                return None
            if connection.execute(is_over).first() is not None:
                return None
            return _account(row)

    def end_session(self, session: str, until: float) -> None:
        """End one session, though a copy of its cookie may be left somewhere.

        Parameters
        ----------
        session : str
            Which.
        until : float
            When it would have ended anyway, in seconds since 1970.
        """
        ended = sql.insert(_ENDED).prefix_with("OR IGNORE")
        with self._work() as connection:
            past = _ENDED.c.until < time.time()
            connection.execute(sql.delete(_ENDED).where(past))
            connection.execute(ended, {"session": session, "until": until})

    def add(self, name: str, role: Role, password: str = "") -> Account:
        """Make an account; without a password it needs a one-time link first.

        Raises
        ------
        AccountError
            When there is one of that name, or the name or the password will not do.
        """
        hashed = self._hashed(password) if password else ""
        with self._work() as connection:
            return _added(connection, name, role, hashed)

    def set_password(self, name: str, password: str) -> Account:
        """Change a password; all sessions of the account end."""
        return self._change(name, password=self._hashed(password))

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
        with self._work() as connection:
            before = _known(connection, name)
            connection.execute(sql.delete(_ACCOUNTS).where(_ACCOUNTS.c.name == name))
            connection.execute(sql.delete(_TOKENS).where(_TOKENS.c.owner == name))
            connection.execute(sql.delete(_LINKS).where(_LINKS.c.name == name))
            _check_administrator(connection, before)

    def log_in(self, name: str, password: str) -> Account | None:
        """Return the account, if the password is right and it is open.

        It takes as long whether or not there is such an account, and a password.
        """
        with self._work() as connection:
            row = _find(connection, name)
        expected = (row["password"] if row is not None else "") or self._nobody
        try:
            with self._hashing:
                self._hasher.verify(expected, _bytes(password[: MAX_PASSWORD + 1]))
        except (VerificationError, InvalidHashError):
            return None
        if row is None or not row["is_open"] or not row["password"]:
            return None
        if self._hasher.check_needs_rehash(expected):
            with self._work() as connection:
                better = sql.update(_ACCOUNTS).where(_ACCOUNTS.c.name == name)
                connection.execute(better.values(password=self._hashed(password)))
        return _account(row)

    def seen(self, account: Account) -> None:
        """Note that somebody was here, now and then."""
        now = time.time()
        if now - account.seen_at > SEEN_S:
            noted = sql.update(_ACCOUNTS).where(_ACCOUNTS.c.name == account.name)
            with self._work() as connection:
                connection.execute(noted.values(seen_at=now))

    @property
    def has_administrator(self) -> bool:
        """Whether an administrator can log in."""
        with self._work() as connection:
            return _has_administrator(connection)

    # --- one-time links ------------------------------------------------------

    def make_link(self, name: str = "") -> str:
        """Return a secret that lets somebody choose a password, once.

        Parameters
        ----------
        name : str
            Whose; empty for the first administrator, who chooses a name as well. There
            is one link at a time for each.
        """
        secret = secrets.token_urlsafe(32)
        row = {
            "digest": _digest(secret),
            "name": name,
            "expires_at": time.time() + LINK_S,
        }
        with self._work() as connection:
            if name and not _known(connection, name)["is_open"]:
                raise AccountError(f"the account {name} is closed: open it first")
            connection.execute(sql.delete(_LINKS).where(_LINKS.c.name == name))
            connection.execute(sql.insert(_LINKS), row)
        return secret

    def link(self, secret: str) -> str | None:
        """Return whose link it is; ``None`` when it opens nothing (any more)."""
        with self._work() as connection:
            return _link(connection, secret)

    def use_link(self, secret: str, name: str, password: str) -> Account:
        """Let somebody choose a password, and the first administrator the name.

        Raises
        ------
        AccountError
            When the link opens nothing, or the name or the password will not do; the
            link can be used again then.
        """
        if self.link(secret) is None:
            raise AccountError("this link was used or is too old: ask for a new one")
        hashed = self._hashed(password)
        gone = sql.delete(_LINKS).where(_LINKS.c.digest == _digest(secret))
        with self._work() as connection:
            # the file is ours alone from here on: nobody else uses the link, too
            connection.execute(sql.text("BEGIN IMMEDIATE"))
            for_name = _link(connection, secret)
            if for_name is None:
                raise AccountError("this link was used a moment ago")
            connection.execute(gone)
            if for_name:
                return _changed(connection, for_name, password=hashed)
            return _added(connection, name, Role.ADMINISTRATOR, hashed)

    # --- tokens --------------------------------------------------------------

    def make_token(
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
        account = self.account(owner)
        if account is None:
            raise AccountError(f"there is no account {owner}")
        if role > account.role:
            raise AccountError(f"{owner} is {account.role.word}, so no token is more")
        if not note.strip():
            raise AccountError("say what the token is for")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = time.time()
        row = {
            "digest": _digest(secret),
            "owner": owner,
            "note": note.strip()[:100],
            "role": int(role),
            "created_at": now,
            "used_at": 0.0,
            "expires_at": now + valid_s if valid_s else 0.0,
        }
        with self._work() as connection:
            done = connection.execute(sql.insert(_TOKENS), row)
            assert done.inserted_primary_key is not None
            return _token(row | {"id": done.inserted_primary_key[0]}), secret

    def tokens(self, owner: str = "") -> list[Token]:
        """Return the tokens of somebody, or all of them."""
        asked = sql.select(_TOKENS).order_by(_TOKENS.c.id)
        if owner:
            asked = asked.where(_TOKENS.c.owner == owner)
        with self._work() as connection:
            return [_token(row) for row in connection.execute(asked).mappings()]

    def remove_token(self, id: int, owner: str = "") -> None:
        """Remove a token, if it is that owner's.

        Raises
        ------
        AccountError
            When there is none.
        """
        gone = sql.delete(_TOKENS).where(_TOKENS.c.id == min(id, MAX_NUMBER))
        if owner:
            gone = gone.where(_TOKENS.c.owner == owner)
        with self._work() as connection:
            if not connection.execute(gone).rowcount:
                raise AccountError(f"there is no token {id}")

    def bearer(self, secret: str) -> tuple[Account, Token] | None:
        """Return whose token it is, and the token, if it opens anything."""
        now = time.time()
        asked = sql.select(_TOKENS).where(_TOKENS.c.digest == _digest(secret))
        with self._work() as connection:
            row = connection.execute(asked).mappings().first()
            owner = None if row is None else _find(connection, row["owner"])
            if row is None or owner is None or not owner["is_open"]:
                return None
            token = _token(row)
            if token.expires_at and token.expires_at < now:
                return None
            if now - token.used_at > SEEN_S:
                used = sql.update(_TOKENS).where(_TOKENS.c.id == token.id)
                connection.execute(used.values(used_at=now))
            return _account(owner), token

    # --- the audit log -------------------------------------------------------

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
        with self._work() as connection:
            connection.execute(sql.insert(_AUDIT), row)
            old = _AUDIT.c.at < now - AUDIT_S
            connection.execute(sql.delete(_AUDIT).where(old))

    def audit(
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
        asked = sql.select(_AUDIT).order_by(_AUDIT.c.id.desc()).limit(limit)
        if before:
            asked = asked.where(_AUDIT.c.id < min(before, MAX_NUMBER))
        if who:
            asked = asked.where(_AUDIT.c.who == who)
        with self._work() as connection:
            return [dict(row) for row in connection.execute(asked).mappings()]

    # --- inside --------------------------------------------------------------

    def _work(self) -> _Work:
        return _Work(self._engine, self.path)

    def _hashed(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise AccountError(f"a password has at least {MIN_PASSWORD} characters")
        if len(password) > MAX_PASSWORD:
            raise AccountError(f"a password has at most {MAX_PASSWORD} characters")
        with self._hashing:
            return self._hasher.hash(_bytes(password))

    def _change(self, name: str, **values: Any) -> Account:
        with self._work() as connection:
            return _changed(connection, name, **values)


class _Work:
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


def _find(connection: sql.Connection, name: str) -> sql.RowMapping | None:
    asked = sql.select(_ACCOUNTS).where(_ACCOUNTS.c.name == name)
    return connection.execute(asked).mappings().first()


def _known(connection: sql.Connection, name: str) -> sql.RowMapping:
    row = _find(connection, name)
    if row is None:
        raise AccountError(f"there is no account {name}")
    return row


def _added(connection: sql.Connection, name: str, role: Role, hashed: str) -> Account:
    if not NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} will not do as a name: begin with a letter, then small "
            "letters, digits, dots, hyphens; 32 at most"
        )
    if _find(connection, name) is not None:
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
    connection.execute(sql.insert(_ACCOUNTS), row)
    return _account(row)


def _changed(connection: sql.Connection, name: str, **values: Any) -> Account:
    before = _known(connection, name)
    changed = sql.update(_ACCOUNTS).where(_ACCOUNTS.c.name == name)
    connection.execute(changed.values(stamp=_stamp(), **values))
    after = _known(connection, name)
    if not after["is_open"]:
        connection.execute(sql.delete(_LINKS).where(_LINKS.c.name == name))
    _check_administrator(connection, before)
    return _account(after)


def _check_administrator(connection: sql.Connection, before: sql.RowMapping) -> None:
    """Refuse a change that leaves nobody to see to accounts."""
    account = _account(before)
    was_one = account.role == Role.ADMINISTRATOR and account.is_open
    if was_one and account.has_password and not _has_administrator(connection):
        raise AccountError("the last administrator stays: make another one first")


def _has_administrator(connection: sql.Connection) -> bool:
    is_one = (
        _ACCOUNTS.c.role == int(Role.ADMINISTRATOR),
        _ACCOUNTS.c.is_open,
        _ACCOUNTS.c.password != "",
    )
    asked = sql.select(_ACCOUNTS.c.name).where(*is_one).limit(1)
    return connection.execute(asked).first() is not None


def _link(connection: sql.Connection, secret: str) -> str | None:
    is_it = (_LINKS.c.digest == _digest(secret), _LINKS.c.expires_at > time.time())
    name = connection.execute(sql.select(_LINKS.c.name).where(*is_it)).scalar()
    # once there is an administrator the link of the first one opens nothing
    if name is None or (name == "" and _has_administrator(connection)):
        return None
    return str(name)


def _account(row: Mapping[Any, Any]) -> Account:
    return Account(
        row["name"],
        Role(row["role"]),
        bool(row["is_open"]),
        bool(row["password"]),
        row["stamp"],
        row["created_at"],
        row["seen_at"],
    )


def _token(row: Mapping[Any, Any]) -> Token:
    names = ("id", "owner", "note", "role", "created_at", "used_at", "expires_at")
    return Token(**{name: row[name] for name in names} | {"role": Role(row["role"])})


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _bytes(password: str) -> bytes:
    # the same characters may come in another form from another keyboard
    return unicodedata.normalize("NFC", password).encode(errors="surrogatepass")


def _stamp() -> str:
    return secrets.token_hex(8)
