"""``opencluster job``: what a run of a manager does and did, and orders for it."""

from __future__ import annotations

import click

from opencluster.cli.job_orders import cancel_command, priority_command
from opencluster.cli.job_reports import list_command, report_command, show_command


@click.group("job")
def job_command() -> None:
    """See what jobs did, and change those that run: a job is one run of a manager.

    \b
    Examples:
        opencluster job list
        opencluster job report last --html night.html
        opencluster job cancel last
        opencluster job priority 1f2e3d4c5b6a 10
    """


job_command.add_command(cancel_command)
job_command.add_command(priority_command)
job_command.add_command(list_command)
job_command.add_command(show_command)
job_command.add_command(report_command)
