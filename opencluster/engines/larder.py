"""Values that this process holds itself, for want of workers that could."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

from opencluster.core.whereabouts import RELEASED
from opencluster.engines.leases import Leases
from opencluster.errors import DataLost
from opencluster.keeping import owned
from opencluster.net.exchange import nbytes_of
from opencluster.references import DataRef, Holder
from opencluster.wire import codec


class Larder:
    """Values by reference; they go with the last reference to them.

    Parameters
    ----------
    name : str
        Of the holder, for people.
    """

    def __init__(self, name: str) -> None:
        self._holder = Holder(name)
        self._session = os.urandom(8)
        self._numbers = itertools.count(1)
        self._leases = Leases()
        self._values: dict[bytes, tuple[Sequence[Any], list[DataRef]]] = {}

    def keep(self, value: Any, name: str = "value") -> DataRef:
        """Hold a value, and what it refers to."""
        self._tidy_up()
        refs: list[DataRef] = []
        payload, buffers = codec.encode(value, name, refs)
        parts = owned(payload, buffers)
        id = self._session + next(self._numbers).to_bytes(8)
        self._values[id] = (parts, list(map(self.adopt, refs)))
        return self.adopt(DataRef(id, nbytes_of(parts), self._holder))

    def fetch(self, ref: DataRef) -> Any:
        """Return a value, the references in it as they are.

        Raises
        ------
        DataLost
            When it was released.
        """
        parts = self._parts(ref)
        return codec.decode(parts[0], parts[1:], self.adopt)

    def resolve(self, ref: DataRef) -> Any:
        """Return a value, with the values in the place of references in it.

        Raises
        ------
        DataLost
            When it, or one of those, was released.
        """
        parts = self._parts(ref)
        return codec.decode(parts[0], parts[1:], self.resolve)

    def release(self, refs: Iterable[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        for ref in refs:
            self._values.pop(ref.id, None)

    def adopt(self, ref: DataRef) -> DataRef:
        """Return a reference that holds its value."""
        return self._leases.under(ref)[0]

    def _parts(self, ref: DataRef) -> Sequence[Any]:
        self._tidy_up()
        found = self._values.get(ref.id)
        if found is None:
            raise DataLost({ref.id[-4:].hex(): RELEASED})
        return found[0]

    def _tidy_up(self) -> None:
        while ended := self._leases.take_ended():
            for id in ended:
                self._values.pop(id, None)
