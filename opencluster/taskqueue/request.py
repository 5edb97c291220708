"""What somebody wants done, and how it is checked before it gets into the queue."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from opencluster.config.settings import TaskQueueSettings
from opencluster.priorities import BATCH, REALTIME
from opencluster.targets import target_of
from opencluster.wire import stored
from opencluster.workpiece import WorkPiece

MAX_NUMBER = 2**31 - 1
"""Largest priority, and largest number of retries."""
PIECE_CLASSES = (REALTIME, BATCH, "")


@dataclass(frozen=True)
class Request:
    """A task that somebody wants done, and how.

    Attributes
    ----------
    manager : type or str
        The Manager class that is to run it, or ``module:Class``, or ``path.py:Class``.
    task : WorkPiece
        What its ``schedule()`` gets.
    priority : int
        Higher goes first.
    deadline : datetime or float, optional
        A time, or seconds since 1970, at which it fails if it is not done. Of equal
        priority, what is due sooner goes first.
    depends_on : collection of int
        Tasks that must be done before it is begun.
    retries : int, optional
        How often it is begun again after its dispatcher or its manager's process died;
        by default ``[taskqueue] retries``.
    error_retries : int
        How often it is begun again after ``schedule()`` raised.
    engine : str
        Where its pieces run; by default what the dispatcher's environment says.
    piece_class : str
        ``realtime`` or ``batch``: what its pieces are of which nothing else is said; by
        default what the class of the manager says. `priority` is about tasks alone.
    directory : path
        Its working directory; by default that of this process.
    key : str
        Who asks again with the same key gets the task that is there already.
    """

    manager: type | str
    task: WorkPiece
    priority: int = 0
    deadline: datetime | float | None = None
    depends_on: Collection[int] = ()
    retries: int | None = None
    error_retries: int = 0
    engine: str = ""
    piece_class: str = ""
    directory: str | Path = ""
    key: str = ""


@dataclass(frozen=True)
class Prepared:
    """A request that was checked.

    Attributes
    ----------
    key : str
        What tells it apart from others.
    row : dict
        Its columns in the table of tasks, without those that say how it stands.
    data : bytes
        What it is to do, as `wire.stored` packs it.
    needed : frozenset of int
        The tasks that it depends on.
    """

    key: str
    row: dict[str, Any]
    data: bytes
    needed: frozenset[int]


def prepared(request: Request, settings: TaskQueueSettings) -> Prepared:
    """Return a request with all that is not said of it.

    Raises
    ------
    TypeError, ValueError
        When something in it is of another type, or out of range.
    LocalProtocolError
        When the task cannot be kept.
    ConfigError
        When no other process could find the class.
    """
    if not isinstance(request.task, WorkPiece):
        kind = type(request.task).__name__
        raise TypeError(f"a task is a WorkPiece, not {kind}")
    manager, retries = request.manager, request.retries
    target = manager if isinstance(manager, str) else target_of(manager)
    key = request.key or uuid.uuid4().hex
    row = {
        "key": key,
        "name": target.rpartition(":")[2],
        "manager": target,
        "directory": os.fspath(Path(request.directory or Path.cwd()).absolute()),
        "engine": request.engine,
        "piece_class": _class(request.piece_class),
        "priority": checked_priority(request.priority),
        "deadline": _seconds(request.deadline),
        "retries": _within("retries", settings.retries if retries is None else retries),
        "error_retries": _within("error_retries", request.error_retries),
    }
    data = stored.pack(request.task, "task", settings.max_bytes)
    return Prepared(key, row, data, frozenset(request.depends_on))


def checked_priority(priority: int) -> int:
    """Return a priority that can be kept.

    Raises
    ------
    ValueError
        When it cannot.
    """
    return _within("priority", priority, -MAX_NUMBER)


def _within(name: str, number: int, least: int = 0) -> int:
    if not isinstance(number, int) or not least <= number <= MAX_NUMBER:
        raise ValueError(
            f"{name} must be an integer from {least} to {MAX_NUMBER}, not {number!r}"
        )
    return number


def _class(name: str) -> str:
    if name not in PIECE_CLASSES:
        raise ValueError(
            f"piece_class must be {REALTIME!r}, {BATCH!r}, or empty for what the "
            f"manager says, not {name!r}"
        )
    return name


def _seconds(deadline: datetime | float | None) -> float:
    if deadline is None:
        return math.inf
    if isinstance(deadline, datetime):
        return deadline.timestamp()
    if math.isnan(deadline):
        raise ValueError("the deadline is not a number")
    return float(deadline)
