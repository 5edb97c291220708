"""Who asks, what that person or program may do, and what is written down of it.

Every view needs an observer, unless it is marked otherwise: what is forgotten is shut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, Request, abort, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFProtect, generate_csrf
from markupsafe import Markup

from opencluster.errors import OpenClusterError
from opencluster_web.accounts.store import Account, AccountStore, Role
from opencluster_web.failures import API, answer

__all__ = ["Role", "actor", "audited", "needs", "public", "register", "store"]

BEARER = "Bearer "
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
    """An account in a request, as Flask-Login wants it."""

    def __init__(self, account: Account, role: Role, via: str) -> None:
        self.account = account
        self.role = role
        self.via = via

    def get_id(self) -> str:
        """Return what a session remembers: a new stamp ends it."""
        return f"{self.account.name}:{self.account.stamp}"


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
        raise
    note(action, subject, "done", **details)


def note(action: str, subject: str, outcome: str, **details: Any) -> None:
    """Write a line in the audit log in the name of who asks."""
    asking = actor() or Actor("", Role.OBSERVER, "nobody")
    address = request.remote_addr or ""
    store().note(asking.name, asking.via, address, action, subject, outcome, details)


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
    # checked by `_check`, as programs with tokens have no session to protect
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    app.config["WTF_CSRF_TIME_LIMIT"] = None
    manager = LoginManager(app)
    # a laptop may have another address each hour
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
    view = current_app.view_functions[endpoint]
    role = getattr(view, "opencluster_role", Role.OBSERVER)
    view_class = getattr(view, "view_class", None)
    if view_class is not None:
        method = getattr(view_class, request.method.lower(), None)
        role = getattr(method, "opencluster_role", role)
    if endpoint.endswith("static") or role is None:
        role = None
    asking = actor()
    if role is not None:
        if asking is None:
            return _unknown()
        if asking.role < role:
            if request.method not in SAFE:
                note(f"{request.method} {request.path}", "", "refused: not allowed")
            abort(403, f"This needs the role {role.word}; you are {asking.role.word}.")
    is_program = asking is not None and asking.via == "token"
    if request.method not in SAFE and not is_program:
        csrf.protect()
    if current_user.is_authenticated and current_user.via == "session":
        store().seen(current_user.account)
    return None


def _unknown() -> ResponseReturnValue:
    if request.path.startswith(API) or request.method not in SAFE:
        response = answer(
            401,
            "Who are you?",
            "Log in, or send a token: Authorization: Bearer oc_... (see /account).",
        )
        response.headers["WWW-Authenticate"] = 'Bearer realm="opencluster"'
        return response
    return redirect(url_for("accounts.log_in", next=request.full_path.rstrip("?")))


def _of_session(id: str) -> Visitor | None:
    name, _, stamp = id.partition(":")
    account = store().account(name)
    if account is None or not account.is_open or account.stamp != stamp:
        return None
    return Visitor(account, account.role, "session")


def _of_token(asked: Request) -> Visitor | None:
    header = asked.headers.get("Authorization", "")
    if not asked.path.startswith(API) or not header.startswith(BEARER):
        return None
    found = store().bearer(header.removeprefix(BEARER).strip())
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
