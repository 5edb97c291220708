"""What ``opencluster status --json`` prints, made from a factory's answer.

Owns the names of its fields, which docs/status.md explains: they are added to and
never changed. Asks nobody and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Fields = Sequence[tuple[str, Any]]

_FACTORY: Fields = (
    ("endpoint", ""),
    ("pid", 0),
    ("role", ""),
    ("epoch", []),
    ("revision", 0),
    ("uptime_s", 0.0),
)
_REJECTIONS: Fields = (
    ("rejected_messages", 0),
    ("rejected_handshakes", 0),
    ("dropped_connections", 0),
)
_COMPUTER: Fields = (
    ("cpu_percent", None),
    ("cpu_count", None),
    ("load_1", None),
    ("memory_total_bytes", None),
    ("memory_used_bytes", None),
    ("disk_total_bytes", None),
    ("disk_used_bytes", None),
    ("network_received_bytes_per_s", None),
    ("network_sent_bytes_per_s", None),
    ("gpus", []),
)
_JOB: Fields = (
    ("id", ""),
    ("name", ""),
    ("state", ""),
    ("started_at", 0.0),
    ("ended_at", 0.0),
    ("elapsed_s", 0.0),
    ("pieces_submitted", 0),
    ("pieces_done", 0),
    ("pieces_failed", 0),
    ("pieces_retried", 0),
    ("bytes_sent", 0),
    ("bytes_received", 0),
)
_CAUSE: Fields = (
    ("reason", ""),
    ("exit_code", None),
    ("signal", ""),
    ("out_of_memory", False),
    ("peak_memory_bytes", 0),
    ("exceeded", ""),
    ("piece", ""),
    ("output", ""),
)
"""Fields that are taken over, each with what stands in for one that is missing."""

_STATES = {
    "busy": "busy",
    "draining": "draining",
    "stopped": "draining",
    "lost": "lost",
}
"""The state of a process in a heartbeat, and here; any other one is ``idle``."""


def status_of(answer: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return the status of a cluster.

    Parameters
    ----------
    answer : mapping
        What a factory says to ``status``: entries, figures, jobs and deaths.

    Returns
    -------
    dict
        Lists of ``factories``, ``workshops``, ``workers``, ``services``, ``jobs``,
        ``failures`` and ``deaths``; every row of a list has the same fields.
    """
    figures = answer.get("figures", {})
    entries = sorted(answer.get("entries", []), key=lambda entry: _order(entry["name"]))

    def of_kind(kind: str) -> list[tuple[Row, Mapping[str, Any]]]:
        found = [entry for entry in entries if entry["kind"] == kind]
        return [(entry, figures.get(entry["id"], {})) for entry in found]

    return {
        "factories": [_factory(row) for row in answer.get("factories", [])],
        "workshops": [_workshop(*pair) for pair in of_kind("workshop")],
        "workers": [_process(*pair) for pair in of_kind("worker")],
        "services": [_process(*pair) for pair in of_kind("service")],
        "jobs": [_take(row, _JOB) for row in answer.get("jobs", [])],
        "failures": [_failure(entry) for entry, _ in of_kind("failure")],
        "deaths": [_death(death) for death in answer.get("deaths", [])],
    }


def is_healthy(status: Mapping[str, list[Row]]) -> bool:
    """Return whether everybody who should be here is, and works."""
    members = [*status["workers"], *status["services"]]
    is_lost = any(member["state"] == "lost" for member in members)
    return bool(status["workshops"]) and not is_lost and not status["failures"]


def health(status: Mapping[str, list[Row]]) -> str:
    """Return how a cluster is in one line."""
    workers = status["workers"]
    running = sum(job["state"] == "running" for job in status["jobs"])
    parts = [
        counted(len(status["factories"]), "factory", "factories"),
        counted(len(status["workshops"]), "workshop"),
        counted(len(workers), "worker") + _states(workers),
    ]
    if status["services"]:
        services = status["services"]
        parts.append(counted(len(services), "service") + _states(services))
    parts.append(f"{counted(running, 'job')} running")
    failing = sorted({failure["type"] for failure in status["failures"]})
    if failing:
        parts.append(f"failing to start: {', '.join(failing)}")
    if not status["workshops"]:
        parts.append("nobody can start workers")
    word = "healthy" if is_healthy(status) else "in trouble"
    return f"{word}: {', '.join(parts)}"


# --- rows -------------------------------------------------------------------


def _take(source: Mapping[str, Any], fields: Fields) -> Row:
    return {name: source.get(name, default) for name, default in fields}


def _factory(row: Mapping[str, Any]) -> Row:
    return _take(row, _FACTORY) | _take(row, _REJECTIONS)


def _workshop(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> Row:
    names = ("id", "name", "host", "pid")
    return {
        **{name: entry[name] for name in names},
        "endpoint": _endpoint(entry),
        "catalogue": dict(entry["attributes"].get("catalogue", {})),
        **_take(figures, _COMPUTER),
        **_take(figures, _REJECTIONS),
    }


def _process(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> Row:
    names = ("id", "type", "name", "pid", "host")
    return {
        **{name: entry[name] for name in names},
        "endpoint": _endpoint(entry),
        "workshop": entry["workshop"],
        "state": _state(entry, figures),
        "pieces_done": figures.get("pieces_done", 0),
        "pieces_failed": figures.get("pieces_failed", 0),
        "piece": figures.get("piece", ""),
        "progress": _progress(figures),
        "rss_bytes": figures.get("rss_bytes"),
        "cpu_percent": figures.get("cpu_percent"),
        **_take(figures, _REJECTIONS),
    }


def _failure(entry: Mapping[str, Any]) -> Row:
    attributes = entry["attributes"]
    return {
        "type": entry["type"],
        "name": entry["name"],
        "host": entry["host"],
        "workshop": entry["workshop"],
        "failures": attributes.get("failures", 0),
        "is_failing": attributes.get("is_failing", False),
        "message": attributes.get("message", ""),
        "output": attributes.get("output", ""),
    }


def _death(death: Mapping[str, Any]) -> Row:
    names = ("id", "kind", "type", "name", "host", "pid", "at")
    return {name: death[name] for name in names} | _take(death["cause"], _CAUSE)


def _endpoint(entry: Mapping[str, Any]) -> str:
    return next(iter(entry["endpoints"]), "")


def _state(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    state = _STATES.get(figures.get("state", ""), "idle")
    if entry["attributes"].get("is_draining") and state != "lost":
        return "draining"
    return state


def _progress(figures: Mapping[str, Any]) -> float | None:
    """Return how far the running piece is, from 0 to 1, if it says so."""
    total = figures.get("progress_total", 0.0)
    if not figures.get("piece") or not total:
        return None
    return float(min(1.0, max(0.0, figures.get("progress_done", 0.0) / total)))


# --- words ------------------------------------------------------------------


def _order(name: str) -> tuple[str, int, str]:
    """Sort ``Word-10`` behind ``Word-9``."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number), name) if number.isdecimal() else (name, 0, name)


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _states(rows: Iterable[Row]) -> str:
    """Return how many are not idle, in brackets."""
    rows = list(rows)
    counts = {
        s: sum(r["state"] == s for r in rows) for s in ("busy", "draining", "lost")
    }
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f" ({listed})" if listed else ""
