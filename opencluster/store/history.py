"""What a cluster was like: samples, finished jobs and events, in SQLite.

Samples grow coarse as they grow old: those of a few seconds are kept for a day, means
of a minute for weeks, and means of ten minutes for more than a year. So a page that
shows a night or a summer reads a few hundred rows, and the file does not grow for ever.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opencluster.core.journal import Event
from opencluster.core.sampling import FIELDS, Sample
from opencluster.errors import HistoryError

try:
    import sqlalchemy as sql
    from sqlalchemy import event
    from sqlalchemy.dialects.sqlite import insert
    from sqlalchemy.exc import SQLAlchemyError
except ModuleNotFoundError as missing:
    raise HistoryError(
        f"the history needs the Python package {missing.name}: install it with "
        "pip install 'opencluster[web]'"
    ) from missing

DAY_S = 86_400
TIERS = ((5, DAY_S), (60, 21 * DAY_S), (600, 400 * DAY_S))
"""Seconds of a sample, and seconds for which such samples are kept."""
EVENTS_S = 400 * DAY_S
"""How long events and jobs are kept."""
BUSY_S = 5.0

_tables = sql.MetaData()
_SAMPLES = sql.Table(
    "opencluster_samples",
    _tables,
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("subject", sql.Text, primary_key=True),
    sql.Column("at", sql.Integer, primary_key=True),
    *(sql.Column(name, sql.Float, nullable=False) for name in FIELDS),
    # for `everybody`, which would read all that was kept else
    sql.Index("opencluster_samples_at", "step", "at"),
    sqlite_with_rowid=False,
)
_EVENTS = sql.Table(
    "opencluster_events",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False, index=True),
    *(
        sql.Column(name, sql.Text, nullable=False)
        for name in ("kind", "weight", "subject", "host", "text", "details")
    ),
    *(
        sql.Index(f"opencluster_events_{name}", name, "id")
        for name in ("kind", "weight", "host")
    ),
)
_JOBS = sql.Table(
    "opencluster_jobs",
    _tables,
    sql.Column("id", sql.Text, primary_key=True),
    sql.Column("started_at", sql.Float, nullable=False, index=True),
    sql.Column("ended_at", sql.Float, nullable=False),
    sql.Column("fields", sql.Text, nullable=False),
)


def step_of(span_s: float, most: int) -> int:
    """Return the seconds of a sample, so that there are not more than wanted."""
    for step, _ in TIERS:
        if span_s / step <= most:
            return step
    coarsest = TIERS[-1][0]
    return math.ceil(span_s / most / coarsest) * coarsest


@dataclass(frozen=True)
class Recorded:
    """An event, and when it was seen.

    Attributes
    ----------
    id : int
        Grows with time.
    at : float
        Seconds since 1970.
    event : Event
        What happened.
    """

    id: int
    at: float
    event: Event


class History:
    """Keeps what was; may be used from several threads and processes.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    HistoryError
        When it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._coarsened: dict[int, int] = {}
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise HistoryError(f"no history in {path}: {error.strerror}") from None
        self._engine = sql.create_engine(
            f"sqlite:///{path}", connect_args={"timeout": BUSY_S}
        )
        event.listen(self._engine, "connect", _prepare)
        self._do(_tables.create_all)

    def note(self, at: float, samples: Mapping[str, Sample]) -> None:
        """Keep samples, and make coarser ones of those that are complete.

        Parameters
        ----------
        at : float
            When they were taken, seconds since 1970.
        samples : mapping
            By the name of the computer, as `core.sampling` makes them.
        """
        step = TIERS[0][0]
        rows = [
            {"step": step, "subject": subject, "at": int(at) // step * step}
            | {name: float(sample[name]) for name in FIELDS}
            for subject, sample in samples.items()
        ]

        def work(connection: sql.Connection) -> None:
            if rows:
                connection.execute(insert(_SAMPLES).on_conflict_do_nothing(), rows)
            for (fine, _), (coarse, _) in zip(TIERS, TIERS[1:], strict=False):
                self._coarsen(connection, fine, coarse, int(at))

        self._do(work)

    def record(self, at: float, events: Iterable[Event]) -> None:
        """Keep events."""
        rows = [asdict(each) | {"at": at} for each in events]
        if rows:
            self._do(lambda connection: connection.execute(_EVENTS.insert(), rows))

    def finish(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        """Keep jobs that have ended."""
        rows = [
            {
                "id": job["id"],
                "started_at": job["started_at"],
                "ended_at": job["ended_at"],
                "fields": json.dumps(dict(job)),
            }
            for job in jobs
        ]
        if rows:
            kept = insert(_JOBS).on_conflict_do_nothing()
            self._do(lambda connection: connection.execute(kept, rows))

    def samples(
        self, subject: str, start: float, end: float, most: int = 720
    ) -> dict[str, Sequence[float]]:
        """Return the samples of a computer, or of the cluster, over some time.

        Parameters
        ----------
        subject : str
            The computer's name; empty for the cluster.
        start, end : float
            Seconds since 1970.
        most : int
            Samples that are wanted at most; the finest that are not more are taken, and
            of the coarsest kind means.

        Returns
        -------
        dict
            ``at`` and each of `core.sampling.FIELDS`: sequences of equal length. What
            is too new for coarse samples is made of the fine ones.
        """
        step = step_of(end - start, most)
        columns = [_SAMPLES.c[name] for name in FIELDS]

        def work(connection: sql.Connection) -> list[Any]:
            coarse = next(s for s, _ in reversed(TIERS) if step % s == 0)
            rows: list[Any] = []
            for kept in sorted({coarse, TIERS[0][0]}, reverse=True):
                slot = (_SAMPLES.c.at // step * step).label("slot")
                begin = rows[-1][0] + step if rows else start // step * step
                question = (
                    sql.select(slot, *map(sql.func.avg, columns))
                    .where(_SAMPLES.c.step == kept, _SAMPLES.c.subject == subject)
                    .where(_SAMPLES.c.at.between(begin, end))
                    .group_by(slot)
                    .order_by(slot)
                )
                rows += connection.execute(question).all()
            return rows

        names = ("at", *FIELDS)
        columns_of = list(zip(*self._do(work), strict=True)) or [()] * len(names)
        return dict(zip(names, columns_of, strict=True))

    def everybody(
        self, field: str, start: float, end: float
    ) -> dict[str, list[tuple[float, float]]]:
        """Return means of a minute of one field, of each computer and the cluster.

        Returns
        -------
        dict
            Pairs of a time and a value by the subject.
        """
        minute = TIERS[1][0]
        question = (
            sql.select(_SAMPLES.c.subject, _SAMPLES.c.at, _SAMPLES.c[field])
            .where(_SAMPLES.c.step == minute, _SAMPLES.c.at.between(start, end))
            .order_by(_SAMPLES.c.subject, _SAMPLES.c.at)
        )
        found: dict[str, list[tuple[float, float]]] = {}
        for subject, at, value in self._do(lambda c: c.execute(question).all()):
            found.setdefault(subject, []).append((at, value))
        return found

    def events(
        self,
        before: int = 0,
        limit: int = 100,
        weights: Sequence[str] = (),
        kinds: Sequence[str] = (),
        host: str = "",
        since: float = 0.0,
    ) -> list[Recorded]:
        """Return events, the newest first.

        Parameters
        ----------
        before : int
            Only those with a smaller ``id``; 0 for the newest of all.
        limit : int
            How many at most.
        weights, kinds : sequence of str
            Only those that matter so much, or are of these kinds; by default all.
        host : str
            Only those of this computer; by default of all.
        since : float
            Only those that were seen later, seconds since 1970.
        """
        question = sql.select(_EVENTS).order_by(_EVENTS.c.id.desc()).limit(limit)
        if before:
            question = question.where(_EVENTS.c.id < before)
        if weights:
            question = question.where(_EVENTS.c.weight.in_(weights))
        if kinds:
            question = question.where(_EVENTS.c.kind.in_(kinds))
        if host:
            question = question.where(_EVENTS.c.host == host)
        if since:
            question = question.where(_EVENTS.c.at > since)
        rows = self._do(
            lambda connection: connection.execute(question).mappings().all()
        )
        return [_recorded(row) for row in rows]

    def jobs(self, limit: int = 100, before: float = 0.0) -> list[dict[str, Any]]:
        """Return finished jobs, the newest first.

        Parameters
        ----------
        limit : int
            How many at most.
        before : float
            Only those that began earlier; 0 for all.
        """
        question = sql.select(_JOBS.c.fields).order_by(_JOBS.c.started_at.desc())
        if before:
            question = question.where(_JOBS.c.started_at < before)
        rows = self._do(lambda c: c.execute(question.limit(limit)).scalars().all())
        return [json.loads(row) for row in rows]

    def job(self, id: str) -> dict[str, Any] | None:
        """Return a finished job, or ``None`` if it is not known."""
        question = sql.select(_JOBS.c.fields).where(_JOBS.c.id == id)
        found = self._do(lambda connection: connection.execute(question).scalar())
        return None if found is None else dict(json.loads(found))

    def forget(self, now: float) -> None:
        """Remove what is older than it is kept."""

        def work(connection: sql.Connection) -> None:
            for step, kept_s in TIERS:
                is_old = _SAMPLES.c.at < now - kept_s
                gone = _SAMPLES.delete().where(_SAMPLES.c.step == step, is_old)
                connection.execute(gone)
            for table, column in ((_EVENTS, "at"), (_JOBS, "started_at")):
                gone = table.delete().where(table.c[column] < now - EVENTS_S)
                connection.execute(gone)

        self._do(work)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    # --- inside --------------------------------------------------------------

    def _coarsen(
        self, connection: sql.Connection, fine: int, coarse: int, now: int
    ) -> None:
        """Make means of all intervals that are over, and were not made before."""
        end = now // coarse * coarse
        begin = self._coarsened.get(coarse)
        if begin is None:
            newest = sql.select(sql.func.max(_SAMPLES.c.at)).where(
                _SAMPLES.c.step == coarse
            )
            found = connection.execute(newest).scalar()
            begin = 0 if found is None else int(found) + coarse
        if begin >= end:
            return
        slot = (_SAMPLES.c.at // coarse * coarse).label("slot")
        means = [sql.func.avg(_SAMPLES.c[name]) for name in FIELDS]
        chosen = (
            sql.select(sql.literal(coarse), _SAMPLES.c.subject, slot, *means)
            .where(_SAMPLES.c.step == fine)
            .where(_SAMPLES.c.at >= begin, _SAMPLES.c.at < end)
            .group_by(_SAMPLES.c.subject, slot)
        )
        names = ["step", "subject", "at", *FIELDS]
        made = insert(_SAMPLES).prefix_with("OR IGNORE").from_select(names, chosen)
        connection.execute(made)
        self._coarsened[coarse] = end

    def _do(self, work: Any) -> Any:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            reason = next(iter(str(getattr(error, "orig", error)).splitlines()), "")
            raise HistoryError(f"no history in {self.path}: {reason}") from error


def _recorded(row: Mapping[str, Any]) -> Recorded:
    names = ("kind", "weight", "subject", "host", "text", "details")
    return Recorded(row["id"], row["at"], Event(**{name: row[name] for name in names}))


def _prepare(connection: Any, record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # a power cut may take back the last seconds of a history, and does no other harm
    connection.execute("PRAGMA synchronous = NORMAL")
