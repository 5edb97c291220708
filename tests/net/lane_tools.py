"""What the tests of the express lane share: peers, hostile and friendly, and waits."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from opencluster.net import packets
from opencluster.net.lane import LaneTransport
from opencluster.net.transport import Received, Transport, TransportEvent

DEADLINE_S = 20.0
IDENTITY = b"0123456789abcdef"


_later: WeakKeyDictionary[Transport, list[TransportEvent]] = WeakKeyDictionary()
"""What came to transports while something else was waited for."""


def pump(*transports: Transport) -> None:
    """Have transports take what comes to them, and keep it for who waits for it."""
    for transport in transports:
        _later.setdefault(transport, []).extend(transport.receive())


def wait_for(transport: Transport, kind: type, *others: Transport) -> TransportEvent:
    """Return the next event of a kind; those before it are forgotten."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        pump(transport, *others)
        kept = _later[transport]
        while kept:
            event = kept.pop(0)
            if isinstance(event, kind):
                return event
        time.sleep(0.001)
    raise AssertionError(f"no {kind.__name__} came")


def message(transport: Transport, *others: Transport) -> Received:
    """Return the next message."""
    came = wait_for(transport, Received, *others)
    assert isinstance(came, Received)
    return came


def messages(transport: Transport, count: int, *others: Transport) -> list[Received]:
    """Return so many messages, or a few more."""
    came: list[Received] = []

    def are_all_there() -> bool:
        pump(transport)
        came.extend(e for e in _later.pop(transport) if isinstance(e, Received))
        return len(came) >= count

    wait_until(are_all_there, *others)
    return came


def wait_until(condition: Callable[[], object], *transports: Transport) -> None:
    """Serve transports until a condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        pump(*transports)
        time.sleep(0.001)


class Stranger:
    """A process that speaks the lane as badly as it likes."""

    def __init__(self, endpoint: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(endpoint.removeprefix("unix://"))

    def greet(self, lane: LaneTransport) -> Stranger:
        """Do as everyone does at first."""
        self.sock.send(packets.pack_greeting(packets.HELLO, IDENTITY, 0))
        wait_until(self._has_answer, lane)
        packets.read_greeting(self.sock.recv(100), packets.WELCOME)
        return self

    def is_cut_off(self, lane: LaneTransport) -> bool:
        """Return whether the other side ends the connection, as it does soon."""
        wait_until(self._has_answer, lane)
        try:
            return self.sock.recv(1000) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _has_answer(self) -> bool:
        return bool(select.select([self.sock], [], [], 0)[0])


def head(kind: int, buffers: int, header_bytes: int) -> bytes:
    """Return the head of a message, whatever it says."""
    return struct.pack("<BxHI8x", kind, buffers, header_bytes)


def row(segment: int, lease: int, offset: int, nbytes: int) -> bytes:
    """Return a row of a table, whatever it says."""
    return struct.pack("<IIQQ", segment, lease, offset, nbytes)


def open_fds() -> set[str]:
    """Return the sockets, memory and events that this process has open.

    What was forgotten is not among them, nor are files: other threads import modules.
    """
    gc.collect()
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            what = str(path.readlink())
            if what.startswith(("socket:", "anon_inode:", "pipe:", "/memfd:")):
                found.add(path.name)
    return found
