"""What may be launched: the rate, the wait after failures, the stop."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.launching import MINUTE_S, Launching, Pace


def launching(**pace: Any) -> Launching:
    return Launching(Pace(**pace), ["A", "B"])


def test_what_failed_before_a_restart_counts() -> None:
    made = launching(failures=2, backoff_s=10.0)
    assert made.troubles() == {}
    made.failed(0.0, "A", "no")
    again = launching(failures=2, backoff_s=10.0)
    again.remember_troubles(100.0, made.troubles() | {"gone": (1, "")})
    assert again.held(109.0, "A") and not again.held(110.0, "A")
    again.failed(110.0, "A", "no")
    last = launching(failures=2, backoff_s=10.0)
    last.remember_troubles(1e6, again.troubles())
    assert "stopped until" in last.held(2e6, "A")
    assert last.take_news() == []
    assert last.resume() and not last.held(2e6, "A")


def test_no_more_is_launched_than_a_minute_allows() -> None:
    made = launching(launches_per_minute=2)
    made.launched(0.0)
    made.launched(10.0)
    assert "2 launches in the last minute" in made.held(11.0, "A")
    assert made.held(59.9, "B")
    assert not made.held(60.0, "B")
    assert made.room(70.0) == 2


def test_a_failure_puts_off_the_next_launch_and_each_one_more_for_longer() -> None:
    made = launching(failures=9, backoff_s=10.0, backoff_max_s=30.0)
    for wait_s in (10.0, 20.0, 30.0, 30.0):
        made.failed(100.0, "A", "no")
        assert f"waits {wait_s:.0f} s" in made.held(100.0, "A")
        assert made.held(100.0 + wait_s - 0.1, "A")
        assert not made.held(100.0 + wait_s, "A")
    assert not made.held(100.0, "B")


def test_failures_in_a_row_stop_a_kind_and_that_is_told_once() -> None:
    made = launching(failures=2)
    made.failed(0.0, "A", "first")
    made.succeeded("A")
    made.failed(1.0, "A", "second")
    assert made.take_news() == []
    made.failed(2.0, "A", "the disk is full")
    made.failed(3.0, "A", "later")
    told = "launching failed 2 times in a row: the disk is full"
    assert made.take_news() == [("A", told)]
    assert made.take_news() == []
    assert "opencluster elastic resume" in made.held(1e9, "A")
    assert not made.held(0.0, "B")


def test_what_stopped_goes_on_when_somebody_says_so() -> None:
    made = launching(failures=1)
    assert not made.resume()
    made.failed(0.0, "A", "no")
    assert made.resume()
    assert not made.held(0.0, "A")
    assert not made.stopped("A")


def test_launches_of_a_former_process_count() -> None:
    made = launching(launches_per_minute=2)
    made.launched(1000.0)
    made.remember(1000.0, [59.0, -5.0, 61.0])
    assert made.ages(1000.0) == [59.0, 0.0, 0.0]
    assert made.room(1000.5) == 0
    assert made.room(1001.5) == 0
    assert made.room(1060.0) == 2


@given(
    st.integers(1, 5),
    st.lists(st.floats(0.0, 20.0), max_size=60),
)
def test_there_is_no_minute_with_more_launches(rate: int, waits: list[float]) -> None:
    made, now, times = launching(launches_per_minute=rate), 0.0, []
    for wait_s in waits:
        now += wait_s
        if not made.held(now, "A"):
            made.launched(now)
            times.append(now)
    for first in times:
        assert sum(first <= at < first + MINUTE_S for at in times) <= rate
