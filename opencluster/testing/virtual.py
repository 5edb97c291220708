"""Virtual time and a virtual network, to test a protocol against what networks do.

Nothing here reads a clock, sleeps or starts a thread: whatever happens, happens in one
heap of events, and all chance comes from one `random.Random`. So a run that fails is
repeated exactly by its seed.

Example
-------
>>> loop = VirtualLoop()
>>> network = VirtualNetwork(loop, random.Random(7))
>>> network.faults = Faults(loss=0.2, duplication=0.1)
>>> network.attach("a", lambda sender, message: print(sender, message))
>>> network.send("b", "a", "hello")
>>> loop.run(until=10.0)
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

Receiver = Callable[[str, Any], None]
"""Takes a sender's name and a message."""

_Event = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class VirtualLoop:
    """Events in the order of their virtual time; equal times in the order of planning.

    Parameters
    ----------
    max_events : int
        More than these are not planned: something goes round in circles.

    Attributes
    ----------
    now : float
        The virtual time, in seconds.
    """

    __slots__ = ("_events", "_max_events", "_planned", "now")

    def __init__(self, max_events: int = 10_000_000) -> None:
        self.now = 0.0
        self._max_events = max_events
        self._events: list[_Event] = []
        self._planned = 0

    def at(self, time: float, callback: Callable[..., None], *args: Any) -> None:
        """Call back at a time, or now when that is over.

        Raises
        ------
        RuntimeError
            When that is one event too many.
        """
        self._planned += 1
        if self._planned > self._max_events:
            raise RuntimeError(f"{self._max_events} events, and it goes on")
        due = time if time > self.now else self.now
        heapq.heappush(self._events, (due, self._planned, callback, args))

    def after(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        """Call back after a delay, in seconds."""
        self.at(self.now + delay_s, callback, *args)

    def step(self) -> bool:
        """Let the next event happen; ``False`` when nothing is planned."""
        if not self._events:
            return False
        self.now, _, callback, args = heapq.heappop(self._events)
        callback(*args)
        return True

    def run(self, until: float) -> None:
        """Let everything happen up to a time, which it is then."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= until:
            self.now, _, callback, args = pop(events)
            callback(*args)
        self.now = max(self.now, until)

    def __len__(self) -> int:
        return len(self._events)


class VirtualClock:
    """What one process reads as the time: off, too fast or slow, and it may jump.

    Parameters
    ----------
    loop : VirtualLoop
        Whose time passes.
    rate : float
        Seconds that pass on this clock in a second of the loop's.
    reading_s : float
        What it reads at first.
    """

    __slots__ = ("_loop", "_reading_s", "_since", "rate")

    def __init__(
        self, loop: VirtualLoop, rate: float = 1.0, reading_s: float = 0.0
    ) -> None:
        self.rate = rate
        self._loop = loop
        self._reading_s = reading_s
        self._since = loop.now

    def now(self) -> float:
        """Return what the clock reads, in seconds."""
        return self._reading_s + (self._loop.now - self._since) * self.rate

    def jump(self, by_s: float) -> None:
        """Set the clock forward, or back when that is negative."""
        self._reading_s += by_s

    def run_at(self, rate: float) -> None:
        """Go on from here at another rate."""
        self._reading_s = self.now()
        self._since = self._loop.now
        self.rate = rate


@dataclass(frozen=True, slots=True)
class Faults:
    """How a network treats each single message.

    Attributes
    ----------
    loss, duplication : float
        Probabilities that it never arrives, and that it arrives twice.
    delay_s : float
        Typical time under way; half to one and a half times that. As each message has
        a time of its own, they overtake each other.
    lateness : float
        Probability that it is late.
    late_s : float
        By how much at most, in seconds.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay_s: float = 0.001
    lateness: float = 0.0
    late_s: float = 0.0


class VirtualNetwork:
    """Links between named nodes, which lose, delay, repeat and overtake.

    Parameters
    ----------
    loop : VirtualLoop
        When messages arrive.
    randomness : random.Random
        Decides what becomes of each message.

    Attributes
    ----------
    faults : Faults
        How messages are treated.
    lost : int
        How many never arrived.
    """

    def __init__(self, loop: VirtualLoop, randomness: random.Random) -> None:
        self.faults = Faults()
        self.lost = 0
        self._loop = loop
        self._random = randomness.random
        self._receivers: dict[str, Receiver] = {}
        self._cuts: dict[tuple[str, str], int] = {}

    # --- nodes ---------------------------------------------------------------

    def attach(self, name: str, receive: Receiver) -> None:
        """Have messages to a node received by this, from now on."""
        self._receivers[name] = receive

    def detach(self, name: str) -> None:
        """Let messages to a node be lost."""
        self._receivers.pop(name, None)

    # --- links ---------------------------------------------------------------

    def cut(self, senders: Iterable[str], receivers: Collection[str]) -> None:
        """Let nothing pass in this one direction, until as many `mend` as `cut`."""
        for link in _links(senders, receivers):
            self._cuts[link] = self._cuts.get(link, 0) + 1

    def mend(self, senders: Iterable[str], receivers: Collection[str]) -> None:
        """Take back one `cut`."""
        for link in _links(senders, receivers):
            left = self._cuts.get(link, 0) - 1
            if left > 0:
                self._cuts[link] = left
            else:
                self._cuts.pop(link, None)

    def part(self, one: Collection[str], other: Collection[str]) -> None:
        """Cut the network in two, in both directions."""
        self.cut(one, other)
        self.cut(other, one)

    def heal(self) -> None:
        """Take back every cut, and treat messages well from now on."""
        self._cuts.clear()
        self.faults = Faults(delay_s=self.faults.delay_s)

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Return whether nothing passes from one node to another."""
        return (sender, receiver) in self._cuts

    # --- messages ------------------------------------------------------------

    def send(self, sender: str, receiver: str, message: Any) -> None:
        """Send a message, which may arrive once, twice or never.

        What is under way when a link is cut arrives all the same.
        """
        faults, chance = self.faults, self._random
        if (sender, receiver) in self._cuts or chance() < faults.loss:
            self.lost += 1
            return
        self._loop.after(self.delay_s(), self._arrive, sender, receiver, message)
        if faults.duplication and chance() < faults.duplication:
            self._loop.after(self.delay_s(), self._arrive, sender, receiver, message)

    def delay_s(self) -> float:
        """Draw how long a message is under way, in seconds."""
        faults, chance = self.faults, self._random
        delay_s = faults.delay_s * (0.5 + chance())
        if faults.lateness and chance() < faults.lateness:
            delay_s += faults.late_s * chance()
        return delay_s

    def _arrive(self, sender: str, receiver: str, message: Any) -> None:
        receive = self._receivers.get(receiver)
        if receive is None:
            self.lost += 1
        else:
            receive(sender, message)


def _links(
    senders: Iterable[str], receivers: Collection[str]
) -> Iterable[tuple[str, str]]:
    return [(s, r) for s in senders for r in receivers if s != r]
