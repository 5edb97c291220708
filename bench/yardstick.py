"""The least that a round trip can cost here: two sockets, msgpack and no more.

A ROUTER in a process of its own answers a DEALER over ipc, each in a plain loop. There
is no second thread, no registry, no retry and no time limit, so that what OpenCluster
takes beyond it is the price of those.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import msgpack
import zmq

from bench.machine import ROOT

IDLE_MS = 60_000
"""After so long without a message the answering process ends by itself."""


class Yardstick:
    """A context manager with the asking side of the loop."""

    def __enter__(self) -> Yardstick:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        endpoint = f"ipc://{Path(self._directory.name) / 'echo.sock'}"
        command = [sys.executable, "-m", "bench.yardstick", endpoint]
        self._process = subprocess.Popen(command, cwd=ROOT)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.RCVTIMEO, IDLE_MS)
        self._socket.connect(endpoint)
        return self

    def trip(self, number: int) -> None:
        """Send a number and wait until it comes back."""
        self._socket.send(msgpack.packb({"number": number}))
        msgpack.unpackb(self._socket.recv())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)
        self._process.terminate()
        self._process.wait()
        self._directory.cleanup()


def echo(endpoint: str) -> None:
    """Answer whoever asks, until nobody has for a while."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.set(zmq.RCVTIMEO, IDLE_MS)
    router.bind(endpoint)
    while True:
        try:
            sender, body = router.recv_multipart()
        except zmq.Again:
            return
        piece = msgpack.unpackb(body)
        router.send_multipart([sender, msgpack.packb({"number": piece["number"]})])


if __name__ == "__main__":
    echo(sys.argv[1])
