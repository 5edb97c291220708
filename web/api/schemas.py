"""What goes in and comes out of the interface for programs, as its document tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from opencluster.core.journal import KINDS, NOTE, TROUBLE, WARNING
from opencluster.core.log_lines import LEVELS
from opencluster.core.sampling import FIELDS
from opencluster.core.tasks import State
from opencluster.node.orders import MAX_PROCESSES
from opencluster.observe.job_orders import MAX_PRIORITY

MAX_NUMBER = 2**63 - 1
MAX_LIMIT = 1000
TEXT = 200
"""Longest name or text that is looked for, in characters."""
Row = fields.Dict


def rows(where: str) -> Any:
    """Return a list of rows, whose fields are explained in a page of the docs."""
    return fields.List(Row(), required=True, metadata={"description": where})


def limit_of(default: int, most: int = MAX_LIMIT) -> Any:
    """Return how many rows are wanted at most."""
    return fields.Integer(load_default=default, validate=validate.Range(1, most))


def time_of(words: str) -> Any:
    """Return a time in seconds since 1970."""
    return fields.Float(
        load_default=0.0,
        validate=validate.Range(0.0, 1e11),
        metadata={"description": words},
    )


def text_of(words: str, most: int = TEXT) -> Any:
    """Return a text that may be left out."""
    return fields.String(
        load_default="",
        validate=validate.Length(max=most),
        metadata={"description": words},
    )


class ErrorFields(Schema):
    """What is wrong."""

    status = fields.Integer(required=True)
    title = fields.String(required=True)
    message = fields.String(required=True)


class ErrorSchema(Schema):
    """How every refusal looks."""

    error = fields.Nested(ErrorFields, required=True)


class Status(Schema):
    """How the cluster is: what ``opencluster status --json`` prints."""

    factories = rows("See docs/status.md, as for all of these.")
    workshops = rows("Computers.")
    workers = rows("Workers.")
    services = rows("Services.")
    jobs = rows("Jobs that run, and the newest that ended.")
    elastic = rows("Types whose workers come and go with the work.")
    failures = rows("Types that do not start.")
    deaths = rows("How processes were lost.")


class Computers(Schema):
    """Computers with a workshop."""

    computers = rows("Rows of `workshops` in docs/status.md.")


class Processes(Schema):
    """Workers or services."""

    processes = rows("Rows of `workers` in docs/status.md.")


class ProcessQuery(Schema):
    """Which processes."""

    type = text_of("Only of this type.")
    state = text_of("Only in this state: idle, busy, draining or lost.")
    host = text_of("Only on this computer.")


class Factories(Schema):
    """Factories."""

    factories = rows("Rows of `factories` in docs/status.md.")


class Jobs(Schema):
    """Jobs, the newest first."""

    jobs = rows("Rows of `jobs` in docs/status.md.")


class TimelineOfJob(Schema):
    """What became of the pieces of a job."""

    job = fields.Dict(required=True, metadata={"description": "Its record of itself."})
    summary = fields.Dict(required=True, metadata={"description": "Figures."})
    spans = rows("Each run: piece, type, worker, host, start_s, duration_s, outcome.")


class JobQuery(Schema):
    """Which jobs."""

    limit = limit_of(100)
    before = time_of("Only those that began before.")


class Events(Schema):
    """What happened, the newest first."""

    events = rows("id, at (seconds since 1970), kind, weight, subject, host, text.")


class EventQuery(Schema):
    """Which events."""

    limit = limit_of(100)
    before = fields.Integer(
        load_default=0,
        validate=validate.Range(0, MAX_NUMBER),
        metadata={"description": "Only those with a smaller id; 0 for the newest."},
    )
    since = time_of("Only those that were seen later.")
    weight = fields.String(validate=validate.OneOf([NOTE, WARNING, TROUBLE]))
    kind = fields.String(validate=validate.OneOf(KINDS))
    host = text_of("Only on this computer.")


History = Schema.from_dict(
    {
        name: fields.List(fields.Float(allow_none=True), required=True)
        for name in ("at", *FIELDS)
    },
    name="History",
)
"""Figures over time: lists of equal length."""


class HistoryQuery(Schema):
    """Of whom, and when."""

    host = text_of("The computer; empty for the whole cluster.")
    start = time_of("From when on; 0 for an hour before the end.")
    end = time_of("Until when; 0 for now.")
    points = limit_of(720, 2000)


class Logs(Schema):
    """Messages, the oldest first."""

    messages = rows("computer, process, time (UTC), level, piece, text.")
    silent = fields.Dict(
        required=True, metadata={"description": "Why computers did not answer."}
    )


class LogQuery(Schema):
    """Which messages."""

    computer = text_of("Only this one.")
    process = text_of("Only this worker, service or daemon.")
    level = fields.String(
        load_default=LEVELS[0],
        validate=validate.OneOf(LEVELS),
        metadata={"description": "The least important one."},
    )
    text = text_of("What the message holds.")
    piece = text_of("How the name of the piece begins.", 64)
    lines = limit_of(200)


class Letters(Schema):
    """Dead letters, the newest first."""

    letters = rows("See docs/letters.md.")
    silent = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "Computers that did not answer."},
    )


class Tasks(Schema):
    """Tasks of the queue, the newest first."""

    counts = fields.Dict(
        required=True, metadata={"description": "How many are in each state."}
    )
    tasks = rows("See docs/queue.md.")


class TaskQuery(Schema):
    """Which tasks."""

    state = fields.String(validate=validate.OneOf([state.value for state in State]))
    name = text_of("Only those whose Manager class has this name.")
    before = fields.Integer(
        validate=validate.Range(1, MAX_NUMBER),
        metadata={"description": "Only those with a smaller number."},
    )
    limit = limit_of(100)


class Me(Schema):
    """Who asks."""

    name = fields.String(required=True)
    role = fields.String(required=True)
    via = fields.String(required=True)


class Done(Schema):
    """What was done, in a sentence."""

    message = fields.String(required=True)


class Count(Schema):
    """How many, and where."""

    count = fields.Integer(
        required=True, strict=True, validate=validate.Range(0, MAX_PROCESSES)
    )
    computer = text_of("Only on this one; empty for all that know the type.")


class Start(Schema):
    """Which program to start."""

    target = fields.String(
        required=True,
        validate=validate.Length(1, 1000),
        metadata={"description": "MODULE:CLASS or /path/file.py:CLASS there."},
    )
    kind = fields.String(
        load_default="worker", validate=validate.OneOf(("worker", "service"))
    )
    type = text_of("Its type; by default that of the class.", 64)
    count = fields.Integer(
        load_default=1, strict=True, validate=validate.Range(1, MAX_PROCESSES)
    )
    arguments = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "For the class."},
    )


class Priority(Schema):
    """Who goes first: the higher one."""

    priority = fields.Integer(
        required=True, strict=True, validate=validate.Range(-MAX_PRIORITY, MAX_PRIORITY)
    )


Given = Mapping[str, Any]
"""A request that has been checked."""
