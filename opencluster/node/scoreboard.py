"""A page of shared memory by which a worker says how it is doing.

The worker writes and the workshop reads; no message is exchanged, so it works while
``perform()`` holds the interpreter for a minute and after the worker was killed.
Owns the layout of the file. Must not decide what a reading means.

A file of `PAGE_BYTES` holds a header and a few records, one for each kind of news::

    0    magic, version
    512  state: pid, state, worker id
    1024 piece: the running piece, and how many are done
    1536 progress
    2048 enforcement: an interrupt that must be enforced from outside
    2560 rejections: messages and connections that were refused
    3072 place: which piece of a bundle runs
    3584 kept: the values that it keeps for managers
    4096 error: the last piece that failed, with its traceback, in slots of 2048

A record is two slots of 256 bytes that are written in turn, each a sequence number,
the time, the fields and a checksum. A slot that was caught half written has a wrong
checksum and its twin is whole, so a reader never sees a torn record and a worker that
is killed while it writes leaves the one before. The place is one number, that is
written at once, since it is written for every piece of a few microseconds. Neither side
ever waits for the other, and there is no lock that a signal handler or an interrupted
thread could leave behind.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from opencluster.core.piece_names import IN_BUNDLE
from opencluster.errors import RemoteProtocolError

PAGE_BYTES = 8192
TEXT_BYTES = 64
"""Longest piece id; what is longer is cut."""
WORKER_ID_BYTES = 128
MESSAGE_BYTES = 256
TRACEBACK_BYTES = 1568
"""What is kept of an error: the beginning of its message, the end of its traceback."""
READ_ATTEMPTS = 8
"""Looks at a record before the one seen last counts: writing takes a microsecond."""

_HEADER = struct.pack("<4sH", b"OCsb", 5)
_RECORD_BYTES = 512
_SLOT_BYTES = _RECORD_BYTES // 2
_CHECKSUM_BYTES = 4
_PLACE_AT = 3072
_ERROR_SLOT_BYTES = 2048
_MOST_PLACES = 1 << 12
_COUNTS = (
    *("rejected_messages", "rejected_handshakes"),
    *("dropped_connections", "rejected_credentials"),
)


class State(IntEnum):
    """What a worker process is doing, in its own words."""

    STARTING = 0
    IDLE = 1
    BUSY = 2
    DRAINING = 3
    STOPPED = 4
    HANDING_OVER = 5


class LastError(NamedTuple):
    """The piece of a worker that failed last.

    Attributes
    ----------
    at : float
        When it failed, seconds since 1970.
    piece : str
        Its name.
    kind, message : str
        The exception.
    traceback : str
        Where it was raised; the end of it, if it is long.
    """

    at: float
    piece: str
    kind: str
    message: str
    traceback: str

    def brief(self) -> dict[str, Any]:
        """Return what every heartbeat says of it: all but the traceback."""
        return {
            "at": self.at,
            "piece": self.piece,
            "kind": self.kind,
            "message": self.message,
        }

    def to_fields(self) -> dict[str, Any]:
        """Return all of it, as plain types."""
        return self.brief() | {"traceback": self.traceback}


class Reading(NamedTuple):
    """What a scoreboard said at one moment.

    Times are those of ``time.monotonic()``, which all processes of a computer share.

    Attributes
    ----------
    pid : int
        The process that wrote, 0 while none has.
    state : State
        What it is doing.
    worker_id : str
        Its name in the registry, empty until it has registered.
    piece : str
        The running piece, or an empty string.
    started_at, deadline : float
        When the piece began and when it must be over, in seconds; 0 for none.
    progress_done, progress_total : float
        What ``perform()`` said about the running piece; 0 when it said nothing.
    pieces_done, pieces_failed : int
        Pieces that ended with a result, and with an error.
    enforce_piece : str
        A piece that was told to end and must be ended from outside, else empty. Goes
        away by itself when the piece ends.
    enforce_at : float
        When that is due, in seconds.
    kept_bytes : int
        Bytes of values that it keeps for managers.
    rejected_messages, rejected_handshakes : int
    dropped_connections, rejected_credentials : int
        What came in that should not have.
    seen_at : float
        When the worker wrote last of its work, in seconds; 0 when it never did.
    last_error : LastError or None
        The piece that failed last.
    """

    pid: int = 0
    state: State = State.STARTING
    worker_id: str = ""
    piece: str = ""
    started_at: float = 0.0
    deadline: float = 0.0
    progress_done: float = 0.0
    progress_total: float = 0.0
    pieces_done: int = 0
    pieces_failed: int = 0
    enforce_piece: str = ""
    enforce_at: float = 0.0
    kept_bytes: int = 0
    rejected_messages: int = 0
    rejected_handshakes: int = 0
    dropped_connections: int = 0
    rejected_credentials: int = 0
    seen_at: float = 0.0
    last_error: LastError | None = None

    @property
    def activity(self) -> str:
        """The state in a word: ``busy`` while an idle worker has a piece."""
        is_busy = self.piece and self.state is State.IDLE
        return "busy" if is_busy else self.state.name.lower()

    def figures(self) -> dict[str, Any]:
        """Return what a heartbeat says of it, as plain types."""
        return {
            "state": self.activity,
            "piece": self.piece,
            "progress_done": self.progress_done,
            "progress_total": self.progress_total,
            "pieces_done": self.pieces_done,
            "pieces_failed": self.pieces_failed,
            "kept_bytes": self.kept_bytes,
            "rejected_messages": self.rejected_messages,
            "rejected_handshakes": self.rejected_handshakes,
            "dropped_connections": self.dropped_connections,
            "rejected_credentials": self.rejected_credentials,
            "last_error": self.last_error.brief() if self.last_error else {},
        }


class _Record:
    """Fields that are written and read as one."""

    def __init__(
        self,
        memory: mmap.mmap,
        number: int,
        layout: str,
        slot_bytes: int = _SLOT_BYTES,
    ) -> None:
        self._memory = memory
        self._struct = struct.Struct("<Qd" + layout)
        self._length = self._struct.size + _CHECKSUM_BYTES
        assert self._length <= slot_bytes
        start = number * _RECORD_BYTES
        self._starts = (start, start + slot_bytes)
        self._last: tuple[Any, ...] | None = None
        newest = self.read()
        self._sequence: int = newest[0] if newest else 0

    def write(self, *fields: Any) -> None:
        self._sequence += 1
        body = self._struct.pack(self._sequence, time.monotonic(), *fields)
        start = self._starts[self._sequence & 1]
        # One copy under the interpreter lock: threads of the writer cannot mix.
        self._memory[start : start + self._length] = body + _checksum(body)

    def read(self) -> tuple[Any, ...] | None:
        """Return sequence, time and fields of the newest whole slot."""
        for _ in range(READ_ATTEMPTS):
            whole = [slot for slot in map(self._slot, self._starts) if slot]
            if whole:
                newest = max(whole)
                if self._last is None or newest[0] > self._last[0]:
                    self._last = newest
                break
        return self._last

    def _slot(self, start: int) -> tuple[Any, ...] | None:
        raw = self._memory[start : start + self._length]
        body = raw[:-_CHECKSUM_BYTES]
        if _checksum(body) != raw[-_CHECKSUM_BYTES:]:
            return None
        return self._struct.unpack(body)


class Scoreboard:
    """The page of one worker process; make it with `create`, `open` or `anonymous`.

    One process writes. `started`, `finished` and `progress` belong to the thread that
    performs, `state`, `registered` and `enforce` to one other at most. Each call takes
    a few microseconds and neither blocks nor raises.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._state = _Record(memory, 1, f"QB{WORKER_ID_BYTES}s")
        self._piece = _Record(memory, 2, f"QQQ{TEXT_BYTES}sdd")
        self._progress = _Record(memory, 3, "Qdd")
        self._enforcement = _Record(memory, 4, f"Q{TEXT_BYTES}sd")
        self._rejections = _Record(memory, 5, "QQQQ")
        self._kept = _Record(memory, 7, "Q")
        layout = f"d{TEXT_BYTES}s{TEXT_BYTES}s{MESSAGE_BYTES}s{TRACEBACK_BYTES}s"
        self._error = _Record(memory, 8, layout, _ERROR_SLOT_BYTES)
        self._place = memoryview(memory)[_PLACE_AT : _PLACE_AT + 8].cast("Q")
        state, piece = self._state.read(), self._piece.read()
        self._now = State(state[3]) if state else State.STARTING
        self._worker_id: bytes = state[4] if state else b""
        self._ordinal, self._done, self._failed = piece[2:5] if piece else (0, 0, 0)

    @classmethod
    def create(cls, path: Path) -> Scoreboard:
        """Make a new file, in place of any that is there.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Written out, as a hole would be filled on first use and a full disk
            # would then kill the worker with SIGBUS.
            os.write(fd, _HEADER.ljust(PAGE_BYTES, b"\0"))
            return cls(mmap.mmap(fd, PAGE_BYTES))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    @classmethod
    def open(cls, path: Path) -> Scoreboard:
        """Map a file that the other side made.

        Raises
        ------
        OSError
            The file cannot be read.
        RemoteProtocolError
            It is no scoreboard of this version.
        """
        with path.open("r+b") as file:
            header = file.read(PAGE_BYTES)
            if len(header) < PAGE_BYTES or not header.startswith(_HEADER):
                raise RemoteProtocolError(
                    f"{path} is no scoreboard of this version of OpenCluster; run "
                    "workers and workshop from one installation"
                )
            return cls(mmap.mmap(file.fileno(), PAGE_BYTES))

    @classmethod
    def anonymous(cls) -> Scoreboard:
        """Make one that no other process sees."""
        return cls(mmap.mmap(-1, PAGE_BYTES))

    def close(self) -> None:
        """Unmap the file, which stays."""
        self._place.release()
        self._memory.close()

    # --- the worker's side ---------------------------------------------------

    def state(self, state: State) -> None:
        """Say what this process is doing."""
        self._now = state
        self._state.write(os.getpid(), state, self._worker_id)

    def registered(self, worker_id: str) -> None:
        """Say under which name this process is registered."""
        self._worker_id = _cut(worker_id, WORKER_ID_BYTES)
        self._state.write(os.getpid(), self._now, self._worker_id)

    def started(self, piece: str, deadline: float, now: float | None = None) -> None:
        """Say that a piece begins.

        Parameters
        ----------
        piece : str
            Its name; that of a bundle ends with a plus sign.
        deadline : float
            The ``time.monotonic()`` at which it must be over, 0 for none.
        now : float, optional
            The time, if the caller knows it.
        """
        self._ordinal += 1
        now = time.monotonic() if now is None else now
        self._write_piece(_cut(piece, TEXT_BYTES), now, deadline)

    def started_next(self, place: int) -> None:
        """Say that another piece of the bundle begins that `started` told of."""
        self._place[0] = self._ordinal * _MOST_PLACES + place

    def ended(self, failed: bool) -> None:
        """Count a piece that ended; `started` or `idle` says so."""
        self._done += not failed
        self._failed += failed

    def erred(self, error: LastError) -> None:
        """Say which piece failed, and how."""
        self._error.write(
            error.at,
            _cut(error.piece, TEXT_BYTES),
            _cut(error.kind, TEXT_BYTES),
            _cut(error.message, MESSAGE_BYTES),
            _end_of(error.traceback, TRACEBACK_BYTES),
        )

    def idle(self) -> None:
        """Say that no piece runs."""
        self._write_piece(b"", 0.0, 0.0)

    def finished(self, failed: bool) -> None:
        """Say that the piece ended, with an error if `failed`, and no other runs."""
        self.ended(failed)
        self.idle()

    def progress(self, done: float, total: float) -> None:
        """Say how far the piece is."""
        self._progress.write(self._ordinal, done, total)

    def enforce(self, piece: str, at: float) -> None:
        """Ask the workshop to end this process if the piece still runs at `at`."""
        self._enforcement.write(self._ordinal, _cut(piece, TEXT_BYTES), at)

    def keeps(self, nbytes: int) -> None:
        """Say how many bytes of values it keeps for managers."""
        self._kept.write(nbytes)

    def counted(
        self,
        rejected_messages: int,
        rejected_handshakes: int,
        dropped_connections: int,
        rejected_credentials: int,
    ) -> None:
        """Say what came in so far that should not have."""
        self._rejections.write(
            rejected_messages,
            rejected_handshakes,
            dropped_connections,
            rejected_credentials,
        )

    def _write_piece(self, piece: bytes, started_at: float, deadline: float) -> None:
        self._piece.write(
            self._ordinal, self._done, self._failed, piece, started_at, deadline
        )

    # --- the workshop's side -------------------------------------------------

    def read(self) -> Reading:
        """Return what the worker wrote last, however it fares."""
        values: dict[str, Any] = {}
        state, piece = self._state.read(), self._piece.read()
        if state:
            pid, number, worker_id = state[2:]
            values |= {
                "pid": pid,
                "state": State(number),
                "worker_id": _text(worker_id),
            }
        if piece:
            _, done, failed, name, started_at, deadline = piece[2:]
            values |= {
                "pieces_done": done,
                "pieces_failed": failed,
                "piece": self._running_piece(piece[2], _text(name)),
                "started_at": started_at,
                "deadline": deadline,
            }
            if name.strip(b"\0"):
                values |= self._about_running(piece[2], name)
        kept = self._kept.read()
        if kept:
            values["kept_bytes"] = kept[2]
        rejections = self._rejections.read()
        if rejections:
            values |= dict(zip(_COUNTS, rejections[2:], strict=True))
        error = self._error.read()
        if error:
            values["last_error"] = LastError(error[2], *map(_text, error[3:]))
        records = self._state, self._piece, self._progress, self._enforcement
        times = [found[1] for found in (record.read() for record in records) if found]
        return Reading(**values, seen_at=max(times, default=0.0))

    def _running_piece(self, ordinal: int, name: str) -> str:
        """Return the name of what runs, with its place if that is in a bundle."""
        if not name.endswith(IN_BUNDLE):
            return name
        of, place = divmod(self._place[0], _MOST_PLACES)
        return f"{name}{place if of == ordinal else 0}"

    def _about_running(self, ordinal: int, name: bytes) -> dict[str, Any]:
        """Return what was said about this piece and not about one before it."""
        values: dict[str, Any] = {}
        progress, enforcement = self._progress.read(), self._enforcement.read()
        if progress and progress[2] == ordinal:
            values |= {"progress_done": progress[3], "progress_total": progress[4]}
        if enforcement and enforcement[2:4] == (ordinal, name):
            running = self._running_piece(ordinal, _text(name))
            values |= {"enforce_piece": running, "enforce_at": enforcement[4]}
        return values


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def _cut(text: str, length: int) -> bytes:
    """Encode a text in at most so many bytes, splitting no character."""
    data = text.encode(errors="replace")
    if len(data) <= length:
        return data
    data = data[:length]
    return data.decode(errors="ignore").encode()


def _end_of(text: str, length: int) -> bytes:
    """Encode the end of a text in at most so many bytes, from the start of a line."""
    data = text.encode(errors="replace")
    if len(data) <= length:
        return data
    data = data[-length:]
    _, newline, rest = data.partition(b"\n")
    return rest if newline and rest else data.decode(errors="ignore").encode()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")
