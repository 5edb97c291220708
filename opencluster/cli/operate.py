"""``opencluster scale``, ``drain``, ``restart`` and the like: orders of an operator."""

from __future__ import annotations

import click

from opencluster.cli.options import directory_option, parse_workers
from opencluster.config import load
from opencluster.launchers.connection import connect
from opencluster.observe import actions
from opencluster.place import Place

computer_argument = click.argument(
    "computers", nargs=-1, required=True, metavar="COMPUTER..."
)
names_argument = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.command("scale")
@click.argument("wanted", nargs=-1, required=True, metavar="TYPE=N...")
@click.option(
    "--on",
    "computer",
    default="",
    metavar="COMPUTER",
    help="Only there; else N is spread over all computers that know the type.",
)
@directory_option
def scale_command(wanted: tuple[str, ...], computer: str) -> None:
    """Set how many workers or services of a type run.

    A TYPE stands in the catalogue of a workshop, and `opencluster status` shows which
    run. What is too many finishes what it has in hand. The command returns when all are
    ready, or fails with what they printed.

    \b
    Examples:
        opencluster scale WordCount=8
        opencluster scale WordCount=4 Imager=1 --on node1
        opencluster scale WordCount=0
    """
    counts = parse_workers(wanted)
    with connect(load(), Place.find()) as control:
        for type, count in counts.items():
            click.echo(actions.scale(control, type, count, computer), err=True)


@click.command("drain")
@computer_argument
@click.option("--no-wait", is_flag=True, help="Return at once.")
@directory_option
def drain_command(computers: tuple[str, ...], no_wait: bool) -> None:
    """Let a computer finish what it has in hand, and start nothing more on it.

    Its workers and services end; what waited for them goes to other computers. It
    stays so, even if it is switched off and on, until `opencluster undrain`. To drain
    a single worker, use `opencluster stop NAME`.

    \b
    Examples:
        opencluster drain node1
        opencluster drain node1 node2 --no-wait
    """
    config = load()
    wait_s = 0.0 if no_wait else actions.end_limit_s(config)
    with connect(config, Place.find()) as control:
        for name in computers:
            click.echo(actions.drain(control, name, config, wait_s), err=True)


@click.command("undrain")
@computer_argument
@directory_option
def undrain_command(computers: tuple[str, ...]) -> None:
    """Let a computer work again that was drained.

    As many workers and services start as before.

    \b
    Examples:
        opencluster undrain node1
    """
    with connect(load(), Place.find()) as control:
        for name in computers:
            click.echo(actions.undrain(control, name), err=True)


@click.command("restart")
@names_argument
@directory_option
def restart_command(names: tuple[str, ...]) -> None:
    """Start workers and services anew, with their programs as they are now.

    Each finishes what it has in hand, and another takes its place.

    \b
    Examples:
        opencluster restart WordCount-1 WordCount-2
    """
    with connect(load(), Place.find()) as control:
        for name in names:
            click.echo(actions.restart(control, name), err=True)


@click.command("kill")
@names_argument
@directory_option
def kill_command(names: tuple[str, ...]) -> None:
    """End workers and services at once, without asking them.

    What they had in hand runs again elsewhere, and others take their places. This is
    for those that hang; `opencluster stop` and `restart` are kinder.

    \b
    Examples:
        opencluster kill WordCount-1
    """
    with connect(load(), Place.find()) as control:
        for name in names:
            click.echo(actions.kill(control, name), err=True)


@click.command("interrupt")
@names_argument
@directory_option
def interrupt_command(names: tuple[str, ...]) -> None:
    """Interrupt the piece that a worker runs; the worker goes on with the next one.

    The piece does not run again: whoever waits for it meets an Interrupted.

    \b
    Examples:
        opencluster interrupt WordCount-1
    """
    with connect(load(), Place.find()) as control:
        for name in names:
            click.echo(actions.interrupt(control, name), err=True)
