"""``opencluster elastic``: workers that come and go with the work."""

from __future__ import annotations

import json

import click

from opencluster.cli.daemons import run_daemon, while_option
from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.launchers.connection import connect
from opencluster.observe import elastic
from opencluster.observe.status import status_of
from opencluster.place import Place
from opencluster.start import set_up_logging


@click.group("elastic")
def elastic_command() -> None:
    """Have workers come and go with the work: off, until it is run.

    Types are elastic that have a section [elastic:TYPE] in the configuration, or stand
    under `elastic:` in a cluster file; docs/elastic.md explains it.

    \b
    Examples:
        opencluster elastic run
        opencluster elastic status
        opencluster elastic resume
    """


@elastic_command.command("run")
@while_option
@directory_option
def run_command(while_pid: int) -> None:
    """Look after elastic types, in the foreground, until Ctrl-C.

    More workers are launched when too much work waits for those that are there, and
    idle ones are let go after a while; what runs at the end of this command stays. On
    computers with a workshop that starts and ends processes; in a cluster of jobs of a
    batch system, jobs of one computer are submitted and given back.

    \b
    Example:
        opencluster elastic run
    """
    from opencluster.elastic.running import elastic_of, settings_for

    place = Place.find()
    config = settings_for(place)
    set_up_logging(config.log.level)
    run_daemon(elastic_of(config, place), while_pid)


@elastic_command.command("status")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON list.")
@directory_option
def status_command(is_json: bool) -> None:
    """Show how elastic types stand: their work, their workers, and why.

    \b
    Example:
        opencluster elastic status
    """
    with connect(load(), Place.find()) as control:
        status = status_of(control.factory("status", may_be_old=True))
    if is_json:
        click.echo(json.dumps(status["elastic"], indent=2))
        return
    if not status["elastic"]:
        click.echo("nobody looks after elastic types: see `opencluster elastic run`")
        return
    from rich.console import Group

    from opencluster.cli.status_tables import ELASTIC, console, tables

    console().print(Group(*tables("", status["elastic"], ELASTIC)[1:]))


@elastic_command.command("resume")
@directory_option
def resume_command() -> None:
    """Launch again what was stopped, as launching it failed too often in a row.

    \b
    Example:
        opencluster elastic resume
    """
    with connect(load(), Place.find()) as control:
        click.echo(elastic.resume(control), err=True)
