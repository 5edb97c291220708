"""What ``opencluster status --json`` prints, made from a factory's answer.

Owns the names of its fields, which docs/status.md explains: they are added to and
never changed. Asks nobody and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opencluster.core.elastic_report import acting, is_report, types_in

Row = dict[str, Any]
Fields = Sequence[tuple[str, Any, type | tuple[type, ...]]]
"""Fields that are taken over: the name of each, what stands in for one that is missing
or of another type, and its types. Any process may have said anything of itself."""

_NUMBER = (int, float)
MAX_DIGITS = 18
"""Longest number at the end of a name by which rows are sorted."""

_FACTORY: Fields = (
    ("endpoint", "", str),
    ("pid", 0, int),
    ("role", "", str),
    ("epoch", [], list),
    ("revision", 0, int),
    ("lag", None, _NUMBER),
    ("silence_s", None, _NUMBER),
    ("uptime_s", 0.0, _NUMBER),
    ("has_other_list", False, bool),
)
_REJECTIONS: Fields = (
    ("rejected_messages", 0, int),
    ("rejected_handshakes", 0, int),
    ("dropped_connections", 0, int),
    ("rejected_credentials", 0, int),
)
_COMPUTER: Fields = (
    ("cpu_percent", None, _NUMBER),
    ("cpu_count", None, _NUMBER),
    ("load_1", None, _NUMBER),
    ("memory_total_bytes", None, _NUMBER),
    ("memory_used_bytes", None, _NUMBER),
    ("disk_total_bytes", None, _NUMBER),
    ("disk_used_bytes", None, _NUMBER),
    ("network_received_bytes_per_s", None, _NUMBER),
    ("network_sent_bytes_per_s", None, _NUMBER),
    ("gpus", [], list),
)
_JOB: Fields = (
    ("id", "", str),
    ("name", "", str),
    ("state", "", str),
    ("started_at", 0.0, _NUMBER),
    ("ended_at", 0.0, _NUMBER),
    ("elapsed_s", 0.0, _NUMBER),
    ("priority", None, int),
    ("orders", {}, Mapping),
    ("pieces_submitted", 0, int),
    ("pieces_done", 0, int),
    ("pieces_failed", 0, int),
    ("pieces_retried", 0, int),
    ("pieces_cut", 0, int),
    ("bytes_sent", 0, int),
    ("bytes_received", 0, int),
    ("unreached", [], list),
)
_CAUSE: Fields = (
    ("reason", "", str),
    ("exit_code", None, int),
    ("signal", "", str),
    ("out_of_memory", False, bool),
    ("peak_memory_bytes", 0, int),
    ("exceeded", "", str),
    ("piece", "", str),
    ("output", "", str),
)
_GPU: Fields = (
    ("uuid", "", str),
    ("name", "", str),
    ("memory_total_bytes", None, _NUMBER),
    ("memory_used_bytes", None, _NUMBER),
    ("utilization_percent", None, _NUMBER),
    ("temperature_c", None, _NUMBER),
)
_ERROR: Fields = (
    ("at", 0.0, _NUMBER),
    ("piece", "", str),
    ("kind", "", str),
    ("message", "", str),
)
_WORK: Fields = (
    ("pieces_done", 0, int),
    ("pieces_failed", 0, int),
    ("kept_bytes", 0, int),
    ("piece", "", str),
)
_PROGRESS: Fields = (
    ("progress_done", 0.0, _NUMBER),
    ("progress_total", 0.0, _NUMBER),
)
_USE: Fields = (
    ("rss_bytes", None, _NUMBER),
    ("cpu_percent", None, _NUMBER),
)
_ELASTIC: Fields = (
    ("type", "", str),
    ("state", "", str),
    ("reason", "", str),
    ("pieces", 0, int),
    ("mean_s", None, _NUMBER),
    ("running", 0, int),
    ("coming", 0, int),
    ("wanted", 0, int),
)
_KEEPER: Fields = (("id", "", str), ("host", "", str), ("pid", 0, int))
_FAILURE: Fields = (
    ("failures", 0, int),
    ("is_failing", False, bool),
    ("message", "", str),
    ("output", "", str),
)

_STATES = {
    "busy": "busy",
    "draining": "draining",
    "handing_over": "draining",
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
        ``elastic``, ``failures`` and ``deaths``; every row of a list has the same
        fields.
    """
    figures = answer.get("figures", {})
    reports = answer.get("jobs", [])
    entries = sorted(answer.get("entries", []), key=lambda entry: _order(entry["name"]))

    def of_kind(kind: str) -> list[tuple[Row, Mapping[str, Any]]]:
        found = [entry for entry in entries if entry["kind"] == kind]
        return [(entry, figures.get(entry["id"], {})) for entry in found]

    return {
        "factories": [_factory(row) for row in answer.get("factories", [])],
        "workshops": [_workshop(*pair) for pair in of_kind("workshop")],
        "workers": [_process(*pair) for pair in of_kind("worker")],
        "services": [_process(*pair) for pair in of_kind("service")],
        "jobs": [_take(row, _JOB) for row in reports if not is_report(row)],
        "elastic": _elastic(reports),
        "failures": [_failure(entry) for entry, _ in of_kind("failure")],
        "deaths": [_death(death) for death in answer.get("deaths", [])],
    }


def is_healthy(status: Mapping[str, list[Row]]) -> bool:
    """Return whether everybody who should be here is, and works."""
    members = [*status["workers"], *status["services"]]
    is_lost = any(member["state"] == "lost" for member in members)
    is_led = any(row["role"] == "leader" for row in status["factories"])
    is_whole = is_led and not _absent(status) and not _strayed(status)
    is_well = is_whole and not (is_lost or status["failures"] or _halted(status))
    return bool(status["workshops"]) and is_well


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
    unreached = [job for job in status["jobs"] if is_cut_off(job)]
    if unreached:
        parts.append(f"{counted(len(unreached), 'job')} without a way to some workers")
    failing = sorted({failure["type"] for failure in status["failures"]})
    if failing:
        parts.append(f"failing to start: {', '.join(failing)}")
    if _halted(status):
        parts.append(f"nothing launches {', '.join(_halted(status))} any more")
    if _absent(status):
        parts.append(f"{counted(_absent(status), 'factory', 'factories')} absent")
    if _strayed(status):
        strayed = counted(_strayed(status), "factory", "factories")
        parts.append(f"{strayed} with another [cluster] factories than the leader")
    if not any(row["role"] == "leader" for row in status["factories"]):
        parts.append("no factory leads, so this may be old")
    if not status["workshops"]:
        parts.append("nobody can start workers")
    word = "healthy" if is_healthy(status) else "in trouble"
    return f"{word}: {', '.join(parts)}"


def is_cut_off(job: Row) -> bool:
    """Return whether a job runs whose manager does not reach all workers."""
    return job["state"] == "running" and bool(job["unreached"])


def _halted(status: Mapping[str, list[Row]]) -> list[str]:
    """Return the elastic types that nobody launches workers of."""
    rows = status["elastic"]
    return [row["type"] for row in rows if row["state"] in ("stopped", "lost")]


def _absent(status: Mapping[str, list[Row]]) -> int:
    return sum(row["role"] == "absent" for row in status["factories"])


def _strayed(status: Mapping[str, list[Row]]) -> int:
    return sum(row["has_other_list"] for row in status["factories"])


# --- rows -------------------------------------------------------------------


def _take(source: Mapping[str, Any], fields: Fields) -> Row:
    found = ((name, source.get(name), default, kind) for name, default, kind in fields)
    return {n: value if isinstance(value, k) else d for n, value, d, k in found}


def _factory(row: Mapping[str, Any]) -> Row:
    return _take(row, _FACTORY) | _take(row, _REJECTIONS)


def _workshop(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> Row:
    names = ("id", "name", "host", "pid")
    catalogue = entry["attributes"].get("catalogue")
    known = catalogue.items() if isinstance(catalogue, Mapping) else ()
    computer = _take(figures, _COMPUTER)
    gpus = [_take(gpu, _GPU) for gpu in computer["gpus"] if isinstance(gpu, Mapping)]
    return {
        **{name: entry[name] for name in names},
        "endpoint": _endpoint(entry),
        "catalogue": {str(type): str(kind) for type, kind in known},
        "is_drained": entry["attributes"].get("is_drained") is True,
        **computer,
        "gpus": gpus,
        **_take(figures, _REJECTIONS),
    }


def _process(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> Row:
    names = ("id", "type", "name", "pid", "host")
    work = _take(figures, _WORK)
    error = _take(figures, (("last_error", {}, Mapping),))["last_error"]
    done, total = _take(figures, _PROGRESS).values()
    return {
        **{name: entry[name] for name in names},
        "endpoint": _endpoint(entry),
        "workshop": entry["workshop"],
        "state": _state(entry, figures),
        **work,
        "last_error": _take(error, _ERROR) if error else None,
        "progress": _progress(done, total) if work["piece"] else None,
        **_take(figures, _USE),
        **_take(figures, _REJECTIONS),
    }


def _failure(entry: Mapping[str, Any]) -> Row:
    names = ("type", "name", "host", "workshop")
    return {name: entry[name] for name in names} | _take(entry["attributes"], _FAILURE)


def _death(death: Mapping[str, Any]) -> Row:
    names = ("id", "kind", "type", "name", "host", "pid", "at")
    return {name: death[name] for name in names} | _take(death["cause"], _CAUSE)


def _elastic(reports: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return how elastic types stand, by who launches them or did last."""
    row = acting(reports)
    last = max(filter(is_report, reports), key=_reported_at, default=None)
    if row is None and last is not None and last.get("state") == "lost":
        where = f"`opencluster elastic run` on {last.get('host', '?')}"
        cure = "run it again, or `opencluster up`"
        why = {"state": "lost", "reason": f"{where} is not heard any more: {cure}"}
        return [
            _take({**type, **why}, _ELASTIC) | _take(last, _KEEPER)
            for type in types_in(last)
        ]
    types = () if row is None else types_in(row)
    return [_take(type, _ELASTIC) | _take(row or {}, _KEEPER) for type in types]


def _reported_at(row: Mapping[str, Any]) -> float:
    at = row.get("reported_at")
    return float(at) if isinstance(at, int | float) else 0.0


def _endpoint(entry: Mapping[str, Any]) -> str:
    return next(iter(entry["endpoints"]), "")


def _state(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    state = _STATES.get(str(figures.get("state")), "idle")
    if entry["attributes"].get("is_draining") and state != "lost":
        return "draining"
    return state


def _progress(done: float, total: float) -> float | None:
    """Return how far a piece is, from 0 to 1, if it says so."""
    return float(min(1.0, max(0.0, done / total))) if total else None


# --- words ------------------------------------------------------------------


def _order(name: str) -> tuple[str, int, str]:
    """Sort ``Word-10`` behind ``Word-9``."""
    stem, _, number = name.rpartition("-")
    is_number = number.isdecimal() and len(number) <= MAX_DIGITS
    return (stem, int(number), name) if is_number else (name, 0, name)


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
