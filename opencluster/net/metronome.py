"""When a member's heartbeats are due: at the pace that the leader of factories sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from opencluster.net.reactor import Reactor, Timer

MIN_INTERVAL_S = 0.01
"""A factory that asks for them more often makes no sense: no work would be done."""


class Metronome:
    """Runs a callback again and again; for use in the reactor's thread.

    Parameters
    ----------
    reactor : Reactor
        Whose timers are used.
    interval_s : float
        Time between two heartbeats, as long as no factory asks for another.
    lease_s : float
        How long a heartbeat lasts: there must be two of them in that time.
    callback : callable
        Sends a heartbeat.
    """

    def __init__(
        self,
        reactor: Reactor,
        interval_s: float,
        lease_s: float,
        callback: Callable[[], None],
    ) -> None:
        self.interval_s = interval_s
        self._most_s = lease_s / 2
        self._reactor = reactor
        self._callback = callback
        self._timer: Timer | None = None

    def start(self, delay_s: float | None = None) -> None:
        """Begin, after a delay; by default after one interval."""
        self._wait(self.interval_s if delay_s is None else delay_s)

    def answered(self, asked: Future[Any]) -> None:
        """Do as a factory asks in its answer to a heartbeat; nonsense is ignored."""
        body = None if asked.exception() is not None else asked.result()
        if not isinstance(body, Mapping):
            return
        self.interval_s = self._read(body, "heartbeat_interval_s", self.interval_s)
        wait_s = self._read(body, "heartbeat_in_s", 0.0)
        if wait_s:
            self._wait(wait_s)

    def _read(self, body: Mapping[str, Any], name: str, otherwise: float) -> float:
        wanted = body.get(name)
        if isinstance(wanted, float) and MIN_INTERVAL_S <= wanted <= self._most_s:
            return wanted
        return otherwise

    def _wait(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.after(delay_s, self._beat)

    def _beat(self) -> None:
        self._wait(self.interval_s)
        self._callback()
