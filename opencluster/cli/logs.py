"""``opencluster logs``: what the processes of all computers say, in one place."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.core.log_lines import LEVELS, Wanted
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.launchers.connection import connect, why_unreachable
from opencluster.net.control import Control
from opencluster.node.log_reading import names_in
from opencluster.observe.logs import (
    Look,
    Positions,
    computers,
    harmless,
    here,
    look_at,
    moment,
    of_type,
    question,
)
from opencluster.place import Place

INTERVAL_S = 0.25
"""Between two looks at logs that are followed."""
DEFAULT_LINES = 50


@click.command("logs")
@click.argument("name", default="")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=DEFAULT_LINES,
    show_default=True,
    metavar="N",
    help="Last lines of each log to begin with.",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default=LEVELS[0],
    help="The least important messages; what is only printed counts as INFO.",
)
@click.option("--grep", "text", default="", metavar="TEXT", help="What they hold.")
@click.option("--host", default="", help="The computer.")
@click.option("--type", "type_", default="", help="The type of worker or service.")
@click.option(
    "--piece",
    default="",
    metavar="ID",
    help="During which piece; 1f2e3d4c for all of a manager, 1f2e3d4c:17 for one.",
)
@click.option(
    "--since",
    default="",
    metavar="TIME",
    help="From when on: 10min, 2h, or UTC such as 2026-11-30T02:00.",
)
@directory_option
def logs_command(
    name: str,
    is_following: bool,
    lines: int,
    level: str,
    text: str,
    host: str,
    type_: str,
    piece: str,
    since: str,
) -> None:
    """Print what the processes of the cluster said last.

    NAME is `factory`, `workshop`, or a worker or service such as WordCount-1. Without
    it the logs of all are printed, each line behind its process's name, and behind its
    computer's when there are several. When no cluster runs, the logs that it left on
    this computer are looked into.

    \b
    Examples:
        opencluster logs
        opencluster logs WordCount-1 --lines 200
        opencluster logs --level WARNING --since 1h
        opencluster logs --type MUSERImage --grep divergence --follow
    """
    wanted = Wanted(level.upper(), text, piece, _moment(since))
    config, place = load(), Place.find()
    is_running = not why_unreachable(config, place)
    asked = question(wanted, lines, [name] * bool(name))
    try:
        if is_running:
            with connect(config, place) as control:
                looks = computers(control, host)
                if type_:
                    asked["names"] = of_type(control, type_)
                _check(control, place, name)
                _print(looks, asked, bool(name), is_following)
        else:
            _check_here(place, name, is_following)
            _print(here(place), asked, bool(name), is_following)
    except KeyboardInterrupt:
        click.echo(err=True)


def _print(
    looks: Mapping[str, Look],
    asked: dict[str, Any],
    is_one: bool,
    is_following: bool,
) -> None:
    """Print what each computer answers, once or again and again."""
    positions: Positions = {}
    silent: set[str] = set()
    # a terminal would obey what is in a log
    shown = harmless if sys.stdout.isatty() else str
    while True:
        seen = look_at(looks, asked, positions)
        for computer, why in seen.silent.items():
            if computer not in silent:
                click.echo(f"{computer} does not answer: {why}", err=True)
        silent = set(seen.silent)
        for computer, passage in seen.passages:
            head = "" if is_one else f"{passage['name']} | "
            if len(looks) > 1:
                head = f"{computer} {head or '| '}"
            for line in passage["lines"]:
                click.echo(f"{head}{shown(line)}")
        if not is_following:
            return
        # of a log that comes later all is new
        asked["lines"] = DEFAULT_LINES * 100
        time.sleep(INTERVAL_S)


def _check(control: Control, place: Place, name: str) -> None:
    """Refuse a name that nobody has, or had on this computer."""
    if not name or name in names_in(place.logs):
        return
    entries = control.factory("find")
    if name not in {entry["name"] for entry in entries}:
        _refuse(place, name)


def _check_here(place: Place, name: str, is_following: bool) -> None:
    names = names_in(place.logs)
    if not names and not is_following:
        raise FactoryUnreachable(f"no cluster has run in {place.path}: no logs there")
    if name and name not in names:
        _refuse(place, name)


def _refuse(place: Place, name: str) -> None:
    known = ", ".join(names_in(place.logs)) or "nobody"
    raise OpenClusterError(
        f"nothing named {name!r} has printed anything in {place.path}; there are logs "
        f"of: {known}"
    )


def _moment(text: str) -> str:
    try:
        return moment(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
