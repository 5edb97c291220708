"""The station of a worker or service, which takes orders of managers."""

from __future__ import annotations

from random import Random
from typing import Any

from fuzz_clients import FACTORY, OVERRIDES, ClientEpisode
from fuzz_episode import Good
from fuzz_factory import NAMES
from fuzz_mutation import pack
from fuzz_net import INBOUND, HandReactor

from opencluster import factory as factory_module
from opencluster import registration
from opencluster.core.entries import Entry
from opencluster.core.inbox import RaiseException, RaiseFlag
from opencluster.core.roles import ASKER, SERVICE, WORKER
from opencluster.keeping import KEEPER_KINDS
from opencluster.net.transport import Peer
from opencluster.node.scoreboard import Scoreboard
from opencluster.registration import OwnRegistration
from opencluster.serving import station as module
from opencluster.serving.arrivals import Work
from opencluster.serving.outbox import Answer
from opencluster.serving.station import Station
from opencluster.wire import kinds

MANAGERS = [INBOUND + name for name in (b"manager", b"other")]
MAX_QUEUED = 12
MAX_QUEUED_BYTES = 3000
STATUSES = ("done", "failed", "interrupted", "timeout", "cancelled")


class StillHeart:
    """A heart without a socket."""

    def __init__(self, *settings: Any) -> None:
        self.beat_for = self.start = self.stop = lambda *nothing: None


# --- what managers say: one function for each kind ----------------------------------


def pieces(random: Random) -> tuple[list[Any], list[bytes]]:
    rows = []
    buffers = []
    for _ in range(random.randrange(1, 4)):
        own = [random.randbytes(40) for _ in range(random.randrange(3))]
        payload = random.randbytes(random.choice([0, 10, 500]))
        timeout_s = random.choice([0.0, 0.0, 0.5])
        number, priority = random.randrange(30), random.randrange(3)
        rows.append([number, priority, timeout_s, payload, len(own)])
        buffers += own
    fields = [kinds.PIECES, rows, "me"]
    if random.random() < 0.3:
        fields.append({row[0]: ties(random) for row in rows})
    return fields, buffers


def ties(random: Random) -> list[Any]:
    """Return what ties a piece to values."""
    keep = random.choice([None, identity(random)])
    return [keep, [[identity(random), random.randrange(5000), holders(random)]]]


def identity(random: Random) -> bytes:
    return bytes([random.randrange(6)]) * 16


def identities(random: Random) -> list[bytes]:
    return [identity(random) for _ in range(random.randrange(4))]


def holders(random: Random) -> list[Any]:
    names = random.sample(["w1", "w2", "me"], random.randrange(3))
    return [[name, "elsewhere", [f"tcp://{name}:1"], ""] for name in names]


def parts(random: Random) -> tuple[bytes, list[int], list[bytes]]:
    """Return the data of a value, the sizes of its parts, and its buffers."""
    buffers = [random.randbytes(random.choice([0, 7, 900])) for _ in range(2)]
    data = random.randbytes(random.choice([1, 50]))
    return data, [len(part) for part in (data, *buffers)], buffers


def put(random: Random) -> tuple[list[Any], list[bytes]]:
    data, sizes, buffers = parts(random)
    if random.random() < 0.2:
        return [kinds.PUT, random.randrange(9), identity(random), None, sizes], []
    return [kinds.PUT, random.randrange(9), identity(random), data, sizes], buffers


def copy(random: Random) -> tuple[list[Any], list[bytes]]:
    nbytes = random.randrange(5000)
    number = random.randrange(9)
    return [kinds.COPY, number, identity(random), nbytes, holders(random)], []


def refer(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.REFER, identities(random)], []


def references(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.REFERENCES, identities(random)], []


def release(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.RELEASE, identities(random)], []


def unsaved(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.UNSAVED, random.choice([0, 1, 9])], []


def fetch(random: Random) -> tuple[list[Any], list[bytes]]:
    most = random.choice([0, 100, 1 << 40])
    return [kinds.FETCH, random.randrange(9), identity(random), most], []


def value(random: Random) -> tuple[list[Any], list[bytes]]:
    data, sizes, buffers = parts(random)
    if random.random() < 0.3:
        return [kinds.VALUE, random.randrange(1, 20), None, sizes], []
    return [kinds.VALUE, random.randrange(1, 20), data, sizes], buffers


def chunk(random: Random) -> tuple[list[Any], list[bytes]]:
    nbytes = random.choice([1, 7, 50, 900])
    return [kinds.CHUNK, random.randrange(1, 20)], [random.randbytes(nbytes)]


def lost(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.LOST, random.randrange(1, 20)], []


def withdraw(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.WITHDRAW, numbers(random)], []


def cancel(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.CANCEL, numbers(random)], []


def interrupt(random: Random) -> tuple[list[Any], list[bytes]]:
    return [kinds.INTERRUPT, numbers(random)], []


def numbers(random: Random) -> list[int]:
    return [random.randrange(30) for _ in range(random.randrange(4))]


ORDERS = (
    *(pieces, pieces, withdraw, cancel, interrupt),
    *(put, copy, refer, references, release, unsaved, fetch, value),
    *(chunk, lost),
)


class WorkerEpisode(ClientEpisode):
    """Managers hand out pieces, take them back, and vanish; some pieces are run."""

    name = "worker"
    modules = (factory_module, module)
    stand_ins = ((registration, "Heart", StillHeart),)

    def __init__(self, random: Random) -> None:
        limits = {
            ("worker", "max_queued"): str(MAX_QUEUED),
            ("worker", "max_queued_bytes"): str(MAX_QUEUED_BYTES),
        }
        super().__init__(random, OVERRIDES | limits)
        self.flags: list[RaiseFlag | RaiseException] = []
        self.running: list[Work] = []
        self.concurrency = random.choice([1, 3])
        self.kind = random.choice([WORKER, SERVICE])
        self.station = Station(
            self.settings,
            self.kind,
            None,
            self.registration,
            self.flags.append,
            self.flags.append,
        )
        self.entry = Entry("me", "worker", type="T", name="T-1", host_id="here")
        self.station.open(self.entry)
        self.talk(2.0)

    def registration(self, reactor: Any) -> OwnRegistration:
        """Return the way into the registry of a worker without a workshop."""
        board = Scoreboard.anonymous()
        return OwnRegistration(reactor, lambda: [NAMES[:1]], self.settings, board)

    @property
    def reactor(self) -> HandReactor:
        reactor: Any = self.station.reactor
        return reactor

    def receiver(self, peer: Peer, fields: list[Any]) -> tuple[str, str]:
        is_order = fields[0] in KEEPER_KINDS or (
            fields[0] in (order.__name__ for order in ORDERS)
        )
        return self.kind if is_order else ASKER, fields[0]

    def message(self) -> Good:
        random = self.random
        self.transport.forget_all_but(FACTORY)
        if random.random() < 0.25:
            return self.mail()
        fields, buffers = random.choice(ORDERS)(random)
        return random.choice(MANAGERS), fields, buffers

    def happen(self) -> None:
        random = self.random
        dice = random.randrange(6)
        if dice == 0:
            super().happen()
        elif dice == 1:
            self.transport.gone ^= {random.choice(MANAGERS)}
        elif dice < 4:
            self.take()
        elif self.running:
            self.finish(random.randrange(len(self.running)))

    def take(self) -> None:
        """Take a piece to be run, when there is one and a runner for it."""
        if self.station._inbox.queued and len(self.running) < self.concurrency:
            work = self.station.take()
            assert work is not None
            assert len(work.payload) + sum(map(len, work.buffers)) == (
                work.waiting.nbytes
            )
            self.station.started(work)
            if self.random.random() < 0.3:
                self.station.report_progress(work, 1.0, 2.0)
            self.running.append(work)

    def finish(self, place: int) -> None:
        """Answer a piece that was run."""
        work = self.running.pop(place)
        status = self.random.choice(STATUSES)
        self.station.answer(work, Answer(status, b"payload", [b"buffer"], 0.1))
        self.reactor.turn()

    def check(self) -> None:
        super().check()
        station = self.station
        station._inbox.check_invariants()
        keeper = station.keeper
        keeper._holdings.check_invariants()
        keeper._exchange._fetching.check_invariants()
        assert set(keeper._values) <= set(keeper._holdings._held)
        waiting = [piece.data for piece in station._inbox._waiting]
        held = sum(
            len(payload) + sum(len(buffer) for buffer in buffers)
            for payload, buffers, *_ in waiting
        )
        assert held == station._inbox._queued_bytes
        outbox = station._outbox
        assert not outbox._answers and not outbox._returns
        self.check_link(station.registration._link)  # type: ignore[attr-defined]

    def answers(self) -> None:
        self.transport.gone.clear()
        manager: Peer = INBOUND + b"the last one"
        fields = [kinds.PIECES, [[7, 99, 0.0, b"do this", 0]], "me"]
        while self.running:
            self.finish(0)
        self.deliver_all_but_full(manager, fields)
        work = self.station.take()
        assert work is not None and work.waiting.key == (manager, 7)
        self.station.answer(work, Answer("done", b"done it", [], 0.1))
        self.reactor.turn()
        (rows,) = [f[1] for p, f in self.transport.said(kinds.RESULTS) if p == manager]
        assert rows == [[7, "done", b"done it", 0, 0.1]]
        self.talk(60.0)
        here = [entry.id for entry in self.behind.factory.registry.find("worker")]
        assert "me" in here, "it is not registered"

    def deliver_all_but_full(self, manager: Peer, fields: list[Any]) -> None:
        """Make room for a piece, and deliver it."""
        while self.station._inbox.queued:
            self.take()
            self.finish(0)
        self.transport.sent.clear()
        self.deliver(manager, pack(fields), is_good=True)
