"""By what a process holds the values that it refers to.

Any number of references to a value share one lease; when the last of them is gone the
lease ends, and the value may be released. References live in user code, on any thread,
and end when Python's memory management says so.
"""

from __future__ import annotations

import threading
from collections import deque
from weakref import WeakValueDictionary

from opencluster.references import DataRef


class Lease:
    """What all references of this process to one value keep alive."""

    __slots__ = ("__weakref__", "_ended", "id")

    def __init__(self, id: bytes, ended: deque[bytes]) -> None:
        self.id = id
        self._ended = ended

    def __del__(self) -> None:
        # anywhere, even while a lock is held: nothing may be done here but this
        self._ended.append(self.id)


class Leases:
    """The leases of one engine; for use by any thread."""

    def __init__(self) -> None:
        self._live: WeakValueDictionary[bytes, Lease] = WeakValueDictionary()
        self._ended: deque[bytes] = deque()
        # the end of a lease may come while it is held, and asks for nothing
        self._lock = threading.Lock()

    def under(self, ref: DataRef) -> tuple[DataRef, bool]:
        """Return a reference that keeps the lease of its value alive.

        Returns
        -------
        ref : DataRef
        is_new : bool
            There was no reference to the value before.
        """
        with self._lock:
            lease = self._live.get(ref.id)
            is_new = lease is None
            if lease is None:
                lease = self._live[ref.id] = Lease(ref.id, self._ended)
        return ref.under(lease), is_new

    def is_live(self, id: bytes) -> bool:
        """Return whether there is a reference to a value."""
        return id in self._live

    def take_ended(self) -> list[bytes]:
        """Return the values to which there is no reference any more, each once."""
        if not self._ended:
            return []
        ended: list[bytes] = []
        while self._ended:
            id = self._ended.popleft()
            # there may be a new lease of a value whose former one ended
            if id not in self._live:
                ended.append(id)
        return list(dict.fromkeys(ended))
