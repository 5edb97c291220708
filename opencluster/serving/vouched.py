"""How a worker or service comes to stand in the registry.

Under a workshop it writes its entry to a file, and the workshop registers it, renews it
and takes it out again; so the factory hears from computers, not from processes. On its
own it does all that by itself: see `registration`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import msgpack

from opencluster.core.entries import Entry
from opencluster.net.transport import Peer, TransportCounts
from opencluster.node.handover import entry_path
from opencluster.node.scoreboard import Scoreboard, State


class Registration(Protocol):
    """One way to stand in the registry."""

    def announce(self, entry: Entry) -> None:
        """Put the entry into the registry, as soon as there is one."""

    def draining(self) -> None:
        """Say that no new pieces are taken."""

    def handing_over(self) -> None:
        """Say that nothing runs any more, and values are on their way to others."""

    def withdraw(self) -> None:
        """Take the entry out."""

    def received(self, peer: Peer, fields: list[Any]) -> bool:
        """Take in a control message; ``False`` when it is for somebody else."""

    def peer_lost(self, peer: Peer) -> None:
        """Take note that a connection broke."""

    def counted(self, counts: TransportCounts) -> None:
        """Take in what came in that should not have, for the next heartbeat."""

    def keeps(self, nbytes: int) -> None:
        """Take in how many bytes of values are kept here, for the next heartbeat."""


class VouchedRegistration:
    """A workshop speaks for this process."""

    def __init__(self, scoreboard: Scoreboard, path: Path) -> None:
        self._scoreboard = scoreboard
        self._path = path

    def announce(self, entry: Entry) -> None:
        """Write the entry where the workshop reads it."""
        entry_path(self._path).write_bytes(msgpack.packb(entry.to_fields()))
        self._scoreboard.state(State.IDLE)
        self._scoreboard.registered(entry.id)

    def draining(self) -> None:
        """Let the workshop see that no new pieces are taken."""
        self._scoreboard.state(State.DRAINING)

    def handing_over(self) -> None:
        """Let the workshop see that it should leave some time for that."""
        self._scoreboard.state(State.HANDING_OVER)

    def withdraw(self) -> None:
        """Let the workshop see that the end was on purpose."""
        self._scoreboard.state(State.STOPPED)

    def received(self, peer: Peer, fields: list[Any]) -> bool:
        """Nothing is expected: the workshop reads and does not talk."""
        return False

    def peer_lost(self, peer: Peer) -> None:
        """Nothing depends on a connection."""

    def counted(self, counts: TransportCounts) -> None:
        """Write the counts where the heartbeat finds them."""
        self._scoreboard.counted(**counts.to_fields())

    def keeps(self, nbytes: int) -> None:
        """Write it where the heartbeat finds it."""
        self._scoreboard.keeps(nbytes)
