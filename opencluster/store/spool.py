"""Items that were accepted and not processed yet, on disk.

In the folder of a spool lie

- ``items.db``, a book in SQLite that says what was accepted and what became of it,
- a file for each item that is not small, whose name the book has,
- ``failed/``, the last items that could not be processed,
- ``lock``, which its one owner holds.

An item counts when the book has it. Its file is synced before the book is, and the
book before anybody is told, many items at a time. A crash leaves files that the book
does not know, and at the end of the book what was not synced, which SQLite sees by its
checksums and cuts off. What became of an item is written down before its file goes.
The book keeps the names of items for a while, so that none is accepted twice.

Owns files and the book. Must not decide what is accepted, dropped or tried again.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from opencluster.errors import IngestError

SMALL_BYTES = 64 * 1024
"""An item up to this lies in the book, so that many need one sync in all."""
CHECK_BYTES = 1 << 20
"""After so much of an item it is seen whether its disk has room, whatever others do."""
WAITING, DONE, FAILED, DROPPED = "waiting", "done", "failed", "dropped"
"""What becomes of an item."""
FORGET_INTERVAL_S = 60.0
"""Old names are looked for this often."""
BOOK, LOCK, FAILED_FOLDER = "items.db", "lock", "failed"
SUFFIX = ".item"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    size INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    about BLOB NOT NULL,
    file TEXT NOT NULL,
    data BLOB,
    accepted_at REAL NOT NULL,
    ended_at REAL,
    note TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS items_waiting ON items (number) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS items_ended ON items (ended_at) WHERE ended_at IS NOT NULL;
"""


class SpoolFull(OSError):
    """There is no room now."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ENOSPC, why)


class ItemDamaged(OSError):
    """An item is not as it was accepted: the disk has failed."""

    def __init__(self, id: str, why: str) -> None:
        super().__init__(errno.EIO, f"item {id}: {why}")


@dataclass(frozen=True)
class Stored:
    """An accepted item.

    Attributes
    ----------
    number : int
        In the order of acceptance.
    id : str
        The name that its sender gave it.
    size, checksum : int
        Bytes, and their CRC-32.
    about : mapping
        What else is known of it.
    accepted_at : float
        Seconds since 1970.
    file : str
        The name of its file; empty when it lies in the book.
    """

    number: int
    id: str
    size: int
    checksum: int
    about: Mapping[str, Any]
    accepted_at: float
    file: str = ""


@dataclass(frozen=True)
class Ending:
    """What became of an item.

    Attributes
    ----------
    item : Stored
        Which one.
    state : str
        `DONE`, `FAILED` or `DROPPED`.
    note : str
        Why, in words.
    """

    item: Stored
    state: str
    note: str = ""


@dataclass(eq=False)
class Draft:
    """An item that is still being received; made by `Spool.begin`.

    Attributes
    ----------
    id : str
        Its name.
    size, checksum : int
        Of what was written.
    about : dict
        What else is to be known of it, as msgpack can hold it.
    """

    spool: Spool
    id: str
    reserved: int
    unchecked: int = 0
    size: int = 0
    checksum: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    data: bytearray | None = field(default_factory=bytearray)
    fd: int = -1

    def write(self, data: memoryview | bytes) -> None:
        """Add bytes.

        Raises
        ------
        SpoolFull
            When there is no room; nothing was added, and it can be tried again.
        OSError
            When the disk fails.
        """
        count = len(data)
        self.spool.check_room(self, self.size + count)
        if self.data is not None:
            if self.size + count <= SMALL_BYTES:
                self.data += data
            else:
                if self.fd < 0:
                    self._open()
                self._write(self.data, 0)
                self.data = None
        if self.data is None:
            self._write(data, self.size)
        self.size += count
        self.spool.wrote(count)
        self.checksum = zlib.crc32(data, self.checksum)

    def discard(self) -> None:
        """Forget it, and give back its room."""
        self._close()
        if self.file:
            self.spool.path(self.file).unlink(missing_ok=True)
            self.file = ""
        self.spool.give_back(self)

    def sync(self) -> bool:
        """Have its file on disk, if it has one, and return whether it has."""
        if self.fd < 0:
            return False
        os.fdatasync(self.fd)
        self._close()
        return True

    def _open(self) -> None:
        name = uuid.uuid4().hex + SUFFIX
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.fd = os.open(self.spool.path(name), flags, 0o600)
        self.file = name

    def _write(self, data: memoryview | bytes | bytearray, at: int) -> None:
        """Write at a place, the end of what is there, all of it or nothing."""
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.fd, at)
                os.lseek(self.fd, at, os.SEEK_SET)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull("the disk of the spool is full") from None
            raise

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Spool:
    """The items of one server.

    Writing, and `knows`, are for one thread; `commit` is for another.

    Parameters
    ----------
    folder : Path
        Where they lie; made if it is not there.
    max_bytes : int
        Most that they may have in all.
    margin_bytes : int
        Room on the disk that items leave for the book.
    kept_s : float
        How long the book keeps the name of an item that has ended.
    failed_bytes : int
        Most that is kept of items that failed; the oldest goes first.

    Raises
    ------
    IngestError
        When it is another server's, or cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        margin_bytes: int,
        kept_s: float,
        failed_bytes: int,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._margin = margin_bytes
        self._kept_s = kept_s
        self._failed_bytes = failed_bytes
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._used = 0
        self._unwritten = 0
        self._forgot_at = 0.0
        try:
            (folder / FAILED_FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = self._take()
            self._book = self._connect()
            self._book.executescript(_SCHEMA)
            self._looking = self._connect()
            self._tidy()
        except (OSError, sqlite3.Error) as error:
            raise IngestError(
                f"the spool {folder} cannot be used: {error}; choose another folder, "
                f"or make room on its disk"
            ) from error

    # --- room ----------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """What items have, those that are still received included."""
        return self._used

    def path(self, name: str) -> Path:
        """Return where the file of an item is."""
        return self.folder / name

    def begin(self, id: str, size: int) -> Draft:
        """Begin to receive an item.

        Parameters
        ----------
        id : str
            Its name.
        size : int
            For how many bytes room is kept; it may have more if there is room.

        Raises
        ------
        SpoolFull
            When there is no room.
        """
        draft = Draft(self, id, 0)
        self.check_room(draft, size)
        return draft

    def check_room(self, draft: Draft, size: int) -> None:
        """Keep room for as many bytes of an item.

        Raises
        ------
        SpoolFull
            When there is none.
        """
        more = max(0, size - draft.reserved)
        with self._lock:
            if self._used + more > self.max_bytes:
                raise SpoolFull(f"the {self.max_bytes:,} bytes of the spool are used")
            draft.unchecked += more or (size - draft.size)
            if more or draft.unchecked >= CHECK_BYTES:
                draft.unchecked = 0
                disk = os.statvfs(self.folder)
                to_come = more + self._unwritten if more else 0
                if disk.f_bavail * disk.f_frsize < to_come + self._margin:
                    raise SpoolFull("the disk of the spool is full")
            self._used += more
            self._unwritten += more
            draft.reserved += more

    def wrote(self, count: int) -> None:
        """Take note that bytes, for which there was room, are in their file."""
        with self._lock:
            self._unwritten -= count

    def give_back(self, draft: Draft) -> None:
        """Free the room of an item that is not kept."""
        with self._lock:
            self._used -= draft.reserved
            self._unwritten -= draft.reserved - draft.size
            draft.reserved = draft.size = 0

    # --- the book ------------------------------------------------------------

    def knows(self, id: str) -> bool:
        """Return whether an item of this name was accepted."""
        return self._look("SELECT 1 FROM items WHERE id = ?", id) is not None

    def waiting(self) -> list[Stored]:
        """Return the items that have not ended, in the order of acceptance."""
        rows = self._book.execute(
            "SELECT number, id, size, checksum, about, accepted_at, file FROM items "
            "WHERE state = 'waiting' ORDER BY number"
        )
        return [
            Stored(number, id, size, check, msgpack.unpackb(about), at, file)
            for number, id, size, check, about, at, file in rows
        ]

    def commit(
        self, drafts: Sequence[Draft], endings: Sequence[Ending]
    ) -> list[Stored | None]:
        """Write down what was received, and what has ended; then it is on disk.

        Returns
        -------
        list
            For each draft the item, or ``None`` when its name is known already.

        Raises
        ------
        OSError
            When that fails; nothing was written down then, and no draft is kept.
        """
        try:
            if sum(draft.sync() for draft in drafts):
                _sync_folder(self.folder)
            with self._transaction():
                kept = [self._enter(draft) for draft in drafts]
                for ending in endings:
                    self._end(ending)
                self._forget()
        except (OSError, sqlite3.Error) as error:
            for draft in drafts:
                draft.discard()
            if isinstance(error, OSError):
                raise
            raise OSError(errno.EIO, f"the book of the spool: {error}") from error
        for draft, item in zip(drafts, kept, strict=True):
            if item is None:
                draft.discard()
            else:
                self._settle(draft)
        for ending in endings:
            self._let_go(ending)
        return kept

    def read(self, item: Stored) -> memoryview:
        """Return the bytes of an item, read-only; they stay valid when it is removed.

        Raises
        ------
        ItemDamaged
            When they are not what was accepted.
        OSError
            When they cannot be read.
        """
        data = self._mapped(item) if item.file else self._from_book(item)
        if len(data) != item.size or zlib.crc32(data) != item.checksum:
            raise ItemDamaged(item.id, "its checksum is wrong")
        return data

    def close(self) -> None:
        """Let go of the folder."""
        self._looking.close()
        self._book.close()
        os.close(self._lock_fd)

    # --- inside --------------------------------------------------------------

    def _settle(self, draft: Draft) -> None:
        """Let an item have as much room as it needs."""
        with self._lock:
            more = draft.reserved - draft.size
            self._used -= more
            self._unwritten -= more
            draft.reserved = draft.size

    def _take(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self.folder / LOCK, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise IngestError(
                f"the spool {self.folder} is in use by another server: end that one, "
                "or choose another folder"
            ) from None
        return fd

    def _connect(self) -> sqlite3.Connection:
        book = sqlite3.connect(
            self.folder / BOOK, isolation_level=None, check_same_thread=False
        )
        book.execute("PRAGMA journal_mode = WAL")
        # an acknowledged item survives the loss of power
        book.execute("PRAGMA synchronous = FULL")
        return book

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._book.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._book.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._book.execute("ROLLBACK")
            raise

    def _enter(self, draft: Draft) -> Stored | None:
        now = time.time()
        done = self._book.execute(
            "INSERT INTO items (id, state, size, checksum, about, file, data, "
            "accepted_at) VALUES (?, 'waiting', ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO NOTHING",
            (
                draft.id,
                draft.size,
                draft.checksum,
                msgpack.packb(draft.about),
                draft.file,
                draft.data,
                now,
            ),
        )
        if not done.rowcount:
            return None
        number = done.lastrowid
        assert number is not None
        return Stored(
            number, draft.id, draft.size, draft.checksum, draft.about, now, draft.file
        )

    def _end(self, ending: Ending) -> None:
        data = ", data = NULL" if ending.state != FAILED else ""
        self._book.execute(
            f"UPDATE items SET state = ?, note = ?, ended_at = ?{data} "
            "WHERE number = ?",
            (ending.state, ending.note, time.time(), ending.item.number),
        )

    def _forget(self) -> None:
        now = time.time()
        if now - self._forgot_at >= FORGET_INTERVAL_S:
            self._forgot_at = now
            self._book.execute(
                "DELETE FROM items WHERE ended_at < ?", (now - self._kept_s,)
            )

    def _let_go(self, ending: Ending) -> None:
        item = ending.item
        with self._lock:
            self._used -= item.size
        # a file that stays by mistake is removed at the next start
        with suppress(OSError, sqlite3.Error):
            if ending.state == FAILED:
                self._put_aside(item)
            elif item.file:
                self.path(item.file).unlink(missing_ok=True)

    def _put_aside(self, item: Stored) -> None:
        """Keep an item that failed where people can look at it."""
        folder = self.folder / FAILED_FOLDER
        place = folder / f"{item.number:012d}{SUFFIX}"
        if item.file:
            self.path(item.file).replace(place)
        else:
            place.write_bytes(self._from_book(item))
            with self._transaction():
                self._book.execute(
                    "UPDATE items SET data = NULL WHERE number = ?", (item.number,)
                )
        total = 0
        for path in sorted(folder.iterdir(), reverse=True):
            total += path.stat().st_size
            if total > self._failed_bytes:
                path.unlink()

    def _look(self, query: str, key: object) -> Any:
        """Return the first row that is found, as the book is now."""
        # a row that another thread is still reading would hold on to an older book
        with self._reading, closing(self._looking.execute(query, (key,))) as found:
            return found.fetchone()

    def _mapped(self, item: Stored) -> memoryview:
        with self.path(item.file).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != item.size:
                raise ItemDamaged(item.id, f"{size} of {item.size} bytes are there")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def _from_book(self, item: Stored) -> memoryview:
        found = self._look("SELECT data FROM items WHERE number = ?", item.number)
        if found is None or found[0] is None:
            raise ItemDamaged(item.id, "the book does not have its bytes")
        return memoryview(found[0])

    def _tidy(self) -> None:
        """Take stock, and remove files that no item has."""
        waiting = self.waiting()
        self._used = sum(item.size for item in waiting)
        known = {item.file for item in waiting}
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name not in known:
                path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
