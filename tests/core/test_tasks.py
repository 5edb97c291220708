"""What becomes of a task, whatever happens to it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.tasks import (
    ENDED,
    MAX_RETRY_DELAY_S,
    OPEN,
    Moment,
    Standing,
    State,
    begun,
    cancelled,
    done,
    failed,
    given_back,
    is_overdue,
    let_go,
    lost,
    met,
    overdue,
    submitted,
    wanted_again,
)

NOW = Moment(wall_s=1.8e9, lease_s=50.0, era="e")
RUNNING = Standing(State.RUNNING, attempt=1, era="e", until=60.0)


def after(task: Standing, changes: Any) -> Standing:
    return replace(
        task, **{k: v for k, v in changes.items() if k in task.__dataclass_fields__}
    )


def test_every_state_is_open_or_ended() -> None:
    assert {*OPEN, *ENDED} == set(State)
    assert not {*OPEN} & {*ENDED}


@pytest.mark.parametrize(("unmet", "state"), [(0, "queued"), (3, "waiting")])
def test_a_new_task(unmet: int, state: str) -> None:
    assert submitted(unmet, 5.0) == {
        "state": state, "unmet": unmet, "submitted_at": 5.0
    }  # fmt: skip


def test_what_is_met_is_counted_in_every_state() -> None:
    waiting = Standing(State.WAITING, unmet=2)
    assert met(waiting) == {"state": "waiting", "unmet": 1}
    assert met(replace(waiting, unmet=1)) == {"state": "queued", "unmet": 0}
    assert met(Standing(State.CANCELLED, unmet=1)) == {"state": "cancelled", "unmet": 0}


def test_each_run_has_another_number() -> None:
    changes = begun(Standing(State.QUEUED, attempt=4), NOW, "me", 10.0)
    assert (changes["attempt"], changes["holder"]) == (5, "me")
    assert (changes["era"], changes["until"]) == ("e", 60.0)
    assert changes["started_at"] == NOW.wall_s


@given(
    retries=st.integers(0, 5), losses=st.integers(0, 10), failures=st.integers(0, 10)
)
def test_losses_count_on_their_own(retries: int, losses: int, failures: int) -> None:
    task = replace(RUNNING, retries=retries, losses=losses, failures=failures)
    changes = lost(task, NOW, "a reason", "output")
    assert changes["losses"] == losses + 1
    assert "failures" not in changes
    is_left = losses < retries
    assert changes["state"] == ("queued" if is_left else "failed")
    assert ("ended_at" in changes) != is_left
    assert "a reason" in changes["error"]
    assert changes["output"] == "output"


@given(
    failures=st.integers(0, 2000),
    delay_s=st.one_of(st.just(0.0), st.floats(1e-3, 1e9)),
)
def test_errors_put_off_ever_longer_but_not_for_ever(
    failures: int, delay_s: float
) -> None:
    task = replace(RUNNING, error_retries=10_000, failures=failures)
    changes = failed(task, NOW, "no", "", delay_s)
    assert changes["state"] == "queued"
    assert changes["failures"] == failures + 1
    put_off_s = changes["until"] - NOW.lease_s
    expected_s = min(delay_s * 2 ** min(failures, 50), MAX_RETRY_DELAY_S)
    assert put_off_s == pytest.approx(expected_s)


def test_an_error_too_many_is_the_end() -> None:
    task = replace(RUNNING, error_retries=1, failures=1)
    changes = failed(task, NOW, "no", "output", 10.0)
    assert (changes["state"], changes["ended_at"]) == ("failed", NOW.wall_s)
    assert (changes["error"], changes["output"]) == ("no", "output")


def test_giving_back_changes_no_count() -> None:
    task = replace(RUNNING, losses=2, failures=1)
    assert after(task, given_back(NOW)) == replace(task, state="queued", until=0.0)


@pytest.mark.parametrize("state", list(State))
def test_who_may_cancel_and_ask_again(state: State) -> None:
    task = Standing(state, unmet=1)
    changes = cancelled(task, NOW)
    assert (changes is None) == (state in ENDED)
    again = wanted_again(task, NOW)
    assert (again is None) == (state not in (State.FAILED, State.CANCELLED))
    if again is not None:
        assert again["state"] == "waiting"
        assert wanted_again(replace(task, unmet=0), NOW)["state"] == "queued"  # type: ignore[index]


def test_what_is_taken_away_while_it_runs_keeps_the_time_of_its_lease() -> None:
    for changes in (cancelled(RUNNING, NOW), overdue(RUNNING, NOW)):
        task = after(RUNNING, changes)
        again = after(task, wanted_again(task, NOW))
        assert (again.state, again.era, again.until) == ("queued", "e", RUNNING.until)
        assert after(again, let_go()).until == 0.0
    queued = Standing(State.QUEUED, era="e", until=60.0)
    assert after(queued, cancelled(queued, NOW)).until == 0.0


@pytest.mark.parametrize("state", OPEN)
def test_deadlines(state: State) -> None:
    task = Standing(state, deadline=NOW.wall_s + 1)
    assert not is_overdue(task, NOW)
    assert is_overdue(replace(task, deadline=NOW.wall_s), NOW)
    assert not is_overdue(Standing(state), NOW)
    changes = overdue(task, NOW)
    assert changes["state"] == "failed"
    assert ("still running" in changes["error"]) == (state == State.RUNNING)


def test_a_deadline_is_dropped_only_when_it_has_passed() -> None:
    passed = Standing(State.FAILED, deadline=NOW.wall_s - 1)
    assert wanted_again(passed, NOW)["deadline"] == math.inf  # type: ignore[index]
    ahead = Standing(State.FAILED, deadline=NOW.wall_s + 1)
    assert "deadline" not in wanted_again(ahead, NOW)  # type: ignore[operator]


def test_whatever_ends_a_task_lets_go_of_it() -> None:
    ends = [
        done(NOW),
        cancelled(RUNNING, NOW),
        overdue(RUNNING, NOW),
        lost(RUNNING, NOW, ""),
        failed(RUNNING, NOW, "", "", 1.0),
    ]
    for changes in ends:
        assert changes is not None
        assert changes["state"] in ENDED
        assert (changes["holder"], changes["ended_at"]) == ("", NOW.wall_s)
