"""Raw frames for tests of feeds: right heads, and payloads that tell them apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.raw import make_header
from muser_pipeline.raw.clock import encode_time
from muser_pipeline.raw.format import FORMATS, HEADER, HEADER_BYTES, SYNC, WORDS

START_NS = 1_446_350_400 * 10**9
"""2015-11-01T04:00:00, a whole second."""


def feed(
    count: int, array: int = 1, start_ns: int = START_NS, first: int = 0
) -> NDArray[np.uint8]:
    """Return consecutive frames of a loop, shape (count, size)."""
    numbers = first + np.arange(count)
    code = numbers % load_array(array).frames_per_loop
    times = start_ns + numbers * FRAME_PERIOD_NS
    hands = np.where(code % 2, "RR", "LL")
    words = make_header(array, code // 2, hands)
    coded = np.zeros((count, FORMATS[array].size), dtype=np.uint8)
    heads = np.zeros(count, dtype=HEADER)
    heads["sync"] = SYNC
    for name in WORDS:
        heads[name] = words[name]
    heads["time"] = encode_time(times)
    heads["loop_code_1" if array == 1 else "loop_code_2"] = code
    coded[:, :HEADER_BYTES] = heads.view(np.uint8).reshape(count, HEADER_BYTES)
    coded[:, 3000:3008] = numbers.astype("<u8")[:, np.newaxis].view(np.uint8)
    return coded


def with_time(frame: NDArray[np.uint8], time_ns: int) -> NDArray[np.uint8]:
    """Return a frame with another time."""
    other = frame.copy()
    other[32:40] = encode_time([time_ns]).view(np.uint8)
    return other
