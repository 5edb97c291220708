"""What is kept between images: transforms and beams of the same baselines."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

Kept = TypeVar("Kept")

KEPT = 16
"""Things at most: the transforms and beams of a few bands and hands. A beam of 1024
pixels takes 4 MB, a transform with three terms 12 MB."""


class Shelf:
    """Keeps what was made, by what it depends on.

    For one thread.

    Parameters
    ----------
    kept : int, optional
        How many things; the one that was not asked for the longest goes first.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._things: OrderedDict[Hashable, Any] = OrderedDict()
        self.found = 0
        self.made = 0

    def get(self, make: Callable[[], Kept], *depends: object) -> Kept:
        """Return what was made of the same before, or make it.

        Parameters
        ----------
        make : callable
            Makes it.
        *depends : object
            All that it depends on, its kind included: arrays, and values that can be
            hashed.
        """
        key = tuple(map(_fingerprint, depends))
        if key in self._things:
            self.found += 1
            self._things.move_to_end(key)
            found: Kept = self._things[key]
            return found
        made = make()
        self.made += 1
        self._things[key] = made
        while len(self._things) > self._kept:
            self._things.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forget everything, such as when memory of a GPU is short."""
        self._things.clear()


def _fingerprint(value: object) -> Hashable:
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value)
        digest = hashlib.blake2b(content.data, digest_size=16).digest()
        return value.shape, value.dtype.str, digest
    assert isinstance(value, Hashable)
    return value
