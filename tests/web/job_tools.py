"""Timelines that are made by hand, and records of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opencluster.core.timeline import (
    CANCELLED,
    DONE,
    FAILED,
    RETRIED,
    Recorder,
    Timeline,
    extend,
)
from opencluster.store.job_records import RecordWriter

STARTED_AT = 1_800_000_000.0
NASTY = "bad <script>alert(1)</script> frame"
TYPES = ("Calibrate", "Image")


def job_row(id: str, **rest: Any) -> dict[str, Any]:
    """Return a job as the status has it."""
    row = {
        **{"id": id, "name": f"NightManager {id[:2]}", "state": "done"},
        **{"started_at": STARTED_AT, "ended_at": STARTED_AT + 60, "elapsed_s": 60.0},
        **{"priority": None, "orders": {}, "pieces_submitted": 10, "pieces_done": 8},
        **{"pieces_failed": 1, "pieces_retried": 1, "pieces_cut": 0},
        **{"bytes_sent": 0, "bytes_received": 0},
    }
    return row | rest


def news_of(
    spans: int, workers: int = 4, hosts: int = 2, length_s: float = 60.0
) -> dict[str, Any]:
    """Return what a recorder tells of a job: most is done, some is not."""
    recorder = Recorder(STARTED_AT, spans)
    per_worker = max(1, spans // workers)
    step = length_s / per_worker
    for number in range(spans):
        worker, turn = number % workers, number // workers
        outcome = DONE
        if number % 97 == 5:
            outcome = FAILED
        elif number % 89 == 7:
            outcome = RETRIED
        elif number % 101 == 9:
            outcome = CANCELLED
        took = step * (0.3 + 0.5 * ((number * 7919) % 100) / 100)
        host = f"node-{worker % hosts}"
        recorder.span(
            STARTED_AT + turn * step + took,
            took,
            f"{TYPES[worker % 2]}-{worker + 1}",
            host,
            TYPES[worker % 2],
            1,
            outcome,
            number,
        )
        if outcome == FAILED:
            trace = f"Traceback (most recent call last):\nValueError: {NASTY}"
            recorder.error(number, "ValueError", NASTY, trace, f"Image-{worker + 1}")
    news = recorder.take(True)
    assert news is not None
    return news


def timeline_of(id: str, spans: int, **shape: Any) -> Timeline:
    """Return a timeline of so many spans."""
    timeline = Timeline(job_row(id, pieces_done=spans, pieces_submitted=spans))
    extend(timeline, news_of(spans, **shape))
    return timeline


def write_record(folder: Path, job: dict[str, Any], news: dict[str, Any]) -> None:
    """Write what a manager writes of a job."""
    writer = RecordWriter(folder, job["id"], 100)
    writer.append({"job": job | {"state": "running"}})
    writer.append(news)
    writer.append({"job": job})
