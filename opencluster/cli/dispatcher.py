"""``opencluster dispatcher``: a daemon that drains the task queue."""

from __future__ import annotations

import click

from opencluster.cli.daemons import run_daemon, while_option
from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.place import Place
from opencluster.start import set_up_logging


@click.command("dispatcher")
@click.option(
    "--managers",
    type=click.IntRange(1, 1000),
    default=None,
    metavar="N",
    help="How many tasks run at a time; default [taskqueue] managers.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="CLASS",
    help="Run only tasks of Manager classes of this name. Repeatable.",
)
@click.option(
    "--until-empty", is_flag=True, help="End when nothing is queued any more."
)
@while_option
@directory_option
def dispatcher_command(
    managers: int | None, only: tuple[str, ...], until_empty: bool, while_pid: int
) -> None:
    """Run the tasks of the queue, in the foreground, until Ctrl-C.

    Each task runs in a process of its own. When this dispatcher is stopped it gives
    back what is unfinished; when it is killed, what it ran is begun elsewhere after
    [taskqueue] lease_s. Run as many of them as you like, on all computers that reach
    the queue. A second Ctrl-C does not wait for managers to stop.

    What the managers print goes to logs: see `opencluster logs manager-1`.

    \b
    Examples:
        opencluster dispatcher
        opencluster dispatcher --managers 8 --only NightManager
        OPENCLUSTER_TASKQUEUE_URL=postgresql://me@db/night opencluster dispatcher
    """
    from opencluster.dispatcher import TaskDispatcher

    config = load()
    set_up_logging(config.log.level)
    dispatcher = TaskDispatcher(
        config,
        Place.find(),
        managers=managers or 0,
        only=only or None,
        until_empty=until_empty,
    )
    run_daemon(dispatcher, while_pid, config.metrics.dispatcher_port)
