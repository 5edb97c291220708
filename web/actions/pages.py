"""The page that asks once more before something is done, and what does it."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import (
    Blueprint,
    abort,
    flash,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue

from opencluster.errors import OpenClusterError
from opencluster_web.accounts.guard import Role, may, needs
from opencluster_web.actions.deeds import DEEDS, Deed, carry_out
from opencluster_web.cluster.source import cluster_source

blueprint = Blueprint("actions", __name__)


@blueprint.route("/actions/<name>")
@needs(Role.OPERATOR)
def ask(name: str) -> str:
    """Say what will happen, and ask for what it needs."""
    deed = _deed(name)
    subject = request.args.get("subject", "")
    given = {field.name: request.args.get(field.name, "") for field in deed.fields}
    return render_template(
        "actions/ask.html",
        deed=deed,
        subject=subject,
        subject_name=_name_of(subject),
        given=given,
        wanted=_inside(request.args.get("next") or _before()),
    )


@blueprint.route("/actions/<name>", methods=["POST"])
@needs(Role.OPERATOR)
def act(name: str) -> ResponseReturnValue:
    """Do it, and go back with what was done."""
    deed = _deed(name)
    subject = request.form.get("subject", "")
    called = _name_of(subject)
    try:
        said = carry_out(deed, subject, request.form, called)
    except OpenClusterError as error:
        flash(_sentence(str(error), called), "danger")
    else:
        flash(_sentence(said, called), "success")
    return redirect(_inside(request.form.get("next", "")), 303)


@blueprint.app_template_global("may_do")
def _may_do(name: str) -> bool:
    return name in DEEDS and may(DEEDS[name].role)


@blueprint.app_template_global("is_grave")
def _is_grave(name: str) -> bool:
    return DEEDS[name].is_grave


def _deed(name: str) -> Deed:
    deed = DEEDS.get(name)
    if deed is None:
        abort(404, f"Nothing that can be done is called {name}.")
    if not may(deed.role):
        abort(403, f"This needs the role {deed.role.word}.")
    return deed


def _name_of(subject: str) -> str:
    """Return how people call a member of the cluster; others as they are."""
    status = cluster_source().look().status
    for kind in ("workers", "services", "workshops"):
        for row in status[kind]:
            if row["id"] == subject:
                return str(row["name"])
    return subject


def _before() -> str:
    """Return the page from which somebody came, if it is one of ours."""
    parts = urlsplit(request.referrer or "")
    if parts.netloc != request.host:
        return ""
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _inside(wanted: str) -> str:
    """Return where to go, if that is one of our own pages."""
    parts = urlsplit(wanted)
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/actions/"))
    is_plain = wanted.isprintable() and "\\" not in wanted
    if is_ours and is_plain and not parts.scheme and not parts.netloc:
        return wanted
    return url_for("cluster.overview")


def _sentence(text: str, name: str) -> str:
    """Return a sentence; the name of a computer at its head stays as it is."""
    begins = text if text.startswith(name) else text[:1].upper() + text[1:]
    return begins if begins.endswith(".") else f"{begins}."
