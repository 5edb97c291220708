"""The status of a cluster as tables for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from opencluster.observe.status import Row, health, is_cut_off, is_healthy

JOBS_SHOWN = 10
DEATHS_SHOWN = 5
"""The newest ones; the JSON object has all that the factory keeps."""
OUTPUT_LINES_SHOWN = 10
FILE_WIDTH = 160
"""Columns of a page that goes into a file or a pipe."""

_COLOURS = {"busy": "green", "draining": "yellow", "lost": "red"}

_STATES = {"stopped": "red", "lost": "red", "held": "yellow"}

_ROLES = {"leader": "green", "absent": "red", "looking": "yellow"}

Columns = Mapping[str, Callable[[Row], object]]
"""What stands in each column, by its title; ``>`` behind it aligns it to the right."""

_PROCESSES: Columns = {
    "name": lambda row: row["name"],
    "type": lambda row: row["type"],
    "state": lambda row: Text(row["state"], _COLOURS.get(row["state"], "")),
    "piece": lambda row: row["piece"],
    "progress>": lambda row: _percent(row["progress"]),
    "done>": lambda row: row["pieces_done"],
    "failed>": lambda row: row["pieces_failed"] or "",
    "memory>": lambda row: size(row["rss_bytes"]),
    "CPU>": lambda row: _number(row["cpu_percent"], "%"),
    "pid>": lambda row: row["pid"],
    "host": lambda row: row["host"],
}
_FACTORIES: Columns = {
    "factory": lambda row: row["endpoint"],
    "role": lambda row: Text(row["role"], _ROLES.get(row["role"], "")),
    "list": lambda row: Text("another", "yellow") if row["has_other_list"] else "",
    "epoch>": lambda row: row["epoch"][0] if row["epoch"] else "",
    "revision>": lambda row: row["revision"] if row["epoch"] else "",
    "lag>": lambda row: _number(row["lag"], ""),
    "silent for>": lambda row: _number(row["silence_s"], " s", 1),
    "up for>": lambda row: ago(row["uptime_s"]) if row["uptime_s"] else "",
    "pid>": lambda row: row["pid"] or "",
}
_WORKSHOPS: Columns = {
    "computer": lambda row: row["name"],
    "CPU>": lambda row: _number(row["cpu_percent"], "%"),
    "CPUs>": lambda row: row["cpu_count"] or "",
    "load>": lambda row: _number(row["load_1"], "", 1),
    "memory>": lambda row: _part(row["memory_used_bytes"], row["memory_total_bytes"]),
    "disk>": lambda row: _part(row["disk_used_bytes"], row["disk_total_bytes"]),
    "GPUs": lambda row: ", ".join(str(gpu.get("name")) for gpu in row["gpus"]),
    "pid>": lambda row: row["pid"],
}
_JOBS: Columns = {
    "job": lambda row: row["name"],
    "state": lambda row: row["state"],
    "done>": lambda row: f"{row['pieces_done']} of {row['pieces_submitted']}",
    "failed>": lambda row: row["pieces_failed"] or "",
    "retried>": lambda row: row["pieces_retried"] or "",
    "cut short>": lambda row: row["pieces_cut"] or "",
    "sent>": lambda row: size(row["bytes_sent"]),
    "received>": lambda row: size(row["bytes_received"]),
    "time>": lambda row: _number(row["elapsed_s"], " s", 1),
}
ELASTIC: Columns = {
    "elastic": lambda row: row["type"],
    "state": lambda row: Text(row["state"], _STATES.get(row["state"], "")),
    "pieces>": lambda row: row["pieces"] or "",
    "each>": lambda row: _number(row["mean_s"], " s", 2),
    "here>": lambda row: row["running"],
    "coming>": lambda row: row["coming"] or "",
    "wanted>": lambda row: row["wanted"],
    "why": lambda row: row["reason"],
}
_DEATHS: Columns = {
    "lost": lambda row: row["name"],
    "ago>": lambda row: ago(time.time() - row["at"]),
    "host": lambda row: row["host"],
    "cause": lambda row: row["reason"],
    "piece": lambda row: row["piece"],
    "peak memory>": lambda row: size(row["peak_memory_bytes"] or None),
}


def console() -> Console:
    """Return standard out as rich sees it, wide when it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=FILE_WIDTH)


def page(status: Mapping[str, list[Row]]) -> RenderableType:
    """Return everything that `opencluster status` shows: health first, then tables."""
    colour = "bold green" if is_healthy(status) else "bold red"
    parts: list[RenderableType] = [Text(health(status), colour)]
    if len(status["factories"]) > 1:
        parts += tables("Factories", status["factories"], _FACTORIES)
    parts += tables("Workers", status["workers"], _PROCESSES)
    parts += tables("Services", status["services"], _PROCESSES)
    parts += tables("Computers", status["workshops"], _WORKSHOPS)
    parts += tables("Jobs", status["jobs"][-JOBS_SHOWN:], _JOBS)
    parts += [_cut_off(row) for row in filter(is_cut_off, status["jobs"])]
    parts += tables("Elasticity", status["elastic"], ELASTIC)
    parts += tables("Losses", status["deaths"][-DEATHS_SHOWN:], _DEATHS)
    parts += [_failure(row) for row in status["failures"]]
    return Group(*parts)


def tables(title: str, rows: Iterable[Row], columns: Columns) -> list[RenderableType]:
    """Return a table without the columns that are empty, or nothing without rows."""
    rows = list(rows)
    if not rows:
        return []
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    cells = {
        name: [_cell(value(row)) for row in rows] for name, value in columns.items()
    }
    filled = {name: column for name, column in cells.items() if any(column)}
    for name in filled:
        title, arrow, _ = name.partition(">")
        table.add_column(title, justify="right" if arrow else "left", overflow="fold")
    for row_cells in zip(*filled.values(), strict=True):
        table.add_row(*row_cells)
    return [Text(), table]


def _cut_off(row: Row) -> RenderableType:
    shown = [f"\n{row['name']} does not reach all workers:", *row["unreached"]]
    return Text(printable("\n    ".join(map(str, shown))), "yellow")


def _failure(row: Row) -> RenderableType:
    lines = row["output"].splitlines()[-OUTPUT_LINES_SHOWN:]
    shown = [f"\n{row['message']}", *(f"    {line}" for line in lines)]
    return Text("\n".join(map(printable, shown)), "red")


def _cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text(printable(str(value)))


def printable(text: str) -> str:
    """Replace what could steer a terminal; the texts come from other processes."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def size(size_bytes: float | None) -> str:
    """Return a number of bytes in the unit that people read best."""
    if size_bytes is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def _part(used: float | None, total: float | None) -> str:
    return f"{size(used)} of {size(total)}" if total else ""


def _number(value: Any, unit: str, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"


def ago(seconds: float) -> str:
    """Return a length of time in the unit that people read best."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
