"""What programs may ask: how the cluster is, was, and what it has to say."""

from __future__ import annotations

import time
from dataclasses import asdict

from flask import Response, abort, jsonify

from opencluster.core.log_lines import Wanted
from opencluster.core.timeline import rows, summary
from opencluster.errors import FactoryUnreachable
from opencluster.observe.logs import level_of, look_at, newest, question
from opencluster.observe.status import Row
from opencluster.store.history import History
from opencluster_web.accounts.guard import actor
from opencluster_web.api import schemas
from opencluster_web.api.document import new_blueprint, refusals
from opencluster_web.api.schemas import Given
from opencluster_web.cluster.source import Status, cluster_source
from opencluster_web.jobs.source import job_source
from opencluster_web.letters.source import letter_box
from opencluster_web.logs.source import log_source
from opencluster_web.tasks.source import task_source

HOUR_S = 3600.0

blueprint = new_blueprint("api", "What is and what was.")


@blueprint.route("/me")
@blueprint.response(200, schemas.Me)
@refusals(blueprint)
def me() -> dict[str, str]:
    """Say who asks, and what they may do."""
    asking = actor()
    assert asking is not None
    return {"name": asking.name, "role": asking.role.word, "via": asking.via}


@blueprint.route("/status")
@blueprint.response(200, schemas.Status)
@refusals(blueprint, 503)
def status() -> Response:
    """Get the status of the cluster."""
    return jsonify(_status())


@blueprint.route("/computers")
@blueprint.response(200, schemas.Computers)
@refusals(blueprint, 503)
def computers() -> Response:
    """List the computers."""
    return jsonify(computers=_status()["workshops"])


@blueprint.route("/computers/<name>")
@blueprint.response(200)
@refusals(blueprint, 404, 503)
def computer(name: str) -> Response:
    """Get one computer."""
    return jsonify(_one(_status()["workshops"], name, "computer"))


@blueprint.route("/workers")
@blueprint.arguments(schemas.ProcessQuery, location="query")
@blueprint.response(200, schemas.Processes)
@refusals(blueprint, 422, 503)
def workers(asked: Given) -> Response:
    """List the workers."""
    return jsonify(processes=_chosen(_status()["workers"], asked))


@blueprint.route("/services")
@blueprint.arguments(schemas.ProcessQuery, location="query")
@blueprint.response(200, schemas.Processes)
@refusals(blueprint, 422, 503)
def services(asked: Given) -> Response:
    """List the services."""
    return jsonify(processes=_chosen(_status()["services"], asked))


@blueprint.route("/processes/<name>")
@blueprint.response(200)
@refusals(blueprint, 404, 503)
def process(name: str) -> Response:
    """Get one worker or service."""
    found = _status()
    return jsonify(_one([*found["workers"], *found["services"]], name, "process"))


@blueprint.route("/factories")
@blueprint.response(200, schemas.Factories)
@refusals(blueprint, 503)
def factories() -> Response:
    """List the factories."""
    return jsonify(factories=_status()["factories"])


@blueprint.route("/jobs")
@blueprint.arguments(schemas.JobQuery, location="query")
@blueprint.response(200, schemas.Jobs)
@refusals(blueprint, 422, 503)
def jobs(asked: Given) -> Response:
    """List the jobs, those that ended too."""
    before, kept = asked["before"], cluster_source().history
    found = [] if kept is None else kept.jobs(asked["limit"], before)
    rows = {row["id"]: row for row in found}
    # what has ended is known for longer by the history than by the factories
    rows |= {row["id"]: row for row in cluster_source().look().status["jobs"]}
    chosen = [r for r in rows.values() if not before or r["started_at"] < before]
    newest_first = sorted(chosen, key=lambda row: -row["started_at"])
    return jsonify(jobs=newest_first[: asked["limit"]])


@blueprint.route("/jobs/<id>")
@blueprint.response(200)
@refusals(blueprint, 404, 503)
def job(id: str) -> Response:
    """Get one job."""
    for row in cluster_source().look().status["jobs"]:
        if row["id"] == id:
            return jsonify(row)
    kept = cluster_source().history
    found = None if kept is None else kept.job(id)
    if found is None:
        abort(404, f"There is no job {id}.")
    return jsonify(found)


@blueprint.route("/jobs/<id>/timeline")
@blueprint.response(200, schemas.TimelineOfJob)
@refusals(blueprint, 404, 503)
def timeline(id: str) -> Response:
    """Get what became of the pieces of a job: figures, and each run."""
    record = job_source().record(id, is_running=True)
    if record is None:
        abort(404, f"No record of a job {id} is known.")
    found = record.timeline
    return jsonify(job=found.job, summary=summary(found), spans=list(rows(found)))


@blueprint.route("/events")
@blueprint.arguments(schemas.EventQuery, location="query")
@blueprint.response(200, schemas.Events)
@refusals(blueprint, 422, 503)
def events(asked: Given) -> Response:
    """List what happened."""
    weights = [asked["weight"]] if "weight" in asked else []
    kinds = [asked["kind"]] if "kind" in asked else []
    found = _history().events(
        asked["before"],
        asked["limit"],
        weights,
        kinds=kinds,
        host=asked["host"],
        since=asked["since"],
    )
    rows = [{"id": each.id, "at": each.at} | asdict(each.event) for each in found]
    return jsonify(events=rows)


@blueprint.route("/history")
@blueprint.arguments(schemas.HistoryQuery, location="query")
@blueprint.response(200, schemas.History)
@refusals(blueprint, 422, 503)
def history(asked: Given) -> Response:
    """Get the figures of a computer, or of the cluster, over time."""
    end = asked["end"] or time.time()
    start = asked["start"] or end - HOUR_S
    return jsonify(_history().samples(asked["host"], start, end, asked["points"]))


@blueprint.route("/logs")
@blueprint.arguments(schemas.LogQuery, location="query")
@blueprint.response(200, schemas.Logs)
@refusals(blueprint, 422, 503)
def logs(asked: Given) -> Response:
    """Get the newest messages of all logs."""
    found = log_source().find()
    looks = found.looks
    if asked["computer"]:
        looks = {n: look for n, look in looks.items() if n == asked["computer"]}
    wanted = Wanted(asked["level"], asked["text"], asked["piece"])
    names = [asked["process"]] if asked["process"] else []
    seen = look_at(looks, question(wanted, asked["lines"], names), {})
    messages = newest(seen.messages(), asked["lines"])
    rows = [
        {
            "computer": message.computer,
            "process": message.process,
            "time": message.time,
            "level": level_of(message),
            "piece": message.head.piece if message.head else "",
            "text": "\n".join(message.lines),
        }
        for message in messages
    ]
    return jsonify(messages=rows, silent=seen.silent)


@blueprint.route("/letters")
@blueprint.response(200, schemas.Letters)
@refusals(blueprint, 503)
def letters() -> Response:
    """List the dead letters."""
    found, _ = letter_box().find()
    return jsonify(letters=found.letters, silent=found.silent)


@blueprint.route("/letters/<id>")
@blueprint.response(200)
@refusals(blueprint, 404, 503)
def letter(id: str) -> Response:
    """Get one dead letter, with all evidence."""
    return jsonify(letter_box().show(id))


@blueprint.route("/tasks")
@blueprint.arguments(schemas.TaskQuery, location="query")
@blueprint.response(200, schemas.Tasks)
@refusals(blueprint, 422, 503)
def tasks(asked: Given) -> Response:
    """List the tasks of the queue."""
    queue = task_source().queue()
    if queue is None:
        return jsonify(counts={}, tasks=[])
    states = [asked["state"]] if "state" in asked else []
    found = queue.tasks(
        states, asked["limit"], before=asked.get("before"), name=asked["name"]
    )
    return jsonify(counts=queue.counts(), tasks=[asdict(task) for task in found])


@blueprint.route("/tasks/<int:number>")
@blueprint.response(200)
@refusals(blueprint, 404, 503)
def task(number: int) -> Response:
    """Get one task of the queue."""
    queue = task_source().queue()
    if queue is None or number > schemas.MAX_NUMBER:
        abort(404, f"There is no task {number}.")
    return jsonify(asdict(queue.show(number)))


# --- inside -----------------------------------------------------------------


def _status() -> Status:
    look = cluster_source().look()
    if look.trouble:
        raise FactoryUnreachable(look.trouble)
    return look.status


def _history() -> History:
    found = cluster_source().history
    if found is None:
        abort(503, "No history is kept yet; `opencluster web` keeps one.")
    return found


def _chosen(rows: list[Row], asked: Given) -> list[Row]:
    return [
        row
        for row in rows
        if all(row[name] == value for name, value in asked.items() if value)
    ]


def _one(rows: list[Row], name: str, what: str) -> Row:
    for row in rows:
        if name in (row["name"], row["id"]):
            return row
    abort(404, f"There is no {what} {name}.")
