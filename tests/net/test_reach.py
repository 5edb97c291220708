"""Why nobody is reached at an endpoint: refused, silent, hanging, strange, unknown."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress

import pytest

from opencluster.net.reach import cannot_reach, here, look
from opencluster.net.reactor import Reactor
from opencluster.net.zmq_transport import ZmqTransport

DEADLINE_S = 20.0
Look = Callable[[str], str]


@pytest.fixture
def seen() -> Iterator[Look]:
    """Yield what looks at an endpoint, in a reactor."""
    reactor = Reactor(ZmqTransport(), lambda event: None, is_vital=False)
    reactor.start()

    def ask(endpoint: str, timeout_s: float = 0.2) -> str:
        told: Future[str] = Future()
        reactor.post(
            lambda: look(reactor, endpoint, timeout_s).add_done_callback(
                lambda done: told.set_result(done.result())
            )
        )
        return told.result(DEADLINE_S)

    yield ask
    reactor.stop()
    reactor.join()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock:
        yield sock


def endpoint_of(sock: socket.socket) -> str:
    return f"tcp://127.0.0.1:{sock.getsockname()[1]}"


def test_one_that_answers_is_reached(seen: Look) -> None:
    transport = ZmqTransport()
    try:
        assert seen(transport.listen("tcp://127.0.0.1:0")) == ""
    finally:
        transport.close()


def test_a_port_at_which_nobody_listens(seen: Look, server: socket.socket) -> None:
    endpoint = endpoint_of(server)
    server.close()
    assert "connection refused: nothing listens there" in seen(endpoint)


def test_one_that_takes_connections_and_says_nothing(
    seen: Look, server: socket.socket
) -> None:
    assert "nothing is said on it within 0.2 s" in seen(endpoint_of(server))


def test_one_whose_queue_is_full_does_not_answer(
    seen: Look, server: socket.socket
) -> None:
    # the kernel drops what comes then, as a firewall does
    address = ("127.0.0.1", server.getsockname()[1])
    waiting = [socket.socket() for _ in range(4)]
    for sock in waiting:
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect(address)
    try:
        assert "no answer within 0.2 s" in seen(endpoint_of(server))
    finally:
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"\xff" * 3, b""])
def test_somebody_else(seen: Look, server: socket.socket, said: bytes) -> None:
    server.settimeout(DEADLINE_S)

    def speak() -> None:
        taken, _ = server.accept()
        with taken:
            taken.sendall(said)

    thread = threading.Thread(target=speak)
    thread.start()
    told = seen(endpoint_of(server))
    thread.join()
    assert told == "what listens there is not of OpenCluster"


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("tcp://no.such.invalid:9100", "'no.such.invalid' has no address here"),
        ("tcp://127.0.0.1:99999", "port"),
        ("tcp://127.0.0.1:http", "invalid literal"),
        ("tcp://255.255.255.255:9100", "unreachable"),
    ],
)
def test_what_is_no_address(seen: Look, endpoint: str, why: str) -> None:
    assert why in seen(endpoint)


def test_both_ends_are_named() -> None:
    near = here("tcp://127.0.0.1:9100")
    assert near == f"{socket.gethostname()} (127.0.0.1)"
    text = cannot_reach("W-1 on node2", "tcp://127.0.0.1:9100", "refused")
    assert text == f"{near} cannot reach W-1 on node2 at tcp://127.0.0.1:9100: refused"
