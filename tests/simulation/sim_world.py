"""A world: the processes of one cluster, its troubles, and what must be well after."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from random import Random
from typing import Any
from unittest import mock

from sim_disk import Disk
from sim_factory import SimFactory
from sim_faults import Trouble
from sim_ledger import Broken, Ledger
from sim_lone import SimLoneWorker
from sim_manager import SimManager
from sim_process import Process
from sim_setup import Setup, draw
from sim_trace import Trace
from sim_wires import Wires
from sim_worker import Nature, Payload, SimWorker
from sim_workshop import SimWorkshop

from opencluster.core.dispatch import Piece
from opencluster.core.election import Role
from opencluster.core.pieces import MAX_CUTS
from opencluster.core.supervision import SlotState
from opencluster.engines import roster
from opencluster.testing.virtual import VirtualClock, VirtualLoop, VirtualNetwork

MAX_EVENTS = 300_000
"""No seed has nearly as many."""
LEADER_S = 8.0
"""In this time after the last fault one factory must lead all others, for good."""
RECOVERY_S = 30.0
"""In this time after it, and in that which the work left takes, all must be well."""
RUN_S = 1.5
"""How long it takes at most until a worker that died is replaced and the next piece
begins."""
LOOK_S = 0.25
"""How often it is looked whether it is."""
CALM_LOOKS = 2
"""Looks in a row that must find it so."""
URGENT, URGENT_S = 8, 2.0
"""Real-time pieces that follow each job where there are any, and within which time."""
SHORT_S, LONG_S = 0.004, 0.6
JOBS = [
    ((SHORT_S,), 12),
    ((0.1,), 12),
    ((LONG_S,), 8),
    ((3.0,), 3),
    # so many are sent ahead that some wait behind a long one, and are called back
    ((SHORT_S,) * 5 + (LONG_S,), 24),
]
"""How long the pieces of a job take at most, and how many they are at most."""


class World:
    """One cluster.

    Parameters
    ----------
    setup : Setup
        What it is like.
    is_traced : bool
        Write down what happens.
    """

    def __init__(self, setup: Setup, is_traced: bool = False) -> None:
        self.setup = setup
        self.chance = Random(f"{setup.seed} lives")
        self.classes = Random(f"{setup.seed} classes of pieces")
        self.loop = VirtualLoop(MAX_EVENTS)
        self.trace = Trace(self.loop) if is_traced else None
        self.network = VirtualNetwork(self.loop, Random(f"{setup.seed} network"))
        self.wires = Wires(self.loop, self.network, Random(f"{setup.seed} wires"))
        self.ledger = Ledger(self)
        self.trouble = Trouble(self)
        self.factories: dict[str, SimFactory] = {}
        self.workshops: dict[str, SimWorkshop] = {}
        self.managers: dict[str, SimManager] = {}
        self.lone: dict[str, SimLoneWorker] = {}
        self.workers: list[SimWorker] = []
        self.disks: dict[str, Disk] = {}
        self.start_failures: dict[str, float] = {}
        self.types_that_failed: set[str] = set()
        self._clocks: dict[str, VirtualClock] = {}
        self._lists: dict[str, list[str]] = {}
        self._lives = itertools.count(1)
        self._guests = itertools.count(1)
        if "late news" in setup.faults:
            self.wires.lateness = 0.5

    # --- small things ---------------------------------------------------------

    def log(self, what: str, *details: Any) -> None:
        """Write a line into the trace, when there is one."""
        if self.trace is not None:
            self.trace.write("*", what, details)

    def new_identity(self, name: str) -> str:
        """Return what no process has been named before."""
        return f"{name}.{next(self._lives)}"

    def new_pid(self) -> int:
        """Return the number of another process."""
        return next(self._lives)

    def draw_list(self) -> list[str]:
        """Return the list of factories that another client has."""
        known = self.setup.known
        is_short = known != "" and self.chance.random() < 0.5
        return [known] if is_short else self.setup.factories

    def nodes(self) -> list[str]:
        """Return all computers."""
        setup = self.setup
        return [*self._lists, *setup.workshops, *setup.managers, *setup.lone]

    def alive_factories(self) -> list[SimFactory]:
        """Return the factories that live."""
        return [f for f in self.factories.values() if f.is_alive]

    def alive_workshops(self) -> list[SimWorkshop]:
        """Return the workshops that live."""
        return [w for w in self.workshops.values() if w.is_alive]

    def alive_managers(self) -> list[SimManager]:
        """Return the managers that live."""
        return [m for m in self.managers.values() if m.is_alive]

    def alive_lone(self) -> list[SimLoneWorker]:
        """Return the workers without a workshop that live."""
        return [w for w in self.lone.values() if w.is_alive]

    def alive(self) -> list[Process]:
        """Return all processes that live."""
        self.workers = [worker for worker in self.workers if worker.is_alive]
        return [
            *self.alive_factories(),
            *self.alive_workshops(),
            *self.alive_managers(),
            *self.workers,
        ]

    # --- lives ----------------------------------------------------------------

    def restart_factory(self, name: str) -> None:
        """Let a factory live, unless it does."""
        old = self.factories.get(name)
        if old is not None and old.is_alive:
            return
        disk = self.disks.get(name)
        if disk is None:
            disk = self.disks[name] = Disk(Random(self.chance.getrandbits(64)))
            disk.is_torn_by_crashes = "torn disk" in self.setup.faults
        names = self._lists.setdefault(name, self.setup.factories)
        self.factories[name] = SimFactory(self, name, names, disk, self._clock(name))
        for other in self.alive_factories():
            if other.name != name and name in other.election.names:
                delay_s = self.wires.delay_s(False)
                self.loop.after(delay_s, other.take, other.peer_connected, name)

    def crash_factory(self, factory: SimFactory) -> None:
        """Let a factory end without a word."""
        if not factory.is_alive:
            return
        factory.crash()
        for other in self.alive_factories():
            is_told = self.chance.random() < 0.7
            if is_told and factory.name in other.election.names:
                delay_s = self.network.delay_s()
                self.loop.after(delay_s, other.take, other.peer_lost, factory.name)

    def add_guest(self, place: float) -> None:
        """Let one more factory join, which is in nobody else's list."""
        if len(self._lists) > len(self.setup.factories):
            return
        name = f"f{len(self.setup.factories) - 1 + next(self._guests)}"
        names = list(self.setup.factories)
        names.insert(int(place * (len(names) + 1)), name)
        self._lists[name] = names
        self.log("%s joins", name)
        self.restart_factory(name)

    def restart_workshop(self, name: str) -> None:
        """Let a workshop live, unless it does."""
        old = self.workshops.get(name)
        if old is None or not old.is_alive:
            index = self.setup.workshops.index(name)
            catalogue = self.setup.catalogues[index]
            self.workshops[name] = SimWorkshop(self, name, catalogue, self._clock(name))

    def restart_manager(self, name: str) -> None:
        """Let a manager live, unless one of that name does."""
        old = self.managers.get(name)
        if old is None or not old.is_alive:
            self.managers[name] = SimManager(self, name, self._clock(name))

    def restart_lone(self, name: str) -> None:
        """Let a worker without a workshop live, unless one of that name does."""
        old = self.lone.get(name)
        if old is None or not old.is_alive:
            type = self.setup.lone[name]
            self.lone[name] = SimLoneWorker(self, name, type, self._clock(name))

    def _clock(self, name: str) -> VirtualClock:
        clock = self._clocks.get(name)
        if clock is None:
            reading_s = self.chance.uniform(0.0, 1000.0)
            clock = VirtualClock(self.loop, self.trouble.rate(), reading_s)
            self._clocks[name] = clock
        return clock

    # --- work -----------------------------------------------------------------

    def submit(self) -> None:
        """Have some manager submit a job."""
        managers = [m for m in self.alive_managers() if not m.is_paused]
        if not managers:
            return
        chance = self.chance
        manager = chance.choice(managers)
        types = sorted({type for shop in self.setup.catalogues for type in shop})
        lengths_s, most = chance.choice(JOBS)
        pieces = [
            self._piece(chance.choice(types), chance.choice(lengths_s))
            for _ in range(chance.randint(1, most))
        ]
        if chance.random() < 0.5:
            first, _ = pieces[0]
            first.timeout_s, first.error_retries = 0.0, 0
            pieces = [(replace(first, deaths=[]), payload) for _, payload in pieces]
        manager.take(manager.submit, pieces)
        if "realtime" in self.setup.faults:
            for _ in range(URGENT):
                delay_s = self.classes.uniform(0.0, URGENT_S)
                self.loop.after(delay_s, self.submit_urgent)

    def submit_urgent(self) -> None:
        """Have some manager submit a real-time piece."""
        managers = [m for m in self.alive_managers() if not m.is_paused]
        if not managers:
            return
        chance = self.classes
        manager = chance.choice(managers)
        piece, payload = self._piece("A", chance.choice([SHORT_S, 0.1]))
        piece.wait_s = chance.choice([0.0, 0.05, 0.5])
        piece.timeout_s, piece.priority = 0.0, chance.choice([0, 0, -1, 1])
        manager.take(manager.submit, [(piece, payload)])

    def _piece(self, type: str, longest_s: float) -> tuple[Piece, Payload]:
        chance, faults = self.chance, self.setup.faults
        natures = [Nature.GOOD] * 6
        natures += [Nature.POISON] * ("poison" in faults)
        natures += [Nature.RAISES] * ("raising" in faults)
        natures += [Nature.DEAF, Nature.STUBBORN] * ("stubborn" in faults)
        nature = chance.choice(natures)
        payload = Payload(
            nature,
            longest_s * chance.uniform(0.1, 1.0),
            chance.choice([1, 10, 400]),
            self.classes.choice([0.0, 0.01, 0.05]),
        )
        piece = Piece(
            0,
            type,
            priority=chance.choice([0, 0, 0, 1]),
            timeout_s=chance.choice([0.0, 0.0, 0.0, 0.7 * longest_s]),
            retries=chance.choice([1, 3, 3, 10]),
            error_retries=chance.choice([0, 0, 1]),
        )
        return piece, payload

    # --- the run --------------------------------------------------------------

    def run(self) -> None:
        """Let it live through its troubles, and see it well again.

        Raises
        ------
        AssertionError
            When a promise is broken.
        """
        self._populate()
        self.trouble.begin()
        self.loop.run(self.setup.span_s)
        self._heal()
        self._recover()

    def _populate(self) -> None:
        chance, setup = self.chance, self.setup
        for name in setup.factories:
            self._lists[name] = setup.factories
            self.loop.after(chance.random() * 0.3, self.restart_factory, name)
        for name in setup.workshops:
            self.loop.after(chance.random(), self.restart_workshop, name)
        for name in setup.managers:
            self.loop.after(chance.random(), self.restart_manager, name)
        for name in setup.lone:
            self.loop.after(chance.random(), self.restart_lone, name)
        for _ in range(setup.jobs):
            self.loop.after(chance.uniform(1.0, setup.span_s), self.submit)

    def _heal(self) -> None:
        self.log("everything heals")
        chance, setup = self.chance, self.setup
        self.trouble.end()
        self.wires.lateness = 0.0
        self.start_failures.clear()
        for disk in self.disks.values():
            disk.is_full = False
            disk.hurry()
        guests = [name for name in self._lists if name not in setup.factories]
        for name in guests:
            if chance.random() < 0.5 and self.factories[name].is_alive:
                self.crash_factory(self.factories[name])
        self._revive()
        for process in self.alive():
            process.wake()
        for workshop in self.alive_workshops():
            for type, count in workshop.catalogue.items():
                workshop.take(workshop.scale, type, count)
        self.wires.mended(self.alive())

    def _revive(self) -> None:
        """Restart what must live, and some of the rest."""
        chance, setup = self.chance, self.setup
        factories = [
            f.name for f in self.alive_factories() if f.name in setup.factories
        ]
        for name in setup.factories:
            is_needed = len(factories) <= len(setup.factories) // 2
            is_needed = is_needed or name == setup.known
            if name not in factories and (is_needed or chance.random() < 0.7):
                self.restart_factory(name)
                factories.append(name)
        for name in setup.workshops:
            # the first one runs every type
            if name == setup.workshops[0] or chance.random() < 0.7:
                self.restart_workshop(name)
        for name in setup.managers:
            if chance.random() < 0.7:
                self.restart_manager(name)

    def _recover(self) -> None:
        calm, healed_at = 0, self.loop.now
        longest_s = RECOVERY_S + self._work_left_s()
        while calm < CALM_LOOKS:
            self.loop.run(self.loop.now + LOOK_S)
            wrong = self.what_is_wrong()
            calm = 0 if wrong else calm + 1
            over_s = self.loop.now - healed_at
            if over_s > LEADER_S and (unled := self._wrong_with_leader()):
                raise Broken("one factory leads again in time", unled)
            if over_s > longest_s and wrong:
                raise Broken("everything is well again in time", wrong)
        for manager in self.alive_managers():
            self.ledger.check_pieces(manager)

    def _work_left_s(self) -> float:
        """Return how long the pieces would take, one after the other, that are left."""
        payloads = [
            payload
            for manager in self.alive_managers()
            for payload, _ in manager.tickets.values()
        ]
        runs = self.setup.max_kills
        if "realtime" in self.setup.faults:
            runs += MAX_CUTS
        return runs * sum(p.takes_s + RUN_S for p in payloads)

    def what_is_wrong(self) -> str:
        """Return what is not well, or an empty text."""
        return (
            self._wrong_with_leader()
            or self._wrong_with_copies()
            or self._wrong_with_members()
            or self._wrong_with_work()
        )

    def _wrong_with_leader(self) -> str:
        alive = self.alive_factories()
        leaders = [f for f in alive if f.election.role is Role.LEADING]
        if len(leaders) != 1:
            return f"{len(leaders)} factories lead"
        leader = leaders[0]
        if not leader.election.may_write(leader.now()):
            return f"{leader.name} leads and may not write"
        for factory in alive:
            if factory.election.leader != leader.name:
                return f"{factory.name} does not follow {leader.name}"
        return ""

    def _wrong_with_copies(self) -> str:
        (leader,) = self.ledger.leading
        for factory in self.alive_factories():
            if factory is leader:
                continue
            if not factory.core.is_in_step:
                return f"{factory.name} is not in step"
            if factory.registry.revision != leader.registry.revision:
                return f"{factory.name} is behind {leader.name}"
        return ""

    def _wrong_with_members(self) -> str:
        (leader,) = self.ledger.leading
        expected: set[str] = set()
        for workshop in self.alive_workshops():
            expected |= workshop.entries().keys()
            for slot in workshop.supervision.slots():
                if slot.state is not SlotState.RUNNING:
                    return f"{slot.name} of {workshop.name} is {slot.state.value}"
        for worker in self.alive_lone():
            if worker.registered is None:
                return f"{worker.name} comes or goes"
            expected.add(worker.identity)
        registered = {entry.id for entry in leader.registry.find()}
        if registered != expected:
            missing, dead = expected - registered, registered - expected
            return f"registered too few: {sorted(missing)}, or many: {sorted(dead)}"
        clients = [
            *self.alive_workshops(),
            *self.alive_managers(),
            *self.alive_lone(),
        ]
        for client in clients:
            if client.link.seeker.leader != leader.name:
                return f"{client.name} does not know the leader"
        for manager in self.alive_managers():
            if manager.link.replica.entries.keys() != expected:
                return f"{manager.name} knows other members"
        return ""

    def _wrong_with_work(self) -> str:
        for manager in self.alive_managers():
            if manager.tickets:
                return f"{manager.name} waits for {list(manager.tickets)}"
        managers = {m.identity.encode() for m in self.alive_managers()}
        for worker in self.workers:
            if worker.is_alive and worker.inbox.managers() - managers:
                return f"{worker.name} has pieces of a manager that is gone"
        return ""


def run_seed(seed: int, is_traced: bool = False) -> World:
    """Run the world of one seed, and return it.

    Raises
    ------
    AssertionError
        When a promise is broken; its ``world`` is that world.
    """
    return run_world(World(draw(seed), is_traced))


def run_world(world: World) -> World:
    """Run a world, and return it.

    Raises
    ------
    AssertionError
        When a promise is broken; its ``world`` is that world.
    """
    # the one shell that is used as it is reads the time by itself
    with mock.patch.object(roster, "_now", lambda: Process.acting.now()):
        logging.getLogger(roster.__name__).setLevel(logging.CRITICAL)
        try:
            world.run()
        except BaseException as error:
            error.world = world  # type: ignore[attr-defined]
            raise
    return world
