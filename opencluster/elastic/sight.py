"""What a factory's status tells of elastic types: workers, idle ones, failures.

Asks nobody. Whoever is here is told by the registry alone; what a batch system says of
its jobs is for `opencluster.elastic.allotment`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from opencluster.core.elastic_report import Work, work_in

Entry = Mapping[str, Any]
LEAVING = ("draining", "handing_over", "stopped")
"""States of a process that takes no more pieces."""


@dataclass(frozen=True)
class Hands:
    """The workers of a type.

    Attributes
    ----------
    staying : tuple of Entry
        Those that take pieces.
    idle : tuple of Entry
        Those of them that have done nothing since the last look: who keeps least
        first, and then the newest.
    is_holding : bool
        Some of them keep values that managers refer to.
    """

    staying: tuple[Entry, ...] = ()
    idle: tuple[Entry, ...] = ()
    is_holding: bool = False


@dataclass(frozen=True)
class Sight:
    """What was seen at one look.

    Attributes
    ----------
    work : mapping of str to Work
        What there is to do, by type.
    hands : mapping of str to Hands
        Who is there to do it.
    shops : mapping of str to Entry
        The workshops, by identity.
    failures : mapping of str to (int, str)
        How often processes of a type failed to start, and what was said last.
    done : mapping of str to int
        How many pieces each worker has done, by identity.
    """

    work: Mapping[str, Work] = field(default_factory=dict)
    hands: Mapping[str, Hands] = field(default_factory=dict)
    shops: Mapping[str, Entry] = field(default_factory=dict)
    failures: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    done: Mapping[str, int] = field(default_factory=dict)


def sight_of(
    answer: Mapping[str, Any], types: Collection[str], before: Mapping[str, int]
) -> Sight:
    """Return what a status tells of some types.

    Parameters
    ----------
    answer : mapping
        What a factory says to ``status``.
    types : collection of str
        The elastic types.
    before : mapping of str to int
        `Sight.done` of the look before.
    """
    entries, figures = answer["entries"], answer["figures"]
    done: dict[str, int] = {}
    staying: dict[str, list[Entry]] = {type: [] for type in types}
    idle: dict[str, list[tuple[int, Entry]]] = {type: [] for type in types}
    holding = set()
    for entry in entries:
        type, identity = entry["type"], entry["id"]
        if entry["kind"] != "worker" or type not in staying:
            continue
        own = figures.get(identity, {})
        if own.get("state") in LEAVING or entry["attributes"].get("is_draining"):
            continue
        staying[type].append(entry)
        done[identity] = _ended(own)
        kept_bytes = own.get("kept_bytes")
        kept_bytes = kept_bytes if isinstance(kept_bytes, int) else 0
        holding |= {type} if kept_bytes else set()
        # what is so short that no look finds it running is work as well
        is_same = before.get(identity) == done[identity]
        if is_same and own.get("state") not in ("busy", "lost"):
            idle[type].insert(0, (kept_bytes, entry))
    return Sight(
        work_in(answer["jobs"]),
        {
            type: Hands(
                tuple(staying[type]),
                tuple(entry for _, entry in sorted(idle[type], key=lambda i: i[0])),
                type in holding,
            )
            for type in staying
        },
        {entry["id"]: entry for entry in entries if entry["kind"] == "workshop"},
        _failures(entries, types),
        done,
    )


def can_start(shop: Entry, type: str) -> bool:
    """Return whether a workshop may start workers of a type."""
    attributes = shop["attributes"]
    return not attributes.get("is_drained") and type in (
        attributes.get("catalogue") or {}
    )


def in_a_line(message: str, output: Any) -> str:
    """Return in a line what failed, with the last one of what was printed."""
    first = message.strip().partition("\n")[0]
    last = output.strip().rpartition("\n")[2] if isinstance(output, str) else ""
    return f"{first} ({last})" if last and last not in first else first


def _ended(figures: Mapping[str, Any]) -> int:
    counts = (figures.get("pieces_done"), figures.get("pieces_failed"))
    return sum(count for count in counts if type(count) is int)


def _failures(
    entries: Collection[Entry], types: Collection[str]
) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for entry in entries:
        type = entry["type"]
        if entry["kind"] == "failure" and type in types:
            count, message = found.get(type, (0, ""))
            said = entry["attributes"]
            more = said.get("failures")
            more = more if isinstance(more, int) else 0
            told = in_a_line(str(said.get("message", message)), said.get("output"))
            found[type] = (count + more, told)
    return found
