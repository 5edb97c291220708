"""Look into the logs of a computer's processes: the last lines, then what came since.

Whoever looks says where it stopped the time before, so that nothing is kept here for
anybody. A log may be turned over meanwhile: its older files are looked into as well.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from opencluster.core.log_lines import Sieve, Wanted, head_of
from opencluster.errors import RequestRefused
from opencluster.node.output import READ_TAIL_BYTES, read_tail

MAX_BYTES = 256 * 1024
"""Most of one log that one look returns."""
MAX_LOGS = 2000
SEARCHED_LINES = 20_000
"""Last lines of a log among which messages are looked for."""

NEAR_BYTES = 64 * 1024
"""How closely the place of a time in a log is looked for."""
TIMELESS_BYTES = 1 << 20
"""Most that is read to find the next time; what is printed has none."""

BYTES_OF_PASSAGE = 512
"""More than what a passage takes besides its lines."""

Position = tuple[int, int, int]
"""A file, by its inode; how many bytes of it were seen; and a checksum of the first of
these, since the inode of a file that was removed is soon given to another."""
_HEAD_BYTES = 64


@dataclass(frozen=True)
class Passage:
    """Some lines of a log.

    Attributes
    ----------
    name : str
        The process.
    lines : sequence of str
        What is wanted of it, without line ends.
    position : Position
        From where to go on.
    changed : str
        When something was written to it last, UTC; for what was only printed.
    """

    name: str
    lines: Sequence[str]
    position: Position
    changed: str

    def to_fields(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {
            "name": self.name,
            "lines": list(self.lines),
            "position": list(self.position),
            "changed": self.changed,
        }


def read_question(
    arguments: Mapping[str, Any],
) -> tuple[Wanted, int, dict[str, Position], list[str]]:
    """Return what somebody asks `passages` from elsewhere.

    Raises
    ------
    RequestRefused
        When that makes no sense.
    """
    try:
        wanted = Wanted(**{str(k): str(v) for k, v in arguments["wanted"].items()})
        lines = min(max(0, int(arguments["lines"])), SEARCHED_LINES)
        positions = {
            str(name): (int(inode), max(0, int(offset)), int(head))
            for name, (inode, offset, head) in arguments.get("positions", {}).items()
        }
        return wanted, lines, positions, [str(n) for n in arguments.get("names", [])]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RequestRefused(f"no question about logs: {error}") from None


def names_in(folder: Path) -> list[str]:
    """Return the names of all processes that printed something."""
    return sorted(path.stem for path in folder.glob("*.log"))


def passages(
    folder: Path,
    wanted: Wanted,
    lines: int,
    positions: Mapping[str, Position],
    names: Collection[str] = (),
) -> Iterator[Passage]:
    """Yield what is new in each log, or its last lines where nothing was seen before.

    Parameters
    ----------
    folder : Path
        Where the logs are.
    wanted : Wanted
        Which messages.
    lines : int
        Last lines of a log that is looked into for the first time.
    positions : mapping
        Where the look before stopped, by name.
    names : collection of str, optional
        The processes; by default all.
    """
    for name in names_in(folder)[:MAX_LOGS]:
        if names and name not in names:
            continue
        path = folder / f"{name}.log"
        before = positions.get(name)
        with contextlib.suppress(FileNotFoundError):
            if before is None:
                yield _last(name, path, wanted, lines)
            else:
                yield _since(name, path, wanted, before)


def _last(name: str, path: Path, wanted: Wanted, lines: int) -> Passage:
    is_all = wanted == Wanted()
    found = path.stat()
    if wanted.until:
        text = _text_before(path, wanted.until)
    else:
        text = read_tail(path, lines + 1 if is_all else SEARCHED_LINES)
    whole, newline, rest = text.rpartition("\n")
    if not newline:
        whole = ""
    chosen = list(Sieve(wanted).through(whole.splitlines()))[-lines:] if lines else []
    seen = found.st_size - len(rest.encode(errors="replace"))
    position = _position(path, found.st_ino, max(0, seen))
    return Passage(name, chosen, position, _utc(found.st_mtime))


def _text_before(path: Path, until: str) -> str:
    """Return the end of what a log held at a time, and a little more."""
    found = b""
    for name in [path, *_older(path)]:
        with contextlib.suppress(FileNotFoundError), name.open("rb") as file:
            stop = _end_before(file, until)
            start = max(0, stop - (READ_TAIL_BYTES - len(found)))
            file.seek(start)
            found = file.read(stop - start) + found
        if len(found) >= READ_TAIL_BYTES:
            break
    return found.decode(errors="replace")


def _end_before(file: BinaryIO, until: str) -> int:
    """Return where in a file the messages end that are older, or a little behind."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > NEAR_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        lines = file.read(min(high - middle, TIMELESS_BYTES)).split(b"\n")[1:]
        heads = (head_of(line.decode(errors="replace")) for line in lines)
        first = next((head.time for head in heads if head is not None), until)
        low, high = (middle, high) if first < until else (low, middle)
    file.seek(high)
    # to the end of the line
    return high + len(file.readline(NEAR_BYTES))


def _utc(seconds: float) -> str:
    whole, part = divmod(seconds, 1)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{moment}.{int(1000 * part):03d}Z"


def _since(name: str, path: Path, wanted: Wanted, before: Position) -> Passage:
    data = b""
    parts: list[tuple[Path, int, int, int]] = []
    for file, inode, offset, part in _unseen(path, before):
        parts.append((file, inode, offset, len(part)))
        data += part
        if len(data) >= MAX_BYTES:
            break
    data = data[:MAX_BYTES]
    # a line that is longer than a look comes in pieces
    end = data.rfind(b"\n") + 1 or (len(data) if len(data) == MAX_BYTES else 0)
    lines = data[:end].decode(errors="replace").splitlines()
    position = before
    for file, inode, offset, length in parts:
        position = _position(file, inode, offset + min(end, length))
        end -= length
        if end <= 0:
            break
    changed = _utc(path.stat().st_mtime)
    return Passage(name, list(Sieve(wanted).through(lines)), position, changed)


def _unseen(path: Path, before: Position) -> Iterator[tuple[Path, int, int, bytes]]:
    """Yield the file that was seen last from where it was left, and those after it."""
    files = [path, *_older(path)]
    _, offset, _ = before
    same = (n for n, file in enumerate(files) if _is_at(file, before))
    # if it was removed, what is oldest now came next
    start = next(same, len(files))
    if start == len(files):
        start, offset = len(files) - 1, 0
    for place in range(start, -1, -1):
        with contextlib.suppress(FileNotFoundError), files[place].open("rb") as file:
            file.seek(offset)
            inode = os.fstat(file.fileno()).st_ino
            yield files[place], inode, offset, file.read(MAX_BYTES)
        offset = 0


def _position(path: Path, inode: int, offset: int) -> Position:
    return inode, offset, _head(path, offset)


def _is_at(path: Path, position: Position) -> bool:
    """Return whether a file is the one that a position is in."""
    inode, offset, head = position
    try:
        found = path.stat()
        is_same = found.st_ino == inode and found.st_size >= offset
        return is_same and _head(path, offset) == head
    except FileNotFoundError:
        return False


def _head(path: Path, offset: int) -> int:
    """Return a checksum of the first bytes of a file, of those that were seen."""
    with path.open("rb") as file:
        return zlib.crc32(file.read(min(offset, _HEAD_BYTES)))


def _older(path: Path) -> Iterator[Path]:
    number = 1
    while (older := path.with_name(f"{path.name}.{number}")).exists():
        yield older
        number += 1
