"""What factories say to each other arrives as it was said, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import MAX_NUMBER, NO_EPOCH, Epoch
from opencluster.core.factory_messages import (
    MAX_TEXT,
    Ask,
    Beat,
    Change,
    Grant,
    Heard,
    JobNote,
    Message,
    Resign,
    Snapshot,
    Stand,
    Subscribe,
    Tell,
    from_fields,
    highest_number,
    to_fields,
)
from opencluster.core.registry import Registry
from opencluster.errors import RegistryError

LED = Epoch(3, 1, 77)
NEXT = Epoch(4, 0, 78)
WORKER = Entry("w1", "worker", type="T", name="T-1", endpoints=("tcp://10.0.0.1:1",))

MESSAGES: list[Message] = [
    Ask(3, LED, 2),
    Tell(3, LED, 2, "following", True, "tcp://10.0.0.1:9100", LED),
    Tell(3, LED, 0, "looking", False, "", NO_EPOCH),
    Beat(3, LED, 5, 9),
    Heard(3, LED, 5, 9, True),
    Stand(4, LED, NEXT),
    Grant(4, LED, NEXT),
    Resign(3, LED),
    Subscribe(LED, {"pid": 7, "started_at": 1.5}),
    Snapshot(LED, Registry().snapshot()),
    Change(LED, Delta(1, "w1", WORKER)),
    Change(LED, Delta(2, "w1", None, {"reason": "killed"})),
    JobNote(LED, {"id": "j1", "state": "running"}),
]
NOT: dict[str, list[Any]] = {
    "Epoch": [None, 3, [3], [3, 1], [3, 1, -1], ["3", 1, 77], {}],
    "int": [None, "3", 3.0, True, -1, MAX_NUMBER, [3]],
    "str": [None, 3, b"following", ["following"], "x" * (MAX_TEXT + 1)],
    "bool": [None, 0, 1, "true"],
    "Mapping[str, Any]": [None, 3, "id", [["id", "j1"]]],
    "Mapping[str, float]": [None, [], {1: 1.0}, {"pid": "7"}, {"pid": True}],
    "Delta": [None, [], {}, {"revision": 1}, {"revision": -1, "id": "w1"}],
}
"""For each type of a field, values that are none of it."""

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner)
    ),
    max_leaves=8,
)


def travelled(message: Message) -> Any:
    """Return a message as it leaves the wire: lists in the place of tuples."""
    return json.loads(json.dumps(to_fields(message)))


def wrong_rows() -> list[Any]:
    """Return every message with each of its fields replaced by what is none."""
    return [
        pytest.param(
            [*row[:place], wrong, *row[place + 1 :]],
            id=f"{row[0]}-{item.name}-{str(wrong)[:12]}",
        )
        for message in MESSAGES
        for row in [travelled(message)]
        for place, item in enumerate(fields(message), start=1)
        for wrong in NOT[str(item.type)]
    ]


def test_every_kind_is_tried() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(Message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_arrives_as_it_was_sent(message: Message) -> None:
    row = travelled(message)
    assert row[0] == type(message).__name__.lower()
    assert from_fields(row) == message
    assert from_fields(tuple(row)) == message


@given(
    st.builds(
        Heard,
        st.integers(0, MAX_NUMBER - 1),
        st.builds(Epoch, *[st.integers(0, MAX_NUMBER - 1)] * 3),
        st.integers(0, MAX_NUMBER - 1),
        st.integers(0, MAX_NUMBER - 1),
        st.booleans(),
    )
)
def test_any_number_in_its_range_arrives(message: Heard) -> None:
    assert from_fields(travelled(message)) == message


@pytest.mark.parametrize("row", wrong_rows())
def test_field_that_makes_no_sense_is_refused(row: list[Any]) -> None:
    with pytest.raises(RegistryError):
        from_fields(row)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_field_too_few_or_too_many_is_refused(message: Message) -> None:
    row = travelled(message)
    for wrong in (row[:-1], [*row, 1]):
        with pytest.raises(RegistryError, match=f"{row[0]}.* fields, not"):
            from_fields(wrong)


@pytest.mark.parametrize(
    "row", [None, 7, "ask", b"ask", {}, {"ask": 1}, [], [7], [None], [["ask"]]]
)
def test_what_is_no_list_with_a_kind_is_refused(row: Any) -> None:
    with pytest.raises(RegistryError, match="list with a kind"):
        from_fields(row)


@pytest.mark.parametrize("kind", ["", "Ask", "message", "_common", "election"])
def test_unknown_kind_is_refused(kind: str) -> None:
    with pytest.raises(RegistryError, match="factories say no"):
        from_fields([kind, 1, list(LED), 1])


@given(st.sampled_from([travelled(m) for m in MESSAGES]), st.data())
def test_junk_makes_a_message_or_is_refused(row: list[Any], data: Any) -> None:
    bent = list(row)
    bent[data.draw(st.integers(0, len(row) - 1))] = data.draw(junk)
    try:
        message = from_fields(bent)
    except RegistryError:
        return
    assert from_fields(to_fields(message)) == message


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (Ask(9, LED, 1), 9),
        (Ask(1, LED, 1), 3),
        (Tell(1, LED, 1, "looking", True, "", Epoch(8)), 8),
        (Tell(1, LED, 1, "looking", True, "", NO_EPOCH), 3),
        (Stand(1, LED, NEXT), 4),
        (Grant(1, LED, NEXT), 4),
        (Snapshot(LED, {}), 3),
        (JobNote(LED, {}), 3),
    ],
)
def test_highest_number_is_that_of_any_epoch_in_it(
    message: Message, number: int
) -> None:
    assert highest_number(message) == number
