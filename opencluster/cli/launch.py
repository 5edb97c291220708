"""``opencluster launch``: a cluster from options alone, without a cluster file."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from opencluster.cli.options import directory_option
from opencluster.cli.up import (
    await_workers,
    conclude,
    follow,
    mean_this_cluster,
    place_of,
)
from opencluster.errors import ConfigError
from opencluster.launchers.base import failures, launcher_of
from opencluster.launchers.batch.launcher import BatchLauncher
from opencluster.launchers.cluster_file import ClusterFile, read_cluster_file
from opencluster.launchers.description import DRAIN_BEFORE_S
from opencluster.launchers.hosts import HostsLauncher
from opencluster.observe.actions import name_in
from opencluster.place import DIRECTORY_VARIABLE, Place

OPTIONS = Path("command line")
"""Stands for the file that the options are in place of."""
DEFAULT_NAME = "default"
"""Name of a cluster: its directory is the one where all commands look."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _offering(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what gives a command some options, which stand in this order in --help."""

    def offer(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return offer


_common_options = _offering(
    click.option(
        "--workers",
        multiple=True,
        metavar="TARGET[=N]",
        help="Start N workers of MODULE:CLASS or FILE.py:CLASS on each "
        "computer. Repeatable.",
    ),
    click.option(
        "--services",
        multiple=True,
        metavar="TARGET[=N]",
        help="Start N services of it on each computer, by default one. Repeatable.",
    ),
    click.option(
        "--workers-per-node",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        metavar="N",
        help="How many of each of --workers that says no number.",
    ),
    click.option(
        "--gpus-per-worker",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="GPUs that each worker has for itself; by default workers share "
        "those of their computer.",
    ),
    click.option(
        "--file",
        "files",
        multiple=True,
        metavar="PATH",
        help="Copy this file or folder as well. Repeatable.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="A setting of config.ini there. Repeatable.",
    ),
    click.option(
        "--name",
        default=DEFAULT_NAME,
        show_default=True,
        help="Of the cluster; its directory is named after it.",
    ),
    click.option(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="The interpreter there; by default this one.",
    ),
    click.option("--dry-run", is_flag=True, help="Print what would be done."),
    directory_option,
)


_restart_option = click.option(
    "--restart",
    is_flag=True,
    help="End what runs as earlier options said, and start it anew.",
)


_batch_options = _offering(
    click.option(
        "--nodes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many computers.",
    ),
    click.option(
        "--time", default="", metavar="[D-]H:M:S", help="Time limit of the job."
    ),
    click.option(
        "--cpus-per-node",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="CPUs of each computer; Slurm gives whole ones by default, PBS must be "
        "told.",
    ),
    click.option(
        "--gpus-per-node",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="GPUs of each computer.",
    ),
    click.option(
        "--partition",
        "--queue",
        default="",
        metavar="NAME",
        help="Partition of Slurm, or queue of PBS; by default that of the site.",
    ),
    click.option(
        "--account", default="", metavar="NAME", help="Whose share of time is used."
    ),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="TEXT",
        help="A further line of the job script, such as --mem=64G. Repeatable.",
    ),
    click.option(
        "--drain-before",
        type=click.FloatRange(min=0),
        default=DRAIN_BEFORE_S,
        show_default=True,
        metavar="S",
        help="Seconds before the end at which workers take nothing more.",
    ),
    click.option(
        "--no-wait",
        is_flag=True,
        help="Return when the job is submitted, and not when it is at work.",
    ),
)


@click.group("launch")
def launch_command() -> None:
    """Start a cluster somewhere else, from options alone.

    `opencluster up` does the same from a file, `opencluster down` ends it.

    \b
    Examples:
        opencluster launch ssh node1 node2 --workers wordcount.py:WordCountWorker=4
        opencluster launch slurm --nodes 4 --time 2:00:00 \\
            --workers wordcount.py:WordCountWorker=16 --dry-run
    """


@launch_command.command("local")
@_common_options
@_restart_option
def local_command(**options: Any) -> None:
    """Start a cluster on this computer.

    \b
    Example:
        opencluster launch local --workers wordcount.py:WordCountWorker=4
    """
    _launch(_content("local", options), options)


@launch_command.command("ssh")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@_common_options
@_restart_option
def ssh_command(hosts: tuple[str, ...], **options: Any) -> None:
    """Start a cluster on hosts that ssh reaches.

    The first three of them run a factory, or the first one of fewer.

    \b
    Example:
        opencluster launch ssh node1 node2 node3 --workers wordcount.py:WordCountWorker
    """
    _launch(_content("ssh", options) | {"hosts": list(hosts)}, options)


@launch_command.command("slurm")
@_batch_options
@_common_options
def slurm_command(**options: Any) -> None:
    """Start a cluster in a job of Slurm.

    It waits until the job is at work; Ctrl-C cancels the job. Before the job ends, its
    workers are drained. The cluster's directory must be one that all computers share.

    \b
    Examples:
        opencluster launch slurm --nodes 4 --workers-per-node 8 --time 2:00:00 \\
            --workers wordcount.py:WordCountWorker
        opencluster run wordcount.py book.txt
        opencluster down
    """
    _launch(_batch_content("slurm", options), options)


@launch_command.command("pbs")
@_batch_options
@_common_options
def pbs_command(**options: Any) -> None:
    """Start a cluster in a job of PBS Pro.

    It waits until the job is at work; Ctrl-C cancels the job. Before the job ends, its
    workers are drained. The cluster's directory must be one that all computers share.

    \b
    Example:
        opencluster launch pbs --nodes 4 --cpus-per-node 16 --time 2:00:00 \\
            --workers-per-node 16 --workers wordcount.py:WordCountWorker
    """
    _launch(_batch_content("pbs", options), options)


def _launch(content: dict[str, Any], options: dict[str, Any]) -> None:
    """Launch what a cluster file with some content asks for."""
    is_usual = content["name"] == DEFAULT_NAME or os.environ.get(DIRECTORY_VARIABLE)
    if is_usual and content["launcher"] != "ssh":
        content["directory"] = str(Place.find().path)
    text = yaml.safe_dump(content, sort_keys=False)
    file = _read(text)
    place = Place.find() if is_usual else place_of(file)
    launcher = launcher_of(file, place)
    is_waiting = not options.get("no_wait")
    if isinstance(launcher, BatchLauncher):
        launcher.is_waiting = is_waiting
    if isinstance(launcher, HostsLauncher):
        launcher.is_restart = options["restart"]
    if options["dry_run"]:
        click.echo(launcher.describe())
        return
    mean_this_cluster()
    outcomes = follow(launcher, launcher.launch)
    if failures(outcomes) != outcomes:
        if is_waiting:
            outcomes = await_workers(place, launcher, outcomes)
        quoted = shlex.quote(str(place.path))
        named = "" if place == Place.find() else f" --dir {quoted}"
        click.echo(
            f"see `opencluster{named} status`, and end it with "
            f"`opencluster{named} down`",
            err=True,
        )
    conclude(outcomes, "failed")


def _read(text: str) -> ClusterFile:
    """Return the cluster file that stands for options, of which nobody sees lines."""
    try:
        return read_cluster_file(text, OPTIONS)
    except ConfigError as error:
        told = re.sub(rf"{OPTIONS}:\d+", str(OPTIONS), str(error))
        raise ConfigError(told) from None


def _content(launcher: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the cluster file that options stand for."""
    count = options["workers_per_node"]
    content: dict[str, Any] = {
        "name": options["name"],
        "launcher": launcher,
        "python": options["python"],
        "workers": _catalogue(
            "worker", options["workers"], count, options["gpus_per_worker"]
        ),
        "services": _catalogue("service", options["services"], 1),
        "files": list(options["files"]),
        "settings": _settings(options["settings"]),
    }
    return {key: value for key, value in content.items() if value}


def _batch_content(launcher: str, options: dict[str, Any]) -> dict[str, Any]:
    keys = ("nodes", "time", "cpus_per_node", "gpus_per_node", "partition", "account")
    batch = {key: options[key] for key in keys if options[key]}
    if options["options"]:
        batch["options"] = list(options["options"])
    batch["drain_before_s"] = options["drain_before"]
    return _content(launcher, options) | {"batch": batch}


def _catalogue(
    kind: str, texts: Sequence[str], count: int, gpus: int = 0
) -> dict[str, dict[str, Any]]:
    """Return catalogue entries by name, from ``TARGET`` or ``TARGET=N`` texts."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, number = text.rpartition("=")
        if not equals:
            target, number = text, str(count)
        if ":" not in target or not number.isdecimal():
            raise click.BadParameter(
                f"{text!r}: write MODULE:CLASS, FILE.py:CLASS, or either with =N"
            )
        entry = {"target": target, "count": int(number)}
        found[name_in(target, kind)] = entry | ({"gpus": gpus} if gpus else {})
    return found


def _settings(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return settings by section and key, from ``SECTION.KEY=VALUE`` texts."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        section, dot, key = path.partition(".")
        if not equals or not dot:
            raise click.BadParameter(f"{text!r}: write SECTION.KEY=VALUE")
        found.setdefault(section, {})[key] = value
    return found
