"""Bytes into items: frames back to back, and items of frames."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed import START_NS, feed, with_time
from hypothesis import given, settings
from hypothesis import strategies as st

from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.raw.clock import decode_time, encode_time
from muser_pipeline.raw.format import FORMATS, SYNC
from muser_pipeline.realtime.framing import (
    CUT,
    GARBAGE,
    BareFrames,
    FrameItems,
    item_name,
)
from muser_pipeline.realtime.heads import (
    FUTURE,
    NO_TIME,
    ODD_TIME,
    OTHER_ARRAY,
    OUT_OF_ORDER,
    TWICE,
    time_of,
)
from opencluster.ingest import (
    Broken,
    Event,
    Framing,
    ItemBegun,
    ItemData,
    ItemEnded,
    ItemGivenUp,
    Rejected,
    item_head,
)

NOW = START_NS / 1e9 + 5.0
SIZE = FORMATS[1].size
OTHER_SIZE = FORMATS[2].size


@dataclass
class Heard:
    """What the events of a stream come to."""

    items: list[tuple[str, bytes, dict[str, Any]]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    _open: list[Any] = field(default_factory=list)

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case ItemBegun(id, _):
                    assert not self._open
                    self._open = [id, b""]
                case ItemData(data):
                    self._open[1] += bytes(data)
                case ItemEnded(about, checksum):
                    id, data = self._open
                    assert checksum in (None, zlib.crc32(data))
                    self.items.append((id, data, dict(about)))
                    self._open = []
                case ItemGivenUp(reason, _):
                    self.given_up.append(reason)
                    self._open = []
                case Rejected(reason, count):
                    self.rejected[reason] += count
                case Broken(reason):
                    self.broken.append(reason)


def heard(framing: Framing, pieces: Iterable[bytes], is_ended: bool = True) -> Heard:
    found = Heard()
    for piece in pieces:
        found.take(framing.receive(memoryview(piece), NOW))
    if is_ended:
        found.take(framing.end(NOW))
    return found


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def test_frames_are_cut_by_their_times() -> None:
    frames = feed(10, first=316)
    found = heard(BareFrames(1), [frames.tobytes()], is_ended=False)
    # the first one is over with its last frame, the second one goes on
    assert found.items == [
        (
            "MUSER-I-2015-11-01T04:00:00.987500000",
            frames[:4].tobytes(),
            {
                "array": 1,
                "frames": 4,
                "first_ns": START_NS + 316 * FRAME_PERIOD_NS,
                "last_ns": START_NS + 319 * FRAME_PERIOD_NS,
            },
        )
    ]
    whole = heard(BareFrames(1), [frames.tobytes()])
    assert [item[1] for item in whole.items] == [
        frames[:4].tobytes(),
        frames[4:].tobytes(),
    ]
    assert not whole.rejected


@pytest.mark.parametrize(("array", "loop"), [(1, 8), (2, 66)])
def test_an_item_may_be_one_loop(array: int, loop: int) -> None:
    frames = feed(loop + 4, array, first=loop - 2)
    found = heard(BareFrames(array, 0), [frames.tobytes()])
    assert [item[2]["frames"] for item in found.items] == [2, loop, 2]


def test_an_item_ends_with_its_last_frame_and_not_with_the_next() -> None:
    frames = feed(320)
    framing = BareFrames(1)
    found = heard(framing, [frames.tobytes()], is_ended=False)
    # nothing shows yet that the last frame is whole
    assert not found.items
    found.take(framing.quiet(NOW))
    assert [item[1] for item in found.items] == [frames.tobytes()]
    found.take(framing.receive(memoryview(feed(2, first=320).tobytes()), NOW))
    found.take(framing.end(NOW))
    assert [item[2]["frames"] for item in found.items] == [320, 2]
    assert not found.rejected


PIECES = {
    "frame": lambda n: feed(1, first=n).tobytes(),
    "half": lambda n: feed(1, first=n).tobytes()[: SIZE // 2],
    "garbage": lambda n: b"\x55" * 30 + bytes(range(200)),
    "noise": lambda n: b"U" * 20,
    "other": lambda n: feed(1, 2, first=n).tobytes(),
    "late": lambda n: feed(1, first=n - 3).tobytes(),
}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=6),
    st.lists(st.integers(0, 2**40), max_size=8),
    st.integers(300, 340),
)
def test_where_the_stream_is_cut_makes_no_difference(
    kinds: list[str], places: list[int], first: int
) -> None:
    stream = b"".join(PIECES[kind](first + n) for n, kind in enumerate(kinds))
    expected = heard(BareFrames(1), [stream])
    found = heard(BareFrames(1), cut(stream, places))
    assert found == expected
    taken = sum(item[2]["frames"] for item in found.items)
    counted = found.rejected.total() - found.rejected["garbage bytes"]
    assert taken + counted >= sum(kind in ("frame", "late") for kind in kinds) - 1
    assert all(len(item[1]) == item[2]["frames"] * SIZE for item in found.items)


def test_the_sync_is_found_again_after_garbage_and_after_a_cut() -> None:
    frames = [frame.tobytes() for frame in feed(8)]
    garbage = bytes(range(1, 85)) * 1000
    stream = [garbage, *frames[:3], frames[3][:60_000], *frames[4:], b"\x55" * 500]
    found = heard(BareFrames(1), stream)
    ((_, data, about),) = found.items
    assert data == b"".join([*frames[:3], *frames[4:7], frames[7]])
    assert about["frames"] == 7
    assert found.rejected == {
        "cut": 1,
        "garbage bytes": len(garbage) + 60_000 + 500,
    }


def test_a_sync_inside_bytes_that_are_alike_is_found() -> None:
    frames = feed(3).tobytes()
    found = heard(BareFrames(1), [b"\x55" * 3000 + frames])
    ((_, data, _),) = found.items
    assert data == frames
    assert found.rejected == {"garbage bytes": 3000}


def test_much_garbage_is_not_kept() -> None:
    framing = BareFrames(1)
    block = memoryview(bytes(range(85)) * 12_000)
    found = Heard()
    for _ in range(64):
        found.take(framing.receive(block, NOW))
        assert framing._there < SIZE
    found.take(framing.receive(memoryview(feed(3).tobytes()), NOW))
    found.take(framing.end(NOW))
    assert found.rejected == {"garbage bytes": 64 * len(block)}
    assert found.items[0][2]["frames"] == 3


@pytest.mark.parametrize("array", [1, 2])
def test_frames_of_the_other_array_are_left_out(array: int) -> None:
    ours, others = feed(6, array), feed(6, 3 - array)
    parts = [ours[:2].tobytes(), others.tobytes(), ours[2:].tobytes()]
    found = heard(BareFrames(array), parts)
    ((_, data, _),) = found.items
    assert data == ours.tobytes()
    assert found.rejected == {"other array": 6}
    alone = heard(BareFrames(array), [others.tobytes()])
    assert not alone.items
    assert alone.rejected["other array"] >= 5


def test_frames_of_times_that_cannot_be_are_left_out() -> None:
    frames = feed(12)
    in_2099 = int(np.datetime64("2099-01-01T00:00:00", "ns").astype(np.int64))
    no_time = frames[3].copy()
    no_time[32:40] = 255
    order = [
        frames[0],
        frames[1],
        with_time(frames[2], in_2099),
        no_time,
        frames[4],
        frames[4],
        frames[6],
        frames[5],
        frames[7],
        # an hour of which a bit has turned
        with_time(frames[8], START_NS - 3600 * 10**9),
        with_time(frames[9], START_NS + 3600 * 10**9),
        frames[10],
        frames[11],
    ]
    found = heard(BareFrames(1), [frame.tobytes() for frame in order])
    ((_, data, _),) = found.items
    kept = [frames[k].tobytes() for k in (0, 1, 4, 6, 7, 10, 11)]
    assert data == b"".join(kept)
    assert found.rejected == {
        "future": 1,
        "no time": 1,
        "twice": 1,
        "out of order": 2,
        "odd time": 1,
    }


def test_a_gap_is_gone_over() -> None:
    frames = [feed(3), feed(3, first=100), feed(3, first=4000)]
    found = heard(BareFrames(1), [part.tobytes() for part in frames])
    assert [item[2]["frames"] for item in found.items] == [6, 3]
    assert not found.rejected


def test_what_has_begun_is_known() -> None:
    framing = BareFrames(1)
    frames = feed(3).tobytes()
    assert not framing.is_unfinished()
    framing.receive(memoryview(frames[: SIZE + 5]), NOW)
    assert framing.is_unfinished()
    framing.receive(memoryview(frames[SIZE + 5 : 2 * SIZE]), NOW)
    assert not framing.is_unfinished()


@given(st.integers(0, 2**64 - 1))
def test_the_time_of_one_frame_is_that_of_many(word: int) -> None:
    (expected,), (is_valid,) = decode_time(np.array([word], dtype=np.uint64))
    assert time_of(word) == (int(expected) if is_valid else None)


@given(st.integers(0, 10**9))
def test_a_written_time_is_read(ticks: int) -> None:
    (word,) = encode_time([START_NS + 20 * ticks])
    assert time_of(int(word)) == START_NS + 20 * ticks


def item(data: bytes, id: str = "a") -> bytes:
    return item_head(id, len(data), zlib.crc32(data)) + data


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**40), max_size=6))
def test_items_of_frames_are_looked_at_however_they_are_cut(places: list[int]) -> None:
    frames = feed(4)
    odd = [frames[0], frames[1], with_time(frames[2], START_NS), frames[3]]
    stream = item(frames.tobytes(), "good") + item(b"".join(f.tobytes() for f in odd))
    found = heard(FrameItems(1), cut(stream, places))
    about = {"array": 1, "frames": 4}
    assert [(id, each) for id, _, each in found.items] == [
        ("good", about),
        ("a", about),
    ]
    assert found.rejected == {"twice": 1}


@pytest.mark.parametrize(
    ("data", "given_up", "rejected"),
    [
        (b"", "not whole frames", {}),
        (bytes(SIZE - 1), "not whole frames", {}),
        (bytes(2 * SIZE), "no good frame", {"no sync": 2}),
        (
            feed(1, 2).tobytes()[: 2 * SIZE],
            "no good frame",
            {"other array": 1, "no sync": 1},
        ),
        (
            b"".join(with_time(f, START_NS + 10**18).tobytes() for f in feed(2)),
            "no good frame",
            {"future": 2},
        ),
    ],
    ids=["empty", "odd size", "nothing", "other array", "future"],
)
def test_items_that_hold_nothing_of_use_are_refused(
    data: bytes, given_up: str, rejected: dict[str, int]
) -> None:
    found = heard(FrameItems(1), [item(data)])
    assert found.given_up == [given_up]
    assert found.rejected == rejected
    assert not found.items


def test_the_name_of_an_item_says_array_and_time() -> None:
    assert item_name(2, START_NS) == "MUSER-II-2015-11-01T04:00:00.000000000"
    assert SYNC == b"U" * 28


def test_every_reason_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "realtime.md").read_text()
    reasons = (NO_TIME, FUTURE, TWICE, OUT_OF_ORDER, ODD_TIME, OTHER_ARRAY)
    for reason in (*reasons, CUT, GARBAGE):
        assert f"`{reason}`" in page, reason
