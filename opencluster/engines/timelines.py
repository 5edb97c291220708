"""Records the pieces of an engine's jobs; for use while holding the reactor."""

from __future__ import annotations

import getpass
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opencluster.core.timeline import CANCELLED, DONE, FAILED, RETRIED, Recorder
from opencluster.engines.base import Job
from opencluster.engines.directory import Contact
from opencluster.errors import PieceCancelled, PieceFailed, RecordError, WorkError
from opencluster.node.host import host_name
from opencluster.place import Place
from opencluster.store.job_records import RecordWriter

log = logging.getLogger(__name__)

_OUTCOMES = {
    "done": DONE,
    "kept": DONE,
    "bundle": DONE,
    "cut": DONE,
    "interrupted": CANCELLED,
    "cancelled": CANCELLED,
    "cut short": RETRIED,
    "missing": RETRIED,
}


class Timelines:
    """What became of the pieces of each job, on its way to the job's record.

    Parameters
    ----------
    place : Place or None
        The cluster's directory, where records are; without one there are none.
    max_spans : int
        Spans of one job that are kept as they are; 0 records nothing.
    max_records : int
        Records that are kept.
    """

    def __init__(self, place: Place | None, max_spans: int, max_records: int) -> None:
        self._folder = Path() if place is None else place.jobs
        self._max_spans = 0 if place is None else max_spans
        self._max_records = max_records
        self._recorders: dict[str, tuple[Job, Recorder]] = {}
        self._writers: dict[str, RecordWriter] = {}
        self._ended_at = 0.0
        self._left_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self._max_spans > 0

    def answered(self, elapsed_s: Sequence[float]) -> None:
        """Note that runs ended which a worker did one after another, the last now."""
        self._ended_at = time.time()
        self._left_s = sum(elapsed_s)

    def span(
        self,
        job: Job,
        contact: Contact,
        number: int,
        status: str,
        elapsed_s: float,
        pieces: int = 1,
        is_retried: bool = False,
    ) -> None:
        """Take in the next of the runs that `answered` told of."""
        self._left_s -= elapsed_s
        outcome = RETRIED if is_retried else _OUTCOMES.get(status, FAILED)
        entry = contact.entry
        self._recorder(job).span(
            self._ended_at - max(0.0, self._left_s),
            elapsed_s,
            entry.name,
            entry.host,
            entry.type,
            pieces,
            outcome,
            number,
        )

    def failed(self, job: Job, number: int, error: WorkError) -> None:
        """Take in why a piece failed in the end."""
        if isinstance(error, PieceCancelled):
            return
        kind, traceback = type(error).__name__, ""
        message = str(error)
        if isinstance(error, PieceFailed):
            kind = error.exception_type or kind
            message, traceback = error.message, error.remote_traceback
        worker = str(getattr(error, "worker", ""))
        self._recorder(job).error(number, kind, message, traceback, worker)

    def flush(self) -> None:
        """Write down what is new, and forget the jobs that have ended."""
        for job, recorder in list(self._recorders.values()):
            is_over = job.state != "running"
            news: dict[str, Any] = recorder.take(is_over) or {}
            if is_over:
                news["job"] = _told(job)
            if news:
                self._write(job, news)
            if is_over:
                del self._recorders[job.id]
                self._writers.pop(job.id, None)

    def _recorder(self, job: Job) -> Recorder:
        recorder = job.recorder
        if recorder is None:
            recorder = job.recorder = Recorder(job.started_at, self._max_spans)
        self._recorders[job.id] = job, recorder
        return recorder

    def _write(self, job: Job, news: dict[str, Any]) -> None:
        if not self._max_spans:
            return
        try:
            writer = self._writers.get(job.id)
            if writer is None:
                writer = RecordWriter(self._folder, job.id, self._max_records)
                self._writers[job.id] = writer
                writer.append({"job": _told(job)})
            writer.append(news)
        except RecordError as error:
            log.warning("%s; the job itself goes on", error)
            self._max_spans = 0


def _told(job: Job) -> dict[str, Any]:
    fields = {n: getattr(job, n) for n in ("id", "name", "state")}
    fields |= {"started_at": job.started_at, "ended_at": job.ended_at}
    program = Path(sys.argv[0]).name if sys.argv else ""
    return (
        fields
        | job.statistics.to_fields()
        | {"host": host_name(), "pid": os.getpid(), "program": program}
        | {"user": _user()}
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # a container may run as somebody without a name
        return str(os.getuid())
