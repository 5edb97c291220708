"""A few calls under way at a time, for peers whose calls return at once."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def windowed(
    calls: Iterable[Any], most: int, wait: Callable[[Any], Any]
) -> Iterator[tuple[int, Any]]:
    """Begin calls, no more than so many under way, and yield results in order.

    Parameters
    ----------
    calls : iterable
        Begins a call each time it is asked for the next.
    most : int
        How many may be under way.
    wait : callable
        Given a call, returns its result when it is there.

    Yields
    ------
    int, object
        The number of the call and its result.
    """
    under_way: collections.deque[Any] = collections.deque()
    number = 0
    for call in calls:
        under_way.append(call)
        if len(under_way) == most:
            yield number, wait(under_way.popleft())
            number += 1
    while under_way:
        yield number, wait(under_way.popleft())
        number += 1
