"""``opencluster submit``: a task for the queue."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from opencluster.cli.daemons import kind_of
from opencluster.cli.options import directory_option, parse_arguments
from opencluster.cli.workers import absolute
from opencluster.engines.choice import ENGINES, engine_at
from opencluster.errors import ConfigError, TaskFailed
from opencluster.priorities import BATCH, REALTIME
from opencluster.workpiece import WorkPiece

if TYPE_CHECKING:
    from opencluster.taskqueue import Task, TaskQueue

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AHEAD = re.compile(r"\+(\d+(?:\.\d+)?)([smhd])")


def parse_deadline(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> float | None:
    """Return the seconds since 1970 of a time, or of how far ahead it is."""
    if text is None:
        return None
    ahead = _AHEAD.fullmatch(text)
    if ahead is not None:
        return time.time() + float(ahead[1]) * _UNITS_S[ahead[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: write +30m, +2h or +1d, or a time such as 2026-12-01T06:00 (of "
            "this computer's zone) or 2026-12-01T06:00Z"
        ) from None


@click.command("submit")
@click.argument("target", metavar="MODULE:CLASS")
@click.argument("pairs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--priority", type=int, default=0, help="Higher goes first; default 0.")
@click.option(
    "--deadline",
    callback=parse_deadline,
    metavar="WHEN",
    help="Fail if it is not done then: +2h, or a time such as 2026-12-01T06:00.",
)
@click.option(
    "--after",
    "needed",
    type=int,
    multiple=True,
    metavar="TASK",
    help="Begin when this task is done. Repeatable.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Begin again so often when its process or dispatcher dies; default "
    "[taskqueue] retries.",
)
@click.option(
    "--error-retries",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Begin again so often when schedule() raises; default 0.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=None,
    help="Where the pieces run; default what the dispatcher's environment says.",
)
@click.option(
    "--dask-address",
    metavar="tcp://HOST:PORT",
    default=None,
    help="The scheduler of the Dask cluster where they run; means --engine dask.",
)
@click.option(
    "--pieces",
    "piece_class",
    type=click.Choice([REALTIME, BATCH]),
    default=None,
    help="Class of its pieces: real-time pieces go before batch pieces; default what "
    "the manager says.",
)
@click.option(
    "--key", default="", help="Who asks again with this key asks for one task."
)
@click.option(
    "--unchecked", is_flag=True, help="Do not try whether the class is there."
)
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@directory_option
def submit_command(
    target: str,
    pairs: tuple[str, ...],
    priority: int,
    deadline: float | None,
    needed: tuple[int, ...],
    retries: int | None,
    error_retries: int,
    engine: str | None,
    dask_address: str | None,
    piece_class: str | None,
    key: str,
    unchecked: bool,
    wait: bool,
    is_json: bool,
) -> None:
    """Put a task into the durable queue, and print its number.

    The class is a Manager in a module or, as path.py:CLASS, in a file; its schedule()
    gets a WorkPiece of the pairs NAME=VALUE, each a Python literal or a text. A
    dispatcher runs it, now or later: see `opencluster dispatcher`. With --wait, the
    exit code is 1 if it ends without a result.

    \b
    Examples:
        opencluster submit night.py:NightManager night=2026-12-01 exposures=20
        opencluster submit observatory.night:NightManager --deadline +6h --priority 5
        opencluster submit night.py:ReportManager --after 17 --wait
    """
    from opencluster.taskqueue import TaskQueue

    task = WorkPiece(parse_arguments(pairs))
    target = absolute(target)
    if not unchecked:
        check_manager(target)
    options = {
        "priority": priority,
        "deadline": deadline,
        "depends_on": needed,
        "retries": retries,
        "error_retries": error_retries,
        "engine": engine_at(engine, dask_address) or "",
        "piece_class": piece_class or "",
        "key": key,
    }
    with TaskQueue() as queue:
        number = queue.submit(target, task, **options)
        if not wait:
            click.echo(json.dumps({"task": number}) if is_json else number)
            return
        click.echo(f"task {number}", err=True)
        await_end(queue, number, is_json)


def check_manager(target: str) -> None:
    """Find out now, and not at night, whether a class can be run.

    Raises
    ------
    ConfigError
        When it cannot be imported here, or is no Manager.
    """
    kind, _ = kind_of(target)
    if kind != "manager":
        raise ConfigError(
            f"{target} is a {kind}: a task is for a Manager, whose schedule() hands "
            "out pieces to workers"
        )


def await_end(queue: TaskQueue, number: int, is_json: bool) -> None:
    """Wait for a task, and print what came of it.

    Raises
    ------
    TaskFailed
        When there is no result.
    """
    from opencluster.cli.task_tables import as_json

    try:
        task = queue.wait(number, on_change=_tell)
    except KeyboardInterrupt:
        click.echo(
            f"task {number} goes on: see `opencluster tasks show {number}`, or take it "
            f"back with `opencluster tasks cancel {number}`",
            err=True,
        )
        raise
    if is_json:
        click.echo(json.dumps(as_json(queue, task), indent=2))
        if task.state != "done":
            raise click.exceptions.Exit(1)
        return
    try:
        click.echo(queue.result(number))
    except TaskFailed as error:
        error.output = ""
        raise


def _tell(task: Task) -> None:
    part = "" if task.progress is None else f", {task.progress:.0%}"
    click.echo(f"task {task.id} is {task.state}{part}", err=True)
