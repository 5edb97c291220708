"""The server of raw frames: a manager run for each second of an array, say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from muser_pipeline.realtime.framing import (
    AHEAD_S,
    INTERVAL_NS,
    BareFrames,
    FrameItems,
)
from opencluster import IngestServer, Manager, WorkPiece
from opencluster.ingest import Framing, Item

FramingName = Literal["frames", "items"]


class MUSERSocketServer(IngestServer):
    """Takes raw frames of one array, and has a manager run for each item of them.

    ``schedule()`` gets a WorkPiece with ``item``, ``array``, ``options``, ``frames``,
    the raw frames as an array of uint8, shape (bytes,), and ``time_utc_ns``, when they
    were accepted.

    Parameters
    ----------
    array : int
        1 or 2.
    manager : callable
        Makes a manager, such as `MUSERImageManager`.
    spool : str or Path
        A folder on a local disk.
    framing : {"frames", "items"}, optional
        Frames back to back, or items that get answers; see `realtime.framing`.
    interval_ns : int, optional
        Length of an item of frames that come back to back; 0 for one loop.
    ahead_s : float, optional
        How far the clock of the receiver may be ahead.
    options : mapping, optional
        For the manager.
    **server
        As for `IngestServer`.
    """

    def __init__(
        self,
        array: int,
        manager: Callable[[], Manager],
        spool: str | Path,
        *,
        framing: FramingName = "frames",
        interval_ns: int = INTERVAL_NS,
        ahead_s: float = AHEAD_S,
        options: Mapping[str, Any] | None = None,
        **server: Any,
    ) -> None:
        made: dict[FramingName, Callable[[], Framing]] = {
            "frames": partial(BareFrames, array, interval_ns, ahead_s),
            "items": partial(FrameItems, array, ahead_s),
        }
        task = partial(_task, array, dict(options or {}))
        super().__init__(made[framing], manager, spool, task=task, **server)


def _task(
    array: int, options: dict[str, Any], item: Item, data: memoryview
) -> WorkPiece:
    frames = np.frombuffer(data, dtype=np.uint8)
    return WorkPiece(
        item=item.id,
        frames=frames,
        array=array,
        options=options,
        time_utc_ns=int(item.accepted_at * 1e9),
    )
