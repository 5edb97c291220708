"""A factory: `core.replication` joined to a virtual network, as ``factory.py`` joins it
to a real one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from sim_disk import Disk
from sim_process import Process

from opencluster.core.election import (
    Election,
    Follow,
    Lead,
    Role,
    SaveEpochs,
    SendMessage,
    StepDown,
)
from opencluster.core.factory_messages import from_fields, to_fields
from opencluster.core.registry import Registry
from opencluster.core.replication import Effect, Publish, ReplicatedRegistry
from opencluster.errors import NotLeader, RegistryError
from opencluster.testing.virtual import VirtualClock

if TYPE_CHECKING:
    from sim_world import World

ROLES = {Role.LEADING: "leader", Role.FOLLOWING: "follower"}


class SimFactory(Process):
    """One life of a factory.

    Parameters
    ----------
    world : World
        Where it lives.
    name : str
        Its own, which is also its node and its endpoint.
    names : sequence of str
        Its list of factories.
    disk : Disk
        What it left behind in an earlier life.
    """

    def __init__(
        self,
        world: World,
        name: str,
        names: Sequence[str],
        disk: Disk,
        clock: VirtualClock,
    ) -> None:
        super().__init__(world, name, name, clock)
        setup = world.setup
        self.disk = disk
        seen, led = disk.content
        randomness = Random(world.chance.getrandbits(64))
        self.election = Election(
            names,
            name,
            randomness,
            setup.timeout_s,
            setup.beat_s,
            setup.quorum,
            seen,
            led,
        )
        self.registry = Registry(setup.lease_s)
        self.core = ReplicatedRegistry(self.election, self.registry)
        # both by its own clock
        self.ticked_at = self.now()
        self.led_at = self.now()
        self.subscribers: dict[str, None] = {}
        self._handlers = {
            "hello": self._hello,
            "register": self._register,
            "renew": self._renew,
            "deregister": self._deregister,
            "subscribe": self._subscribe,
            "find": self._find,
            "job": self._job,
        }
        world.ledger.started(self)
        world.network.attach(name, self._datagram)
        world.wires.listen(name, self)
        self.take(self._begin)

    def check(self) -> None:
        """Check the rules of factories."""
        self.world.ledger.check_factory(self)

    def _begin(self) -> None:
        setup = self.world.setup
        self.log("starts, of %s", self.election.names)
        self.every(setup.beat_s, self._tick)
        self.every(setup.heartbeat_s, self._beat)
        self._do(self.core.start(self.now()))

    def crash(self) -> None:
        """End it without a word."""
        super().crash()
        self.world.network.detach(self.name)
        self.disk.crashed()
        self.world.ledger.ended(self)

    def resign(self) -> None:
        """End it in good order."""
        self._do(self.core.resign(self.now()))
        self.crash()

    # --- other factories ------------------------------------------------------

    def _datagram(self, sender: str, fields: list[Any]) -> None:
        self.take(self._receive, sender, fields)

    def _receive(self, sender: str, fields: list[Any]) -> None:
        message = from_fields(fields)
        self._do(self.core.receive(self.now(), sender, message))

    def peer_lost(self, name: str) -> None:
        """Take note that the connection to a factory broke."""
        self._do(self.core.peer_lost(self.now(), name))

    def peer_connected(self, name: str) -> None:
        """Take note that the connection to a factory stands."""
        self._do(self.core.peer_connected(self.now(), name))

    # --- time -------------------------------------------------------------------

    def _tick(self) -> None:
        self.ticked_at = self.now()
        self._do(self.core.tick(self.ticked_at))

    def _beat(self) -> None:
        now = self.now()
        self._do(self.core.expire(now, 0.0))
        if self.election.may_write(now):
            self._push(("beat", self.election.led, self.registry.revision))

    def clock_went_back(self) -> None:
        """Look at the time."""
        self.ticked_at = self.now()
        # how long it has led cannot be told any more
        self.led_at = -math.inf
        self._do(self.core.observe(self.now()))

    # --- what others ask ----------------------------------------------------------

    def heard(self, key: str, message: tuple[Any, ...]) -> None:
        """Answer a request, or take a heartbeat."""
        # a leader that stood still must find that out before it does anything
        self._do(self.core.observe(self.now()))
        if message[0] == "renew":
            self._renew_silently(key, message[1])
            return
        _, number, operation, arguments = message
        error: Exception | None = None
        body: Any = None
        try:
            body = self._handlers[operation](key, arguments)
        except RegistryError as problem:
            error = problem
        self.world.wires.answer(self, key, ("reply", number, error, body))

    def _hello(self, key: str, arguments: Any) -> Any:
        self._do(self.core.claimed(self.now(), arguments["epoch"]))
        election = self.election
        role = ROLES.get(election.role, "looking")
        return role, election.led, election.said_to_lead

    def _register(self, key: str, arguments: Any) -> None:
        self._do(self.core.register(self.now(), arguments["entries"], key))

    def _renew(self, key: str, arguments: Any) -> list[str]:
        return self.core.renew(self.now(), arguments["ids"])

    def _renew_silently(self, key: str, ids: list[str]) -> None:
        """Take a heartbeat that is answered only when something is amiss."""
        answer = self.world.wires.answer
        try:
            unknown = self.core.renew(self.now(), ids)
        except NotLeader:
            answer(self, key, ("moved",))
            return
        if unknown:
            answer(self, key, ("forgotten", unknown))

    def _deregister(self, key: str, arguments: Any) -> None:
        cause = arguments.get("cause")
        self._do(self.core.remove(self.now(), arguments["id"], cause, 0.0))

    def _subscribe(self, key: str, arguments: Any) -> Any:
        self.core.check_leading(self.now())
        self.subscribers[key] = None
        return self.registry.snapshot() | {"epoch": self.election.led, "jobs": []}

    def _find(self, key: str, arguments: Any) -> Any:
        self.core.check_readable(self.now())
        return self.core.age_s(self.now()), [e.id for e in self.registry.find()]

    def _job(self, key: str, arguments: Any) -> None:
        self._do(self.core.report_job(self.now(), arguments["job"]))

    # --- effects ------------------------------------------------------------------

    def _do(self, effects: Iterable[Effect]) -> None:
        world, ledger = self.world, self.world.ledger
        for effect in effects:
            match effect:
                case SendMessage(to, message):
                    if world.trace is not None:
                        self.log("-> %s: %s", to, message)
                    world.network.send(self.name, to, to_fields(message))
                case SaveEpochs():
                    self._save(effect)
                case Publish(epoch, delta):
                    ledger.changed(self, epoch, delta)
                    self._push(("delta", epoch, delta))
                case Lead(epoch):
                    self.log("LEADS with epoch %s", epoch)
                    self.ticked_at = self.led_at = self.now()
                    ledger.leads(self, epoch)
                case Follow(leader, epoch):
                    self.log("follows %s of epoch %s", leader, epoch)
                    ledger.leads_no_more(self)
                case StepDown(reason):
                    self.log("STEPS DOWN: %s", reason)
                    ledger.leads_no_more(self)
                    self._push(("moved",))
                    self.subscribers.clear()

    def _save(self, epochs: SaveEpochs) -> None:
        def done(is_saved: bool) -> None:
            if epochs.wanted is None:
                return
            if is_saved:
                self._do(self.core.saved(self.now(), epochs.wanted))
            else:
                self.log("cannot save %s", epochs.wanted)
                self._do(self.core.not_saved(self.now()))

        self.disk.write(self, (epochs.seen, epochs.led), done)

    def _push(self, message: tuple[Any, ...]) -> None:
        answer = self.world.wires.answer
        for key in list(self.subscribers):
            if not answer(self, key, message):
                del self.subscribers[key]
