"""What a Dask client of ours and Dask workers tell each other about pieces.

An order goes as one string of bytes in the graph, which Dask's scheduler passes on
without a look at it: so it needs no OpenCluster. Large pieces, values and results are
`Parts`, whose memory travels uncopied, as frames of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any

import msgpack

from opencluster.errors import RemoteProtocolError

FORMAT = 1
"""Grows when older versions would misunderstand an order."""
UNKNOWN_CLASS = "unknown class"
"""The Dask worker has not met the class yet: send it along."""
BROKEN = "broken"
"""The class cannot be had there, or its startup() raised."""
NOT_BEGUN = "not begun"
"""A piece of a bundle that took too long: others may have it."""


class Parts:
    """An encoded value.

    Parameters
    ----------
    payload : bytes
        The value without its large arrays.
    buffers : sequence of buffers
        Their memory.
    """

    __slots__ = ("buffers", "payload")

    def __init__(self, payload: bytes, buffers: Sequence[Any] = ()) -> None:
        self.payload = payload
        self.buffers = list(buffers)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self.payload) + sum(memoryview(b).nbytes for b in self.buffers)

    def __sizeof__(self) -> int:
        # by this Dask decides what to spill, and where tasks go
        return self.nbytes

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # read-only, or Dask copies what it received to make it writeable
        views = (memoryview(buffer).toreadonly() for buffer in self.buffers)
        own = PickleBuffer if protocol >= 5 else bytes
        return type(self), (self.payload, [own(view) for view in views])


class Answer(Parts):
    """What came of the pieces of an order, and of which instance it is."""

    __slots__ = ()

    @classmethod
    def of(cls, worker: str, rows: Sequence[Row]) -> Answer:
        """Return what is told of pieces that ended."""
        told = [
            (row.status, row.payload, len(row.buffers), row.elapsed_s) for row in rows
        ]
        buffers = [buffer for row in rows for buffer in row.buffers]
        return cls(msgpack.packb([worker, told]), buffers)

    def rows(self) -> tuple[str, list[Row]]:
        """Return the name of the instance, and the pieces in order."""
        worker, told = msgpack.unpackb(self.payload)
        left = iter(self.buffers)
        rows = []
        for status, payload, count, elapsed_s in told:
            buffers = [next(left) for _ in range(count)]
            rows.append(Row(status, payload, buffers, elapsed_s))
        return worker, rows


@dataclass(slots=True)
class Row:
    """How one piece ended.

    Attributes
    ----------
    status : str
        As workers of OpenCluster answer, or one of those above.
    payload, buffers
        The encoded result, or failure.
    elapsed_s : float
        How long it ran.
    """

    status: str
    payload: bytes = b""
    buffers: Sequence[Any] = ()
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a Dask worker is to do.

    Attributes
    ----------
    session : str
        Whose pieces they are.
    type : str
        The worker type.
    seat : int
        Which of the instances there should have it; -1 for any.
    task : bytes
        Identity of the Dask task, and of the value that is kept.
    is_kept : bool
        The result stays, and is told of by an event.
    is_watched : bool
        Somebody wants to know of progress.
    is_urgent : bool
        They are real-time pieces.
    numbers : sequence of int
        The pieces.
    timeout_s, interrupt_grace_s, kill_grace_s : float
        Time limit, and the graces of interrupts.
    max_bytes : int
        Largest result.
    digest, recipe : bytes
        The class, and how it is had; empty unless it is sent along.
    rows : sequence
        For each piece the payload and buffers; ``None`` for one that comes as `Parts`.
    values : sequence of bytes
        Identities of the values that come with it, in order.
    """

    session: str
    type: str
    seat: int
    task: bytes
    is_kept: bool
    is_watched: bool
    is_urgent: bool
    numbers: Sequence[int]
    timeout_s: float
    interrupt_grace_s: float
    kill_grace_s: float
    max_bytes: int
    digest: bytes
    recipe: bytes
    rows: Sequence[Any]
    values: Sequence[bytes]

    def pack(self) -> bytes:
        """Return it as bytes."""
        fields = [getattr(self, name) for name in self.__slots__]
        packed: bytes = msgpack.packb([FORMAT, *fields])
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Order:
        """Return the order in some bytes.

        Raises
        ------
        RemoteProtocolError
            When another version wrote it.
        """
        number, *fields = msgpack.unpackb(packed)
        if number != FORMAT:
            raise RemoteProtocolError(
                "OpenCluster on this Dask worker is of another version than that of "
                "the manager: install the same one"
            )
        return cls(*fields)


def topic_of(session: str) -> str:
    """Return the topic of Dask's events under which a session is told of things."""
    return f"opencluster-{session}"
