"""``opencluster start`` and ``opencluster stop``: a cluster on this computer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from opencluster.cli.options import directory_option, parse_workers
from opencluster.config import load
from opencluster.errors import OpenClusterError, StartFailed
from opencluster.launchers import local
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.place import Place

STOP_MARGIN_S = 5.0
"""Beyond what a process may take to end and be killed: for word of it to arrive."""
POLL_S = 0.05

Entry = Mapping[str, Any]
"""What a member registered."""


@click.command("start")
@click.option(
    "--factories",
    type=click.IntRange(1, local.MAX_FACTORIES),
    default=1,
    show_default=True,
    help="How many factories; with more than one, the cluster survives the loss of "
    "any of them.",
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
    Examples:
        opencluster start --workers wordcount.py:WordCountWorker=4
        opencluster start --factories 3
    """
    parse_workers(workers)
    place = Place.find()
    options = [option for text in workers for option in ("--workers", text)]
    local.start(place, options, number_of_factories=factories)
    click.echo(f"started a cluster in {place.path}; logs are in {place.logs}", err=True)
    try:
        local.await_processes(place, load())
    except StartFailed as error:
        raise StartFailed(
            f"the cluster runs, but {error}\nits workshop goes on trying; "
            "see `opencluster status`, and `opencluster stop` to end it"
        ) from None


@click.command("stop")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@directory_option
def stop_command(names: tuple[str, ...]) -> None:
    """Stop the cluster of this computer, with everything that it started.

    With NAMEs, which `opencluster status` shows, only those workers and services: each
    finishes what it has in hand, and none takes its place.

    \b
    Examples:
        opencluster stop
        opencluster stop WordCount-1 WordCount-2
    """
    place = Place.find()
    if names:
        stop_processes(place, names)
    elif local.stop(place):
        click.echo(f"stopped the cluster in {place.path}", err=True)
    else:
        click.echo(f"no cluster is running in {place.path}", err=True)


def stop_processes(place: Place, names: Sequence[str]) -> None:
    """Stop workers and services, wherever they run, and wait until they are gone.

    Raises
    ------
    OpenClusterError
        When a name says nothing or too much, or a process does not end.
    """
    config = load()
    limits_s = (config.worker.drain_timeout_s, config.workshop.stop_grace_s)
    with connect(config, place) as control:
        entries = {entry["id"]: entry for entry in control.factory("find")}
        wanted = [named(name, entries.values()) for name in names]
        for entry in wanted:
            shop = entries.get(entry["workshop"])
            if shop is None:
                raise OpenClusterError(
                    f"{entry['name']} was started without a workshop: end its process "
                    f"yourself, which is {entry['pid']} on {entry['host']}"
                )
            control.workshop(shop, "stop", {"name": entry["id"]})
        _wait_until_gone(control, wanted, sum(limits_s) + STOP_MARGIN_S)
    stopped = ", ".join(entry["name"] for entry in wanted)
    click.echo(f"stopped {stopped}", err=True)


def named(name: str, entries: Iterable[Entry]) -> Entry:
    """Return the worker or service of a name, or of an identity.

    Raises
    ------
    OpenClusterError
        When there is none, or more than one.
    """
    processes = [e for e in entries if e["kind"] in ("worker", "service")]
    found = [entry for entry in processes if name in (entry["name"], entry["id"])]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{entry['id']} on {entry['host']}" for entry in found)
        raise OpenClusterError(f"{name!r} can be each of these: {listed}; give its id")
    known = ", ".join(entry["name"] for entry in processes) or "nothing"
    raise OpenClusterError(f"nothing named {name!r} runs in the cluster ({known} does)")


def _wait_until_gone(
    control: Control, wanted: Sequence[Entry], timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    identities = {entry["id"] for entry in wanted}
    while True:
        left = [e for e in control.factory("find") if e["id"] in identities]
        if not left:
            return
        if time.monotonic() > deadline:
            names = ", ".join(entry["name"] for entry in left)
            raise OpenClusterError(
                f"still there after {timeout_s:g} s: {names}; see `opencluster logs`"
            )
        time.sleep(POLL_S)
