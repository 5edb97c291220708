"""Three factories under a rain of messages: of clients, and of each other."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgpack
from fuzz_episode import Episode, Good
from fuzz_mutation import HEAD, Mutator, pack
from fuzz_net import CLOCK, INBOUND, HandReactor, received

from opencluster import factory as module
from opencluster.config import Config, load
from opencluster.core.entries import Entry
from opencluster.core.roles import FACTORY, ROLES
from opencluster.core.roll import KEY_CHARACTERS, Holder, Roll
from opencluster.factory import Factory
from opencluster.net.heart import HEART_PREFIX
from opencluster.net.keyfiles import Certificate
from opencluster.net.keys import Keyring
from opencluster.net.transport import Peer, PeerConnected, PeerLost
from opencluster.wire import figures, frames, kinds

NAMES = [f"tcp://127.0.0.1:{port}" for port in (50001, 50002, 50003)]
CLIENTS = [INBOUND + name for name in (b"shop", b"other", b"manager")]
MAX_ENTRIES = 40
MAX_SUBSCRIBERS = 2
MAX_ON_THEIR_WAY = 200


def config(quorum: str, more: Mapping[tuple[str, str], str] | None = None) -> Config:
    """Return settings under which limits are soon reached."""
    overrides = {
        ("factory", "quorum"): quorum,
        ("factory", "max_entries"): str(MAX_ENTRIES),
        ("factory", "jobs_kept"): "5",
        ("limits", "max_entries_per_client"): "15",
        ("limits", "max_subscribers"): str(MAX_SUBSCRIBERS),
    }
    return load([], environ={}, overrides=overrides | dict(more or {}))


def admitted(version: int) -> Roll:
    """Return a roll with one certificate of each role, under the role's name."""
    holders = (Holder(role, role, role[0] * KEY_CHARACTERS) for role in ROLES)
    named = {holder.public_key: holder for holder in holders}
    return Roll(version, tuple(named.values()))


def keyring() -> Keyring:
    """Return keys of a factory, which nothing is encrypted with."""
    key = FACTORY[0] * KEY_CHARACTERS
    return Keyring(Certificate(FACTORY, FACTORY, key, key, key), admitted(1))


# --- what clients say: one function for each operation ----------------------------


def entry(random: Random) -> dict[str, Any]:
    """Return what somebody registers."""
    kind = random.choice(["workshop", "worker", "worker", "service", "failure"])
    number = random.randrange(30)
    return Entry(
        id=f"{kind}-{number}",
        kind=kind,
        type="" if kind == "workshop" else random.choice(["T", "U"]),
        name=f"T-{number}",
        host="node7",
        host_id="b00t",
        pid=4000 + number,
        endpoints=(f"tcp://10.0.0.1:{9000 + number}",),
        workshop="" if kind == "workshop" else random.choice(["workshop-1", ""]),
        attributes=attributes(random, kind),
    ).to_fields()


def attributes(random: Random, kind: str) -> dict[str, Any]:
    """Return what does not change while a member lives."""
    if kind == "workshop":
        return {"catalogue": {"T": "worker", "U": "service"}}
    if kind == "failure":
        return {
            "of_kind": "worker",
            "message": "T-1 did not start",
            "output": "no such file\n" * random.randrange(5),
            "failures": 3,
            "is_failing": True,
        }
    return {"class": "a.py:A", "concurrency": 1, "has_heart": random.random() < 0.3}


def hello(random: Random) -> dict[str, Any]:
    return {}


def register(random: Random) -> dict[str, Any]:
    # fewer than a client has room for, or good ones would be refused
    return {"entries": [entry(random) for _ in range(random.randrange(1, 4))]}


def renew(random: Random) -> dict[str, Any]:
    ids = [entry(random)["id"] for _ in range(3)]
    newest: dict[str, Any] = {
        "state": "busy",
        "cpu": 0.5,
        "gpus": [{"name": "A", "memory": 1}],
    }
    packed = figures.pack(dict.fromkeys(ids, newest))
    if random.random() < 0.3:
        # bytes that make no sense harm nobody but who sent them
        newest["extension"] = msgpack.ExtType(5, b"1234")
        tree = Mutator(random).tree(dict.fromkeys(ids, newest))
        packed = pack(tree).removeprefix(HEAD)
    return {"ids": ids, "figures": packed}


def deregister(random: Random) -> dict[str, Any]:
    cause = {"reason": "killed", "exit_code": None, "peak_memory_bytes": 1, "piece": ""}
    return {"id": entry(random)["id"], "cause": random.choice([None, cause])}


def subscribe(random: Random) -> dict[str, Any]:
    return {}


def find(random: Random) -> dict[str, Any]:
    return {"kind": random.choice(["", "worker"]), "type": "T", "name": ""}


def job(random: Random) -> dict[str, Any]:
    state = random.choice(["running", "done"])
    identity = f"job-{random.randrange(9)}"
    return {"job": {"id": identity, "name": "M", "state": state, "pieces_done": 3}}


def status(random: Random) -> dict[str, Any]:
    return {}


def roll(random: Random) -> dict[str, Any]:
    return {}


def enroll(random: Random) -> dict[str, Any]:
    return {"roll": admitted(random.randrange(1, 20)).to_fields()}


REQUESTS: list[Callable[[Random], dict[str, Any]]] = [
    *(hello, register, register, renew, deregister, subscribe, find, job, status),
    *(roll, enroll),
]


def pulse(random: Random) -> tuple[Peer, list[Any]]:
    """Return the echo of a worker's heart, which says who it is by its connection."""
    known = entry(random)["id"].encode()
    identity = random.choice([known, known, b"", random.randbytes(30)])
    return INBOUND + HEART_PREFIX + identity, [kinds.PULSE]


def heartbeat(random: Random) -> tuple[Peer, list[Any]]:
    """Return a renewal that is answered only when something is amiss."""
    said = renew(random)
    return random.choice(CLIENTS), [kinds.RENEW, said["ids"], said["figures"]]


def request(random: Random) -> tuple[Peer, list[Any]]:
    """Return a request of a client."""
    make = random.choice(REQUESTS)
    number = random.randrange(1, 1000)
    return random.choice(CLIENTS), [kinds.REQUEST, number, make.__name__, make(random)]


# --- the factories ------------------------------------------------------------------


class Factories:
    """Factories in memory, and the messages that are on their way between them."""

    def __init__(
        self, config: Config, names: list[str], directory: str, has_keys: bool = False
    ) -> None:
        self.all = {
            name: Factory(
                config,
                [name],
                Path(directory, str(place)),
                names,
                name,
                keyring() if has_keys else None,
            )
            for place, name in enumerate(names)
        }
        self.mail: deque[tuple[str, str, bytes]] = deque(maxlen=MAX_ON_THEIR_WAY)
        for factory in self.all.values():
            settings = factory.config.factory
            reactor = self.reactor(factory)
            reactor.every(settings.beat_interval_s, factory._tick)
            reactor.every(config.cluster.heartbeat_interval_s, factory._beat)
            reactor.post(factory._begin)
            reactor.turn()
            for name in names:
                if name != factory.name:
                    reactor.receive(PeerConnected(b">" + name.encode()))
        self.collect()

    @staticmethod
    def reactor(factory: Factory) -> HandReactor:
        reactor: Any = factory._reactor
        return reactor

    def collect(self) -> None:
        """Take up what factories sent to each other."""
        for name, factory in self.all.items():
            sent = self.reactor(factory).transport.sent
            for peer, header, _ in list(sent):
                to = self.name_of(peer)
                kind, number = (*frames.unpack(header), None)[:2]
                # nobody takes an answer to a question that had no number
                is_vain = kind == kinds.REPLY and type(number) is not int
                if to in self.all and not is_vain:
                    self.mail.append((name, to, header))
            sent.clear()

    @staticmethod
    def name_of(peer: Peer) -> str:
        """Return which factory a connection leads to, if it does."""
        text = peer[1:].decode(errors="replace")
        return text.removeprefix("from ")

    @staticmethod
    def peer_of(name: str) -> Peer:
        """Return the connection by which a factory's messages arrive."""
        return INBOUND + b"from " + name.encode()

    def deliver_all(self) -> None:
        """Deliver what is on its way, as it is."""
        for _ in range(len(self.mail)):
            sender, to, header = self.mail.popleft()
            self.reactor(self.all[to]).receive(received(self.peer_of(sender), header))
        self.collect()

    def turn(self) -> None:
        """Let all of them do what is due, and take up what they say."""
        for factory in self.all.values():
            self.reactor(factory).turn()
        self.collect()

    def wait(self, seconds: float) -> None:
        """Let time pass for all of them, on a net without faults."""
        end = CLOCK.now + seconds
        while CLOCK.now < end:
            CLOCK.now = min(end, CLOCK.now + 0.1)
            self.turn()
            self.deliver_all()

    def leaders(self) -> list[Factory]:
        """Return those that lead."""
        return [f for f in self.all.values() if f._core.election.may_write(CLOCK.now)]


class FactoryEpisode(Episode):
    """Clients and factories talk to factories, of which the first one is looked at."""

    name = "factory"
    modules = (module,)
    takes_requests = True
    operations = frozenset(make.__name__ for make in REQUESTS)

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._directory = tempfile.TemporaryDirectory()
        names = NAMES[: random.choice([1, 3, 3])]
        settings = config(random.choice(["courtesy", "majority"]))
        self.factories = Factories(settings, names, self._directory.name, self.has_keys)
        self.factories.wait(3.0)
        self.target = self.factories.all[random.choice(names)]

    @property
    def reactor(self) -> HandReactor:
        return self.factories.reactor(self.target)

    def receiver(self, peer: Peer, fields: list[Any]) -> tuple[str, str]:
        if fields[0] == kinds.REQUEST and len(fields) == 4:
            return FACTORY, fields[2]
        # a factory asks nobody but factories
        return FACTORY, kinds.FACTORY if fields[0] == kinds.REPLY else fields[0]

    def message(self) -> Good:
        random = self.random
        self.target = random.choice(list(self.factories.all.values()))
        CLOCK.now += random.choice([0.0, 0.0, 0.05, 0.2])
        self.factories.turn()
        if self.factories.mail and random.random() < 0.5:
            sender, to, header = self.factories.mail.popleft()
            self.target = self.factories.all[to]
            return self.factories.peer_of(sender), frames.unpack(header), []
        say = random.choices([pulse, heartbeat, request], [1, 2, 17])[0]
        return *say(random), []

    def happen(self) -> None:
        random = self.random
        dice = random.randrange(4)
        names = [name for name in self.factories.all if name != self.target.name]
        if dice == 0 and names:
            peer = b">" + random.choice(names).encode()
            self.reactor.receive(PeerLost(peer))
            self.reactor.receive(PeerConnected(peer))
        elif dice == 1:
            gone = self.transport.gone
            gone ^= {random.choice(CLIENTS)}
        else:
            self.factories.wait(random.choice([0.1, 0.3, 2.0, 11.0]))

    def check(self) -> None:
        for factory in self.factories.all.values():
            factory._core.check_invariants()
            assert len(factory._subscribers) <= MAX_SUBSCRIBERS
            assert self.factories.reactor(factory).waiting < 50
            assert len(factory._core.followers) <= 64
            assert len(factory._core._subscribed) <= 64

    def answers(self) -> None:
        for factory in self.factories.all.values():
            self.factories.reactor(factory).transport.gone.clear()
        self.factories.wait(15.0)
        leaders = self.factories.leaders()
        assert len(leaders) == 1, f"{len(leaders)} lead after all is quiet"
        self.target = leaders[0]
        member = entry(self.random) | {"id": "the last one", "kind": "worker"}
        self.ask("register", {"entries": [member]})
        found = self.ask("find", {"kind": "worker"})
        assert "the last one" in [row["id"] for row in found]
        for target in self.factories.all.values():
            self.target = target
            self.factories.wait(0.5)
            rows = self.ask("status", {})["entries"]
            assert "the last one" in [row["id"] for row in rows]

    def ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Ask the target something, and return what it answers."""
        peer = INBOUND + b"asker"
        fields = [kinds.REQUEST, 7, operation, arguments]
        self.deliver(peer, pack(fields), is_good=True)
        reply = self.transport.last_reply(peer)
        assert reply[1:3] == [7, True], reply
        return reply[3]

    def close(self) -> None:
        self._directory.cleanup()
