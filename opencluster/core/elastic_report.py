"""What managers and whoever looks after elastic types tell each other by factories.

The one who launches workers reports to the factories as managers report their jobs: its
report is a row of its own kind among theirs, lives as long as it is renewed, and takes
orders. So managers learn, with the answer to each report, for which types workers will
come; and they say with their own reports how much of these types they have to do.

Rules that this module keeps:

1. Of several who would launch workers the one that began first does; the others wait.
2. What is told of a type that is stopped is told, but nobody waits for its workers.
3. What comes in a message may be anything: figures that are none count as none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from opencluster.core.metrics import Labels, Metric, Named, each

if TYPE_CHECKING:
    from opencluster.core.elasticity import Standing

ELASTIC = "elastic"
"""The ``kind`` of such a row; those of jobs have none."""
QUEUED = "queued"
"""Where a manager tells of its work: by type, the fields of a `Work`."""
MAX_PIECES = 10**12

Row = Mapping[str, Any]


class Work(NamedTuple):
    """What there is to do of a type.

    Attributes
    ----------
    pieces : int
        Pieces that are not done.
    mean_s : float or None
        How long one takes, in seconds, if that is known.
    """

    pieces: int = 0
    mean_s: float | None = None


def is_report(row: Row) -> bool:
    """Return whether a row is of one who launches workers."""
    return row.get("kind") == ELASTIC


def report_of(
    identity: str, started_at: float, standings: Iterable[Standing], **about: Any
) -> dict[str, Any]:
    """Return the row of one who launches workers.

    Parameters
    ----------
    identity : str
        Whose.
    started_at : float
        When it began, in seconds since 1970.
    standings : iterable of Standing
        How each type stands.
    **about : object
        Further fields, such as the host and the process.
    """
    return {
        "id": identity,
        "kind": ELASTIC,
        "name": ELASTIC,
        "state": "running",
        "started_at": started_at,
        "types": [asdict(standing) for standing in standings],
        **about,
    }


def acting(rows: Iterable[Row]) -> Row | None:
    """Return the row of the one who launches workers now, if there is one."""
    running = [r for r in rows if is_report(r) and r.get("state") == "running"]
    return min(running, key=_seniority, default=None)


def expected(rows: Iterable[Row]) -> list[str]:
    """Return the types of which workers will come when there is work for them."""
    row = acting(rows)
    types = [] if row is None else types_in(row)
    return [str(t["type"]) for t in types if t.get("state") != "stopped"]


def types_in(row: Row) -> list[Row]:
    """Return how the types stand in the row of one who launches workers."""
    types = row.get("types")
    if not isinstance(types, list | tuple):
        return []
    rows = [row for row in types if isinstance(row, Mapping)]
    return [row for row in rows if isinstance(row.get("type"), str)]


def metrics_of(rows: Iterable[Row]) -> list[Metric]:
    """Return numbers by which elasticity is watched, of what is told of it."""
    row = acting(rows)
    figures: dict[Labels, Row] = {}
    for type in () if row is None else types_in(row):
        is_stopped = {"is_stopped": int(type.get("state") == "stopped")}
        figures[(("type", str(type["type"])),)] = {**type, **is_stopped}
    names: list[Named] = [
        ("elastic_pieces", "pieces", 1, "Pieces of elastic types that are not done."),
        ("elastic_running", "running", 1, "Workers of elastic types."),
        ("elastic_coming", "coming", 1, "Workers that were asked for."),
        ("elastic_wanted", "wanted", 1, "Workers that there should be."),
        ("elastic_stopped", "is_stopped", 1, "1 where launching failed too often."),
    ]
    return each(names, figures)


def work_in(rows: Iterable[Row]) -> dict[str, Work]:
    """Return how much there is to do of each type, by what managers say of it.

    Parameters
    ----------
    rows : iterable of mapping
        The rows of jobs.
    """
    pieces: dict[str, int] = {}
    known: dict[str, tuple[int, float]] = {}
    for row in rows:
        told = row.get(QUEUED)
        if row.get("state") != "running" or not isinstance(told, Mapping):
            continue
        for type, work in told.items():
            count, mean_s = _read(work)
            pieces[type] = pieces.get(type, 0) + count
            if mean_s is not None and count:
                many, total_s = known.get(type, (0, 0.0))
                known[type] = (many + count, total_s + count * mean_s)
    means = {type: total_s / count for type, (count, total_s) in known.items()}
    return {type: Work(count, means.get(type)) for type, count in pieces.items()}


def _read(work: Any) -> Work:
    """Return what a manager says of a type, nothing where that makes no sense."""
    if not isinstance(work, list | tuple) or len(work) != 2:
        return Work()
    count, mean_s = work
    if type(count) is not int or not 0 <= count <= MAX_PIECES:
        return Work()
    if type(mean_s) not in (int, float) or not 0.0 <= mean_s < math.inf:
        return Work(count)
    return Work(count, float(mean_s))


def _seniority(row: Row) -> tuple[float, str]:
    began = row.get("started_at")
    is_time = isinstance(began, int | float) and math.isfinite(began)
    return float(began or 0.0) if is_time else math.inf, str(row.get("id", ""))
