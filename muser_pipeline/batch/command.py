"""``opencluster muser uvfits``: files for a time range, now or through the queue."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from muser_pipeline.errors import RequestError
from muser_pipeline.moments import parse_duration, parse_time

WORKERS = "opencluster worker muser_pipeline.batch:UVFITSWorker --count N"
"""What starts workers."""
DISPATCHER = "opencluster dispatcher"
LOOP = "loop"


def _read_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Let an option's text be read by a function."""

    def read(context: click.Context, parameter: click.Parameter, text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return read


def parse_average(text: str) -> float | None:
    """Return the length of an average in seconds; ``None`` for one of each loop."""
    return None if text == LOOP else parse_duration(text) / 1e9


def parse_numbers(text: str) -> list[int]:
    """Return what a text such as ``0,2-5`` lists."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        try:
            found += range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise ValueError(f"{text!r} is no list such as 0,2-5") from None
    return found


@click.command("uvfits")
@click.option(
    "--archive",
    required=True,
    type=click.Path(path_type=Path),
    help="A directory with raw files, however deep in it, or one such file.",
)
@click.option(
    "--start",
    required=True,
    metavar="TIME",
    callback=_read_by(parse_time),
    help="UTC unless it says otherwise: 2015-11-01T04:00:00 or ...T12:00:00+08:00.",
)
@click.option(
    "--end",
    required=True,
    metavar="TIME",
    callback=_read_by(parse_time),
    help="Where to stop; not included.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the files and the manifest; the workers must see it too.",
)
@click.option(
    "--array",
    type=click.Choice(["I", "II"]),
    help="Needed only where an archive has files of both.",
)
@click.option(
    "--band",
    "bands",
    default="",
    metavar="LIST",
    callback=_read_by(parse_numbers),
    help="Bands from 0, such as 0,2-5; default all.",
)
@click.option(
    "--polarization",
    "hands",
    type=click.Choice(["RR", "LL"]),
    multiple=True,
    help="Default both.",
)
@click.option(
    "--integrate",
    "integrate_s",
    default="1s",
    show_default=True,
    metavar="DURATION",
    callback=_read_by(parse_average),
    help=f"Length of an average: 25ms, 1s, 1min; {LOOP} for one of each loop.",
)
@click.option(
    "--per",
    type=click.Choice(["frame", "integration", "band", "range"]),
    default="integration",
    show_default=True,
    help="What one file is of; single frames are not averaged.",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "old", "new"]),
    default="auto",
    show_default=True,
    help="Of the raw frames.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="A .cal file; its phases are taken away.",
)
@click.option("--amplitude", is_flag=True, help="Its amplitudes too.")
@click.option(
    "--flag",
    "flag_inputs",
    default="",
    metavar="LIST",
    callback=_read_by(parse_numbers),
    help="Inputs to flag, beside those known to be bad or seen to be dead.",
)
@click.option("--flag-outliers", is_flag=True, help="Takes four times as long in all.")
@click.option("--source", default="Sun", show_default=True, help="The phase centre.")
@click.option(
    "--now",
    is_flag=True,
    help="Do it from here, with a progress bar, without the queue.",
)
@click.option(
    "--engine",
    type=click.Choice(["cluster", "process", "local"]),
    help="Where it runs: on the cluster, or without one on this computer.",
)
@click.option("--wait", is_flag=True, help="Wait for the end of the task in the queue.")
@click.option("--json", "is_json", is_flag=True, help="Print a summary for programs.")
def uvfits_command(
    archive: Path,
    array: str | None,
    hands: tuple[str, ...],
    calibration: Path | None,
    now: bool,
    engine: str | None,
    wait: bool,
    is_json: bool,
    out: Path,
    **options: Any,
) -> None:
    """Turn a time range of raw frames into UVFITS files, on all workers there are.

    Frames are read, corrected for delays that the hardware left in, flagged, averaged
    and written; the manifest says which files there are, with their checksums, and
    which frames are missing. The same request gives the same bytes.

    The request is a task of the queue: it goes on without this terminal, and is done
    by a dispatcher. Its number is printed; --wait waits for it, --now does without the
    queue. Exit code 1 if some of the raw data could not be read.

    \b
    On a cluster:
        opencluster start
        opencluster worker muser_pipeline.batch:UVFITSWorker --count 4
        opencluster dispatcher &
        opencluster muser uvfits --archive /data/archive --out /data/uvfits \\
            --start 2015-11-01T04:00:00 --end 2015-11-01T04:01:00 --wait
    Without one:
        opencluster muser uvfits --archive archive --out uvfits --now \\
            --engine process --start 2015-11-01T04:00:00 --end 2015-11-01T04:00:10
    """
    try:
        from muser_pipeline.batch.request import Request
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed: pip install 'opencluster[muser]'"
        ) from None
    if now and wait:
        raise click.UsageError("--now waits anyhow: leave out --wait")
    task = {
        "archive": archive.absolute(),
        "out": out.absolute(),
        "array": {"I": 1, "II": 2}.get(array or "", 0),
        "polarizations": list(hands or ("RR", "LL")),
        "calibration": calibration and calibration.absolute(),
        **options,
    }
    try:
        Request.read(task)
    except RequestError as error:
        raise click.UsageError(str(error)) from None
    if now:
        tell(run_here(task, engine or ""), is_json)
    else:
        leave_to_queue(task, engine or "", wait, is_json)


def run_here(task: dict[str, Any], engine: str) -> Mapping[str, Any]:
    """Do a request from this process, and show how far it is.

    Raises
    ------
    RequestError
        When it is wrong.
    NoSuitableWorker
        When there are no workers, with what starts some.
    """
    from muser_pipeline.batch.manager import UVFITSManager
    from opencluster import WorkPiece
    from opencluster.errors import NoSuitableWorker

    with progress_bar() as show:

        class Shown(UVFITSManager):
            def progress(self, done: float, total: float = 1.0) -> None:
                show(done, total)

        try:
            result: Mapping[str, Any] = Shown(engine).run(WorkPiece(task))
        except NoSuitableWorker as error:
            raise NoSuitableWorker(
                f"{error}\nStart some: {WORKERS}; or use --engine process"
            ) from None
    return result


@contextmanager
def progress_bar() -> Iterator[Callable[[float, float], None]]:
    """Yield what moves a bar on standard error; on no terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("frames"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task("", total=1.0)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def leave_to_queue(
    task: dict[str, Any], engine: str, wait: bool, is_json: bool
) -> None:
    """Put a request into the queue, and wait for it if asked.

    Raises
    ------
    TaskFailed
        When it was waited for and has no result.
    """
    from opencluster import TaskQueue, WorkPiece

    target = "muser_pipeline.batch:UVFITSManager"
    with TaskQueue() as queue:
        number = queue.submit(target, WorkPiece(task), engine=engine)
        if not wait:
            click.echo(json.dumps({"task": number}) if is_json else number)
            click.echo(
                f"`opencluster tasks show {number}` tells how it goes; "
                f"`{DISPATCHER}` does what is queued",
                err=True,
            )
            return
        click.echo(f"task {number} waits for `{DISPATCHER}`", err=True)
        with progress_bar() as show:
            queue.wait(
                number,
                on_change=lambda seen: show(
                    seen.progress_done or 0.0, seen.progress_total or 1.0
                ),
            )
        tell(queue.result(number), is_json)


def tell(result: Mapping[str, Any], is_json: bool) -> None:
    """Say what came of a request; end with 1 if some data could not be read."""
    if is_json:
        click.echo(json.dumps(dict(result)))
    else:
        click.echo(result["manifest"])
    if result["note"]:
        click.echo(result["note"], err=True)
    click.echo(
        f"{result['files']:,} files of {result['frames']:,} frames of "
        f"{result['array']} in {result['elapsed_s']:.1f} s; {result['missing']:,} "
        f"missing, {result['skipped']:,} skipped, {result['flagged']:,} flagged",
        err=True,
    )
    if result["unreadable"] or result["refused"]:
        click.echo(
            f"{result['unreadable']} raw files could not be read and "
            f"{result['refused']} times were refused: the manifest says why",
            err=True,
        )
        sys.exit(1)
