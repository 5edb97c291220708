"""What becomes of a task of the durable queue: states, leases, losses, retries.

Each function is told how a task stands and what happened, and returns what changes;
whoever keeps the tasks writes that down in one step with the check that led to it.

Rules that this module keeps:

1. A task ends as done, failed or cancelled. Done is for good; the other two last until
   somebody asks for the task again.
2. A task is begun only when all that it depends on are done, when it is not put off,
   and before its deadline. At its deadline it fails, wherever it stands.
3. Each time that it is begun it gets the next attempt number, which never comes
   again. What is said of it counts only while it runs under that very number.
4. A lease that has run out is a loss: the task is begun again, at most `retries` times.
   A task that is given back has lost nothing.
5. A task that was taken away while it ran, cancelled or past its deadline, and is asked
   for again, is not begun before that run is over, or its lease has run out.
6. An error is no loss: the task is begun again at most `error_retries` times, each time
   after twice the delay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"
    """For tasks that it depends on."""
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (State.WAITING, State.QUEUED, State.RUNNING)
ENDED = (State.DONE, State.FAILED, State.CANCELLED)

MAX_RETRY_DELAY_S = 600.0
"""Most that a task is put off after an error."""

Changes = Mapping[str, Any]
"""New values of a task, by the name of the field."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clocks of the queue say.

    Attributes
    ----------
    wall_s : float
        Seconds since 1970, by which deadlines and what people read are told.
    lease_s : float
        Seconds since some beginning, by which leases are told.
    era : str
        Names that beginning: what was noted in another era is long over.
    """

    wall_s: float
    lease_s: float
    era: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task stands, as far as decisions need it.

    Attributes
    ----------
    state : str
        A `State`.
    unmet : int
        How many of the tasks that it depends on are not done.
    deadline : float
        Seconds since 1970; infinite for none.
    attempt : int
        How often it was begun.
    losses, failures : int
        How often it was lost, and how often it failed, since somebody asked for it.
    retries, error_retries : int
        How many losses, and how many errors, it outlives.
    era : str
        That of `until`.
    until : float
        When its lease runs out, or until when it is put off.
    """

    state: str
    unmet: int = 0
    deadline: float = math.inf
    attempt: int = 0
    losses: int = 0
    failures: int = 0
    retries: int = 0
    error_retries: int = 0
    era: str = ""
    until: float = 0.0


def submitted(unmet: int, wall_s: float) -> dict[str, Any]:
    """Return how a new task stands, of which so many needs are not done."""
    return {"state": _ready(unmet), "unmet": unmet, "submitted_at": wall_s}


def met(task: Standing) -> Changes:
    """Return what changes when one of the tasks is done that a task depends on."""
    unmet = task.unmet - 1
    state = _ready(unmet) if task.state == State.WAITING else task.state
    return {"unmet": unmet, "state": state}


def begun(task: Standing, now: Moment, holder: str, lease_s: float) -> Changes:
    """Return what changes when a dispatcher takes a queued task."""
    return {
        "state": State.RUNNING,
        "attempt": task.attempt + 1,
        "holder": holder,
        "started_at": now.wall_s,
        "progress_done": 0.0,
        "progress_total": 0.0,
        **renewed(now, lease_s),
    }


def renewed(now: Moment, lease_s: float) -> Changes:
    """Return what changes when the holder of a lease is alive."""
    return {"era": now.era, "until": now.lease_s + lease_s}


def done(now: Moment) -> Changes:
    """Return what changes when a running task has a result."""
    return _ended(State.DONE, now, "", "")


def failed(
    task: Standing, now: Moment, error: str, output: str, delay_s: float
) -> Changes:
    """Return what changes when a running task ended with an error.

    Parameters
    ----------
    task : Standing
        The task.
    now : Moment
        The time.
    error, output : str
        What people are told of it.
    delay_s : float
        How long it is put off after its first error.
    """
    failures = task.failures + 1
    if failures > task.error_retries:
        return {"failures": failures, **_ended(State.FAILED, now, error, output)}
    # no power that is beyond a float's range
    delay_s = min(delay_s * 2.0 ** min(failures - 1, 60), MAX_RETRY_DELAY_S)
    until = {"era": now.era, "until": now.lease_s + delay_s}
    told = {"error": error, "output": output}
    return {"failures": failures, **given_back(now), **told, **until}


def lost(task: Standing, now: Moment, reason: str, output: str = "") -> Changes:
    """Return what changes when whoever ran a task is gone.

    Parameters
    ----------
    task : Standing
        The task.
    now : Moment
        The time.
    reason, output : str
        What people are told of it.
    """
    losses = task.losses + 1
    told = {"losses": losses, "error": reason, "output": output}
    if losses <= task.retries:
        return {**told, **given_back(now)}
    times = "once" if losses == 1 else f"{losses} times, the last time"
    error = f"lost {times} since {reason}"
    return {"losses": losses, **_ended(State.FAILED, now, error, output)}


def given_back(now: Moment) -> Changes:
    """Return what changes when a dispatcher cannot go on with a running task."""
    return {"state": State.QUEUED, "holder": "", "era": now.era, "until": 0.0}


def cancelled(task: Standing, now: Moment) -> Changes | None:
    """Return what changes when a task is not wanted any more; None if it has ended."""
    if task.state not in OPEN:
        return None
    return _taken_away(task, _ended(State.CANCELLED, now, "", ""))


def prioritised(task: Standing, priority: int) -> Changes | None:
    """Return what changes when a task gets another priority; None if it has ended."""
    return {"priority": priority} if task.state in OPEN else None


def wanted_again(task: Standing, now: Moment) -> Changes | None:
    """Return what changes when somebody asks for a task anew.

    A deadline that has passed is dropped, as the task would fail of it at once. If the
    task was taken away while it ran, it is put off until that run is over. None when
    the task is done, or under way already.
    """
    if task.state not in (State.FAILED, State.CANCELLED):
        return None
    deadline = {"deadline": math.inf} if is_overdue(task, now) else {}
    return {
        **{"losses": 0, "failures": 0, "error": "", "output": "", "ended_at": 0.0},
        **deadline,
        "state": _ready(task.unmet),
    }


def is_overdue(task: Standing, now: Moment) -> bool:
    """Return whether the deadline of a task has passed."""
    return task.deadline <= now.wall_s


def overdue(task: Standing, now: Moment) -> Changes:
    """Return what changes when the deadline of an open task has passed."""
    was = "not begun" if task.state != State.RUNNING else "still running"
    error = f"its deadline passed, it was {was}"
    return _taken_away(task, _ended(State.FAILED, now, error, ""))


def let_go() -> Changes:
    """Return what changes when the run has ended of a task that was taken away."""
    return {"until": 0.0}


def _ready(unmet: int) -> State:
    return State.WAITING if unmet else State.QUEUED


def _taken_away(task: Standing, changes: dict[str, Any]) -> Changes:
    """Keep the time of a lease whose holder may be at the task for a moment."""
    if task.state == State.RUNNING:
        del changes["era"], changes["until"]
    return changes


def _ended(state: State, now: Moment, error: str, output: str) -> dict[str, Any]:
    told = {"error": error, "output": output, "ended_at": now.wall_s}
    return {**told, "state": state, "holder": "", "era": now.era, "until": 0.0}
