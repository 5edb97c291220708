"""References: handles on values that stay in the memory of a worker.

Owns what a reference is and how long it counts as used. Fetches nothing: a manager
gathers what references stand for, and a worker gets the values themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

ID_BYTES = 16
"""Length of a reference's identity."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that holds values, and the way to it.

    Attributes
    ----------
    worker : str
        Identity of the process.
    host_id : str
        What tells whether another process is on the same computer.
    endpoints : tuple of str
        Where it listens.
    public_key : str
        Of its certificate; empty without keys.
    """

    worker: str
    host_id: str = ""
    endpoints: tuple[str, ...] = ()
    public_key: str = ""

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.worker.rpartition(".")[0] or self.worker


class DataRef:
    """A handle on a value that is kept in a worker's memory.

    Managers make them: `Manager.scatter`, `Manager.broadcast`, and results with
    ``keep=True``. A reference may stand anywhere in a `WorkPiece`; ``perform()`` finds
    the value in its place. It never changes; the value is let go when the last
    reference to it in the manager is gone, or by `Manager.release`.

    Parameters
    ----------
    id : bytes
        Its identity, `ID_BYTES` long.
    nbytes : int
        Size of the value in bytes.
    holder : Holder
        Who holds the value, as far as was known when the reference was made.
    piece : int, optional
        Number of the piece that makes the value again when it is lost.
    lease : object, optional
        What lives as long as some reference of this process to the value does.
    """

    __slots__ = ("_holder", "_id", "_lease", "_nbytes", "_piece")

    def __init__(
        self,
        id: bytes,
        nbytes: int,
        holder: Holder,
        piece: int | None = None,
        lease: object = None,
    ) -> None:
        self._id = id
        self._nbytes = nbytes
        self._holder = holder
        self._piece = piece
        self._lease = lease

    @property
    def id(self) -> bytes:
        """Its identity: equal ones stand for the same value."""
        return self._id

    @property
    def nbytes(self) -> int:
        """Size of the value in bytes."""
        return self._nbytes

    @property
    def holder(self) -> Holder:
        """Who held the value when the reference was made."""
        return self._holder

    @property
    def piece(self) -> int | None:
        """Number of the piece that makes the value again, or ``None``."""
        return self._piece

    @property
    def lease(self) -> object:
        """What this process holds the value by, or ``None``."""
        return self._lease

    def under(self, lease: object) -> DataRef:
        """Return the same reference, which keeps a lease alive."""
        return DataRef(self._id, self._nbytes, self._holder, self._piece, lease)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataRef) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __copy__(self) -> DataRef:
        return self

    def __deepcopy__(self, memo: Any) -> DataRef:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a DataRef cannot be pickled: it is good only as long as its manager "
            "lives; gather the value and store that"
        )

    def __repr__(self) -> str:
        size = size_text(self._nbytes)
        again = ", can be made again" if self._piece is not None else ""
        name = self._holder.name
        return f"<DataRef {self._id[-4:].hex()}: {size} on {name}{again}>"


def size_text(nbytes: int) -> str:
    """Return a size for people: ``"12.0 MB"``."""
    size = float(nbytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
