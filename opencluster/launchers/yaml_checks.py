"""Kinds of values in a file of YAML; what is wrong is noted with its line and key."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from opencluster.config.sources import Problem, unknown_key
from opencluster.config.values import shown
from opencluster.launchers.yaml_lines import Item

T = TypeVar("T")


class Checker:
    """Reads values of one file, and notes all problems.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    problems : list of Problem
        What was wrong so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def mapping(
        self, item: Item, where: str, known: Sequence[str] = ()
    ) -> Mapping[str, Item]:
        """Return what a mapping holds; of unknown keys, if those are told, a note."""
        if item.entries is None:
            if not item.is_empty:
                self.note(item, where, "expected keys with values, as in key: value")
            return {}
        for key, each in item.entries.items():
            if known and key not in known:
                self.note(each, where, unknown_key(key, known))
        return item.entries

    def text(self, found: Mapping[str, Item], key: str, where: str = "") -> str:
        """Return a text of one line, as it is written; empty when there is none."""
        item = found.get(key, Item(1))
        if item.entries is not None or item.items is not None:
            self.note(item, _path(where, key), "expected a text")
        elif "\n" in item.text or "\0" in item.text:
            self.note(item, _path(where, key), "expected a text of one line")
        return item.text if item.value is not None else ""

    def texts(self, found: Mapping[str, Item], key: str, where: str = "") -> list[str]:
        """Return a list of texts; a single one stands for a list of it."""
        item = found.get(key, Item(1))
        if item.is_empty:
            return []
        if item.items is None:
            return [self.text(found, key, where)]
        return [self.text({key: each}, key, where) for each in item.items]

    def integer(
        self,
        found: Mapping[str, Item],
        key: str,
        where: str,
        default: int,
        minimum: int,
        maximum: int,
    ) -> int:
        """Return an integer of a range."""
        expected = f"an integer from {minimum} to {maximum}"
        value = self._converted(found, key, where, default, int, expected)
        if not minimum <= value <= maximum:
            message = f"got {value}, expected {expected}"
            self.note(found[key], _path(where, key), message)
        return value

    def number(
        self, found: Mapping[str, Item], key: str, where: str, default: float
    ) -> float:
        """Return a number that is not negative."""
        expected = "a number that is not negative"
        value = self._converted(found, key, where, default, float, expected)
        if not math.isfinite(value) or value < 0:
            message = f"got {value}, expected {expected}"
            self.note(found[key], _path(where, key), message)
        return value

    def _converted(
        self,
        found: Mapping[str, Item],
        key: str,
        where: str,
        default: T,
        kind: Callable[[str], T],
        expected: str,
    ) -> T:
        text = self.text(found, key, where)
        if not text:
            return default
        try:
            return kind(text)
        except ValueError:
            message = f"got {shown(text)}, expected {expected}"
            self.note(found[key], _path(where, key), message)
            return default

    def command(self, top: Mapping[str, Item], key: str) -> tuple[str, ...]:
        """Return the words of a command line."""
        item = top.get(key, Item(1))
        if item.items is not None:
            return tuple(self.texts(top, key))
        try:
            return tuple(shlex.split(self.text(top, key)))
        except ValueError:
            self.note(item, key, "expected a command line with balanced quotes")
            return ()

    def place(self, item: Item) -> str:
        """Return file and line."""
        return f"{self.path}:{item.line}"

    def note(self, item: Item, where: str, message: str) -> None:
        """Note that something is wrong, at a key."""
        text = f"{where}: {message}" if where else message
        self.problems.append(Problem(self.place(item), text))


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
