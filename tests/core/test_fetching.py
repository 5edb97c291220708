"""Fetching values: sources in turn, parts within windows, one end for each."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opencluster.core.fetching import (
    CONNECT_S,
    EVERYTHING,
    NEAR_WINDOW_BYTES,
    NOT_ASKED,
    PART_BYTES,
    WINDOW_BYTES,
    Allocate,
    Arrived,
    AskPart,
    AskValue,
    Effect,
    Failed,
    Fetching,
    Fill,
    Source,
)

NEAR, OTHER_NEAR = Source("near", True), Source("other near", True)
FAR, OTHER_FAR = Source("far", False), Source("other far", False)
A, B, C = b"a", b"b", b"c"
LOST = "it does not have it any more"


def asked(effects: Iterable[Effect]) -> list[AskValue | AskPart]:
    return [e for e in effects if isinstance(e, AskValue | AskPart)]


def test_a_near_value_comes_at_once() -> None:
    fetching = Fetching()
    (ask,) = fetching.want(0.0, A, 10 * PART_BYTES, [NEAR, FAR])
    assert ask == AskValue("near", 1, A, EVERYTHING)
    assert A in fetching
    arrived = fetching.value_came(0.0, "near", 1, [5, 10 * PART_BYTES], True)
    assert arrived == [Arrived(A, False)]
    assert fetching.is_idle


def test_a_value_is_fetched_once_for_all_who_want_it() -> None:
    fetching = Fetching()
    assert len(fetching.want(0.0, A, 10, [FAR])) == 1
    assert fetching.want(0.0, A, 10, [FAR, NEAR]) == []
    (ask,) = asked(fetching.value_lost(0.0, "far", 1))
    assert ask.source == "near"


def test_a_large_far_value_comes_in_parts() -> None:
    fetching = Fetching()
    size = 2 * PART_BYTES + 10
    (ask,) = fetching.want(0.0, A, size, [FAR])
    assert ask == AskValue("far", 1, A, PART_BYTES)
    effects = fetching.value_came(0.0, "far", 1, [7, 0, size], False)
    fetching.check_invariants()
    assert effects == [
        Allocate(A, (7, 0, size)),
        AskPart("far", 2, A, 0, 0, 7),
        AskPart("far", 3, A, 2, 0, PART_BYTES),
        AskPart("far", 4, A, 2, PART_BYTES, PART_BYTES),
        AskPart("far", 5, A, 2, 2 * PART_BYTES, 10),
    ]
    assert fetching.chunk_came(0.0, "far", 4, PART_BYTES) == [Fill(A, 2, PART_BYTES)]
    assert fetching.chunk_came(0.0, "far", 2, 7) == [Fill(A, 0, 0)]
    assert fetching.chunk_came(0.0, "far", 3, PART_BYTES) == [Fill(A, 2, 0)]
    last = fetching.chunk_came(0.0, "far", 5, 10)
    assert last == [Fill(A, 2, 2 * PART_BYTES), Arrived(A, True)]
    assert fetching.is_idle


def test_a_source_sends_no_more_than_a_window_at_a_time() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 1 << 40, [FAR])
    questions = asked(fetching.value_came(0.0, "far", 1, [1 << 30], False))
    assert len(questions) == WINDOW_BYTES // PART_BYTES
    assert fetching.want(0.0, B, 10, [FAR]) == []
    (more,) = asked(fetching.chunk_came(0.0, "far", 2, PART_BYTES))
    assert isinstance(more, AskPart)
    assert more.offset == WINDOW_BYTES
    fetching.check_invariants()


def test_near_values_take_turns_when_they_are_large() -> None:
    fetching = Fetching()
    half = NEAR_WINDOW_BYTES // 2
    assert len(fetching.want(0.0, A, half, [NEAR])) == 1
    assert len(fetching.want(0.0, B, half, [NEAR])) == 1
    assert fetching.want(0.0, C, half, [NEAR]) == []
    assert len(fetching.want(0.0, b"d", half, [OTHER_NEAR])) == 1
    effects = fetching.value_came(0.0, "near", 2, [half], True)
    assert effects[0] == Arrived(B, False)
    assert [e.id for e in asked(effects)] == [C]


def test_a_value_larger_than_the_window_goes_alone() -> None:
    fetching = Fetching()
    assert len(fetching.want(0.0, A, 2 * NEAR_WINDOW_BYTES, [NEAR])) == 1
    assert fetching.want(0.0, B, 1, [NEAR]) == []
    fetching.check_invariants()


def test_sources_are_tried_in_turn_and_each_is_told_of() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 10, [NEAR, NEAR, FAR])
    (ask,) = asked(fetching.value_lost(0.0, "near", 1))
    assert ask.source == "far"
    failed = fetching.source_lost(0.0, "far", "its connection broke")
    assert failed == [Failed(A, (("near", LOST), ("far", "its connection broke")))]
    assert fetching.is_idle


def test_without_sources_there_is_no_value() -> None:
    assert Fetching().want(0.0, A, 10, []) == [Failed(A, ())]


def test_what_a_lost_source_had_sent_counts_for_nothing() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 2 * PART_BYTES, [FAR, OTHER_FAR])
    fetching.value_came(0.0, "far", 1, [2 * PART_BYTES], False)
    fetching.chunk_came(0.0, "far", 2, PART_BYTES)
    (ask,) = asked(fetching.source_lost(0.0, "far", "gone"))
    assert ask == AskValue("other far", 4, A, PART_BYTES)
    effects = fetching.value_came(0.0, "other far", 4, [2 * PART_BYTES], False)
    assert effects[0] == Allocate(A, (2 * PART_BYTES,))
    assert len(asked(effects)) == 2


def test_a_source_that_is_not_reached_in_time_is_lost() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 10, [FAR])
    fetching.want(1.0, B, 10, [FAR])
    fetching.want(1.0, C, 10, [NEAR])
    fetching.source_connected("near")
    fetching.source_connected("unheard of")
    assert fetching.tick(CONNECT_S - 0.1) == []
    why = (("far", "it was not reached"),)
    assert fetching.tick(CONNECT_S) == [Failed(A, why), Failed(B, why)]
    assert fetching.tick(100.0) == []
    assert C in fetching


def test_a_value_that_nobody_wants_any_more_is_not_asked_for() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 1 << 40, [FAR])
    fetching.value_came(0.0, "far", 1, [1 << 30], False)
    fetching.want(0.0, B, 10, [FAR])
    (ask,) = asked(fetching.forget(0.0, A))
    assert ask.id == B
    assert fetching.chunk_came(0.0, "far", 2, PART_BYTES) == []
    assert fetching.forget(0.0, A) == []


@pytest.mark.parametrize("sizes", [[], [0, 0], [1] * 5000, [1 << 51]], ids=repr)
def test_absurd_sizes_are_no_value(sizes: list[int]) -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 10, [FAR])
    (failed,) = fetching.value_came(0.0, "far", 1, sizes, False)
    assert failed == Failed(A, (("far", "it sent what is no value"),))


def test_a_chunk_of_another_size_is_no_part() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, PART_BYTES + 1, [FAR])
    fetching.value_came(0.0, "far", 1, [PART_BYTES + 1], False)
    (failed,) = fetching.chunk_came(0.0, "far", 2, 3)
    assert failed == Failed(A, (("far", NOT_ASKED),))


def test_a_source_that_answers_something_else_is_of_no_use() -> None:
    fetching = Fetching()
    fetching.want(0.0, A, 10, [FAR, NEAR])
    (ask,) = asked(fetching.chunk_came(0.0, "far", 1, 10))
    assert ask.source == "near"
    fetching.check_invariants()
    fetching.want(0.0, B, PART_BYTES + 1, [FAR])
    fetching.value_came(0.0, "far", 3, [PART_BYTES + 1], False)
    (failed,) = fetching.value_came(0.0, "far", 4, [PART_BYTES], True)
    assert failed == Failed(B, (("far", NOT_ASKED),))
    fetching.check_invariants()


def test_answers_to_nothing_change_nothing() -> None:
    fetching = Fetching()
    assert fetching.value_came(0.0, "far", 1, [3], True) == []
    fetching.want(0.0, A, 10, [FAR])
    assert fetching.value_came(0.0, "far", 9, [3], True) == []
    assert fetching.chunk_came(0.0, "far", 9, 3) == []
    assert fetching.value_lost(0.0, "far", 9) == []
    assert fetching.value_lost(0.0, "near", 1) == []
    assert fetching.source_lost(0.0, "near", "gone") == []
    assert A in fetching


# --- any answers in any order ------------------------------------------------------

SOURCES = [NEAR, OTHER_NEAR, FAR, OTHER_FAR]
SIZES = {A: 100, B: PART_BYTES + 1, C: 5 * PART_BYTES}


class FetchingModel(RuleBasedStateMachine):
    """Holders that answer, or not, in any order; each value ends once."""

    def __init__(self) -> None:
        super().__init__()
        self.fetching = Fetching()
        self.now = 0.0
        self.asked: list[AskValue | AskPart] = []
        self.wanted: set[bytes] = set()
        self.memory: dict[bytes, dict[int, int]] = {}

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AskValue() | AskPart():
                    assert effect.id in self.wanted
                    self.asked.append(effect)
                case Allocate(id, sizes):
                    assert sum(sizes) == SIZES[id]
                    self.memory[id] = {}
                case Fill(id, 0, offset):
                    nbytes = min(PART_BYTES, SIZES[id] - offset)
                    assert offset not in self.memory[id]
                    self.memory[id][offset] = nbytes
                case Arrived(id, is_filled):
                    self.wanted.remove(id)
                    if is_filled:
                        assert sum(self.memory[id].values()) == SIZES[id]
                case Failed(id, reasons):
                    self.wanted.remove(id)
                    names = [name for name, _ in reasons]
                    assert len(set(names)) == len(names)
                case _:
                    raise AssertionError(effect)

    @rule(id=st.sampled_from(sorted(SIZES)), data=st.data())
    def want(self, id: bytes, data: st.DataObject) -> None:
        sources = data.draw(st.lists(st.sampled_from(SOURCES), max_size=4))
        self.wanted.add(id)
        self.do(self.fetching.want(self.now, id, SIZES[id], sources))

    @rule(data=st.data(), has=st.integers(0, 5))
    def answer(self, data: st.DataObject, has: int) -> None:
        if not self.asked:
            return
        at = data.draw(st.integers(0, len(self.asked) - 1))
        ask = self.asked.pop(at)
        if not has:
            self.do(self.fetching.value_lost(self.now, ask.source, ask.number))
        elif isinstance(ask, AskValue):
            size = SIZES[ask.id]
            self.do(
                self.fetching.value_came(
                    self.now, ask.source, ask.number, [size], size <= ask.most
                )
            )
        else:
            self.do(
                self.fetching.chunk_came(self.now, ask.source, ask.number, ask.nbytes)
            )

    @rule(id=st.sampled_from(sorted(SIZES)))
    def forget(self, id: bytes) -> None:
        self.wanted.discard(id)
        self.do(self.fetching.forget(self.now, id))

    @rule(source=st.sampled_from(SOURCES))
    def lose(self, source: Source) -> None:
        self.do(self.fetching.source_lost(self.now, source.name, "gone"))

    @rule(source=st.sampled_from(SOURCES))
    def connect(self, source: Source) -> None:
        self.fetching.source_connected(source.name)

    @rule(seconds=st.floats(0, 3))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.fetching.tick(self.now))

    @invariant()
    def all_is_well(self) -> None:
        self.fetching.check_invariants()
        assert {id for id in SIZES if id in self.fetching} == self.wanted


TestFetchingModel = FetchingModel.TestCase
TestFetchingModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
