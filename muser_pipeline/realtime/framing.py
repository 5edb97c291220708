"""How frames come in: one behind the other as the receiver sends them, or as items.

`BareFrames` is for a feed that is only listened to. A frame is trusted if the next one
begins where it ends. What is no frame is left out and counted, and the next sync is
looked for; what is left is cut into items by the times of the frames.

`FrameItems` is for senders that want to know what became of what they sent: each item
has a name, a length and a checksum (`opencluster.ingest.ItemFraming`), and holds whole
frames.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.raw.format import ARRAY_TAGS, FORMATS, SYNC
from muser_pipeline.realtime.heads import (
    HEAD_BYTES,
    OTHER_ARRAY,
    FrameOrder,
    Head,
    begins,
    read_head,
)
from opencluster.ingest import (
    Event,
    Framing,
    ItemBegun,
    ItemData,
    ItemEnded,
    ItemFraming,
    ItemGivenUp,
    Rejected,
)

INTERVAL_NS = 10**9
"""Length of an item."""
AHEAD_S = 3600.0
"""How far the clock of a receiver may be ahead."""
CUT, GARBAGE = "cut", "garbage bytes"
"""Further reasons: a frame at whose end no other one begins, and bytes of no frame."""
NO_SYNC, NOT_WHOLE = "no sync", "not whole frames"
"""Reasons to leave out a frame of an item, and an item."""
_OTHER_BYTE = re.compile(rb"[^\x55]")
_TIME_END = 40
"""A sync and the time behind it have so many bytes."""


def item_name(array: int, time_ns: int) -> str:
    """Return the name of the item of an array whose first frame has a time."""
    return f"{load_array(array).name}-{np.datetime64(time_ns, 'ns')}"


class BareFrames(Framing):
    """Frames of one array, back to back.

    Parameters
    ----------
    array : int
        1 or 2.
    interval_ns : int, optional
        How long an item is; 0 for one loop over all bands.
    ahead_s : float, optional
        How far the clock of the receiver may be ahead of ours.
    """

    def __init__(
        self, array: int, interval_ns: int = INTERVAL_NS, ahead_s: float = AHEAD_S
    ) -> None:
        self._array = array
        self._size = FORMATS[array].size
        self._other_size = FORMATS[3 - array].size
        self._other_tag = ARRAY_TAGS[3 - array]
        self._order = FrameOrder(array, ahead_s)
        self._cutter = _Cutter(array, interval_ns)
        self._parts: list[bytes] = []
        self._there = 0
        self._needed = HEAD_BYTES

    def receive(self, data: memoryview, now: float) -> Sequence[Event]:
        """Take in bytes, and return what has happened."""
        self._parts.append(bytes(data))
        self._there += len(data)
        # the parts are joined when that leads on, however small they are
        return self._advance(now, False) if self._there >= self._needed else ()

    def quiet(self, now: float) -> Sequence[Event]:
        """Take the last frame as whole, if it is: nothing follows it now."""
        return self._advance(now, True) if self._there == self._size else ()

    def end(self, now: float) -> Sequence[Event]:
        """Return what is left, and end the item."""
        return [*self._advance(now, True), *self._cutter.end()]

    def is_unfinished(self) -> bool:
        """Return whether a frame has begun and not ended."""
        return self._there % self._size != 0

    # --- inside --------------------------------------------------------------

    def _advance(self, now: float, is_end: bool) -> list[Event]:
        """Deal with all that is there."""
        whole = b"".join(self._parts)
        events: list[Event] = []
        rejected: Counter[str] = Counter()
        at = 0
        while at < len(whole):
            step = self._next(whole, at, is_end, rejected)
            if step == 0:
                break
            if step < 0:
                step = self._size
                events += self._judge(whole, at, now, rejected)
            at += step
        events += self._cutter.flush()
        events += [Rejected(reason, count) for reason, count in rejected.items()]
        rest = whole[at:]
        self._parts, self._there = [rest] if rest else [], len(rest)
        if not rest:
            self._needed = HEAD_BYTES
        return events

    def _next(self, whole: bytes, at: int, is_end: bool, rejected: Counter[str]) -> int:
        """Return how many bytes at a place are no frame of ours.

        -1 is for a frame, and 0 if that cannot be told before `_needed` bytes from
        there on are there.
        """
        there = len(whole) - at
        if there < HEAD_BYTES and not is_end:
            return self._wait_for(HEAD_BYTES)
        if there < HEAD_BYTES or not begins(whole, at):
            step = there if there < HEAD_BYTES else _to_sync(whole, at, is_end) - at
            rejected[GARBAGE] += step
            return step
        if there < self._size + HEAD_BYTES and not is_end:
            return self._wait_for(self._size + HEAD_BYTES)
        head = read_head(whole, at, self._array)
        is_alike = whole[at + len(SYNC)] == SYNC[0] and head.time_ns is None
        if there >= self._size and begins(whole, at + self._size) and not is_alike:
            return -1
        if head.tag == self._other_tag:
            if there < self._other_size + len(SYNC) and not is_end:
                return self._wait_for(self._other_size + len(SYNC))
            if there >= self._other_size and begins(whole, at + self._other_size):
                rejected[OTHER_ARRAY] += 1
                return self._other_size
        other = _OTHER_BYTE.search(whole, at)
        run = (other.start() if other else len(whole)) - at
        if run == len(SYNC) and head.time_ns is not None:
            rejected[CUT] += 1
        # of many bytes that are alike the last ones are the sync
        step = max(1, run - _TIME_END)
        rejected[GARBAGE] += step
        return step

    def _wait_for(self, count: int) -> int:
        self._needed = count
        return 0

    def _judge(
        self, whole: bytes, at: int, now: float, rejected: Counter[str]
    ) -> list[Event]:
        """Take a frame, or leave it out."""
        head = read_head(whole, at, self._array)
        end = at + self._size
        is_last = len(whole) < end + HEAD_BYTES
        following = None if is_last else read_head(whole, end, self._array)
        reason = self._order.judge(head, following, now)
        if reason:
            rejected[reason] += 1
            return []
        return self._cutter.add(whole, at, head)


class _Cutter:
    """Cuts the frames that are taken into items."""

    def __init__(self, array: int, interval_ns: int) -> None:
        self._array = array
        self._size = FORMATS[array].size
        self._loop_frames = load_array(array).frames_per_loop
        self._is_loop = interval_ns == 0
        self._interval_ns = interval_ns or self._loop_frames * FRAME_PERIOD_NS
        self._anchor_ns: int | None = None
        self._whole = b""
        self._start = self._stop = 0
        self._which: int | None = None
        self._first_ns = self._last_ns = self._frames = 0

    def add(self, whole: bytes, at: int, head: Head) -> list[Event]:
        """Add the frame at a place."""
        assert head.time_ns is not None
        events: list[Event] = []
        which = self._interval(head.time_ns, head.code)
        if self._which not in (None, which):
            events += self.end()
        if self._which is None:
            self._which, self._first_ns, self._frames = which, head.time_ns, 0
            frames = self._interval_ns // FRAME_PERIOD_NS
            name = item_name(self._array, head.time_ns)
            events.append(ItemBegun(name, frames * self._size))
        if at != self._stop or whole is not self._whole:
            events += self.flush()
            self._whole, self._start = whole, at
        self._stop = at + self._size
        self._frames += 1
        self._last_ns = head.time_ns
        if self._interval(head.time_ns + FRAME_PERIOD_NS, head.code) != which:
            # so that nobody waits for the next frame
            events += self.end()
        return events

    def flush(self) -> list[Event]:
        """Return the frames that were added since."""
        start, self._start = self._start, self._stop
        if start == self._stop:
            return []
        data = memoryview(self._whole)[start : self._stop]
        self._whole, self._start, self._stop = b"", 0, 0
        return [ItemData(data)]

    def end(self) -> list[Event]:
        """End the item, if one has begun."""
        if self._which is None:
            return []
        self._which = None
        about = {
            "array": self._array,
            "frames": self._frames,
            "first_ns": self._first_ns,
            "last_ns": self._last_ns,
        }
        return [*self.flush(), ItemEnded(about)]

    def _interval(self, time_ns: int, code: int) -> int:
        """Return in which interval a time is."""
        if not self._is_loop:
            return time_ns // self._interval_ns
        if self._anchor_ns is None:
            # half a period early, as times are not quite regular
            ahead = code if code < self._loop_frames else 0
            self._anchor_ns = time_ns - ahead * FRAME_PERIOD_NS - FRAME_PERIOD_NS // 2
        return (time_ns - self._anchor_ns) // self._interval_ns


class FrameItems(ItemFraming):
    """Items of whole frames of one array, each with a name, which get answers.

    A frame that cannot be right is counted, and left to whoever reads the item; an
    item without any other is refused.

    Parameters
    ----------
    array, ahead_s
        As for `BareFrames`.
    """

    def __init__(self, array: int, ahead_s: float = AHEAD_S) -> None:
        super().__init__()
        self._array = array
        self._size = FORMATS[array].size
        self._ahead_s = ahead_s
        self._at = 0
        self._head = bytearray()
        self._heads: list[bytes] = []

    def begun(self, id: str, size: int) -> None:
        """Begin to look."""
        self._at = 0
        self._head.clear()
        self._heads.clear()

    def looked_at(self, data: memoryview) -> None:
        """Pick the heads of frames out of the bytes."""
        here = 0
        while here < len(data):
            inside = self._at % self._size
            if inside < HEAD_BYTES:
                part = data[here : here + HEAD_BYTES - inside]
                self._head += part
                if len(self._head) == HEAD_BYTES:
                    self._heads.append(bytes(self._head))
                    self._head.clear()
                step = len(part)
            else:
                step = min(self._size - inside, len(data) - here)
            here += step
            self._at += step

    def judged(self, checksum: int, now: float) -> Sequence[Event]:
        """Look at the frames of an item."""
        if self._at % self._size or not self._heads:
            said = f"{self._at:,} bytes, which are not frames of {self._size:,}"
            return [ItemGivenUp(NOT_WHOLE, said)]
        rejected: Counter[str] = Counter()
        order = FrameOrder(self._array, self._ahead_s)
        heads = [
            read_head(head, 0, self._array) if begins(head, 0) else None
            for head in self._heads
        ]
        for head, following in zip(heads, [*heads[1:], None], strict=True):
            reason = order.judge(head, following, now) if head else NO_SYNC
            rejected[reason] += 1
        good = rejected.pop("", 0)
        events: list[Event] = [Rejected(reason, n) for reason, n in rejected.items()]
        if not good:
            reason, _ = rejected.most_common(1)[0]
            return [*events, ItemGivenUp("no good frame", f"its frames: {reason}")]
        about = {"array": self._array, "frames": len(heads)}
        return [*events, ItemEnded(about, checksum)]


def _to_sync(whole: bytes, at: int, is_end: bool) -> int:
    """Return where the next sync may begin; the end if nowhere."""
    found = whole.find(SYNC, at)
    if found >= 0:
        return found
    beginning = len(whole) - len(whole.rstrip(SYNC[:1]))
    return len(whole) if is_end else max(at + 1, len(whole) - beginning)
