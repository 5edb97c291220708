"""``opencluster up`` and ``opencluster down``: a cluster as its file describes it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.elastic.running import elastic_in, start_beside, stop_beside
from opencluster.errors import LaunchFailed, StartFailed, indent
from opencluster.launchers import embedded, logout
from opencluster.launchers.base import Launcher, Outcome, Tell, failures, launcher_of
from opencluster.launchers.cluster_file import ClusterFile, load_cluster_file
from opencluster.launchers.description import default_directory
from opencluster.launchers.hosts import HostsLauncher
from opencluster.launchers.record import forget_record, recorded
from opencluster.observe.status import counted
from opencluster.place import (
    DIRECTORY_VARIABLE,
    FACTORIES_VARIABLE,
    KEYS_VARIABLE,
    Place,
)

SHOWN_HOSTS = 5
"""Names of hosts that are still waited for, on a terminal."""

file_argument = click.argument(
    "path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False)
)
optional_file_argument = click.argument(
    "path",
    metavar="[FILE]",
    required=False,
    type=click.Path(path_type=Path, dir_okay=False),
)


@click.command("up")
@file_argument
@click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and do nothing."
)
@click.option(
    "--restart",
    is_flag=True,
    help="End what runs as an earlier version of the file said, and start it anew.",
)
@directory_option
def up_command(path: Path, dry_run: bool, restart: bool) -> None:
    """Start the cluster that FILE describes, wherever it says.

    What runs already is left alone, so the command may be given again: after it was
    interrupted, or when hosts were off. The exit code is 1 when a host failed; the
    others work. docs/launch.md explains the file.

    \b
    Examples:
        opencluster up cluster.yaml --dry-run
        opencluster up cluster.yaml
    """
    file = load_cluster_file(path)
    place = place_of(file)
    launcher = launcher_of(file, place)
    if isinstance(launcher, HostsLauncher):
        launcher.is_restart = restart
    if dry_run:
        click.echo(launcher.describe())
        types = [f"{t.minimum} to {t.maximum} {t.type}" for t in elastic_in(file)]
        if types:
            click.echo(f"\n# `opencluster elastic run` here: {', '.join(types)}")
        return
    mean_this_cluster()
    outcomes = follow(launcher, launcher.launch)
    if failures(outcomes) != outcomes:
        quoted = shlex.quote(str(place.path))
        click.echo(
            f"the cluster is controlled from {place.path}: `opencluster --dir {quoted} "
            f"status`, or set {DIRECTORY_VARIABLE} to it",
            err=True,
        )
        # what the file says of elastic types may have changed
        stop_beside(place)
        if start_beside(place):
            click.echo("workers of elastic types come and go with the work", err=True)
            if logout.ends_processes():
                click.echo(f"mind that {logout.REASON_HERE}", err=True)
        outcomes = await_workers(place, launcher, outcomes)
    conclude(outcomes, "failed; `opencluster up` again tries those that did")


@click.command("down")
@optional_file_argument
@click.option(
    "--forget", is_flag=True, help="Give up hosts that cannot be reached any more."
)
@directory_option
def down_command(path: Path | None, forget: bool) -> None:
    """End the cluster that `opencluster up` started, on all its hosts.

    Workers finish what they have in hand, as far as [worker] drain_timeout_s allows.
    Without FILE, --dir or OPENCLUSTER_DIR say which cluster is meant.

    \b
    Examples:
        opencluster down cluster.yaml
        opencluster --dir ~/.local/state/opencluster/night down
    """
    file = None if path is None else load_cluster_file(path)
    place = Place.find() if file is None else place_of(file)
    known = recorded(place) or file
    if known is None:
        click.echo(
            f"nothing that was launched from {place.path} runs; FILE, --dir or "
            f"{DIRECTORY_VARIABLE} name another cluster",
            err=True,
        )
        return
    mean_this_cluster()
    stop_beside(place)
    launcher = launcher_of(known, place)
    try:
        outcomes = follow(launcher, launcher.take_down)
    except LaunchFailed as error:
        if not forget:
            raise
        # a batch system that is no more
        outcomes = [Outcome(place.path.name, False, str(error))]
        click.echo(f"opencluster: {error}", err=True)
    again = "`opencluster down` again tries those"
    if forget:
        forget_record(place)
        place.forget()
        again = "nothing tries that any more"
    conclude(outcomes, f"could not be ended; {again}")


def place_of(file: ClusterFile) -> Place:
    """Return the directory from which a cluster is controlled.

    That is ``--dir`` or ``OPENCLUSTER_DIR``, else that of the file where the launcher
    puts the cluster into it, else one named after the cluster.
    """
    if os.environ.get(DIRECTORY_VARIABLE):
        return Place.find()
    is_elsewhere = file.launcher == "ssh"
    return Place.find(default_directory(file.name) if is_elsewhere else file.directory)


def follow(launcher: Launcher, deed: Callable[[Tell], list[Outcome]]) -> list[Outcome]:
    """Have a launcher do something, and show what becomes of each host meanwhile."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    hosts = launcher.file.hosts if isinstance(launcher, HostsLauncher) else ()
    waiting = {host.name: None for host in hosts}

    def waited_for() -> str:
        names = list(waiting)
        more = ", ..." if len(names) > SHOWN_HOSTS else ""
        shown = ", ".join(names[:SHOWN_HOSTS]) or "the batch system"
        return escape(f"waiting for {shown}{more}")

    with console.status(waited_for()) as status:

        def tell(outcome: Outcome) -> None:
            waiting.pop(outcome.host, None)
            click.echo(f"{outcome.host}: {outcome.message}", err=True)
            if outcome.detail and not outcome.is_done:
                click.echo(indent(outcome.detail), err=True)
            status.update(waited_for())

        try:
            return deed(tell)
        except KeyboardInterrupt:
            if isinstance(launcher, HostsLauncher):
                click.echo(
                    "interrupted: what was begun goes on; the same command again does "
                    "the rest, and `opencluster down` ends everything",
                    err=True,
                )
            raise


def mean_this_cluster() -> None:
    """Have this process and its children look at the place, and say what goes before.

    The user's configuration may name the factories of another cluster.
    """
    config = load()
    for key, variable in (("factories", FACTORIES_VARIABLE), ("keys", KEYS_VARIABLE)):
        if getattr(config.cluster, key):
            click.echo(
                f"mind that {key} in [cluster] ({config.origin('cluster', key)}) name "
                f"another cluster, and go before --dir: set {variable} to nothing to "
                "use this one",
                err=True,
            )
        os.environ[variable] = ""


def await_workers(
    place: Place, launcher: Launcher, outcomes: list[Outcome]
) -> list[Outcome]:
    """Wait until what should run has registered, and return what became of the hosts.

    Raises
    ------
    StartFailed
        When a worker or service ends instead; with its output.
    """

    def look_again() -> list[Outcome]:
        if not isinstance(launcher, HostsLauncher):
            return outcomes
        return follow(launcher, partial(launcher.look_again, outcomes))

    try:
        embedded.await_processes(place, load())
    except StartFailed as error:
        look_again()
        raise StartFailed(
            f"the cluster runs, but {error}\nits workshop goes on trying; see "
            "`opencluster status`"
        ) from None
    return look_again()


def conclude(outcomes: list[Outcome], what: str) -> None:
    """End with status 1 when a host failed, after saying how many did."""
    failed = failures(outcomes)
    if failed:
        hosts = counted(len(failed), "host")
        click.echo(f"{hosts} of {len(outcomes)} {what}", err=True)
        sys.exit(1)
