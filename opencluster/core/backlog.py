"""A waiting line by priority, out of which anything can be taken early.

It owns the order of what waits and nothing else. A heap alone would keep what was
taken out until its turn came, and grow without bound where much is taken out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Place = tuple[int, int, Any]
"""Where an item stands: less its priority, its number, its key."""

REALTIME = 1 << 64
"""What a real-time piece has over the priorities of batch pieces, which are numbers of
64 bits."""
SLACK = 64
"""Places of items that are gone, besides as many as there are items that wait."""


class Backlog(Generic[Item]):
    """Items that wait: the higher priority first, then the lower number.

    An item is known by a key; the keys of one backlog can be compared with each other.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._items: dict[Any, tuple[Place, Item]] = {}

    def push(self, key: Any, item: Item, priority: int, number: int) -> None:
        """Let an item wait; its key must not be here yet."""
        assert key not in self._items
        place = (-priority, number, key)
        self._items[key] = (place, item)
        heapq.heappush(self._places, place)

    def pop(self) -> Item | None:
        """Take out the first item, or return ``None`` when nothing waits."""
        places = self._places
        items = self._items
        while places:
            place = heapq.heappop(places)
            found = items.get(place[2])
            if found is not None and found[0] is place:
                del items[place[2]]
                if len(places) > 2 * len(items) + SLACK:
                    self._give_up_places()
                return found[1]
        return None

    def first(self) -> Item | None:
        """Return the first item, which stays, or ``None`` when nothing waits."""
        while self._places:
            place = self._places[0]
            found = self._items.get(place[2])
            if found is not None and found[0] is place:
                return found[1]
            heapq.heappop(self._places)
        return None

    def move(self, key: Any, priority: int) -> None:
        """Give an item another priority; nothing happens when it is not here."""
        found = self._items.get(key)
        if found is None:
            return
        (_, number, _), item = found
        place = (-priority, number, key)
        self._items[key] = (place, item)
        heapq.heappush(self._places, place)
        if len(self._places) > 2 * len(self._items) + SLACK:
            self._give_up_places()

    def pop_many(self, most: int) -> list[Item]:
        """Take out the first items, at most so many."""
        found: list[Item] = []
        while len(found) < most and (item := self.pop()) is not None:
            found.append(item)
        return found

    def take(self, key: Any) -> Item | None:
        """Take out the item with this key, or return ``None`` when it is not here."""
        found = self._items.pop(key, None)
        if found is None:
            return None
        if len(self._places) > 2 * len(self._items) + SLACK:
            self._give_up_places()
        return found[1]

    def get(self, key: Any) -> Item | None:
        """Return the item with this key, or ``None`` when it is not here."""
        found = self._items.get(key)
        return found[1] if found is not None else None

    def clear(self) -> list[Item]:
        """Take out everything, in no particular order."""
        items = list(self)
        self._items.clear()
        self._places.clear()
        return items

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[Item]:
        return iter([item for _, item in self._items.values()])

    def check_invariants(self) -> None:
        """Fail when an item has no place, or too many places have no item."""
        held = [place[2] for place in self._held_places()]
        assert len(held) == len(self._items) and set(held) == self._items.keys()
        assert len(self._places) <= 2 * len(self._items) + SLACK

    def _give_up_places(self) -> None:
        self._places = self._held_places()
        heapq.heapify(self._places)

    def _held_places(self) -> list[Place]:
        nobody = (None, None)
        return [p for p in self._places if self._items.get(p[2], nobody)[0] is p]
