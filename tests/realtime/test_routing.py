"""Slices go where they are done first, as measured."""

from __future__ import annotations

from muser_pipeline.realtime.routing import Queues

BOTH = {"fast": 1, "slow": 4}


def queues() -> Queues:
    return Queues(["fast", "slow"])


def measured(fast_s: float, slow_s: float) -> Queues:
    """Queues with nothing under way, and lengths that are known."""
    known = queues()
    assert [known.send({type: 1}, 1) for type in ("fast", "slow")] == ["fast", "slow"]
    known.back("fast", 1, fast_s)
    known.back("slow", 1, slow_s)
    return known


def test_who_is_not_there_gets_nothing() -> None:
    assert queues().send({"slow": 2, "other": 9}, 1) == "slow"
    assert queues().send({"fast": 1}, 50) == "fast"
    assert queues().send({}, 1) == "slow"


def test_the_preferred_type_is_taken_as_long_as_it_is_free() -> None:
    some = queues()
    assert some.send({"fast": 2, "slow": 9}, 1) == "fast"
    assert some.send({"fast": 2, "slow": 9}, 1) == "fast"
    # the other one is measured by one slice, and not by more
    assert some.send({"fast": 2, "slow": 9}, 1) == "slow"
    assert some.send({"fast": 2, "slow": 9}, 1) == "fast"


def test_the_other_type_is_taken_when_the_queue_of_the_first_takes_longer() -> None:
    known = measured(0.1, 1.0)
    # 4 workers of 1 s are done with one after 0.25 s, as the queue counts
    taken = [known.send(BOTH, 1) for _ in range(6)]
    assert taken == ["fast", "fast", "slow", "fast", "fast", "fast"]
    assert known.wait_s("fast", 1) == 0.5
    assert known.wait_s("slow", 4) == 0.25


def test_what_came_back_is_not_in_the_queue_any_more() -> None:
    known = measured(0.1, 1.0)
    for _ in range(20):
        assert known.send(BOTH, 1) == "fast"
        known.back("fast", 1, 0.1)
    assert known.wait_s("fast", 1) == 0.0


def test_lengths_follow_what_is_measured() -> None:
    known = measured(0.1, 1.0)
    for _ in range(40):
        known.send({"fast": 1}, 2)
        known.back("fast", 2, 4.0)
    known.send({"fast": 1}, 1)
    assert 1.9 < (known.wait_s("fast", 1) or 0.0) < 2.1
    # nothing is learnt from what failed
    known.back("fast", 1, None)
    assert known.wait_s("fast", 1) == 0.0
    assert queues().wait_s("fast", 1) is None
