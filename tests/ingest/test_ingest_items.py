"""Length-prefixed items and their answers, however the bytes are cut."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_tools import packed

from opencluster.errors import IngestError
from opencluster.ingest import (
    Answer,
    AnswerReader,
    Broken,
    Event,
    ItemBegun,
    ItemData,
    ItemEnded,
    ItemFraming,
    Verdict,
    item_head,
)
from opencluster.ingest.items import HEAD, pack_answer

NAMES = st.text(min_size=1, max_size=40)
CUTS = st.lists(st.integers(0, 2**30), max_size=8)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def joined(events: Iterable[Event]) -> list[object]:
    """Return events with the data of each item in one piece."""
    found: list[object] = []
    for event in events:
        if isinstance(event, ItemData):
            if not isinstance(found[-1], bytes):
                found.append(b"")
            found[-1] += bytes(event.data)  # type: ignore[operator]
        else:
            found.append(event)
    return found


def received(pieces: Iterable[bytes]) -> list[object]:
    framing = ItemFraming()
    events: list[object] = []
    for piece in pieces:
        events += [
            ItemData(bytes(e.data)) if isinstance(e, ItemData) else e
            for e in framing.receive(memoryview(piece), 0.0)
        ]
    return joined(events)  # type: ignore[arg-type]


@given(st.lists(st.tuples(NAMES, st.binary(max_size=80)), max_size=4), CUTS)
def test_where_the_stream_is_cut_makes_no_difference(
    items: list[tuple[str, bytes]], places: list[int]
) -> None:
    stream = b"".join(packed(id, data) for id, data in items)
    expected: list[object] = []
    for id, data in items:
        expected.append(ItemBegun(id, len(data)))
        expected += [data] if data else []
        expected.append(ItemEnded({}, zlib.crc32(data)))
    assert received(cut(stream, places)) == expected


@given(st.binary(min_size=HEAD, max_size=200), CUTS)
def test_anything_is_understood_or_ends_the_connection(
    stream: bytes, places: list[int]
) -> None:
    (event,) = received(cut(stream, places))
    assert isinstance(event, Broken)
    assert event.reason == "framing"


@given(st.integers(0, HEAD + 3), st.integers(1, 255))
def test_a_head_of_which_a_byte_is_wrong_is_seen(at: int, by: int) -> None:
    stream = bytearray(packed("name", b"data"))
    stream[at] ^= by
    events = received([bytes(stream), packed("next", b"")])
    # a longer name may still have to come
    assert not [e for e in events if isinstance(e, ItemBegun | ItemEnded)]


def test_nothing_is_understood_behind_what_is_broken() -> None:
    framing = ItemFraming()
    (broken,) = framing.receive(memoryview(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0.0)
    assert isinstance(broken, Broken)
    assert "not with b'GET '" in broken.detail
    assert not framing.receive(memoryview(packed("a", b"b")), 0.0)


def test_what_is_owed_is_known() -> None:
    framing = ItemFraming()
    stream = packed("a", b"data")
    assert not framing.is_unfinished()
    framing.receive(memoryview(stream[:1]), 0.0)
    assert framing.is_unfinished()
    framing.receive(memoryview(stream[1:-1]), 0.0)
    assert framing.is_unfinished()
    framing.receive(memoryview(stream[-1:]), 0.0)
    assert not framing.is_unfinished()


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 101])
def test_a_name_has_a_length(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 200 bytes"):
        item_head(name, 0, 0)


@given(st.lists(st.tuples(NAMES, st.sampled_from(Verdict), st.text(max_size=20))), CUTS)
def test_answers_are_read_however_they_are_cut(
    answers: list[tuple[str, Verdict, str]], places: list[int]
) -> None:
    reader = AnswerReader()
    stream = b"".join(pack_answer(*answer) for answer in answers)
    found = [a for piece in cut(stream, places) for a in reader.receive(piece)]
    assert found == [Answer(*answer) for answer in answers]


def test_what_is_no_answer_is_told() -> None:
    with pytest.raises(IngestError, match="is it the right port"):
        list(AnswerReader().receive(b"HTTP/1.1 400 Bad Request\r\n"))
    damaged = bytearray(pack_answer("a", Verdict.ACCEPTED))
    damaged[-1] ^= 1
    with pytest.raises(IngestError, match="damaged"):
        list(AnswerReader().receive(bytes(damaged)))
