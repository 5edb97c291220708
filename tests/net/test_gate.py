"""Encrypted connections over real sockets: who comes in, and for how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from opencluster.core.roles import TRUSTED, Credential
from opencluster.core.roll import Roll
from opencluster.errors import SecurityError
from opencluster.net import gate as gates
from opencluster.net.keyfiles import Certificate, make_certificate, make_keys
from opencluster.net.keys import Keyring
from opencluster.net.transport import PeerConnected, PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import INBOUND, ZmqTransport

DEADLINE_S = 20.0
MAX_BYTES = 1 << 20

Make = Callable[..., ZmqTransport]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    make_keys(made)
    return made


@pytest.fixture
def make(directory: Path) -> Iterator[Make]:
    """Yield what makes a transport: of a role, of a keyring, or without keys."""
    made: list[ZmqTransport] = []

    def transport(keys: str | Keyring | None, **options: int) -> ZmqTransport:
        if isinstance(keys, str):
            keys = Keyring.load(directory, keys)
        made.append(ZmqTransport(MAX_BYTES, 0.2, 1.0, keys, **options))
        return made[-1]

    yield transport
    for one in made:
        if not one._server.closed:
            one.close()


def wait_for(wanted: type, at: ZmqTransport, *others: ZmqTransport) -> TransportEvent:
    """Return the next event of a kind, while the others are served as well."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for other in others:
            other.receive()
        for event in at.receive():
            if isinstance(event, wanted):
                return event
        time.sleep(0.002)
    raise AssertionError(f"no {wanted.__name__} came")


def message(at: ZmqTransport, *others: ZmqTransport) -> Received:
    event = wait_for(Received, at, *others)
    assert isinstance(event, Received)
    return event


def wait_until(condition: Callable[[], bool], *served: ZmqTransport) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        for transport in served:
            transport.receive()
        time.sleep(0.002)


def key_of(transport: ZmqTransport) -> str:
    assert transport.keys is not None
    return transport.keys.own.public_key


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_both_sides_know_who_the_other_is(
    make: Make, scheme: str, tmp_path: Path
) -> None:
    server, client = make("factory"), make("manager")
    wanted = "tcp://127.0.0.1:0" if scheme == "tcp" else f"ipc://{tmp_path}/s"
    peer = client.connect(server.listen(wanted), key_of(server))
    assert client.send(peer, b"header", [b"one", b"two"])
    came = message(server, client)
    assert came.who == Credential("manager", "manager")
    assert (came.header, [bytes(b) for b in came.buffers]) == (
        b"header",
        [b"one", b"two"],
    )
    assert server.send(came.peer, b"answer")
    back = message(client, server)
    assert back.who == Credential("factory", "factory")
    assert server.counts.rejected_credentials == 0


def test_without_keys_everyone_is_trusted(make: Make) -> None:
    server, client = make(None), make(None)
    client.send(client.connect(server.listen("tcp://127.0.0.1:0"), "ignored"), b"x")
    assert message(server).who is TRUSTED


def own_keys(name: str = "manager", factory_key: str = "") -> Keyring:
    """Return keys that somebody made for themselves."""
    certificate = make_certificate(name, "manager", factory_key)
    return Keyring(certificate, Roll().with_holder(certificate.holder))


def knowing(keys: Keyring, *others: Keyring) -> Keyring:
    for other in others:
        keys.roll = keys.roll.with_holder(other.own.holder)
    return keys


def test_a_key_that_is_not_on_the_roll_gets_nowhere(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server = make("factory")
    assert server.keys is not None
    stranger = make(knowing(own_keys(), server.keys))
    peer = stranger.connect(server.listen("tcp://127.0.0.1:0"), key_of(server))
    stranger.send(peer, b"let me in")
    assert wait_for(PeerLost, stranger, server) == PeerLost(peer)
    wait_until(lambda: server.counts.rejected_credentials > 0, server, stranger)
    assert "an unknown key" in caplog.text
    assert "does not admit the certificate" in caplog.text
    assert server.receive() == []


def test_one_without_keys_gets_nowhere_and_is_told_why(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server, stranger = make("factory"), make(None)
    peer = stranger.connect(server.listen("tcp://127.0.0.1:0"))
    stranger.send(peer, b"let me in")
    assert wait_for(PeerLost, stranger, server) == PeerLost(peer)
    wait_until(lambda: server.counts.rejected_handshakes > 0, server)
    assert stranger.counts.rejected_handshakes > 0
    assert "wants keys" in caplog.text


def test_one_with_keys_says_nothing_to_one_without(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = make(None), make("manager")
    assert client.keys is not None
    peer = client.connect(server.listen("tcp://127.0.0.1:0"), client.keys.factory_key)
    client.send(peer, b"secret")
    assert wait_for(PeerLost, client, server) == PeerLost(peer)
    assert client.counts.rejected_handshakes > 0
    assert "no keys" in caplog.text
    assert server.receive() == []


def test_one_who_listens_with_another_key_is_not_believed(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    # a member of the cluster, but no factory
    impostor, client = make("manager"), make("worker")
    assert client.keys is not None
    peer = client.connect(impostor.listen("tcp://127.0.0.1:0"), client.keys.factory_key)
    client.send(peer, b"register me")
    assert wait_for(PeerLost, client, impostor) == PeerLost(peer)
    assert "another key than was expected" in caplog.text
    assert impostor.receive() == []


def test_failed_handshakes_fill_no_log(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    impostor, client = make("manager"), make("worker")
    assert client.keys is not None
    client.connect(impostor.listen("tcp://127.0.0.1:0"), client.keys.factory_key)
    wait_until(lambda: client.counts.rejected_handshakes >= 3, impostor, client)
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 1


@pytest.mark.parametrize("key", ["", "x" * 40])
def test_nobody_is_connected_to_whose_key_is_not_known(make: Make, key: str) -> None:
    with pytest.raises(SecurityError, match="tcp://127.0.0.1:9100"):
        make("manager").connect("tcp://127.0.0.1:9100", key)


def revoke(server: ZmqTransport, name: str) -> None:
    """Revoke a certificate as a factory's word does, while all goes on."""
    assert server.keys is not None
    server.keys.accept(server.keys.roll.without(name).to_fields())


def test_who_is_revoked_is_heard_no_more_on_a_standing_connection(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server, client, other = make("factory"), make("manager"), make("worker")
    endpoint = server.listen("tcp://127.0.0.1:0")
    peer = client.connect(endpoint, key_of(server))
    client.send(peer, b"before")
    came = message(server, client)
    revoke(server, "manager")
    client.send(peer, b"after")
    wait_until(lambda: server.counts.rejected_credentials == 1, server, client)
    # nor is anything told to it, although the connection stands
    assert not server.send(came.peer, b"news")
    other.send(other.connect(endpoint, key_of(server)), b"still served")
    assert message(server, other).header == b"still served"


def test_who_is_revoked_cannot_come_back(
    make: Make, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = make("factory"), make("manager")
    revoke(server, "manager")
    peer = client.connect(server.listen("tcp://127.0.0.1:0"), key_of(server))
    client.send(peer, b"let me in")
    assert wait_for(PeerLost, client, server) == PeerLost(peer)
    assert "certificate 'manager', revoked" in caplog.text


def test_we_part_with_a_host_that_was_revoked(make: Make) -> None:
    server, client = make("worker"), make("manager")
    peer = client.connect(server.listen("tcp://127.0.0.1:0"), key_of(server))
    assert wait_for(PeerConnected, client, server) == PeerConnected(peer)
    revoke(client, "worker")
    assert not client.send(peer, b"work")
    assert PeerLost(peer) in client.receive()
    with pytest.raises(SecurityError, match="revoked"):
        client.connect("tcp://127.0.0.1:9100", key_of(server))


def test_another_key_at_the_same_place_is_another_peer(make: Make) -> None:
    first, second, client = make("worker"), make("factory"), make("manager")
    endpoint = first.listen("tcp://127.0.0.1:0")
    before = client.connect(endpoint, key_of(first))
    assert client.connect(endpoint, key_of(first)) == before
    assert wait_for(PeerConnected, client, first) == PeerConnected(before)
    first.close()
    second.listen(endpoint)
    after = client.connect(endpoint, key_of(second))
    assert after != before
    assert not client.send(before, b"work")
    client.send(after, b"hello")
    assert message(second, client).header == b"hello"


def test_a_connection_is_remembered_while_there_is_traffic(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "GUESTS_KEPT", 4)
    server, client = make("factory"), make("manager")
    endpoint = server.listen("tcp://127.0.0.1:0")
    client.send(client.connect(endpoint, key_of(server)), b"subscribe")
    subscriber = message(server, client).peer
    for _ in range(12):
        visitor = make("observer")
        visitor.send(visitor.connect(endpoint, key_of(server)), b"status")
        message(server, visitor, client)
        assert server.send(subscriber, b"beat")
    guests = server._gate
    assert guests is not None
    assert len(guests._guests) + len(guests._older_guests) <= 8
    revoke(server, "manager")
    assert not server.send(subscriber, b"beat")


def test_one_who_listens_cannot_take_over_our_connection_to_another(make: Make) -> None:
    first, second, manager = make("worker"), make("worker"), make("manager")
    for server in (first, second):
        endpoint = server.listen("tcp://127.0.0.1:0")
        manager.send(manager.connect(endpoint, key_of(server)), b"work")
    at_first = message(first, manager).peer
    at_second = message(second, manager).peer
    # what people see of it is the same: it is in the names of pieces
    assert at_first[:5] == at_second[:5] == INBOUND + manager.identity[:4]
    assert at_first != at_second
    # the second one comes to the first as what it knows of the manager
    with zmq.Context() as context, context.socket(zmq.DEALER) as thief:
        assert second.keys is not None
        thief.set(zmq.ROUTING_ID, at_second.removeprefix(INBOUND))
        thief.set(zmq.CURVE_PUBLICKEY, key_of(second).encode())
        thief.set(zmq.CURVE_SECRETKEY, second.keys.own.secret_key.encode())
        thief.set(zmq.CURVE_SERVERKEY, key_of(first).encode())
        thief.set(zmq.LINGER, 0)
        thief.connect(first._listening[0])
        thief.send(b"it is me")
        assert message(first, manager).peer == at_second
        assert first.send(at_first, b"result")
        assert message(manager, first).header == b"result"


def test_we_are_the_same_at_one_place_when_we_come_again(make: Make) -> None:
    server, client = make("worker"), make("manager")
    endpoint = server.listen("tcp://127.0.0.1:0")
    seen = set()
    for _ in range(2):
        peer = client.connect(endpoint, key_of(server))
        client.send(peer, b"work")
        seen.add(message(server, client).peer)
        client.disconnect(peer)
    assert len(seen) == 1


def test_nobody_comes_in_unasked(make: Make) -> None:
    # else libzmq admits everyone in the moment when the gate is closed already
    assert make("factory")._server.get(zmq.ZAP_ENFORCE_DOMAIN) == 1


def test_a_peer_that_does_not_read_costs_bounded_memory(make: Make) -> None:
    server, client = make("factory", max_queued=10), make("manager")
    client._client.set(zmq.RCVHWM, 1)
    peer = client.connect(server.listen("tcp://127.0.0.1:0"), key_of(server))
    client.send(peer, b"subscribe")
    subscriber = message(server, client).peer
    # far more than the sockets of the kernel hold
    sent = 0
    while sent < 2000 and server.send(subscriber, b"x" * 100_000):
        sent += 1
    assert sent < 2000


def test_a_secret_is_not_in_what_a_transport_shows(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server, client = make("factory"), make("manager")
    client.send(client.connect(server.listen("tcp://127.0.0.1:0"), key_of(server)), b"")
    message(server, client)
    own: list[Certificate] = [t.keys.own for t in (server, client) if t.keys]
    shown = caplog.text + repr([vars(server), vars(client), vars(server._gate)])
    assert not any(certificate.secret_key in shown for certificate in own)
