"""Factories, clients and a wire-tap for the tests of security."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from opencluster.config import Config, load
from opencluster.core.entries import Delta, Entry
from opencluster.core.roll import Roll
from opencluster.factory import Factory
from opencluster.net.keyfiles import (
    certificates,
    make_certificate,
    read_certificate,
)
from opencluster.net.keys import Keyring
from opencluster.net.link import FactoryLink
from opencluster.net.reactor import Reactor
from opencluster.net.transport import PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire import frames

DEADLINE_S = 30.0
"""By then what is waited for has happened, on a busy machine too."""
QUIET_S = 1.0
"""How long what other tests left behind may take to be counted: many heartbeats."""
REFUSED_S = 1.0
"""How long a request waits that nobody is expected to answer."""

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value]) -> Value:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def settled(count: Callable[[], int]) -> int:
    """Return a count when it has stood still: it comes with heartbeats, and so late."""
    found, since = count(), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(0.05)
        if (now := count()) != found:
            found, since = now, time.monotonic()
    return found


def settings(**values: str) -> Config:
    """Return the defaults with a quick heartbeat."""
    quick = {("cluster", "heartbeat_interval_s"): "0.1", ("cluster", "lease_s"): "30"}
    own = {tuple(name.split("__", 1)): value for name, value in values.items()}
    return load(files=[], environ={}, overrides=quick | own)


def loaded(directory: Path, *roles: str) -> Keyring:
    """Return the keys of a role."""
    keyring = Keyring.load(directory, *roles)
    assert keyring is not None
    return keyring


def keys_named(directory: Path, name: str, role: str) -> Keyring:
    """Return the keys of one certificate among several of a role."""
    keyring = loaded(directory, role)
    if keyring.own.name != name:
        own = read_certificate(directory / f"{name}.key")
        keyring = Keyring(own, keyring.roll)
    return keyring


def self_made(role: str, roll: Roll, factory_key: str) -> Keyring:
    """Return keys that somebody made for themselves, and put on their own roll."""
    certificate = make_certificate("mallory", role, factory_key)
    return Keyring(certificate, roll.with_holder(certificate.holder))


class RunningFactory:
    """A factory in a thread of this process, at a port of its own."""

    def __init__(
        self,
        directory: Path | None,
        state: Path,
        endpoint: str = "tcp://127.0.0.1:0",
        names: tuple[str, ...] = (),
        **values: str,
    ) -> None:
        self.keys = None if directory is None else Keyring.load(directory, "factory")
        self.factory = Factory(
            settings(**values), [endpoint], state, names, keys=self.keys
        )
        self.endpoint = self.factory.endpoints[0]
        self.thread = threading.Thread(target=self.factory.run)
        self.thread.start()

    @property
    def counts(self) -> Any:
        return self.factory._transport.counts

    def stop(self) -> None:
        self.factory.stop()
        self.thread.join(DEADLINE_S)


class Client:
    """A process's link to a factory, with what it was told."""

    def __init__(
        self,
        endpoint: str,
        keys: Keyring | None,
        listen: str = "",
        answer: Callable[[Received], None] = lambda event: None,
    ) -> None:
        self.keys = keys
        self.deltas: list[Delta] = []
        self._answer = answer
        self.transport = ZmqTransport(keys=keys)
        if listen:
            self.endpoint = self.transport.listen(listen)
        self.reactor = Reactor(self.transport, self._event, is_vital=False)
        self.link = FactoryLink(
            self.reactor, lambda: [[endpoint]] if endpoint else [], keys=keys
        )
        self.reactor.start()

    def ask(
        self, operation: str, timeout_s: float = DEADLINE_S, **arguments: Any
    ) -> Any:
        asked = self.link.request(operation, arguments, timeout_s)
        return asked.result(DEADLINE_S)

    def register(self, identity: str, **fields: Any) -> Any:
        """Register a worker that speaks for itself."""
        known = {"type": "T", "name": identity, "public_key": self.public_key}
        entry = Entry(identity, fields.pop("kind", "worker"), **known | fields)
        return self.ask("register", entries=[entry.to_fields()])

    @property
    def public_key(self) -> str:
        return "" if self.keys is None else self.keys.own.public_key

    def send(self, endpoint: str, header: bytes, public_key: str = "") -> None:
        """Send any message, and wait until it is handed over."""

        def send() -> None:
            peer = self.transport.connect(endpoint, public_key)
            done.set_result(self.transport.send(peer, header))

        done: Future[bool] = Future()
        self.reactor.post(send)
        assert done.result(DEADLINE_S)

    def here(self) -> set[str]:
        return set(self.link.replica.entries)

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join(DEADLINE_S)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self.link.peer_lost(event.peer)
        elif isinstance(event, Received):
            self.link.received(event.peer, frames.unpack(event.header))
            self._answer(event)


class WireTap:
    """Passes TCP on to a server, keeps what clients said, and can say it again."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.said: list[bytes] = []
        self._servers: list[socket.socket] = []
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def say_again_at_once(self, chunk: bytes) -> None:
        """Say something a second time in the midst of the connection that stands."""
        self._servers[-1].sendall(chunk)

    def say_again_on_a_new_connection(self) -> bytes:
        """Say all of it on a new connection, and return what the server answers."""
        answer = b""
        with socket.create_connection(self._server) as again:
            again.settimeout(REFUSED_S)
            with contextlib.suppress(OSError):
                for chunk in self.said:
                    again.sendall(chunk)
                while part := again.recv(65536):
                    answer += part
        return answer

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                self._servers.append(server)
                for source, sink, log in (
                    (client, server, self.said),
                    (server, client, []),
                ):
                    threading.Thread(
                        target=self._pass_on, args=(source, sink, log), daemon=True
                    ).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, log: list[bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                log.append(chunk)
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def secrets_of(directory: Path) -> list[str]:
    """Return every secret that lies in a directory of keys."""
    return [certificate.secret_key for certificate in certificates(directory)]
