"""A process's connection to the factories: finds the leader, asks it, follows it.

Everyone who needs the registry holds one `FactoryLink`. It asks every factory that it
knows who leads, keeps to that one while it answers, and looks again when it does not;
what was asked meanwhile waits until its own deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from opencluster.core.registry import Delta, Replica
from opencluster.errors import (
    FactoryUnreachable,
    OpenClusterError,
    RegistryError,
    RemoteProtocolError,
)
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED
from opencluster.net.requests import Requests
from opencluster.net.transport import Peer
from opencluster.wire import kinds

log = logging.getLogger(__name__)

Finder = Callable[[], Sequence[Sequence[str]]]
"""Returns, for each factory, the endpoints at which it may be reached."""

PROBE_INTERVAL_S = 0.5
"""How often the factories are asked who leads, while nobody is known to."""


class FactoryLink:
    """The way to the leading factory.

    Parameters
    ----------
    reactor : Reactor
        Whose thread does the work.
    find : callable
        Returns the endpoints of every factory; asked anew at each attempt, so a
        cluster that starts later is found then.
    timeout_s : float
        How long an answer of a factory may take.
    on_up : callable, optional
        Called in the reactor's thread whenever a leader was found.
    """

    def __init__(
        self,
        reactor: Reactor,
        find: Finder,
        timeout_s: float = 5.0,
        on_up: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._find = find
        self._timeout_s = timeout_s
        self._on_up = on_up
        self._on_delta: Callable[[Delta], None] | None = None
        self.requests = Requests(reactor)
        self.replica = Replica()
        self._leader: Peer | None = None
        self._epoch: Any = None
        self._candidates: set[Peer] = set()
        self._waiting: list[tuple[float, str, Mapping[str, Any], Future[Any]]] = []
        self._is_asked_for_snapshot = False
        reactor.post(self._start)

    # --- from any thread -----------------------------------------------------

    def request(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Future[Any]:
        """Ask the leader; the answer comes as a `Future`."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        deadline = time.monotonic() + (timeout_s or self._timeout_s)
        entry = (deadline, operation, arguments or {}, future)
        self._reactor.post(lambda: self._ask_or_wait(entry))
        return future

    def subscribe(self, on_delta: Callable[[Delta], None]) -> None:
        """Keep a replica of the registry, and be told of every change to it."""
        self._on_delta = on_delta
        self._reactor.post(self._resubscribe)

    @property
    def is_up(self) -> bool:
        """Whether a leader is known."""
        return self._leader is not None

    # --- from the reactor's thread -------------------------------------------

    def received(self, peer: Peer, fields: list[Any]) -> bool:
        """Take in a control message; ``False`` when it is not for this link."""
        kind = fields[0]
        if kind == kinds.REPLY:
            _, number, ok, body = fields[:4]
            self.requests.replied(peer, number, ok, body)
        elif kind == kinds.DELTA and peer == self._leader:
            self._take_delta(fields[1], _delta_from(fields[2]))
        elif kind == kinds.BEAT and peer == self._leader:
            self._take_beat(fields[1], fields[2])
        else:
            return kind in (kinds.DELTA, kinds.BEAT)
        return True

    def peer_lost(self, peer: Peer) -> None:
        """Take note that a connection broke."""
        self.requests.peer_lost(peer)
        self._candidates.discard(peer)
        if peer == self._leader:
            log.warning("lost the factory; looking for a leader")
            self._leader = None
            self._probe()

    # --- inside --------------------------------------------------------------

    def _start(self) -> None:
        # first, so that requests time out even when there is no way to probe
        self._reactor.every(PROBE_INTERVAL_S, self._check)
        self._probe()

    def _check(self) -> None:
        now = time.monotonic()
        overdue = [entry for entry in self._waiting if entry[0] <= now]
        if overdue:
            reason = self._nobody()
            self._waiting = [entry for entry in self._waiting if entry[0] > now]
            for entry in overdue:
                entry[3].set_exception(FactoryUnreachable(reason))
        if self._leader is None:
            self._probe()

    def _nobody(self) -> str:
        try:
            known = [", ".join(endpoints) for endpoints in self._find()]
        except Exception as error:
            return f"cannot tell where the factories are: {error}"
        if not known:
            return (
                "no cluster found: start one with `opencluster start`, or name it with "
                "--dir, OPENCLUSTER_DIR or [cluster] factories"
            )
        return (
            f"no factory answered (tried {'; '.join(known)}); "
            "is it running? see `opencluster status`"
        )

    def _probe(self) -> None:
        for endpoints in self._find():
            endpoint = usable_endpoint(endpoints)
            if endpoint is None:
                continue
            try:
                peer = self._reactor.transport.connect(endpoint)
            except OpenClusterError as error:
                log.warning("%s", error)
                continue
            if peer not in self._candidates:
                self._candidates.add(peer)
                asked = self.requests.ask(peer, "hello", {}, self._timeout_s)
                asked.add_done_callback(partial(self._greeted, peer))

    def _greeted(self, peer: Peer, future: Future[Any]) -> None:
        self._candidates.discard(peer)
        error = future.exception()
        if isinstance(error, FactoryUnreachable):
            # libzmq keeps what is sent to a dead peer, without limit, and does not
            # reopen a connection that broke the protocol: the next probe starts anew
            self._reactor.transport.disconnect(peer)
            self.requests.peer_lost(peer)
        if error is not None or self._leader is not None:
            return
        hello = future.result()
        if hello.get("role") != "leader":
            return
        self._leader = peer
        self._resubscribe()
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            self._ask_or_wait(entry)
        if self._on_up is not None:
            self._on_up(hello)

    def _ask_or_wait(
        self, entry: tuple[float, str, Mapping[str, Any], Future[Any]]
    ) -> None:
        deadline, operation, arguments, future = entry
        if self._leader is None:
            self._waiting.append(entry)
            return
        left_s = max(0.01, deadline - time.monotonic())
        peer = self._leader
        asked = self.requests.ask(peer, operation, arguments, left_s)
        asked.add_done_callback(lambda f: self._answered(peer, entry, f))

    def _answered(
        self,
        peer: Peer,
        entry: tuple[float, str, Mapping[str, Any], Future[Any]],
        asked: Future[Any],
    ) -> None:
        error = asked.exception()
        future = entry[3]
        if isinstance(error, FactoryUnreachable):
            # silent or gone: look who leads now, and ask again until the deadline
            self._waiting.append(entry)
            if peer == self._leader:
                self._leader = None
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(asked.result())

    def _resubscribe(self) -> None:
        if self._on_delta is None or self._leader is None:
            return
        self._is_asked_for_snapshot = True
        asked = self.requests.ask(self._leader, "subscribe", {}, self._timeout_s)
        asked.add_done_callback(self._take_snapshot)

    def _take_snapshot(self, asked: Future[Any]) -> None:
        self._is_asked_for_snapshot = False
        if asked.exception() is not None:
            return
        snapshot = asked.result()
        try:
            epoch = snapshot["epoch"]
            news = self.replica.load(snapshot)
        except MALFORMED as error:
            log.error("the factory sent a snapshot that makes no sense: %r", error)
            # that of no factory, so that the next beat makes us ask again
            self._epoch = None
            return
        self._epoch = epoch
        for delta in news:
            self._tell(delta)

    def _take_delta(self, epoch: Any, delta: Delta) -> None:
        if self._on_delta is None or self._is_asked_for_snapshot:
            return
        is_news = delta.revision > self.replica.revision
        if epoch != self._epoch or not self.replica.apply(delta):
            self._resubscribe()
        elif is_news:
            self._tell(delta)

    def _take_beat(self, epoch: Any, revision: int) -> None:
        if self._on_delta is None or self._is_asked_for_snapshot:
            return
        if epoch != self._epoch or revision != self.replica.revision:
            self._resubscribe()

    def _tell(self, delta: Delta) -> None:
        if self._on_delta is None:
            return
        try:
            self._on_delta(delta)
        except Exception:
            # this one is in the replica already, and those after it must be told
            log.exception("an error in taking in %s", delta)


def _delta_from(fields: Any) -> Delta:
    try:
        return Delta.from_fields(fields)
    except RegistryError as error:
        raise RemoteProtocolError(f"a delta makes no sense: {error}") from None


def usable_endpoint(endpoints: Sequence[str]) -> str | None:
    """Return the first endpoint that can be reached from here, or ``None``."""
    for endpoint in endpoints:
        path = Path(endpoint.removeprefix("ipc://"))
        if not endpoint.startswith("ipc://") or path.is_socket():
            return endpoint
    return None
