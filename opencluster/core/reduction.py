"""The tree in which many values become one, without waiting for all of them.

Rules that this module keeps:

1. Values are joined with their neighbours, in order, as many at a time as the arity
   says. The shape of the tree depends on their number alone, so that a result repeats
   to the last bit, whatever came first.
2. A node is joined as soon as all of its inputs are there.
3. A value that would be joined with nothing goes up as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Place = tuple[int, int]
"""Where a value stands in the tree: its level above the leaves, and its place there."""


@dataclass(frozen=True, slots=True)
class Join(Generic[Item]):
    """Make one value of several; the result goes to a place.

    Attributes
    ----------
    place : (int, int)
        To be named to `Reduction.joined`.
    inputs : tuple
        What is joined, in order.
    """

    place: Place
    inputs: tuple[Item, ...]


@dataclass(slots=True)
class _Level(Generic[Item]):
    items: dict[int, Item] = field(default_factory=dict)
    size: int | None = None


class Reduction(Generic[Item]):
    """One tree.

    Parameters
    ----------
    arity : int
        How many values are joined at a time, at least 2.
    """

    def __init__(self, arity: int = 2) -> None:
        if arity < 2:
            raise ValueError(f"a tree joins at least 2 values at a time, not {arity!r}")
        self.arity = arity
        self.result: Item | None = None
        self.is_over = False
        self._levels: list[_Level[Item]] = [_Level()]

    def came(self, number: int, item: Item) -> list[Join[Item]]:
        """Take in the leaf of a number, counted from 0."""
        return self.joined((0, number), item)

    def ended(self, count: int) -> list[Join[Item]]:
        """Note how many leaves there are; at least one."""
        if count < 1:
            raise ValueError("there is nothing to reduce")
        return self._close(0, count)

    def joined(self, place: Place, item: Item) -> list[Join[Item]]:
        """Take in what came of a `Join`."""
        level, number = place
        self._levels[level].items[number] = item
        return self._look(level, number // self.arity)

    # --- inside --------------------------------------------------------------

    def _close(self, level: int, size: int) -> list[Join[Item]]:
        """Note how many values a level has, and so those above it."""
        self._levels[level].size = size
        joins: list[Join[Item]] = []
        if size > 1:
            self._above(level)
            above = -(-size // self.arity)
            joins += self._close(level + 1, above)
            joins += self._look(level, above - 1)
        elif 0 in self._levels[level].items:
            self._end(level)
        return joins

    def _look(self, level: int, group: int) -> list[Join[Item]]:
        """Join a group of neighbours, if all of them are there."""
        here = self._levels[level]
        if here.size == 1:
            self._end(level)
            return []
        first = group * self.arity
        end = first + self.arity
        if here.size is not None:
            end = min(end, here.size)
        numbers = range(first, end)
        if not all(number in here.items for number in numbers):
            return []
        inputs = tuple(here.items.pop(number) for number in numbers)
        self._above(level)
        if len(inputs) == 1:
            return self.joined((level + 1, group), inputs[0])
        return [Join((level + 1, group), inputs)]

    def _above(self, level: int) -> None:
        if level + 1 == len(self._levels):
            self._levels.append(_Level())

    def _end(self, level: int) -> None:
        self.result = self._levels[level].items.pop(0)
        self.is_over = True
