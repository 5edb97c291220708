"""Records of jobs: files that grow while a job runs, and are whole if it is killed.

A record is a row of msgpack objects: the job, then what was new each time, then the job
as it ended. One that was cut off in the middle of an object is read up to there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack

from opencluster.core.timeline import Timeline, extend
from opencluster.errors import RecordError, RequestRefused

SUFFIX = ".job"
ID = re.compile(r"[0-9a-f]{12}")
MAX_BYTES = 512 << 20
"""Of a record that is read."""


class RecordWriter:
    """Writes the record of one job.

    Parameters
    ----------
    folder : Path
        Where records are.
    id : str
        The job.
    most : int
        Records that are kept there; the oldest make room.

    Raises
    ------
    RecordError
        When it cannot be written.
    """

    def __init__(self, folder: Path, id: str, most: int) -> None:
        self.path = folder / f"{id}{SUFFIX}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_room(folder, most)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise RecordError(f"no record of the job: {error}") from None

    def append(self, news: Mapping[str, Any]) -> None:
        """Write what is new.

        Raises
        ------
        RecordError
            When it cannot be written.
        """
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(msgpack.packb(news))
        except OSError as error:
            raise RecordError(f"no more of the job is recorded: {error}") from None


def path_of(folder: Path, id: str) -> Path:
    """Return where the record of a job is.

    Raises
    ------
    RecordError
        When that is no identity of a job, or there is no record.
    """
    path = folder / f"{id}{SUFFIX}"
    if not ID.fullmatch(id) or not path.is_file():
        raise RecordError(f"there is no record of a job {id} here")
    return path


def read(data: bytes) -> Timeline:
    """Return what a record says.

    Raises
    ------
    RecordError
        When it is none.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(1, len(data)), strict_map_key=False, use_list=True
    )
    unpacker.feed(data)
    timeline = Timeline()
    try:
        for news in unpacker:
            extend(timeline, news)
    except Exception as error:
        # msgpack raises many kinds of errors, and so does what is not a mapping
        raise RecordError(f"a record that cannot be read: {error!r}") from error
    if not timeline.job:
        raise RecordError("a record that was cut off before it said of which job")
    return timeline


def read_file(path: Path) -> Timeline:
    """Return what the record in a file says.

    Raises
    ------
    RecordError
        When it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordError(f"{path} is larger than any record")
        return read(path.read_bytes())
    except OSError as error:
        raise RecordError(f"no record in {path}: {error.strerror}") from None


def jobs(folder: Path, most: int) -> list[dict[str, Any]]:
    """Return the jobs of which there are records, as they began, the newest first."""
    found = []
    for path in _newest_first(folder)[:most]:
        try:
            with path.open("rb") as file:
                unpacker = msgpack.Unpacker(file, read_size=4096)
                job = dict(next(unpacker)["job"])
        except Exception:
            # of another version, cut off, or removed a moment ago
            continue
        found.append(job | {"recorded_at": path.stat().st_mtime})
    return found


def answer(
    folder: Path, arguments: Mapping[str, Any], most: int, max_bytes: int
) -> dict[str, Any]:
    """Return what a workshop answers about the records of its computer.

    Parameters
    ----------
    folder : Path
        Where records are.
    arguments : mapping
        ``id`` and ``position`` for a part of one; nothing for the jobs.
    most : int
        Jobs that are told.
    max_bytes : int
        Bytes of a record that are told at a time.

    Raises
    ------
    RequestRefused
        When there is no such record.
    """
    if "id" not in arguments:
        return {"jobs": jobs(folder, most)}
    try:
        path = path_of(folder, str(arguments["id"]))
        with path.open("rb") as file:
            file.seek(max(0, int(arguments.get("position", 0))))
            return {"data": file.read(max_bytes)}
    except (RecordError, OSError, ValueError) as error:
        raise RequestRefused(str(error)) from None


def _newest_first(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob(f"*{SUFFIX}") if ID.fullmatch(path.stem)]
    return sorted(paths, key=lambda path: -path.stat().st_mtime)


def _make_room(folder: Path, most: int) -> None:
    for path in _newest_first(folder)[max(0, most - 1) :]:
        path.unlink(missing_ok=True)
