"""How long the web pages take to answer, for a large cluster with a long history."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from flask import Flask

from opencluster import WorkPiece
from opencluster.core.timeline import DONE, FAILED, Recorder
from opencluster.observe.status import status_of
from opencluster.place import Place
from opencluster.store.history import History
from opencluster.store.job_records import RecordWriter
from opencluster.taskqueue import Request, TaskQueue
from opencluster_web.application import WebSettings, close_app, create_app
from opencluster_web.cluster.source import ClusterSource, Look

TARGET_MS = 300.0
COMPUTERS, WORKERS = 50, 200
MANY = 100_000
"""Pieces of a job, jobs of the history, and tasks of the queue."""
FEW = 2_000
RUNS = 20
ID = "b0b0b0b0b0b0"
TYPES = ("Calibrate", "Image", "Clean", "Archive")
PAGES = (
    *("/", "/computers", "/computers/node-7", "/workers", "/services", "/factories"),
    *("/events", "/jobs/", f"/jobs/{ID}", f"/jobs/{ID}/figure", f"/jobs/{ID}/spans"),
    *(f"/jobs/{ID}/rates", f"/jobs/{ID}/histogram", "/tasks/", "/tasks/?state=queued"),
    *("/tasks/?before=50000", "/tasks/1000", "/letters", "/logs", "/api/v1/status"),
)
"""What is measured, as far as it is there: what asks every computer is not."""


class StillSource(ClusterSource):
    """A cluster that never changes, so that pages alone are measured."""

    def __init__(self, place: Place, status: dict[str, Any]) -> None:
        from opencluster.config import Config

        super().__init__(Config(), place)
        self._still = Look(status, "")

    def look(self) -> Look:
        """Return the same each time."""
        return self._still


def measure(quick: bool) -> None:
    """Print how long each page takes, at the median and at worst."""
    many, runs = (FEW, 3) if quick else (MANY, RUNS)
    with tempfile.TemporaryDirectory() as folder, filled(Path(folder), many) as app:
        client = app.test_client()
        click.echo(f"{'page':<34}{'median':>10}{'worst':>10}   (ms, of {runs})")
        slow = 0
        for address in PAGES:
            times = []
            for _ in range(runs):
                begun = time.perf_counter()
                answer = client.get(address, follow_redirects=True)
                times.append(1e3 * (time.perf_counter() - begun))
            if answer.status_code == 404:
                continue
            middle, worst = statistics.median(times), max(times)
            is_slow = middle > TARGET_MS
            slow += is_slow
            word = f" above {TARGET_MS:.0f}" * is_slow
            shown = "" if answer.status_code == 200 else f" ({answer.status_code})"
            click.echo(f"{address:<34}{middle:>10.1f}{worst:>10.1f}{word}{shown}")
        click.echo(f"{slow} pages above {TARGET_MS:.0f} ms" if slow else "all in time")


@contextmanager
def filled(folder: Path, many: int) -> Iterator[Flask]:
    """Yield an application for a cluster that has much to show.

    Parameters
    ----------
    folder : Path
        Where its files are made.
    many : int
        Pieces, jobs and tasks.
    """
    place = Place(folder / "cluster")
    place.path.mkdir(mode=0o700)
    now = time.time()
    _record(place, many, now - 3600)
    history = History(place.path / "history.db")
    for start in range(0, many, 10_000):
        history.finish(_job(n, now) for n in range(start, min(many, start + 10_000)))
    history.close()
    with TaskQueue(f"sqlite:///{place.path / 'tasks.db'}") as queue:
        request = Request(
            "/nights/night.py:NightManager", WorkPiece(night="2026-12-01")
        )
        for start in range(0, many, 10_000):
            queue.submit_all([request] * (min(many, start + 10_000) - start))
    settings = WebSettings(place=place, accounts=place.path / "web.db", guests=True)
    app = create_app(settings)
    app.extensions["opencluster_cluster"].close()
    app.extensions["opencluster_cluster"] = StillSource(place, _status(now))
    try:
        yield app
    finally:
        close_app(app)


def _job(number: int, now: float) -> dict[str, Any]:
    return {
        **{"id": f"{number:012x}", "name": "NightManager", "state": "done"},
        **{"started_at": now - 4000 - number, "ended_at": now - 3990 - number},
        **{"elapsed_s": 10.0, "pieces_submitted": 100, "pieces_done": 100},
        **{"pieces_failed": 0, "pieces_retried": 0},
    }


def _record(place: Place, many: int, began: float) -> None:
    chance = random.Random(1)
    recorder = Recorder(began, many)
    free = [began] * WORKERS
    for number in range(many):
        worker = number % WORKERS
        took = chance.uniform(0.5, 1.5) * 3000 * WORKERS / many
        free[worker] += took
        type = TYPES[worker % len(TYPES)]
        outcome = FAILED if number % 1000 == 7 else DONE
        host = f"node-{worker % COMPUTERS}"
        name = f"{type}-{worker}"
        recorder.span(free[worker], took, name, host, type, 1, outcome, number)
    job = _job(0, began + 4000) | {"id": ID, "started_at": began, "elapsed_s": 3000.0}
    writer = RecordWriter(place.jobs, ID, 10)
    writer.append({"job": job})
    writer.append(recorder.take(True) or {})
    writer.append({"job": job})


def _status(now: float) -> dict[str, Any]:
    """Return the status of computers that all work."""
    entries: list[dict[str, Any]] = []
    figures: dict[str, dict[str, Any]] = {}
    empty: dict[str, Any] = {"endpoints": [], "attributes": {}}
    for number in range(COMPUTERS):
        host = f"node-{number}"
        names = {"id": f"s{number}", "kind": "workshop", "type": "", "name": host}
        entries.append(names | {"pid": 1, "host": host, "workshop": ""} | empty)
        figures[f"s{number}"] = {
            **{"cpu_percent": 50.0, "cpu_count": 64, "memory_total_bytes": 256 << 30},
            **{"memory_used_bytes": 64 << 30, "disk_total_bytes": 1 << 40},
            **{"disk_used_bytes": 1 << 39, "load_1": 31.0},
        }
    for number in range(WORKERS):
        type, host = TYPES[number % len(TYPES)], number % COMPUTERS
        names = {"id": f"w{number}", "kind": "worker", "type": type}
        names |= {"name": f"{type}-{number}", "host": f"node-{host}"}
        entries.append(names | {"pid": number, "workshop": f"s{host}"} | empty)
        figures[f"w{number}"] = {
            **{"state": "busy", "piece": f"{number}", "pieces_done": MANY // WORKERS},
            **{"rss_bytes": 1 << 30, "cpu_percent": 99.0},
        }
    leader = {"endpoint": "tcp://a:4700", "role": "leader"}
    jobs = [_job(number, now) for number in range(100)]
    answer = {"entries": entries, "figures": figures, "factories": [leader]}
    return status_of(answer | {"jobs": jobs, "deaths": []})
