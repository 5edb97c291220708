"""A process of a scenario that is no factory: it seeks the leader and keeps to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from scenario_world import LATENCY_S, Factory, World

from opencluster.core.election import Role
from opencluster.core.entries import Entry
from opencluster.core.epochs import Epoch
from opencluster.core.seeking import Abandon, Adopt, Effect, Greet, Seeker
from opencluster.errors import NotLeader

TICK_S = 0.2
RENEW_S = 1.0
GREETING_S = 0.5
"""How long an answer to a greeting is waited for."""


class Client:
    """Seeks the leader, and keeps its members registered there.

    Parameters
    ----------
    world : World
        Where it lives.
    name : str
        How the scenario calls it.
    listed : sequence of str
        The factories of its list.
    patience_s : float
        For how long an answer may be overdue before others are asked.
    """

    def __init__(
        self, world: World, name: str, listed: Sequence[str], patience_s: float = 1.0
    ) -> None:
        self.world = world
        self.name = name
        self.seeker = Seeker(patience_s)
        self.seeker.listed(listed)
        self.members: dict[str, Entry] = {}
        self._greetings: dict[str, int] = {}
        self._asked_at: dict[int, float] = {}
        self._count = 0
        self._every(TICK_S, self._tick)
        self._every(RENEW_S, self.renew)
        self._tick()

    # --- what it does by itself ----------------------------------------------

    def _every(self, interval_s: float, action: Callable[[], None]) -> None:
        def again() -> None:
            self._every(interval_s, action)
            action()

        self.world.clock.after(interval_s, again)

    def _tick(self) -> None:
        self.seeker.check_invariants()
        since = min(self._asked_at.values(), default=None)
        self.do(self.seeker.tick(self.world.clock.now, since))

    def renew(self) -> None:
        """Ask the leader to keep the members of this process."""
        leader = self.seeker.leader
        if not leader:
            return
        self._count += 1
        number, ids = self._count, list(self.members)
        self._asked_at[number] = self.world.clock.now

        def ask(factory: Factory) -> None:
            try:
                unknown = factory.running.renew(factory.now, ids)
            except NotLeader as error:
                named = error.leader
                text = f"no leader, but {named}" if named else "no leader"
                self.hear(leader, text, lambda: self._declined(number, leader, named))
            else:
                text = f"unknown {' '.join(unknown) or '-'}"
                self.hear(leader, text, lambda: self._renewed(number, leader, unknown))

        self.say_to(leader, f"renew {' '.join(ids) or '-'}", ask)

    def _renewed(self, number: int, leader: str, unknown: Sequence[str]) -> None:
        self._asked_at.pop(number, None)
        entries = [self.members[identity] for identity in unknown]
        if entries:
            text = f"register {' '.join(unknown)}"
            self.say_to(leader, text, lambda factory: register(factory, entries))

    def _declined(self, number: int, name: str, leader: str) -> None:
        self._asked_at.pop(number, None)
        self.do(self.seeker.declined(name, leader))

    # --- whom it asks --------------------------------------------------------

    def do(self, effects: Iterable[Effect]) -> None:
        """Do what was decided."""
        for effect in effects:
            match effect:
                case Greet(name, epoch):
                    self._greet(name, epoch)
                case Adopt(name, epoch):
                    text = self.world.text(epoch)
                    self.world.say(f"{self.name} asks {name} from now on, {text}")
                    self._asked_at.clear()
                    self.renew()
                case Abandon(name, reason):
                    self.world.say(f"{self.name} leaves {name}: {reason}")
                    self._asked_at.clear()

    def _greet(self, name: str, epoch: Epoch) -> None:
        self._count += 1
        number = self._greetings[name] = self._count

        def ask(factory: Factory) -> None:
            factory.do(factory.running.claimed(factory.now, epoch))
            election = factory.running.election
            is_leading = election.role is Role.LEADING
            led, leader = election.led, election.said_to_lead
            text = f"{election.role.value} {self.world.text(led)} {leader}".rstrip()

            def answer() -> None:
                if self._greetings.pop(name, 0) == number:
                    self.do(self.seeker.answered(name, is_leading, led, leader))

            self.hear(name, text, answer)

        def give_up() -> None:
            if self._greetings.get(name) == number:
                del self._greetings[name]
                self.do(self.seeker.unanswered(name))

        self.world.clock.after(GREETING_S, give_up)
        self.say_to(name, f"hello {self.world.text(epoch)}", ask)

    # --- the network ---------------------------------------------------------

    def say_to(self, name: str, text: str, ask: Callable[[Factory], None]) -> None:
        """Ask a factory; one that does not run breaks the connection."""

        def arrive() -> None:
            factory = self.world.factories[name]
            if not factory.is_running:
                self.lost(name)
                return

            def handle() -> None:
                factory.do(factory.running.observe(factory.now))
                ask(factory)

            factory.soon(handle)

        self.world.network.send((self.name, name), "client", text, arrive)

    def hear(self, name: str, text: str, action: Callable[[], None]) -> None:
        """Get an answer of a factory."""
        self.world.network.send((name, self.name), "client", text, action)

    def lost(self, name: str) -> None:
        """Notice, a little later, that the connection to a factory broke."""

        if self.world.factories[name].is_silent:
            return

        def notice() -> None:
            self._greetings.pop(name, None)
            if name == self.seeker.leader:
                self._asked_at.clear()
            self.do(self.seeker.lost(name))

        ways = {(name, self.name), (self.name, name)}
        if not ways & self.world.network.cuts:
            self.world.clock.after(LATENCY_S, notice)


def register(factory: Factory, entries: Sequence[Entry]) -> None:
    """Register members, unless the factory declines."""
    names = " ".join(entry.id for entry in entries)
    try:
        factory.do(factory.running.register(factory.now, entries))
    except NotLeader as error:
        factory.world.say(f"{factory.name} declines {names}: {error}")
    else:
        revision = factory.running.registry.revision
        factory.world.say(f"{factory.name} has {names}, revision {revision}")
