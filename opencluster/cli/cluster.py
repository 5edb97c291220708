"""``opencluster start`` and ``opencluster stop``: a cluster on this computer."""

from __future__ import annotations

import click

from opencluster.cli.options import directory_option, parse_workers
from opencluster.config import load
from opencluster.errors import StartFailed
from opencluster.launchers import embedded
from opencluster.launchers.connection import connect
from opencluster.observe import actions
from opencluster.place import Place


@click.command("start")
@click.option(
    "--factories",
    type=click.IntRange(1, embedded.MAX_FACTORIES),
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
    embedded.start(place, options, number_of_factories=factories)
    click.echo(f"started a cluster in {place.path}; logs are in {place.logs}", err=True)
    try:
        embedded.await_processes(place, load())
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
        config = load()
        with connect(config, place) as control:
            click.echo(actions.stop(control, names, config), err=True)
        return
    was_running = embedded.stop(place)
    # here, as `opencluster start` is spared all the launchers
    from opencluster.elastic.running import stop_beside

    # `opencluster up` has started it beside, and it would wait for another cluster
    stop_beside(place)
    if was_running:
        click.echo(f"stopped the cluster in {place.path}", err=True)
    else:
        click.echo(f"no cluster is running in {place.path}", err=True)
