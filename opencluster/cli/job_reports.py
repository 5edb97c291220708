"""``opencluster job list``, ``show``, ``report``: what jobs did, from their records."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import IO

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.core.timeline import Timeline, rows, summary
from opencluster.errors import ConfigError, OpenClusterError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.job_records import find_record, list_records
from opencluster.place import Place

COLUMNS = (
    *("piece", "pieces", "type", "worker", "host"),
    *("start_s", "duration_s", "outcome", "error"),
)
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
SLOWEST_SHOWN = 5
ASK_S = 3.0
"""A factory that does not answer by then is done without."""

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@directory_option
def list_command(as_json: bool) -> None:
    """List the jobs that are recorded, the newest first.

    Each run of a manager leaves a record on the computer of its script; those of other
    computers are asked of their workshops.
    """
    place = Place.find()
    with _control(place) as control:
        jobs = list_records(place, control)
    if as_json:
        click.echo(json.dumps(jobs, indent=2))
        return
    if not jobs:
        click.echo("no job is recorded; run one: `opencluster demo`", err=True)
    for job in jobs:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(job["started_at"]))
        click.echo(f"{job['id']}  {began}  {job['name']:<24} {job['host']}")


@click.command("show")
@click.argument("id")
@directory_option
def show_command(id: str) -> None:
    """Show what became of the pieces of a job: ID, its beginning, or `last`."""
    for line in lines_of(_found(id)):
        click.echo(line)


@click.command("report")
@click.argument("id")
@click.option("--html", type=_FILE, help="A page with its timeline, in one file.")
@click.option("--json", "as_json", type=_FILE, help="All spans and figures.")
@click.option("--csv", "as_csv", type=_FILE, help="A line for each span.")
@directory_option
def report_command(
    id: str, html: Path | None, as_json: Path | None, as_csv: Path | None
) -> None:
    """Write what became of the pieces of a job into files; else show it.

    Works without a browser and after an unattended run, also one that was killed.

    \b
    Examples:
        opencluster job report last
        opencluster job report last --html night.html --csv night.csv
    """
    timeline = _found(id)
    if html is not None:
        _write(html, _page(timeline))
    if as_json is not None:
        _write(as_json, json.dumps(asdict(timeline) | {"summary": summary(timeline)}))
    if as_csv is not None:
        with _opened(as_csv) as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows(timeline))
    for path in (html, as_json, as_csv):
        if path is not None:
            click.echo(f"wrote {path}", err=True)
    if html is as_json is as_csv is None:
        for line in lines_of(timeline):
            click.echo(line)


def lines_of(timeline: Timeline) -> list[str]:
    """Return what became of the pieces of a job, for people."""
    job, figures = timeline.job, summary(timeline)
    state = job.get("state", "")
    if state == "running":
        state = "running, or its script was killed"
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(job.get("started_at", 0)))
    lines = [
        f"job {job.get('id')}  {job.get('name')}  {state}",
        f"began {began} UTC on {job.get('host')}, by {job.get('user')}",
        f"{figures['pieces']} pieces in {figures['length_s']:.3g} s, "
        f"{figures['busy_s']:.3g} s of work on {len(timeline.workers)} workers",
        f"pieces/s  {_sparkline(figures['rate'])}  at most {max(figures['rate']):.3g}",
    ]
    if timeline.is_merged:
        lines.append("there were so many runs that some are shown together")
    lines += ["", "type                  pieces  failed    mean_s  median_s     p95_s"]
    for name, one in figures["types"].items():
        lines.append(
            f"{name:<20} {one['pieces']:>7.0f} {one['failed']:>7.0f} "
            f"{one['mean_s']:>9.3g} {one['median_s']:>9.3g} {one['p95_s']:>9.3g}"
        )
    lines += ["", "slowest               worker               start_s  duration_s"]
    for one in figures["slowest"][:SLOWEST_SHOWN]:
        label = f"{one['type']} {one['piece']}"
        if one["pieces"] > 1:
            label += f" (+{one['pieces'] - 1})"
        lines.append(
            f"{label:<20}  {one['worker']:<18} {one['start_s']:>9.3g} "
            f"{one['duration_s']:>11.3g}"
        )
    if figures["errors"]:
        lines += ["", "errors"]
    for error in figures["errors"]:
        first = error["message"].splitlines()[0] if error["message"] else ""
        lines.append(
            f"{error['count']:>6} x {error['kind']}: {first} "
            f"(first: piece {error['first_piece']})"
        )
    return lines


# --- inside -----------------------------------------------------------------


@contextmanager
def _control(place: Place) -> Iterator[Control | None]:
    """Yield the way to the cluster, or nothing where there is none to be asked."""
    try:
        control = connect(load(), place)
    except OpenClusterError:
        control = None
    if control is None:
        yield None
        return
    with control:
        try:
            control.factory("find", {"kind": "workshop"}, ASK_S)
        except OpenClusterError as error:
            click.echo(f"only this computer is looked at: {error}", err=True)
            yield None
            return
        yield control


def _found(id: str) -> Timeline:
    place = Place.find()
    with _control(place) as control:
        return find_record(place, id, control)


def _page(timeline: Timeline) -> str:
    try:
        # by name, as the command line knows the pages no better
        report = import_module("opencluster_web.jobs.report")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--html needs the Python package {error.name}: install it with "
            "pip install 'opencluster[web]'; --json and --csv need nothing more"
        ) from error
    page: str = report.report_html(timeline)
    return page


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise OpenClusterError(f"cannot write {path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    with _opened(path) as file:
        file.write(text)


def _sparkline(values: Sequence[float]) -> str:
    """Return a row of numbers as bars."""
    step = max(1, len(values) // WIDTH)
    parts = [values[i : i + step] for i in range(0, len(values), step)]
    means = [sum(part) / len(part) for part in parts]
    top = max(means) or 1.0
    return "".join(BARS[min(len(BARS) - 1, int(m / top * len(BARS)))] for m in means)
