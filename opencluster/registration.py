"""How a worker or service comes to stand in the registry.

Under a workshop it writes its entry to its scoreboard, and the workshop registers it,
renews it and takes it out again; so the factory hears from computers, not from
processes. On its own it registers itself, renews its lease, and has a heart.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from opencluster.config import Config
from opencluster.core.entries import Entry, with_attributes
from opencluster.net.heart import HEART_PREFIX, Heart
from opencluster.net.link import FactoryLink, Finder, usable_endpoint
from opencluster.net.metronome import Metronome
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Peer, TransportCounts
from opencluster.node.handover import entry_path
from opencluster.node.scoreboard import Scoreboard, State
from opencluster.wire import figures

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring

log = logging.getLogger(__name__)


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


class OwnRegistration:
    """A process speaks for itself: it registers, renews, and has a heart."""

    def __init__(
        self,
        reactor: Reactor,
        find: Finder,
        config: Config,
        scoreboard: Scoreboard,
        keys: Keyring | None = None,
    ) -> None:
        self._scoreboard = scoreboard
        self._reactor = reactor
        self._find = find
        self._config = config
        self._keys = keys
        self._entry: Entry | None = None
        self._heart: Heart | None = None
        self._refusal = ""
        self._link = FactoryLink(
            reactor,
            find,
            config.factory.request_timeout_s,
            on_up=self._factory_found,
            patience_s=config.factory.leader_timeout_s,
            keys=keys,
        )
        cluster = config.cluster
        self._metronome = Metronome(
            reactor, cluster.heartbeat_interval_s, cluster.lease_s, self._renew
        )
        reactor.post(self._metronome.start)

    def announce(self, entry: Entry) -> None:
        """Register as soon as a factory is there."""
        self._entry = with_attributes(entry, has_heart=True)
        self._scoreboard.state(State.IDLE)
        if self._link.is_up:
            self._register()
        else:
            log.info("waiting for a factory")

    def draining(self) -> None:
        """Register again, as one that takes no new pieces."""
        self._scoreboard.state(State.DRAINING)
        if self._entry is not None:
            self._entry = with_attributes(self._entry, is_draining=True)
            if self._link.is_up:
                self._register()

    def handing_over(self) -> None:
        """Note it for the heartbeat: nobody else ends this process meanwhile."""
        self._scoreboard.state(State.HANDING_OVER)

    def withdraw(self) -> None:
        """Deregister, and stop the heart."""
        if self._entry is not None:
            asked = self._link.request("deregister", {"id": self._entry.id}, 1.0)
            self._entry = None
            with contextlib.suppress(TimeoutError):
                asked.exception(timeout=2.0)
        if self._heart is not None:
            self._heart.stop()

    def received(self, peer: Peer, fields: list[Any]) -> bool:
        """Take in what a factory says."""
        return self._link.received(peer, fields)

    def peer_lost(self, peer: Peer) -> None:
        """Look for another factory when this one is gone."""
        self._link.peer_lost(peer)

    def counted(self, counts: TransportCounts) -> None:
        """Write the counts where the heartbeat finds them."""
        self._scoreboard.counted(**counts.to_fields())

    def keeps(self, nbytes: int) -> None:
        """Write it where the heartbeat finds it."""
        self._scoreboard.keeps(nbytes)

    def _register(self) -> None:
        if self._entry is not None:
            fields = self._entry.to_fields()
            asked = self._link.request("register", {"entries": [fields]})
            asked.add_done_callback(self._registered)

    def _registered(self, asked: Future[Any]) -> None:
        error = asked.exception()
        if error is not None:
            # once, as every heartbeat tries it again
            if str(error) != self._refusal:
                log.error("could not register: %.500s", error)
            self._refusal = str(error)
            return
        self._refusal = ""
        if self._heart is None and self._entry is not None:
            self._heart = Heart(HEART_PREFIX + self._entry.id.encode(), self._keys)
            for endpoints in self._find():
                endpoint = usable_endpoint(endpoints)
                if endpoint is not None:
                    self._heart.beat_for(endpoint)
            self._heart.start()

    def _renew(self) -> None:
        if self._entry is None or not self._link.is_up:
            return
        own = self._scoreboard.read().figures()
        packed = figures.pack({self._entry.id: own})
        arguments = {"ids": [self._entry.id], "figures": packed}
        asked = self._link.request("renew", arguments)
        asked.add_done_callback(self._renewed)

    def _renewed(self, asked: Future[Any]) -> None:
        self._metronome.answered(asked)
        if unknown_in(asked):
            log.info("the factory does not know this process (any more): registering")
            self._register()

    def _factory_found(self, hello: Mapping[str, Any]) -> None:
        self._register()


def unknown_in(asked: Future[Any]) -> list[str]:
    """Return who has to register again, by what a factory answered to a renewal."""
    if asked.exception() is not None:
        return []
    body = asked.result()
    unknown = body.get("unknown") if isinstance(body, Mapping) else None
    if not isinstance(unknown, list):
        log.error("the factory answered a renewal with what makes no sense")
        return []
    return [identity for identity in unknown if isinstance(identity, str)]
