"""The commands that compare OpenCluster with its peers."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from bench import plan, show, targets
from bench.contest import Contest
from bench.machine import describe
from bench.outcome import Outcome
from bench.peers import catalogue
from bench.plan import Bout
from bench.versus import Comparison
from bench.workloads import NAMES, WORKLOADS, UnknownWorkload
from bench.workloads import choose as choose_workloads

LIMIT_MIN = 13.0
"""Minutes after which no more rounds are begun, so that all is over in a quarter of an
hour."""
QUICK_BUDGET_S = 0.02
QUICK_ROUNDS = 1
CROWD = "16,64,256,1024"
INTERRUPTED_STATUS = 130


class Words(click.ParamType[list[Any]]):
    """Words or numbers with commas between them."""

    name = "list"

    def __init__(self, is_of_numbers: bool = False) -> None:
        self._is_of_numbers = is_of_numbers

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        """Return the list."""
        if not isinstance(value, str):
            return list(value)
        words = [word.strip() for word in value.split(",") if word.strip()]
        if not self._is_of_numbers:
            return words
        if not all(word.isdigit() and int(word) for word in words):
            self.fail(f"{value!r} is no list of numbers such as 1,2,16", param, ctx)
        return [int(word) for word in words]


def _output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands have."""
    file = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option(
            "--quick", is_flag=True, help="See that it works: figures mean nothing."
        ),
        click.option(
            "--markdown",
            "page",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Put the tables into this page, between its two comment lines.",
        ),
        click.option(
            "--plot", "picture", type=file, help="Draw all into this PNG file."
        ),
        click.option(
            "--json", "json_file", type=file, help="Write every sample to this file."
        ),
        click.option(
            "--budget",
            "budget_s",
            type=click.FloatRange(0.001, 60),
            default=0.5,
            show_default=True,
            help="Seconds for each slice: one workload on one side.",
        ),
        click.option(
            "--minutes",
            type=click.FloatRange(min=0, min_open=True),
            default=LIMIT_MIN,
            show_default=True,
            help="After the first round nothing begins that would take longer in all.",
        ),
        click.option(
            "--rounds",
            type=click.IntRange(1, 1000),
            default=5,
            show_default=True,
            help="How often all is repeated, everything started anew, if time allows.",
        ),
    ):
        command = option(command)
    return command


@click.command(
    epilog="\b\nWorkloads:\n"
    + "\n".join(f"  {w.name:12} {w.title}, {w.unit}" for w in WORKLOADS)
)
@click.option(
    "--peers",
    type=Words(),
    default="all",
    show_default=True,
    help="Peers or families: mpi,dask-tuned. See `python -m bench peers`.",
)
@click.option(
    "--workloads",
    type=Words(),
    default=",".join(w.name for w in WORKLOADS if not w.is_packed),
    help="What to measure, as listed below; all but `crowd` by default.",
)
@click.option(
    "--workers",
    type=Words(is_of_numbers=True),
    default="1,2",
    show_default=True,
    help="How many workers, each a process.",
)
@click.option(
    "--crowd",
    type=Words(is_of_numbers=True),
    default=CROWD,
    show_default=True,
    help="How many workers for the workload `crowd`, in few processes.",
)
@_output_options
def compare(
    peers: list[str],
    workloads: list[str],
    workers: list[int],
    crowd: list[int],
    rounds: int,
    minutes: float,
    budget_s: float,
    json_file: Path | None,
    picture: Path | None,
    page: Path | None,
    quick: bool,
) -> None:
    """Measure OpenCluster and its peers side by side.

    For each peer both are started anew and take turns, workload by workload. Tables
    show medians and ranges, and how many times better OpenCluster was: the median of
    the ratios between figures that were taken within a second of each other. Below 1
    it was worse. Ctrl-C ends it and shows what there is.

    \b
    Examples:
        python -m bench compare --peers mpi --workers 1 --rounds 12
        python -m bench compare --peers dask,ray --workloads pieces --workers 2,4,16
        python -m bench compare --workloads figure8,figure9 --plot figures.png
        python -m bench compare --peers dask --workloads crowd --crowd 16,64

    With more workers than there are cores but one, MPI as it comes is not a fair
    race: MPICH spins while it waits. The result says so.
    """
    try:
        listings = catalogue.choose(peers)
        wanted = choose_workloads(workloads)
    except (catalogue.UnknownPeer, UnknownWorkload) as error:
        raise click.UsageError(str(error)) from None
    here = _present(listings)
    counts = workers if any(not w.is_packed for w in wanted) else []
    packed = crowd if any(w.is_packed for w in wanted) else []
    places = plan.every(here, wanted, counts, packed)
    comparison = _run(places, *_size(quick, rounds, budget_s), minutes)
    comparison.show()
    _write(comparison, json_file, picture, page)
    _exit_if_interrupted(comparison)


@click.command("targets")
@click.option(
    "--only",
    type=Words(),
    default=",".join(dict.fromkeys(t.workload for t in targets.TARGETS)),
    help="Only the targets of these workloads.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Measure what belongs beside them, too: the paper's figures, TCP, ...",
)
@_output_options
def check_targets(
    only: list[str],
    full: bool,
    rounds: int,
    minutes: float,
    budget_s: float,
    json_file: Path | None,
    picture: Path | None,
    page: Path | None,
    quick: bool,
) -> None:
    """Measure what OpenCluster sets out to reach, and say what it has reached.

    Runs what the targets need and no more. Where a peer has variants, the one that
    does best against OpenCluster counts.

    \b
    Examples:
        python -m bench targets
        python -m bench targets --full --plot all.png --markdown docs/performance.md
        python -m bench targets --only roundtrip,blocks-100k --rounds 12
    """
    if unknown := set(only) - set(NAMES):
        raise click.UsageError(f"no workload: {', '.join(sorted(unknown))}")
    chosen = [target for target in targets.TARGETS if target.workload in only]
    beside = targets.BESIDE if full else ()
    names = {peer for target in chosen for peer in target.peers}
    names |= {peer for _, _, peers in beside for peer in peers}
    _present([catalogue.find(name) for name in sorted(names)])
    size = _size(quick, rounds, budget_s)
    comparison = _run(targets.places(chosen, beside), *size, minutes)
    verdicts = [targets.judge(target, comparison.outcome) for target in chosen]
    comparison = replace(comparison, verdicts=verdicts)
    comparison.show()
    _write(comparison, json_file, picture, page)
    _exit_if_interrupted(comparison)


@click.command("peers")
def list_peers() -> None:
    """Say what OpenCluster can be compared with, and what is missing for it."""
    rows = [
        (listing.name, listing.what, listing.lacking() or "here")
        for listing in catalogue.PEERS
    ]
    show.table(("peer", "what it is", ""), rows)
    for name, version in catalogue.versions(_present(catalogue.PEERS, "")).items():
        click.echo(f"- {name}: {version}")


@click.command("plot")
@click.argument("json_file", type=click.Path(path_type=Path, exists=True))
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
def plot(json_file: Path, picture: Path) -> None:
    """Draw what --json wrote into a PNG file."""
    fields = json.loads(json_file.read_text(encoding="utf-8"))
    outcome = Outcome.from_fields(fields)
    _draw(
        Comparison(fields["command"], fields["date"], fields["machine"], outcome),
        picture,
    )


# --- what the commands share -----------------------------------------------------


def _size(quick: bool, rounds: int, budget_s: float) -> tuple[int, float]:
    return (QUICK_ROUNDS, QUICK_BUDGET_S) if quick else (rounds, budget_s)


def _present(
    listings: Sequence[catalogue.Listing], complaint: str = "left out: "
) -> list[catalogue.Listing]:
    """Return those that can be measured here; say of the others why not."""
    found = []
    for listing in listings:
        lacking = listing.lacking()
        if not lacking:
            found.append(listing)
        elif complaint:
            click.echo(f"{complaint}{listing.name}: {lacking}", err=True)
    return [listing for listing in found if listing.name != catalogue.OURS]


def _run(
    places: dict[plan.Place, list[plan.Fixture]],
    rounds: int,
    budget_s: float,
    minutes: float,
) -> Comparison:
    """Measure; an interrupt ends it with what there is."""
    contest = Contest(plan.bouts(places, rounds), budget_s)
    met = {b.opponent.name: b.opponent for b in contest.bouts if b.opponent is not None}
    machine = describe() | catalogue.versions(list(met.values()))
    with _ended_by_signals(), _progress(contest, budget_s, minutes) as on_bout:
        try:
            contest.run(on_bout, minutes * 60)
        except KeyboardInterrupt:
            click.echo("interrupted: this is what was measured so far", err=True)
            machine["interrupted"] = True
    machine["load_average_after"] = round(os.getloadavg()[0], 2)
    machine |= contest.outcome.loads()
    today = datetime.date.today().isoformat()
    return Comparison(_command(), today, machine, contest.outcome)


def _command() -> str:
    """Return what was asked for, without where it was to be written."""
    words = ["python", "-m", "bench", *sys.argv[1:]]
    for option in ("--json", "--plot", "--markdown"):
        words = [word for word in words if not word.startswith(f"{option}=")]
        while option in words:
            place = words.index(option)
            del words[place : place + 2]
    return shlex.join(words)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGTERM do as Ctrl-C does: what was started must not stay."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(
    contest: Contest, budget_s: float, limit_min: float
) -> Iterator[Callable[[Bout], None]]:
    """Show how far it is, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    minutes = min(limit_min, plan.estimate_s(contest.bouts, budget_s) / 60)
    count = len(contest.bouts)
    click.echo(f"{count} bouts, about {max(1, round(minutes))} min", err=True)
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda bout: click.echo(bout.title, err=True)
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=count)

        def on_bout(bout: Bout) -> None:
            bar.update(task, description=bout.title)
            bar.update(task, completed=contest.bouts.index(bout))

        yield on_bout


def _write(
    comparison: Comparison,
    json_file: Path | None,
    picture: Path | None,
    page: Path | None,
) -> None:
    if json_file is not None:
        comparison.write_json(json_file)
    if page is not None:
        comparison.write_markdown(page)
    if picture is not None:
        _draw(comparison, picture)


def _exit_if_interrupted(comparison: Comparison) -> None:
    """Let scripts see that not all was measured."""
    if comparison.machine.get("interrupted"):
        sys.exit(INTERRUPTED_STATUS)


def _draw(comparison: Comparison, picture: Path) -> None:
    """Draw, or say why not: the figures are worth more than the picture."""
    from bench import plots

    machine = comparison.machine
    caption = (
        f"{comparison.date}, {machine['cpu']}, {machine['cores']} cores, "
        f"commit {machine['commit']}"
    )
    try:
        plots.draw(comparison.outcome, picture, caption)
    except ImportError:
        text = f"no picture: matplotlib is not installed: {catalogue.EXTRAS}"
        click.echo(text, err=True)
    except plots.NothingToDraw as error:
        click.echo(f"no picture: {error}", err=True)
