"""How the cluster is, in words and one colour, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from opencluster.observe.status import Row, counted
from opencluster_web.cluster.source import Look

NAMED = 5
"""Names in a sentence; of more, the rest are counted."""

Level = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Reason:
    """Something that is wrong, and what to do."""

    what: str
    cure: str


@dataclass(frozen=True)
class Verdict:
    """How the cluster is.

    Attributes
    ----------
    level : str
        Chooses the colour and the sign.
    title : str
        A sentence.
    reasons : tuple of Reason
        What is wrong, the worst first.
    """

    level: Level
    title: str
    reasons: tuple[Reason, ...] = ()


def verdict_of(look: Look) -> Verdict:
    """Return how the cluster is."""
    if look.trouble:
        cure = "This page asks again every second."
        return Verdict(
            "unknown", "The cluster is out of reach", (Reason(look.trouble, cure),)
        )
    reasons = (*_factories(look), *_processes(look), *_computers(look))
    if reasons:
        things = counted(len(reasons), "thing")
        return Verdict("bad", f"{things} to look after", reasons)
    busy = sum(worker["state"] == "busy" for worker in look.status["workers"])
    working = f"{counted(busy, 'worker')} busy" if busy else "nothing to do"
    return Verdict("good", f"All is well, {working}")


def _factories(look: Look) -> Iterable[Reason]:
    factories = look.status["factories"]
    if not any(row["role"] == "leader" for row in factories):
        yield Reason(
            "No factory leads, so what is shown here may be old.",
            "Start the factories that have ended: `opencluster factory` on each of "
            "their computers.",
        )
    absent = [row["endpoint"] for row in factories if row["role"] == "absent"]
    if absent:
        yield Reason(
            f"{counted(len(absent), 'factory', 'factories')} absent: {_named(absent)}.",
            "Start it again with `opencluster factory`; until then fewer may fail.",
        )
    strayed = [row["endpoint"] for row in factories if row["has_other_list"]]
    if strayed:
        yield Reason(
            f"Another list of factories than the leader's: {_named(strayed)}.",
            "Restart it with the same [cluster] factories as the leader.",
        )


def _processes(look: Look) -> Iterable[Reason]:
    processes = [*look.status["workers"], *look.status["services"]]
    lost = [row["name"] for row in processes if row["state"] == "lost"]
    if lost:
        yield Reason(
            f"{counted(len(lost), 'process', 'processes')} lost: {_named(lost)}.",
            "Their pieces run again elsewhere. If they do not come back, look whether "
            "their computers are up.",
        )
    for failure in look.status["failures"]:
        yield Reason(
            failure["message"] or f"{failure['type']} fails to start.",
            f"See `opencluster logs {failure['type']}`, and mend its program.",
        )


def _computers(look: Look) -> Iterable[Reason]:
    if not look.status["workshops"]:
        yield Reason(
            "There is no workshop, so nobody can start workers.",
            "Run `opencluster workshop` on each computer that is to work.",
        )


def _named(names: list[Row] | list[str]) -> str:
    shown = ", ".join(map(str, names[:NAMED]))
    more = len(names) - NAMED
    return f"{shown} and {more} more" if more > 0 else shown
