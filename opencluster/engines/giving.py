"""Values on their way from this process to the workers that are to hold them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from opencluster.engines.base import Where
from opencluster.engines.directory import Contact, Directory
from opencluster.engines.orders import Orders
from opencluster.errors import NoSuitableWorker, WorkError
from opencluster.net.exchange import Parts, nbytes_of
from opencluster.node.host import host_id
from opencluster.references import DataRef, Holder

log = logging.getLogger(__name__)


@dataclass
class Put:
    """A value on its way to a worker.

    Attributes
    ----------
    id : bytes
        Its identity.
    parts : sequence
        The value.
    contents : tuple of DataRef
        What it refers to.
    where : Where
        Who may hold it.
    ref : DataRef or None
        What it is referred to by, when it is kept.
    error : WorkError or None
        Why it is not.
    is_over : bool
        Nothing more happens.
    """

    id: bytes
    parts: Parts
    contents: tuple[DataRef, ...] = ()
    where: Where = Where()
    ref: DataRef | None = None
    error: WorkError | None = None
    is_over: bool = False
    nbytes: int = 0
    tried: set[str] = field(default_factory=set)
    # who can pass it on, and to whom; and how many do that now
    parents: deque[str] = field(default_factory=deque)
    targets: deque[str] = field(default_factory=deque)
    under_way: int = 0


class Giving:
    """Chooses workers for values, and has values spread.

    Parameters
    ----------
    directory : Directory
        Who is there.
    orders : Orders
        What workers are told by.
    nbytes_at : callable
        Returns how much a worker holds for this process already.
    kept : callable
        Given a `Put` and a worker that holds it now, returns the reference to it.
    copied : callable
        Given an identity and another worker that holds that value now.
    """

    def __init__(
        self,
        directory: Directory,
        orders: Orders,
        nbytes_at: Callable[[str], int],
        kept: Callable[[Put, Contact], DataRef],
        copied: Callable[[bytes, str], None],
    ) -> None:
        self._directory = directory
        self._orders = orders
        self._nbytes_at = nbytes_at
        self._kept = kept
        self._copied = copied
        self._promised: dict[str, int] = {}

    def put(self, put: Put) -> None:
        """Give a value to the worker that holds least, and to others if that fails."""
        contact = self._choose(put)
        if contact is None:
            if put.error is None:
                why = "no worker is here that could hold a value"
                put.error = NoSuitableWorker(why)
            _end(put)
            return
        put.tried.add(contact.id)
        put.nbytes = nbytes_of(put.parts)
        promised = self._promised
        promised[contact.id] = promised.get(contact.id, 0) + put.nbytes

        def answered(is_kept: bool, why: str) -> None:
            if contact.id in promised:
                promised[contact.id] -= put.nbytes
            if is_kept:
                self._is_kept(put, contact)
            else:
                put.error = WorkError(f"{contact.entry.name} does not hold it: {why}")
                self.put(put)

        self._orders.put(contact, put.id, put.parts, answered)

    def lost(self, worker: str) -> None:
        """Note that a worker is gone."""
        self._promised.pop(worker, None)

    # --- inside --------------------------------------------------------------

    def _able(self, where: Where) -> list[Contact]:
        return [
            contact
            for contact in self._directory.contacts.values()
            if contact.is_joined
            and contact.is_worker
            and not contact.is_leaving
            and where.type in ("", contact.type)
            and (not where.workers or contact.id in where.workers)
        ]

    def _choose(self, put: Put) -> Contact | None:
        """Return who should hold a value; of one that goes everywhere, who is near."""

        def held(contact: Contact) -> tuple[bool, int]:
            is_far = put.where.everywhere and contact.entry.host_id != host_id()
            promised = self._promised.get(contact.id, 0)
            return is_far, self._nbytes_at(contact.id) + promised

        able = [c for c in self._able(put.where) if c.id not in put.tried]
        return min(able, key=held, default=None)

    def _is_kept(self, put: Put, contact: Contact) -> None:
        put.ref = self._kept(put, contact)
        put.error = None
        if put.where.everywhere:
            put.parents.append(contact.id)
            chosen: dict[str, str] = {}
            for other in self._able(put.where):
                chosen.setdefault(other.entry.host_id, other.id)
            chosen.pop(contact.entry.host_id, None)
            put.targets.extend(chosen.values())
        self._spread(put)

    def _spread(self, put: Put) -> None:
        """Have a value copied from computer to computer, each helping the others."""
        while put.parents and put.targets:
            self._pass_on(put, put.parents.popleft(), put.targets.popleft())
        if not put.under_way and not put.is_over:
            _end(put)

    def _pass_on(self, put: Put, parent: str, target: str) -> None:
        def answered(is_kept: bool, why: str) -> None:
            put.under_way -= 1
            put.parents.append(parent)
            if is_kept:
                put.parents.append(target)
                self._copied(put.id, target)
            else:
                log.warning("a value is not on the computer of %s: %s", target, why)
            self._spread(put)

        put.under_way += 1
        contact = self._directory.contacts.get(parent)
        holders = [] if contact is None else [holder_of(contact)]
        self._orders.copy(target, put.id, put.nbytes, holders, answered)


def _end(put: Put) -> None:
    put.parts = ()
    put.is_over = True


def holder_of(contact: Contact) -> Holder:
    """Return a worker as those know it who are to fetch from it."""
    entry = contact.entry
    return Holder(entry.id, entry.host_id, entry.endpoints, entry.public_key)
