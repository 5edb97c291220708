"""``opencluster worker`` and ``opencluster service``: one class, served."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from opencluster.cli.daemons import describe
from opencluster.cli.options import directory_option, parse_arguments
from opencluster.config import load
from opencluster.errors import ConfigError, FactoryUnreachable, OpenClusterError
from opencluster.launchers.connection import connect, why_unreachable
from opencluster.net.control import Control
from opencluster.node.host import host_id, host_name
from opencluster.observe import actions
from opencluster.place import Place
from opencluster.start import serve, set_up_logging

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("target", metavar="MODULE:CLASS"),
    click.option(
        "--count",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="How many processes.",
    ),
    click.option(
        "--arg",
        "pairs",
        multiple=True,
        metavar="NAME=VALUE",
        help="An argument for the class, a Python literal or a text. Repeatable.",
    ),
    click.option(
        "--foreground", is_flag=True, help="Serve in this process, until Ctrl-C."
    ),
    click.option(
        "--host",
        default="",
        metavar="ADDRESS",
        help="With --foreground: listen there; default [network] bind.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=0,
        metavar="PORT",
        help="With --foreground: listen at this TCP port.",
    ),
    directory_option,
)


def process_options(command: Command) -> Command:
    """Add the options that workers and services share."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


@click.command("worker")
@click.option("--type", "type", default="", help="Worker type; default the class's.")
@process_options
def worker_command(type: str, **options: Any) -> None:
    """Start workers of a class on this computer.

    The class stands in a module or, as path.py:CLASS, in a file. The workshop of this
    computer runs the workers and restarts those that die. The command returns when
    they are ready for work, or fails with what they printed.

    \b
    Examples:
        opencluster worker wordcount.py:WordCountWorker --count 4
        opencluster worker observatory.imaging:Imager --type GPU --arg pixels=1024
        opencluster worker wordcount.py:WordCountWorker --foreground --port 9200
    """
    run("worker", type, **options)


@click.command("service")
@click.option("--name", default="", help="The service's name; default the class's.")
@process_options
def service_command(name: str, **options: Any) -> None:
    """Start a service of a class on this computer.

    The class stands in a module or, as path.py:CLASS, in a file. The workshop of this
    computer runs the service and restarts it when it dies. The command returns when
    it is ready for calls, or fails with what it printed.

    \b
    Examples:
        opencluster service ephemeris.py:EphemerisService
        opencluster service ephemeris.py:EphemerisService --name moon --arg body=moon
    """
    run("service", name, **options)


def run(
    kind: str,
    type: str,
    target: str,
    count: int,
    pairs: tuple[str, ...],
    foreground: bool,
    host: str,
    port: int,
) -> None:
    """Serve a class here, or have the workshop of this computer serve it."""
    arguments = parse_arguments(pairs)
    if foreground:
        if count != 1:
            raise click.UsageError("--foreground is one process: leave out --count")
        set_up_logging(load().log.level)
        options = {"type": type, "host": host, "port": port, "arguments": arguments}
        serve(target, options)
        return
    if host or port:
        raise click.UsageError("--host and --port need --foreground")
    place = Place.find()
    with connect_to_workshop(place) as control:
        names = start(control, kind, type, target, count, arguments)
    click.echo(f"started {', '.join(names)}; logs are in {place.logs}", err=True)


def connect_to_workshop(place: Place) -> Control:
    """Return a connection to the cluster, or say how to do without.

    Raises
    ------
    FactoryUnreachable
        When there is no cluster.
    """
    config = load()
    missing = why_unreachable(config, place)
    if missing:
        raise FactoryUnreachable(f"{missing}; --foreground waits for one instead")
    return connect(config, place)


def start(
    control: Control,
    kind: str,
    type: str,
    target: str,
    count: int,
    arguments: dict[str, Any],
) -> list[str]:
    """Have the workshop of this computer start processes, and return their names.

    Raises
    ------
    ConfigError
        When the class cannot be imported, or is of the other kind.
    StartFailed
        When one of them ended before it was ready, with its output; none is left.
    """
    target = absolute(target)
    found, own_type = describe(target)
    if found != kind:
        raise ConfigError(f"{target} is a {found}: use `opencluster {found}`")
    shop = workshop_of_this_computer(control)
    entry = {
        "kind": kind,
        "name": type or own_type,
        "type": type or own_type,
        "target": target,
        "arguments": arguments,
        "directory": str(Path.cwd()),
    }
    return actions.start(control, shop, entry, count)


def workshop_of_this_computer(control: Control) -> dict[str, Any]:
    """Return what the workshop of this computer registered.

    Raises
    ------
    OpenClusterError
        When none runs here.
    """
    for shop in control.factory("find", {"kind": "workshop"}):
        if shop["host_id"] == host_id():
            return dict(shop)
    raise OpenClusterError(
        f"no workshop runs on this computer ({host_name()}): start one with "
        "`opencluster workshop`, or serve in this process with --foreground"
    )


def absolute(target: str) -> str:
    """Return a target whose file, if it names one, is found from everywhere."""
    source, colon, name = target.rpartition(":")
    if source.endswith(".py"):
        source = str(Path(source).absolute())
    return f"{source}{colon}{name}"
