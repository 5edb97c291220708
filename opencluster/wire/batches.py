"""Many pieces or results in few messages, none of them too large to be taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire.frames import MAX_FRAME_BYTES

MAX_BATCH_BYTES = 16 << 20
"""Payload in the header of one message: a large one would delay what comes behind."""
MAX_BATCH_BUFFERS = 1024
"""Buffers of one message that holds several rows."""
MAX_MEMBERS = 1024
"""Pieces of a bundle that is taken from outside."""
MAX_BATCH_BUFFER_BYTES = 8 << 20
"""Size of those buffers: a row with more goes alone, so that none waits for it and it
can be given up by itself."""


class PieceRow(NamedTuple):
    """A piece in a message: its number, how to run it, and its encoded data.

    That of a bundle is a list, of that of its pieces: the encoded data, or these and
    the number of buffers. A priority that is a list is that of a real-time piece, with
    how long it may wait in seconds; or, with nothing, of a piece that makes way for
    none of those.
    """

    number: int
    priority: int | list[Any]
    timeout_s: float
    payload: bytes | list[Any]
    buffers: int


class ResultRow(NamedTuple):
    """An outcome in a message: of which piece, what, and how long it took.

    That of a bundle is a list, of that of its pieces as far as they are over: the
    encoded result, or the status, what is encoded, and the number of buffers.
    """

    number: int
    status: str
    payload: bytes | list[Any]
    buffers: int
    elapsed_s: float


AnyRow = TypeVar("AnyRow", PieceRow, ResultRow)
_TIME = {PieceRow: 2, ResultRow: 4}
"""Where a row has a time in seconds."""
_PIECE_TYPES = (int, int, float, bytes, int)
_RESULT_TYPES = (int, str, bytes, int, float)
_MEMBER_TYPES = {PieceRow: (bytes, int), ResultRow: (str, bytes, int)}
"""What stands for a piece of a bundle, or for what came of it, besides the payload
alone."""
_FEWEST_MEMBERS = {PieceRow: 2, ResultRow: 0}

Row = tuple[list[Any], int, Sequence[Any]]
"""The fields of a row, the bytes of its payload, and its buffers."""


def batches(rows: Iterable[Row]) -> Iterator[tuple[list[list[Any]], list[Any]]]:
    """Group rows into messages.

    Parameters
    ----------
    rows : iterable of Row
        What is to be sent, in order.

    Yields
    ------
    fields : list of list
        The rows of one message.
    buffers : list
        Their buffers, in the same order.
    """
    fields: list[list[Any]] = []
    buffers: list[Any] = []
    nbytes = buffer_bytes = 0
    for row, size, own in rows:
        own_bytes = sum(map(len, own)) if own else 0
        is_full = (
            nbytes + size > MAX_BATCH_BYTES
            or len(buffers) + len(own) > MAX_BATCH_BUFFERS
            or buffer_bytes + own_bytes > MAX_BATCH_BUFFER_BYTES
        )
        if fields and is_full:
            yield fields, buffers
            fields, buffers, nbytes, buffer_bytes = [], [], 0, 0
        fields.append(row)
        buffers.extend(own)
        nbytes += size
        buffer_bytes += own_bytes
    if fields:
        yield fields, buffers


def pieces_in(
    rows: Any, buffers: Sequence[Any]
) -> list[tuple[PieceRow, Sequence[Any]]]:
    """Return the pieces of a message, each with its buffers.

    Raises
    ------
    RemoteProtocolError
        When a row is malformed; then nothing of the message counts.
    """
    return _split(PieceRow, _PIECE_TYPES, rows, buffers)


def results_in(
    rows: Any, buffers: Sequence[Any]
) -> list[tuple[ResultRow, Sequence[Any]]]:
    """Return the outcomes of a message, each with its buffers.

    Raises
    ------
    RemoteProtocolError
        When a row is malformed; then nothing of the message counts.
    """
    return _split(ResultRow, _RESULT_TYPES, rows, buffers)


def members_in(
    members: Sequence[Any], buffers: Sequence[Any]
) -> Iterator[tuple[bytes, Sequence[Any]]]:
    """Iterate over the pieces of a bundle, each with its buffers.

    A list of buffers gets shorter meanwhile, so that the memory of a piece that is over
    is free for others.
    """
    left = buffers if isinstance(buffers, list) else list(buffers)
    for member in members:
        if type(member) is bytes:
            yield member, ()
            continue
        payload, count = member
        own = left[:count]
        del left[:count]
        yield payload, own


def size_of_members(members: Iterable[Any]) -> int:
    """Return how many bytes the payloads of a bundle take."""
    return sum(len(one if type(one) is bytes else one[-2]) for one in members)


def numbers_in(numbers: Any) -> list[int]:
    """Return the piece numbers of a message.

    Raises
    ------
    RemoteProtocolError
        When it holds anything else.
    """
    if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
        raise RemoteProtocolError("a list of piece numbers is malformed")
    return numbers


def _split(
    kind: type[AnyRow],
    types: tuple[type, ...],
    rows: Any,
    buffers: Sequence[Any],
) -> list[tuple[AnyRow, Sequence[Any]]]:
    if not isinstance(rows, list):
        raise RemoteProtocolError("a message of rows is malformed")
    split: list[tuple[AnyRow, Sequence[Any]]] = []
    taken = 0
    time_at = _TIME[kind]
    for fields in rows:
        if not isinstance(fields, list) or (
            tuple(map(type, fields)) != types and not _is_special(kind, types, fields)
        ):
            raise RemoteProtocolError(
                f"a {kind.__name__} is malformed: {fields!r:.100}"
            )
        if not 0 <= fields[time_at] < math.inf:
            raise RemoteProtocolError(f"a {kind.__name__} has no sensible time")
        row = kind(*fields)
        if not row.buffers:
            split.append((row, ()))
            continue
        if not 0 < row.buffers <= len(buffers) - taken:
            raise RemoteProtocolError("a row has other buffers than it announces")
        split.append((row, buffers[taken : taken + row.buffers]))
        taken += row.buffers
    return split


def _is_special(
    kind: type[PieceRow | ResultRow], types: tuple[type, ...], fields: list[Any]
) -> bool:
    """Return whether a row is well-formed that is not of the usual types."""
    if kind is PieceRow and len(fields) == len(types) and type(fields[1]) is list:
        if not _is_urgency(fields[1]):
            return False
        fields = [fields[0], 0, *fields[2:]]
        if tuple(map(type, fields)) == types:
            return True
    return _is_bundle(kind, types, fields)


def _is_urgency(urgency: list[Any]) -> bool:
    """Return whether this is a priority with what the priority alone does not tell."""
    if len(urgency) != 2 or type(urgency[0]) is not int:
        return False
    wait_s = urgency[1]
    return wait_s is None or (type(wait_s) is float and wait_s >= 0.0)


def _is_bundle(
    kind: type[PieceRow | ResultRow], types: tuple[type, ...], fields: list[Any]
) -> bool:
    """Return whether a row is well-formed, and that of a bundle."""
    if len(fields) != len(types):
        return False
    at = kind._fields.index("payload")
    members = fields[at]
    alone = [*fields[:at], b"", *fields[at + 1 :]]
    if type(members) is not list or tuple(map(type, alone)) != types:
        return False
    others = [member for member in members if type(member) is not bytes]
    of_member = _MEMBER_TYPES[kind]
    return (
        _FEWEST_MEMBERS[kind] <= len(members) <= MAX_MEMBERS
        and all(
            type(o) is list and tuple(map(type, o)) == of_member and o[-1] >= 0
            for o in others
        )
        and sum(o[-1] for o in others) == fields[kind._fields.index("buffers")]
    )


def check_size(payload: bytes, buffers: Sequence[Any], max_bytes: int) -> int:
    """Return the size in bytes of what is to be sent.

    Raises
    ------
    LocalProtocolError
        When a part is larger than a message may be.
    """
    inline_limit = min(max_bytes, MAX_FRAME_BYTES) - MAX_BATCH_BYTES
    if len(payload) > inline_limit:
        raise LocalProtocolError(
            f"the value takes {len(payload)} bytes besides its arrays, and at most "
            f"{inline_limit} can be sent; put large data into numpy arrays or files"
        )
    size = len(payload)
    for buffer in buffers:
        nbytes = memoryview(buffer).nbytes
        size += nbytes
        if nbytes > max_bytes:
            raise LocalProtocolError(
                f"an array of {nbytes} bytes is larger than a message may be "
                f"({max_bytes} bytes); raise [network] max_message_bytes on every "
                "computer, or cut the array"
            )
    return size
