"""A hand-written loop over ZeroMQ: the least that sockets and msgpack can cost.

A ROUTER here, a DEALER in each worker, over ipc, each in a plain blocking loop. There
is no second thread, no registry, no retry, no time limit and no order. A worker is
kept supplied by credit: so many tasks are on their way to it, and each answer lets one
more go.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import zmq

from bench.peers.base import Peer, Sums
from bench.tasks import echo, fresh_block, touch_bytes

READY_TIMEOUT_MS = 60_000
DEPTH = {"echo": 64, "touch": 2, "make": 2}
"""Tasks on their way to each worker."""

pack, unpack = msgpack.packb, msgpack.unpackb
Frames = Sequence[Any]


class ZeroMQ(Peer):
    """One message for each task: a header by msgpack, the array as a frame."""

    def start(self, workers: int) -> None:
        """Start the workers and wait until each has said hello."""
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.set(zmq.RCVTIMEO, READY_TIMEOUT_MS)
        endpoint = f"ipc://{Path(self._folder.name) / 'tasks.sock'}"
        self._socket.bind(endpoint)
        spawn = multiprocessing.get_context("spawn")
        for _ in range(workers):
            process = spawn.Process(target=_work, args=(endpoint,), daemon=True)
            process.start()
            self._processes.append(process)
        self._workers = [self._socket.recv_multipart()[0] for _ in range(workers)]
        self._socket.set(zmq.RCVTIMEO, -1)

    def noop(self) -> None:
        """Send a number to the first worker and wait until it comes back."""
        self._socket.send_multipart([self._workers[0], pack(("echo", 1))])
        unpack(self._socket.recv_multipart()[1])

    def noops(self, count: int) -> int:
        """Send each number in a message of its own."""
        return len(self._farm("echo", count, lambda number: (), _answer))

    def blocks(self, count: int, size: int) -> Sums:
        """Send each block as a frame that is not copied."""
        return self._farm(
            "touch", count, lambda number: (fresh_block(number, size),), _answer
        )

    def results(self, count: int, size: int) -> Sums:
        """Ask for blocks, and read each where libzmq put it."""
        return self._farm("make", count, lambda number: (pack(size),), _touch)

    def worker_pids(self) -> list[int]:
        """Return the processes that were started."""
        return [process.pid or 0 for process in self._processes]

    def close(self) -> None:
        """End the workers and the sockets."""
        for process in self._processes:
            process.terminate()
            process.join()
        self._context.destroy(linger=0)
        self._folder.cleanup()

    def _farm(
        self,
        what: str,
        count: int,
        frames: Callable[[int], Frames],
        use: Callable[[Frames], tuple[int, int]],
    ) -> list[tuple[int, int]]:
        """Have so many tasks done, each worker always with a few ahead."""
        sock = self._socket
        # small frames are cheaper to copy than to watch
        is_copied = what == "echo"
        numbers = iter(range(count))
        answers = []

        def send(worker: Any) -> None:
            number = next(numbers, None)
            if number is not None:
                message = [worker, pack((what, number)), *frames(number)]
                sock.send_multipart(message, copy=is_copied)

        for _ in range(DEPTH[what]):
            for worker in self._workers:
                send(worker)
        for _ in range(count):
            received = sock.recv_multipart(0, what != "make")
            send(received[0])
            answers.append(use(received))
        return answers


def _answer(frames: Frames) -> tuple[int, int]:
    number, value = unpack(frames[1])
    return number, value


def _touch(frames: Frames) -> tuple[int, int]:
    number, _ = unpack(frames[1].buffer)
    return number, touch_bytes(frames[2].buffer)


def _work(endpoint: str) -> None:
    """Answer until ended."""
    sock = zmq.Context().socket(zmq.DEALER)
    sock.set_hwm(0)
    sock.connect(endpoint)
    sock.send(b"hello")
    while True:
        what, number = unpack(sock.recv())
        if what == "echo":
            sock.send(pack((number, echo(number))))
        elif what == "touch":
            sock.send(pack((number, touch_bytes(sock.recv(copy=False).buffer))))
        else:
            sock.send(pack((number, 0)), zmq.SNDMORE)
            block: Any = fresh_block(number, unpack(sock.recv()))
            sock.send(block, copy=False)
