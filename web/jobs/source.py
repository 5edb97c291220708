"""Where pages find jobs and their timelines; a record is read once for all who look."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from flask import current_app

from opencluster.config import Config
from opencluster.core.timeline import Timeline, summary
from opencluster.errors import OpenClusterError, RecordError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.job_records import find_record
from opencluster.observe.status import Row
from opencluster.place import Place
from opencluster.store import job_records
from opencluster.store.history import History
from opencluster_web.jobs.spans import Columns, outcome_counts

KEPT = 4
"""Timelines in memory; a long one takes some tens of megabytes."""
FRESH_S = 3.0
"""For which what another computer told of a job that runs is good."""
LISTED = 200
"""Records on this computer that are looked at for the list."""
RUNNING = "running"
STATES = (RUNNING, "done", "failed", "cancelled")

_EMPTY: Row = {
    **{"id": "", "name": "", "state": "", "started_at": 0.0, "ended_at": 0.0},
    **{"elapsed_s": 0.0, "priority": None, "orders": {}, "host": "", "user": ""},
    **dict.fromkeys(("pieces_submitted", "pieces_done", "pieces_failed"), 0),
    **dict.fromkeys(("pieces_retried", "pieces_cut", "bytes_sent"), 0),
    **{"bytes_received": 0, "unreached": []},
}


class Record:
    """A timeline, and what is found out of it once, as that may take a while.

    Attributes
    ----------
    timeline : Timeline
        The spans.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    @cached_property
    def columns(self) -> Columns:
        """The spans as arrays."""
        return Columns(self.timeline)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What `summary` says."""
        return summary(self.timeline)

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How many pieces ended how."""
        return outcome_counts(self.timeline)


class JobSource:
    """The jobs of a cluster; may be asked from several threads.

    Parameters
    ----------
    config : Config
        The settings, which may name the factories.
    place : Place
        The cluster's directory.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self._config = config
        self._place = place
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._timelines: OrderedDict[str, tuple[Any, Record]] = OrderedDict()

    def recorded(self) -> list[Row]:
        """Return the jobs of which this computer has records, as they began."""
        return job_records.jobs(self._place.jobs, LISTED)

    def record(self, id: str, is_running: bool) -> Record | None:
        """Return what became of the pieces of a job, or ``None`` if nobody knows.

        Parameters
        ----------
        id : str
            The whole identity.
        is_running : bool
            More may follow.
        """
        with self._lock:
            mark = self._mark(id, is_running)
            known = self._timelines.pop(id, None)
            if known is None or known[0] != mark:
                found = self._found(id)
                if found is None:
                    return None
                known = mark, Record(found)
            self._timelines[id] = known
            if len(self._timelines) > KEPT:
                self._timelines.popitem(last=False)
            return known[1]

    def control(self) -> Control:
        """Return a connection to the cluster, to be closed by who asked.

        Raises
        ------
        FactoryUnreachable
            When there is none.
        """
        return connect(self._config, self._place)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._disconnect()

    # --- inside --------------------------------------------------------------

    def _mark(self, id: str, is_running: bool) -> Any:
        """Return what is another value once there is more of a record."""
        try:
            stat = job_records.path_of(self._place.jobs, id).stat()
        except (OSError, RecordError):
            return int(time.monotonic() / FRESH_S) if is_running else "ended"
        return stat.st_size, stat.st_mtime_ns

    def _found(self, id: str) -> Timeline | None:
        try:
            return job_records.read_file(job_records.path_of(self._place.jobs, id))
        except RecordError:
            pass
        try:
            if self._control is None:
                self._control = self.control()
            return find_record(self._place, id, self._control)
        except RecordError:
            return None
        except OpenClusterError:
            self._disconnect()
            return None

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None


def job_source() -> JobSource:
    """Return the jobs of the application that answers."""
    source: JobSource = current_app.extensions["opencluster_jobs"]
    return source


def listed(
    now: Iterable[Row],
    history: History | None,
    recorded: Iterable[Row],
    limit: int,
    before: float = 0.0,
) -> list[Row]:
    """Return jobs, the newest first, from all that know of them.

    Parameters
    ----------
    now : iterable of dict
        Those in the status.
    history : History or None
        Those that ended.
    recorded : iterable of dict
        Those of which there are records.
    limit : int
        How many at most.
    before : float
        Only those that began earlier, in seconds since 1970; 0 for all.
    """
    found: dict[str, Row] = {}
    for job in recorded:
        # a record begins with a job that runs: whether it still does, others know
        found[str(job["id"])] = whole(job) | {"state": "recorded"}
    if history is not None:
        found |= {job["id"]: whole(job) for job in history.jobs(limit, before)}
    found |= {job["id"]: whole(job) for job in now}
    rows = [j for j in found.values() if not before or j["started_at"] < before]
    return sorted(rows, key=lambda job: -job["started_at"])[:limit]


def whole(job: Mapping[str, Any]) -> Row:
    """Return a job with all fields that pages show, and what follows from them."""
    row = _EMPTY | {name: value for name, value in job.items() if value is not None}
    elapsed_s = float(row["elapsed_s"])
    ended = row["pieces_done"] + row["pieces_failed"]
    left = max(0, row["pieces_submitted"] - ended)
    rate = ended / elapsed_s if elapsed_s > 0 else 0.0
    is_running = row["state"] == RUNNING
    return row | {
        "rate": rate,
        "left": left,
        "left_s": left / rate if is_running and rate > 0 else None,
        "part": min(1.0, ended / row["pieces_submitted"])
        if row["pieces_submitted"]
        else 0.0,
    }
