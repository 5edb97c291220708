"""What an engine orders workers to hold, until they say that they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opencluster.core.fetching import PART_BYTES
from opencluster.engines.directory import Contact, Directory
from opencluster.net.exchange import Parts, data_and_buffers, nbytes_of, sizes_of
from opencluster.net.transport import Transport
from opencluster.node.host import host_id
from opencluster.references import Holder
from opencluster.wire import frames, kinds
from opencluster.wire.refs import holder_fields, size_in

Answered = Callable[[bool, str], None]
"""Called once with whether the value is held, and else why not."""


class Orders:
    """The orders of one engine that were not answered yet.

    Parameters
    ----------
    transport : Transport
        What carries them.
    directory : Directory
        Who is there.
    next_number : callable
        Returns a number that nothing else has.
    """

    def __init__(
        self, transport: Transport, directory: Directory, next_number: Callable[[], int]
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._next_number = next_number
        self._open: dict[int, tuple[str, Answered]] = {}
        self._larder: dict[bytes, Parts] = {}

    def put(self, to: Contact, id: bytes, parts: Parts, answered: Answered) -> None:
        """Order a worker to hold a value that is given to it.

        A large one it fetches from here, in parts, if it is on another computer.
        """
        data: bytes | None = None
        buffers: list[Any] = []
        is_near = to.entry.host_id == host_id()
        if is_near or nbytes_of(parts) <= PART_BYTES:
            data, buffers = data_and_buffers(parts)
        else:
            self._larder[id] = parts

        def done(is_kept: bool, why: str) -> None:
            self._larder.pop(id, None)
            answered(is_kept, why)

        number = self._order(to.id, done)
        header = frames.pack(kinds.PUT, number, id, data, sizes_of(parts))
        self._transport.send(to.peer, header, buffers)

    def copy(
        self,
        to: str,
        id: bytes,
        nbytes: int,
        holders: Iterable[Holder],
        answered: Answered,
    ) -> None:
        """Order a worker to fetch a value from who holds it, and to hold it too."""
        contact = self._directory.contacts.get(to)
        if contact is None:
            answered(False, "it is gone")
            return
        number = self._order(to, answered)
        fields = list(map(holder_fields, holders))
        header = frames.pack(kinds.COPY, number, id, nbytes, fields)
        self._transport.send(contact.peer, header)

    def parts_of(self, id: bytes) -> Parts | None:
        """Return a value that a worker fetches from here."""
        return self._larder.get(id)

    def answered(self, contact: Contact, fields: Sequence[Any]) -> None:
        """Take in an answer: ``kept`` or ``unkept``.

        Raises
        ------
        RemoteProtocolError, LookupError
            When it is malformed.
        """
        kind, number, detail = fields
        worker, answered = self._open.get(size_in(number), ("", None))
        if worker == contact.id and answered is not None:
            del self._open[number]
            is_kept = kind == kinds.KEPT
            answered(is_kept, "" if is_kept else str(detail))

    def lost(self, worker: str, why: str) -> None:
        """Note that a worker is gone."""
        numbers = [n for n, (to, _) in self._open.items() if to == worker]
        for number in numbers:
            _, answered = self._open.pop(number)
            answered(False, why)

    def _order(self, to: str, answered: Answered) -> int:
        number = self._next_number()
        self._open[number] = (to, answered)
        return number
