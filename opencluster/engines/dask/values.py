"""Values on Dask workers, by the references of one program."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core.whereabouts import RELEASED, UNKNOWN
from opencluster.engines.dask.messages import Parts
from opencluster.engines.leases import Leases
from opencluster.errors import DataLost
from opencluster.references import DataRef, Holder
from opencluster.wire import codec

LOST = "the Dask workers that held it are gone"


@dataclass(frozen=True, slots=True)
class _Value:
    future: Any
    inner: tuple[DataRef, ...]


class DaskValues:
    """What references stand for: futures of Dask, which keep values in memory.

    Parameters
    ----------
    client : distributed.Client
        Whose futures they are.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._session = os.urandom(8)
        self._numbers = itertools.count(1)
        self._leases = Leases()
        self._values: dict[bytes, _Value] = {}
        self._lock = threading.Lock()

    def new_id(self) -> bytes:
        """Return an identity that no value has yet."""
        return self._session + next(self._numbers).to_bytes(8)

    def hold(
        self, id: bytes, future: Any, nbytes: int, worker: str, inner: Iterable[DataRef]
    ) -> DataRef:
        """Return a reference to a value that is on a Dask worker.

        Parameters
        ----------
        id : bytes
            The value's identity.
        future : distributed.Future
            What keeps it.
        nbytes : int
            Its size.
        worker : str
            Who has it.
        inner : iterable of DataRef
            What it refers to.
        """
        self.let_go()
        held = tuple(map(self.adopt, inner))
        with self._lock:
            self._values[id] = _Value(future, held)
        return self.adopt(DataRef(id, nbytes, Holder(worker, "dask", (future.key,))))

    def adopt(self, ref: DataRef) -> DataRef:
        """Return a reference that holds its value, of whatever program of the cluster.

        It is one of another program that a piece made on its worker.
        """
        mine, is_new = self._leases.under(ref)
        if is_new and ref.id not in self._values and ref.holder.host_id == "dask":
            self._watch(ref)
        return mine

    def futures(self, refs: Iterable[DataRef]) -> dict[bytes, Any]:
        """Return what keeps values, and all that they refer to.

        Raises
        ------
        DataLost
            When one was released, or is of somebody else.
        """
        self.let_go()
        found: dict[bytes, Any] = {}
        left = list(refs)
        while left:
            ref = left.pop()
            if ref.id in found:
                continue
            value = self._values.get(ref.id)
            if value is None:
                is_ours = ref.id.startswith(self._session)
                raise DataLost({name_of(ref): RELEASED if is_ours else UNKNOWN})
            found[ref.id] = value.future
            left += value.inner
        return found

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return values, the references in them as they are.

        Raises
        ------
        DataLost
            When one was released, or lost.
        """
        futures = [self.futures([ref])[ref.id] for ref in refs]
        return [
            self._decoded(parts, self.adopt) for parts in self._gathered(refs, futures)
        ]

    def resolve(self, ref: DataRef) -> Any:
        """Return a value, with the values in the place of references in it.

        Raises
        ------
        DataLost
            When one was released, or lost.
        """
        (parts,) = self._gathered([ref], [self.futures([ref])[ref.id]])
        return self._decoded(parts, self.resolve)

    def release(self, refs: Iterable[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        for ref in refs:
            self._drop(ref.id)

    def let_go(self) -> None:
        """Let go of values to which there are no references any more."""
        while ended := self._leases.take_ended():
            for id in ended:
                self._drop(id)

    def _drop(self, id: bytes) -> None:
        with self._lock:
            value = self._values.pop(id, None)
        # outside of the lock, as what it refers to may go with it
        del value

    def _watch(self, ref: DataRef) -> None:
        from distributed import Future

        key = ref.holder.endpoints[0]
        future: Any = Future(key, self._client)
        desire = {"op": "client-desires-keys", "keys": [key], "client": self._client.id}
        self._client._send_to_scheduler(desire)
        with self._lock:
            self._values[ref.id] = _Value(future, ())

    def _gathered(self, refs: Sequence[DataRef], futures: Sequence[Any]) -> list[Parts]:
        try:
            parts: list[Parts] = self._client.gather(list(futures))
        except Exception as error:
            lost = [r for r, f in zip(refs, futures, strict=True) if not is_there(f)]
            raise DataLost({name_of(ref): LOST for ref in lost or refs}) from error
        return parts

    def _decoded(self, parts: Parts, on_ref: Callable[[DataRef], Any]) -> Any:
        return codec.decode(parts.payload, parts.buffers, on_ref)


def is_there(future: Any) -> bool:
    """Return whether a value is there, as far as Dask knows."""
    return future.status in ("finished", "pending")


def name_of(ref: DataRef) -> str:
    """Return the name of a reference as its representation has it."""
    return ref.id[-4:].hex()
