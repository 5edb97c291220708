"""Connections between processes, as the transport promises them and no better.

What is sent over one arrives in order, and all of it, as long as the connection holds.
When it breaks, the side that opened it is told, sooner or later, and it is opened anew
by itself; the other side finds that it has nobody to send to. What was under way may be
lost. What is sent while there is no connection waits for the next one. A process that
connects again, to the same endpoint, has the same key there as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

    from sim_process import Process

    from opencluster.testing.virtual import VirtualLoop, VirtualNetwork

SILENCE_S = 0.8
"""Typical time after which a peer that does not answer counts as gone."""
RECONNECT_S = 0.1


class Wire:
    """A connection to an endpoint, from one connect to its disconnect."""

    __slots__ = (
        "_wires",
        "_client_due",
        "_outbox",
        "_server_due",
        "_stalled",
        "client",
        "endpoint",
        "is_closed",
        "is_up",
        "life",
        "server",
        "server_is_up",
    )

    def __init__(self, wires: Wires, client: Process, endpoint: str) -> None:
        self._wires = wires
        self.client = client
        self.endpoint = endpoint
        self.server: Process | None = None
        self.is_up = False
        self.server_is_up = False
        self.is_closed = False
        # each connection that stands is another; what an old one carried is lost
        self.life = 0
        self._outbox: list[tuple[Any, ...]] = []
        self._stalled: list[tuple[bool, tuple[Any, ...]]] = []
        self._client_due = self._server_due = 0.0

    def send(self, message: tuple[Any, ...]) -> None:
        """Send to the endpoint, now or when the connection stands."""
        if self.is_up:
            self.carry(True, message)
        elif not self.is_closed:
            self._outbox.append(message)

    def carry(self, is_to_server: bool, message: tuple[Any, ...]) -> None:
        """Bring a message to the other side, behind those that were sent before."""
        wires, server = self._wires, self.server
        assert server is not None
        client_node, server_node = self.client.node, server.node
        link = (
            (client_node, server_node) if is_to_server else (server_node, client_node)
        )
        if self._stalled or wires.network.is_cut(*link):
            self._stalled.append((is_to_server, message))
            return
        due = wires.loop.now + wires.delay_s(client_node == server_node)
        if is_to_server:
            self._server_due = due = max(due, self._server_due)
        else:
            self._client_due = due = max(due, self._client_due)
        wires.loop.at(due, self._arrive, self.life, is_to_server, message)

    def _arrive(self, life: int, is_to_server: bool, message: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if is_to_server:
            if self.server_is_up and self.server is not None:
                self.server.take(self.server.heard, self.client.identity, message)
        elif self.is_up:
            self.client.take(self._to_client, life, message)

    def _to_client(self, life: int, message: tuple[Any, ...]) -> None:
        if life == self.life and self.is_up:
            self.client.answered(self, message)

    # --- standing and breaking -----------------------------------------------

    def stand(self, server: Process) -> None:
        """Have the connection stand from now on."""
        self.life += 1
        self.server = server
        self.is_up = self.server_is_up = True
        self._stalled = []
        self._client_due = self._server_due = 0.0
        server.inbound[self.client.identity] = self
        outbox, self._outbox = self._outbox, []
        for message in outbox:
            self.carry(True, message)
        self.client.take(self._connected, self.life)

    def _connected(self, life: int) -> None:
        if life == self.life and self.is_up:
            self.client.connected(self)

    def flush(self) -> None:
        """Let go on what a cut held up."""
        stalled, self._stalled = self._stalled, []
        for is_to_server, message in stalled:
            self.carry(is_to_server, message)

    def break_client(self, life: int) -> None:
        """Let the side that opened it find out that it broke."""
        if life != self.life or not self.is_up:
            return
        self.client.take(self._lost, life)

    def _lost(self, life: int) -> None:
        if life != self.life or not self.is_up:
            return
        self.is_up = False
        self.client.lost(self)
        if not self.is_closed:
            self._wires.loop.after(RECONNECT_S, self._wires.attempt, self)

    def break_server(self, life: int) -> None:
        """Let the other side find out that it broke."""
        if life == self.life and self.server_is_up and self.server is not None:
            self.server.take(self._forgotten, self.server, life)

    def _forgotten(self, server: Process, life: int) -> None:
        if life != self.life or not self.server_is_up:
            return
        self.server_is_up = False
        if server.inbound.get(self.client.identity) is self:
            del server.inbound[self.client.identity]

    def due(self) -> float:
        """Return when all has arrived that is under way."""
        return max(self._client_due, self._server_due, self._wires.loop.now)


class Wires:
    """All connections of a world.

    Attributes
    ----------
    lateness : float
        Probability that the end of a process is found out by silence only.
    """

    def __init__(
        self, loop: VirtualLoop, network: VirtualNetwork, randomness: Random
    ) -> None:
        self.loop = loop
        self.network = network
        self.lateness = 0.0
        self._random = randomness
        self._listening: dict[str, Process] = {}
        self._missing: dict[Wire, None] = {}

    def listen(self, endpoint: str, process: Process) -> None:
        """Have a process listen at an endpoint."""
        self._listening[endpoint] = process
        self.stir()

    def open(self, client: Process, endpoint: str) -> Wire:
        """Open a connection."""
        wire = Wire(self, client, endpoint)
        client.outbound[wire] = None
        self.loop.after(self.delay_s(False), self.attempt, wire)
        return wire

    def close(self, wire: Wire) -> None:
        """Close a connection from the side that opened it."""
        if wire.is_closed:
            return
        wire.is_closed = True
        wire.is_up = False
        wire.client.outbound.pop(wire, None)
        self._missing.pop(wire, None)
        self.loop.at(self._notice(wire, False), wire.break_server, wire.life)

    def answer(self, server: Process, key: str, message: tuple[Any, ...]) -> bool:
        """Send to whoever has this key; ``False`` when nobody has it now."""
        wire = server.inbound.get(key)
        if wire is None:
            return False
        wire.carry(False, message)
        return True

    def delay_s(self, is_local: bool) -> float:
        """Draw how long a message is under way."""
        return 0.0002 if is_local else self.network.delay_s()

    def attempt(self, wire: Wire) -> None:
        """Try to make a connection stand."""
        if wire.is_closed or wire.is_up or not wire.client.is_alive:
            return
        server = self._listening.get(wire.endpoint)
        if (
            server is None
            or server.is_paused
            or wire.client.is_paused
            or self._is_cut(wire.client, server)
        ):
            self._missing[wire] = None
            return
        wire.stand(server)

    def stir(self) -> None:
        """Try again what did not stand, now that something has changed."""
        missing, self._missing = self._missing, {}
        for wire in missing:
            delay_s = RECONNECT_S * self._random.random()
            self.loop.after(delay_s, self.attempt, wire)

    # --- what happens to processes and to the network --------------------------

    def crashed(self, process: Process) -> None:
        """Break every connection of a process that ended."""
        is_late = self._random.random() < self.lateness
        for endpoint in [e for e, p in self._listening.items() if p is process]:
            del self._listening[endpoint]
        for wire in process.outbound:
            self.loop.at(self._notice(wire, is_late), wire.break_server, wire.life)
        for wire in process.inbound.values():
            self.loop.at(self._notice(wire, is_late), wire.break_client, wire.life)

    def paused(self, process: Process) -> None:
        """Break the connections of a process that stands still, unless it wakes."""
        for wire in (*process.outbound, *process.inbound.values()):
            at = self.loop.now + self._silence_s()
            self.loop.at(at, self._find_silent, wire, wire.life, process)

    def cut(self, processes: list[Process]) -> None:
        """Break the connections over which nothing passes, unless that is mended."""
        for process in processes:
            for wire in process.outbound:
                server = wire.server
                is_up = wire.is_up and server is not None
                if is_up and self._is_cut(process, server):
                    at = self.loop.now + self._silence_s()
                    self.loop.at(at, self._find_cut, wire, wire.life)

    def mended(self, processes: list[Process]) -> None:
        """Let go on what was held up."""
        for process in processes:
            for wire in process.outbound:
                if wire.server is not None and wire.is_up:
                    wire.flush()
        self.stir()

    # --- inside --------------------------------------------------------------

    def _silence_s(self) -> float:
        return SILENCE_S * self._random.uniform(0.5, 1.5)

    def _notice(self, wire: Wire, is_late: bool) -> float:
        """Draw when one side finds out about the end of the other."""
        silence_s = self._silence_s() if is_late else 0.0
        return wire.due() + self.delay_s(False) + silence_s

    def _is_cut(self, client: Process, server: Process) -> bool:
        is_cut = self.network.is_cut
        return is_cut(client.node, server.node) or is_cut(server.node, client.node)

    def _find_silent(self, wire: Wire, life: int, process: Process) -> None:
        if process.is_paused and life == wire.life:
            self._break(wire)

    def _find_cut(self, wire: Wire, life: int) -> None:
        server = wire.server
        if life != wire.life or server is None:
            return
        if self._is_cut(wire.client, server):
            self._break(wire)

    def _break(self, wire: Wire) -> None:
        later_s = self._random.random() * SILENCE_S
        self.loop.after(later_s, wire.break_client, wire.life)
        later_s = self._random.random() * SILENCE_S
        self.loop.after(later_s, wire.break_server, wire.life)
