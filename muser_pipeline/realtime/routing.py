"""Which type of worker gets a slice: the one whose queue is over first, as measured."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence

_NEWEST = 0.2
"""Part of the newest length in the mean."""


class Queues:
    """How long the queues of some types of workers are.

    Lengths are those of images that came back; what is under way is counted in images
    too. May be used from several threads.

    Parameters
    ----------
    types : sequence of str
        The types, the preferred one first.
    """

    def __init__(self, types: Sequence[str]) -> None:
        self._types = tuple(types)
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._length_s: dict[str, float] = {}

    def send(self, workers: Mapping[str, int], images: int) -> str:
        """Choose the type that a slice goes to, and count it there.

        That is the type by which it would be done first, the preferred one if this
        makes no difference. A type of which no length is known yet is sent one slice
        to measure it, the others when all workers of the preferred one are busy.

        Parameters
        ----------
        workers : mapping of str to int
            How many workers of each type there are.
        images : int
            Of the slice.

        Returns
        -------
        str
            The type; the last one if there are no workers at all.
        """
        with self._lock:
            here = [type for type in self._types if workers.get(type, 0)]
            chosen = self._chosen(here, workers, images) if here else self._types[-1]
            self._under_way[chosen] += images
            return chosen

    def back(self, type: str, images: int, elapsed_s: float | None) -> None:
        """Take in that a slice came back.

        Parameters
        ----------
        type : str
            Where it was sent to.
        images : int
            Of the slice.
        elapsed_s : float or None
            How long it took; None if nothing came of it.
        """
        with self._lock:
            self._under_way[type] -= images
            if elapsed_s is not None:
                newest = elapsed_s / images
                before = self._length_s.get(type, newest)
                self._length_s[type] = before + _NEWEST * (newest - before)

    def wait_s(self, type: str, workers: int) -> float | None:
        """Return how long what is under way takes, or None if that is not known."""
        with self._lock:
            return self._wait_s(type, workers, 0)

    def _chosen(
        self, here: Sequence[str], workers: Mapping[str, int], images: int
    ) -> str:
        waits = {type: self._wait_s(type, workers[type], images) for type in here}
        known = {type: wait for type, wait in waits.items() if wait is not None}
        preferred = here[0]
        if self._under_way[preferred] + images <= workers[preferred]:
            return preferred
        for type in here:
            if type not in known and not self._under_way[type]:
                return type
        if not known:
            return preferred
        # of those that are alike, the first
        return min(known, key=lambda type: known[type])

    def _wait_s(self, type: str, workers: int, images: int) -> float | None:
        if type not in self._length_s:
            return None
        return (self._under_way[type] + images) * self._length_s[type] / workers
