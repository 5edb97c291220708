"""Length-prefixed items with acknowledgement: a framing, and its other side.

Numbers are little-endian.

======  ==============================================================
bytes   of an item
======  ==============================================================
0-3     ``OCIT``
4       version, 1
5       0
6-7     length of the name in bytes, 1 to 200
8-15    length of the data in bytes
16-19   CRC-32 of the data
20-23   CRC-32 of the 20 bytes before and the name
24...   the name, UTF-8
...     the data
======  ==============================================================

======  ==============================================================
bytes   of an answer
======  ==============================================================
0-3     ``OCIA``
4       version, 1
5       a `Verdict`
6-7     length of the name in bytes
8-9     length of the reason in bytes
10-11   0
12-15   CRC-32 of the 12 bytes before, the name and the reason
16...   the name, then the reason, UTF-8
======  ==============================================================
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from opencluster.errors import IngestError
from opencluster.ingest.framing import (
    Broken,
    Event,
    Framing,
    ItemBegun,
    ItemData,
    ItemEnded,
    Verdict,
)

VERSION = 1
MAX_NAME = 200
"""Bytes of a name."""
MAX_REASON = 1000
"""Bytes of a reason."""
ITEM_MAGIC, ANSWER_MAGIC = b"OCIT", b"OCIA"
_ITEM = struct.Struct("<4sBBHQI")
_ANSWER = struct.Struct("<4sBBHHH")
_CHECK = struct.Struct("<I")
HEAD = _ITEM.size + _CHECK.size
ANSWER_HEAD = _ANSWER.size + _CHECK.size


def item_head(id: str, size: int, checksum: int) -> bytes:
    """Return what goes before the data of an item.

    Parameters
    ----------
    id : str
        Its name, 1 to 200 bytes of UTF-8.
    size, checksum : int
        Of the data, see `zlib.crc32`.
    """
    name = id.encode()
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"the name of an item has 1 to {MAX_NAME} bytes, not {id!r}")
    head = _ITEM.pack(ITEM_MAGIC, VERSION, 0, len(name), size, checksum)
    return head + _CHECK.pack(zlib.crc32(head + name)) + name


def pack_answer(id: str, verdict: Verdict, reason: str = "") -> bytes:
    """Return the answer to an item."""
    name = id.encode()
    text = reason.encode()[:MAX_REASON]
    head = _ANSWER.pack(ANSWER_MAGIC, VERSION, verdict, len(name), len(text), 0)
    return head + _CHECK.pack(zlib.crc32(head + name + text)) + name + text


class ItemFraming(Framing):
    """Items of any kind, each with a name, a length and a checksum."""

    can_repeat = True

    def __init__(self) -> None:
        self._head = bytearray()
        self._id = ""
        self._left = -1
        self._expected = 0
        self._is_broken = False

    def receive(self, data: memoryview, now: float) -> Sequence[Event]:
        """Take in bytes, and return what has happened."""
        events: list[Event] = []
        while len(data) and not self._is_broken:
            if self._left < 0:
                data = self._read_head(data, events)
            else:
                part = data[: self._left]
                data = data[len(part) :]
                self._left -= len(part)
                events.append(ItemData(part))
                self.looked_at(part)
            if self._left == 0:
                self._left = -1
                events += self.judged(self._expected, now)
        return events

    def is_unfinished(self) -> bool:
        """Return whether an item has begun."""
        return bool(self._head) or self._left >= 0

    def answer(self, id: str, verdict: Verdict, reason: str) -> bytes:
        """Return the answer."""
        return pack_answer(id, verdict, reason)

    def begun(self, id: str, size: int) -> None:
        """Be told that an item begins; for subclasses."""

    def looked_at(self, data: memoryview) -> None:
        """Be shown bytes of the item, for subclasses; they must not be kept."""

    def judged(self, checksum: int, now: float) -> Sequence[Event]:
        """Return what is to be made of an item whose bytes are there; for subclasses.

        Parameters
        ----------
        checksum : int
            What its sender says, to be handed on; the server compares it.
        now : float
            Seconds since 1970.
        """
        return [ItemEnded(checksum=checksum)]

    # --- inside --------------------------------------------------------------

    def _read_head(self, data: memoryview, events: list[Event]) -> memoryview:
        """Read what there is of a head, and return the rest of the bytes."""
        data = self._fill(data, HEAD)
        if len(self._head) < HEAD:
            return data
        *_, length, size, expected = _ITEM.unpack_from(self._head)
        problem = self._check()
        if not problem:
            data = self._fill(data, HEAD + length)
            if len(self._head) < HEAD + length:
                return data
            problem = self._read_name()
        if problem:
            self._is_broken = True
            events.append(Broken("framing", problem))
            return data
        self._head.clear()
        self._left, self._expected = size, expected
        self.begun(self._id, size)
        events.append(ItemBegun(self._id, size))
        return data

    def _fill(self, data: memoryview, wanted: int) -> memoryview:
        """Take as much as the head lacks of so many bytes, and return the rest."""
        missing = max(0, wanted - len(self._head))
        self._head += data[:missing]
        return data[missing:]

    def _check(self) -> str:
        """Return what is wrong with the fixed part of the head."""
        magic, version, kind, length, *_ = _ITEM.unpack_from(self._head)
        if magic != ITEM_MAGIC:
            return f"an item begins with {ITEM_MAGIC!r}, not with {magic!r}"
        if version != VERSION or kind != 0:
            return f"version {version}, kind {kind}: only {VERSION}, 0 is known"
        if not 1 <= length <= MAX_NAME:
            return f"a name of {length} bytes: it has 1 to {MAX_NAME}"
        return ""

    def _read_name(self) -> str:
        """Read the name, and return what is wrong with it or the whole head."""
        name = bytes(self._head[HEAD:])
        (check,) = _CHECK.unpack_from(self._head, _ITEM.size)
        if check != zlib.crc32(self._head[: _ITEM.size] + name):
            return "the checksum of a head is wrong"
        try:
            self._id = name.decode()
        except UnicodeDecodeError:
            return "a name is no UTF-8"
        return ""


@dataclass(frozen=True)
class Answer:
    """What a server said about an item.

    Attributes
    ----------
    id : str
        Its name.
    verdict : Verdict
        What became of it.
    reason : str
        Why.
    """

    id: str
    verdict: Verdict
    reason: str


class AnswerReader:
    """Reads answers, however they are cut."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def receive(self, data: bytes) -> Iterator[Answer]:
        """Take in bytes, and yield the answers that are whole.

        Raises
        ------
        IngestError
            When they are no answers.
        """
        self._kept += data
        while (answer := self._next()) is not None:
            yield answer

    def _next(self) -> Answer | None:
        kept = self._kept
        if len(kept) < ANSWER_HEAD:
            return None
        magic, version, verdict, name, reason, _ = _ANSWER.unpack_from(kept)
        end = ANSWER_HEAD + name + reason
        if magic != ANSWER_MAGIC or version != VERSION:
            raise IngestError(
                f"what listens there answers {bytes(kept[:5])!r}: it takes no items "
                "of this version; is it the right port?"
            )
        if len(kept) < end:
            return None
        (check,) = _CHECK.unpack_from(kept, _ANSWER.size)
        text = bytes(kept[ANSWER_HEAD:end])
        if check != zlib.crc32(kept[: _ANSWER.size] + text) or verdict not in _VERDICTS:
            raise IngestError("an answer of the server was damaged on its way")
        del kept[:end]
        return Answer(text[:name].decode(), Verdict(verdict), text[name:].decode())


_VERDICTS = frozenset(Verdict)
