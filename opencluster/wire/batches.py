"""Many pieces or results in few messages, none of them too large to be taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from opencluster.errors import LocalProtocolError
from opencluster.wire.frames import MAX_FRAME_BYTES

MAX_BATCH_BYTES = 16 << 20
"""Payload in the header of one message: a large one would delay what comes behind."""
MAX_BATCH_BUFFERS = 1024
"""Buffers of one message that holds several rows."""

Row = tuple[list[Any], bytes, Sequence[Any]]
"""The fields of a row, its payload (one of the fields), and its buffers."""


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
    nbytes = 0
    for row, payload, own in rows:
        is_full = (
            nbytes + len(payload) > MAX_BATCH_BYTES
            or len(buffers) + len(own) > MAX_BATCH_BUFFERS
        )
        if fields and is_full:
            yield fields, buffers
            fields, buffers, nbytes = [], [], 0
        fields.append(row)
        buffers.extend(own)
        nbytes += len(payload)
    if fields:
        yield fields, buffers


def check_size(payload: bytes, buffers: Sequence[Any], max_bytes: int) -> None:
    """Refuse what the receiver would not take.

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
    for buffer in buffers:
        nbytes = memoryview(buffer).nbytes
        if nbytes > max_bytes:
            raise LocalProtocolError(
                f"an array of {nbytes} bytes is larger than a message may be "
                f"({max_bytes} bytes); raise [network] max_message_bytes on every "
                "computer, or cut the array"
            )
