"""Frames of an archive or of a simulation, sent as if they were observed now."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.archive import Archive
from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.raw import encode_frames, open_raw
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.realtime.framing import item_name
from muser_pipeline.simulator.observation import Observation, SkyModel
from opencluster.ingest import ItemSender, Link, connect

AT_A_TIME = 32
"""Frames that are read and sent together: a tenth of a second."""


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive frames.

    Attributes
    ----------
    time_utc_ns : ndarray of int64, shape (n,)
        Their times, ascending.
    frames : ndarray of uint8, shape (n, size)
        Their bytes.
    """

    time_utc_ns: NDArray[np.int64]
    frames: NDArray[np.uint8]

    def select(self, which: slice) -> Block:
        """Return some of the frames."""
        return Block(self.time_utc_ns[which], self.frames[which])


def archived(archive: Archive, start_ns: int, end_ns: int) -> Iterator[Block]:
    """Yield the frames of an archive that can be read, by time.

    Parameters
    ----------
    archive : Archive
        Where they are.
    start_ns, end_ns : int
        Nanoseconds since 1970, UTC; the end is not included.
    """
    size = FORMATS[archive.array].size
    last_ns = start_ns - 1
    for file in archive.files:
        if file.last_utc_ns < start_ns or file.first_utc_ns >= end_ns:
            continue
        with open_raw(file.path, array=archive.array) as raw:
            times, offsets = raw.time_utc_ns, raw.contents.offset
        data = np.memmap(file.path, dtype=np.uint8, mode="r")
        # files may overlap, and a frame may be in one of them twice
        newest = np.maximum.accumulate(np.append(last_ns, times))[:-1]
        which = np.flatnonzero((times > newest) & (times < end_ns))
        for first in range(0, len(which), AT_A_TIME):
            some = which[first : first + AT_A_TIME]
            frames = np.stack([data[at : at + size] for at in offsets[some]])
            yield Block(times[some], frames)
            last_ns = int(times[some[-1]])


def simulated(observation: Observation, count: int, seed: int = 0) -> Iterator[Block]:
    """Yield frames of a sky that is known.

    Parameters
    ----------
    observation : Observation
        What is observed.
    count : int
        How many frames.
    seed : int, optional
        Of the noise.
    """
    noise = np.random.default_rng(seed)
    model = SkyModel(observation)
    for first in range(0, count, AT_A_TIME):
        numbers = np.arange(first, min(first + AT_A_TIME, count), dtype=np.int64)
        times = observation.start_utc_ns + numbers * FRAME_PERIOD_NS
        yield Block(times, encode_frames(observation.frames(numbers, noise, model)))


def by_interval(blocks: Iterable[Block], interval_ns: int) -> Iterator[Block]:
    """Yield the frames of each interval in one block."""
    waiting: list[Block] = []
    for block in blocks:
        which = block.time_utc_ns // interval_ns
        edges = np.flatnonzero(np.diff(which)) + 1
        starts = [0, *edges.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(which)], strict=True):
            part = block.select(slice(start, stop))
            before = waiting[-1].time_utc_ns[-1] // interval_ns if waiting else None
            if before not in (None, which[start]):
                yield _joined(waiting)
                waiting = []
            waiting.append(part)
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Block]) -> Block:
    return Block(
        np.concatenate([part.time_utc_ns for part in parts]),
        np.concatenate([part.frames for part in parts]),
    )


class Pacer:
    """Holds frames back until it would be their time.

    Parameters
    ----------
    rate : float
        How much faster than observed; 0 for as fast as can be.
    clock, sleep : callable, optional
        Seconds, and how to wait for some.
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._began: tuple[int, float] | None = None

    def wait(self, time_ns: int) -> None:
        """Wait for the time at which a frame of such a time is sent."""
        if not self._rate:
            return
        if self._began is None:
            self._began = time_ns, self._clock()
        first_ns, began_at = self._began
        left_s = began_at + (time_ns - first_ns) / 1e9 / self._rate - self._clock()
        if left_s > 0:
            self._sleep(left_s)


def send_items(
    sender: ItemSender, array: int, blocks: Iterable[Block], pacer: Pacer
) -> None:
    """Send each block as an item, and wait until all are answered for.

    Parameters
    ----------
    sender : ItemSender
        Where to.
    array : int
        1 or 2.
    blocks : iterable of Block
        See `by_interval`.
    pacer : Pacer
        An item is sent at the time of its last frame.
    """
    for block in blocks:
        pacer.wait(int(block.time_utc_ns[-1]))
        name = item_name(array, int(block.time_utc_ns[0]))
        sender.send(name, block.frames.reshape(-1).data)
    sender.finish()


class FeedSender:
    """Sends frames back to back, as the digital receiver does; nothing is answered.

    Parameters
    ----------
    address, tls, patience_s
        As for `ItemSender`.
    on_sent : callable, optional
        Called with a number of bytes.

    Attributes
    ----------
    connections : int
        How many were made; with each further one some frames were lost.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        patience_s: float = 60.0,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        self.connections = 0
        self._address = address
        self._tls = tls
        self._patience_s = patience_s
        self._on_sent = on_sent or (lambda count: None)
        self._link: Link | None = None

    def send(self, blocks: Iterable[Block], pacer: Pacer) -> None:
        """Send all of it, and wait until the server has taken it.

        Raises
        ------
        IngestError
            When the server cannot be reached.
        """
        for block in blocks:
            pacer.wait(int(block.time_utc_ns[0]))
            link = self._linked()
            try:
                data = block.frames.reshape(-1).data
                link.write(data, lambda came: None, self._on_sent)
            except OSError:
                self.close()
        if self._link is not None:
            # one that breaks now has what it has
            with suppress(OSError):
                self._link.see_off(self._patience_s)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _linked(self) -> Link:
        if self._link is None:
            self._link = connect(self._address, self._tls, self._patience_s)
            self.connections += 1
        return self._link
