"""Dead letters as tables for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from opencluster.cli.status_tables import Columns, ago, printable, size, tables
from opencluster.observe.dead_letters import Found

_LETTERS: Columns = {
    "letter": lambda row: row["id"],
    "type": lambda row: row["type"],
    "job": lambda row: (row.get("job") or {}).get("id", ""),
    "when>": lambda row: f"{ago(time.time() - row['at'])} ago",
    "ended>": lambda row: row["deaths"],
    "work>": lambda row: size(row["nbytes"]),
    "host": lambda row: row["host"],
    "last end": lambda row: row["reason"].splitlines()[0] if row["reason"] else "",
}


def page(found: Found) -> RenderableType:
    """Return the list of letters, and who could not be asked."""
    count = len(found.letters)
    told = f"{count} dead letter{'s' * (count != 1)}" if count else "no dead letters"
    parts: list[RenderableType] = [Text(told, "bold")]
    for name in found.silent:
        parts.append(Text(f"the workshop {printable(name)} does not answer", "yellow"))
    return Group(*parts, *tables("Letters", found.letters, _LETTERS))


def sheet(letter: Mapping[str, Any]) -> RenderableType:
    """Return all that is known of a letter."""
    job = letter.get("job") or {}
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(letter["at"]))
    facts = {
        "type": letter["type"],
        "piece": letter.get("number", ""),
        "job": f"{job.get('name', '')} {job.get('id', '')}".strip(),
        "quarantined": moment,
        "lies on": letter["host"],
        "user": letter.get("user", ""),
        "work": size(letter["nbytes"]),
    }
    if letter["refs"]:
        facts["refers to"] = ", ".join(map(str, letter["refs"]))
    lines = [Text(f"dead letter {letter['id']}", "bold")]
    lines += [Text(f"{name:>12}  {printable(str(v))}") for name, v in facts.items()]
    for number, death in enumerate(letter["deaths"], 1):
        who = " on ".join(filter(None, (death.get("worker"), death.get("host"))))
        lines.append(Text(f"\nend {number}: {printable(who or 'a worker')}", "bold"))
        lines.append(Text(printable(str(death.get("reason", "")))))
        if death.get("peak_memory_bytes"):
            lines.append(Text(f"peak memory: {size(death['peak_memory_bytes'])}"))
        for line in str(death.get("output", "")).splitlines():
            lines.append(Text(f"    {printable(line)}"))
    return Group(*lines)
