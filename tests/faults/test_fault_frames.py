"""Garbage on every socket: the process lives on, counts it, and does its work."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgpack
import pytest
import zmq
from fault_tools import (
    DEADLINE_S,
    Liar,
    cluster,
    entries,
    fault,
    is_running,
    log_of,
    peak_bytes,
    perform,
    registered,
    wait_until,
    zmq_endpoint,
)

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.engines.base import Options, Outcome
from opencluster.engines.cluster import ClusterEngine, connect
from opencluster.errors import PieceCancelled, RemoteProtocolError, WorkError
from opencluster.net.control import Control
from opencluster.place import factories
from opencluster.testing import LocalCluster
from opencluster.wire import codec, frames, kinds

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("here")]

GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL" + b"\0" * 48
READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
"""How a peer of ZeroMQ 3 introduces itself."""


@dataclass
class Daemon:
    """A process that listens, and how to learn what it counted."""

    endpoint: str
    pid: int
    ask: Callable[[], dict[str, Any]]

    def count(self, *names: str) -> int:
        figures = self.ask()
        return sum(figures[name] for name in names)


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    # strangers answer no heartbeats, and are to be cut off for what they say alone
    settings = {"network.zmtp_heartbeat_s": 0}
    with cluster(settings, FaultWorker=1, FaultService=1) as here:
        yield here


@pytest.fixture(scope="module")
def control(here: LocalCluster) -> Iterator[Control]:
    """One connection to the factory, whose end is not counted among the others."""
    with Control(load(), lambda: factories(load(), here.place)) as control:
        yield control


@pytest.fixture(scope="module")
def tcp_factory(here: LocalCluster) -> Iterator[Daemon]:
    """A factory that listens at a port."""
    with tempfile.TemporaryDirectory(prefix="c-") as directory:
        options = ["--host", "127.0.0.1", "--port", "0", "--dir", directory]
        command = [sys.executable, "-m", "opencluster", "factory", *options]
        log = Path(directory, "log")
        with log.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
            try:
                wait_until(lambda: "factory at tcp://" in log.read_text())
                found = re.search(r"tcp://127\.0\.0\.1:\d+", log.read_text())
                assert found is not None
                endpoint = found[0]
                with Control(load(), lambda: [[endpoint]]) as control:
                    yield Daemon(endpoint, process.pid, partial(status_of, control))
            finally:
                process.terminate()


def status_of(control: Control) -> dict[str, Any]:
    answer: dict[str, Any] = control.factory("status")["factories"][0]
    return answer


@pytest.fixture(
    params=["factory", "factory at a port", "workshop", "worker", "service"]
)
def daemon(
    request: pytest.FixtureRequest, here: LocalCluster, control: Control
) -> Daemon:
    if request.param == "factory at a port":
        found: Daemon = request.getfixturevalue("tcp_factory")
        return found
    if request.param == "factory":
        own = status_of(control)
        return Daemon(own["endpoint"], own["pid"], partial(status_of, control))
    entry = entries(here, kind=request.param)[0]

    def newest() -> dict[str, Any]:
        figures: dict[str, dict[str, Any]] = control.factory("status")["figures"]
        return figures.get(entry["id"], {})

    wait_until(newest)  # until the first heartbeat there are none
    return Daemon(zmq_endpoint(entry), entry["pid"], newest)


def raw_garbage() -> dict[str, bytes]:
    """Return what no peer of ZeroMQ would say."""
    return {
        "nothing": b"",
        "zeros": b"\0" * 100,
        "noise": bytes(range(256)) * 40,
        "ones": b"\xff" * 200,
        "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "half a greeting": GREETING[:20],
        "another mechanism": GREETING.replace(b"NULL", b"PLAI"),
        "half a handshake": GREETING + READY[:9],
        "no command": GREETING + b"\x00\x05hello",
        "too eager": GREETING + READY + b"\x00\x05hello",
    }


def foreign_messages() -> dict[str, list[bytes]]:
    """Return messages of ZeroMQ that are none of OpenCluster."""

    def of(*fields: Any) -> bytes:
        return b"OC\1\0" + msgpack.packb(fields)

    return {
        "empty": [b""],
        "noise": [bytes(range(256))],
        "truncated head": [b"OC"],
        "truncated body": [of("request", 1, "status", {})[:-3]],
        "version 9": [b"OC\x09\0" + msgpack.packb(["request", 1, "status", {}])],
        "no kind": [of(1, 2, 3)],
        "no fields": [b"OC\1\0" + msgpack.packb([])],
        "a map": [b"OC\1\0" + msgpack.packb({"a": 1})],
        "an extension": [b"OC\1\0" + msgpack.packb(["x", msgpack.ExtType(5, b"y")])],
        "a deep one": [b"OC\1\0" + b"\x91" * 5000 + b"\x90"],
        "an announced billion": [b"OC\1\0" + b"\xdd\x3b\x9a\xca\x00"],
        "an unknown kind": [of("surprise", 1)],
        "too few fields": [of("request")],
        "pieces that are none": [of("pieces", [[1, 2]])],
        "pieces of a wrong type": [of("pieces", 7)],
        "pieces without their buffers": [of("pieces", [[1, 0, 0.0, b"", 9]])],
        "a withdrawal of texts": [of("withdraw", ["a", None])],
        "a cancel without numbers": [of("cancel")],
        "results out of the blue": [of("results", [[1, "done", b"", 0, 0.1]])],
        "a reply to nobody": [of("reply")],
        "thousands of frames": [of("pieces", [])] + [b""] * 5000,
    }


def hostile_requests() -> list[tuple[str, Any]]:
    """Return requests that daemons must decline."""
    wrong: list[Any] = [None, 7, "text", [], {"ids": 7}, {"ids": [[]]}, {"entries": 1}]
    wrong += [{"entries": [{"id": 5}]}, {"job": 3}, {"job": {"id": []}}]
    wrong += [{"worker": 1, "piece": 2}, {"type": [], "count": 1}, {"name": {}}]
    wrong += [{"wanted": {}, "lines": "x"}, {"wanted": {"depth": 1}, "lines": 1}]
    wrong += [{"wanted": {}, "lines": 1, "positions": {"a": 1}}]
    wrong += [{"entry": {"kind": "worker"}, "count": "many"}, {"entry": 1, "count": 1}]
    names = ("register", "renew", "deregister", "job", "start", "scale", "stop")
    names += ("enforce", "logs")
    return [(name, arguments) for name in names for arguments in wrong]


def has_rejected(daemon: Daemon, count: int) -> bool:
    return daemon.count("rejected_messages") == count


@contextmanager
def stranger(endpoint: str) -> Iterator[socket.socket]:
    """Connect to an endpoint without ZeroMQ."""
    scheme, _, address = endpoint.partition("://")
    family = socket.AF_UNIX if scheme == "ipc" else socket.AF_INET
    host, _, port = address.rpartition(":")
    with socket.socket(family) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(address if scheme == "ipc" else (host, int(port)))
        yield connection


@contextmanager
def dealer(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """Connect to an endpoint with ZeroMQ, but without OpenCluster."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.set(zmq.LINGER, 0)
        sock.set(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        sock.set(zmq.SNDTIMEO, int(DEADLINE_S * 1000))
        sock.connect(endpoint)
        yield sock


def check_that_all_is_well(here: LocalCluster) -> None:
    """Use every daemon."""
    assert perform(fault("ok", n=1))["n"] == 1
    assert Manager("cluster").service("fault").echo("x") == "x"
    catalogue = here.ask_workshop("status", {})["catalogue"]
    assert {row["type"] for row in catalogue} == {"Fault", "fault"}


# --- daemons --------------------------------------------------------------------


def test_strangers_at_the_door(here: LocalCluster, daemon: Daemon) -> None:
    before = daemon.count("dropped_connections")
    rejected = daemon.count("rejected_handshakes")
    garbage = raw_garbage()
    for noise in garbage.values():
        # it may hang up before it has heard all
        with (
            stranger(daemon.endpoint) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(noise)
    wait_until(lambda: daemon.count("dropped_connections") >= before + len(garbage))
    wait_until(lambda: daemon.count("rejected_handshakes") > rejected)
    assert is_running(daemon.pid)
    check_that_all_is_well(here)


@pytest.mark.parametrize("size", [10 << 30, 2**63 + 1])
def test_a_frame_that_announces_more_than_there_is_memory(
    here: LocalCluster, daemon: Daemon, size: int
) -> None:
    memory = peak_bytes(daemon.pid)
    before = daemon.count("dropped_connections")
    rejected = daemon.count("rejected_messages")
    with stranger(daemon.endpoint) as connection:
        connection.sendall(GREETING + READY)
        heard = b""
        while b"READY" not in heard:
            heard += connection.recv(4096)
        # so far it is listened to
        for wanted in (rejected + 1, rejected + 2):
            connection.sendall(b"\x00\x05hello")
            wait_until(partial(has_rejected, daemon, wanted))
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"\x02" + struct.pack(">Q", size) + b"x" * 1000)
            # the daemon hangs up, and this side has not
            while connection.recv(4096):
                pass
    wait_until(lambda: daemon.count("dropped_connections") > before)
    assert peak_bytes(daemon.pid) - memory < 50e6
    check_that_all_is_well(here)


def test_foreign_messages(here: LocalCluster, daemon: Daemon) -> None:
    before = daemon.count("rejected_messages")
    messages = foreign_messages()
    with dealer(daemon.endpoint) as sock:
        for message in messages.values():
            sock.send_multipart(message)
        wait_until(lambda: daemon.count("rejected_messages") >= before + len(messages))
    assert daemon.count("rejected_messages") == before + len(messages)
    assert is_running(daemon.pid)
    check_that_all_is_well(here)


def test_a_flood_of_foreign_messages_fills_no_log(
    here: LocalCluster, daemon: Daemon
) -> None:
    before = daemon.count("rejected_messages")
    logs = sum(path.stat().st_size for path in here.place.logs.iterdir())
    with dealer(daemon.endpoint) as sock:
        for number in range(3000):
            sock.send(b"noise %d" % number)
        wait_until(lambda: daemon.count("rejected_messages") >= before + 3000)
    check_that_all_is_well(here)
    assert sum(p.stat().st_size for p in here.place.logs.iterdir()) < logs + 20_000


def test_requests_that_make_no_sense_are_declined(
    here: LocalCluster, daemon: Daemon, request: pytest.FixtureRequest
) -> None:
    if "[worker]" in request.node.name or "[service]" in request.node.name:
        before = daemon.count("rejected_messages")
        with dealer(daemon.endpoint) as sock:
            sock.send(frames.pack(kinds.REQUEST, 1, "status", {}))
            wait_until(lambda: daemon.count("rejected_messages") == before + 1)
        return
    with dealer(daemon.endpoint) as sock:
        for number, (operation, arguments) in enumerate(hostile_requests()):
            sock.send(frames.pack(kinds.REQUEST, number, operation, arguments))
            reply = frames.unpack(sock.recv())
            assert reply[:3] == [kinds.REPLY, number, False], (operation, arguments)
            assert reply[3]["message"]
    check_that_all_is_well(here)
    for name in ("factory", "workshop"):
        assert "Traceback" not in log_of(here, name)


# --- managers -------------------------------------------------------------------


@pytest.fixture
def engine(here: LocalCluster) -> Iterator[ClusterEngine]:
    """A manager's side of the net."""
    engine = connect(load(), here.place)
    yield engine
    engine.close()


@pytest.fixture
def liar(here: LocalCluster) -> Iterator[Liar]:
    endpoint = f"ipc://{here.place.sockets}/{uuid.uuid4().hex}.sock"
    with Liar(endpoint) as liar, registered(here, endpoint):
        yield liar


def submit(
    engine: ClusterEngine, type: str, *works: WorkPiece, retries: int = 0
) -> SimpleQueue[Outcome]:
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    rows = [(work, Options(retries=retries)) for work in works]
    engine.submit(type, rows, lambda _, outcome: outcomes.put(outcome))
    return outcomes


def rejected(engine: ClusterEngine) -> int:
    return engine._transport.counts.rejected_messages


def test_a_worker_that_talks_nonsense(engine: ClusterEngine, liar: Liar) -> None:
    outcomes = submit(engine, "Liar", fault("ok"))
    number = liar.take()
    messages = foreign_messages()
    messages["a short result"] = [frames.pack(kinds.RESULTS, [[number]])]
    messages["progress of nothing"] = [frames.pack(kinds.PROGRESS)]
    messages["no numbers"] = [frames.pack(kinds.RETURNED, [None])]
    row = [number, "done", b"", 3, 0.1]
    messages["a result without its buffers"] = [frames.pack(kinds.RESULTS, [row])]
    # of a piece that this manager never sent, which may have been long ago
    del messages["results out of the blue"]
    for message in messages.values():
        liar.say(*message)
    wait_until(lambda: rejected(engine) >= len(messages))
    assert rejected(engine) == len(messages)
    liar.answer(number + 99, "done", b"", 0, 0.1)
    for _ in range(2):  # the second one comes too late
        liar.answer(number, "done", codec.encode(WorkPiece(n=1))[0], 0, 0.1)
    assert outcomes.get(timeout=DEADLINE_S).value() == {"n": 1}
    good = submit(engine, "Fault", fault("ok", n=2))
    assert good.get(timeout=DEADLINE_S).value()["n"] == 2
    assert outcomes.empty()
    assert rejected(engine) == len(messages)


@pytest.mark.parametrize("status", ["done", "failed", "timeout", "surprising"])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01"])
def test_a_result_that_cannot_be_read_ends_the_piece(
    liar: Liar, status: str, payload: bytes
) -> None:
    future = Manager("cluster").submit("Liar", fault("ok"))
    liar.answer(liar.take(), status, payload, 0, 0.1)
    with pytest.raises((WorkError, RemoteProtocolError)) as caught:
        future.result(DEADLINE_S)
    assert not isinstance(caught.value, PieceCancelled)


@pytest.mark.parametrize("name", raw_garbage())
def test_a_worker_that_is_none(
    here: LocalCluster, engine: ClusterEngine, name: str
) -> None:
    path = here.place.sockets / f"{uuid.uuid4().hex}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        with registered(here, f"ipc://{path}"):
            outcomes = submit(engine, "Liar", fault("ok"))
            with (
                listener.accept()[0] as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(raw_garbage()[name])
            good = submit(engine, "Fault", fault("ok", n=1))
            assert good.get(timeout=DEADLINE_S).value()["n"] == 1
            assert outcomes.empty()
    path.unlink()
