"""``opencluster logs``: what the processes of this computer print."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import click

from opencluster.cli.connection import connect, why_unreachable
from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.node.host import host_id
from opencluster.node.output import follow, read_tail
from opencluster.place import Place

NEW_LOGS_INTERVAL_S = 0.5
"""How often a look is taken for the logs of processes that came later."""

Line = tuple[str, str]
"""The name of a process, and a line that it printed."""


@click.command("logs")
@click.argument("name", default="")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Last lines of each log to begin with.",
)
@directory_option
def logs_command(name: str, is_following: bool, lines: int) -> None:
    """Print what a process of this computer printed last.

    NAME is `factory`, `workshop`, or a worker or service such as WordCount-1. Without
    it the logs of all are printed, each line behind its process's name.

    \b
    Examples:
        opencluster logs
        opencluster logs WordCount-1 --lines 200
        opencluster logs --follow
    """
    place = Place.find()
    try:
        if not name:
            print_all(place, lines, is_following)
        elif is_following:
            for text in follow(find(place, name), lines=lines):
                click.echo(text, nl=False)
        else:
            click.echo(read_tail(find(place, name), lines), nl=False)
    except KeyboardInterrupt:
        click.echo(err=True)


def print_all(place: Place, lines: int, is_following: bool) -> None:
    """Print the logs of all processes, each line with its name."""
    names = names_in(place)
    if not names and not is_following:
        raise FactoryUnreachable(f"no cluster has run in {place.path}: no logs there")
    if is_following:
        printed = follow_all(place, lines)
    else:
        printed = tail_all(place, names, lines)
    for name, line in printed:
        click.echo(f"{name} | {line}")


def names_in(place: Place) -> list[str]:
    """Return the names of all processes that printed something."""
    return sorted(path.stem for path in place.logs.glob("*.log"))


def find(place: Place, name: str) -> Path:
    """Return the path of a process's log, which may come into being later.

    Raises
    ------
    OpenClusterError
        When there is no log of that name, and no such process either.
    """
    names = names_in(place)
    if name not in names and name not in _running(place):
        raise OpenClusterError(
            f"nothing named {name!r} has printed anything in {place.path}; "
            f"there are logs of: {', '.join(names) or 'nobody'}"
        )
    return _path(place, name)


def tail_all(place: Place, names: Sequence[str], lines: int) -> Iterator[Line]:
    """Yield the last lines of each log."""
    for name in names:
        for line in read_tail(_path(place, name), lines).splitlines():
            yield name, line


def follow_all(place: Place, lines: int) -> Iterator[Line]:
    """Yield the lines of all logs as they are printed, without end."""
    printed: SimpleQueue[Line] = SimpleQueue()
    threading.Thread(
        target=_follow_new, args=(place, lines, printed), daemon=True
    ).start()
    while True:
        yield printed.get()


def _follow_new(place: Place, lines: int, printed: SimpleQueue[Line]) -> None:
    """Follow each log in a thread of its own; a log that comes later, all of it."""
    known: set[str] = set()
    while True:
        new = set(names_in(place)) - known
        for name in new:
            arguments = (name, _path(place, name), lines, printed)
            threading.Thread(target=_follow_one, args=arguments, daemon=True).start()
        known |= new
        lines = sys.maxsize
        time.sleep(NEW_LOGS_INTERVAL_S)


def _follow_one(name: str, path: Path, lines: int, printed: SimpleQueue[Line]) -> None:
    rest = ""
    for text in follow(path, lines=lines):
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            printed.put((name, line))


def _path(place: Place, name: str) -> Path:
    return place.logs / f"{name}.log"


def _running(place: Place) -> list[str]:
    """Return the names of what runs on this computer, as far as a factory knows."""
    config = load()
    if why_unreachable(config, place):
        return []
    with connect(config, place) as control:
        entries = control.factory("find")
    return [entry["name"] for entry in entries if entry["host_id"] == host_id()]
