"""A manager's engine, to which workers and a factory talk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from fuzz_clients import (
    FACTORY,
    OVERRIDES,
    ClientEpisode,
    peer_of,
    worker_entry,
)
from fuzz_episode import Good
from fuzz_mutation import pack
from fuzz_net import CLOCK, HandReactor, received

from opencluster import factory as factory_module
from opencluster.core.entries import Entry
from opencluster.core.roles import ASKER, MANAGER
from opencluster.engines import cluster as module
from opencluster.engines.base import Job, Options, Outcome
from opencluster.engines.cluster import ClusterEngine
from opencluster.engines.desk import Desk
from opencluster.net.transport import Peer, PeerConnected, PeerLost
from opencluster.place import Place
from opencluster.references import DataRef
from opencluster.wire import codec, frames, kinds
from opencluster.workpiece import WorkPiece

WORKERS = {peer_of(entry): entry for entry in map(worker_entry, range(4))}
STATUSES = (
    *("done", "done", "done", "kept", "kept", "missing"),
    *("failed", "timeout", "interrupted", "drained"),
)
MAX_UNFINISHED = 60
RESULT, _ = codec.encode(WorkPiece(n=1))
FAILURE, _ = codec.encode({"type": "ValueError", "message": "no", "traceback": "-"})
CAUSE = {
    "reason": "killed by signal SIGKILL",
    "exit_code": None,
    "signal": "SIGKILL",
    "peak_memory_bytes": 1,
    "piece": "",
}


class ManagerEpisode(ClientEpisode):
    """Pieces go to workers, which answer them well, badly or not at all."""

    name = "manager"
    modules = (factory_module, module)

    def __init__(self, random: Random) -> None:
        limits = {("manager", "worker_wait_s"): "1e6"}
        super().__init__(random, OVERRIDES | limits)
        self.engine = ClusterEngine(self.settings, Place(Path(self.behind.path)))
        self.held: dict[Peer, list[int]] = {peer: [] for peer in WORKERS}
        self.ends: Counter[int] = Counter()
        self.submitted: list[int] = []
        self.refs: list[DataRef] = []
        self.submit()
        self.register(*list(WORKERS.values())[:2])
        self.talk(3.0)
        for peer in WORKERS:
            self.connect(peer)

    @property
    def reactor(self) -> HandReactor:
        reactor: Any = self.engine._reactor
        return reactor

    @property
    def desk(self) -> Desk:
        return self.engine._desk

    # --- what happens -----------------------------------------------------------------

    def register(self, *entries: Entry) -> None:
        self.behind.register(*entries)

    def submit(self) -> None:
        """Submit pieces, unless so many are under way already."""
        random = self.random
        if len(self.desk.tickets) > MAX_UNFINISHED:
            return
        options = Options(
            priority=random.randrange(2),
            timeout_s=random.choice([0.0, 1.0]),
            retries=random.randrange(4),
            error_retries=random.randrange(2),
            worker=random.choice(["", "", "w1"]),
            on_progress=self.progressed,
            keep=(is_kept := random.random() < 0.3),
            recompute=is_kept and random.random() < 0.5,
        )
        pieces = [
            (
                WorkPiece(
                    n=n, refs=random.sample(self.refs, min(len(self.refs), n % 3))
                ),
                options,
            )
            for n in range(random.randrange(1, 9))
        ]
        job = Job(f"j{random.randrange(3)}", "Manager", started_at=1.0)
        self.submitted += self.engine.submit("T", pieces, self.ended, job)
        if random.random() < 0.3:
            self.engine.report(job)
        self.reactor.turn()

    def ended(self, number: int, outcome: Outcome) -> None:
        self.ends[number] += 1
        assert self.ends[number] == 1, f"piece {number} ended twice"
        # what looked true was believed, and may still make no sense to a user
        assert isinstance(outcome, Outcome)
        if outcome.ref is not None:
            self.refs = [*self.refs[-5:], outcome.ref]

    def progressed(self, done: float, total: float) -> None:
        assert type(done) is type(total) is float

    def connect(self, peer: Peer) -> None:
        """Let a connection stand that the engine has opened."""
        if peer in self.transport.connections.values():
            self.reactor.receive(PeerConnected(peer))

    def take_up(self) -> None:
        """Let workers take what they were sent."""
        for peer, header, _ in list(self.transport.sent):
            if peer not in WORKERS:
                continue
            fields = frames.unpack(header)
            if fields[0] == kinds.PIECES:
                self.held[peer] += [row[0] for row in fields[1]]
        self.transport.forget_all_but(FACTORY)

    def happen(self) -> None:
        random = self.random
        peer = random.choice(list(WORKERS))
        dice = random.randrange(8)
        if dice == 0:
            super().happen()
        elif dice == 1:
            self.reactor.receive(PeerLost(peer))
            self.tick(random.choice([0.0, 2.0]))
        elif dice == 2:
            self.connect(peer)
        elif dice == 3:
            self.register(WORKERS[peer])
        elif dice == 4:
            cause = random.choice([None, CAUSE])
            self.behind.ask("deregister", {"id": WORKERS[peer].id, "cause": cause})
        elif dice == 5 and self.submitted:
            numbers = random.sample(self.submitted, min(3, len(self.submitted)))
            random.choice([self.engine.cancel, self.engine.interrupt])(numbers)
            self.reactor.turn()
        else:
            self.submit()

    # --- what workers say: one function for each kind ---------------------------------

    def receiver(self, peer: Peer, fields: list[Any]) -> tuple[str, str]:
        is_news = fields[0] in (kinds.REPLY, kinds.DELTA, kinds.BEAT)
        is_of_worker = peer in self.desk.roster.directory.by_peer and not is_news
        return MANAGER if is_of_worker else ASKER, fields[0]

    def message(self) -> Good:
        random = self.random
        self.take_up()
        if random.random() < 0.25:
            return self.mail()
        peer = random.choice(list(WORKERS))
        if peer not in self.desk.roster.directory.by_peer:
            # nobody but the factory is known to the engine, and may talk to it
            return self.mail()
        say = random.choice(
            [
                *(self.results, self.results, self.returned, self.progress),
                *(self.alive, self.missing, self.answer),
            ]
        )
        if random.random() < 0.02:
            say = random.choice([self.draining, self.gone])
        return peer, say(peer), []

    def results(self, peer: Peer) -> list[Any]:
        held = self.held[peer]
        rows = []
        for _ in range(min(len(held), self.random.randrange(1, 4))):
            status = self.random.choice(STATUSES)
            number = held.pop(0)
            payload = RESULT if status == "done" else FAILURE
            if status == "kept":
                told = [self.desk.values.id_of(number), 5, self.refs[:1]]
                payload, _ = codec.encode(told)
            elif status == "missing":
                names = self.random.sample(["w0", "w1", "w2"], 2)
                ids = [ref.id for ref in self.refs] or [b"?" * 16]
                payload, _ = codec.encode([[self.random.choice(ids), "gone", names]])
            rows.append([number, status, payload, 0, 0.001])
        return [kinds.RESULTS, rows]

    def returned(self, peer: Peer) -> list[Any]:
        held = self.held[peer]
        return [kinds.RETURNED, [held.pop() for _ in range(min(1, len(held)))]]

    def progress(self, peer: Peer) -> list[Any]:
        number = self.held[peer][0] if self.held[peer] else 5
        return [kinds.PROGRESS, number, 1.0, 2.0]

    def alive(self, peer: Peer) -> list[Any]:
        return [kinds.ALIVE]

    def missing(self, peer: Peer) -> list[Any]:
        return [kinds.MISSING, [ref.id for ref in self.refs[:2]]]

    def answer(self, peer: Peer) -> list[Any]:
        """Answer an order, a question or nothing, or ask something."""
        number = self.random.randrange(1, 60)
        return self.random.choice(
            [
                [kinds.KEPT, number, 5],
                [kinds.UNKEPT, number, "the disk is full"],
                [kinds.VALUE, number, RESULT, [len(RESULT)]],
                [kinds.VALUE, number, None, [5, 5]],
                [kinds.LOST, number],
                [kinds.FETCH, number, b"?" * 16, 10],
                [kinds.PART, number, b"?" * 16, 0, 0, 10],
            ]
        )

    def draining(self, peer: Peer) -> list[Any]:
        return [kinds.DRAINING]

    def gone(self, peer: Peer) -> list[Any]:
        return [kinds.GONE, WORKERS[peer].id]

    # --- what must hold ---------------------------------------------------------------

    def check(self) -> None:
        super().check()
        self.desk.dispatch.check_invariants()
        self.desk.values._whereabouts.check_invariants()
        self.desk.values._exchange._fetching.check_invariants()
        directory = self.desk.roster.directory
        assert len(directory.contacts) == len(directory.by_peer) < 60
        assert len(self.transport.connections) < 60
        unfinished = {n for n in self.submitted if not self.ends[n]}
        bonds = self.desk.bonds._bonds
        remaking = {n for n, bond in bonds.items() if bond.makes is not None}
        assert self.desk.tickets.keys() == unfinished | remaking
        self.check_link(self.engine._link)

    def answers(self) -> None:
        """A worker that does as it should comes, and does all that is left."""
        last = worker_entry(20)
        self.talk(30.0)
        self.register(last)
        self.talk(3.0)
        peer = peer_of(last)
        assert peer in self.desk.roster.directory.by_peer, (
            "the last worker is not known"
        )
        WORKERS[peer] = last
        self.held = {p: [] for p in WORKERS}
        try:
            self.work(peer)
        finally:
            del WORKERS[peer]
        unfinished = [n for n in self.submitted if not self.ends[n]]
        assert not unfinished, f"without an end: {unfinished}"
        assert not self.desk.tickets

    def work(self, last: Peer) -> None:
        """Lose all workers but one, which does what it is given."""
        for peer in [p for p in self.desk.roster.directory.by_peer if p != last]:
            entry = self.desk.roster.directory.by_peer[peer].entry
            self.behind.ask("deregister", {"id": entry.id})
            self.reactor.receive(PeerLost(peer))
        self.talk(3.0)
        self.transport.sent.clear()
        self.connect(last)
        end = CLOCK.now + 60.0
        while CLOCK.now < end and not self.desk.dispatch.is_idle:
            self.take_up()
            for number in self.held[last]:
                row = [number, "done", RESULT, 0, 0.001]
                header = pack([kinds.RESULTS, [row]])
                self.reactor.receive(received(last, header))
            self.held[last] = []
            self.tick(0.1)
