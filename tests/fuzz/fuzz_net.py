"""A net in memory, and time that only the fuzzer moves.

What stands here takes the place of sockets, threads and the clock, so that thousands
of messages a second reach the very handlers that a process has, in an order that a
seed decides. An error that a reactor would log and survive is raised here.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from random import Random
from typing import Any
from unittest.mock import patch

from opencluster.config import Config
from opencluster.core.roles import TRUSTED, Credential
from opencluster.net.keys import Keyring
from opencluster.net.reactor import Timer
from opencluster.net.transport import (
    Peer,
    Received,
    TransportCounts,
    TransportEvent,
)
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire import frames, kinds

INBOUND, OUTBOUND = b"<", b">"
SENT_KEPT = 10_000
"""Messages that are remembered, as a test may look at the newest ones only."""
MAX_TURNS = 1000
"""Callbacks that one event may set off one after the other."""


class Clock:
    """The time of an episode; real time does not pass in it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time, a little later than at the last look."""
        self.now += 1e-6
        return self.now

    def time(self) -> float:
        """Return the time of day."""
        return 1.6e9 + self.now

    def sleep(self, seconds: float) -> None:
        """Nobody may wait in the thread of the sockets."""
        raise AssertionError(f"a handler slept for {seconds} s")


class MemoryTransport:
    """A transport whose messages are kept in a list.

    Takes the parameters that the real one has, and keeps them as its settings.
    """

    schemes = ("tcp://", "ipc://")

    def __init__(self, *settings: Any, **more: Any) -> None:
        self.settings = signature(ZmqTransport).bind(*settings, **more).arguments
        self.counts = TransportCounts()
        self.identity = b"0123456789abcdef"
        self.keys = None
        self.public_key = ""
        self.sent: deque[tuple[Peer, bytes, Sequence[Any]]] = deque(maxlen=SENT_KEPT)
        self._replies: Counter[Peer] = Counter()
        self.gone: set[Peer] = set()
        self.connections: dict[str, Peer] = {}
        self._ports = itertools.count(40_000)

    def listen(self, endpoint: str) -> str:
        """Return the endpoint, with a port."""
        if endpoint.endswith(":0"):
            return f"{endpoint[:-1]}{next(self._ports)}"
        return endpoint

    def connect(self, endpoint: str, *more: Any) -> Peer:
        """Return who is reached there."""
        return self.connections.setdefault(endpoint, OUTBOUND + endpoint.encode())

    def disconnect(self, peer: Peer) -> None:
        """Forget who was reached."""
        self.connections = {e: p for e, p in self.connections.items() if p != peer}

    def refusal(self, peer: Peer) -> str:
        """Nobody is refused by a handshake, as there is none."""
        return ""

    def send(self, peer: Peer, header: bytes, buffers: Sequence[Any] = ()) -> bool:
        """Remember a message."""
        if peer in self.gone:
            return False
        self.sent.append((peer, bytes(header), list(buffers)))
        if b"reply" in header[5:12]:
            self._replies[peer] += 1
        return True

    def coming(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Nothing comes in parts."""
        return []

    def refuse(self, peer: Peer, number: int) -> None:
        """Nothing comes in parts."""

    def pollables(self) -> list[Any]:
        """There is nothing to poll."""
        return []

    def receive(self, ready: object = None) -> list[TransportEvent]:
        """Nothing comes by itself."""
        return []

    def close(self, linger_s: float = 0.0) -> None:
        """There is nothing to close."""

    def replies_to(self, peer: Peer) -> int:
        """Return how many replies a peer was sent."""
        return self._replies[peer]

    @property
    def replies(self) -> int:
        """How many replies were sent to anybody."""
        return self._replies.total()

    def last_reply(self, peer: Peer) -> list[Any]:
        """Return the fields of the newest reply to a peer."""
        for to, header, _ in reversed(self.sent):
            fields = frames.unpack(header)
            if to == peer and fields[0] == kinds.REPLY:
                return fields
        raise AssertionError("no reply was sent")

    def forget_all_but(self, peer: Peer) -> None:
        """Forget what others were sent."""
        kept = [message for message in self.sent if message[0] == peer]
        self.sent.clear()
        self.sent.extend(kept)

    def said(self, kind: str) -> Iterator[tuple[Peer, list[Any]]]:
        """Return to whom messages of a kind went, and their fields."""
        for peer, header, _ in self.sent:
            fields = frames.unpack(header)
            if fields[0] == kind:
                yield peer, fields


class HandReactor:
    """A reactor that turns when it is told to, in the thread that tells it."""

    def __init__(
        self,
        transport: MemoryTransport,
        on_event: Callable[[TransportEvent], None],
        *settings: Any,
        **more: Any,
    ) -> None:
        self.transport = transport
        self.on_event = on_event
        self.is_stopped = False
        self._posted: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._on_idle: list[Callable[[], None]] = []
        self._clock: Clock | None = None

    is_current = True

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in the next turn."""
        self._posted.append(callback)

    def serve_turn(self, callback: Callable[[], None] | None = None) -> bool:
        """Have a callback run in the next turn, which is for the test to make."""
        if callback is not None:
            self._posted.append(callback)
        return False

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback once, after a delay."""
        return self._schedule(delay_s, Timer(callback, 0.0))

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Run a callback again and again."""
        return self._schedule(interval_s, Timer(callback, interval_s))

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Nothing is to be read from any file."""

    def unwatch(self, fd: int) -> None:
        """Nothing is to be read from any file."""

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Run a callback at the end of every turn."""
        self._on_idle.append(callback)

    def start(self, name: str = "") -> None:
        """Whoever has the reactor turns it."""

    def join(self, timeout_s: float | None = None) -> None:
        """There is no thread."""

    def stop(self) -> None:
        """Take note of the wish."""
        self.is_stopped = True

    def receive(self, event: TransportEvent) -> None:
        """Handle an event, and what it sets off."""
        self.on_event(event)
        self.turn()

    def turn(self) -> None:
        """Run what was posted, what is due, and what that brings about."""
        turns = 0
        while self._posted or (self._timers and self._timers[0][0] <= CLOCK.now):
            turns += 1
            assert turns < MAX_TURNS, "callbacks without end"
            if self._posted:
                self._posted.popleft()()
                continue
            timer = heapq.heappop(self._timers)[2]
            if not timer.is_cancelled:
                timer.callback()
                if timer.interval_s and not timer.is_cancelled:
                    self._schedule(timer.interval_s, timer)
        for callback in self._on_idle:
            callback()

    @property
    def waiting(self) -> int:
        """How many timers wait that are not cancelled."""
        return sum(not timer.is_cancelled for _, _, timer in self._timers)

    def _schedule(self, delay_s: float, timer: Timer) -> Timer:
        at = CLOCK.now + delay_s
        heapq.heappush(self._timers, (at, next(self._count), timer))
        return timer


def _transport_of(config: Config, keys: Keyring | None) -> MemoryTransport:
    return MemoryTransport(config.network.max_message_bytes, keys=keys)


CLOCK = Clock()
"""The one clock, as the handlers know only that of the process."""


@contextmanager
def in_memory(
    modules: Iterable[Any], stand_ins: Iterable[tuple[Any, str, Any]] = ()
) -> Iterator[None]:
    """Give modules a net in memory instead of sockets, and stop the clock."""
    with ExitStack() as stack:
        for module, name, stand_in in stand_ins:
            stack.enter_context(patch.object(module, name, stand_in))
        for module in modules:
            for name, stand_in in (
                ("ZmqTransport", MemoryTransport),
                ("open_transport", _transport_of),
                ("Reactor", HandReactor),
            ):
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, stand_in))
        CLOCK.now = 1000.0
        for name in ("monotonic", "time", "sleep"):
            stack.enter_context(patch(f"time.{name}", getattr(CLOCK, name)))
        # what differs from run to run is the same in each run of an episode
        stack.enter_context(patch("os.getpid", lambda: 4242))
        chance = Random(7)
        stack.enter_context(patch("random.SystemRandom", lambda: chance))
        stack.enter_context(patch("os.urandom", chance.randbytes))
        yield


def received(
    peer: Peer,
    header: bytes,
    buffers: Sequence[Any] = (),
    who: Credential = TRUSTED,
) -> Received:
    """Return the event of a message, its buffers as a transport gives them."""
    return Received(peer, header, [memoryview(bytes(b)) for b in buffers], who)
