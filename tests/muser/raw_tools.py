"""Raw frames for tests: full of random values, and files of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.raw import Frames, encode_frames, make_frames, make_header

SIZES = {1: 100_000, 2: 204_800}
FRACTIONS = {1: 10_000, 2: 100_000}
WHOLE = {1: 1 << 16, 2: 1 << 15}
NOON_NS = int(np.datetime64("2015-11-01T04:08:49.354161240", "ns").astype(np.int64))
"""The time of the test word in the notes: 12:08:49.354161240 in Beijing."""
LONG_AGO_NS = int(np.datetime64("2014-12-17T04:34:18", "ns").astype(np.int64))
"""When files had the old layout."""


def loop_codes(array: int, n: int, first: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
    """Return 2 band + hand of n frames in a loop."""
    return (np.arange(n) + first) % load_array(array).frames_per_loop


def random_frames(
    array: int,
    n: int,
    *,
    seed: int = 1,
    first: int = 0,
    start_ns: int = NOON_NS,
    mode: str = "loop",
    layout: str = "new",
    is_conjugated: bool | None = None,
    **of_header: Any,
) -> Frames:
    """Return frames in a loop, or in the band of the first code, full of noise."""
    rng = np.random.default_rng(seed)
    description = load_array(array)
    codes = loop_codes(array, n, first)
    if mode == "fixed":
        codes = np.full(n, first)
    band, polarization = codes // 2, np.array(["LL", "RR"])[codes % 2]
    parts = rng.integers(-(1 << 23), 1 << 23, (n, description.baselines, 16, 2))
    # the conjugate of the lowest is not among the numbers of a frame
    parts[..., 1] = np.maximum(parts[..., 1], 1 - (1 << 23))
    parts[:, :4, 0, 0] = [-(1 << 23), (1 << 23) - 1, 0, -1]
    units = rng.integers(0, WHOLE[array] * FRACTIONS[array], (n, description.inputs))
    header = make_header(
        array,
        band,
        polarization,
        mode=mode,  # type: ignore[arg-type]
        layout=layout,  # type: ignore[arg-type]
        **of_header,
    )
    shape = (n, 16, description.inputs)
    return make_frames(
        array,
        start_ns + np.arange(n) * FRAME_PERIOD_NS,
        band,
        polarization,
        parts.astype(np.float32).view(np.complex64)[..., 0],
        autocorrelations=rng.integers(0, 1 << 32, shape, dtype=np.uint32),
        delay_ns=units / FRACTIONS[array],
        header=header,
        layout=layout,  # type: ignore[arg-type]
        is_conjugated=is_conjugated,
    )


def noise(frames: Frames, seed: int = 2) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return noise for the bytes of frames that have no meaning."""
    shape = (len(frames), SIZES[frames.array])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, *parts: Frames | bytes) -> Path:
    """Write frames and bytes one after the other, and return the path."""
    pieces = [
        part if isinstance(part, bytes) else encode_frames(part, noise(part)).tobytes()
        for part in parts
    ]
    path.write_bytes(b"".join(pieces))
    return path


def assert_same(found: Frames, expected: Frames) -> None:
    """Check that two Frames are equal in everything but where they were read."""
    for name in ("array", "layout", "is_conjugated"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in (
        *("time_utc_ns", "band", "polarization", "frequency_hz", "visibilities"),
        *("autocorrelations", "delay_ns", "flags"),
    ):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    assert found.header.keys() == expected.header.keys()
    for name, words in expected.header.items():
        np.testing.assert_array_equal(found.header[name], words, err_msg=name)


def coded(frames: Frames) -> list[bytearray]:
    """Return the bytes of each frame, to be tampered with."""
    return [bytearray(row.tobytes()) for row in encode_frames(frames, noise(frames))]


def save(path: Path, pieces: Sequence[bytes | bytearray]) -> Path:
    """Write the bytes of frames, and return the path."""
    path.write_bytes(b"".join(pieces))
    return path
