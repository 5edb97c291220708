"""What goes wrong in a world, and when."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from sim_process import Process
from sim_setup import SKEW

from opencluster.core.election import Quorum
from opencluster.testing.virtual import Faults

if TYPE_CHECKING:
    from sim_factory import SimFactory
    from sim_worker import SimWorker
    from sim_world import World

MOST_BACK_S = 2.0
"""How far a clock goes back behind what its process has read before."""
FLAKY_S = 0.3
TURN_S = (0.02, 0.2)
"""How long a slow process waits for its turn, at least and at most."""
BLINK_S = 0.03
"""For how long a process is gone that is restarted at once."""
CLOSE_S = 0.6
"""Within this time, faults meet."""


class Trouble:
    """Lets faults happen until it is told to stop.

    Parameters
    ----------
    world : World
        Where.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = Random(world.chance.getrandbits(64))
        self._is_over = False
        self._jumped_at: dict[str, float] = {}
        self._spared = ""
        every: dict[str, Callable[[], None]] = {
            "part": self._part,
            "one-way": self._one_way,
            "isolate": self._isolate,
            "pause": self._pause,
            "slow": self._slow,
            "crash": self._crash,
            "blink": self._blink,
            "lost disk": self._lose_disk,
            "full disk": self._fill_disk,
            "slow disk": self._slow_disk,
            "flaky": self._flaky,
            "full queue": self._fill_queue,
            "jump forward": self._jump_forward,
            "jump back": self._jump_back,
            "guest": self._guest,
            "rolling restart": self._rolling_restart,
            "noise": self._change_noise,
            "worker crash": self._crash_worker,
            "worker pause": self._pause_worker,
            "workshop crash": self._crash_workshop,
            "manager crash": self._crash_manager,
            "failing starts": self._fail_starts,
            "drain": self._drain,
            "scale": self._scale,
            "goodbye": self._say_goodbye,
            "interrupt": self._interrupt,
        }
        self._kinds = [every[name] for name in every if name in world.setup.faults]

    def begin(self) -> None:
        """Let the first fault happen soon."""
        setup = self._world.setup
        self._world.network.faults = setup.noise
        if self._kinds:
            self._plan()

    def end(self) -> None:
        """Let no new fault happen, and take back those that last."""
        self._is_over = True
        self._world.network.heal()

    def rate(self) -> float:
        """Draw how fast a clock runs."""
        if "skew" not in self._world.setup.faults:
            return 1.0
        return self._chance.choice([1.0 - SKEW, 1.0, 1.0 + SKEW])

    def _plan(self) -> None:
        delay_s = self._chance.expovariate(1.0 / self._world.setup.gap_s)
        self._world.loop.after(delay_s, self._happen)

    def _happen(self) -> None:
        if self._is_over:
            return
        self._chance.choice(self._kinds)()
        if self._chance.random() < self._world.setup.company:
            # what is bad alone is worse in company
            self._world.loop.after(self._chance.random() * CLOSE_S, self._happen)
        else:
            self._spared = ""
            self._plan()

    def _for_a_while(self, back: Callable[[], None], typical_s: float = 1.2) -> None:
        """Take a fault back later, unless all are taken back before that."""
        self._world.loop.after(self._chance.expovariate(1.0 / typical_s), back)

    def _factory(self) -> SimFactory | None:
        """Choose a factory that lives, often one that leads."""
        alive = self._others()
        leading = [f for f in self._world.ledger.leading if f.name != self._spared]
        chosen = None
        if leading and self._chance.random() < 0.5:
            chosen = self._chance.choice(leading)
        elif alive:
            chosen = self._chance.choice(alive)
        # what comes in company of this fault, comes over the others
        self._spared = chosen.name if chosen is not None else ""
        return chosen

    def _some_factories(self) -> list[SimFactory]:
        """Choose some that live, often all but one that was hit just now."""
        others = self._others()
        if not others or self._chance.random() < 0.3:
            return others
        return self._chance.sample(others, self._chance.randint(1, len(others)))

    def _others(self) -> list[SimFactory]:
        return [f for f in self._world.alive_factories() if f.name != self._spared]

    # --- the network ----------------------------------------------------------

    def _change_noise(self) -> None:
        chance = self._chance
        noise = self._world.setup.noise
        if chance.random() < 0.5:
            noise = Faults(
                loss=chance.choice([0.0, 0.1, 0.4]),
                delay_s=noise.delay_s,
                lateness=chance.choice([0.0, 0.3]),
                late_s=chance.choice([0.2, 1.0, 2.0]),
            )
        self._world.network.faults = noise

    def _part(self) -> None:
        self._cut(self._some_nodes(), is_both_ways=True)

    def _one_way(self) -> None:
        self._cut(self._some_nodes(), is_both_ways=False)

    def _isolate(self) -> None:
        factory = self._factory()
        if factory is not None:
            nodes = [n for n in self._world.nodes() if n[0] == "f"]
            others = self._chance.choice([nodes, self._world.nodes()])
            self._cut([factory.node], self._chance.random() < 0.6, others)

    def _some_nodes(self) -> list[str]:
        nodes = self._world.nodes()
        return self._chance.sample(nodes, self._chance.randint(1, len(nodes)))

    def _cut(
        self, ones: list[str], is_both_ways: bool, others: list[str] | None = None
    ) -> None:
        world, network = self._world, self._world.network
        rest = [n for n in others or world.nodes() if n not in ones]
        there = [(ones, rest), (rest, ones)] if is_both_ways else [(ones, rest)]
        if not is_both_ways and self._chance.random() < 0.5:
            there = [(rest, ones)]
        world.log("cut %s", there)
        for senders, receivers in there:
            network.cut(senders, receivers)
        world.wires.cut(world.alive())
        self._tell_factories(ones, rest, is_lost=True)

        def back() -> None:
            if self._is_over:
                return
            world.log("mend %s", there)
            for senders, receivers in there:
                network.mend(senders, receivers)
            world.wires.mended(world.alive())
            self._tell_factories(ones, rest, is_lost=False)

        self._for_a_while(back)

    def _tell_factories(self, ones: list[str], rest: list[str], is_lost: bool) -> None:
        """Let factories find out about each other's connections, or not."""
        if self._chance.random() < 0.5:
            return
        for factory in self._world.alive_factories():
            here, there = (ones, rest) if factory.name in ones else (rest, ones)
            if factory.name not in here:
                continue
            for name in there:
                if name in factory.election.names:
                    hint = factory.peer_lost if is_lost else factory.peer_connected
                    delay_s = self._chance.random()
                    self._world.loop.after(delay_s, factory.take, hint, name)

    def _flaky(self) -> None:
        factory = self._factory()
        others = (
            [n for n in factory.election.names if n != factory.name] if factory else []
        )
        if factory is None or not others:
            return
        name = self._chance.choice(others)
        factory.log("loses its connection to %s", name)
        factory.take(factory.peer_lost, name)
        delay_s = self._chance.random() * FLAKY_S
        self._world.loop.after(delay_s, factory.take, factory.peer_connected, name)

    def _fill_queue(self) -> None:
        """Let a factory fail to send to someone who follows it, as its queue is full.

        The connection holds, so that nobody is told.
        """
        factory = self._factory()
        if factory is not None and factory.subscribers:
            key = self._chance.choice(list(factory.subscribers))
            factory.log("cannot send to %s", key)
            del factory.subscribers[key]

    # --- factories ------------------------------------------------------------

    def _pause(self) -> None:
        factory = self._factory()
        if factory is not None:
            self._pause_process(factory)

    def _slow(self) -> None:
        """Let a process get its turn now and then only."""
        process = self._anyone()
        loop, chance = self._world.loop, self._chance
        until = loop.now + chance.expovariate(0.5)

        def hold() -> None:
            is_busy = process.is_alive and not process.is_paused
            if is_busy and loop.now < until and not self._is_over:
                process.pause()
                loop.after(chance.uniform(*TURN_S), go_on)

        def go_on() -> None:
            process.wake()
            loop.after(chance.uniform(0.0, TURN_S[0]), hold)

        if process is not None:
            hold()

    def _pause_process(self, process: Process) -> None:
        if not process.is_paused:
            process.pause()
            self._for_a_while(process.wake, self._chance.choice([0.3, 0.8, 2.0]))

    def _crash(self) -> None:
        factory = self._factory()
        if factory is not None:
            self._restart_later(factory, 1.2)

    def _blink(self) -> None:
        for factory in self._some_factories():
            self._restart_later(factory, BLINK_S)

    def _restart_later(self, factory: SimFactory, typical_s: float) -> None:
        self._world.crash_factory(factory)
        back = partial(self._world.restart_factory, factory.name)
        self._for_a_while(back, typical_s)

    def _lose_disk(self) -> None:
        factory = self._factory()
        if factory is not None:
            self._world.crash_factory(factory)
            self._world.log("%s loses its disk", factory.name)
            factory.disk.lose()
            self._for_a_while(partial(self._world.restart_factory, factory.name))

    def _fill_disk(self) -> None:
        factory = self._factory()
        if factory is not None:
            disk = factory.disk
            self._world.log("the disk of %s is full", factory.name)
            disk.is_full = True
            self._for_a_while(lambda: setattr(disk, "is_full", False))

    def _slow_disk(self) -> None:
        factory = self._factory()
        if factory is not None:
            disk = factory.disk
            self._world.log("the disk of %s is slow", factory.name)
            disk.latency_s = self._chance.choice([0.05, 0.5, 1.5])
            self._for_a_while(disk.hurry, 3.0)

    def _jump_forward(self) -> None:
        now = self._world.loop.now
        is_majority = self._world.setup.quorum is Quorum.MAJORITY
        by_s = self._chance.choice([0.1, 0.2, 0.4, 1.0, 5.0])
        by_s *= self._chance.uniform(0.5, 2.0)
        for factory in self._some_factories():
            # no promise stands jump after jump: that is no clock any more
            if is_majority and now - self._jumped_at.get(factory.name, -9.0) < 2.5:
                continue
            self._jumped_at[factory.name] = now
            factory.log("has its clock jump by %.2f s", by_s)
            factory.clock.jump(by_s)
        self._jump_elsewhere(by_s)

    def _jump_back(self) -> None:
        self._jump_elsewhere(-self._chance.uniform(0.01, MOST_BACK_S))
        factory = self._factory()
        if factory is None or factory.is_paused:
            return
        # behind what it has read, and read again before it has caught up: a step back
        # that nobody can notice is one that nobody can stand
        unread_s = factory.now() - factory.election._now
        by_s = unread_s + self._chance.uniform(0.01, MOST_BACK_S)
        factory.log("has its clock go back by %.2f s", by_s)
        factory.clock.jump(-by_s)
        factory.take(factory.clock_went_back)

    def _jump_elsewhere(self, by_s: float) -> None:
        """Let the clock of some computer jump that has no factory, or of none."""
        others = [*self._world.alive_workshops(), *self._world.alive_managers()]
        if others and self._chance.random() < 0.3:
            process = self._chance.choice(others)
            process.log("has its clock jump by %.2f s", by_s)
            process.clock.jump(by_s)

    def _guest(self) -> None:
        self._world.add_guest(self._chance.random())

    def _rolling_restart(self) -> None:
        world = self._world

        def restart(names: list[str]) -> None:
            if self._is_over or not names:
                return
            factory = world.factories.get(names[0])
            if factory is not None and factory.is_alive and not factory.is_paused:
                factory.take(factory.resign)
                world.restart_factory(names[0])
            world.loop.after(0.3, restart, names[1:])

        world.log("rolling restart")
        restart(list(world.setup.factories))

    # --- the others -----------------------------------------------------------

    def _crash_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.end_by_signal("killed by signal SIGKILL")

    def _pause_worker(self) -> None:
        process = self._somebody()
        if process is not None:
            self._pause_process(process)

    def _somebody(self) -> Process | None:
        """Choose whoever lives and is no factory."""
        world = self._world
        candidates: list[Process] = [w for w in world.workers if w.is_ready]
        candidates += world.alive_workshops() + world.alive_managers()
        candidates = [process for process in candidates if process.is_alive]
        return self._chance.choice(candidates) if candidates else None

    def _anyone(self) -> Process | None:
        return self._factory() if self._chance.random() < 0.6 else self._somebody()

    def _crash_workshop(self) -> None:
        workshops = self._world.alive_workshops()
        if workshops:
            workshop = self._chance.choice(workshops)
            workshop.crash()
            self._for_a_while(partial(self._world.restart_workshop, workshop.name))

    def _crash_manager(self) -> None:
        managers = self._world.alive_managers()
        if managers:
            manager = self._chance.choice(managers)
            manager.crash()
            self._for_a_while(partial(self._world.restart_manager, manager.name))

    def _fail_starts(self) -> None:
        world = self._world
        type = self._chance.choice(world.setup.types)
        world.log("workers of type %s do not start", type)
        world.types_that_failed.add(type)
        world.start_failures[type] = self._chance.choice([0.5, 1.0])
        self._for_a_while(lambda: world.start_failures.pop(type, None) and None)

    def _drain(self) -> None:
        worker = self._worker()
        if worker is not None:
            shop = worker.workshop
            shop.take(shop.restart, worker.slot)

    def _scale(self) -> None:
        workshops = self._world.alive_workshops()
        if workshops:
            shop = self._chance.choice(workshops)
            type = self._chance.choice(list(shop.catalogue))
            shop.take(shop.scale, type, self._chance.randint(0, 3))

    def _say_goodbye(self) -> None:
        """Let a workshop or a manager end in good order, and come back."""
        world = self._world
        candidates = [*world.alive_workshops(), *world.alive_managers()]
        if not candidates:
            return
        leaving = self._chance.choice(candidates)
        leaving.take(leaving.leave)
        is_workshop = leaving.name in world.workshops
        restart = world.restart_workshop if is_workshop else world.restart_manager

        def back() -> None:
            if leaving.is_alive:
                self._for_a_while(back)
            else:
                restart(leaving.name)

        self._for_a_while(back)

    def _worker(self) -> SimWorker | None:
        alive = [w for w in self._world.workers if w.is_alive and w.is_ready]
        return self._chance.choice(alive) if alive else None

    def _interrupt(self) -> None:
        managers = [m for m in self._world.alive_managers() if m.tickets]
        if managers:
            manager = self._chance.choice(managers)
            numbers = list(manager.tickets)
            some = self._chance.sample(numbers, min(2, len(numbers)))
            does = self._chance.choice([manager.cancel, manager.interrupt])
            manager.take(does, some)
