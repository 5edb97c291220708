"""A workshop, whose processes are none, so that thousands start in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from fuzz_clients import OVERRIDES, ClientEpisode, worker_entry
from fuzz_episode import Good
from fuzz_mutation import pack
from fuzz_net import INBOUND, HandReactor

from opencluster import factory as factory_module
from opencluster import workshop as module
from opencluster.config import CatalogueEntry
from opencluster.core.entries import Entry
from opencluster.core.roles import ASKER, WORKSHOP
from opencluster.errors import DeathEvidence
from opencluster.net.transport import Peer
from opencluster.node import cgroup, floor
from opencluster.node.bench import Death
from opencluster.place import Place
from opencluster.wire import frames, kinds
from opencluster.workshop import Workshop

CLIENTS = [INBOUND + name for name in (b"manager", b"cli")]
MAX_TYPES = 6
MAX_PROCESSES = 20


class NoBench:
    """A process that is started, becomes ready or fails, and ends when it is asked."""

    count = 0
    random = Random(0)

    def __init__(self, name: str, catalogued: CatalogueEntry, *settings: Any) -> None:
        NoBench.count += 1
        self.name = name
        self.entry: Entry | None = None
        self._number = NoBench.count
        self._is_over = False
        self.is_handing_over = self.random.random() < 0.1
        self.process = SimpleNamespace(pid=4000 + self._number, pidfd=-1, output_fd=-1)

    worker_id = property(lambda self: self.entry.id if self.entry else "")

    def start(self, gpus: Any) -> None:
        """Start, and maybe end at once."""
        self._is_over = self.random.random() < 0.1

    def poll(self, now: float) -> bool:
        """Become ready."""
        if self.entry is not None:
            return False
        self.entry = worker_entry(self._number % 1000)
        return True

    def figures(self) -> dict[str, Any]:
        """Say how it is doing."""
        return {"state": "idle"}

    def pump(self) -> bool:
        """Print nothing."""
        return True

    def asked_to_end(self, number: Any) -> None:
        """End."""
        self._is_over = True

    def enforce(self, now: float, piece: str, reason: str) -> bool:
        """End, when that piece runs."""
        self._is_over = piece == "p:1"
        return self._is_over

    def condemn(self, reason: str) -> None:
        """End."""
        self._is_over = True

    def end(self) -> Death | None:
        """Return how it ended, if it did."""
        evidence = DeathEvidence("it ended", exit_code=1, output="no\n")
        return Death(evidence, False) if self._is_over else None

    def close(self) -> None:
        """Leave nothing behind."""


# --- what is asked of a workshop: one function for each operation --------------------


def status(random: Random) -> dict[str, Any]:
    return {}


def start(random: Random) -> dict[str, Any]:
    entry = asdict(CatalogueEntry("worker", f"T{random.randrange(5)}", target="a:B"))
    entry |= {"command": [], "cpus": [0, 1], "max_memory": 1 << 30}
    entry |= {"environment": {"A": "b"}, "arguments": {"x": [1, {"y": None}]}}
    return {"entry": entry, "count": random.randrange(3)}


def scale(random: Random) -> dict[str, Any]:
    return {"type": f"T{random.randrange(5)}", "count": random.randrange(3)}


def stop(random: Random) -> dict[str, Any]:
    return {"name": f"T{random.randrange(5)}-{random.randrange(1, 4)}"}


def restart(random: Random) -> dict[str, Any]:
    return stop(random)


def enforce(random: Random) -> dict[str, Any]:
    return {"worker": stop(random)["name"], "piece": random.choice(["p:1", "p:2"])}


REQUESTS: list[Callable[[Random], dict[str, Any]]] = [
    *(status, start, start, scale, stop, restart, enforce)
]


class WorkshopEpisode(ClientEpisode):
    """Processes are asked for, and end when they like."""

    name = "workshop"
    modules = (factory_module, module)
    stand_ins = (
        (floor, "Bench", NoBench),
        (floor, "sweep_orphans", lambda *nothing: 0),
        (floor, "probe", list),
        (floor, "MAX_PROCESSES", MAX_PROCESSES),
        (cgroup.Cgroups, "detect", lambda name: None),
        (module, "Measurer", lambda: SimpleNamespace(sample=dict)),
    )
    takes_requests = True
    operations = frozenset(make.__name__ for make in REQUESTS)
    is_prompt = False

    def __init__(self, random: Random) -> None:
        limits = {
            ("limits", "max_types"): str(MAX_TYPES),
            # enough for all that this workshop runs
            ("limits", "max_entries_per_client"): "1000",
            ("factory", "max_entries"): "1000",
        }
        super().__init__(random, OVERRIDES | limits)
        NoBench.random = random
        NoBench.count = 0
        self.shop = Workshop(self.settings, Place(Path(self.behind.path, "shop")))
        self.shop._metronome.start()
        self.reactor.after(0.1, self.shop._poll)
        self.shop._floor.open()
        self.talk(3.0)

    @property
    def reactor(self) -> HandReactor:
        reactor: Any = self.shop._reactor
        return reactor

    def receiver(self, peer: Peer, fields: list[Any]) -> tuple[str, str]:
        if fields[0] == kinds.REQUEST and len(fields) == 4:
            return WORKSHOP, fields[2]
        return ASKER, fields[0]

    def message(self) -> Good:
        random = self.random
        if random.random() < 0.3:
            return self.mail()
        make = random.choice(REQUESTS)
        number = random.randrange(1, 1000)
        fields = [kinds.REQUEST, number, make.__name__, make(random)]
        return random.choice(CLIENTS), fields, []

    def happen(self) -> None:
        random = self.random
        benches = list(self.shop._floor._benches.values())
        if benches and random.random() < 0.4:
            bench: Any = random.choice(benches)
            bench.condemn("an accident")
        else:
            super().happen()

    def check(self) -> None:
        super().check()
        room = self.shop._floor
        room._supervision.check_invariants()
        assert len(room.catalogue) <= MAX_TYPES
        assert len(room._benches) <= MAX_TYPES * MAX_PROCESSES
        assert len(room._awaited) <= MAX_TYPES * MAX_PROCESSES
        assert len(self.shop._failures) <= MAX_TYPES
        self.check_link(self.shop._link)

    def answers(self) -> None:
        self.talk(90.0)
        answered = self.transport.replies
        assert answered == self.requests, f"{answered} of {self.requests} answered"
        peer = INBOUND + b"the last one"
        for number, operation in enumerate(("status", "surprise")):
            fields = [kinds.REQUEST, number, operation, {}]
            self.reactor.transport.sent.clear()
            self.deliver(peer, pack(fields))
            replies = [f for p, f in self.transport.said(kinds.REPLY) if p == peer]
            assert replies[0][1:3] == [number, operation == "status"]
        registry = self.behind.factory.registry
        here = {entry.id: entry for entry in registry.find()}
        assert self.shop.id in here, "it is not registered"
        for entry in self.shop._floor.entries():
            assert entry.id in here, f"{entry.name} is not registered"
        assert frames.pack("x")

    def close(self) -> None:
        self.shop._claim.release()
        super().close()
