"""The two programs of a measure of ingest: a server that decodes, and its sender."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.muser_data import START_NS, make_archive
from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.raw import received_raw
from muser_pipeline.raw.clock import encode_time
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.realtime.sending import AT_A_TIME, Block, FeedSender, Pacer
from muser_pipeline.realtime.serve_command import SWITCH_S
from muser_pipeline.realtime.server import MUSERSocketServer
from opencluster import Manager, WorkPiece

DECODED_AT_A_TIME = 64
"""Frames, as workers do."""


class Decoding(Manager):
    """Decodes all frames of an item."""

    frames = 0
    _lock = threading.Lock()

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Do an item."""
        with received_raw(task["frames"].tobytes(), array=task["array"]) as raw:
            for first in range(0, len(raw), DECODED_AT_A_TIME):
                count = len(raw.read(first, first + DECODED_AT_A_TIME))
                with self._lock:
                    Decoding.frames += count
        return WorkPiece()


def serve(array: int, folder: Path) -> None:
    """Serve until SIGTERM; then print what was done."""
    server = MUSERSocketServer(
        array,
        lambda: Decoding("local"),
        folder / "spool",
        status_file=folder / "status.json",
        drain=True,
    )
    signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
    sys.setswitchinterval(SWITCH_S)
    print(server.address[1], flush=True)
    server.run()
    print(json.dumps({**server.status.to_fields(), "decoded": Decoding.frames}))


def send(array: int, port: int, seconds: float, sample: Path) -> None:
    """Send frames at the speed of the instrument, and print how it went."""
    size = FORMATS[array].size
    frames = np.fromfile(sample, dtype=np.uint8).reshape(-1, size)
    count = round(seconds * 1e9 / FRAME_PERIOD_NS)
    feed = FeedSender(("127.0.0.1", port))
    began = time.perf_counter()
    feed.send(_blocks(frames, count), Pacer(1.0))
    told = {
        "frames": count,
        "elapsed_s": time.perf_counter() - began,
        "connections": feed.connections,
        "cpu_s": time.process_time(),
    }
    print(json.dumps(told))


def _blocks(frames: np.ndarray, count: int) -> Iterator[Block]:
    """Yield the same frames again and again, each at its own time."""
    for first in range(0, count, AT_A_TIME):
        numbers = np.arange(first, min(first + AT_A_TIME, count))
        some = frames[numbers % len(frames)]
        times = START_NS + numbers * FRAME_PERIOD_NS
        some[:, 32:40] = encode_time(times).view(np.uint8).reshape(-1, 8)
        yield Block(times, some)


def sample(array: int, folder: Path) -> Path:
    """Return a file with frames of whole loops."""
    return make_archive(array, 64 if array == 1 else 66, folder)


if __name__ == "__main__":
    what, number, *rest = sys.argv[1:]
    if what == "serve":
        serve(int(number), Path(rest[0]))
    else:
        send(int(number), int(rest[0]), float(rest[1]), Path(rest[2]))
