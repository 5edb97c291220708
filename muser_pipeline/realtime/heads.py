"""The heads of frames as they come in: whose they are, and whether their time can be.

A frame has no checksum, so its time is judged by the frames around it. One that goes
back in time is left out; one that leaps ahead is believed if the next one goes on from
there, so that a bit which has turned costs one frame and not all that follow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

import numpy as np

from muser_pipeline.raw.clock import TICK_NS, decode_time
from muser_pipeline.raw.format import ARRAY_TAGS, SYNC

HEAD_BYTES = 209
"""As much of a frame as is looked at."""
STEP_NS = 50_000_000
"""A few frames may be lost; a longer step is a gap, or a wrong time."""
GAP_NS = 10**9
"""Two frames further apart do not bear each other out."""
RECENT = 64
"""Times of frames that are remembered, to tell what comes twice from what is late."""
NO_TIME, FUTURE, TWICE = "no time", "future", "twice"
OUT_OF_ORDER, ODD_TIME, OTHER_ARRAY = "out of order", "odd time", "other array"
"""Reasons to leave out a frame."""
_WORD = Struct("<Q")
_SHORT = Struct("<H")
_BELOW_SECONDS = 26


@dataclass(frozen=True)
class Head:
    """What is looked at of a frame.

    Attributes
    ----------
    time_ns : int or None
        Nanoseconds since 1970, UTC; ``None`` if there is no such time.
    tag : int
        Of the array, in files from 2015.
    code : int
        Place in a loop, as the new layout has it.
    """

    time_ns: int | None
    tag: int
    code: int


def read_head(data: bytes | bytearray, at: int, array: int) -> Head:
    """Return the head of the frame at a place, where `HEAD_BYTES` are."""
    (word,) = _WORD.unpack_from(data, at + 32)
    (tag,) = _SHORT.unpack_from(data, at + 194)
    code = data[at + 208] if array == 1 else _SHORT.unpack_from(data, at + 196)[0]
    return Head(time_of(word), tag, code)


def time_of(word: int) -> int | None:
    """Return the time of a time word, as `decode_time` does for many."""
    whole_ns = _second_ns(word >> _BELOW_SECONDS)
    millisecond, microsecond, tick = word >> 16 & 1023, word >> 6 & 1023, word & 63
    if whole_ns is None or millisecond > 999 or microsecond > 999:
        return None
    ticks_ns = tick * TICK_NS if tick < 50 else 0
    return whole_ns + millisecond * 10**6 + microsecond * 1000 + ticks_ns


@lru_cache(maxsize=256)
def _second_ns(high: int) -> int | None:
    words = np.array([high << _BELOW_SECONDS], dtype=np.uint64)
    times, is_valid = decode_time(words)
    return int(times[0]) if is_valid[0] else None


def begins(data: bytes | bytearray, at: int) -> bool:
    """Tell whether a frame, or the little of it that is there, begins at a place."""
    there = data[at : at + len(SYNC)]
    return there == SYNC[: len(there)]


class FrameOrder:
    """Judges the frames of one feed, one after the other.

    Parameters
    ----------
    array : int
        1 or 2.
    ahead_s : float
        How far the clock of the receiver may be ahead of ours.
    """

    def __init__(self, array: int, ahead_s: float) -> None:
        others = {tag for each, tag in ARRAY_TAGS.items() if each != array}
        # a tag of 0 is MUSER-I's, and that of old frames of both
        self._wrong_tags = others - {0}
        self._ahead_ns = int(ahead_s * 1e9)
        self._last_ns: int | None = None
        self._recent: deque[int] = deque(maxlen=RECENT)

    def judge(self, head: Head, following: Head | None, now: float) -> str:
        """Return why a frame is to be left out, or nothing.

        Parameters
        ----------
        head : Head
            Of the frame.
        following : Head or None
            Of the next one, if there is one.
        now : float
            Seconds since 1970.
        """
        if head.tag in self._wrong_tags:
            return OTHER_ARRAY
        time_ns, last_ns = head.time_ns, self._last_ns
        if time_ns is None:
            return NO_TIME
        if time_ns > now * 1e9 + self._ahead_ns:
            return FUTURE
        if last_ns is not None and time_ns <= last_ns:
            return TWICE if time_ns in self._recent else OUT_OF_ORDER
        is_next = last_ns is not None and time_ns - last_ns <= STEP_NS
        if not is_next and following is not None:
            ahead_ns = (following.time_ns or 0) - time_ns
            if not 0 < ahead_ns <= GAP_NS:
                return ODD_TIME
        self._last_ns = time_ns
        self._recent.append(time_ns)
        return ""
