"""How a worker or service that no workshop started comes to stand in the registry.

It registers itself, renews its lease, and has a heart. The others are spared this
module, and all that has to do with factories: see `serving.vouched`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from opencluster.config import Config
from opencluster.core.entries import Entry, with_attributes
from opencluster.net.heart import HEART_PREFIX, Heart
from opencluster.net.link import FactoryLink, Finder, usable_endpoint
from opencluster.net.metronome import Metronome
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Peer, TransportCounts
from opencluster.node.scoreboard import Scoreboard, State
from opencluster.wire import figures

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring

log = logging.getLogger(__name__)


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
