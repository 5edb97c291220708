"""What programs may have done: the same as people on the pages, with the same roles."""

from __future__ import annotations

from typing import Any

from flask import abort

from opencluster.observe.job_orders import CANCEL, PRIORITY, order_job
from opencluster_web.accounts.guard import Role, actor, audited
from opencluster_web.actions.deeds import DEEDS, carry_out, hands
from opencluster_web.api import schemas
from opencluster_web.api.document import deed, new_blueprint
from opencluster_web.api.schemas import Given
from opencluster_web.letters.source import letter_box
from opencluster_web.tasks.source import task_source

ORDER_WAIT_S = 2.0

blueprint = new_blueprint("api_deeds", "What can be done.")
Said = dict[str, str]


@deed(blueprint, "/processes/<name>/restart", Role.OPERATOR, schemas.Done)
def restart(name: str) -> Said:
    """Restart a worker or service."""
    return _done("restart", name)


@deed(blueprint, "/processes/<name>/stop", Role.OPERATOR, schemas.Done)
def stop(name: str) -> Said:
    """Stop a worker or service; it finishes what it has in hand."""
    return _done("stop", name)


@deed(blueprint, "/processes/<name>/kill", Role.OPERATOR, schemas.Done)
def kill(name: str) -> Said:
    """Kill a worker or service; its piece runs again elsewhere."""
    return _done("kill", name)


@deed(blueprint, "/processes/<name>/interrupt", Role.OPERATOR, schemas.Done)
def interrupt(name: str) -> Said:
    """Interrupt the piece that a worker runs."""
    return _done("interrupt", name)


@deed(blueprint, "/computers/<name>/drain", Role.OPERATOR, schemas.Done)
def drain(name: str) -> Said:
    """Let a computer finish what it has in hand, and start nothing more on it."""
    return _done("drain", name)


@deed(blueprint, "/computers/<name>/undrain", Role.OPERATOR, schemas.Done)
def undrain(name: str) -> Said:
    """Let a computer work again."""
    return _done("undrain", name)


@deed(blueprint, "/computers/<name>/start", Role.ADMINISTRATOR, schemas.Done)
@blueprint.arguments(schemas.Start)
def start(asked: Given, name: str) -> Said:
    """Start a program on a computer."""
    return _done("start", name, asked)


@deed(blueprint, "/types/<type>", Role.OPERATOR, schemas.Done, methods=["PUT"])
@blueprint.arguments(schemas.Count)
def scale(asked: Given, type: str) -> Said:
    """Set how many of a type run, on one computer or on all together."""
    return _done("scale", type, asked)


@deed(blueprint, "/jobs/<id>/cancel", Role.OPERATOR, schemas.Done)
def cancel_job(id: str) -> Said:
    """Cancel a job that runs."""
    return _ordered(id, CANCEL, None)


@deed(blueprint, "/jobs/<id>/priority", Role.OPERATOR, schemas.Done, methods=["PUT"])
@blueprint.arguments(schemas.Priority)
def prioritise_job(asked: Given, id: str) -> Said:
    """Let the pieces of a job go before others, or behind them."""
    return _ordered(id, PRIORITY, asked["priority"])


@deed(blueprint, "/tasks/<int:number>/cancel", Role.OPERATOR, schemas.Done)
def cancel_task(number: int) -> Said:
    """Cancel a task of the queue."""
    with audited("cancel task", str(number)):
        done = _queue(number).cancel(number)
    return _changed(done, number, "is cancelled", "had ended before")


@deed(blueprint, "/tasks/<int:number>/retry", Role.OPERATOR, schemas.Done)
def retry_task(number: int) -> Said:
    """Begin a task again that failed or was cancelled."""
    with audited("retry task", str(number)):
        done = _queue(number).retry(number)
    return _changed(done, number, "waits to be begun again", "has not failed")


@deed(
    blueprint,
    "/tasks/<int:number>/priority",
    Role.OPERATOR,
    schemas.Done,
    methods=["PUT"],
)
@blueprint.arguments(schemas.Priority)
def prioritise_task(asked: Given, number: int) -> Said:
    """Let a task of the queue go before others, or behind them."""
    priority = asked["priority"]
    with audited("change priority of task", str(number), priority=priority):
        done = _queue(number).prioritise(priority, number)
    return _changed(done, number, f"has the priority {priority}", "has ended")


@deed(blueprint, "/letters/<id>/put-back", Role.OPERATOR, schemas.Done)
def put_back_letter(id: str) -> Said:
    """Run the piece of a dead letter again."""
    with audited("put back letter", id):
        letter_box().put_back(id)
    return {"message": f"the piece of letter {id} runs again"}


@deed(blueprint, "/letters/<id>", Role.OPERATOR, schemas.Done, methods=["DELETE"])
def delete_letter(id: str) -> Said:
    """Delete a dead letter."""
    with audited("delete letter", id):
        letter_box().delete(id)
    return {"message": f"letter {id} is deleted"}


# --- inside -----------------------------------------------------------------


def _done(name: str, subject: str, asked: Given | None = None) -> Said:
    return {"message": carry_out(DEEDS[name], subject, asked or {})}


def _ordered(id: str, order: str, value: int | None) -> Said:
    asking = actor()
    by = "" if asking is None else asking.name
    details = {} if value is None else {"priority": value}
    with audited(f"{order} job", id, **details), hands().reach() as control:
        said = order_job(control, id, order, value, by=by, wait_s=ORDER_WAIT_S)
    return {"message": said}


def _queue(number: int) -> Any:
    queue = task_source().queue()
    if queue is None or number > schemas.MAX_NUMBER:
        abort(404, f"There is no task {number}.")
    return queue


def _changed(done: list[int], number: int, now: str, else_: str) -> Said:
    if number not in done:
        abort(409, f"Task {number} {else_}.")
    return {"message": f"task {number} {now}"}
