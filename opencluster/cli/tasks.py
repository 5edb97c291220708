"""``opencluster tasks``: what is in the queue."""

from __future__ import annotations

import json
from collections.abc import Callable

import click

from opencluster.cli.options import directory_option

STATES = ("waiting", "queued", "running", "done", "failed", "cancelled")

json_option = click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON object."
)


@click.group("tasks", invoke_without_command=True)
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    help="Only tasks in this state. Repeatable.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="The newest so many.",
)
@json_option
@directory_option
@click.pass_context
def tasks_command(
    context: click.Context, states: tuple[str, ...], limit: int, is_json: bool
) -> None:
    """List the tasks of the queue, the newest first, or change them.

    A task is waiting (for tasks that it depends on), queued, running, done, failed or
    cancelled. The fields of the JSON object are explained in docs/queue.md.

    \b
    Examples:
        opencluster tasks
        opencluster tasks --state failed --state running
        opencluster tasks show 17
        opencluster tasks --json | jq '.tasks[] | select(.losses > 0)'
    """
    if context.invoked_subcommand is not None:
        return
    from opencluster.cli.task_tables import fields, page
    from opencluster.taskqueue import TaskQueue

    with TaskQueue() as queue:
        counts, found = queue.counts(), queue.tasks(states, limit)
    if is_json:
        rows = [fields(task) for task in found]
        click.echo(json.dumps({"counts": counts, "tasks": rows}, indent=2))
        return
    from opencluster.cli.status_tables import console

    console().print(page(counts, found))


@tasks_command.command("show")
@click.argument("number", type=int, metavar="TASK")
@json_option
@directory_option
def show_command(number: int, is_json: bool) -> None:
    """Show all that is known of a task: what it is to do, what came of it, what failed.

    \b
    Examples:
        opencluster tasks show 17
        opencluster tasks show 17 --json | jq .result
    """
    from opencluster.cli.task_tables import as_json, sheet
    from opencluster.taskqueue import TaskQueue

    with TaskQueue() as queue:
        task = queue.show(number)
        if is_json:
            click.echo(json.dumps(as_json(queue, task), indent=2))
            return
        from opencluster.cli.status_tables import console

        console().print(sheet(queue, task))


@tasks_command.command("cancel")
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="TASK...")
@json_option
@directory_option
def cancel_command(numbers: tuple[int, ...], is_json: bool) -> None:
    """Take tasks back: those that wait are not begun, those that run are stopped.

    Tasks that depend on them go on waiting, until the tasks are asked for again with
    `opencluster tasks retry`.

    \b
    Example:
        opencluster tasks cancel 17 18
    """
    from opencluster.taskqueue import TaskQueue

    with TaskQueue() as queue:
        told(numbers, "cancelled", queue.cancel, "had ended before", is_json)


@tasks_command.command("retry")
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="TASK...")
@json_option
@directory_option
def retry_command(numbers: tuple[int, ...], is_json: bool) -> None:
    """Ask again for tasks that failed or were cancelled.

    A deadline that has passed is dropped. What depends on them goes on when they are
    done.

    \b
    Example:
        opencluster tasks retry 17 18
    """
    from opencluster.taskqueue import TaskQueue

    with TaskQueue() as queue:
        reason = "has neither failed nor been cancelled"
        told(numbers, "queued again", queue.retry, reason, is_json)


@tasks_command.command("priority")
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="TASK...")
@click.option(
    "--to",
    "priority",
    type=click.IntRange(-(2**31) + 1, 2**31 - 1),
    required=True,
    metavar="N",
    help="Higher goes first; 0 is usual.",
)
@json_option
@directory_option
def priority_command(numbers: tuple[int, ...], priority: int, is_json: bool) -> None:
    """Let tasks be begun before others, or behind them.

    One that runs goes on as it does, and has the priority when it is begun again.

    \b
    Examples:
        opencluster tasks priority 17 18 --to 10
        opencluster tasks priority 19 --to -1
    """
    from opencluster.taskqueue import TaskQueue

    def change(*numbers: int) -> list[int]:
        return queue.prioritise(priority, *numbers)

    with TaskQueue() as queue:
        what = f"of priority {priority} now"
        told(numbers, what, change, "had ended before", is_json)


def told(
    numbers: tuple[int, ...],
    what: str,
    change: Callable[..., list[int]],
    why_not: str,
    is_json: bool,
) -> None:
    """Change tasks, and say which; the exit code is 1 if it was none of them."""
    changed = change(*numbers)
    unchanged = sorted(set(numbers) - set(changed))
    if is_json:
        click.echo(json.dumps({"changed": changed, "unchanged": unchanged}))
    for number in () if is_json else changed:
        click.echo(f"task {number} is {what}", err=True)
    for number in () if is_json else unchanged:
        click.echo(f"task {number} {why_not}", err=True)
    if not changed:
        raise click.exceptions.Exit(1)
