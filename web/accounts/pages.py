"""Logging in and out, one's own account, everybody's accounts, and the audit log."""

from __future__ import annotations

import ipaddress
import json
import re
import time

from flask import (
    Blueprint,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_login import current_user, login_user, logout_user

from opencluster.errors import AccountError
from opencluster_web.accounts.account import Account
from opencluster_web.accounts.guard import (
    Actor,
    Role,
    Visitor,
    actor,
    audited,
    needs,
    note,
    public,
    store,
)
from opencluster_web.accounts.passwords import MIN_PASSWORD

LOG_INS_OF_ADDRESS = "20 per 5 minutes"
LOG_INS_OF_NAME = "10 per 5 minutes"
"""More tries of passwords than people need, fewer than are of use to guess one."""
LINKS_OF_ADDRESS = "20 per 5 minutes"
TOO_MANY = "That was tried too often: wait five minutes, then try once more."
AUDIT_ROWS = 100
DAY_S = 86_400.0
MAX_NAME = 40
"""Characters that are looked at; no account has a longer name."""
VALID_DAYS = (7, 30, 90, 365, 0)
"""For how long tokens are made; 0 for ever."""

_OURS = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
"""An address on this server. Browsers take a backslash for a slash, drop line ends and
tabs, and take what begins with two slashes for another server."""


blueprint = Blueprint("accounts", __name__)
limiter = Limiter(lambda: _address(), storage_uri="memory://")


@blueprint.route("/login", methods=["GET", "POST"])
@public
@limiter.limit(LOG_INS_OF_ADDRESS, methods=["POST"], error_message=TOO_MANY)
@limiter.limit(
    LOG_INS_OF_NAME,
    key_func=lambda: _name(),
    methods=["POST"],
    error_message=TOO_MANY,
)
def log_in() -> ResponseReturnValue:
    """Ask for name and password, and go where somebody wanted to."""
    wanted = _inside(request.values.get("next", ""))
    if request.method == "GET":
        if current_user.is_authenticated:
            return redirect(wanted)
        return render_template("accounts/login.html", wanted=wanted, name="")
    name = _name()
    account = store().people.log_in(name, request.form.get("password", ""))
    if account is None:
        # it happens that somebody types the password there
        known = name if store().people.find(name) else "a name that is not known"
        note("log in", known, "refused: wrong name or password")
        flash("This name and password do not belong together.", "danger")
        page = render_template("accounts/login.html", wanted=wanted, name=name)
        return page, 401
    _enter(account)
    note("log in", name, "done")
    return redirect(wanted)


@blueprint.route("/logout", methods=["POST"])
@public
def log_out() -> ResponseReturnValue:
    """End the session."""
    if current_user.is_authenticated and current_user.via == "session":
        note("log out", current_user.account.name, "done")
        store().sessions.end(current_user.session, _end_of_session())
    logout_user()
    session.clear()
    flash("You are logged out.", "success")
    return redirect(url_for("accounts.log_in"))


@blueprint.route("/welcome/<secret>", methods=["GET", "POST"])
@public
@limiter.limit(LINKS_OF_ADDRESS, error_message=TOO_MANY)
def welcome(secret: str) -> ResponseReturnValue:
    """Let somebody with a one-time link choose a password."""
    name = store().links.name(secret)
    if name is None:
        abort(410, "This link was used, or is older than a day: ask for a new one.")
    asked = _name() or name
    if request.method == "GET":
        return render_template(
            "accounts/welcome.html", name=name, asked=name, least=MIN_PASSWORD
        )
    try:
        account = store().links.use(secret, asked, _new_password())
    except AccountError as error:
        flash(_sentence(error), "danger")
        page = render_template(
            "accounts/welcome.html", name=name, asked=asked, least=MIN_PASSWORD
        )
        return page, 400
    _enter(account)
    note("choose a password by a one-time link", account.name, "done")
    return redirect(url_for("cluster.overview"))


@blueprint.route("/account")
def account() -> ResponseReturnValue:
    """Show one's own account and tokens."""
    me = _me()
    return render_template(
        "accounts/account.html",
        account=me,
        tokens=store().tokens.of(me.name),
        roles=[role for role in Role if role <= me.role],
        days=VALID_DAYS,
        least=MIN_PASSWORD,
    )


@blueprint.route("/account/password", methods=["POST"])
@needs(Role.OBSERVER)
@limiter.limit(LOG_INS_OF_ADDRESS, error_message=TOO_MANY)
def change_password() -> ResponseReturnValue:
    """Change one's own password; all other sessions end."""
    me = _me()
    try:
        with audited("change password", me.name):
            if store().people.log_in(me.name, request.form.get("old", "")) is None:
                raise AccountError("the old password is another one")
            changed = store().people.set_password(me.name, _new_password())
    except AccountError as error:
        flash(_sentence(error), "danger")
    else:
        _enter(changed)
        flash("The password is changed; you are logged out everywhere else.", "success")
    return redirect(url_for("accounts.account"))


@blueprint.route("/account/tokens", methods=["POST"])
@needs(Role.OBSERVER)
def make_token() -> ResponseReturnValue:
    """Make a token for a program; the page that answers shows it, once."""
    me = _me()
    try:
        role = Role.of(request.form.get("role", ""))
        days = float(request.form.get("days", ""))
        if days not in VALID_DAYS:
            raise AccountError("choose for how long the token is to be good")
        text = request.form.get("note", "")
        with audited("make token", text, role=role.word, days=days):
            _, secret = store().tokens.make(me.name, text, role, days * DAY_S)
    except (AccountError, ValueError) as error:
        flash(_sentence(error), "danger")
        return redirect(url_for("accounts.account"))
    return render_template("accounts/token.html", secret=secret, note=text)


@blueprint.route("/account/tokens/<int:id>/remove", methods=["POST"])
@needs(Role.OBSERVER)
def remove_token(id: int) -> ResponseReturnValue:
    """Remove one of one's own tokens; an administrator may remove any."""
    me = _me()
    owner = "" if me.role == Role.ADMINISTRATOR else me.name
    return _done(
        "remove token", str(id), lambda: store().tokens.remove(id, owner), "account"
    )


@blueprint.route("/users")
@needs(Role.ADMINISTRATOR)
def users() -> ResponseReturnValue:
    """Show all accounts."""
    return render_template(
        "accounts/users.html",
        accounts=store().people.all(),
        tokens=store().tokens.all(),
        roles=list(Role),
    )


@blueprint.route("/users", methods=["POST"])
@needs(Role.ADMINISTRATOR)
def add_user() -> ResponseReturnValue:
    """Make an account, and show the link by which its owner chooses a password."""
    name = _name()
    try:
        role = Role.of(request.form.get("role", ""))
        with audited("add account", name, role=role.word):
            store().people.add(name, role)
    except AccountError as error:
        flash(_sentence(error), "danger")
        return redirect(url_for("accounts.users"))
    return _with_link(name)


@blueprint.route("/users/<name>/<what>", methods=["POST"])
@needs(Role.ADMINISTRATOR)
def change_user(name: str, what: str) -> ResponseReturnValue:
    """Change an account: its role, or open, close, log out, remove it."""
    people = store().people
    if what == "link":
        try:
            with audited("make one-time link", name):
                return _with_link(name)
        except AccountError as error:
            flash(_sentence(error), "danger")
            return redirect(url_for("accounts.users"))
    if what == "role":
        word = request.form.get("role", "")
        return _done(
            f"make {word}",
            name,
            lambda: people.set_role(name, Role.of(word)),
            "users",
        )
    changes = {
        "close": ("close account", lambda: people.set_open(name, False)),
        "open": ("open account", lambda: people.set_open(name, True)),
        "out": ("log out everywhere", lambda: people.end_sessions(name)),
        "remove": ("remove account", lambda: people.remove(name)),
    }
    if what not in changes:
        abort(404)
    action, work = changes[what]
    return _done(action, name, work, "users")


@blueprint.route("/audit")
@needs(Role.OPERATOR)
def audit() -> ResponseReturnValue:
    """Show what was done, by whom, and how it ended."""
    before = request.args.get("before", 0, type=int)
    who = request.args.get("who", "")
    rows = store().audit.rows(before, AUDIT_ROWS + 1, who)
    older = rows[AUDIT_ROWS - 1]["id"] if len(rows) > AUDIT_ROWS else None
    return render_template(
        "accounts/audit.html",
        rows=[row | {"details": _words(row["details"])} for row in rows[:AUDIT_ROWS]],
        older=older,
        who=who,
    )


# --- inside -----------------------------------------------------------------


def _address() -> str:
    """Return from where a request comes, as far as limits go."""
    told = request.remote_addr or "nowhere"
    try:
        address = ipaddress.ip_address(told.partition("%")[0])
    except ValueError:
        return told
    # one computer may take any of the addresses of its network
    is_wide = address.version == 6 and not address.is_loopback
    return str(ipaddress.ip_network(f"{address}/64", False)) if is_wide else told


def _name() -> str:
    """Return the name that a form gives, however it is written."""
    return request.form.get("name", "").strip().lower()[:MAX_NAME]


def _enter(account: Account) -> None:
    """Begin a session, with nothing of the one before."""
    if current_user.is_authenticated:
        store().sessions.end(current_user.session, _end_of_session())
    session.clear()
    login_user(Visitor(account, account.role, "session"))
    session.permanent = True


def _end_of_session() -> float:
    return time.time() + current_app.permanent_session_lifetime.total_seconds()


def _me() -> Account:
    me: Actor | None = actor()
    if me is None or me.via != "session":
        abort(403, "This is for people who are logged in.")
    account: Account = current_user.account
    return account


def _new_password() -> str:
    password = request.form.get("password", "")
    if password != request.form.get("again", ""):
        raise AccountError("the two passwords differ")
    return password


def _done(action: str, subject: str, work: object, page: str) -> ResponseReturnValue:
    assert callable(work)
    try:
        with audited(action, subject):
            work()
    except AccountError as error:
        flash(_sentence(error), "danger")
    else:
        flash(f"Done: {action} {subject}.", "success")
    return redirect(url_for(f"accounts.{page}"))


def _with_link(name: str) -> ResponseReturnValue:
    secret = store().links.make(name)
    link = url_for("accounts.welcome", secret=secret, _external=True)
    return render_template("accounts/link.html", name=name, link=link)


def _inside(wanted: str) -> str:
    """Return where to go, if that is one of our own pages."""
    return wanted if _OURS.fullmatch(wanted) else url_for("cluster.overview")


def _words(details: str) -> str:
    """Return what else is known of a deed, for people."""
    try:
        known = json.loads(details)
    except ValueError:
        # it was too long, and was cut
        return details
    return ", ".join(
        f"{name}: {each:g}" if isinstance(each, float) else f"{name}: {each}"
        for name, each in known.items()
    )


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + "."
