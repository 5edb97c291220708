"""The pages of dead letters, and what an operator does with them."""

from __future__ import annotations

from flask import Blueprint, abort, current_app, flash, redirect, render_template
from flask import url_for as address_of
from flask.typing import ResponseReturnValue

from opencluster.errors import LetterError, OpenClusterError
from opencluster_web.accounts.guard import Role, audited, needs
from opencluster_web.letters.source import letter_box

TASKS = "tasks.page"
MAX_SHOWN = 500

blueprint = Blueprint("letters", __name__, url_prefix="/letters")


@blueprint.route("/")
def page() -> str:
    """List the dead letters of all computers."""
    try:
        found, trouble = letter_box().find()
        letters, silent = found.letters, found.silent
    except OpenClusterError as error:
        letters, silent, trouble = [], [], str(error)
    return render_template(
        "letters/page.html",
        letters=letters[:MAX_SHOWN],
        left_off=len(letters) - MAX_SHOWN,
        silent=silent,
        trouble=trouble,
        tasks=TASKS if TASKS in current_app.view_functions else "",
    )


@blueprint.route("/<id>")
def letter(id: str) -> str:
    """Show one letter with its evidence."""
    try:
        return render_template("letters/letter.html", letter=letter_box().show(id))
    except LetterError as error:
        abort(404, str(error))
    except OpenClusterError as error:
        abort(503, str(error))


@blueprint.route("/<id>/put-back", methods=["POST"])
@needs(Role.OPERATOR)
def put_back(id: str) -> ResponseReturnValue:
    """Begin to run a piece again."""
    try:
        with audited("put back letter", id):
            letter_box().put_back(id)
    except (OpenClusterError, OSError) as error:
        flash(f"Letter {id} was not put back: {error}", "danger")
        return redirect(address_of("letters.page"))
    flash(
        f"The piece of letter {id} runs again, in a job named after the letter, which "
        "goes when it is done; "
        f"what comes of it is in the log letter-{id}.",
        "success",
    )
    return redirect(address_of("letters.page"))


@blueprint.route("/<id>/delete", methods=["POST"])
@needs(Role.OPERATOR)
def delete(id: str) -> ResponseReturnValue:
    """Remove a letter."""
    try:
        with audited("delete letter", id):
            letter_box().delete(id)
    except OpenClusterError as error:
        flash(f"Letter {id} was not deleted: {error}", "danger")
    else:
        flash(f"Letter {id} is deleted.", "success")
    return redirect(address_of("letters.page"))
