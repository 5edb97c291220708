"""A worker without a workshop: it registers itself, as `registration.OwnRegistration`
does, and nobody sees how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim_link import SimLink
from sim_worker import SimWorker

from opencluster.core.entries import Entry, with_attributes
from opencluster.core.inbox import TIME_LIMIT
from opencluster.errors import DeathEvidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim_wires import Wire
    from sim_world import World

    from opencluster.testing.virtual import VirtualClock

READY_S = 0.1
RESTART_S = (0.3, 2.0)
"""When another one is started."""
GOODBYE_S = 1.0
"""How long the answer to the last word may take."""


class _Nobody:
    """Where others have a workshop: nobody vouches, and nobody is told anything."""

    def __init__(self, world: World, name: str, clock: VirtualClock) -> None:
        self.world = world
        self.name = self.node = name
        self.clock = clock
        self.identity = ""
        self.worker: SimWorker

    def take(self, handler: Callable[..., None], *args: Any) -> None:
        """Let something happen that a workshop would see."""
        handler(*args)

    def worker_ready(self, worker: SimWorker) -> None:
        """Take note of nothing."""

    def worker_ended(self, worker: SimWorker, evidence: DeathEvidence) -> None:
        """Take note of nothing."""

    def restart(self, slot: str) -> None:
        """Have the worker end in good order, as its owner does by SIGTERM."""
        self.worker.take(self.worker.drain)


class SimLoneWorker(SimWorker):
    """One life of a worker that was started by hand."""

    def __init__(self, world: World, name: str, type: str, clock: VirtualClock) -> None:
        home: Any = _Nobody(world, name, clock)
        super().__init__(home, "1", type)
        home.worker = self
        # it stands in the registry from the first answer to its last word
        self.registered: Entry | None = None
        self._is_leaving = False
        self.link = SimLink(self, world.draw_list(), self._register)
        self.log("starts")
        self.after(READY_S, self.be_ready)

    def check(self) -> None:
        """Check the rules of workers and of clients."""
        super().check()
        self.world.ledger.check_client(self, self.link)

    # --- the registry --------------------------------------------------------

    def be_ready(self) -> None:
        """Register, as pieces can come."""
        super().be_ready()
        self.registered = self.entry
        self.every(self.world.setup.heartbeat_s, self._renew)
        if self.link.is_up:
            self._register()

    def _register(self) -> None:
        if self.registered is not None:
            self.link.request("register", {"entries": [self.registered]}, _nothing)

    def _renew(self) -> None:
        if self.registered is not None and self.link.is_up:
            self.link.request("renew", {"ids": [self.identity]}, self._renewed)

    def _renewed(self, error: Exception | None, unknown: Any) -> None:
        if error is None and unknown:
            self._register()

    # --- its end -------------------------------------------------------------

    def crash(self) -> None:
        """End it without a word; its owner starts another one."""
        if self.is_alive:
            super().crash()
            world = self.world
            delay_s = world.chance.uniform(*RESTART_S)
            world.loop.after(delay_s, world.restart_lone, self.node)

    def drain(self) -> None:
        """Register as one that takes no new pieces, and finish what runs."""
        if self.registered is not None:
            self.registered = with_attributes(self.registered, is_draining=True)
            if self.link.is_up:
                self._register()
        super().drain()

    def end(self, evidence: DeathEvidence) -> None:
        """Say goodbye first, if nobody forces it."""
        if evidence.exit_code != 0:
            self.crash()
        elif not self._is_leaving:
            self._is_leaving = True
            self.registered = None
            self.after(GOODBYE_S, self.crash)
            arguments = {"id": self.identity}
            self.link.request("deregister", arguments, lambda *_: self.crash())

    def _enforce(self, run: int, reason: str) -> None:
        """Let the kernel's alarm end what is out of time; nobody ends anything else."""
        if reason == TIME_LIMIT:
            super()._enforce(run, reason)

    # --- connections ---------------------------------------------------------

    def answered(self, wire: Wire, message: tuple[Any, ...]) -> None:
        """Take a message of a factory."""
        self.link.answered(wire, message)

    def lost(self, wire: Wire) -> None:
        """Take note that a connection to a factory broke."""
        self.link.lost(wire)


def _nothing(error: Exception | None, body: Any) -> None:
    """Do nothing about an answer."""
