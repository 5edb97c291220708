"""Ask a factory or a workshop something and wait: for commands, not for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from opencluster.config import Config
from opencluster.core.roles import ASKER, check
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.net.keys import Keyring
from opencluster.net.link import FactoryLink, Finder, usable_endpoint
from opencluster.net.reach import cannot_reach, look
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.transport import PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire import frames

log = logging.getLogger(__name__)


class Control:
    """A short-lived connection to a cluster's daemons; a context manager.

    Parameters
    ----------
    config : Config
        The settings.
    find : callable
        Returns the endpoints of each factory.
    keys : Keyring, optional
        Who asks, on a cluster with keys.
    here : str, optional
        What tells this computer: see `Holder.host_id`. The local sockets of others are
        not tried then, whose files may lie here too, on a disk that is shared.
    """

    def __init__(
        self,
        config: Config,
        find: Finder,
        keys: Keyring | None = None,
        here: str = "",
    ) -> None:
        network = config.network
        self._find = find
        self._here = here
        self._timeout_s = config.factory.request_timeout_s
        self._max_nesting = config.limits.max_nesting
        self._transport = ZmqTransport(
            network.max_message_bytes,
            network.zmtp_heartbeat_s,
            network.zmtp_timeout_s,
            keys,
        )
        self._ended: Future[Any] = Future()
        self._reactor = Reactor(
            self._transport, self._event, self._broken, is_vital=False
        )
        self._rejections = Rejections(self._transport.counts, log)
        self._link = FactoryLink(
            self._reactor,
            find,
            self._timeout_s,
            patience_s=config.factory.leader_timeout_s,
            keys=keys,
            is_loud=False,
        )
        self._reactor.start()

    def factory(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        may_be_old: bool = False,
    ) -> Any:
        """Ask the leading factory, or any that knows an older answer if that will do.

        Raises
        ------
        FactoryUnreachable
            When none answers in time.
        RequestRefused
            When it declines.
        """
        asked = self._link.request(operation, arguments, timeout_s, may_be_old)
        return self._result(asked)

    def workshop(
        self,
        entry: Mapping[str, Any],
        operation: str,
        arguments: Mapping[str, Any],
        timeout_s: float | None = None,
    ) -> Any:
        """Ask a workshop, given what it registered.

        Raises
        ------
        FactoryUnreachable
            When it does not answer in time.
        RequestRefused
            When it declines.
        OpenClusterError
            When its endpoint is none.
        """
        endpoint = self._way_to(entry)
        key = str(entry.get("public_key", ""))
        limit_s = timeout_s or self._timeout_s
        whom = str(entry.get("name", "it"))
        asked = self._ask(endpoint, key, operation, arguments, limit_s, whom)
        return self._result(asked)

    def tell(self, entry: Mapping[str, Any], header: bytes) -> None:
        """Send a message that nobody answers to a worker or service.

        Raises
        ------
        FactoryUnreachable
            When it has no endpoint that is reached from here.
        """
        endpoint = self._way_to(entry)
        key = str(entry.get("public_key", ""))

        def send() -> None:
            try:
                self._transport.send(self._transport.connect(endpoint, key), header)
            except OpenClusterError as error:
                log.warning("%s cannot be told: %s", entry["name"], error)

        self._reactor.post(send)

    def every_factory(
        self, operation: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Ask all factories at once, whoever leads, and return what each says.

        Returns
        -------
        dict
            By endpoint; the error instead, for one that declined or did not answer.
        """
        found = [usable_endpoint(endpoints) for endpoints in self._find()]
        keys = self._transport.keys
        key = "" if keys is None else keys.factory_key
        asked = {
            endpoint: self._ask(endpoint, key, operation, arguments, self._timeout_s)
            for endpoint in found
            if endpoint is not None
        }
        answers: dict[str, Any] = {}
        for endpoint, future in asked.items():
            try:
                answers[endpoint] = self._result(future)
            except OpenClusterError as error:
                answers[endpoint] = error
        return answers

    def close(self) -> None:
        """Close the connection."""
        self._reactor.stop()
        self._reactor.join(timeout_s=5.0)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _way_to(self, entry: Mapping[str, Any]) -> str:
        """Return the endpoint at which somebody is reached from here."""
        is_near = entry.get("host_id", "") in ("", self._here) or not self._here
        # lanes are for those who send much
        schemes = ("ipc:", "tcp:") if is_near else ("tcp:",)
        known = list(map(str, entry["endpoints"]))
        endpoint = usable_endpoint([e for e in known if e.startswith(schemes)])
        if endpoint is None:
            listens = ", ".join(known) or "nothing"
            raise FactoryUnreachable(
                f"{entry['name']} cannot be reached from here: it listens at {listens}"
            )
        return endpoint

    def _ask(
        self,
        endpoint: str,
        public_key: str,
        operation: str,
        arguments: Mapping[str, Any],
        timeout_s: float,
        whom: str = "a factory",
    ) -> Future[Any]:
        future: Future[Any] = Future()
        seen: list[Future[str]] = []

        def why() -> str:
            reason = seen[0].result() if seen and seen[0].done() else ""
            return cannot_reach(whom, endpoint, reason) if reason else ""

        def ask() -> None:
            try:
                peer = self._transport.connect(endpoint, public_key)
            except OpenClusterError as error:
                future.set_exception(error)
                return
            asked = self._link.requests.ask(peer, operation, arguments, timeout_s)
            asked.add_done_callback(lambda done: _copy(done, future, why()))
            if endpoint.startswith("tcp://"):
                self._reactor.after(timeout_s / 2, look_there)

        def look_there() -> None:
            if not future.done():
                # so that what is seen is there when the time is up
                seen.append(look(self._reactor, endpoint, 0.45 * timeout_s))

        self._reactor.post(ask)
        return future

    def _result(self, future: Future[Any]) -> Any:
        """Return what is answered, unless nothing can be answered any more."""
        done, _ = wait([future, self._ended], return_when=FIRST_COMPLETED)
        return (future if future in done else self._ended).result()

    def _broken(self, error: BaseException) -> None:
        self._ended.set_exception(
            OpenClusterError(f"the connection to the cluster broke: {error!r}")
        )

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self._link.peer_lost(event.peer)
        if not isinstance(event, Received):
            return
        try:
            fields = frames.unpack(event.header, self._max_nesting)
            check(ASKER, fields[0], event.who)
            self._link.received(event.peer, fields)
        except MALFORMED as error:
            self._rejections.note(error)


def _copy(done: Future[Any], future: Future[Any], why: str) -> None:
    error = done.exception()
    if isinstance(error, FactoryUnreachable) and why:
        future.set_exception(FactoryUnreachable(f"{error}; {why}"))
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
