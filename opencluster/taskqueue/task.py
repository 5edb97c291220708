"""A task as people and programs see it, and how it is read from the tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from opencluster.core.tasks import ENDED, Standing
from opencluster.store.database import sql
from opencluster.store.schema import TASKS


@dataclass(frozen=True)
class Task:
    """A task of the queue, at the moment when it was read.

    Times are in seconds since 1970, and ``None`` for not yet.

    Attributes
    ----------
    id : int
        Its number.
    key : str
        What tells it apart from another request for the same.
    name : str
        The class of its manager, for people.
    manager, directory, engine : str
        What runs it, in which working directory, and where its pieces run; an empty
        engine is that of the dispatcher.
    state : str
        ``waiting`` (for other tasks), ``queued``, ``running``, ``done``, ``failed`` or
        ``cancelled``.
    priority : int
        Higher goes first.
    deadline : float or None
        When it fails if it is not done.
    depends_on : tuple of int
        Tasks that must be done before; told by `TaskQueue.show` alone.
    unmet : int
        How many of those are not done.
    retries, error_retries : int
        How many losses, and how many errors, it outlives.
    attempt : int
        How often it was begun.
    losses, failures : int
        How often it was lost, and how often it failed, since it was last asked for.
    holder : str
        The dispatcher that runs it.
    progress_done, progress_total : float
        How much of how much, in any unit; a total of 0 for unknown.
    submitted_at, started_at, ended_at : float or None
        When it was asked for, last begun, and ended.
    error, output : str
        What went wrong last, and the last lines that the manager printed then.
    piece_class : str
        ``realtime`` or ``batch``, or empty for what the manager says of its pieces.
    """

    id: int
    key: str
    name: str
    manager: str
    directory: str
    engine: str
    state: str
    priority: int
    deadline: float | None
    unmet: int
    retries: int
    error_retries: int
    attempt: int
    losses: int
    failures: int
    holder: str
    progress_done: float
    progress_total: float
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    error: str
    output: str
    piece_class: str
    depends_on: tuple[int, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in ENDED

    @property
    def progress(self) -> float | None:
        """The part that is done, from 0 to 1, if the manager tells."""
        if self.progress_total <= 0:
            return None
        return min(1.0, max(0.0, self.progress_done / self.progress_total))


COLUMNS = [TASKS.c[item.name] for item in fields(Task) if item.name in TASKS.c]
"""What a `Task` is made from."""
STANDING = [TASKS.c[item.name] for item in fields(Standing)]
"""What decisions are made from."""


def task_of(row: sql.Row[Any], depends_on: tuple[int, ...] = ()) -> Task:
    """Return the task that a row of `COLUMNS` holds."""
    values: dict[str, Any] = dict(row._mapping)
    deadline = values["deadline"]
    values["deadline"] = None if math.isinf(deadline) else deadline
    for name in ("started_at", "ended_at"):
        values[name] = values[name] or None
    return Task(**values, depends_on=depends_on)


def standing_of(row: sql.Row[Any]) -> Standing:
    """Return how a task stands, by a row that has `STANDING`."""
    return Standing(**{column.name: row._mapping[column] for column in STANDING})
