"""Who asks, what that person or program may do, and what is written down of it.

Every view needs an observer, and where it changes something an operator, unless it is
marked otherwise: what is forgotten is shut.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from flask import Flask, Request, abort, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from markupsafe import Markup

from opencluster.core.journal import NOTE, Event
from opencluster.errors import OpenClusterError
from opencluster_web.accounts.account import Account
from opencluster_web.accounts.roles import Role
from opencluster_web.accounts.store import AccountStore
from opencluster_web.cluster.source import ClusterSource
from opencluster_web.failures import API, answer

__all__ = ["Role", "actor", "audited", "needs", "public", "register", "store"]

BEARER = "bearer"
GUEST = "guest"
SAFE = ("GET", "HEAD", "OPTIONS")

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Actor:
    """Who asks.

    Attributes
    ----------
    name : str
        The account's name.
    role : Role
        What may be done in this request.
    via : str
        ``session`` for people, ``token`` for programs, ``guest`` for those who need no
        account to look.
    """

    name: str
    role: Role
    via: str


class Visitor(UserMixin):  # type: ignore[misc]
    """An account in a request, as Flask-Login wants it.

    Parameters
    ----------
    account : Account
        Who.
    role : Role
        What may be done in this request.
    via : str
        ``session`` or ``token``.
    session : str
        What tells a session from others of the account; by default a new one.
    began_at : float
        When it began, in seconds since 1970; by default now.
    """

    def __init__(
        self,
        account: Account,
        role: Role,
        via: str,
        session: str = "",
        began_at: float = 0.0,
    ) -> None:
        self.account = account
        self.role = role
        self.via = via
        self.session = session or secrets.token_hex(16)
        self.began_at = began_at or time.time()

    def get_id(self) -> str:
        """Return what a session remembers: a new stamp of the account ends it."""
        parts = (self.account.name, self.account.stamp, self.session)
        return ":".join((*parts, str(self.began_at)))


def public(view: View) -> View:
    """Let everybody see a view, whoever they are."""
    view.opencluster_role = None  # type: ignore[attr-defined]
    return view


def needs(role: Role) -> Callable[[View], View]:
    """Let only those use a view who have a role, or a higher one."""

    def marked(view: View) -> View:
        view.opencluster_role = role  # type: ignore[attr-defined]
        return view

    return marked


def actor() -> Actor | None:
    """Return who asks, or ``None`` for somebody who is not known."""
    if current_user.is_authenticated:
        return Actor(current_user.account.name, current_user.role, current_user.via)
    return Actor(GUEST, Role.OBSERVER, GUEST) if _lets_guests_look() else None


def may(role: Role | str) -> bool:
    """Return whether who asks has a role, or a higher one."""
    wanted = role if isinstance(role, Role) else Role.of(role)
    asking = actor()
    return asking is not None and asking.role >= wanted


@contextlib.contextmanager
def audited(action: str, subject: str, **details: Any) -> Iterator[None]:
    """Write down what is done inside, by whom, and how it ended.

    Parameters
    ----------
    action : str
        What is done, such as ``stop worker``.
    subject : str
        To what.
    **details
        What else is worth knowing.
    """
    try:
        yield
    except BaseException as error:
        said = str(error) if isinstance(error, OpenClusterError) else repr(error)
        note(action, subject, f"failed: {said}", **details)
        _tell(f"{action} {subject} failed: {said}", subject)
        raise
    note(action, subject, "done", **details)
    _tell(f"{action} {subject}", subject)


def note(action: str, subject: str, outcome: str, **details: Any) -> None:
    """Write a line in the audit log in the name of who asks."""
    asking = actor() or Actor("", Role.OBSERVER, "nobody")
    address = request.remote_addr or ""
    log = store().audit
    log.note(asking.name, asking.via, address, action, subject, outcome, details)


def _tell(what: str, subject: str) -> None:
    """Put what was done to the cluster into its journal, for everybody to see."""
    asking = actor()
    if asking is not None and request.blueprint != "accounts":
        cluster: ClusterSource = current_app.extensions["opencluster_cluster"]
        text = f"{asking.name}: {what}"
        cluster.tell(Event("operator-acted", NOTE, subject, "", text))


def store() -> AccountStore:
    """Return the accounts of the application that answers."""
    found: AccountStore = current_app.extensions["opencluster_accounts"]
    return found


def register(app: Flask, accounts: AccountStore, guests: bool) -> None:
    """Let an application ask who somebody is before it answers.

    Parameters
    ----------
    app : Flask
        The application; its secret key is set.
    accounts : AccountStore
        Who may log in.
    guests : bool
        Whoever is not known may look, and do nothing.
    """
    app.secret_key = accounts.secret("session key")
    app.extensions["opencluster_accounts"] = accounts
    app.config["OPENCLUSTER_GUESTS"] = guests
    if app.config["SESSION_COOKIE_SECURE"]:
        # by such a name a browser takes it from nobody but this very server
        app.config["SESSION_COOKIE_NAME"] = (
            f"__Host-{app.config['SESSION_COOKIE_NAME']}"
        )
    # checked by `_check`, as programs with tokens have no session to protect
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    app.config["WTF_CSRF_TIME_LIMIT"] = None
    manager = LoginManager(app)
    # `_of_session` sees to it; and a laptop may have another address each hour
    manager.session_protection = None
    manager.user_loader(_of_session)
    manager.request_loader(_of_token)
    csrf = CSRFProtect(app)

    @app.before_request
    def check() -> ResponseReturnValue | None:
        return _check(csrf)

    app.jinja_env.globals.update(
        may=may, csrf_field=_csrf_field, me=actor, needs_log_in=_needs_log_in
    )


# --- inside -----------------------------------------------------------------


def _check(csrf: CSRFProtect) -> ResponseReturnValue | None:
    """Turn away who may not; ``None`` lets the request go on."""
    endpoint = request.endpoint
    if endpoint is None:
        # there is no such page: the answer says so, to everybody
        return None
    is_safe = request.method in SAFE
    role = role_of(endpoint, request.method)
    if role is None and is_safe:
        return None
    asking = actor()
    if role is not None:
        if asking is None:
            return _unknown()
        if asking.role < role:
            if not is_safe:
                note(f"{request.method} {request.path}", "", "refused: not allowed")
            abort(403, f"This needs the role {role.word}; you are {asking.role.word}.")
    if not is_safe and (asking is None or asking.via != "token"):
        try:
            csrf.protect()
        except CSRFError:
            abort(
                400,
                "This form is too old, or was not sent by a page of this server. "
                "Nothing was done: go back, load the page again, and send it again.",
            )
    if current_user.is_authenticated and current_user.via == "session":
        store().people.seen(current_user.account)
    return None


def role_of(endpoint: str, method: str) -> Role | None:
    """Return which role a view needs; ``None`` for everybody.

    Parameters
    ----------
    endpoint : str
        The view.
    method : str
        What is asked of it, such as ``POST``.
    """
    if endpoint == "static" or endpoint.endswith(".static"):
        return None
    view = current_app.view_functions[endpoint]
    marked = getattr(view, "opencluster_role", _forgotten(method))
    view_class = getattr(view, "view_class", None)
    handler = getattr(view_class, method.lower(), None)
    if handler is None and method == "HEAD":
        # Flask gives it to the view's GET
        handler = getattr(view_class, "get", None)
    role: Role | None = getattr(handler, "opencluster_role", marked)
    return role


def _forgotten(method: str) -> Role:
    return Role.OBSERVER if method in SAFE else Role.OPERATOR


def _unknown() -> ResponseReturnValue:
    # what a page asks for by itself is no place to go to after a log-in
    is_page = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    if request.path.startswith(API) or request.method not in SAFE or not is_page:
        response = answer(
            401,
            "Who are you?",
            "Log in, or send a token: Authorization: Bearer oc_... (see /account).",
        )
        response.headers["WWW-Authenticate"] = 'Bearer realm="opencluster"'
        return response
    wanted = quote(request.path)
    if request.query_string:
        wanted += "?" + request.query_string.decode("ascii", "replace")
    return redirect(url_for("accounts.log_in", next=wanted))


def _of_session(id: str) -> Visitor | None:
    name, stamp, session, began = (*id.split(":"), "", "", "")[:4]
    if not began:
        return None
    began_at = float(began)
    # of the log-in, not of the cookie, which each answer renews
    if time.time() - began_at > current_app.permanent_session_lifetime.total_seconds():
        return None
    account = store().sessions.account(name, stamp, session)
    if account is None:
        return None
    return Visitor(account, account.role, "session", session, began_at)


def _of_token(asked: Request) -> Visitor | None:
    scheme, _, secret = asked.headers.get("Authorization", "").partition(" ")
    if not asked.path.startswith(API) or scheme.lower() != BEARER:
        return None
    found = store().tokens.bearer(secret.strip())
    if found is None:
        return None
    account, token = found
    return Visitor(account, min(account.role, token.role), "token")


def _lets_guests_look() -> bool:
    return bool(current_app.config["OPENCLUSTER_GUESTS"])


def _needs_log_in() -> bool:
    return not current_user.is_authenticated


def _csrf_field() -> Markup:
    field = '<input type="hidden" name="csrf_token" value="{}">'
    return Markup(field).format(generate_csrf())
