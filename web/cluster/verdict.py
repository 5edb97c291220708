"""How the cluster is, in words and one colour, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from opencluster.observe.status import Row, counted, is_cut_off
from opencluster_web.cluster.source import Look
from opencluster_web.cluster.summary import gone, recent

NAMED = 5
"""Names in a sentence; of more, the rest are counted."""

FULL = 0.95
"""Of a disk or of memory: what is fuller will soon be a trouble."""

Level = Literal["good", "warn", "bad", "unknown"]


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
    doubts = (*_gone(look), *_cut_off(look), *_full(look), *_losses(look))
    busy = sum(worker["state"] == "busy" for worker in look.status["workers"])
    working = f"{counted(busy, 'worker')} busy" if busy else "nothing to do"
    if doubts:
        return Verdict("warn", f"It works, {working}, but look at this", doubts)
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
    yield from _failing(look)
    for row in look.status["elastic"]:
        if row["state"] in ("stopped", "lost"):
            yield Reason(
                f"Nothing launches {row['type']} any more: {row['reason']}.",
                "Mend the cause first."
                if row["state"] == "stopped"
                else "Start `opencluster elastic run` again.",
            )


def _failing(look: Look) -> Iterable[Reason]:
    failing: dict[str, list[Row]] = {}
    for failure in look.status["failures"]:
        failing.setdefault(failure["type"], []).append(failure)
    for type, rows in failing.items():
        told = rows[0]["message"] or f"{type} fails to start on {rows[0]['host']}"
        if len(rows) > 1:
            told += f", nor on {counted(len(rows) - 1, 'other computer')}"
        yield Reason(
            f"{told}.",
            "Mend its program, or its section of the configuration. What it printed "
            f"stands below, and in `opencluster logs {rows[0]['name']}`.",
        )


def _computers(look: Look) -> Iterable[Reason]:
    if not look.status["workshops"]:
        yield Reason(
            "There is no workshop, so nobody can start workers.",
            "Run `opencluster workshop` on each computer that is to work.",
        )


def _gone(look: Look) -> Iterable[Reason]:
    lost = gone(look.status, time.time())
    if lost:
        yield Reason(
            f"{counted(len(lost), 'computer')} lost: "
            f"{_named([row['name'] for row in lost])}: {lost[0]['reason']}.",
            "Look whether it is up, and reached by the network; then start "
            "`opencluster workshop` on it unless that runs.",
        )


def _cut_off(look: Look) -> Iterable[Reason]:
    jobs = [job for job in look.status["jobs"] if is_cut_off(job)]
    if jobs:
        yield Reason(
            f"{counted(len(jobs), 'job')} without a way to some workers, "
            f"{jobs[-1]['name']} the newest: {jobs[-1]['unreached'][0]}.",
            "Pieces go to the others meanwhile, and to these as soon as they are "
            "reached. The page of the job names them.",
        )


def _full(look: Look) -> Iterable[Reason]:
    for what, cure in (
        ("disk", "Remove files there, or work will fail that writes some."),
        ("memory", "Run fewer workers there, or set memory limits for them."),
    ):
        full = [
            row["name"]
            for row in look.status["workshops"]
            if (row[f"{what}_used_bytes"] or 0)
            > FULL * (row[f"{what}_total_bytes"] or float("inf"))
        ]
        if full:
            yield Reason(f"The {what} of {_named(full)} is nearly full.", cure)


def _losses(look: Look) -> Iterable[Reason]:
    now = time.time()
    told = gone(look.status, now)
    deaths = [row for row in recent(look.status["deaths"], now) if row not in told]
    if deaths:
        newest = deaths[0]
        yield Reason(
            f"{counted(len(deaths), 'process', 'processes')} died in the last hour, "
            f"{newest['name']} on {newest['host']} the last: {newest['reason']}.",
            "Their pieces ran again elsewhere. If there are many of one type, look at "
            f"`opencluster logs {newest['name']}`.",
        )


def _named(names: list[Row] | list[str]) -> str:
    shown = ", ".join(map(str, names[:NAMED]))
    more = len(names) - NAMED
    return f"{shown} and {more} more" if more > 0 else shown
