"""The index of images: what was published, and the latest of each band in one look-up.

It is a set of tables in SQLite or PostgreSQL. Several processes add to it and read it
at the same time. A database notes its version, and whoever opens it takes the steps
that it has not seen, in one transaction; a step that was released is never changed.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from muser_pipeline.errors import ImageIndexError

Result = TypeVar("Result")
Status = Literal["image", "refused"]

BUSY_S = 10.0
"""How long a process waits for another that writes to the same SQLite file."""
CONNECT_S = 5
"""How long connecting to PostgreSQL may take."""
PRUNED_AT_ONCE = 500
"""Records that one transaction removes."""
_LOCK = 0x6D75_7365_7269
"""Any number that no other program locks in a database that is shared."""
_READING = "muser_reading"


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one image, or why there is none.

    Attributes
    ----------
    array : int
        1 or 2.
    time_utc_ns : int
        The middle of the time that was imaged, nanoseconds since 1970, UTC.
    band : int
        The band, counted from 0.
    polarization : str
        ``"I"``, ``"V"``, ``"RR"`` or ``"LL"``.
    first_channel : int
        The first of the channels that were imaged together; 0 if all of a band were.
    frequency_hz : float
        The middle of them.
    status : str
        ``"image"`` or ``"refused"``.
    reason : str
        Why it was refused, or what was done otherwise than usual.
    unit : str
        Of the brightness.
    peak, rms, dynamic_range, flux : float
        The brightest pixel, the noise, their ratio and the flux density of the whole.
    beam_major_arcsec, beam_minor_arcsec, beam_angle_deg : float
        The restoring beam; its angle from north through east.
    iterations : int
        Those of CLEAN.
    size : int
        Pixels of each side.
    cell_arcsec : float
        The side of a pixel.
    fits, png, thumbnail, json : str
        Paths relative to the folder of images; empty if there is no such file.
    timings : dict
        Seconds of each step.
    published_at : float
        Seconds since 1970.
    id : int
        Its number, larger than those of all records that were added before; 0 for a
        record that was not added.
    """

    array: int
    time_utc_ns: int
    band: int
    polarization: str
    frequency_hz: float
    first_channel: int = 0
    status: Status = "image"
    reason: str = ""
    unit: str = ""
    peak: float = 0.0
    rms: float = 0.0
    dynamic_range: float = 0.0
    flux: float = 0.0
    beam_major_arcsec: float = 0.0
    beam_minor_arcsec: float = 0.0
    beam_angle_deg: float = 0.0
    iterations: int = 0
    size: int = 0
    cell_arcsec: float = 0.0
    fits: str = ""
    png: str = ""
    thumbnail: str = ""
    json: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    published_at: float = 0.0
    id: int = 0


@dataclass(frozen=True)
class CurvePoint:
    """What the images of one band and polarisation show in a piece of time.

    Attributes
    ----------
    array, band, first_channel, polarization, frequency_hz
        As of an `ImageRecord`.
    time_utc_ns : int
        The mean time of the images.
    peak, flux : float
        The highest peak and the mean flux density.
    images : int
        How many there are.
    """

    array: int
    band: int
    first_channel: int
    polarization: str
    frequency_hz: float
    time_utc_ns: int
    peak: float
    flux: float
    images: int


_tables = sql.MetaData()
_VERSION = sql.Table("muser_images_version", _tables, sql.Column("version"))
_IMAGES = sql.Table(
    "muser_images",
    _tables,
    *(sql.Column(each.name) for each in fields(ImageRecord)),
)
_LATEST = sql.Table(
    "muser_images_latest",
    _tables,
    *(
        sql.Column(name)
        for name in (
            *("array", "band", "first_channel", "polarization", "status"),
            *("time_utc_ns", "image"),
        )
    ),
)
_KEY = ("array", "time_utc_ns", "band", "first_channel", "polarization")
_KEY_OF_LATEST = ("array", "band", "first_channel", "polarization", "status")

STEPS: Sequence[Sequence[str]] = (
    (
        """CREATE TABLE muser_images (
            id {identity},
            "array" INTEGER NOT NULL,
            time_utc_ns BIGINT NOT NULL,
            band INTEGER NOT NULL,
            first_channel INTEGER NOT NULL,
            polarization TEXT NOT NULL,
            frequency_hz DOUBLE PRECISION NOT NULL,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            unit TEXT NOT NULL,
            peak DOUBLE PRECISION NOT NULL,
            rms DOUBLE PRECISION NOT NULL,
            dynamic_range DOUBLE PRECISION NOT NULL,
            flux DOUBLE PRECISION NOT NULL,
            beam_major_arcsec DOUBLE PRECISION NOT NULL,
            beam_minor_arcsec DOUBLE PRECISION NOT NULL,
            beam_angle_deg DOUBLE PRECISION NOT NULL,
            iterations BIGINT NOT NULL,
            size INTEGER NOT NULL,
            cell_arcsec DOUBLE PRECISION NOT NULL,
            fits TEXT NOT NULL,
            png TEXT NOT NULL,
            thumbnail TEXT NOT NULL,
            json TEXT NOT NULL,
            timings TEXT NOT NULL,
            published_at DOUBLE PRECISION NOT NULL,
            UNIQUE ("array", time_utc_ns, band, first_channel, polarization)
        )""",
        "CREATE INDEX muser_images_time ON muser_images (time_utc_ns)",
        """CREATE INDEX muser_images_band
            ON muser_images (band, polarization, time_utc_ns)""",
        "CREATE INDEX muser_images_published ON muser_images (published_at)",
        """CREATE TABLE muser_images_latest (
            "array" INTEGER NOT NULL,
            band INTEGER NOT NULL,
            first_channel INTEGER NOT NULL,
            polarization TEXT NOT NULL,
            status TEXT NOT NULL,
            time_utc_ns BIGINT NOT NULL,
            image BIGINT NOT NULL,
            PRIMARY KEY ("array", band, first_channel, polarization, status)
        )""",
    ),
)
"""From nothing to version 1, and from each version to the next."""

_IDENTITY = {
    True: "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    # numbers of records that were removed are not given again
    False: "INTEGER PRIMARY KEY AUTOINCREMENT",
}


class ImageIndex:
    """The records of published images; may be used from several threads.

    Parameters
    ----------
    url : str
        ``sqlite:////absolute/path`` or ``postgresql://user@host/name``.
    folder : str or Path
        Where the files of the images are; `prune` removes them there.

    Raises
    ------
    ImageIndexError
        When the database cannot be used; the message says why.
    """

    def __init__(self, url: str, folder: str | Path) -> None:
        self.folder = Path(folder)
        parsed = _parsed(url)
        self._is_postgresql = parsed.get_backend_name() == "postgresql"
        self._name = _shown(parsed)
        self._engine = _postgresql(parsed) if self._is_postgresql else _sqlite(parsed)
        _open.add(self)
        try:
            self._transact(self._migrate)
        except BaseException:
            self.close()
            raise

    def add(self, record: ImageRecord) -> int:
        """Add a record, once.

        A record of the same array, time, band, channels and polarisation stays as it
        is.

        Returns
        -------
        int
            The number of the record that is there.
        """
        return self.add_all([record])[0]

    def add_all(self, records: Sequence[ImageRecord]) -> list[int]:
        """Add records in one transaction, as `add` does each."""
        return self._transact(lambda connection: self._add(connection, records))

    def latest(
        self, array: int | None = None, status: Status = "image"
    ) -> list[ImageRecord]:
        """Return the latest record of each band and polarisation.

        Parameters
        ----------
        array : int, optional
            Only those of this array.
        status : str
            The latest images, or what was refused last.

        Returns
        -------
        list of ImageRecord
            By array, band, channel and polarisation. The latest is that of the latest
            time, whatever was published last.
        """
        query = (
            sql.select(_IMAGES)
            .join(_LATEST, _LATEST.c.image == _IMAGES.c.id)
            .where(_LATEST.c.status == status)
            .order_by(*(_LATEST.c[name] for name in _KEY_OF_LATEST))
        )
        if array is not None:
            query = query.where(_LATEST.c.array == array)
        return self._found(query)

    def get(self, id: int) -> ImageRecord | None:
        """Return a record by its number, or None."""
        found = self._found(sql.select(_IMAGES).where(_IMAGES.c.id == id))
        return found[0] if found else None

    def since(self, id: int, limit: int = 1000) -> list[ImageRecord]:
        """Return the first records that were added after the one of a number.

        Whoever asks again with the last number that it got misses none.
        """
        query = sql.select(_IMAGES).where(_IMAGES.c.id > id)
        return self._found(query.order_by(_IMAGES.c.id).limit(limit))

    def between(
        self,
        start_utc_ns: int,
        end_utc_ns: int,
        band: int | None = None,
        polarization: str | None = None,
        *,
        array: int | None = None,
        limit: int = 10_000,
    ) -> list[ImageRecord]:
        """Return the records of a time range, its end not included, by time.

        If there are more than `limit`, they are the latest ones.
        """
        time = _IMAGES.c.time_utc_ns
        query = sql.select(_IMAGES).where(time >= start_utc_ns, time < end_utc_ns)
        wanted = {"array": array, "band": band, "polarization": polarization}
        for name, value in wanted.items():
            if value is not None:
                query = query.where(_IMAGES.c[name] == value)
        query = query.order_by(time.desc(), _IMAGES.c.id.desc()).limit(limit)
        return self._found(query)[::-1]

    def neighbours(
        self, record: ImageRecord
    ) -> tuple[ImageRecord | None, ImageRecord | None]:
        """Return the records of the same band and polarisation before and after one."""
        time = _IMAGES.c.time_utc_ns
        same = [
            _IMAGES.c[name] == getattr(record, name)
            for name in _KEY
            if name != "time_utc_ns"
        ]
        query = sql.select(_IMAGES).where(*same).limit(1)
        before = self._found(
            query.where(time < record.time_utc_ns).order_by(time.desc())
        )
        after = self._found(query.where(time > record.time_utc_ns).order_by(time))
        return (before[0] if before else None, after[0] if after else None)

    def curve(
        self, start_utc_ns: int, end_utc_ns: int, step_ns: int, array: int | None = None
    ) -> list[CurvePoint]:
        """Return peak and flux over time, one point for each step that has images.

        Parameters
        ----------
        start_utc_ns, end_utc_ns : int
            The time range, its end not included.
        step_ns : int
            The length of a step.
        array : int, optional
            Only this one.

        Returns
        -------
        list of CurvePoint
            By array, band, channel and polarisation, and then by time.
        """
        image = _IMAGES.c
        series = [image[name] for name in _KEY if name != "time_utc_ns"]
        since_start = image.time_utc_ns - start_utc_ns
        offset = sql.func.avg(since_start)
        query = (
            sql.select(
                *series,
                sql.func.min(image.frequency_hz).label("frequency_hz"),
                offset.label("offset"),
                sql.func.max(image.peak).label("peak"),
                sql.func.avg(image.flux).label("flux"),
                sql.func.count().label("images"),
            )
            .where(image.time_utc_ns >= start_utc_ns, image.time_utc_ns < end_utc_ns)
            .where(image.status == "image")
            .group_by(*series, since_start - since_start % step_ns)
            .order_by(*series, offset)
        )
        if array is not None:
            query = query.where(image.array == array)
        rows = self._transact(
            lambda connection: connection.execute(query).mappings().all(),
            is_reading=True,
        )
        return [
            CurvePoint(
                **{k: row[k] for k in row if k != "offset"},
                time_utc_ns=start_utc_ns + round(row["offset"]),
            )
            for row in rows
        ]

    def prune(self, published_before: float) -> int:
        """Remove the records that were published before a time, and their files.

        The latest image of each band stays, however old it is.

        Parameters
        ----------
        published_before : float
            Seconds since 1970.

        Returns
        -------
        int
            How many were removed.
        """
        old = (
            sql.select(_IMAGES)
            .where(_IMAGES.c.published_at < published_before)
            .where(_IMAGES.c.id.not_in(sql.select(_LATEST.c.image)))
            .order_by(_IMAGES.c.id)
            .limit(PRUNED_AT_ONCE)
        )
        removed = 0
        while records := self._found(old):
            for record in records:
                for name in (record.json, record.thumbnail, record.png, record.fits):
                    if name:
                        (self.folder / name).unlink(missing_ok=True)
            # files first: what has no record would never be removed
            self._transact(partial(_delete, ids=[record.id for record in records]))
            removed += len(records)
        return removed

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> ImageIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside --------------------------------------------------------------

    def _add(self, connection: Connection, records: Sequence[ImageRecord]) -> list[int]:
        if self._is_postgresql:
            # one at a time: numbers are to become visible in their order
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
        return [self._added(connection, record) for record in records]

    def _added(self, connection: Connection, record: ImageRecord) -> int:
        row = asdict(record) | {"timings": json.dumps(record.timings)}
        del row["id"]
        same = [_IMAGES.c[name] == row[name] for name in _KEY]
        there = connection.execute(sql.select(_IMAGES.c.id).where(*same)).scalar()
        if there is not None:
            return int(there)
        inserted = sql.insert(_IMAGES).values(row).returning(_IMAGES.c.id)
        number = int(connection.execute(inserted).scalar_one())
        latest = {name: row[name] for name in _KEY_OF_LATEST}
        values = latest | {"time_utc_ns": row["time_utc_ns"], "image": number}
        dialect = postgresql if self._is_postgresql else sqlite
        upsert = dialect.insert(_LATEST).values(values)
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=list(_KEY_OF_LATEST),
                set_={
                    "time_utc_ns": upsert.excluded.time_utc_ns,
                    "image": upsert.excluded.image,
                },
                where=_LATEST.c.time_utc_ns < upsert.excluded.time_utc_ns,
            )
        )
        return number

    def _found(self, query: sql.Select[Any]) -> list[ImageRecord]:
        rows = self._transact(
            lambda connection: connection.execute(query).mappings().all(),
            is_reading=True,
        )
        return [_record(dict(row)) for row in rows]

    def _migrate(self, connection: Connection) -> None:
        if self._is_postgresql:
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS muser_images_version (version INTEGER NOT NULL)"
        )
        version = connection.execute(sql.select(_VERSION.c.version)).scalar()
        if version is None:
            version = 0
            connection.execute(sql.insert(_VERSION).values(version=0))
        if version > len(STEPS):
            raise ImageIndexError(
                f"the index of images in {self._name} is of version {version}, and "
                f"this program knows versions up to {len(STEPS)}: use a newer one"
            )
        for step in STEPS[version:]:
            for statement in step:
                connection.exec_driver_sql(
                    statement.format(identity=_IDENTITY[self._is_postgresql])
                )
        if version < len(STEPS):
            connection.execute(sql.update(_VERSION).values(version=len(STEPS)))

    def _transact(
        self, work: Callable[[Connection], Result], *, is_reading: bool = False
    ) -> Result:
        try:
            with self._begun(is_reading) as connection:
                return work(connection)
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            reason = next(iter(str(cause).splitlines()), "") or type(error).__name__
            raise ImageIndexError(
                f"the index of images in {self._name} cannot be used: {reason}"
            ) from error

    @contextmanager
    def _begun(self, is_reading: bool) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection.execution_options(**{_READING: is_reading})
            with connection.begin():
                yield connection


def default_url(folder: str | Path) -> str:
    """Return the URL of the index beside the images of a folder."""
    return f"sqlite:///{Path(folder).absolute() / 'images.db'}"


def _delete(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(sql.delete(_IMAGES).where(_IMAGES.c.id.in_(ids)))


def _record(row: dict[str, Any]) -> ImageRecord:
    return ImageRecord(**row | {"timings": json.loads(row["timings"])})


_open: weakref.WeakSet[ImageIndex] = weakref.WeakSet()


def _forget_connections() -> None:
    for index in list(_open):
        # they belong to the process that this one was forked from
        index._engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # the text is not shown, as it may hold a password
        raise ImageIndexError(
            "this is no URL of an index of images: write sqlite:////path/of/a/file, "
            "or postgresql://user@host/name"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ImageIndexError(
            "the URL of an index of images must begin with postgresql:// or name a "
            f"file by sqlite:////path, not {_shown(parsed)}"
        )
    return parsed


def _shown(url: URL) -> str:
    """Return a URL without its password, for people."""
    # nor what else may stand there, which libpq takes a password from
    query = {k: v for k, v in url.query.items() if k in ("host", "port")}
    shown = url.set(drivername=url.get_backend_name(), query=query)
    return shown.render_as_string(hide_password=True)


def _postgresql(url: URL) -> sql.Engine:
    options = {"connect_timeout": CONNECT_S, "application_name": "muser-images"}
    try:
        return sql.create_engine(
            url,
            connect_args={k: v for k, v in options.items() if k not in url.query},
            isolation_level="READ COMMITTED",
            pool_size=2,
            pool_pre_ping=True,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ImageIndexError(
            "PostgreSQL needs the Python package psycopg: install it with "
            "pip install 'opencluster[postgresql]'"
        ) from error


def _sqlite(url: URL) -> sql.Engine:
    path = Path(str(url.database)).expanduser().absolute()
    engine = sql.create_engine(
        url.set(database=str(path)),
        connect_args={
            **{"timeout": BUSY_S, "isolation_level": None},
            "check_same_thread": False,
        },
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # files of images are not synced either: what a power cut takes is made anew
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        is_reading = connection.get_execution_options().get(_READING)
        # with the right to write from the start: to ask for it later may fail
        connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")

    return engine
