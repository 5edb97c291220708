"""What a host is told to run, and what it answers: both are one JSON object.

Owns the two forms. Does nothing on any computer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from opencluster import __version__
from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.errors import LaunchFailed

MAX_ORDER_BYTES = 256 << 20
"""Largest order that is read: the files in it are programs, not data."""
MARK = "opencluster_node"
"""The key by which an answer is told from what else the shell of a host prints."""
ROLL = "roll"


@dataclass(frozen=True)
class Order:
    """What one host is to run.

    Attributes
    ----------
    host : str
        As the cluster file calls it.
    directory : str
        Where everything of it lies; ``~`` is the home there.
    roles : tuple of str
        ``factory``, ``workshop`` or both.
    number : int
        Which one of the factories runs there, from 1; 0 for none, and for a cluster of
        one computer.
    sections : mapping of str to mapping of str to str
        Its config.ini.
    keys : mapping of str to str
        Files of keys that it needs, by name.
    files : mapping of str to str
        Programs by relative path, in base 64.
    executables : tuple of str
        Those of them that may be run as commands.
    is_restart : bool
        End what runs with another order, and start it anew.
    version : str
        Of OpenCluster.
    """

    host: str
    directory: str
    roles: tuple[str, ...] = (FACTORY, WORKSHOP)
    number: int = 0
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    executables: tuple[str, ...] = ()
    is_restart: bool = False
    version: str = __version__

    def digest(self) -> str:
        """Return a text that tells whether another order would start the same.

        Who is admitted is none of it: that changes while everything runs.
        """
        known = asdict(self)
        known["keys"] = {k: v for k, v in self.keys.items() if k != ROLL}
        del known["is_restart"]
        text = json.dumps(known, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """Return it for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, is_any_version: bool = False) -> Order:
        """Return the order that a text stands for.

        Parameters
        ----------
        text : str
            What `to_json` made.
        is_any_version : bool
            Take one of another version, too: an end needs little.

        Raises
        ------
        LaunchFailed
            When it is none, or one for another version.
        """
        try:
            known = json.loads(text)
            version = known.get("version")
        except (ValueError, RecursionError, AttributeError):
            raise LaunchFailed(
                "expected an order of `opencluster up` on standard input"
            ) from None
        if version != __version__ and not is_any_version:
            raise LaunchFailed(
                f"OpenCluster {__version__} is installed here, and {version} where the "
                "order comes from: install the same version on both"
            )
        for name in ("roles", "executables"):
            known[name] = tuple(known.get(name, ()))
        names = {item.name for item in fields(cls)}
        return cls(**{name: known[name] for name in names & known.keys()})


@dataclass(frozen=True)
class Answer:
    """What became of an order.

    Attributes
    ----------
    is_done : bool
        Whether what was asked for was done.
    message : str
        One line: what was done, or why not.
    output : str
        What a daemon printed that did not start.
    directory : str
        Where everything lies on the host.
    may_run : bool
        Whether anything may have begun, when it was not done.
    computer : str
        Equal for hosts that are one computer under several names.
    catalogue : tuple of mapping
        The fields of each `CatalogueEntry` that a workshop should have which ran
        already.
    is_changed : bool
        It ran by another order, of which this one needs no restart.
    counts : mapping of str to int
        How many are to run of those that it has, where that is not as before.
    """

    is_done: bool
    message: str
    output: str = ""
    directory: str = ""
    may_run: bool = True
    computer: str = ""
    catalogue: tuple[Mapping[str, Any], ...] = ()
    is_changed: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return it as one line for `answer_in`."""
        return json.dumps({MARK: asdict(self)})


def answer_in(output: str) -> Answer | None:
    """Return the answer in what a host printed, or ``None`` when there is none.

    The shell of a host may print whatever it likes before and after it.
    """
    for line in reversed(output.splitlines()):
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        told = found.get(MARK) if isinstance(found, Mapping) else None
        if isinstance(told, Mapping):
            return Answer(
                told.get("is_done") is True,
                str(told.get("message", "")),
                str(told.get("output", "")),
                str(told.get("directory", "")),
                told.get("may_run") is not False,
                str(told.get("computer", "")),
                _entries(told.get("catalogue")),
                told.get("is_changed") is True,
                _counts(told.get("counts")),
            )
    return None


def _entries(given: Any) -> tuple[Mapping[str, Any], ...]:
    rows = given if isinstance(given, list) else []
    return tuple(row for row in rows if isinstance(row, Mapping))


def _counts(given: Any) -> dict[str, int]:
    rows = given if isinstance(given, Mapping) else {}
    return {name: count for name, count in rows.items() if type(count) is int}
