"""Show figures: as a table, as JSON, and in a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import show
from bench.figures import Figure

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
        rows = [_row(figure) for figure in self.figures]
        show.table(HEADINGS, rows, ", ".join(texts(self.machine)))

    def write_json(self, path: Path) -> None:
        """Write everything, each run included."""
        content = {
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "figures": [figure.to_fields() for figure in self.figures],
        }
        write_json(path, content)

    def write_markdown(self, path: Path, section: str = "results") -> None:
        """Replace a section of a page, which two lines with its name enclose."""
        begin = f"<!-- {section}: written by the command, not by hand -->"
        end = f"<!-- end of {section} -->"
        show.replace_section(path, begin, end, list(self._markdown()))

    def _markdown(self) -> Iterable[str]:
        yield f"`{self.command}`, {self.date}."
        yield ""
        yield from (f"- {text}" for text in texts(self.machine))
        for measure in dict.fromkeys(figure.measure for figure in self.figures):
            figures = [f for f in self.figures if f.measure == measure]
            rows = [(figure.name, *_row(figure)[1:]) for figure in figures]
            yield ""
            yield from show.markdown((measure, *HEADINGS[1:]), rows)


def texts(machine: dict[str, Any]) -> list[str]:
    """Return what is known of the machine, a text for each thing."""
    return [f"{key.replace('_', ' ')}: {value}" for key, value in machine.items()]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain types to a file."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def _row(figure: Figure) -> tuple[str, str, str, str]:
    name = f"{figure.measure}: {figure.name}"
    return name, figure.text, figure.unit, str(len(figure.runs))
