"""Processes at the two ends of an arena, told what to do through a socket.

``python arena_programs.py PROGRAM FD``: the socket has one command or answer, in JSON,
to a message; a segment's descriptor travels with the command that adds it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
from typing import Any

import numpy as np
from arena_tools import pattern

from opencluster.net.arena import Arena, Handle, Mapping

LIMIT_BYTES = 1 << 30


def send(link: socket.socket, message: Any, fd: int | None = None) -> None:
    fds = [] if fd is None else [fd]
    socket.send_fds(link, [json.dumps(message).encode()], fds)


def receive(link: socket.socket) -> tuple[Any, int | None]:
    """Return a message, and the descriptor that came with it; ``None`` at the end."""
    data, fds, _, _ = socket.recv_fds(link, 1 << 16, 1)
    return (json.loads(data) if data else None), (fds[0] if fds else None)


def read(link: socket.socket) -> None:
    """Keep views of what it is shown until it is told to forget them."""
    mapping = Mapping()
    kept: dict[str, Any] = {}
    while True:
        message, fd = receive(link)
        if message is None:
            return
        if fd is not None:
            mapping.add(message["segment"], fd)
        for key, handle in message.get("view", {}).items():
            kept[key] = np.frombuffer(mapping.view(Handle(*handle)), np.uint8)
        for key in message.get("forget", ()):
            del kept[key]
        if "write" in message:
            # as a C extension would that does not ask whether it may
            ctypes.memset(kept[message["write"]].ctypes.data, 1, 1)
        send(link, {key: int(value.sum()) for key, value in kept.items()})


def write(link: socket.socket) -> None:
    """Place as many blocks as it is told, and answer with handles and the segment."""
    arena = Arena(LIMIT_BYTES)
    while True:
        message, _ = receive(link)
        if message is None:
            return
        blocks = [pattern(n, message["nbytes"]) for n in range(message["count"])]
        handles = [arena.place(block, "reader") for block in blocks]
        assert all(handle and handle.segment == 1 for handle in handles)
        send(link, handles, arena.segment_fd(1))


def limited(link: socket.socket) -> None:
    """Answer whether there is room under limits of the process, one by one."""
    for name in ("RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_NOFILE"):
        which = getattr(resource, name)
        low = 0 if name == "RLIMIT_NOFILE" else 50_000
        soft, hard = resource.getrlimit(which)
        resource.setrlimit(which, (low, hard))
        arena = Arena(LIMIT_BYTES)
        placed = arena.place(bytes(100_000), "reader")
        resource.setrlimit(which, (soft, hard))
        send(link, [name, placed, arena.counts.mapped_bytes])


def leave(link: socket.socket) -> None:
    """End with views and arrays in all kinds of places."""
    global arena, mapping, array, view, cycle
    arena, mapping = Arena(LIMIT_BYTES), Mapping()
    handle = arena.place(bytes(range(256)) * 400, "me")
    assert handle is not None
    mapping.add(1, os.dup(arena.segment_fd(1)))
    view = mapping.view(handle)
    own = arena.allocate(1 << 20)
    assert own is not None
    array = np.frombuffer(own, np.float64)
    cycle = [array[3:]]
    cycle.append(cycle)
    Mapping.last = np.frombuffer(view, np.uint8)  # type: ignore[attr-defined]
    send(link, "over")


if __name__ == "__main__":
    programs = {"read": read, "write": write, "limited": limited, "leave": leave}
    with socket.socket(fileno=int(sys.argv[2])) as opened:
        programs[sys.argv[1]](opened)
