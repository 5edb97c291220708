"""What every simulated process has: a clock of its own, timers, pauses and an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opencluster.testing.virtual import VirtualClock

if TYPE_CHECKING:
    from sim_wires import Wire
    from sim_world import World

ALARM_S = 0.001
"""A timer that is due already rings after this long."""


class Process:
    """One life of a process; restarted, it is another object.

    Attributes
    ----------
    node : str
        The computer that it runs on.
    identity : str
        Unique for this life.
    inbound : dict of str to Wire
        By whom it is connected to.
    """

    acting: Process
    """Whose event is handled at this moment."""

    def __init__(
        self, world: World, name: str, node: str, clock: VirtualClock | None = None
    ) -> None:
        self.world = world
        self.name = name
        self.node = node
        self.identity = world.new_identity(name)
        self.clock = clock or VirtualClock(world.loop)
        self.is_alive = True
        self.is_paused = False
        self.inbound: dict[str, Wire] = {}
        self.outbound: dict[Wire, None] = {}
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._rung: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def now(self) -> float:
        """Return what the process takes for the time."""
        return self.clock.now()

    def log(self, what: str, *details: Any) -> None:
        """Write a line into the trace, when there is one."""
        if self.world.trace is not None:
            self.world.trace.write(self.name, what, details)

    # --- events --------------------------------------------------------------

    def take(self, handler: Callable[..., None], *args: Any) -> None:
        """Let something happen to the process, once it is awake."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._held.append((handler, args))
            return
        Process.acting = self
        handler(*args)
        self.check()

    def every(self, interval_s: float, callback: Callable[[], None]) -> None:
        """Call back again and again."""
        interval_s /= self.clock.rate
        self.world.loop.after(interval_s, self._ring, interval_s, callback)

    def after(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        """Call back once."""
        delay_s = max(ALARM_S, delay_s / self.clock.rate)
        self.world.loop.after(delay_s, self._alarm, callback, args)

    def check(self) -> None:
        """Check what must hold after each event of this process."""

    def _ring(self, interval_s: float, callback: Callable[[], None]) -> None:
        if not self.is_alive:
            return
        if self.is_paused:
            self._rung.append((self._ring, (interval_s, callback)))
            return
        Process.acting = self
        callback()
        self.world.loop.after(interval_s, self._ring, interval_s, callback)
        self.check()

    def _alarm(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.is_paused:
            self._rung.append((self._alarm, (callback, args)))
        elif self.is_alive:
            Process.acting = self
            callback(*args)
            self.check()

    # --- what others do to it ------------------------------------------------

    def pause(self) -> None:
        """Stop it, as SIGSTOP does."""
        self.log("is stopped")
        self.is_paused = True
        self.world.wires.paused(self)

    def wake(self) -> None:
        """Let it go on, and find all that came meanwhile at once: messages first."""
        if not self.is_paused or not self.is_alive:
            return
        self.log("goes on")
        self.is_paused = False
        waiting = self._held + self._rung
        self._held, self._rung = [], []
        for handler, args in waiting:
            if handler in (self._ring, self._alarm):
                handler(*args)
            else:
                self.take(handler, *args)
        self.world.wires.stir()

    def crash(self) -> None:
        """End it without a word."""
        if self.is_alive:
            self.log("ends")
            self.is_alive = False
            self._held, self._rung = [], []
            self.world.wires.crashed(self)

    # --- the ends of connections: what a process does about them --------------

    def connected(self, wire: Wire) -> None:
        """Take note that a connection which it opened stands."""

    def lost(self, wire: Wire) -> None:
        """Take note that a connection which it opened broke."""

    def answered(self, wire: Wire, message: tuple[Any, ...]) -> None:
        """Take a message over a connection which it opened."""

    def heard(self, key: str, message: tuple[Any, ...]) -> None:
        """Take a message over a connection which somebody opened to it."""
