"""The words of scenarios, and what they do to the world.

A scenario is a text of three kinds of lines: ``# prose``, ``> a command``, and, below
each command, what happened, indented by two spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scenario_clients import Client, register
from scenario_world import Factory, World, members

from opencluster.core.election import Quorum
from opencluster.core.entries import Entry
from opencluster.core.epochs import Epoch
from opencluster.errors import NotLeader

PERIODIC = ("beat", "heard")
"""Kinds that are shown only when all is."""
INDENT = "  "

Way = tuple[str, str]


def run_scenario(text: str, directory: Path) -> str:
    """Run the commands of a scenario, and return it with what happened now."""
    script = Script(World(directory))
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(INDENT):
            continue
        lines.append(line)
        if line.startswith("> "):
            lines += [INDENT + said for said in script.obey(line[2:])]
    return "\n".join(lines) + "\n"


class Script:
    """Obeys the commands of one scenario."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: dict[str, Client] = {}

    def obey(self, line: str) -> list[str]:
        """Do what a command says, and return what is to be seen of it."""
        words = line.split()
        settings = dict(w.split("=", 1) for w in words[1:] if re.match(r"\w+=", w))
        rest = [w for w in words[1:] if not re.match(r"\w+=", w)]
        command: Callable[..., list[str] | None] = getattr(self, f"do_{words[0]}")
        shown = command(*rest, **settings) or []
        self.world.check()
        return [*self.world.said(), *shown]

    # --- who is here ---------------------------------------------------------

    def do_factories(self, *names: str, **settings: str) -> None:
        """``factories a b c [quorum=majority] [timeout=1] [beat=0.2] [lease=60]``."""
        cluster = self.world.cluster
        cluster.names = list(names)
        cluster.quorum = Quorum(settings.pop("quorum", "courtesy"))
        for name in names:
            self.world.factories[name] = Factory(self.world, name)
        for name, value in settings.items():
            assert hasattr(cluster, f"{name}_s"), f"factories have no {name}"
            setattr(cluster, f"{name}_s", float(value))

    def do_start(self, *names: str, list: str = "") -> None:
        """``start a b [list=a,b,c]``: begin processes."""
        for name in names:
            if name not in self.world.factories:
                self.world.factories[name] = Factory(self.world, name)
            if list:
                self.factory(name).names = list.split(",")
            self.factory(name).start()

    def do_restart(self, *words: str, list: str = "") -> None:
        """``restart a b [without disk | with torn file] [list=a,b,c]``."""
        names, how = split(words, ("without", "with"))
        for name in names:
            disk = self.factory(name).disk
            if how == ["without", "disk"]:
                disk.lose()
            elif how == ["with", "torn", "file"]:
                disk.tear()
            else:
                assert not how, f"no restart {' '.join(how)}"
        self.do_start(*names, list=list)

    def do_crash(self, *names: str) -> None:
        """``crash a``: kill the process; its connections break."""
        for name in names:
            self.factory(name).crash()
            for client in self.clients.values():
                client.lost(name)

    def do_vanish(self, *names: str) -> None:
        """``vanish a``: the process is gone, and nobody is told."""
        for name in names:
            self.factory(name).crash(is_silent=True)

    def do_resign(self, *names: str) -> None:
        """``resign a``: leave in good order, then end."""
        for name in names:
            factory = self.factory(name)
            factory.do(factory.running.resign(factory.now))
            self.do_crash(name)

    def do_pause(self, name: str) -> None:
        """``pause a``: the process stands still, and what comes waits."""
        self.factory(name).is_paused = True

    def do_wake(self, name: str) -> None:
        """``wake a``: it goes on, first with what came."""
        self.factory(name).wake()

    def do_clock(self, name: str, by: str) -> None:
        """``clock a +3``: its clock jumps."""
        self.factory(name).offset_s += float(by)

    def do_full(self, _: str, name: str) -> None:
        """``full disk a``: nothing can be written."""
        self.factory(name).disk.is_full = True

    def do_free(self, _: str, name: str) -> None:
        """``free disk a``: something can be written again."""
        self.factory(name).disk.is_full = False

    # --- time and the network ------------------------------------------------

    def do_run(self, seconds: str) -> None:
        """``run 1.5``: let time pass."""
        self.world.run(float(seconds))

    def do_trace(self, what: str) -> None:
        """``trace on | off | all | KIND...``: show what is said."""
        kinds = what.split(",")
        shown: dict[str, Callable[[str], bool]] = {
            "on": lambda kind: kind not in PERIODIC,
            "off": lambda kind: False,
            "all": lambda kind: True,
        }
        self.world.traced = shown.get(what, lambda kind: kind in kinds)

    def do_cut(self, *words: str) -> None:
        """``cut a | b c`` or, in one direction, ``cut a>b``."""
        groups = " ".join(words).split("|")
        if len(groups) == 1:
            self.world.network.cuts.update(way for word in words for way in ways(word))
        for group in groups:
            for other in groups:
                if other is not group:
                    here, there = group.split(), other.split()
                    cuts = {(one, two) for one in here for two in there}
                    self.world.network.cuts.update(cuts)

    def do_heal(self) -> None:
        """``heal``: carry everything again."""
        self.world.network.heal()

    def do_hold(self, words: str, *kinds: str) -> None:
        """``hold a>b [KIND...]``: keep back what is sent from now on."""
        for way in ways(words):
            self.world.network.hold(way, kinds)

    def do_carry(self, words: str) -> None:
        """``carry a>b``: carry again what is sent; what was kept back stays so."""
        for way in ways(words):
            self.world.network.hold_no_more(way)

    def do_release(self, words: str, *how: str) -> list[str]:
        """``release a>b [reversed]``: let go of what was kept back."""
        network = self.world.network
        counts = [network.release(way, "reversed" in how) for way in ways(words)]
        return [f"{sum(counts)} released"]

    def do_drop(self, words: str) -> list[str]:
        """``drop a>b``: lose what was kept back."""
        counts = [self.world.network.drop(way) for way in ways(words)]
        return [f"{sum(counts)} dropped"]

    def do_twice(self, words: str, *kinds: str) -> None:
        """``twice a>b KIND...``: deliver twice, until healed."""
        for way in ways(words):
            self.world.network.double(way, kinds)

    def do_lose(self, one: str, other: str) -> None:
        """``lose a b``: the connection between two breaks."""
        self.world.tell("peer_lost", one, other)
        self.world.tell("peer_lost", other, one)

    def do_connect(self, one: str, other: str) -> None:
        """``connect a b``: it stands again."""
        self.world.tell("peer_connected", one, other)
        self.world.tell("peer_connected", other, one)

    # --- the registry --------------------------------------------------------

    def do_register(self, identity: str, _: str, name: str) -> None:
        """``register w1 at a``."""
        self._write(name, lambda f: register(f, [member(identity)]))

    def do_renew(self, identity: str, _: str, name: str) -> None:
        """``renew w1 at a``."""

        def renew(factory: Factory) -> None:
            unknown = factory.running.renew(factory.now, [identity])
            text = "knows no" if unknown else "renews"
            self.world.say(f"{name} {text} {identity}")

        self._write(name, renew)

    def do_remove(self, identity: str, _: str, name: str, *why: str) -> None:
        """``remove w1 at a [because killed by SIGKILL]``."""
        cause = {"reason": " ".join(why[1:])} if why else None

        def remove(factory: Factory) -> None:
            at = self.world.time_of_day
            factory.do(factory.running.remove(factory.now, identity, cause, at))
            revision = factory.running.registry.revision
            self.world.say(f"{name} is at revision {revision}")

        self._write(name, remove)

    def do_job(self, identity: str, _: str, name: str) -> None:
        """``job j1 at a``: report that a job runs."""
        job = {"id": identity, "state": "running"}
        self._write(name, lambda f: f.do(f.running.report_job(f.now, job)))

    def do_claim(self, name: str, epoch: str) -> None:
        """``claim a (7,1)``: somebody who is no factory knows an epoch."""
        number, place = (int(part) for part in epoch.strip("()").split(","))
        factory = self.factory(name)
        claim = Epoch(number, place)
        factory.soon(lambda: factory.do(factory.running.claimed(factory.now, claim)))

    def _write(self, name: str, write: Callable[[Factory], None]) -> None:
        factory = self.factory(name)

        def observe_and_write() -> None:
            factory.do(factory.running.observe(factory.now))
            try:
                write(factory)
            except NotLeader as error:
                self.world.say(f"{name} declines: {error}")

        factory.soon(observe_and_write)

    # --- clients -------------------------------------------------------------

    def do_client(self, name: str, *words: str, patience: str = "1") -> None:
        """``client x a b c [patience=1]``; ``client x lists | registers ...``."""
        if name not in self.clients:
            self.clients[name] = Client(self.world, name, words, float(patience))
            return
        client = self.clients[name]
        if words[0] == "lists":
            client.seeker.listed(words[1:])
            return
        assert words[0] == "registers", f"clients do not {words[0]}"
        client.members |= {identity: member(identity) for identity in words[1:]}
        client.renew()

    def do_clients(self) -> list[str]:
        """``clients``: whom each asks, and whom it knows."""
        rows = [("name", "asks", "epoch", "knows")]
        for name, client in self.clients.items():
            seeker = client.seeker
            epoch = self.world.text(seeker.epoch)
            rows.append((name, seeker.leader or "-", epoch, " ".join(seeker.names)))
        return table(rows)

    # --- what is to be seen --------------------------------------------------

    def do_show(self) -> list[str]:
        """``show``: what each factory is doing."""
        head = "name role leader epoch seen revision step age writes"
        rows: list[Sequence[Any]] = [head.split()]
        for factory in self.sorted():
            if factory.state is None:
                rows.append((factory.name, "down", *"-------"))
                continue
            state, now = factory.state, factory.now
            election = state.election
            age_s = state.age_s(now)
            able = "" if election.is_able(now) else ", unable"
            role = "paused" if factory.is_paused else election.role.value
            rows.append(
                (
                    *(factory.name, role + able, election.leader or "-"),
                    *(self.world.text(election.led), election.seen),
                    state.registry.revision,
                    "in" if state.is_in_step else "-",
                    "-" if age_s is None else f"{age_s:.2f}",
                    "yes" if election.may_write(now) else "no",
                )
            )
        return table(rows)

    def do_members(self, *names: str) -> list[str]:
        """``members [a b]``: who is here, and for how long."""
        rows = []
        for factory in self.sorted():
            if factory.state is None or (names and factory.name not in names):
                continue
            known = members(factory.state)
            records = factory.state.registry._records.values()
            ends_at = min((record.expires_at for record in records), default=0.0)
            left_s = ends_at - factory.now
            lease = f", first lease ends in {left_s:.2f}" if known else ""
            rows.append(f"{factory.name}: {' '.join(sorted(known)) or 'nobody'}{lease}")
        return rows

    def do_deaths(self, *names: str) -> list[str]:
        """``deaths [a b]``: who was lost, and why."""
        return [
            f"{factory.name}: {death['id']} {death['cause']['reason']}"
            for factory in self.sorted()
            if factory.state is not None and (not names or factory.name in names)
            for death in factory.state.registry.snapshot()["deaths"]
        ]

    def do_jobs(self) -> list[str]:
        """``jobs``: which jobs are known where."""
        return [
            f"{factory.name}: {job['id']} {job['state']}"
            for factory in self.sorted()
            if factory.state is not None
            for job in factory.state.registry.snapshot()["jobs"]
        ]

    def do_disk(self, *names: str) -> list[str]:
        """``disk a``: what a restart would find."""
        rows = []
        for name in names:
            seen, led = self.factory(name).disk.read()
            rows.append(f"{name}: seen {seen}, led {self.world.text(led)}")
        return rows

    def factory(self, name: str) -> Factory:
        """Return a factory by its name."""
        return self.world.factories[name]

    def sorted(self) -> Iterator[Factory]:
        """Return the factories in the order of their names."""
        return (self.world.factories[name] for name in sorted(self.world.factories))


def member(identity: str) -> Entry:
    """Return the entry of a member by its name."""
    return Entry(identity, "worker", type="T", name=identity)


def ways(words: str) -> list[Way]:
    """Return the directions that ``a>b``, or ``a>b,c``, stands for."""
    senders, _, receivers = words.partition(">")
    assert receivers, f"{words!r} is no direction"
    return [(one, two) for one in senders.split(",") for two in receivers.split(",")]


def split(words: Sequence[str], at: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what stands before the first of some words, and the rest."""
    index = next((i for i, word in enumerate(words) if word in at), len(words))
    return list(words[:index]), list(words[index:])


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return rows in columns of equal width."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        " ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in texts
    ]
