"""How long images take: from the last byte of an item, over TCP, until they are there.

Everything is as it is used: a server with its spool, a manager run for each item, two
workers, files, and the index, in which it is looked for what has been published. The
batch load is images of an archive, which another process has the same workers make.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.figures import Figure, percentile
from bench.machine import ROOT
from bench.muser_data import make_archive
from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.realtime import ImageIndex, MUSERImageManager
from muser_pipeline.realtime.cutting import cut, read_item
from muser_pipeline.realtime.index import default_url
from muser_pipeline.realtime.options import ImageRequest
from muser_pipeline.realtime.server import MUSERSocketServer
from opencluster import WorkPiece
from opencluster.testing import LocalCluster

WORKER = "muser_pipeline.realtime:MUSERImageWorker"
TYPE = "MUSERImage"
WORKERS = 2
FRAME_BYTES = 100_000
ITEM_FRAMES = 32
"""A tenth of a second: four loops."""
LOOP_FRAMES = 8
OPTIONS: dict[str, Any] = {
    "bands": [1, 2],
    "polarizations": ["I"],
    "size": 512,
    "cell_arcsec": 9.0,
    "iterations": 500,
}
"""Two images of an item, one for each worker."""
GAP_S = 0.5
"""From an image that is there to the next item."""
POLL_S = 0.002
DEADLINE_S = 60.0


def measure(is_quick: bool) -> list[Figure]:
    """Measure latencies without and with batch load in turn, and the rate of images."""
    samples, runs, streamed = (3, 1, 4) if is_quick else (15, 3, 30)
    alone: list[list[float]] = []
    loaded: list[list[float]] = []
    lengths: list[float] = []
    rates = []
    with tempfile.TemporaryDirectory() as folder, LocalCluster({WORKER: WORKERS}):
        items = 1 + runs * (2 * samples + streamed)
        path = make_archive(1, items * ITEM_FRAMES + 1, Path(folder))
        with _Chain(path, Path(folder)) as chain:
            chain.item()
            for _ in range(runs):
                alone.append([chain.item() for _ in range(samples)])
                with batch_load(path) as load:
                    loaded.append([chain.item() for _ in range(samples)])
                lengths.append(load["length_s"])
                rates.append(chain.stream(streamed))
    return list(figures_of(alone, loaded, lengths, rates))


def figures_of(
    alone: list[list[float]],
    loaded: list[list[float]],
    lengths: list[float],
    rates: list[float],
) -> Iterator[Figure]:
    """Yield what is shown.

    Parameters
    ----------
    alone, loaded : list of list of float
        Latencies of each run in seconds, without and with batch load.
    lengths : list of float
        How long a batch piece takes by itself, seconds.
    rates : list of float
        Images a second.
    """
    tails = {}
    for load, runs in (("no batch load", alone), ("batch load", loaded)):
        tails[load] = [percentile(run, 99) for run in runs]
        medians = [statistics.median(run) * 1e3 for run in runs]
        yield Figure("images", f"{load}: last byte to image, median", "ms", medians)
        worst = [tail * 1e3 for tail in tails[load]]
        yield Figure("images", f"{load}: last byte to image, p99", "ms", worst)
    ahead = statistics.median(tails["no batch load"])
    growth = [
        (tail - ahead) / length
        for tail, length in zip(tails["batch load"], lengths, strict=True)
    ]
    yield Figure("images", "length of a batch piece", "s", lengths)
    yield Figure("images", "growth of p99, in lengths of a batch piece", "", growth)
    yield Figure("images", "images through the whole chain", "1/s", rates)


class _Chain:
    """A server, what is sent to it, and the index in which its images appear."""

    def __init__(self, path: Path, folder: Path) -> None:
        out = folder / "images"
        out.mkdir()
        self._data = path.open("rb")
        self._index = ImageIndex(default_url(out), out)
        self._server = MUSERSocketServer(
            1,
            MUSERImageManager,
            folder / "spool",
            interval_ns=ITEM_FRAMES * FRAME_PERIOD_NS,
            options=OPTIONS | {"out": out},
            managers=2,
        )
        self._last = 0

    def __enter__(self) -> _Chain:
        self._server.start()
        self._socket = socket.create_connection(self._server.address)
        self._send(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._server.stop()
        self._server.wait()
        self._index.close()
        self._data.close()

    def item(self) -> float:
        """Send an item, and return how long after its last byte its images are there.

        The first frame of the next item is sent with it, as the receiver does: a frame
        is whole when the next one begins.
        """
        time.sleep(GAP_S)
        self._send(ITEM_FRAMES)
        sent = time.perf_counter()
        self._await_images(len(OPTIONS["bands"]))
        return time.perf_counter() - sent

    def stream(self, items: int) -> float:
        """Send items as fast as they are taken, and return images a second."""
        began = time.perf_counter()
        for _ in range(items):
            self._send(ITEM_FRAMES)
        images = items * len(OPTIONS["bands"])
        self._await_images(images)
        return images / (time.perf_counter() - began)

    def _send(self, frames: int) -> None:
        self._socket.sendall(self._data.read(frames * FRAME_BYTES))

    def _await_images(self, count: int) -> None:
        deadline = time.monotonic() + DEADLINE_S + count
        while count:
            for record in self._index.since(self._last):
                if record.status != "image":
                    raise RuntimeError(f"an image was refused: {record.reason}")
                self._last = record.id
                count -= 1
            if time.monotonic() > deadline:
                raise RuntimeError(f"{count} images did not come")
            time.sleep(POLL_S)


@contextmanager
def batch_load(path: Path) -> Iterator[dict[str, float]]:
    """Have workers make images of an archive all the time, from another process.

    Yields
    ------
    dict
        Gets the ``length_s`` of a piece when it is over.
    """
    told: dict[str, float] = {}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.image_latency", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        if process.stdout.readline() != "begun\n":
            raise RuntimeError("the batch load did not begin; see what it printed")
        yield told
        output, _ = process.communicate()
        told.update(json.loads(output))


class BatchImages(MUSERImageManager):
    """Images that can wait."""

    priority = "batch"


def _load(path: Path) -> None:
    """Have images made until standard input ends, and tell how long one takes."""
    manager = BatchImages()
    # the last pieces may still be at work in it
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder as out, path.open("rb") as file:
        request = ImageRequest.read(OPTIONS | {"out": out})
        item = read_item(file.read(LOOP_FRAMES * FRAME_BYTES), 1, request)
        slices = list(cut(item, request, together=False))

        def pieces() -> Iterator[WorkPiece]:
            while True:
                for piece in slices:
                    yield WorkPiece(request=request.plain(), slice=piece.plain())

        lengths = []
        for result in manager.map(TYPE, pieces(), ordered=False, progress=False):
            lengths.append(result["elapsed_s"])
            if len(lengths) == WORKERS:
                print("begun", flush=True)
            if select.select([sys.stdin], [], [], 0.0)[0]:
                break
    print(json.dumps({"length_s": statistics.median(lengths)}))


if __name__ == "__main__":
    _load(Path(sys.argv[1]))
