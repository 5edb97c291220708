"""Rows of pieces and results in messages."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire.batches import (
    MAX_BATCH_BUFFER_BYTES,
    MAX_BATCH_BUFFERS,
    MAX_BATCH_BYTES,
    MAX_MEMBERS,
    batches,
    check_size,
    members_in,
    numbers_in,
    pieces_in,
    results_in,
    size_of_members,
)


def row(number: int, payload: bytes, buffers: list[bytes]) -> tuple[Any, ...]:
    return [number, 0, 0.0, payload, len(buffers)], len(payload), buffers


@given(st.lists(st.lists(st.binary(max_size=3), max_size=400), max_size=12))
def test_what_is_batched_comes_apart_again(data: list[list[bytes]]) -> None:
    rows = [row(n, b"p%d" % n, buffers) for n, buffers in enumerate(data)]
    got = []
    for fields, buffers in batches(rows):
        assert len(fields) == 1 or len(buffers) <= MAX_BATCH_BUFFERS
        got += [
            (r.number, r.payload, list(own)) for r, own in pieces_in(fields, buffers)
        ]
    assert got == [(n, b"p%d" % n, buffers) for n, buffers in enumerate(data)]


def test_many_small_rows_are_one_message_and_large_ones_are_not() -> None:
    small = [row(n, b"x" * 10, []) for n in range(64)]
    assert len(list(batches(small))) == 1
    large = [row(n, b"x" * (MAX_BATCH_BYTES // 2 + 1), []) for n in range(3)]
    assert [len(fields) for fields, _ in batches(large)] == [1, 1, 1]


def test_a_row_with_large_buffers_goes_alone() -> None:
    large, small = bytes(MAX_BATCH_BUFFER_BYTES + 1), bytes(1000)
    rows = [row(n, b"", [b]) for n, b in enumerate([small, large, small, small])]
    assert [len(fields) for fields, _ in batches(rows)] == [1, 1, 2]
    # none of those that go together is so large that it would go in chunks
    some = bytes(MAX_BATCH_BUFFER_BYTES // 3)
    rows = [row(n, b"", [some]) for n in range(7)]
    assert [len(fields) for fields, _ in batches(rows)] == [3, 3, 1]


def test_nothing_makes_no_message() -> None:
    assert list(batches([])) == []


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        [None],
        [[1, 0, 0.0, b""]],
        [[1, 0, 0.0, "text", 0]],
        [[True, 0, 0.0, b"", 0]],
        [[1, 0, 0, b"", 0]],
        [[1, 0, 0.0, b"", 2]],
        [[1, 0, 0.0, b"", -1]],
        [[1, 0, 0.0, b"", 1], [2, 0, 0.0, b"", 1]],
        [[[], 0, 0.0, b"", 0]],
    ],
)
def test_malformed_pieces_are_refused_as_a_whole(rows: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        pieces_in(rows, [b"only one"])


URGENCIES = [[3, 0.5], [-3, 0.0], [0, math.inf], [3, None]]


@pytest.mark.parametrize("urgency", URGENCIES)
def test_a_priority_may_tell_of_its_class(urgency: list[Any]) -> None:
    rows = [[1, urgency, 0.0, b"piece", 1], [2, urgency, 0.0, [b"a", b"b"], 0]]
    (alone, own), (bundle, none) = pieces_in(rows, [b"buffer"])
    assert (alone.priority, list(own)) == (urgency, [b"buffer"])
    assert (bundle.priority, bundle.payload, list(none)) == (urgency, [b"a", b"b"], [])


@pytest.mark.parametrize(
    "urgency",
    [[], [3], [3, 1], [3, -0.5], [3, math.nan], [3, 1.0, 2], [3.0, 1.0], [None, 1.0]],
)
@pytest.mark.parametrize("payload", [b"piece", [b"a", b"b"]])
def test_malformed_classes_are_refused(urgency: list[Any], payload: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        pieces_in([[1, urgency, 0.0, payload, 0]], [])


@pytest.mark.parametrize("wrong", [["1", [3, 0.5], 0.0, b"", 0], [1, [3, 0.5], 0.0]])
def test_the_rest_of_a_row_with_a_class_is_checked_like_any(wrong: list[Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        pieces_in([wrong], [])


@pytest.mark.parametrize(
    "rows",
    [[[1, 7, b"", 0, 0.1]], [[1, "done", b"", 0, "fast"]], [[1, "done"]], "rows"],
)
def test_malformed_results_are_refused(rows: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        results_in(rows, [])


@pytest.mark.parametrize("count", [2, MAX_MEMBERS])
def test_a_bundle_is_one_row_of_pieces(count: int) -> None:
    members = [b"p%d" % n for n in range(count)]
    rows = [[1, 0, 0.0, members, 0], [9, 0, 0.0, b"alone", 1]]
    (bundle, none), (alone, own) = pieces_in(rows, [b"buffer"])
    assert (bundle.number, bundle.payload, list(none)) == (1, members, [])
    assert (alone.payload, list(own)) == (b"alone", [b"buffer"])


def test_pieces_of_a_bundle_come_with_their_buffers() -> None:
    members = [[b"one", 2], b"two", [b"three", 0], [b"four", 1]]
    rows = [[1, 0, 0.0, members, 3], [9, 0, 0.0, b"alone", 1]]
    (bundle, theirs), (_, own) = pieces_in(rows, [b"a", b"b", b"c", b"d"])
    assert (list(theirs), list(own)) == ([b"a", b"b", b"c"], [b"d"])
    pieces = [
        (b"one", [b"a", b"b"]),
        (b"two", []),
        (b"three", []),
        (b"four", [b"c"]),
    ]
    assert size_of_members(bundle.payload) == sum(len(data) for data, _ in pieces)
    for buffers in (theirs, tuple(theirs)):
        found = members_in(bundle.payload, buffers)
        assert [(payload, list(those)) for payload, those in found] == pieces


def test_nothing_is_kept_of_the_pieces_of_a_bundle_that_are_over() -> None:
    members = [[b"one", 2], [b"two", 1]]
    buffers = [b"a", b"b", b"c"]
    left = [list(buffers) for _ in members_in(members, buffers)]
    assert left == [[b"c"], []]


@pytest.mark.parametrize(
    "members",
    [
        [],
        [b"only one"],
        [b"one", "text"],
        [b"one", 2],
        [b"one", [b"two"]],
        [b"one", [b"two", 1]],
        [b"one", [b"two", -1]],
        [[b"one", 1], [b"two", -1]],
        [b"one", [b"two", False]],
        [b"one", ["two", 0]],
        [b"one", [[b"two"], 0]],
        [b"one", ["done", b"two", 0]],
        [b"one", None],
        (b"one", b"two"),
        {b"one": b"two"},
        [b""] * (MAX_MEMBERS + 1),
    ],
)
def test_malformed_bundles_of_pieces_are_refused(members: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        pieces_in([[1, 0, 0.0, members, 0]], [])


@pytest.mark.parametrize("change", [(0, "1"), (1, None), (2, -1.0), (2, 1), (4, 1)])
def test_the_rest_of_a_bundle_is_checked_as_that_of_a_piece(
    change: tuple[int, Any],
) -> None:
    row: list[Any] = [1, 0, 0.0, [b"one", b"two"], 0]
    assert len(pieces_in([row], [b"buffer"])) == 1
    row[change[0]] = change[1]
    with pytest.raises(RemoteProtocolError):
        pieces_in([row], [b"buffer"])


def test_what_came_of_a_bundle_is_one_row_with_the_buffers_of_all() -> None:
    members = [b"one", ["failed", b"two", 0], ["done", b"three", 2], ["done", b"", 1]]
    rows = [[1, "bundle", members, 3, 0.1], [9, "done", b"", 1, 0.1]]
    (bundle, theirs), (_, own) = results_in(rows, [b"a", b"b", b"c", b"d"])
    assert (bundle.payload, bundle.buffers) == (members, 3)
    assert (list(theirs), list(own)) == ([b"a", b"b", b"c"], [b"d"])


def test_nothing_may_be_over_of_a_bundle_that_is_cut() -> None:
    ((row, own),) = results_in([[1, "cut", [], 0, 0.0]], [])
    assert (row.payload, list(own)) == ([], [])


@pytest.mark.parametrize(
    ("members", "buffers"),
    [
        ([b"one"], 1),
        ([["done", b"one", 1]], 0),
        ([["done", b"one", 1], ["done", b"two", 1]], 1),
        ([["done", b"one", 2], ["done", b"two", -1]], 1),
        ([["done", b"one"]], 0),
        ([["done", b"one", 0, 0]], 0),
        ([["done", "one", 0]], 0),
        ([[b"done", b"one", 0]], 0),
        ([["done", b"one", False]], 0),
        ([["done", [b"one"], 0]], 0),
        ([None], 0),
        (["one"], 0),
        ([b""] * (MAX_MEMBERS + 1), 0),
        ({}, 0),
    ],
)
def test_malformed_outcomes_of_bundles_are_refused(members: Any, buffers: int) -> None:
    with pytest.raises(RemoteProtocolError):
        results_in([[1, "bundle", members, buffers, 0.1]], [b"a", b"b", b"c"])


@pytest.mark.parametrize("numbers", [None, 1, [1, "2"], [[]], [True], (1,)])
def test_malformed_numbers_are_refused(numbers: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        numbers_in(numbers)
    assert numbers_in([1, 2]) == [1, 2]


def test_what_no_receiver_would_take_is_refused_by_the_sender() -> None:
    limit = MAX_BATCH_BYTES + 1000
    check_size(b"x" * 1000, [b"y" * limit], limit)
    with pytest.raises(LocalProtocolError, match="max_message_bytes"):
        check_size(b"", [b"y" * (limit + 1)], limit)
    with pytest.raises(LocalProtocolError, match="numpy arrays or files"):
        check_size(b"x" * 1001, [], limit)
