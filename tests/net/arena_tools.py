"""What the tests of the arena have in common."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from opencluster.net.arena import Arena, Handle, Mapping

MB = 1 << 20
DEADLINE_S = 30.0
Array = np.ndarray[Any, Any]


def pattern(number: int, nbytes: int) -> Array:
    """Return bytes that differ with the number and from place to place."""
    return (np.arange(nbytes, dtype=np.uint32) * 7 + number).astype(np.uint8)


class End:
    """The receiving side, in this process: maps segments as they are met."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.mapping = Mapping()
        self.known: set[int] = set()

    def view(self, handle: Handle | None) -> memoryview:
        assert handle is not None
        if handle.segment not in self.known:
            self.known.add(handle.segment)
            fd = os.dup(self.arena.segment_fd(handle.segment))
            self.mapping.add(handle.segment, fd)
        return self.mapping.view(handle)

    def sent(self, buffer: Any) -> memoryview:
        return self.view(self.arena.place(buffer, "end"))


def used(arena: Arena) -> int:
    return arena.counts.used_bytes


def becomes(arena: Arena, nbytes: int) -> bool:
    """Wait until this much is in use, and return whether it came to that."""
    deadline = time.monotonic() + DEADLINE_S
    while used(arena) != nbytes:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def allocated(arena: Arena, nbytes: int) -> memoryview:
    memory = arena.allocate(nbytes)
    assert memory is not None
    return memory
