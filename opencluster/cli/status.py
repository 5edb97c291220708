"""``opencluster status``: who is here, what they do, and what went wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.status import status_of
from opencluster.place import Place

WATCH_INTERVAL_S = 1.0
"""Between two looks; the figures of a cluster change with every heartbeat."""

Status = dict[str, list[dict[str, Any]]]


@click.command("status")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--watch",
    is_flag=True,
    help="Go on until Ctrl-C; with --json, one object on a line each second.",
)
@directory_option
def status_command(is_json: bool, watch: bool) -> None:
    """Show the factories, computers, workers, services and jobs of the cluster.

    Also shown are types that fail to start, and how workers were lost. The fields of
    the JSON object are explained in docs/status.md.

    \b
    Examples:
        opencluster status
        opencluster status --watch
        opencluster status --json | jq '.workers[] | select(.state == "busy")'
    """
    with connect(load(), Place.find()) as control:
        if not watch:
            print_once(ask(control), is_json)
            return
        try:
            print_forever(lambda: ask(control), is_json)
        except KeyboardInterrupt:
            click.echo(err=True)


def ask(control: Control) -> Status:
    """Ask the factory for the status of the cluster."""
    return status_of(control.factory("status", may_be_old=True))


def print_once(status: Status, is_json: bool) -> None:
    """Print a status, for scripts or for people."""
    if is_json:
        click.echo(json.dumps(status, indent=2))
        return
    from opencluster.cli.status_tables import console, page

    console().print(page(status))


def print_forever(look: Callable[[], Status], is_json: bool) -> None:
    """Print the status of the moment, again and again."""
    if is_json:
        for status in _looks(look):
            click.echo(json.dumps(status))
        return
    from rich.live import Live

    from opencluster.cli.status_tables import console, page

    with Live(console=console(), auto_refresh=False) as live:
        for status in _looks(look):
            live.update(page(status), refresh=True)


def _looks(look: Callable[[], Status]) -> Iterator[Status]:
    while True:
        yield look()
        time.sleep(WATCH_INTERVAL_S)
