"""The pages of tasks, and what may be done to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from opencluster.core.tasks import State
from opencluster.errors import NoSuchTask, OpenClusterError
from opencluster_web import failures
from opencluster_web.accounts.guard import Role, audited, needs
from opencluster_web.tasks.source import task_source

if TYPE_CHECKING:
    from opencluster.taskqueue import Task, TaskQueue

SHOWN = 50
"""Tasks on a page."""
PREVIEW = 4000
"""Characters that are shown of what a task is to do, and of what came of it."""
STATES = tuple(state.value for state in State)
MAX_NUMBER = 2**63 - 1
RETRY_S = 10

blueprint = Blueprint("tasks", __name__, url_prefix="/tasks")


@blueprint.errorhandler(OpenClusterError)
def _without_queue(error: OpenClusterError) -> ResponseReturnValue:
    if isinstance(error, NoSuchTask):
        return failures.answer(404, "No such task", str(error))
    answer = failures.answer(503, "No task queue", str(error))
    answer.headers["Retry-After"] = str(RETRY_S)
    return answer


@blueprint.route("/")
def page() -> str:
    """Show the tasks, the newest first, a page at a time."""
    state, name = request.args.get("state", ""), request.args.get("name", "").strip()
    if state and state not in STATES:
        abort(400, f"There is no state {state}.")
    before = _before()
    queue = task_source().queue()
    found: list[Task] = []
    counts = dict.fromkeys(STATES, 0)
    if queue is not None:
        counts = queue.counts()
        found = queue.tasks(
            [state] if state else [], SHOWN + 1, before=before, name=name
        )
    return render_template(
        "tasks/page.html",
        tasks=found[:SHOWN],
        counts=counts,
        total=sum(counts.values()),
        state=state,
        name=name,
        before=before,
        older=found[SHOWN - 1].id if len(found) > SHOWN else None,
    )


@blueprint.route("/<int:number>")
def task(number: int) -> str:
    """Show one task."""
    queue = _queue(number)
    found = queue.show(number)
    return render_template(
        "tasks/task.html",
        task=found,
        needs=[(n, queue.show(n).state) for n in found.depends_on],
        arguments=_preview(queue.arguments, number),
        result=_preview(queue.result, number) if found.state == State.DONE else "",
    )


@blueprint.route("/<int:number>/cancel", methods=["POST"])
@needs(Role.OPERATOR)
def cancel(number: int) -> ResponseReturnValue:
    """Take a task back."""
    with audited("cancel task", str(number)):
        changed = _queue(number).cancel(number)
    return _told(number, changed, "is cancelled", "had ended before")


@blueprint.route("/<int:number>/retry", methods=["POST"])
@needs(Role.OPERATOR)
def retry(number: int) -> ResponseReturnValue:
    """Ask for a task again."""
    with audited("retry task", str(number)):
        changed = _queue(number).retry(number)
    return _told(
        number, changed, "is queued again", "has neither failed nor been cancelled"
    )


@blueprint.route("/<int:number>/priority", methods=["POST"])
@needs(Role.OPERATOR)
def prioritise(number: int) -> ResponseReturnValue:
    """Let a task be begun before others, or behind them."""
    try:
        priority = int(request.form.get("priority", ""))
        with audited("change priority of task", str(number), priority=priority):
            changed = _queue(number).prioritise(priority, number)
    except ValueError:
        abort(400, "A priority is a whole number within 31 bits, such as 10 or -1.")
    return _told(number, changed, f"has the priority {priority}", "had ended before")


# --- inside -----------------------------------------------------------------


def _queue(number: int) -> TaskQueue:
    queue = task_source().queue()
    if queue is None or number > MAX_NUMBER:
        raise NoSuchTask(f"there is no task {number} in the queue")
    return queue


def _told(
    number: int, changed: list[int], what: str, why_not: str
) -> ResponseReturnValue:
    if changed:
        flash(f"Task {number} {what}.", "success")
    else:
        flash(f"Task {number} {why_not}.", "warning")
    return redirect(url_for("tasks.task", number=number))


def _before() -> int | None:
    text = request.args.get("before", "")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or int(text) > MAX_NUMBER:
        abort(400, "before is the number of a task.")
    return int(text)


def _preview(get: Callable[[int], Any], number: int) -> str:
    """Return a value in words; it may be of a type that is unknown here."""
    try:
        text = repr(get(number))
    except OpenClusterError as error:
        return f"({error})"
    return text if len(text) <= PREVIEW else f"{text[:PREVIEW]} ... (cut)"
