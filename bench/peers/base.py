"""The one interface behind which OpenCluster and every peer is measured.

A peer is driven by one process, which plays the user: it has the pieces, hands them out
and takes the results in. What the workers do with a piece is in `bench.tasks`, the same
for all. A peer that cannot do one of these does not define it, and is left out there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Self

Sums = Iterable[tuple[int, int]]
"""Number of each block, and what `tasks.touch` said of it."""

DRIVER = "bench.driver"


class Peer:
    """One way to have pieces performed by other processes.

    Attributes
    ----------
    note : str
        What a reader of the figures has to know of it, empty for nothing.
    only : tuple of str
        The methods that it is measured by, empty for all that it defines.
    """

    note: str = ""
    only: tuple[str, ...] = ()

    @classmethod
    def command(cls, home: str, workers: int) -> list[str]:
        """Return the command that starts the process which drives the peer.

        Parameters
        ----------
        home : str
            Of the peer, as the catalogue has it.
        workers : int
            How many there will be.
        """
        return [sys.executable, "-m", DRIVER, home]

    @classmethod
    @contextlib.contextmanager
    def started(cls, workers: int) -> Iterator[Self]:
        """Start one in this process, and end it after the block."""
        peer = cls()
        peer.start(workers)
        try:
            yield peer
        finally:
            peer.close()

    @classmethod
    def can(cls, what: str) -> bool:
        """Return whether the peer defines a method of this name, and is to use it."""
        is_meant = not cls.only or what in cls.only
        return is_meant and getattr(cls, what) is not getattr(Peer, what)

    def start(self, workers: int) -> None:
        """Bring so many workers up, each a process; all are ready on return."""
        raise NotImplementedError

    def start_packed(self, workers: int) -> None:
        """Bring many workers up in few processes, each with connections of its own."""
        raise NotImplementedError

    def awake(self) -> AbstractContextManager[None]:
        """Return a context in which work is done; beyond it nothing may spin."""
        return contextlib.nullcontext()

    def noop(self) -> None:
        """Have one trivial piece performed by one worker, and wait for the answer."""
        raise NotImplementedError

    def noops(self, count: int) -> int:
        """Have many trivial pieces performed, in the way that is fastest.

        Returns
        -------
        int
            How many answers came.
        """
        raise NotImplementedError

    def submits(self, count: int) -> int:
        """Have many trivial pieces performed, each by a call of its own.

        Returns
        -------
        int
            How many answers came.
        """
        raise NotImplementedError

    def blocks(self, count: int, size: int) -> Sums:
        """Send so many fresh blocks of so many bytes, and return what was answered."""
        raise NotImplementedError

    def results(self, count: int, size: int) -> Sums:
        """Have so many blocks made by the workers, and touch each here."""
        raise NotImplementedError

    def blocks_in_place(self, count: int, size: int) -> Sums:
        """Send blocks as `blocks` does, from memory that is used again."""
        raise NotImplementedError

    def results_in_place(self, count: int, size: int) -> Sums:
        """Have blocks made as `results` does, in memory that is used again."""
        raise NotImplementedError

    def spread(self, block: Any) -> AbstractContextManager[list[int]]:
        """Give one block to all workers, who have it as long as the context lasts.

        Yields
        ------
        list of int
            What each worker said of it.
        """
        raise NotImplementedError

    def keep_arrays(self, count: int, size: int) -> Any:
        """Have so many arrays made by the workers, and return what stands for them.

        Each is full of its number, and stays with the worker that made it.
        """
        raise NotImplementedError

    def joined(self, arrays: Any) -> Any:
        """Return the sum of what `keep_arrays` returned, an array in this process."""
        raise NotImplementedError

    def worker_pids(self) -> list[int]:
        """Return the processes that perform pieces."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything that was started, whatever state it is in."""
        raise NotImplementedError
