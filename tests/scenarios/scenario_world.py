"""Factories on a network without surprises: what a scenario says happens, happens.

Time is virtual, every message takes `LATENCY_S`, and everything drawn at random comes
from the name of who draws it. The rules that must hold whatever happens are checked
after every event, so that no expected output can bless their breach.
"""

from __future__ import annotations

import errno
import heapq
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opencluster.core.election import (
    Election,
    Follow,
    Lead,
    Quorum,
    SaveEpochs,
    SendMessage,
    StepDown,
)
from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.core.factory_messages import Message, from_fields, to_fields
from opencluster.core.registry import Registry
from opencluster.core.replication import Effect, Publish, ReplicatedRegistry
from opencluster.store.epochs import EpochFile

LATENCY_S = 0.01
"""What a message takes on its way."""
TIME_OF_DAY = 1_000_000.0
"""At the beginning of each scenario."""

Action = Callable[[], None]


@dataclass
class Cluster:
    """What all factories of a scenario have in common, unless one is told otherwise."""

    names: list[str] = field(default_factory=list)
    quorum: Quorum = Quorum.COURTESY
    timeout_s: float = 1.0
    beat_s: float = 0.2
    lease_s: float = 60.0


class Clock:
    """Virtual time, and what will happen in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._count = 0

    def after(self, seconds: float, action: Action) -> None:
        """Let something happen later."""
        self._count += 1
        at = round(self.now + seconds, 9)
        heapq.heappush(self._queue, (at, self._count, action))

    def run(self, seconds: float) -> Iterator[None]:
        """Let time pass, and stop after each thing that happened in it."""
        end = round(self.now + seconds, 9)
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            yield
        self.now = end


class Network:
    """Carries what is said, and does to it what the scenario asks for."""

    def __init__(self, clock: Clock, log: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._log = log
        self.cuts: set[tuple[str, str]] = set()
        self._holds: dict[tuple[str, str], set[str]] = {}
        self._held: dict[tuple[str, str], list[Action]] = {}
        self._twice: dict[tuple[str, str], set[str]] = {}

    def send(self, way: tuple[str, str], kind: str, text: str, action: Action) -> None:
        """Send something of a kind, which arrives by an action."""
        line = f"{way[0]}>{way[1]} {text}"
        kinds = self._holds.get(way, set())
        if way in self.cuts:
            self._log(kind, f"{line} (lost)")
        elif way in self._holds and (not kinds or kind in kinds):
            self._log(kind, f"{line} (held)")
            self._held.setdefault(way, []).append(action)
        else:
            is_twice = way in self._twice and kind in self._twice[way]
            self._log(kind, f"{line} (twice)" if is_twice else line)
            for _ in range(1 + is_twice):
                self._clock.after(LATENCY_S, action)

    def hold(self, way: tuple[str, str], kinds: Iterable[str]) -> None:
        """Keep back what is sent from now on: of these kinds, or all."""
        self._holds[way] = set(kinds)

    def hold_no_more(self, way: tuple[str, str]) -> None:
        """Carry what is sent from now on; what was kept back stays so."""
        del self._holds[way]

    def release(self, way: tuple[str, str], is_reversed: bool = False) -> int:
        """Let go of what was kept back, and keep no more."""
        self._holds.pop(way, None)
        held = self._held.pop(way, [])
        for action in reversed(held) if is_reversed else held:
            self._clock.after(LATENCY_S, action)
        return len(held)

    def drop(self, way: tuple[str, str]) -> int:
        """Lose what was kept back, and keep no more."""
        self._holds.pop(way, None)
        return len(self._held.pop(way, []))

    def double(self, way: tuple[str, str], kinds: Iterable[str]) -> None:
        """Deliver twice what is of these kinds."""
        self._twice[way] = set(kinds)

    def heal(self) -> None:
        """Carry everything once, at once."""
        self.cuts.clear()
        self._twice.clear()


class Disk:
    """A real file of epochs, on a disk that can be full."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "epoch"
        self._file = EpochFile(self._path)
        self.is_full = False

    def read(self) -> tuple[int, Epoch]:
        """Return what a factory finds when it starts."""
        return self._file.read()

    def write(self, seen: int, led: Epoch) -> None:
        """Save epochs, or fail as a full disk does."""
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._file.write(seen, led)

    def lose(self) -> None:
        """Be a new disk."""
        self._path.unlink(missing_ok=True)

    def tear(self) -> None:
        """Be what is left when the power fails in the middle of a write."""
        content = self._path.read_bytes()
        self._path.write_bytes(content[: len(content) // 2])


class Factory:
    """One factory: its process, its disk and its clock."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.names = world.cluster.names
        self.disk = Disk(world.directory / name)
        self.offset_s = 0.0
        self.runs = 0
        self.state: ReplicatedRegistry | None = None
        self.is_paused = False
        self.is_silent = False
        self._waiting: list[Action] = []

    # --- its life ------------------------------------------------------------

    @property
    def now(self) -> float:
        """What its clock shows."""
        return self.world.clock.now + self.offset_s

    @property
    def is_running(self) -> bool:
        """Whether there is a process, be it paused."""
        return self.state is not None

    @property
    def running(self) -> ReplicatedRegistry:
        """What it knows, while there is a process."""
        assert self.state is not None, f"{self.name} does not run"
        return self.state

    def start(self) -> None:
        """Begin a process of this factory."""
        assert self.state is None, f"{self.name} runs already"
        self.runs += 1
        self.is_paused = self.is_silent = False
        shared = self.world.cluster
        seen, led = self.disk.read()
        election = Election(
            self.names,
            self.name,
            random.Random(f"{self.name}{self.runs}"),
            shared.timeout_s,
            shared.beat_s,
            shared.quorum,
            seen,
            led,
        )
        self.world.runs[election.run] = f"{self.name}{self.runs}"
        self.state = ReplicatedRegistry(election, Registry(shared.lease_s))
        self.do(self.state.start(self.now))
        self._tick_later(self.runs)
        for other in self.world.others(self.name):
            self.world.tell("peer_connected", self.name, other.name)
            self.world.tell("peer_connected", other.name, self.name)

    def crash(self, is_silent: bool = False) -> None:
        """End the process; silently, when its computer vanished with it."""
        self.state = None
        self.is_silent = is_silent
        self._waiting.clear()
        if not is_silent:
            for other in self.world.others(self.name):
                self.world.tell("peer_lost", other.name, self.name)

    def wake(self) -> None:
        """Go on after a pause, with what came meanwhile."""
        self.is_paused = False
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    def soon(self, action: Action) -> None:
        """Do something, or as soon as this process is awake, or never."""
        if self.is_paused:
            self._waiting.append(action)
        elif self.state is not None:
            action()

    # --- what happens to it --------------------------------------------------

    def receive(self, sender: str, message: Message) -> None:
        """Take in a message that crossed the network."""
        copy = from_fields(as_lists(to_fields(message)))
        self.soon(lambda: self.do(self.running.receive(self.now, sender, copy)))

    def told_of(self, event: str, name: str) -> None:
        """Take note that a connection broke, or stands."""
        self.soon(lambda: self.do(getattr(self.running, event)(self.now, name)))

    def _tick_later(self, run: int) -> None:
        def tick() -> None:
            if self.state is None or run != self.runs:
                return
            self._tick_later(run)
            if not self.is_paused:
                self.do(self.state.tick(self.now))
                if self.state is not None:
                    self.do(self.state.expire(self.now, self.world.time_of_day))

        self.world.clock.after(self.world.cluster.beat_s, tick)

    def do(self, effects: Iterable[Effect]) -> None:
        """Do what was decided."""
        for effect in effects:
            match effect:
                case SendMessage(to=to, message=message):
                    self.world.send(self.name, to, message)
                case SaveEpochs():
                    self._save(effect)
                case Publish(epoch=epoch, delta=delta):
                    self.world.rules.changed(epoch, delta)
                case Lead(epoch=epoch):
                    self.world.say(f"{self.name} leads, {self.world.text(epoch)}")
                    self.world.rules.began(epoch, self.running)
                case Follow(leader=leader, epoch=epoch):
                    text = self.world.text(epoch)
                    self.world.say(f"{self.name} follows {leader}, {text}")
                case StepDown(reason=reason):
                    self.world.say(f"{self.name} steps down: {self.readable(reason)}")

    def readable(self, reason: str) -> str:
        """Return a reason in which an epoch is shown by its name."""
        before, bracket, rest = reason.partition("[")
        if not bracket:
            return reason
        inside, _, after = rest.partition("]")
        epoch = Epoch(*(int(part) for part in inside.split(",")))
        return f"{before}{self.world.text(epoch)}{after}"

    def _save(self, effect: SaveEpochs) -> None:
        state = self.running
        try:
            self.disk.write(effect.seen, effect.led)
        except OSError as error:
            self.world.say(f"{self.name} cannot save: {error.strerror}")
            if effect.wanted is not None:
                self.do(state.not_saved(self.now))
            return
        if effect.wanted is not None:
            self.do(state.saved(self.now, effect.wanted))


class Rules:
    """What holds in every scenario after every event."""

    def __init__(self) -> None:
        self._led_by: dict[Epoch, ReplicatedRegistry] = {}
        self._history: dict[Epoch, dict[int, dict[str, Entry]]] = {}
        self._led: dict[ReplicatedRegistry, Epoch] = {}

    def began(self, epoch: Epoch, state: ReplicatedRegistry) -> None:
        """Take note that somebody leads; no two leaders ever share an epoch."""
        assert epoch not in self._led_by, f"{epoch} is used twice"
        self._led_by[epoch] = state
        self._history[epoch] = {state.registry.revision: members(state)}

    def changed(self, epoch: Epoch, delta: Delta) -> None:
        """Take note of what a leader's registry was at a revision."""
        was = dict(self._history[epoch][delta.revision - 1])
        was.pop(delta.id, None)
        if delta.entry is not None:
            was[delta.id] = delta.entry
        self._history[epoch][delta.revision] = was

    def check(self, factories: Iterable[Factory], is_majority: bool) -> None:
        """Fail when one of the rules is broken."""
        writers = []
        for factory in factories:
            state = factory.state
            if state is None:
                continue
            state.check_invariants()
            led = state.election.led
            assert not self._led.get(state, NO_EPOCH).is_newer_than(led), (
                f"the epoch of {factory.name} goes back"
            )
            self._led[state] = led
            if state.is_in_step:
                was = self._history[led][state.registry.revision]
                assert was == members(state), f"{factory.name} is not what it copies"
            is_awake = not factory.is_paused
            if is_awake and state.election.may_write(factory.now):
                writers.append(factory.name)
        assert not is_majority or len(writers) <= 1, f"{writers} may write"


class World:
    """All that a scenario is about.

    Parameters
    ----------
    directory : Path
        For the disks of the factories.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.cluster = Cluster()
        self.network = Network(self.clock, self._trace)
        self.factories: dict[str, Factory] = {}
        self.rules = Rules()
        self.runs: dict[int, str] = {}
        self.traced: Callable[[str], bool] = lambda kind: False
        self._said: list[str] = []

    @property
    def time_of_day(self) -> float:
        """What the clock on the wall shows."""
        return TIME_OF_DAY + self.clock.now

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in self.clock.run(seconds):
            self.check()

    def check(self) -> None:
        """Fail when a rule is broken."""
        is_majority = self.cluster.quorum is Quorum.MAJORITY
        self.rules.check(self.factories.values(), is_majority)

    def say(self, text: str) -> None:
        """Put a line into the output."""
        self._said.append(f"{self.clock.now:5.2f}  {text}")

    def said(self) -> list[str]:
        """Return the lines since the last call."""
        said, self._said = self._said, []
        return said

    def _trace(self, kind: str, text: str) -> None:
        if self.traced(kind):
            self.say(text)

    def text(self, epoch: Epoch) -> str:
        """Return how a scenario writes an epoch: its number and whose run it was."""
        if epoch == NO_EPOCH:
            return "-"
        if epoch.run in self.runs:
            return f"{epoch.number}.{self.runs[epoch.run]}"
        return f"({epoch.number},{epoch.place})"

    def send(self, sender: str, to: str, message: Message) -> None:
        """Carry a message from one factory to another."""
        kind = type(message).__name__.lower()

        def arrive() -> None:
            if to in self.factories:
                self.factories[to].receive(sender, message)

        self.network.send((sender, to), kind, self.describe(message), arrive)

    def others(self, name: str) -> list[Factory]:
        """Return all factories that run, but one."""
        factories = self.factories.values()
        return [other for other in factories if other.is_running and other.name != name]

    def tell(self, event: str, name: str, other: str) -> None:
        """Let a factory notice what happened to its connection with another."""
        ways = {(name, other), (other, name)}
        if not ways & self.network.cuts:
            factory = self.factories[name]
            self.clock.after(LATENCY_S, lambda: factory.told_of(event, other))

    def describe(self, message: Message) -> str:
        """Return a message in a few words."""
        kind, *fields = to_fields(message)
        named = dict(zip(message.__dataclass_fields__, fields, strict=True))
        words = [kind]
        for name, value in named.items():
            match value:
                case Epoch():
                    words.append(f"{name}={self.text(value)}")
                case {"revision": revision, "id": identity, "entry": entry}:
                    sign = "+" if entry else "-"
                    words.append(f"rev={revision} {sign}{identity}")
                case {"revision": revision}:
                    words.append(f"rev={revision}")
                case {"id": identity}:
                    words.append(str(identity))
                case bool():
                    words.append(name if value else name.replace("is_", "not_"))
                case "":
                    pass
                case str():
                    words.append(value)
                case int():
                    words.append(f"{name}={value}")
        return " ".join(words)


def members(state: ReplicatedRegistry) -> dict[str, Entry]:
    """Return who is in a registry."""
    return {entry.id: entry for entry in state.registry.find()}


def as_lists(value: Any) -> Any:
    """Return plain types as they come out of a message: no tuples, no sharing."""
    match value:
        case dict():
            return {key: as_lists(item) for key, item in value.items()}
        case list() | tuple():
            return [as_lists(item) for item in value]
        case _:
            return value
