"""Show a comparison: as tables, as JSON, and in a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import show
from bench.figures import number, spread
from bench.outcome import Outcome, Row, place_of
from bench.peers.catalogue import OURS
from bench.report import texts, write_json
from bench.targets import HEADINGS as VERDICT_HEADINGS
from bench.targets import Verdict

BEGIN = "<!-- comparison: written by the command, not by hand -->"
END = "<!-- end of comparison -->"
HEADINGS = ("median [lowest-highest]", "", "advantage", "ahead in")
ADVANTAGE = (
    "advantage: how many times better OpenCluster was than this peer in the same bout, "
    "the median with the range; below 1 it was worse"
)


@dataclass(frozen=True)
class Comparison:
    """The outcome of one call, with all that a reader needs.

    Attributes
    ----------
    command, date : str
        How to get such figures, and when these were measured.
    machine : dict
        See `machine.describe`.
    outcome : Outcome
        What was measured.
    verdicts : sequence of Verdict
        What became of the targets, if those were asked for.
    """

    command: str
    date: str
    machine: dict[str, Any]
    outcome: Outcome
    verdicts: Sequence[Verdict] = ()

    def show(self) -> None:
        """Print all tables to standard out, then the notes."""
        for title, rows in self._tables():
            click.echo()
            show.table((title, *HEADINGS), rows)
        click.echo()
        for text in [*self._notes(), *texts(self.machine)]:
            click.echo(f"- {text}")
        if self.verdicts:
            click.echo()
            show.table(VERDICT_HEADINGS, [verdict.cells for verdict in self.verdicts])
            click.echo(self._score())

    def write_json(self, path: Path) -> None:
        """Write everything, each sample included."""
        head = {"command": self.command, "date": self.date, "machine": self.machine}
        verdicts = [verdict.to_fields() for verdict in self.verdicts]
        write_json(path, head | self.outcome.to_fields() | {"targets": verdicts})

    def write_markdown(self, path: Path) -> None:
        """Replace the comparison of a page, which `BEGIN` and `END` enclose."""
        lines = [f"`{self.command}`, {self.date}.", ""]
        lines += [f"- {text}" for text in [*texts(self.machine), *self._notes()]]
        if self.verdicts:
            cells = [verdict.cells for verdict in self.verdicts]
            lines += ["", *show.markdown(VERDICT_HEADINGS, cells), "", self._score()]
        for title, rows in self._tables():
            lines += ["", *show.markdown((title, *HEADINGS), rows)]
        show.replace_section(path, BEGIN, END, lines)

    # --- inside --------------------------------------------------------------

    def _tables(self) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
        groups: dict[str, list[Row]] = {}
        for row in self.outcome.rows():
            title = place_of(row.workload, row.workers)
            groups.setdefault(title, []).append(row)
        for title, rows in groups.items():
            yield title, [_cells(row) for row in _telling(rows)]

    def _score(self) -> str:
        met = sum(verdict.is_met is True for verdict in self.verdicts)
        return f"{met} of {len(self.verdicts)} targets are met."

    def _notes(self) -> list[str]:
        left_out = [
            f"left out: {one.peer}, {one.what}: {one.why}"
            for one in self.outcome.left_out
        ]
        return [ADVANTAGE, *self.outcome.notes(self.machine["cores"]), *left_out]


def _telling(rows: Sequence[Row]) -> list[Row]:
    """Return the rows to show: of growing numbers of blocks, the ones that tell most.

    For each peer that is the largest that both sides came to in most of the rounds.
    """
    best: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.ratios:
            here = (len(row.ratios), row.at)
            best[row.peer] = max(here, best.get(row.peer, here))
    largest = {peer: at for peer, (_, at) in best.items()}
    shown = set(largest.values()) or {max(row.at for row in rows)}
    chosen = [
        row
        for row in rows
        if (row.at in shown if row.peer == OURS else row.at == largest.get(row.peer))
    ]
    return sorted(chosen, key=lambda row: -row.at)


def _cells(row: Row) -> tuple[str, ...]:
    blocks = "1 block" if row.at == 1 else f"{row.at:,} blocks"
    name = f"{row.peer}, {blocks}" if row.at else row.peer
    cells = (name, spread(row.values), row.workload.unit)
    if row.ratio is None:
        return (*cells, "", "")
    ahead = sum(ratio > 1 for ratio in row.ratios)
    better = f"{number(row.ratio)} x [{number(min(row.ratios))}-"
    better += f"{number(max(row.ratios))}]"
    return (*cells, better, f"{ahead} of {len(row.ratios)}")
