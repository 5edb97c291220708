"""Large messages in chunks: order, window, turns, and what strangers may say."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.chunks import (
    CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    MAX_PARTS,
    WINDOW_BYTES,
    Cut,
    Incoming,
    Outgoing,
    Span,
)
from opencluster.errors import RemoteProtocolError

A, B = b"a", b"b"
MAX_BYTES = 1 << 40

sizes = st.lists(
    st.one_of(st.integers(0, 5), st.integers(0, 5 * CHUNK_BYTES)),
    min_size=1,
    max_size=9,
).filter(any)


def incoming(max_coming: int = 8) -> Incoming:
    return Incoming(MAX_BYTES, max_coming)


def cuts(outgoing: Outgoing, peer: bytes) -> list[Cut]:
    """Return what may leave now."""
    found = []
    while (cut := outgoing.cut(peer)) is not None:
        found.append(cut)
    return found


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), sizes), max_size=4),
    st.integers(0, 1 << 32),
)
def test_all_of_every_message_gets_where_it_belongs_in_any_interleaving(
    messages: list[tuple[bytes, list[int]]], seed: int
) -> None:
    random = Random(seed)
    outgoing, coming = Outgoing(), incoming()
    under_way: dict[bytes, list[Cut]] = {A: [], B: []}
    filled: dict[tuple[bytes, int], list[int]] = {}
    wanted = {}
    whole = []
    waiting = list(messages)
    while waiting or outgoing.peers():
        peer = random.choice([A, B])
        if waiting and random.random() < 0.3:
            to, own = waiting.pop(0)
            number = outgoing.begin(to, own)
            coming.begin(0.0, to, number, own)
            wanted[to, number], filled[to, number] = own, [0] * len(own)
        elif random.random() < 0.5 and (cut := outgoing.cut(peer)) is not None:
            assert 0 < cut.stop - cut.start <= CHUNK_BYTES
            under_way[peer].append(cut)
        elif under_way[peer]:
            cut = under_way[peer].pop(0)
            place = (peer, cut.number)
            spans = coming.came(0.0, *place, cut.start, cut.stop, len(cut.spans))
            assert spans == cut.spans
            for part, start, stop in spans:
                assert filled[place][part] == start < stop
                filled[place][part] = stop
            is_whole = coming.is_whole(*place)
            assert outgoing.taken(*place, cut.stop) == is_whole
            if is_whole:
                assert coming.drop(*place)
                whole.append(place)
        outgoing.check_invariants()
        coming.check_invariants()
        held = sum(cut.stop - cut.start for cut in under_way[peer])
        assert held <= WINDOW_BYTES
    assert filled == wanted
    assert sorted(whole) == sorted(wanted)
    assert coming.peers() == []
    assert outgoing.moved() == coming.moved() == (0, 0)


def test_what_is_under_way_is_bounded_until_it_is_taken() -> None:
    outgoing = Outgoing()
    number = outgoing.begin(A, [1 << 32])
    first = cuts(outgoing, A)
    assert sum(cut.stop - cut.start for cut in first) == WINDOW_BYTES
    assert not outgoing.taken(A, number, 2 * CHUNK_BYTES)
    assert len(cuts(outgoing, A)) == 2
    assert outgoing.moved() == (2 * CHUNK_BYTES, 1 << 32)
    # another peer has a window of its own
    outgoing.begin(B, [1 << 32])
    assert len(cuts(outgoing, B)) == len(first)


def test_a_chunk_reaches_over_small_buffers() -> None:
    outgoing = Outgoing()
    outgoing.begin(A, [3, 0, CHUNK_BYTES, 5])
    one, two = cuts(outgoing, A)
    assert one.spans == [Span(0, 0, 3), Span(2, 0, CHUNK_BYTES - 3)]
    assert two.spans == [Span(2, CHUNK_BYTES - 3, CHUNK_BYTES), Span(3, 0, 5)]


def test_a_short_one_does_not_wait_for_a_long_one_nor_the_other_way_round() -> None:
    outgoing = Outgoing()
    long = outgoing.begin(A, [100 * WINDOW_BYTES])
    under_way = deque(cuts(outgoing, A))
    short = outgoing.begin(A, [20 * CHUNK_BYTES])
    order = []
    while outgoing.knows(A, short):
        cut = under_way.popleft()
        outgoing.taken(A, cut.number, cut.stop)
        new = cuts(outgoing, A)
        under_way += new
        order += [cut.number for cut in new]
    # in turns while something is left of both
    assert order[:40].count(short) == order[:40].count(long) == 20
    assert {long, short} == set(order[:2]) == set(order[2:4])


def test_of_equals_one_is_finished_before_the_next_is_begun() -> None:
    outgoing = Outgoing()
    size = WINDOW_BYTES - CHUNK_BYTES
    one, two = outgoing.begin(A, [size]), outgoing.begin(A, [size])
    wanted = [one] * (size // CHUNK_BYTES) + [two]
    assert [cut.number for cut in cuts(outgoing, A)] == wanted


def test_what_is_dropped_makes_room_and_is_known_no_more() -> None:
    outgoing = Outgoing()
    one, two = outgoing.begin(A, [1 << 32]), outgoing.begin(A, [1 << 33])
    cuts(outgoing, A)
    assert outgoing.drop(A, one) and not outgoing.drop(A, one)
    assert not outgoing.knows(A, one)
    assert {cut.number for cut in cuts(outgoing, A)} == {two}
    outgoing.check_invariants()
    assert outgoing.lost(A) == [two]
    assert outgoing.lost(A) == [] and outgoing.cut(A) is None


def test_taking_more_than_was_sent_is_refused_and_taking_less_again_is_nothing() -> (
    None
):
    outgoing = Outgoing()
    number = outgoing.begin(A, [1 << 32])
    cuts(outgoing, A)
    with pytest.raises(RemoteProtocolError, match="were sent"):
        outgoing.taken(A, number, WINDOW_BYTES + 1)
    outgoing.taken(A, number, CHUNK_BYTES)
    assert not outgoing.taken(A, number, 0)
    outgoing.check_invariants()
    assert outgoing.moved() == (CHUNK_BYTES, 1 << 32)


@pytest.mark.parametrize(
    "announced", [[], [0], [0, 0], [1] * (MAX_PARTS + 1), [MAX_BYTES + 1], [1 << 63]]
)
def test_what_makes_no_sense_is_not_taken(announced: list[int]) -> None:
    coming = incoming()
    with pytest.raises(RemoteProtocolError):
        coming.begin(0.0, A, 1, announced)
    assert coming.peers() == []


def test_no_peer_has_more_under_way_than_is_allowed() -> None:
    coming = incoming(max_coming=2)
    for number in (1, 2):
        coming.begin(0.0, A, number, [10])
    with pytest.raises(RemoteProtocolError, match="at a time"):
        coming.begin(0.0, A, 3, [10])
    with pytest.raises(RemoteProtocolError):
        coming.begin(0.0, A, 2, [10])
    coming.begin(0.0, B, 3, [10])
    assert coming.drop(A, 1)
    coming.begin(0.0, A, 3, [10])
    assert coming.of(A) == [2, 3]
    with pytest.raises(RemoteProtocolError, match="more than 0"):
        incoming(max_coming=0).begin(0.0, A, 1, [10])


@pytest.mark.parametrize(
    ("start", "stop", "frames"),
    [
        (0, 0, 0),
        (0, 5, 1),
        (0, CHUNK_BYTES - 1, 2),
        (0, CHUNK_BYTES, 3),
        (0, CHUNK_BYTES, 1),
        (1, 1 + CHUNK_BYTES, 2),
        (5, 4, 1),
        (0, MAX_CHUNK_BYTES + 1, 2),
        (0, 1 << 64, 2),
    ],
)
def test_a_chunk_that_is_not_the_next_one_is_refused(
    start: int, stop: int, frames: int
) -> None:
    coming = incoming()
    coming.begin(0.0, A, 1, [5, MAX_BYTES])
    with pytest.raises(RemoteProtocolError):
        coming.came(0.0, A, 1, start, stop, frames)
    # and it changes nothing
    spans = [Span(0, 0, 5), Span(1, 0, CHUNK_BYTES - 5)]
    assert coming.came(0.0, A, 1, 0, CHUNK_BYTES, 2) == spans
    with pytest.raises(RemoteProtocolError):
        coming.came(0.0, A, 1, 0, CHUNK_BYTES, 2)


def test_the_last_chunk_may_be_small() -> None:
    coming = incoming()
    coming.begin(0.0, A, 1, [3, 4])
    with pytest.raises(RemoteProtocolError):
        coming.came(0.0, A, 1, 0, 6, 2)
    assert coming.came(0.0, A, 1, 0, 7, 2) == [Span(0, 0, 3), Span(1, 0, 4)]
    assert coming.is_whole(A, 1)


def test_a_chunk_of_nothing_known_is_told_apart() -> None:
    coming = incoming()
    coming.begin(0.0, A, 1, [5])
    assert coming.came(0.0, A, 2, 0, 5, 1) is None
    assert coming.came(0.0, B, 1, 0, 5, 1) is None
    assert coming.lost(A) == [1]
    assert coming.came(0.0, A, 1, 0, 5, 1) is None


def test_who_is_silent_is_found() -> None:
    coming = incoming()
    coming.begin(1.0, A, 1, [MAX_BYTES])
    coming.begin(1.5, A, 2, [10])
    coming.begin(2.0, B, 1, [10])
    coming.came(3.0, A, 1, 0, CHUNK_BYTES, 1)
    assert coming.quiet(1.4) == coming.silent(1.9) == []
    assert coming.quiet(2.0) == [(A, 2, 0), (B, 1, 0)]
    # something of the one comes: the other waits for its turn
    assert coming.silent(2.0) == [B]
    assert coming.quiet(3.0) == [(A, 1, CHUNK_BYTES), (A, 2, 0), (B, 1, 0)]
    assert coming.silent(3.0) == [A, B]


numbers = st.integers(0, 3)
places = st.one_of(
    st.integers(0, 12),
    st.integers(0, 1 << 64),
    st.sampled_from([CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1]),
)
calls = st.one_of(
    st.tuples(st.just("begin"), numbers, st.lists(places, max_size=4)),
    st.tuples(st.just("came"), numbers, st.tuples(places, places, st.integers(0, 5))),
    st.tuples(st.just("drop"), numbers, st.none()),
)


@given(st.lists(calls, max_size=30))
def test_nothing_that_a_stranger_says_reaches_outside_of_its_buffers(
    said: list[tuple[str, int, object]],
) -> None:
    coming = Incoming(3 * CHUNK_BYTES, 2)
    announced: dict[int, list[int]] = {}
    for what, number, more in said:
        try:
            if what == "begin":
                assert isinstance(more, list)
                coming.begin(0.0, A, number, more)
                announced[number] = more
            elif what == "came":
                assert isinstance(more, tuple)
                spans = coming.came(0.0, A, number, *more)
                assert (spans is None) == (number not in announced)
                for part, start, stop in spans or ():
                    assert 0 <= start < stop <= announced[number][part]
            else:
                assert coming.drop(A, number) == (number in announced)
                announced.pop(number, None)
        except RemoteProtocolError:
            pass
        coming.check_invariants()
        assert len(announced) <= 2
