"""Pieces that ended every worker that took them, each in a file with what is known.

A file is a mark, the length of the head, the head (what is known, in msgpack) and the
work in the form of `wire.stored`; so a list reads heads alone. It is written beside,
and renamed when it is whole and on disk. Owns the folder; whoever writes into it from
elsewhere can make letters unreadable, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import msgpack

from opencluster.errors import DeathEvidence, LetterError
from opencluster.wire.stored import encoded

SUFFIX = ".letter"
DRAFT = ".draft"
MARK = b"OCLETTER1\n"
_LENGTH_BYTES = 4
MAX_HEAD_BYTES = 1 << 20
MAX_LISTED = 10_000
STALE_S = 3600.0
"""After which a file that was never finished is removed."""

MAX_TIME_S = 253402300799
"""The last moment that has a date of four digits."""

MOST = 100
MOST_BYTES = 1000**3

_ID = re.compile(r"[0-9a-f]{12}")
_NEEDED: Mapping[str, Any] = {
    "at": (int, float),
    "type": str,
    "job": dict,
    "host": str,
    "options": dict,
    "deaths": list,
    "nbytes": int,
    "refs": list,
}
"""What every head has, and of which type."""


def new_id() -> str:
    """Return a name for a letter that no other has."""
    return uuid.uuid4().hex[:12]


def check_id(id: Any) -> str:
    """Refuse what cannot be the name of a letter: it becomes that of a file.

    Raises
    ------
    LetterError
        When it is none.
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise LetterError(
            f"{id!r:.40} is no dead letter: they are named by 12 hexadecimal digits, "
            "as `opencluster letters list` shows them"
        )
    return id


class DeadLetters:
    """The letters of one computer.

    Parameters
    ----------
    folder : Path
        Where they lie; made when the first is written.
    most : int
        Letters that are kept; the oldest is removed for a new one. 0 keeps none.
    most_bytes : int
        Bytes that they take together.
    """

    def __init__(
        self, folder: Path, most: int = MOST, most_bytes: int = MOST_BYTES
    ) -> None:
        self._folder = folder
        self._most = most
        self._most_bytes = most_bytes

    def write(
        self, id: str, head: Mapping[str, Any], data: bytes, buffers: Sequence[Any]
    ) -> None:
        """Keep a letter.

        Parameters
        ----------
        id : str
            Its name, see `new_id`.
        head : mapping
            What is known of it, in plain types.
        data, buffers
            The work, as `wire.codec` encodes it.

        Raises
        ------
        LetterError
            When it is not kept; the message says why. Nothing of it is left then.
        """
        if not self._most:
            raise LetterError("[manager] letters_kept is 0")
        parts = encoded(data, buffers)
        nbytes = sum(map(len, parts))
        packed: bytes = msgpack.packb({**head, "id": id, "nbytes": nbytes})
        size = len(MARK) + _LENGTH_BYTES + len(packed) + nbytes
        if len(packed) > MAX_HEAD_BYTES or size > self._most_bytes:
            raise LetterError(
                f"it has {size} bytes, and {self._most_bytes} are allowed for all; "
                "raise [manager] letters_bytes"
            )
        draft = self._folder / f".{id}{DRAFT}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(MARK + len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._path(id))
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            why = error.strerror or str(error)
            raise LetterError(f"{self._folder} cannot be written to: {why}") from None
        self._make_room(id)

    def rows(self) -> list[dict[str, Any]]:
        """Return all letters that can be read, the newest first, for a list.

        Their ``deaths`` are counted, and ``reason`` is the last one's.
        """
        rows = []
        for path in self._paths():
            with contextlib.suppress(LetterError):
                rows.append(_row(self.head(path.name.removesuffix(SUFFIX))))
        return sorted(rows, key=lambda row: -row["at"])

    def has(self, id: str) -> bool:
        """Return whether a letter lies here."""
        return self._path(id).is_file()

    def head(self, id: str) -> dict[str, Any]:
        """Return what is known of a letter.

        Raises
        ------
        LetterError
            When there is none, or it cannot be read.
        """
        with self._open(id) as file:
            return _read_head(file, id)

    def work(self, id: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return the work of a letter, in the form of `wire.stored`, or a part of it.

        Raises
        ------
        LetterError
            When there is none, or it cannot be read.
        """
        with self._open(id) as file:
            nbytes = _read_head(file, id)["nbytes"]
            file.seek(max(0, offset), os.SEEK_CUR)
            left = max(0, nbytes - max(0, offset))
            return file.read(left if length is None else min(left, max(0, length)))

    def delete(self, id: str) -> None:
        """Remove a letter.

        Raises
        ------
        LetterError
            When there is none, or it cannot be removed.
        """
        try:
            self._path(id).unlink()
        except FileNotFoundError:
            raise _missing(id) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise LetterError(f"letter {id} cannot be removed: {why}") from None

    # --- inside --------------------------------------------------------------

    def _path(self, id: str) -> Path:
        return self._folder / f"{check_id(id)}{SUFFIX}"

    def _paths(self) -> Iterator[Path]:
        """Iterate over the files of letters, and over nothing else that lies there."""
        with contextlib.suppress(OSError):
            for path in list(self._folder.iterdir())[:MAX_LISTED]:
                name, dot, end = path.name.partition(".")
                if f"{dot}{end}" == SUFFIX and _ID.fullmatch(name):
                    yield path

    def _open(self, id: str) -> IO[bytes]:
        """Open a letter; what is no plain file is none, and is not waited for."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.fdopen(os.open(self._path(id), flags), "rb")
        except FileNotFoundError:
            raise _missing(id) from None
        except OSError as error:
            raise _unreadable(id, error.strerror or str(error)) from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise _unreadable(id, "it is no file")
        return file

    def _make_room(self, newest: str) -> None:
        """Remove the oldest letters beyond what may be kept, and what was left."""
        now, found = time.time(), []
        for path in self._paths():
            with contextlib.suppress(OSError):
                known = path.lstat()
                if path != self._path(newest):
                    found.append((known.st_mtime, known.st_size, path))
        with contextlib.suppress(OSError):
            room = self._most_bytes - self._path(newest).stat().st_size
            for count, (_, size, path) in enumerate(sorted(found, reverse=True), 2):
                room -= size
                if count > self._most or room < 0:
                    path.unlink(missing_ok=True)
        for draft in self._folder.glob(f".*{DRAFT}"):
            with contextlib.suppress(OSError):
                if now - draft.lstat().st_mtime > STALE_S:
                    draft.unlink()


def _read_head(file: IO[bytes], id: str) -> dict[str, Any]:
    if file.read(len(MARK)) != MARK:
        raise _unreadable(id, "it is no letter, or one of another version")
    length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
    if length > MAX_HEAD_BYTES:
        raise _unreadable(id, "its head is too large")
    try:
        head: Any = msgpack.unpackb(file.read(length))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _unreadable(id, str(error) or "its head is malformed") from None
    checked = checked_head(head, id)
    if os.fstat(file.fileno()).st_size - file.tell() != checked["nbytes"]:
        raise _unreadable(id, "it is torn")
    return checked


def checked_head(head: Any, id: str) -> dict[str, Any]:
    """Return the head of a letter as it should be, wherever it came from.

    Raises
    ------
    LetterError
        When it is none.
    """
    is_mapping = isinstance(head, dict) and all(isinstance(key, str) for key in head)
    if not is_mapping or not all(
        isinstance(head.get(name), kind) for name, kind in _NEEDED.items()
    ):
        raise _unreadable(id, "its head lacks something")
    if not all(isinstance(death, dict) for death in head["deaths"]):
        raise _unreadable(id, "its evidence is none")
    if not 0 <= head["at"] < MAX_TIME_S:
        raise _unreadable(id, "it is of no time")
    deaths = [asdict(DeathEvidence.from_fields(death)) for death in head["deaths"]]
    return {**head, "id": id, "deaths": deaths}


def _row(head: Mapping[str, Any]) -> dict[str, Any]:
    deaths = head["deaths"]
    reason = str(deaths[-1].get("reason", "")) if deaths else ""
    names = ("id", "at", "type", "number", "job", "host", "user", "nbytes")
    kept = {name: head.get(name) for name in names}
    return kept | {"deaths": len(deaths), "reason": reason[:500]}


def _missing(id: str) -> LetterError:
    return LetterError(
        f"there is no dead letter {id} any more; `opencluster letters list` shows "
        "those that are there"
    )


def _unreadable(id: str, why: str) -> LetterError:
    return LetterError(f"dead letter {id} cannot be read: {why}")
