"""A few numbers of a cluster and of each computer, from one look at its status.

They are what is kept of a night, so that somebody who comes in the morning sees it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Status = Mapping[str, Sequence[Row]]
Sample = dict[str, float]

CLUSTER = ""
"""The subject of a sample of the whole cluster."""
FIELDS = (
    *("cpu", "memory", "memory_total", "disk", "disk_total"),
    *("network_in", "network_out", "gpu", "gpu_memory"),
    *("workers", "busy", "lost", "pieces", "failures", "jobs"),
    *("waiting", "queued"),
)
"""Of a sample: parts of one (``cpu``, ``gpu``, ``gpu_memory``), bytes, bytes and pieces
a second (``network_in``, ``network_out``, ``pieces``, ``failures``), and counts:
``jobs`` that run, their pieces that wait (``waiting``), tasks that do (``queued``)."""
_ADDED = (
    *("cpus", "memory", "memory_total", "disk", "disk_total"),
    *("network_in", "network_out"),
)
"""What the computers have together; the rest is a mean or told of all workers."""


def samples_of(
    status: Status,
    before: Status | None = None,
    elapsed_s: float = 0.0,
    queued: int = 0,
) -> dict[str, Sample]:
    """Return a sample of each computer, by its name, and of the `CLUSTER`.

    Parameters
    ----------
    status : mapping
        What ``opencluster status --json`` prints.
    before : mapping, optional
        The same of the look before, for rates.
    elapsed_s : float
        How long ago that was.
    queued : int
        Tasks that wait in the queue, which a status does not tell.
    """
    rates = _rates(status, before, elapsed_s)
    workers: dict[str, list[Row]] = defaultdict(list)
    for worker in status["workers"]:
        workers[worker["workshop"]].append(worker)
    samples = {
        row["name"]: _computer(row) | _working(workers[row["id"]], rates)
        for row in status["workshops"]
    }
    everybody = _working(status["workers"], rates)
    running = [row for row in status["jobs"] if row["state"] == "running"]
    samples[CLUSTER] = {
        **_sum(samples.values()),
        **everybody,
        "jobs": len(running),
        "waiting": max(0, sum(map(_unfinished, running)) - everybody["busy"]),
        "queued": queued,
    }
    return samples


def _unfinished(job: Row) -> int:
    ended = job["pieces_done"] + job["pieces_failed"]
    return max(0, int(job["pieces_submitted"] - ended))


def _rates(
    status: Status, before: Status | None, elapsed_s: float
) -> dict[str, tuple[float, float]]:
    """Return how many pieces each worker did and failed a second."""
    if before is None or elapsed_s <= 0:
        return {}
    old = {row["id"]: row for row in before["workers"]}
    rates = {}
    for row in status["workers"]:
        was = old.get(row["id"], {"pieces_done": 0, "pieces_failed": 0})
        done = max(0, row["pieces_done"] - was["pieces_done"])
        failed = max(0, row["pieces_failed"] - was["pieces_failed"])
        rates[row["id"]] = (done / elapsed_s, failed / elapsed_s)
    return rates


def _computer(row: Row) -> Sample:
    gpus = row["gpus"]
    used, total = _all(gpus, "memory_used_bytes"), _all(gpus, "memory_total_bytes")
    return {
        "cpu": (row["cpu_percent"] or 0.0) / 100,
        "cpus": row["cpu_count"] or 0,
        "memory": row["memory_used_bytes"] or 0,
        "memory_total": row["memory_total_bytes"] or 0,
        "disk": row["disk_used_bytes"] or 0,
        "disk_total": row["disk_total_bytes"] or 0,
        "network_in": row["network_received_bytes_per_s"] or 0.0,
        "network_out": row["network_sent_bytes_per_s"] or 0.0,
        "gpu": _all(gpus, "utilization_percent") / 100 / len(gpus) if gpus else 0.0,
        "gpu_memory": used / total if total else 0.0,
    }


def _all(rows: Iterable[Row], name: str) -> float:
    return float(sum(row[name] or 0 for row in rows))


def _working(
    workers: Sequence[Row], rates: Mapping[str, tuple[float, float]]
) -> Sample:
    states = [row["state"] for row in workers]
    own = [rates.get(row["id"], (0.0, 0.0)) for row in workers]
    return {
        "workers": len(workers),
        "busy": states.count("busy"),
        "lost": states.count("lost"),
        "pieces": sum(done for done, _ in own),
        "failures": sum(failed for _, failed in own),
        "jobs": 0,
        "waiting": 0,
        "queued": 0,
    }


def _sum(samples: Iterable[Sample]) -> Sample:
    """Return all computers together; how much of the processors, by their number."""
    rows = list(samples)
    cpus = sum(row["cpus"] for row in rows)
    with_gpu = [row for row in rows if row["gpu_memory"] or row["gpu"]]
    whole = {name: sum(row[name] for row in rows) for name in _ADDED}
    whole["cpu"] = sum(r["cpu"] * r["cpus"] for r in rows) / cpus if cpus else 0.0
    for name in ("gpu", "gpu_memory"):
        whole[name] = sum(row[name] for row in with_gpu) / max(1, len(with_gpu))
    return whole
