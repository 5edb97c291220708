"""Show figures: as a table, as JSON, and in a page of the documentation."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.figures import Figure

BEGIN = "<!-- results: written by the command, not by hand -->"
END = "<!-- end of results -->"
HEADINGS = ("", "median [lowest-highest]", "", "runs")


@dataclass(frozen=True)
class Report:
    """The outcome of one call of the command.

    Attributes
    ----------
    command : str
        How to get such figures.
    date : str
        The day, ``2024-05-31``.
    machine : dict
        See `machine.describe`.
    figures : sequence of Figure
        What was measured.
    """

    command: str
    date: str
    machine: dict[str, Any]
    figures: Sequence[Figure]

    def show(self) -> None:
        """Print to standard out: a table for people, plain lines into a pipe."""
        if sys.stdout.isatty():
            self._show_table()
            return
        rows = [_row(figure) for figure in self.figures]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())

    def write_json(self, path: Path) -> None:
        """Write everything, each run included."""
        content = {
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "figures": [figure.to_fields() for figure in self.figures],
        }
        path.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def write_markdown(self, path: Path) -> None:
        """Replace the results section of a page, which `BEGIN` and `END` enclose."""
        before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise click.ClickException(
                f"{path} has no place for results: add the lines\n{BEGIN}\n{END}"
            )
        section = "\n".join(self._markdown())
        path.write_text(f"{before}{BEGIN}\n{section}\n{END}{after}", encoding="utf-8")

    # --- inside --------------------------------------------------------------

    def _show_table(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(*HEADINGS, caption=", ".join(self._machine_texts()))
        for name, text, unit, runs in map(_row, self.figures):
            table.add_row(name, text, unit, runs)
        Console().print(table)

    def _machine_texts(self) -> list[str]:
        return [f"{key.replace('_', ' ')}: {v}" for key, v in self.machine.items()]

    def _markdown(self) -> Iterable[str]:
        yield f"`{self.command}`, {self.date}."
        yield ""
        yield from (f"- {text}" for text in self._machine_texts())
        for measure in dict.fromkeys(figure.measure for figure in self.figures):
            rows = [f for f in self.figures if f.measure == measure]
            yield from ("", f"| {measure} | {HEADINGS[1]} | | {HEADINGS[3]} |")
            yield "| --- | ---: | --- | ---: |"
            for figure in rows:
                yield f"| {figure.name} | {' | '.join(_row(figure)[1:])} |"


def _row(figure: Figure) -> tuple[str, str, str, str]:
    name = f"{figure.measure}: {figure.name}"
    return name, figure.text, figure.unit, str(len(figure.runs))
