"""Real-time pieces that have waited for too long, and for which others make way.

Owns when Dask workers are asked: for all such pieces of a type at once, however many
wait, as each question goes to all workers of the type.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from opencluster.engines.dask import runs
from opencluster.engines.dask.census import Census
from opencluster.engines.dask.tasks import Flight

HURRY_S = 0.05
"""Dask workers are asked no more often than this to make way."""


class Hurry:
    """Has batch pieces make way; for use in the thread of Dask's loop.

    Parameters
    ----------
    client : distributed.Client
        The way to the Dask cluster.
    census : Census
        Who is there.
    is_waiting : callable
        Whether a piece is not over yet, and with Dask.
    """

    def __init__(
        self, client: Any, census: Census, is_waiting: Callable[[Flight], bool]
    ) -> None:
        self._client = client
        self._census = census
        self._is_waiting = is_waiting
        self._due: dict[Flight, float] = {}
        self._is_at_it = False

    async def see_to(self, flights: Sequence[Flight]) -> None:
        """Have others make way for real-time pieces, each when it has waited."""
        now = time.monotonic()
        self._due.update((flight, now + _wait_s(flight)) for flight in flights)
        if self._is_at_it:
            return
        self._is_at_it = True
        try:
            while self._due:
                await asyncio.sleep(HURRY_S)
                await self._look(time.monotonic())
        finally:
            self._is_at_it = False

    async def _look(self, now: float) -> None:
        """Ask for those that are due, and forget those that were begun."""
        self._due = {f: at for f, at in self._due.items() if self._is_waiting(f)}
        due: dict[str, dict[str, Flight]] = {}
        for flight, at in self._due.items():
            if at <= now and flight.task is not None:
                due.setdefault(flight.task.type, {})[flight.task.key] = flight
        for type, flights in due.items():
            begun = await self._begun(type, list(flights))
            for key, flight in flights.items():
                if key in begun:
                    self._due.pop(flight, None)
                else:
                    self._due[flight] = time.monotonic() + _wait_s(flight)

    async def _begun(self, type: str, keys: Sequence[str]) -> set[str]:
        """Have a batch piece make way for each task that waits; return the others."""
        with suppress(OSError, TimeoutError):
            found = await self._client.run(
                runs.make_way,
                type,
                keys,
                workers=self._census.addresses(type),
                on_error="ignore",
            )
            return {key for begun in found.values() for key in begun}
        return set()


def _wait_s(flight: Flight) -> float:
    return max(flight.piece.wait_s or 0.0, HURRY_S)
