"""``opencluster start`` and ``opencluster stop``: a cluster on this computer."""

from __future__ import annotations

import click

from opencluster.cli.options import directory_option, parse_workers
from opencluster.errors import ConfigError
from opencluster.launchers import local
from opencluster.place import Place


@click.command("start")
@click.option(
    "--factories", type=int, default=1, show_default=True, help="How many factories."
)
@click.option(
    "--workers",
    multiple=True,
    metavar="TYPE=N",
    help="Start N workers of a catalogued type, or of MODULE:CLASS. Repeatable.",
)
@directory_option
def start_command(factories: int, workers: tuple[str, ...]) -> None:
    """Start a cluster on this computer, in the background.

    \b
    Example:
        opencluster start --workers wordcount.py:WordCountWorker=4
    """
    if factories != 1:
        raise ConfigError(
            f"--factories {factories}: this version keeps exactly one factory"
        )
    parse_workers(workers)
    place = Place.find()
    options = [option for text in workers for option in ("--workers", text)]
    local.start(place, options)
    click.echo(f"started a cluster in {place.path}; logs are in {place.logs}", err=True)


@click.command("stop")
@directory_option
def stop_command() -> None:
    """Stop the cluster of this computer, with everything that it started.

    \b
    Example:
        opencluster stop
    """
    place = Place.find()
    if local.stop(place):
        click.echo(f"stopped the cluster in {place.path}", err=True)
    else:
        click.echo(f"no cluster is running in {place.path}", err=True)
