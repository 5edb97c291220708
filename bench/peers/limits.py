"""What the computer allows: the same blocks with nothing around them.

These are no clusters, and have one worker at most. They say how far anything that is
built upon the same means can get.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from bench.peers.base import Peer, Sums
from bench.tasks import Make, Rooms, echo, fresh_block, touch

HEAD = struct.Struct("<BQQ")
"""What is asked for, a number and a size."""
ECHO, BLOCK, MAKE, STOP = range(4)
AHEAD = 64
"""Trivial messages under way: few enough to fit into any buffer."""


class Memcpy(Peer):
    """Copies each block once, into a place that is warm, and touches the copy."""

    def start(self, workers: int) -> None:
        """Do nothing: this process does it all."""
        self._room: Any = fresh_block(0, 0)
        self._rooms = Rooms(1)

    def noop(self) -> None:
        """Call a function."""
        echo(1)

    def blocks(self, count: int, size: int) -> Sums:
        """Copy and touch."""
        return self._copy(count, size, fresh_block)

    def blocks_in_place(self, count: int, size: int) -> Sums:
        """Copy from memory that is warm as well."""
        return self._copy(count, size, self._rooms.block)

    def results(self, count: int, size: int) -> Sums:
        """Do the same: there are no two sides."""
        return self.blocks(count, size)

    def worker_pids(self) -> list[int]:
        """Return none: no process works for another."""
        return []

    def close(self) -> None:
        """End nothing."""

    def _copy(self, count: int, size: int, make: Make) -> Sums:
        import numpy as np

        if len(self._room) != size:
            self._room = fresh_block(0, size)
        sums = []
        for number in range(count):
            np.copyto(self._room, make(number, size))
            sums.append((number, touch(self._room)))
        return sums


class _Stream:
    """Two file descriptors, through which blocks go as they are."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._room: Any = bytearray()

    def close(self) -> None:
        for fd in {self._read_fd, self._write_fd}:
            os.close(fd)

    def ask(self, what: int, number: int, size: int = 0) -> None:
        self.send(HEAD.pack(what, number, size))

    def asked(self) -> tuple[int, int, int]:
        what, number, size = HEAD.unpack(self.receive(HEAD.size))
        return what, number, size

    def send(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._write_fd, view) :]

    def receive(self, size: int) -> memoryview:
        """Return so many bytes, which the next call overwrites."""
        if len(self._room) < size:
            self._room = bytearray(size)
        whole = memoryview(self._room)[:size]
        view = whole
        while view:
            count = os.readv(self._read_fd, [view])
            if count == 0:
                raise EOFError("the other side of the stream ended")
            view = view[count:]
        return whole

    def touch(self, size: int) -> int:
        import numpy as np

        return touch(np.frombuffer(self.receive(size), np.uint8))


class Pipe(Peer):
    """Two pipes to a child."""

    def start(self, workers: int) -> None:
        """Fork the child."""
        here, there = self._streams()
        self._child = os.fork()
        if self._child == 0:
            # else it would not learn that this process ended
            here.close()
            _serve(there)
        there.close()
        self._stream = here
        self._rooms = Rooms(1)

    def noop(self) -> None:
        """Send a number and wait until it comes back."""
        self._stream.ask(ECHO, 1)
        self._stream.asked()

    def noops(self, count: int) -> int:
        """Send numbers a few ahead."""
        ahead = min(count, AHEAD)
        for number in range(ahead):
            self._stream.ask(ECHO, number)
        for number in range(count):
            self._stream.asked()
            if number + ahead < count:
                self._stream.ask(ECHO, number + ahead)
        return count

    def blocks(self, count: int, size: int) -> Sums:
        """Write one block while the child reads the one before."""
        return self._send(count, size, fresh_block)

    def blocks_in_place(self, count: int, size: int) -> Sums:
        """Write from memory that is warm."""
        return self._send(count, size, self._rooms.block)

    def results(self, count: int, size: int) -> Sums:
        """Have the child make one block while the one before is read."""
        self._stream.ask(MAKE, 0, size)
        sums = []
        for number in range(count):
            if number + 1 < count:
                self._stream.ask(MAKE, number + 1, size)
            sums.append((number, self._stream.touch(size)))
        return sums

    def worker_pids(self) -> list[int]:
        """Return the child."""
        return [self._child]

    def close(self) -> None:
        """End the child."""
        self._stream.ask(STOP, 0)
        self._stream.close()
        os.waitpid(self._child, 0)

    def _send(self, count: int, size: int, make: Make) -> Sums:
        sums = []
        for number in range(count):
            self._stream.ask(BLOCK, number, size)
            self._stream.send(make(number, size))
            if number:
                sums.append(self._stream.asked()[1:])
        return [*sums, self._stream.asked()[1:]]

    def _streams(self) -> tuple[_Stream, _Stream]:
        (read_there, write_here), (read_here, write_there) = os.pipe(), os.pipe()
        return _Stream(read_here, write_here), _Stream(read_there, write_there)


class UnixSocket(Pipe):
    """A pair of connected unix sockets."""

    def _streams(self) -> tuple[_Stream, _Stream]:
        fds = [sock.detach() for sock in socket.socketpair()]
        here, there = (_Stream(fd, fd) for fd in fds)
        return here, there


class TcpSocket(Pipe):
    """A TCP connection on loopback, nothing held back to fill a packet."""

    def _streams(self) -> tuple[_Stream, _Stream]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
        for end in (here, there):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(True)
        here_fd, there_fd = here.detach(), there.detach()
        return _Stream(here_fd, here_fd), _Stream(there_fd, there_fd)


def _serve(stream: _Stream) -> None:
    """Answer until told to stop; this is the whole life of the child."""
    try:
        while True:
            what, number, size = stream.asked()
            if what == ECHO:
                stream.ask(ECHO, echo(number))
            elif what == BLOCK:
                stream.ask(BLOCK, number, stream.touch(size))
            elif what == MAKE:
                stream.send(fresh_block(number, size))
            else:
                break
    finally:
        os._exit(0)
