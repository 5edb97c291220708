"""The commands that measure the data processing of MUSER."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import click

from bench.commands import Words
from bench.figures import Figure
from bench.machine import describe
from bench.peers import catalogue
from bench.report import Report

_FILE = click.Path(path_type=Path, dir_okay=False)
json_option = click.option(
    "--json", "json_file", type=_FILE, help="Write the figures, with every run."
)
markdown_option = click.option(
    "--markdown", "page", type=_FILE, help="Replace the section of a page."
)
quick_option = click.option(
    "--quick", is_flag=True, help="See that it works; figures are rough."
)


@click.command("uvfits")
@click.option(
    "--workers",
    type=Words(is_of_numbers=True),
    default="1,2",
    show_default=True,
    help="How many workers.",
)
@click.option("--array", type=click.Choice(["I", "II"]), default="I", show_default=True)
@click.option(
    "--plot", "picture", type=_FILE, help="Draw elapsed time against workers (PNG)."
)
@json_option
@markdown_option
@quick_option
def measure_uvfits(
    workers: list[int],
    array: str,
    picture: Path | None,
    json_file: Path | None,
    page: Path | None,
    quick: bool,
) -> None:
    """Measure how fast raw frames of MUSER become UVFITS files.

    \b
    Examples:
        python -m bench uvfits --workers 1,2
        python -m bench uvfits --workers 1,2,4,8 --plot figure10.png
        python -m bench uvfits --array II --quick
    """
    from bench import uvfits

    figures = _report(
        lambda: uvfits.measure({"I": 1, "II": 2}[array], workers, quick),
        json_file,
        page,
        f"uvfits of MUSER-{array}",
    )
    if picture is not None:
        try:
            uvfits.draw(figures, picture)
        except ImportError:
            click.echo(
                f"no picture: matplotlib is not installed: {catalogue.EXTRAS}", err=True
            )


@click.command("muser-decode")
@json_option
@markdown_option
@quick_option
def measure_decoding(json_file: Path | None, page: Path | None, quick: bool) -> None:
    """Measure decoding and correcting of a raw frame, beside copying its bytes."""
    from bench import muser_decode

    _report(lambda: muser_decode.measure(quick), json_file, page, "muser-decode")


@click.command("imaging")
@json_option
@markdown_option
@quick_option
def measure_imaging(json_file: Path | None, page: Path | None, quick: bool) -> None:
    """Measure images from visibilities, cleaned, beside WSClean where it is installed.

    WSClean reads Measurement Sets: python-casacore, of the extra bench, writes one.
    """
    from bench import imaging

    _report(lambda: imaging.measure(quick), json_file, page, "imaging")


@click.command("images")
@json_option
@markdown_option
@quick_option
def measure_images(json_file: Path | None, page: Path | None, quick: bool) -> None:
    """Measure from the last byte of an item to its images, without and with load."""
    from bench import image_latency

    _report(lambda: image_latency.measure(quick), json_file, page, "images")


@click.command("ingest")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="For how long frames come, of each array.",
)
@json_option
@markdown_option
@quick_option
def measure_ingest(
    seconds: float, json_file: Path | None, page: Path | None, quick: bool
) -> None:
    """Measure raw frames coming in at 32 and at 65.5 MB/s, spooled and decoded.

    \b
    Examples:
        python -m bench ingest
        python -m bench ingest --seconds 20
    """
    from bench import ingest

    if quick:
        _report(lambda: ingest.measure(1.0, [1]), json_file, page, "ingest")
    else:
        _report(lambda: ingest.measure(seconds), json_file, page, "ingest")


def _report(
    measure: Callable[[], list[Figure]],
    json_file: Path | None,
    page: Path | None,
    section: str,
) -> list[Figure]:
    """Measure, and show and write down what came out."""
    machine = describe()
    figures = measure()
    line = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    report = Report(line, datetime.date.today().isoformat(), machine, figures)
    report.show()
    if json_file is not None:
        report.write_json(json_file)
    if page is not None:
        report.write_markdown(page, section)
    return figures
