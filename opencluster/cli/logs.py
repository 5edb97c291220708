"""``opencluster logs``: what the processes of all computers say, in one place."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.core.log_lines import LEVELS, Wanted
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.launchers.connection import connect, why_unreachable
from opencluster.net.control import Control
from opencluster.node.host import host_name
from opencluster.node.log_reading import Position, names_in, passages
from opencluster.place import Place

INTERVAL_S = 0.25
"""Between two looks at logs that are followed."""
DEFAULT_LINES = 50
UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}

Look = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Asks about the logs of one computer, and returns its answer."""


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
    question = {"wanted": asdict(wanted), "lines": lines, "names": [name] * bool(name)}
    try:
        if is_running:
            with connect(config, place) as control:
                looks = _computers(control, host)
                names = _of_type(control, type_) if type_ else question["names"]
                question["names"] = names
                _check(control, place, name)
                _print(looks, question, bool(name), is_following)
        else:
            _check_here(place, name, is_following)
            here = {host_name(): _look_here(place)}
            _print(here, question, bool(name), is_following)
    except KeyboardInterrupt:
        click.echo(err=True)


def _print(
    looks: Mapping[str, Look],
    question: Mapping[str, Any],
    is_one: bool,
    is_following: bool,
) -> None:
    """Print what each computer answers, once or again and again."""
    positions: dict[str, dict[str, Position]] = {computer: {} for computer in looks}
    asked = dict(question)
    while True:
        for computer, look in looks.items():
            answer = look(asked | {"positions": positions[computer]})
            for passage in answer["logs"]:
                positions[computer][passage["name"]] = tuple(passage["position"])
                head = "" if is_one else f"{passage['name']} | "
                if len(looks) > 1:
                    head = f"{computer} {head or '| '}"
                for line in passage["lines"]:
                    click.echo(f"{head}{line}")
        if not is_following:
            return
        # of a log that comes later all is new
        asked["lines"] = DEFAULT_LINES * 100
        time.sleep(INTERVAL_S)


def _computers(control: Control, host: str) -> dict[str, Look]:
    """Return how to look into the logs of each computer, by its name."""
    shops = control.factory("find", {"kind": "workshop"})
    found = [shop for shop in shops if host in ("", shop["host"], shop["name"])]
    if host and not found:
        known = ", ".join(sorted({shop["host"] for shop in shops})) or "none"
        raise OpenClusterError(
            f"no computer {host!r} is in the cluster; there: {known}"
        )

    def look_at(shop: Mapping[str, Any]) -> Look:
        return lambda question: dict(control.workshop(shop, "logs", question))

    return {shop["name"]: look_at(shop) for shop in found}


def _of_type(control: Control, type: str) -> Sequence[str]:
    entries = control.factory("find", {"type": type})
    names = sorted({entry["name"] for entry in entries if entry["kind"] != "failure"})
    if not names:
        raise OpenClusterError(f"nobody of type {type!r} is in the cluster")
    return names


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


def _look_here(place: Place) -> Look:
    """Return how to look into the logs that lie on this computer."""

    def look(question: Mapping[str, Any]) -> Mapping[str, Any]:
        found = passages(
            place.logs,
            Wanted(**question["wanted"]),
            question["lines"],
            question["positions"],
            question["names"],
        )
        return {"logs": [passage.to_fields() for passage in found]}

    return look


def _moment(text: str) -> str:
    """Return a time as the logs write it."""
    if not text:
        return ""
    ago = re.fullmatch(r"(\d+)(s|min|h|d)", text)
    if ago:
        seconds = time.time() - int(ago[1]) * UNITS_S[ago[2]]
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    if re.match(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d)?)?)?", text):
        return text
    raise click.BadParameter(
        f"{text!r} is neither such as 10min, 2h, 3d nor a time such as "
        "2026-11-30T02:00",
        param_hint="--since",
    )
