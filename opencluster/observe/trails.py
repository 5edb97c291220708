"""How much memory and processor each process used lately, as its figures told."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

POINTS = 720
"""Of a process: an hour of looks five seconds apart."""
PROCESSES = 2000
"""At most; of more, those that come last have no trail. Each takes some 20 kB."""


class Trails:
    """Keeps the last figures of each process; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trails: dict[str, _Trail] = {}

    def note(self, at: float, processes: Iterable[Mapping[str, Any]]) -> None:
        """Keep what a status says of processes; who is not in it is forgotten.

        Parameters
        ----------
        at : float
            When it was seen, seconds since 1970.
        processes : iterable of mapping
            Rows of workers and services.
        """
        with self._lock:
            before, self._trails = self._trails, {}
            for row in processes:
                if len(self._trails) < PROCESSES:
                    trail = before.get(row["id"]) or _Trail()
                    trail.add(at, row["rss_bytes"] or 0.0, row["cpu_percent"] or 0.0)
                    self._trails[row["id"]] = trail

    def of(self, identity: str) -> dict[str, list[float]]:
        """Return the figures of a process.

        Returns
        -------
        dict
            ``at`` (seconds since 1970), ``rss_bytes`` and ``cpu_percent``, of equal
            length; empty for a process that is not known.
        """
        with self._lock:
            trail = self._trails.get(identity) or _Trail()
            return {
                "at": list(trail.at[-POINTS:]),
                "rss_bytes": list(trail.rss[-POINTS:]),
                "cpu_percent": list(trail.cpu[-POINTS:]),
            }


class _Trail:
    """The figures of one process, in little memory."""

    def __init__(self) -> None:
        self.at = array("d")
        self.rss = array("d")
        self.cpu = array("f")

    def add(self, at: float, rss_bytes: float, cpu_percent: float) -> None:
        for column, value in (
            *((self.at, at), (self.rss, rss_bytes)),
            (self.cpu, cpu_percent),
        ):
            column.append(value)
            # seldom, as it moves everything
            if len(column) >= 2 * POINTS:
                del column[:-POINTS]
