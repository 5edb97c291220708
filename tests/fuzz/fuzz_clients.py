"""Those who talk to a factory: a real one answers them, and what it says is bent."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

from fuzz_episode import Episode, Good
from fuzz_factory import NAMES, Factories, config
from fuzz_net import CLOCK, INBOUND, OUTBOUND, HandReactor, MemoryTransport, received

from opencluster import factory as factory_module
from opencluster.core.entries import Delta, Entry
from opencluster.net import control as module
from opencluster.net.control import Control
from opencluster.net.transport import Peer, PeerLost
from opencluster.wire import frames, kinds

CLIENT = INBOUND + b"client"
"""By what the factory knows the one that is looked at."""
SHOP = INBOUND + b"shop"
FACTORY = OUTBOUND + NAMES[0].encode()
"""By what the one that is looked at knows the factory."""
MAX_MAIL = 100
MAX_PENDING = 60
MAX_TIMERS = 200
OVERRIDES = {("cluster", "factories"): NAMES[0].removeprefix("tcp://")}


class Behind:
    """A factory that works as it should, and what it has said to one client."""

    def __init__(self, settings: Any) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name)
        self._factories = Factories(settings, NAMES[:1], self._directory.name)
        self._factories.wait(3.0)
        self.factory = self._factories.all[NAMES[0]]
        self.reactor = self._factories.reactor(self.factory)
        self.mail: deque[list[Any]] = deque(maxlen=MAX_MAIL)

    def pump(self, transport: MemoryTransport) -> None:
        """Bring the factory what the client said, and take up what it says."""
        for peer, header, buffers in list(transport.sent):
            if peer == FACTORY:
                transport.sent.remove((peer, header, buffers))
                self.reactor.receive(received(CLIENT, header))
        self.reactor.turn()
        for peer, header, _ in self.reactor.transport.sent:
            if peer == CLIENT:
                self.mail.append(frames.unpack(header))
        self.reactor.transport.sent.clear()

    def ask(self, operation: str, arguments: dict[str, Any]) -> None:
        """Have somebody else ask the factory something that changes the registry."""
        header = frames.pack(kinds.REQUEST, 1, operation, arguments)
        self.reactor.receive(received(SHOP, header))

    def register(self, *entries: Entry) -> None:
        """Have members registered."""
        self.ask("register", {"entries": [entry.to_fields() for entry in entries]})

    def close(self) -> None:
        """Remove its directory."""
        self._directory.cleanup()


class ClientEpisode(Episode):
    """What those who have a link to a factory have in common."""

    def __init__(
        self, random: Random, overrides: Mapping[tuple[str, str], str] = OVERRIDES
    ) -> None:
        super().__init__(random)
        self.settings = config("courtesy", overrides)
        self.behind = Behind(self.settings)

    def mail(self) -> Good:
        """Return something that the factory said, or has not said in vain."""
        self.behind.pump(self.transport)
        mail = self.behind.mail
        while not mail:
            self.tick(0.2)
            self.behind.pump(self.transport)
        # mostly in order, as a connection keeps it
        fields = mail.popleft()
        return FACTORY, fields, []

    def tick(self, seconds: float) -> None:
        """Let time pass, for both."""
        CLOCK.now += seconds
        self.reactor.turn()
        self.behind.reactor.turn()

    def talk(self, seconds: float) -> None:
        """Let both talk, undisturbed."""
        end = CLOCK.now + seconds
        while CLOCK.now < end:
            self.tick(0.1)
            self.behind.pump(self.transport)
            while self.behind.mail:
                header = frames.pack(*self.behind.mail.popleft())
                self.reactor.receive(received(FACTORY, header))

    def happen(self) -> None:
        random = self.random
        dice = random.randrange(4)
        if dice == 0:
            self.reactor.receive(PeerLost(FACTORY))
        elif dice == 1:
            self.tick(random.choice([0.1, 2.0, 12.0]))
        else:
            self.talk(random.choice([0.5, 3.0]))

    def check(self) -> None:
        assert self.reactor.waiting < MAX_TIMERS

    def check_link(self, link: Any) -> None:
        assert len(link.requests._pending) < MAX_PENDING
        assert len(link._waiting) < MAX_PENDING
        assert len(link._peers) <= 4 and len(link._names) <= 4

    def close(self) -> None:
        self.behind.close()


class ControlEpisode(ClientEpisode):
    """The link of a command, which follows the registry besides."""

    name = "link"
    modules = (factory_module, module)

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.control = Control(self.settings, lambda: [NAMES[:1]])
        self.link = self.control._link
        self.told: dict[str, Entry] = {}
        self.asked: list[Future[Any]] = []
        self.link.subscribe(self.changed)
        self.number = 0

    @property
    def reactor(self) -> HandReactor:
        reactor: Any = self.control._reactor
        return reactor

    def changed(self, delta: Delta) -> None:
        if delta.entry is None:
            self.told.pop(delta.id, None)
        else:
            self.told[delta.id] = delta.entry

    def message(self) -> Good:
        random = self.random
        if random.random() < 0.3:
            self.number += 1
            name = f"T-{random.randrange(9)}"
            entry = Entry(f"w{random.randrange(9)}", "worker", type="T", name=name)
            if random.random() < 0.3:
                self.behind.ask("deregister", {"id": entry.id})
            else:
                self.behind.register(entry)
        if random.random() < 0.2 and len(self.asked) < 20:
            operation = random.choice(["find", "status", "hello", "surprise"])
            self.asked.append(self.link.request(operation, {}))
        return self.mail()

    def check(self) -> None:
        super().check()
        self.check_link(self.link)
        self.asked = [future for future in self.asked if not future.done()]

    def answers(self) -> None:
        self.talk(60.0)
        assert not [future for future in self.asked if not future.done()]
        member = Entry("the last one", "worker", type="T", name="last")
        self.behind.register(member)
        self.talk(2.0)
        asked = self.link.request("find", {"kind": "worker"})
        self.talk(2.0)
        assert "the last one" in [row["id"] for row in asked.result(0)]
        # what looked true was believed, so that it may be no copy of the registry
        assert "the last one" in self.link.replica.entries
        assert self.told == self.link.replica.entries, "not every change was told"


Submit = Callable[[], None]
"""Not a message: something that a user does."""


def worker_entry(number: int, address: str = "10.0.0.1") -> Entry:
    """Return a worker that somebody may connect to."""
    return Entry(
        id=f"w{number}",
        kind="worker",
        type="T",
        name=f"T-{number}",
        host="node7",
        host_id="elsewhere",
        pid=4000 + number,
        endpoints=(f"tcp://{address}:{9000 + number}",),
        workshop="shop",
        attributes={"concurrency": 0},
    )


def peer_of(entry: Entry) -> Peer:
    """Return by what a manager knows a worker."""
    return OUTBOUND + entry.endpoints[0].encode()
