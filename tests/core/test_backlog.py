"""The waiting line: order, taking out early, and no growth by what is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.backlog import SLACK, Backlog


def backlog(*priorities: int) -> Backlog[str]:
    """Return a backlog of items named after their key, which is their number too."""
    made: Backlog[str] = Backlog()
    for number, priority in enumerate(priorities):
        made.push(number, str(number), priority, number)
    return made


def drained(waiting: Backlog[str]) -> list[str]:
    items = []
    while (item := waiting.pop()) is not None:
        items.append(item)
        waiting.check_invariants()
    return items


def test_higher_priority_first_then_lower_number() -> None:
    assert drained(backlog(0, 5, -1, 5, 0)) == ["1", "3", "0", "4", "2"]


def test_nothing_waits_in_an_empty_backlog() -> None:
    waiting = backlog()
    assert not waiting
    assert waiting.pop() is None
    assert waiting.take(1) is None
    assert waiting.clear() == []


def test_what_was_taken_is_not_popped() -> None:
    waiting = backlog(0, 0, 0)
    assert waiting.take(1) == "1"
    assert waiting.take(1) is None
    assert 1 not in waiting
    assert 2 in waiting
    assert len(waiting) == 2
    assert list(waiting) == ["0", "2"]
    assert drained(waiting) == ["0", "2"]


def test_key_that_comes_again_has_its_new_place_only() -> None:
    waiting = backlog(9, 5)
    waiting.take(0)
    waiting.push(0, "again", 0, 7)
    assert drained(waiting) == ["1", "again"]


def test_key_that_waits_is_not_taken_twice() -> None:
    with pytest.raises(AssertionError):
        backlog(0).push(0, "other", 0, 1)


def test_clearing_returns_everything_in_the_order_it_came() -> None:
    waiting = backlog(0, 3, 1)
    waiting.take(1)
    assert waiting.clear() == ["0", "2"]
    assert not waiting
    assert waiting.pop() is None


def test_clearing_leaves_no_room_taken() -> None:
    waiting = backlog(*[0] * 2 * SLACK)
    waiting.clear()
    waiting.check_invariants()


def test_what_is_gone_takes_no_room_for_long() -> None:
    waiting = backlog(*[0] * 10)
    for number in range(10, 10 + 20 * SLACK):
        waiting.push(number, str(number), 1, number)
        waiting.take(number)
        waiting.check_invariants()
    assert drained(waiting) == [str(number) for number in range(10)]


def test_popping_gives_up_the_room_of_what_is_gone() -> None:
    many = 2 * SLACK
    waiting = backlog(*[0] * 2 * many)
    for number in range(many, 2 * many):
        waiting.take(number)
        waiting.check_invariants()
    assert drained(waiting) == [str(number) for number in range(many)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(0, 9), st.integers(-2, 2)),
            st.tuples(st.just("take"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("pop"), st.just(0), st.just(0)),
        )
    )
)
def test_it_does_what_a_sorted_list_does(events: list[tuple[str, int, int]]) -> None:
    waiting: Backlog[int] = Backlog()
    model: dict[int, tuple[int, int]] = {}
    for number, (event, key, priority) in enumerate(events):
        if event == "push" and key not in model:
            waiting.push(key, key, priority, number)
            model[key] = (-priority, number)
        elif event == "take":
            expected = key if model.pop(key, None) else None
            assert waiting.take(key) == expected
        elif event == "pop":
            first = min(model, key=lambda k: model[k], default=None)
            assert waiting.first() == first
            assert waiting.pop() == first
            model.pop(first or 0, None)
        waiting.check_invariants()
        assert sorted(waiting) == sorted(model)


def test_an_item_moves_to_the_place_of_its_new_priority_and_back() -> None:
    waiting = backlog(0, 0, 0)
    waiting.move(2, 5)
    assert waiting.first() == "2"
    waiting.move(2, -5)
    waiting.move(7, 9)
    waiting.check_invariants()
    assert drained(waiting) == ["0", "1", "2"]


def test_an_item_that_comes_again_has_not_the_place_of_an_old_priority() -> None:
    waiting = backlog(9, 5)
    item = waiting.take(0)
    assert item is not None
    waiting.push(0, item, 1, 0)
    assert drained(waiting) == ["1", "0"]


def test_moving_back_and_forth_takes_no_room() -> None:
    waiting = backlog(0, 0)
    for priority in range(10 * SLACK):
        waiting.move(0, priority % 3)
        waiting.check_invariants()
    assert len(drained(waiting)) == 2
