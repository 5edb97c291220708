"""Tasks of the queue as tables for people, and as JSON for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from opencluster.cli.status_tables import Columns, ago, printable, tables
from opencluster.errors import OpenClusterError
from opencluster.taskqueue import Task, TaskQueue
from opencluster.workpiece import WorkPiece

_COLOURS = {
    "running": "green",
    "waiting": "yellow",
    "failed": "red",
    "cancelled": "yellow",
}
ERROR_WIDTH = 60
"""Characters of an error in the list; `tasks show` has it whole."""

_TASKS: Columns = {
    "task>": lambda row: row["id"],
    "manager": lambda row: row["name"],
    "state": lambda row: _state(row["state"]),
    "progress>": lambda row: _percent(row["progress"]),
    "priority>": lambda row: row["priority"] or "",
    "waits for>": lambda row: row["unmet"] or "",
    "attempt>": lambda row: row["attempt"] or "",
    "submitted>": lambda row: f"{ago(time.time() - row['submitted_at'])} ago",
    "took>": lambda row: _took(row),
    "due": lambda row: _due(row["deadline"], row["ended_at"]),
    "dispatcher": lambda row: row["holder"],
    "error": lambda row: _short(row["error"]),
}


def page(counts: Mapping[str, int], tasks: Sequence[Task]) -> RenderableType:
    """Return the list of tasks: how many are in each state first."""
    told = [f"{count} {state}" for state, count in counts.items() if count]
    head = Text(", ".join(told) or "the queue is empty", "bold")
    return Group(head, *tables("Tasks", [fields(task) for task in tasks], _TASKS))


def sheet(queue: TaskQueue, task: Task) -> RenderableType:
    """Return all that is known of a task."""
    lines = [Text(f"task {task.id}: {task.name}", "bold")]
    for name, value in _facts(queue, task):
        text = value if isinstance(value, Text) else Text(printable(str(value)))
        lines.append(Text(f"{name:>14}  ").append_text(text))
    for title, told in (("error", task.error), ("last output", task.output)):
        if told:
            lines.append(Text(f"\n{title}:"))
            lines.append(Text(printable(told.rstrip()), "red"))
    return Group(*lines)


def _facts(queue: TaskQueue, task: Task) -> list[tuple[str, object]]:
    row = fields(task)
    needs = [f"{number} ({queue.show(number).state})" for number in task.depends_on]
    facts: list[tuple[str, object]] = [
        ("state", _state(task.state)),
        ("progress", _progress(task)),
        ("waits for", ", ".join(needs)),
        ("class", task.manager),
        ("arguments", _value(queue.arguments, task.id, repr)),
        ("result", _result(queue, task, repr)),
        ("directory", task.directory),
        ("engine", task.engine),
        ("priority", task.priority or ""),
        ("class of pieces", task.piece_class),
        ("deadline", _clock(task.deadline)),
        ("submitted", _clock(task.submitted_at)),
        ("begun", _clock(task.started_at)),
        ("ended", _clock(task.ended_at)),
        ("took", _took(row)),
        ("attempt", task.attempt or ""),
        ("losses", f"{task.losses} of {task.retries} allowed" if task.losses else ""),
        (
            "errors",
            f"{task.failures}, {task.error_retries} allowed" if task.failures else "",
        ),
        ("dispatcher", task.holder),
        ("key", task.key),
    ]
    return [(name, value) for name, value in facts if str(value)]


def fields(task: Task) -> dict[str, Any]:
    """Return a task as plain types."""
    return asdict(task) | {"progress": task.progress}


def as_json(queue: TaskQueue, task: Task) -> dict[str, Any]:
    """Return a task with what it is to do and what came of it, as JSON has it.

    What JSON does not know, such as an array, is told in words.
    """
    return fields(task) | {
        "arguments": _value(queue.arguments, task.id, _plain),
        "result": _result(queue, task, _plain) or None,
    }


def _result(queue: TaskQueue, task: Task, shown: Callable[[Any], Any]) -> Any:
    return _value(queue.result, task.id, shown) if task.state == "done" else ""


def _value(
    get: Callable[[int], WorkPiece], number: int, shown: Callable[[Any], Any]
) -> Any:
    """Return a value of a task; in words when it is of a type that is unknown here."""
    try:
        return shown(get(number))
    except OpenClusterError as error:
        return f"({error})"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(_with_text_keys(value), default=repr))


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(item) for item in value]
    return value


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state, ""))


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"


def _progress(task: Task) -> str:
    if task.progress is None:
        return ""
    done, total = task.progress_done, task.progress_total
    return f"{task.progress:.0%} ({done:g} of {total:g})"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _took(row: Mapping[str, Any]) -> str:
    if row["started_at"] is None or row["state"] in ("waiting", "queued"):
        return ""
    return ago((row["ended_at"] or time.time()) - row["started_at"])


def _due(deadline: float | None, ended_at: float | None) -> str:
    if deadline is None or ended_at is not None:
        return ""
    left_s = deadline - time.time()
    return f"in {ago(left_s)}" if left_s > 0 else "now"


def _short(error: str) -> str:
    line = next(iter(error.splitlines()), "")
    return line if len(line) <= ERROR_WIDTH else line[: ERROR_WIDTH - 3] + "..."
