"""What happened in a cluster, told from how it stood before and how it stands now.

Rules
-----
1. A status is what ``opencluster status --json`` prints; nothing else is known.
2. Everything that came, went or changed its state between two looks is told once.
3. Who died is told with the cause; who went without one left in good order, or with its
   computer.
4. What a first look sees has not happened: the journal begins with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core.job_orders import CANCEL, orders_of

Row = Mapping[str, Any]
Status = Mapping[str, Sequence[Row]]

NOTE, WARNING, TROUBLE = "note", "warning", "trouble"
"""How much an event matters; trouble is what somebody should look at."""

KINDS = (
    *("leader-elected", "leader-lost", "factory-absent", "factory-back"),
    *("computer-joined", "computer-left", "workshop-died"),
    *(
        f"{who}-{what}"
        for who in ("worker", "service")
        for what in ("ready", "died", "lost", "back", "draining", "left")
    ),
    *("type-failing", "type-recovered"),
    *("job-started", "job-done", "job-failed", "job-cancelled", "job-lost"),
    *("elastic-stopped", "elastic-lost", "elastic-back"),
    "operator-acted",
)
"""What may happen, as programs name it."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind : str
        Such as ``"worker-died"``, for programs.
    weight : str
        `NOTE`, `WARNING` or `TROUBLE`.
    subject : str
        Whom it happened to.
    host : str
        Its computer, or empty.
    text : str
        What happened, in one line for people.
    details : str
        More lines, such as the last output of the dead.
    """

    kind: str
    weight: str
    subject: str
    host: str
    text: str
    details: str = ""


def changes(before: Status | None, after: Status) -> list[Event]:
    """Return what happened between two looks, in no order that means anything.

    Parameters
    ----------
    before : mapping or None
        The status of the look before; ``None`` for the first look.
    after : mapping
        The status now.
    """
    if before is None:
        return []
    return [
        *_leaders(before, after),
        *_factories(before, after),
        *_computers(before, after),
        *_deaths(before, after),
        *_members(before, after),
        *_failures(before, after),
        *_elastic(before, after),
        *_jobs(before, after),
    ]


def _by(rows: Iterable[Row], key: str) -> dict[Any, Row]:
    return {row[key]: row for row in rows}


def _leaders(before: Status, after: Status) -> Iterator[Event]:
    old, new = _leader(before), _leader(after)
    if new is None and old is not None:
        text = f"no factory leads any more; {old['endpoint']} did"
        yield Event("leader-lost", TROUBLE, old["endpoint"], "", text)
    elif new is not None and (old is None or old["epoch"] != new["epoch"]):
        number = new["epoch"][0] if new["epoch"] else 0
        text = f"{new['endpoint']} leads, in epoch {number}"
        yield Event("leader-elected", WARNING, new["endpoint"], "", text)


def _leader(status: Status) -> Row | None:
    leaders = (row for row in status["factories"] if row["role"] == "leader")
    return next(leaders, None)


def _factories(before: Status, after: Status) -> Iterator[Event]:
    old = _by(before["factories"], "endpoint")
    for name, row in _by(after["factories"], "endpoint").items():
        was = old[name]["role"] if name in old else "absent"
        if row["role"] == "absent" and was != "absent":
            text = f"factory {name} is not heard any more"
            yield Event("factory-absent", TROUBLE, name, "", text)
        elif row["role"] != "absent" and was == "absent":
            yield Event("factory-back", NOTE, name, "", f"factory {name} is there")


def _computers(before: Status, after: Status) -> Iterator[Event]:
    old, new = _by(before["workshops"], "id"), _by(after["workshops"], "id")
    died = {row["id"] for row in after["deaths"]}
    for identity in new.keys() - old.keys():
        row = new[identity]
        text = f"computer {row['name']} has joined"
        yield Event("computer-joined", NOTE, row["name"], row["host"], text)
    for identity in old.keys() - new.keys() - died:
        row = old[identity]
        text = f"computer {row['name']} has left"
        yield Event("computer-left", WARNING, row["name"], row["host"], text)


def _deaths(before: Status, after: Status) -> Iterator[Event]:
    known = {(row["id"], row["at"]) for row in before["deaths"]}
    for row in after["deaths"]:
        if (row["id"], row["at"]) in known:
            continue
        reason = row["reason"] or "nobody knows of what"
        during = f", during piece {row['piece']}" if row["piece"] else ""
        text = f"{row['kind']} {row['name']} died: {reason}{during}"
        kind = f"{row['kind']}-died"
        yield Event(kind, TROUBLE, row["name"], row["host"], text, row["output"])


def _members(before: Status, after: Status) -> Iterator[Event]:
    died = {row["id"] for row in after["deaths"]}
    for kind in ("worker", "service"):
        old, new = _by(before[f"{kind}s"], "id"), _by(after[f"{kind}s"], "id")
        for identity in new.keys() - old.keys():
            row = new[identity]
            text = f"{kind} {row['name']} is ready"
            yield Event(f"{kind}-ready", NOTE, row["name"], row["host"], text)
        for identity in old.keys() - new.keys() - died:
            row = old[identity]
            text = f"{kind} {row['name']} has left"
            yield Event(f"{kind}-left", NOTE, row["name"], row["host"], text)
        for identity in old.keys() & new.keys():
            yield from _state(kind, old[identity], new[identity])


def _state(kind: str, old: Row, new: Row) -> Iterator[Event]:
    """Tell of states that an operator cares about; idle and busy come and go."""
    was, now = old["state"], new["state"]
    if was == now:
        return
    name, host = new["name"], new["host"]
    if now == "lost":
        text = f"{kind} {name} stands still, stopped by a signal"
        yield Event(f"{kind}-lost", TROUBLE, name, host, text)
    elif was == "lost":
        yield Event(f"{kind}-back", NOTE, name, host, f"{kind} {name} goes on")
    elif now == "draining":
        text = f"{kind} {name} takes no more pieces"
        yield Event(f"{kind}-draining", NOTE, name, host, text)


def _failures(before: Status, after: Status) -> Iterator[Event]:
    old = {(row["type"], row["workshop"]): row for row in before["failures"]}
    new = {(row["type"], row["workshop"]): row for row in after["failures"]}
    for key, row in new.items():
        if row["is_failing"] and not (key in old and old[key]["is_failing"]):
            text = f"{row['type']} fails to start: {row['message']}"
            output = row["output"]
            yield Event("type-failing", TROUBLE, row["type"], row["host"], text, output)
    for key in old.keys() - new.keys():
        row = old[key]
        text = f"{row['type']} starts again"
        yield Event("type-recovered", NOTE, row["type"], row["host"], text)


def _elastic(before: Status, after: Status) -> Iterator[Event]:
    """Tell when workers of a type are no longer launched, and when they are again."""
    old = {type: row["state"] for type, row in _by(before["elastic"], "type").items()}
    for type, row in _by(after["elastic"], "type").items():
        state, was = row["state"], old.get(type, "")
        if state == was:
            continue
        if state in ("stopped", "lost"):
            text = f"nothing launches {type} any more: {row['reason']}"
            yield Event(f"elastic-{state}", TROUBLE, type, row["host"], text)
        elif was in ("stopped", "lost"):
            text = f"{type} is launched again"
            yield Event("elastic-back", NOTE, type, row["host"], text)


def _by_order(job: Row) -> str:
    """Return who ordered the end of a job, if it ended by an order."""
    cancel = orders_of(job).get(CANCEL)
    if job["state"] != "cancelled" or not isinstance(cancel, Mapping):
        return ""
    by = cancel.get("by")
    return f" by order of {by}" if isinstance(by, str) and by else ""


def _jobs(before: Status, after: Status) -> Iterator[Event]:
    old = _by(before["jobs"], "id")
    for identity, row in _by(after["jobs"], "id").items():
        was = old[identity]["state"] if identity in old else ""
        if row["state"] == was:
            continue
        name = f"{row['name']} {identity[:8]}"
        if row["state"] == "running":
            yield Event("job-started", NOTE, name, "", f"job {name} has begun")
        else:
            weight = NOTE if row["state"] == "done" else WARNING
            pieces = f"{row['pieces_done']} of {row['pieces_submitted']} pieces done"
            text = f"job {name} is {row['state']}{_by_order(row)}: {pieces}"
            yield Event(f"job-{row['state']}", weight, name, "", text)
