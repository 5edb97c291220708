"""``opencluster job``: what a run of a manager does and did, and orders for it."""

from __future__ import annotations

import click

from opencluster.cli.job_orders import cancel_command, priority_command


@click.group("job")
def job_command() -> None:
    """Change jobs that run: a job is one run of a manager.

    \b
    Examples:
        opencluster status
        opencluster job cancel last
        opencluster job priority 1f2e3d4c5b6a 10
    """


job_command.add_command(cancel_command)
job_command.add_command(priority_command)
