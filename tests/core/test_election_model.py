"""Several factories on a network that loses, delays, repeats and cuts, with bad clocks.

Hypothesis says what goes wrong and when; messages, ticks and faults happen in virtual
time. Whatever happens: no two leaders share an epoch, no epoch goes back, and with
majority no two may write. When all is well again, one leads and all others copy it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from opencluster.core.election import (
    Election,
    Lead,
    Quorum,
    Role,
    SaveEpochs,
    SendMessage,
)
from opencluster.core.entries import Entry
from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.core.factory_messages import Message, from_fields, to_fields
from opencluster.core.registry import Registry
from opencluster.core.replication import Effect, ReplicatedRegistry

TIMEOUT_S = 1.0
BEAT_S = 0.2
LATENCY_S = 0.01
WELL_AFTER_S = 25.0
"""After the last fault, at the latest, one leads and all others follow."""
BETWEEN_JUMPS_S = 2.0
"""A promise outlasts one jump of a clock, not many."""
NAMES = "abcdefg"

Action = Callable[[], None]


class Node:
    """One factory: its disk, its clock and, if it runs, its process."""

    def __init__(self, name: str, rate: float) -> None:
        self.name = name
        self.rate = rate
        self.offset_s = 0.0
        self.jumped_at = -BETWEEN_JUMPS_S
        self.disk = (0, NO_EPOCH)
        self.is_full = False
        self.life = 0
        self.core: ReplicatedRegistry | None = None
        self.led = NO_EPOCH
        self.waiting: list[Action] | None = None
        """What came while it stood still."""


class Cluster:
    """Nodes, virtual time, and a network that does what it is told.

    Parameters
    ----------
    rates : sequence of float
        How fast the clock of each factory is.
    quorum : Quorum
        Whom a leader needs.
    chance : random.Random
        Draws losses, delays and what factories draw.
    """

    def __init__(
        self, rates: Iterable[float], quorum: Quorum, chance: random.Random
    ) -> None:
        self.now = 0.0
        self.quorum = quorum
        self.chance = chance
        self.nodes = {
            name: Node(name, rate) for name, rate in zip(NAMES, rates, strict=False)
        }
        self.cuts: set[tuple[str, str]] = set()
        self.loss = self.repeats = self.delay_s = 0.0
        self.led_by: dict[Epoch, str] = {}
        self._changed: set[str] = set()
        self._queue: list[tuple[float, int, Action]] = []
        self._count = 0
        for name in self.nodes:
            self.start(name)

    # --- time -----------------------------------------------------------------------

    def after(self, seconds: float, action: Action) -> None:
        """Let something happen later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, action))

    def run(self, seconds: float) -> None:
        """Let time pass, and check the rules after everything that happens."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            self.check()
        self.now = end

    def time_of(self, node: Node) -> float:
        """Return what the clock of a factory shows."""
        return 1000.0 + self.now * node.rate + node.offset_s

    # --- processes ------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Begin a process, with what is on its disk."""
        node = self.nodes[name]
        node.life += 1
        node.led, node.waiting = NO_EPOCH, None
        chance = random.Random(self.chance.getrandbits(64))
        election = Election(
            list(self.nodes), name, chance, TIMEOUT_S, BEAT_S, self.quorum, *node.disk
        )
        node.core = ReplicatedRegistry(election, Registry())
        self.do(node, node.core.start(self.time_of(node)))
        self._tick_later(node, node.life)
        self.tell_others(name, is_lost=False)

    def stop(self, name: str, is_silent: bool = False) -> None:
        """End a process; silently, when its computer is gone with it."""
        self.nodes[name].core = None
        if not is_silent:
            self.tell_others(name, is_lost=True)

    def wake(self, node: Node) -> None:
        """Let a process go on with what came meanwhile."""
        waiting, node.waiting = node.waiting, None
        for action in waiting or ():
            action()

    def _tick_later(self, node: Node, life: int) -> None:
        def tick() -> None:
            if node.core is not None and node.life == life:
                self._tick_later(node, life)
                if node.waiting is None:
                    self.do(node, node.core.tick(self.time_of(node)))

        self.after(BEAT_S / node.rate, tick)

    def do(self, node: Node, effects: Iterable[Effect]) -> None:
        """Do what a factory decided."""
        self._changed.add(node.name)
        for effect in effects:
            match effect:
                case SendMessage(to, message):
                    self.send(node.name, to, message)
                case SaveEpochs(seen, led, wanted):
                    if not node.is_full:
                        node.disk = (seen, led)
                    if wanted is not None and node.core is not None:
                        now, core = self.time_of(node), node.core
                        is_full = node.is_full
                        made = core.not_saved(now) if is_full else None
                        self.do(node, core.saved(now, wanted) if made is None else made)
                case Lead(epoch):
                    owner = f"{node.name}{node.life}"
                    assert self.led_by.setdefault(epoch, owner) == owner
                    assert node.disk[0] >= epoch.number

    # --- the network ----------------------------------------------------------------

    def send(self, sender: str, to: str, message: Message) -> None:
        """Carry a message, perhaps late, twice or never."""
        if (sender, to) in self.cuts:
            return
        for _ in range(1 + (self.chance.random() < self.repeats)):
            if self.chance.random() >= self.loss:
                delay_s = LATENCY_S + self.chance.random() * self.delay_s
                self.after(delay_s, lambda: self._arrive(sender, to, message))

    def _arrive(self, sender: str, to: str, message: Message) -> None:
        copy = from_fields(to_fields(message))
        self.happen(to, lambda core, now: core.receive(now, sender, copy))

    def tell_others(self, name: str, is_lost: bool) -> None:
        """Let the others notice that connections with a factory broke, or stand."""
        for other in self.nodes:
            if other != name and (name, other) not in self.cuts:
                self.notice(other, name, is_lost)
                if not is_lost and self.nodes[other].core is not None:
                    self.notice(name, other, is_lost)

    def notice(self, name: str, other: str, is_lost: bool) -> None:
        """Let a factory notice what happened to a connection."""

        def event(core: ReplicatedRegistry, now: float) -> list[Effect]:
            return (core.peer_lost if is_lost else core.peer_connected)(now, other)

        self.after(LATENCY_S, lambda: self.happen(name, event))

    def happen(
        self, name: str, event: Callable[[ReplicatedRegistry, float], list[Effect]]
    ) -> None:
        """Let something happen to a process, or when it goes on, or not at all."""
        node = self.nodes[name]
        if node.waiting is not None:
            node.waiting.append(lambda: self.happen(name, event))
        elif node.core is not None:
            self.do(node, event(node.core, self.time_of(node)))

    # --- what always holds ----------------------------------------------------------

    def running(self) -> list[tuple[Node, ReplicatedRegistry]]:
        """Return whoever has a process."""
        return [(n, n.core) for n in self.nodes.values() if n.core is not None]

    def check(self) -> None:
        """Fail when a rule is broken."""
        writers = []
        for node, core in self.running():
            # whatever changes a factory returns what is to be done
            if node.name in self._changed:
                core.check_invariants()
                led = core.election.led
                assert not node.led.is_newer_than(led), f"{node.name} goes back"
                node.led = led
            if node.waiting is None and core.election.may_write(self.time_of(node)):
                writers.append(node.name)
        self._changed.clear()
        assert self.quorum is Quorum.COURTESY or len(writers) <= 1, writers


names = st.sampled_from(NAMES)
few = st.sampled_from([0.0, 0.0, 0.1, 0.4])


class ElectionModel(RuleBasedStateMachine):
    """Faults in any order, then none."""

    cluster: Cluster

    @initialize(
        count=st.sampled_from([3, 3, 5, 1, 2, 4, 6, 7]),
        quorum=st.sampled_from(Quorum),
        seed=st.integers(0, 1 << 32),
        is_skewed=st.booleans(),
    )
    def begin(self, count: int, quorum: Quorum, seed: int, is_skewed: bool) -> None:
        chance = random.Random(seed)
        skew = 0.1 if is_skewed else 0.0
        rates = [1.0 + chance.uniform(-skew, skew) for _ in range(count)]
        self.cluster = Cluster(rates, quorum, chance)
        self.members = 0
        self.cluster.run(3.0)

    def node(self, name: str) -> Node:
        """Return the factory of a name, of however many there are."""
        nodes = list(self.cluster.nodes.values())
        return nodes[NAMES.index(name) % len(nodes)]

    # --- what goes wrong ------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 3.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.cluster.run(seconds)

    @invariant()
    def time_goes_by(self) -> None:
        cluster = self.cluster
        cluster.run(cluster.chance.choice([0.0, 0.02, 0.1, 0.3, 0.8]))

    @rule(loss=few, repeats=few, delay_s=st.sampled_from([0.0, 0.1, 0.7, 2.0]))
    def change_the_weather(self, loss: float, repeats: float, delay_s: float) -> None:
        weather = self.cluster
        weather.loss, weather.repeats, weather.delay_s = loss, repeats, delay_s

    @rule(name=names, other=names, is_one_way=st.booleans(), is_noticed=st.booleans())
    def cut(self, name: str, other: str, is_one_way: bool, is_noticed: bool) -> None:
        one, two = self.node(name).name, self.node(other).name
        if one == two:
            return
        self.cluster.cuts |= {(one, two)} if is_one_way else {(one, two), (two, one)}
        if is_noticed:
            self.cluster.notice(one, two, is_lost=True)
            self.cluster.notice(two, one, is_lost=True)

    @rule(names=st.sets(names, max_size=3))
    def part(self, names: set[str]) -> None:
        inside = {self.node(name).name for name in names}
        for one in inside:
            for other in self.cluster.nodes.keys() - inside:
                self.cluster.cuts |= {(one, other), (other, one)}

    @rule()
    def heal(self) -> None:
        healed, self.cluster.cuts = self.cluster.cuts, set()
        for one, other in sorted(healed):
            self.cluster.notice(one, other, is_lost=False)

    @rule(name=names, is_silent=st.booleans())
    def crash(self, name: str, is_silent: bool) -> None:
        node = self.node(name)
        if node.core is not None:
            self.cluster.stop(node.name, is_silent)

    @rule(name=names, is_disk_lost=st.sampled_from([False, False, True]))
    def restart(self, name: str, is_disk_lost: bool) -> None:
        node = self.node(name)
        if node.core is not None:
            self.cluster.stop(node.name, is_silent=True)
        if is_disk_lost:
            node.disk = (0, NO_EPOCH)
        self.cluster.start(node.name)

    @rule(name=names)
    def resign(self, name: str) -> None:
        node = self.node(name)
        if node.core is not None and node.waiting is None:
            self.cluster.happen(node.name, lambda core, now: core.resign(now))
            self.cluster.stop(node.name)

    @rule(name=names)
    def pause(self, name: str) -> None:
        node = self.node(name)
        if node.core is not None and node.waiting is None:
            node.waiting = []

    @rule(name=names)
    def wake(self, name: str) -> None:
        self.cluster.wake(self.node(name))

    @rule(name=names, seconds=st.sampled_from([-5.0, 0.5, 1.5, 60.0]))
    def let_clock_jump(self, name: str, seconds: float) -> None:
        node = self.node(name)
        if self.cluster.now - node.jumped_at >= BETWEEN_JUMPS_S:
            node.jumped_at = self.cluster.now
            node.offset_s += seconds

    @rule(name=names, is_full=st.booleans())
    def fill_disk(self, name: str, is_full: bool) -> None:
        self.node(name).is_full = is_full

    @rule(name=names, ahead=st.integers(0, 3))
    def claim(self, name: str, ahead: int) -> None:
        number = max(epoch.number for epoch in [*self.cluster.led_by, NO_EPOCH])
        claim = Epoch(number + ahead, 1, 1)
        node = self.node(name)
        self.cluster.happen(node.name, lambda core, now: core.claimed(now, claim))

    @rule()
    def register_wherever_it_is_allowed(self) -> None:
        for node, core in self.cluster.running():
            now = self.cluster.time_of(node)
            if node.waiting is None and core.election.may_write(now):
                self.members += 1
                entry = Entry(f"w{self.members}", "worker")
                self.cluster.do(node, core.register(now, [entry]))

    # --- and then nothing -----------------------------------------------------------

    def teardown(self) -> None:
        cluster = self.cluster
        self.change_the_weather(0.0, 0.0, 0.0)
        self.heal()
        for node in cluster.nodes.values():
            node.is_full = False
            cluster.wake(node)
            if node.core is None:
                cluster.start(node.name)
        cluster.run(WELL_AFTER_S)
        leaders = [n for n, core in cluster.running() if core.election.leader == n.name]
        assert len(leaders) == 1, "nobody, or more than one, leads"
        [leader] = leaders
        assert leader.core is not None
        assert leader.core.election.may_write(cluster.time_of(leader))
        for node, core in cluster.running():
            election = core.election
            assert election.leader == leader.name
            assert election.led == election.copy == leader.core.election.led
            assert core.is_in_step == (node is not leader)
            assert core.registry.ids == leader.core.registry.ids
            assert election.role in (Role.LEADING, Role.FOLLOWING)


ElectionModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestElectionModel = ElectionModel.TestCase
