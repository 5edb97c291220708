"""What the overview counts and adds up, made from a status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from opencluster.observe.status import Row
from opencluster_web.cluster.source import Status

STATES = ("busy", "idle", "draining", "lost")
"""Of workers, in the order in which they are shown."""
HOUR_S = 3600


@dataclass(frozen=True)
class TypeSummary:
    """The workers or services of one type.

    Attributes
    ----------
    name : str
        The type.
    total : int
        How many there are.
    states : tuple of (str, int, float)
        The states that occur, how many are in each, and which part comes before them,
        from 0 to 1.
    done, failed : int
        Pieces.
    """

    name: str
    total: int
    states: tuple[tuple[str, int, float], ...]
    done: int
    failed: int


@dataclass(frozen=True)
class Load:
    """What is used of something, and how much there is; 0 and 0 if nothing is known."""

    used: float
    total: float

    @property
    def part(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.used / self.total) if self.total else 0.0


def types_of(processes: Iterable[Row]) -> list[TypeSummary]:
    """Return a summary for each type, by name."""
    by_type: dict[str, list[Row]] = {}
    for row in processes:
        by_type.setdefault(row["type"], []).append(row)
    return [_summary(name, by_type[name]) for name in sorted(by_type)]


def cpu_of(status: Status) -> Load:
    """Return how many CPUs of the cluster are busy."""
    known = [
        row
        for row in status["workshops"]
        if row["cpu_percent"] is not None and row["cpu_count"]
    ]
    used = sum(row["cpu_percent"] / 100 * row["cpu_count"] for row in known)
    return Load(used, sum(row["cpu_count"] for row in known))


def memory_of(status: Status) -> Load:
    """Return how many bytes of the cluster's memory are used."""
    known = [row for row in status["workshops"] if row["memory_total_bytes"]]
    used = sum(row["memory_used_bytes"] or 0 for row in known)
    return Load(used, sum(row["memory_total_bytes"] for row in known))


def recent(deaths: Iterable[Row], now: float) -> list[Row]:
    """Return how processes were lost in the last hour, the newest first."""
    return [row for row in deaths if now - row["at"] < HOUR_S][::-1]


def gone(status: Status, now: float) -> list[Row]:
    """Return how computers were lost in the last hour that are not back, by name."""
    here = {row["name"] for row in status["workshops"]}
    found: dict[str, Row] = {}
    for death in recent(status["deaths"], now):
        if death["kind"] == "workshop" and death["name"] not in here:
            found.setdefault(death["name"], death)
    return [found[name] for name in sorted(found)]


def _summary(name: str, rows: list[Row]) -> TypeSummary:
    counts = Counter(row["state"] for row in rows)
    states, before = [], 0
    for state in STATES:
        if counts[state]:
            states.append((state, counts[state], before / len(rows)))
            before += counts[state]
    return TypeSummary(
        name,
        len(rows),
        tuple(states),
        sum(row["pieces_done"] for row in rows),
        sum(row["pieces_failed"] for row in rows),
    )
