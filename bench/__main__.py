"""``python -m bench``: measure, and show and write down what came out."""

from __future__ import annotations

import datetime
import importlib
from pathlib import Path

import click

from bench.machine import describe
from bench.report import Report

MEASURES = ("latency", "throughput", "startup", "memory", "factory")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("which", type=click.Choice([*MEASURES, "all"]))
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the figures, with every run, to this file.",
)
@click.option(
    "--markdown",
    "page",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Put the figures into the results section of this page.",
)
@click.option("--quick", is_flag=True, help="See that it works; figures are rough.")
def main(which: str, json_file: Path | None, page: Path | None, quick: bool) -> None:
    """Measure what OpenCluster costs on this machine.

    \b
    Example:
        python -m bench all --markdown docs/performance.md
    """
    machine = describe()
    figures = []
    for name in MEASURES if which == "all" else (which,):
        click.echo(f"measuring {name} ...", err=True)
        figures += importlib.import_module(f"bench.{name}").measure(quick)
    command = f"python -m bench {which}{' --quick' * quick}"
    today = datetime.date.today().isoformat()
    report = Report(command, today, machine, figures)
    report.show()
    if json_file is not None:
        report.write_json(json_file)
    if page is not None:
        report.write_markdown(page)


if __name__ == "__main__":
    main()
