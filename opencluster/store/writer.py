"""A thread that writes values to disk, so that nobody waits for the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from opencluster.store.spill import Spill

log = logging.getLogger(__name__)

Told = Callable[[bytes, OSError | None], None]
"""Called in the thread with the identity of a value, and why it was not written."""


class Writer:
    """Writes values one after the other; the thread begins with the first.

    Parameters
    ----------
    spill : Spill
        Where to.
    told : callable
        What is told of the end of each.
    """

    def __init__(self, spill: Spill, told: Told) -> None:
        self._spill = spill
        self._told = told
        self._queue: SimpleQueue[tuple[bytes, Sequence[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def write(self, id: bytes, parts: Sequence[Any]) -> None:
        """Have a value written."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="opencluster-spill", daemon=True
            )
            self._thread.start()
        self._queue.put((id, parts))

    def close(self) -> None:
        """Write what is being written to its end, and nothing more after it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (order := self._queue.get()) is not None:
            id, parts = order
            # a value must not be kept in memory by this frame, when it is on disk
            del order
            problem = None
            try:
                self._spill.write(id, parts)
            except OSError as error:
                problem = error
            del parts
            self._told(id, problem)
