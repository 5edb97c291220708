"""How an order differs from the one that is carried out, and what needs no restart.

Owns the words for it. Does nothing on any computer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opencluster.config.catalogue import is_catalogue_section
from opencluster.launchers.order import ROLL, Order

Outline = Mapping[str, Mapping[str, Any]]
"""What an order consists of: its sections, its files, and all else, by names."""
COUNT = "count"


def outline(order: Order) -> dict[str, dict[str, Any]]:
    """Return of an order what tells it from another one, as plain data."""
    keys = {name: _digest(key) for name, key in order.keys.items() if name != ROLL}
    return {
        "sections": {name: dict(values) for name, values in order.sections.items()},
        "files": {
            name: [_digest(content), name in order.executables]
            for name, content in order.files.items()
        },
        "others": {
            "roles": list(order.roles),
            "place in the list of factories": order.number,
            "keys": keys,
            "version of OpenCluster": order.version,
        },
    }


@dataclass(frozen=True)
class Change:
    """What is different between two orders.

    Attributes
    ----------
    what : str
        It, in words; nothing if that is not known.
    is_joined_in : bool
        A workshop that runs can be told all of it: new types, new files, and how many
        of a type run.
    counts : mapping of str to int
        How many are to run of types that both have, where that is not as before.
    """

    what: str = ""
    is_joined_in: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)


def change_between(before: Outline, after: Outline) -> Change:
    """Return what is different between two orders."""
    if not before:
        return Change()
    is_joined_in = _is_joined_in(before, after)
    counts = _new_counts(before["sections"], after["sections"])
    return Change("; ".join(_differences(before, after)), is_joined_in, counts)


def _differences(before: Outline, after: Outline) -> list[str]:
    return [
        *_in_catalogue(before["sections"], after["sections"]),
        *_in_settings(before["sections"], after["sections"]),
        *_in_files(before["files"], after["files"]),
        *(f"other {name}" for name in _changed(before["others"], after["others"])),
    ]


def _is_joined_in(before: Outline, after: Outline) -> bool:
    if before["others"] != after["others"]:
        return False
    for part in ("sections", "files"):
        known, wanted = before[part], after[part]
        if known.keys() - wanted.keys():
            return False
        for name in wanted:
            if name in known and _but_count(name, known) != _but_count(name, wanted):
                return False
            is_new = part == "sections" and name not in known
            if is_new and not is_catalogue_section(name):
                return False
    return True


def _new_counts(
    known: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]]
) -> dict[str, int]:
    return {
        section.partition(":")[2]: _count(wanted[section])
        for section in wanted
        if is_catalogue_section(section) and section in known
        if _count(known[section]) != _count(wanted[section])
    }


def _in_catalogue(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    for section in _changed(before, after):
        if not is_catalogue_section(section):
            continue
        kind, _, name = section.partition(":")
        if section not in before:
            yield f"{kind} {name} is new"
        elif section not in after:
            yield f"{kind} {name} is gone"
        else:
            old, new = before[section], after[section]
            if _count(old) != _count(new):
                yield f"{_count(new)} of {kind} {name}, not {_count(old)}"
            keys = [key for key in _changed(old, new) if key != COUNT]
            if keys:
                yield f"{kind} {name} has other {', '.join(keys)}"


def _in_settings(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    for section in _changed(before, after):
        if not is_catalogue_section(section):
            keys = _changed(before.get(section, {}), after.get(section, {}))
            yield from (f"other {key} in [{section}]" for key in keys)


def _in_files(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in _changed(before, after):
        if name not in before:
            yield f"file {name} is new"
        else:
            yield f"file {name} is {'another' if name in after else 'gone'}"


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names under which two mappings have something else."""
    names = [*after, *(name for name in before if name not in after)]
    missing = object()
    return [n for n in names if before.get(n, missing) != after.get(n, missing)]


def _but_count(name: str, part: Mapping[str, Any]) -> Any:
    if not is_catalogue_section(name):
        return part[name]
    return {key: value for key, value in part[name].items() if key != COUNT}


def _count(values: Mapping[str, str]) -> int:
    return int(values.get(COUNT, "0"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
