"""``python -m bench``: measure, and show and write down what came out."""

from __future__ import annotations

import datetime
import importlib
from pathlib import Path

import click

from bench import commands, muser_commands
from bench.machine import describe
from bench.report import Report

SUBJECTS = {
    "latency": "Round trips of one trivial piece, beside a bare ZeroMQ loop.",
    "throughput": "Trivial pieces a second, with 2 and with 16 workers.",
    "startup": "Seconds from `opencluster start` to the first result.",
    "memory": "Memory of each process of an idle cluster.",
    "factory": "What a factory takes to keep 10,000 workers in mind.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure what OpenCluster costs, and compare it with its peers.

    \b
    Examples:
        python -m bench latency            what OpenCluster costs here, one subject
        python -m bench realtime           what waits while workers are full
        python -m bench images             how soon images of MUSER are there
        python -m bench all --quick        see that all subjects work
        python -m bench sizing             how many workers for each core
        python -m bench pages              how soon web pages answer
        python -m bench dask               what the engine on Dask makes of Dask
        python -m bench lan                what it makes of 1 Gbit/s
        python -m bench peers              what it can be compared with here
        python -m bench compare            side by side, all that is installed
        python -m bench targets            what it set out to reach, met or not

    The peers are installed by `pip install -e '.[bench]'`; what is missing is left
    out. Nothing is asserted: figures depend on the machine and on who else uses it.
    """


def _subject(
    name: str, summary: str, names: tuple[str, ...], section: str = "results"
) -> click.Command:
    """Return the command that measures some subjects of OpenCluster itself."""

    @click.command(name, help=summary, short_help=summary)
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
        help=f"Put the figures into the section {section!r} of this page.",
    )
    @click.option("--quick", is_flag=True, help="See that it works; figures are rough.")
    def command(json_file: Path | None, page: Path | None, quick: bool) -> None:
        machine = describe()
        figures = []
        for subject in names:
            click.echo(f"measuring {subject} ...", err=True)
            figures += importlib.import_module(f"bench.{subject}").measure(quick)
        line = f"python -m bench {name}{' --quick' * quick}"
        today = datetime.date.today().isoformat()
        report = Report(line, today, machine, figures)
        report.show()
        if json_file is not None:
            report.write_json(json_file)
        if page is not None:
            report.write_markdown(page, section)

    return command


for _name, _summary in SUBJECTS.items():
    main.add_command(_subject(_name, _summary, (_name,)))


@main.command("pages")
@click.option("--quick", is_flag=True, help="See that it works; figures are rough.")
def measure_pages(quick: bool) -> None:
    """Measure how long each web page takes with 200 workers and 100,000 pieces.

    The same number of jobs in the history and of tasks in the queue is there as well.

    \b
    Example:
        python -m bench pages
    """
    # Flask and SQLAlchemy are not needed by the other subjects
    from bench import pages

    pages.measure(quick)


main.add_command(
    _subject(
        "realtime",
        "How long real-time pieces wait while workers are full of batch pieces.",
        ("realtime",),
        "realtime",
    )
)
main.add_command(
    _subject(
        "sizing",
        "Workers for each core, and what an idle cluster takes.",
        ("sizing",),
        "sizing",
    )
)
main.add_command(
    _subject(
        "lan",
        "Blocks over a 1 Gbit/s network, without and with keys, beside plain TCP.",
        ("lan",),
        "lan",
    )
)
main.add_command(
    _subject(
        "dask",
        "The engine on Dask beside Dask itself, on the same scheduler and workers.",
        ("dask",),
        "dask",
    )
)
main.add_command(_subject("all", "All of these subjects.", tuple(SUBJECTS)))
for _command in (
    commands.compare,
    commands.check_targets,
    commands.list_peers,
    commands.plot,
    muser_commands.measure_uvfits,
    muser_commands.measure_decoding,
    muser_commands.measure_imaging,
    muser_commands.measure_images,
    muser_commands.measure_ingest,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
