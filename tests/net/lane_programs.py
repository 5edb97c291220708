"""Processes at the other end of the lane: ``lane_programs.py PROGRAM ENDPOINT``.

Each says a line on its standard output once it is ready.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from opencluster.net.arena import Arena
from opencluster.net.lane import LaneTransport
from opencluster.net.transport import PeerConnected, Received

HEARTBEAT_S, TIMEOUT_S = 0.05, 0.5
SIZES = (0, 100, 40_000, 200_000, 3_000_000)


def lane() -> LaneTransport:
    return LaneTransport(64 << 20, HEARTBEAT_S, TIMEOUT_S, arena=Arena(64 << 20))


def messages(transport: LaneTransport) -> Iterator[Received]:
    poll = select.poll()
    poll.register(transport.pollables()[0], select.POLLIN)
    while True:
        poll.poll()
        for event in transport.receive():
            if isinstance(event, Received):
                yield event


def ready() -> None:
    print("ready", flush=True)


def serve(endpoint: str) -> None:
    """Answer every message with the same, but do first what its header says."""
    transport = lane()
    transport.listen(endpoint)
    ready()
    for event in messages(transport):
        words = bytes(event.header).split()
        answer = event.header
        if words[0] == b"hold":
            # the interpreter, as code in C may do that knows no better
            seconds = float(words[1])
            ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))
        elif words[0] == b"fork":
            # as code in C may do that knows nothing of Python
            fork = ctypes.CDLL(None).fork if words[1] == b"c" else os.fork
            child = fork()
            if not child:
                signal.pause()
            if child < 0:
                # which would mean everyone, to who ends it
                raise OSError("no child was forked")
            answer = b"%d" % child
        elif words[0] == b"exit":
            transport.send(event.peer, b"last")
            transport.close(1.0)
            return
        transport.send(event.peer, answer, event.buffers)


def pour(endpoint: str) -> None:
    """Send numbered messages with buffers of many sizes, for ever."""
    transport = lane()
    peer = transport.connect(endpoint)
    number = 0
    while True:
        size = SIZES[number % len(SIZES)]
        buffers = [bytes([number % 251]) * size] if size else []
        transport.send(peer, b"%d" % number, buffers)
        number += 1
        transport.receive()
        if number == 1:
            ready()


def flood(endpoint: str) -> None:
    """Say hello, and then read nothing."""
    transport = lane()
    peer = transport.connect(endpoint)
    while not any(isinstance(e, PeerConnected) for e in transport.receive()):
        time.sleep(0.001)
    transport.send(peer, b"hello")
    ready()
    signal.pause()


def crowd(endpoint: str) -> None:
    """Take more connections than there are descriptors, and tell what came."""
    transport = lane()
    transport.listen(endpoint)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, hard))
    ready()
    for event in messages(transport):
        if event.header == b"more":
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, hard))
        transport.send(event.peer, event.header)


def stranger(endpoint: str) -> None:
    """Connect as another user, and tell how that went."""
    os.setgid(65534)
    os.setuid(65534)
    transport = lane()
    try:
        transport.connect(endpoint)
        while not transport.receive():
            time.sleep(0.001)
    except Exception as error:
        print(error, flush=True)
    else:
        print("cut off", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
