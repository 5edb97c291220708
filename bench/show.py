"""Tables: for people at a terminal, as plain lines in a pipe, and in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

Rows = Sequence[Sequence[str]]


def table(headings: Sequence[str], rows: Rows, caption: str = "") -> None:
    """Print a table to standard out."""
    if sys.stdout.isatty():
        _rich(headings, rows, caption)
        return
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def markdown(headings: Sequence[str], rows: Rows) -> Iterator[str]:
    """Yield the lines of a table; every second column is of numbers."""
    yield f"| {' | '.join(headings)} |"
    yield f"| {' | '.join(('---', '---:')[i % 2] for i in range(len(headings)))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def replace_section(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what stands between two lines of a page.

    Raises
    ------
    click.ClickException
        When the page has no such lines.
    """
    before, is_there, rest = path.read_text(encoding="utf-8").partition(begin)
    _, is_closed, after = rest.partition(end)
    if not is_there or not is_closed:
        raise click.ClickException(
            f"{path} has no place for results: add the lines\n{begin}\n{end}"
        )
    section = "\n".join(lines)
    path.write_text(f"{before}{begin}\n{section}\n{end}{after}", encoding="utf-8")


def _rich(headings: Sequence[str], rows: Rows, caption: str) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(*headings, caption=caption)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
