"""``opencluster factory`` and ``opencluster workshop``: daemons in the foreground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Protocol

import click

from opencluster.cli.options import directory_option, parse_workers
from opencluster.config import Config, load
from opencluster.core.metrics import Metric
from opencluster.core.roles import FACTORY
from opencluster.errors import ConfigError
from opencluster.net.announce import stands_for_loopback
from opencluster.net.descriptors import allow_many
from opencluster.net.keys import Keyring
from opencluster.node.notify import Notifier
from opencluster.place import (
    Place,
    check_listening,
    factory_names,
    is_loopback,
    keys_directory,
    listening_endpoint,
    own_name,
)
from opencluster.start import set_up_logging

while_option = click.option(
    "--while-pid", type=int, default=0, help="End when this process has ended."
)


@click.command("factory")
@click.option(
    "--host", default="", help="Address to listen at; default [factory] host."
)
@click.option("--port", type=int, default=None, help="Port; default [factory] port.")
@click.option("--listen", default="", help="Listen at this endpoint instead.")
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=None,
    help="Which one of [cluster] factories this is, from 1; default: that at an "
    "address of this computer.",
)
@while_option
@directory_option
def factory_command(
    host: str, port: int | None, listen: str, number: int | None, while_pid: int
) -> None:
    """Run a factory, the registry of a cluster, in the foreground.

    Several factories copy one registry, and one of them leads: write all of them into
    [cluster] factories, the same list in the same order on every computer, and run
    one on each.

    \b
    Examples:
        opencluster factory --host 127.0.0.1 --port 9100
        OPENCLUSTER_CLUSTER_FACTORIES=node1:9100,node2:9100 opencluster factory
    """
    from opencluster.factory import Factory

    config = load()
    set_up_logging(config.log.level)
    allow_many()
    place = Place.find()
    names, me = standing(config, place, listen, port or config.factory.port, number)
    keys = Keyring.load(keys_directory(config, place), FACTORY)
    has_keys = keys is not None
    if keys is not None:
        keys.check_roll()
    if listen:
        check_listening(config, listen, has_keys)
    else:
        listen = factory_endpoint(config, host, port, me, has_keys)
    place.make()
    state = place.factory_state(number or 1)
    factory = Factory(config, [listen], state, names, me, keys)
    run_daemon(factory, while_pid, config.metrics.factory_port)


def standing(
    config: Config, place: Place, listen: str, port: int, number: int | None
) -> tuple[list[str], str]:
    """Return the names of all factories and of the one to run; none if it is alone.

    Raises
    ------
    ConfigError
        When it cannot be told which one it is.
    """
    names = factory_names(config, place)
    if number is not None and names:
        if number > len(names):
            raise ConfigError(
                f"--number {number}: there are {len(names)} factories "
                f"({', '.join(names)}) in [cluster] factories"
            )
        return names, names[number - 1]
    if listen in names:
        return names, listen
    if config.cluster.factories:
        return names, own_name(names, port)
    return [], ""


def factory_endpoint(
    config: Config, host: str, port: int | None, me: str, has_keys: bool
) -> str:
    """Return where to listen: as told, else at the address that the list names."""
    if me.startswith("ipc://"):
        return me
    listed_host, _, listed_port = me.removeprefix("tcp://").rpartition(":")
    told = host or config.factory.host
    chosen_host = told
    if me and told in ("", "*"):
        # others may have another address for that name than this computer has
        is_hidden = stands_for_loopback(listed_host)
        bind = config.network.bind
        chosen_host = bind if is_hidden and not is_loopback(bind) else listed_host
    chosen_port = config.factory.port if port is None else port
    chosen = chosen_port or int(listed_port or 0)
    return listening_endpoint(config, chosen_host, chosen, has_keys)


@click.command("workshop")
@click.option(
    "--workers",
    multiple=True,
    metavar="TYPE=N",
    help="Start N workers of a catalogued type, or of MODULE:CLASS. Repeatable.",
)
@click.option("--only", is_flag=True, help="Start nothing else of the catalogue.")
@while_option
@directory_option
def workshop_command(workers: tuple[str, ...], only: bool, while_pid: int) -> None:
    """Run the workshop of this computer in the foreground.

    \b
    Example:
        opencluster workshop --workers wordcount.py:WordCountWorker=4
    """
    from opencluster.workshop import Workshop

    wanted = parse_workers(workers)
    config = load(overrides=catalogue_of(load(), wanted, only))
    set_up_logging(config.log.level)
    allow_many()
    place = Place.find()
    workshop = Workshop(config, place)
    run_daemon(workshop, while_pid, config.metrics.workshop_port)


def catalogue_of(
    config: Config, wanted: dict[str, int], is_only: bool = False
) -> dict[tuple[str, str], str]:
    """Return settings by which a workshop starts what was asked for.

    Parameters
    ----------
    config : Config
        The settings so far.
    wanted : dict of str to int
        How many of each type or class.
    is_only : bool
        Start nothing else that the catalogue has.

    Raises
    ------
    ConfigError
        When a type is neither in the catalogue nor named by its class.
    """
    settings: dict[tuple[str, str], str] = {}
    if is_only:
        settings = {(entry.section, "count"): "0" for entry in config.catalogue}
    sections = {entry.type: entry.section for entry in config.catalogue}
    for name, count in wanted.items():
        if ":" in name:
            kind, type = describe(name)
            section = sections.get(type, f"{kind}:{type}")
            settings[(section, "target")] = name
        elif name in sections:
            section = sections[name]
        else:
            known = ", ".join(sections) or "nothing"
            raise ConfigError(
                f"worker type {name!r} is not in the catalogue (which has {known}); "
                "add a section [worker:...] or name it by MODULE:CLASS"
            )
        settings[(section, "count")] = str(count)
    return settings


def describe(target: str) -> tuple[str, str]:
    """Return whether a class is a worker or a service, and what it registers.

    The class is imported in a process of its own: a daemon runs no user code.

    Raises
    ------
    ConfigError
        When it cannot be imported, with what Python said, or is neither.
    """
    kind, type = kind_of(target)
    if kind == "manager":
        raise ConfigError(
            f"{target} is neither a Worker nor a Service, but a Manager: run it with "
            "`opencluster run` or `opencluster submit`"
        )
    return kind, type


def kind_of(target: str) -> tuple[str, str]:
    """Return whether a class is a worker, a service or a manager, and its name.

    Raises
    ------
    ConfigError
        When it cannot be imported, with what Python said, or is none of them.
    """
    command = [sys.executable, "-m", "opencluster.cli.describe", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        ended = f"the process that imported it ended with status {done.returncode}"
        raise ConfigError(f"cannot use {target}:\n{done.stderr.strip() or ended}")
    kind, _, type = done.stdout.splitlines()[-1].partition(" ")
    return kind, type


class Daemon(Protocol):
    """What `run_daemon` runs: something with a loop of its own."""

    config: Config

    def run(self) -> None:
        """Work until it is stopped."""

    def stop(self) -> None:
        """End in good order; may be called from a signal handler."""

    def end_with(self, pidfd: int, /) -> None:
        """Stop when a process has ended."""

    def report_to(self, notifier: Notifier) -> None:
        """Tell from the loop when it is ready, and again and again that it lives."""

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in the loop."""

    def metrics(self) -> Iterable[Metric]:
        """Return numbers by which it is watched; called in the loop."""


def run_daemon(daemon: Daemon, while_pid: int = 0, metrics_port: int = 0) -> None:
    """Run a daemon in the foreground, and end it in good order.

    It ends on SIGTERM, on Ctrl-C, and when another process ends, if one is given. If
    systemd started it, systemd hears how it is doing; with a port, so does whoever
    asks there.
    """
    notifier = Notifier()

    def handle(number: int, frame: FrameType | None) -> None:
        notifier.stopping()
        daemon.stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if while_pid:
        daemon.end_with(os.pidfd_open(while_pid))
    daemon.report_to(notifier)
    if not metrics_port:
        daemon.run()
        return
    from opencluster.observe.exposition import Exposition, asked_of

    ask = asked_of(daemon.post, daemon.metrics)
    shown = Exposition(daemon.config.metrics.host, metrics_port, ask)
    try:
        daemon.run()
    finally:
        shown.close()
