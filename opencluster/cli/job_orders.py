"""``opencluster job cancel`` and ``priority``: orders for a job that runs somewhere."""

from __future__ import annotations

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.launchers.connection import connect
from opencluster.observe.job_orders import CANCEL, MAX_PRIORITY, PRIORITY, order_job
from opencluster.place import Place

job_argument = click.argument("job", metavar="JOB")


@click.command("cancel")
@job_argument
@directory_option
def cancel_command(job: str) -> None:
    """End a job: all its pieces, and its program unless that goes on without them.

    JOB is its identity in `opencluster status`, the beginning of it, or `last`. What
    waits is dropped and what runs is interrupted; the program that waits for a piece
    meets a PieceCancelled that names who ordered this.

    \b
    Examples:
        opencluster job cancel 1f2e3d4c5b6a
        opencluster job cancel last
    """
    with connect(load(), Place.find()) as control:
        click.echo(order_job(control, job, CANCEL), err=True)


@click.command("priority", context_settings={"ignore_unknown_options": True})
@job_argument
@click.argument(
    "number",
    type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY),
    metavar="NUMBER",
)
@directory_option
def priority_command(job: str, number: int) -> None:
    """Let the pieces of a job go before those of others, or behind them.

    JOB is its identity in `opencluster status`, the beginning of it, or `last`. The
    higher NUMBER goes first among the pieces of its program; 0 is usual. What a worker
    holds already goes on as before.

    \b
    Examples:
        opencluster job priority last 10
        opencluster job priority 1f2e -5
    """
    with connect(load(), Place.find()) as control:
        click.echo(order_job(control, job, PRIORITY, number), err=True)
