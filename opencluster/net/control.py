"""Ask a factory or a workshop something and wait: for commands, not for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from opencluster.config import Config
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.net.link import FactoryLink, Finder, usable_endpoint
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
    """

    def __init__(self, config: Config, find: Finder) -> None:
        network = config.network
        self._timeout_s = config.factory.request_timeout_s
        self._transport = ZmqTransport(
            network.max_message_bytes, network.zmtp_heartbeat_s, network.zmtp_timeout_s
        )
        self._ended: Future[Any] = Future()
        self._reactor = Reactor(
            self._transport, self._event, self._broken, is_vital=False
        )
        self._rejections = Rejections(self._transport.counts, log)
        self._link = FactoryLink(self._reactor, find, self._timeout_s)
        self._reactor.start()

    def factory(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Ask the leading factory.

        Raises
        ------
        FactoryUnreachable
            When none answers in time.
        RequestRefused
            When it declines.
        """
        return self._result(self._link.request(operation, arguments, timeout_s))

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
        endpoint = usable_endpoint(entry["endpoints"])
        if endpoint is None:
            raise FactoryUnreachable(f"workshop {entry['name']} has no open socket")
        future: Future[Any] = Future()

        def ask() -> None:
            try:
                peer = self._transport.connect(endpoint)
            except OpenClusterError as error:
                future.set_exception(error)
                return
            asked = self._link.requests.ask(
                peer, operation, arguments, timeout_s or self._timeout_s
            )
            asked.add_done_callback(lambda done: _copy(done, future))

        self._reactor.post(ask)
        return self._result(future)

    def close(self) -> None:
        """Close the connection."""
        self._reactor.stop()
        self._reactor.join(timeout_s=5.0)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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
            self._link.received(event.peer, frames.unpack(event.header))
        except MALFORMED as error:
            self._rejections.note(error)


def _copy(done: Future[Any], future: Future[Any]) -> None:
    error = done.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
