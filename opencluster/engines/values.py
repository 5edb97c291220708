"""The values that workers hold for the managers of this process.

This shell joins `core.whereabouts` to the net: it gives values to workers, fetches them
back, has them copied and released, and tells the engine which pieces may go on, and
which values must be made again. All but what is said to be for any thread is for use
while holding the reactor.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from opencluster.core.locality import Need
from opencluster.core.whereabouts import (
    Copy,
    Effect,
    ForgetPiece,
    GiveUp,
    Refer,
    ReferToThese,
    Release,
    Remake,
    Resume,
    TryAgain,
    Unsaved,
    Whereabouts,
)
from opencluster.engines.base import Options
from opencluster.engines.directory import Contact, Directory
from opencluster.engines.giving import Giving, Put, holder_of
from opencluster.engines.leases import Leases
from opencluster.engines.orders import Orders
from opencluster.errors import (
    DataLost,
    OpenClusterError,
    RemoteProtocolError,
    WorkError,
)
from opencluster.net.exchange import KINDS, Exchange, Parts
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Peer
from opencluster.node.host import host_id
from opencluster.references import DataRef, Holder, size_text
from opencluster.wire import codec, frames, kinds
from opencluster.wire.refs import holder_fields, id_in, size_in

log = logging.getLogger(__name__)

VALUE_KINDS = KINDS | {kinds.KEPT, kinds.UNKEPT, kinds.MISSING}
"""What workers say of values."""
LEAST_NEED_BYTES = 64 << 10
"""Smaller values are fetched as fast as a worker is chosen for them."""
MAX_NEEDS = 16
"""Values of a piece that are looked at, the largest."""
MAX_REASON = 1000
"""Characters of why a value could not be fetched."""
MAX_HOLDERS = 8
"""Holders of a value that a worker is told of."""
NOBODY_S = 1.0
"""How long nobody can take the values of a worker that leaves, before it is told so:
who was started a moment ago may yet join."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a value is made again.

    Attributes
    ----------
    type : str
        Worker type.
    payload, buffers
        The encoded piece.
    options : Options
        How it is run.
    inputs : tuple of DataRef
        What it refers to, without leases.
    """

    type: str
    payload: bytes
    buffers: Sequence[Any]
    options: Options
    inputs: tuple[DataRef, ...]


@dataclass
class Gather:
    """Values on their way to this process.

    Attributes
    ----------
    refs : tuple of DataRef
        Which.
    parts : dict
        Those that are here, by identity.
    error : WorkError or None
        Why some cannot be had.
    """

    refs: tuple[DataRef, ...]
    parts: dict[bytes, Parts] = field(default_factory=dict)
    error: WorkError | None = None
    number: int = 0

    @property
    def missing(self) -> list[DataRef]:
        """Those that are not here yet."""
        return [ref for ref in self.refs if ref.id not in self.parts]

    @property
    def is_over(self) -> bool:
        """Whether all are here, or one cannot be had."""
        return self.error is not None or not self.missing


@dataclass(slots=True)
class Farewell:
    """How far a worker that leaves is in letting go of its values.

    Attributes
    ----------
    stuck_at : float or None
        Since when nobody can take what is left of them.
    told : int
        How many that are it was told.
    """

    stuck_at: float | None = None
    told: int = 0


Failure = tuple[bytes, str, list[str]]
"""A value that could not be fetched: its identity, why, and which holders said
themselves that they do not have it."""


class Values:
    """The values of one engine.

    Parameters
    ----------
    reactor : Reactor
        Whose transport carries the messages.
    directory : Directory
        Who is there.
    next_number : callable
        Returns a number that no piece has.
    resume : callable
        Given the number of a piece, lets it be dispatched.
    ask_again : callable
        Given the number of a piece, has it say once more what it needs.
    give_up : callable
        Given the number of a piece and an error, ends it.
    remake : callable
        Given an identity and a `Recipe`, runs the piece again that makes a value.
    """

    def __init__(
        self,
        reactor: Reactor,
        directory: Directory,
        next_number: Callable[[], int],
        resume: Callable[[int], None],
        ask_again: Callable[[int], None],
        give_up: Callable[[int, WorkError], None],
        remake: Callable[[bytes, Recipe], None],
    ) -> None:
        self._reactor = reactor
        self._transport = reactor.transport
        self._directory = directory
        self._next_number = next_number
        self._resume = resume
        self._ask_again = ask_again
        self._give_up = give_up
        self._remake = remake
        self._session = os.urandom(8)
        self._leases = Leases()
        self._whereabouts = Whereabouts()
        self._recipes: dict[bytes, Recipe] = {}
        self._orders = Orders(reactor.transport, directory, next_number)
        self._giving = Giving(
            directory,
            self._orders,
            self._whereabouts.nbytes_at,
            self._put_is_kept,
            lambda id, worker: self._do(self._whereabouts.copied(id, worker)),
        )
        self._exchange = Exchange(
            reactor.transport,
            host_id(),
            self._orders.parts_of,
            self._reach,
            lambda holder, peer: None,
            self._arrived,
            self._failed,
        )
        self._gathers: dict[int, Gather] = {}
        self._awaited: dict[bytes, set[int]] = {}
        self._releases: dict[str, list[bytes]] = {}
        self._farewells: dict[str, Farewell] = {}

    # --- for any thread ------------------------------------------------------

    def id_of(self, number: int) -> bytes:
        """Return the identity of what the piece of a number makes."""
        return self._session + number.to_bytes(8)

    def adopt(self, ref: DataRef) -> DataRef:
        """Return a reference that came in a value as one that holds the value."""
        ours, is_new = self._leases.under(ref)
        if is_new:
            self._reactor.post(lambda: self._refer(ref))
        return ours

    def put(self, put: Put) -> None:
        """Begin to give a value to a worker."""
        self._reactor.post(lambda: self._giving.put(put))

    def gather(self, gather: Gather) -> None:
        """Begin to fetch values."""
        gather.number = self._next_number()
        self._reactor.post(lambda: self._gather(gather))

    def forget(self, gather: Gather) -> None:
        """Fetch values no longer."""
        self._reactor.post(lambda: self._end(gather))

    def release(self, refs: Iterable[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        ids = [ref.id for ref in refs]

        def release() -> None:
            for id in ids:
                self._do(self._whereabouts.released(id))

        self._reactor.post(release)

    # --- pieces --------------------------------------------------------------

    def needed(
        self, number: int, refs: Iterable[DataRef], makes: bytes | None = None
    ) -> None:
        """Let a piece go on, wait or end: see `Whereabouts.needed`."""
        ids = [ref.id for ref in refs]
        self._do(self._whereabouts.needed(number, ids, makes))

    def not_found(
        self,
        number: int,
        refs: Iterable[DataRef],
        failure: Failure,
        makes: bytes | None = None,
    ) -> None:
        """Take back a piece whose worker could not get a value."""
        ids = [ref.id for ref in refs]
        id, why, lost_at = failure
        self._do(self._whereabouts.not_found(number, ids, id, lost_at, why, makes))

    def sources(self, worker: str, refs: Iterable[DataRef]) -> list[Any]:
        """Return what a worker that is sent a piece must know of its values."""
        ids = self._whereabouts.closure(ref.id for ref in refs)
        self._whereabouts.sent(worker, ids)
        rows = []
        for id in ids:
            value = self._whereabouts.value(id)
            if value is not None:
                holders = self._holders(id)[:MAX_HOLDERS]
                rows.append([id, value.nbytes, list(map(holder_fields, holders))])
        return rows

    def needs(self, refs: Iterable[DataRef]) -> tuple[Need, ...]:
        """Return where the values are that matter for where a piece should run."""
        large = sorted(refs, key=lambda ref: -ref.nbytes)[:MAX_NEEDS]
        needs = []
        for ref in large:
            if ref.nbytes >= LEAST_NEED_BYTES:
                workers = self._whereabouts.holders(ref.id)
                hosts = frozenset(holder.host_id for holder in self._of(workers))
                needs.append(Need(ref.nbytes, frozenset(workers), hosts))
        return tuple(needs)

    def kept(
        self, contact: Contact, id: bytes, payload: bytes, recipe: Recipe | None
    ) -> DataRef:
        """Take in a result that its worker keeps.

        Raises
        ------
        RemoteProtocolError
            When what it says of that is malformed.
        """
        nbytes, contents = self._kept_in(payload, id)
        piece = int.from_bytes(id[8:]) if recipe is not None else None
        holder = holder_of(contact)
        ref, _ = self._leases.under(DataRef(id, nbytes, holder, piece))
        inputs = None
        if recipe is not None:
            self._recipes[id] = recipe
            inputs = [input.id for input in recipe.inputs]
        self._do(
            self._whereabouts.kept(
                id, contact.id, nbytes, inputs, self._known(contents)
            )
        )
        return ref

    def made(self, contact: Contact, id: bytes, payload: bytes) -> None:
        """Take in a value that was made again."""
        nbytes, contents = self._kept_in(payload, id)
        self._do(self._whereabouts.made(id, contact.id, nbytes, self._known(contents)))

    def not_made(self, id: bytes, error: WorkError) -> None:
        """Note that a value could not be made again."""
        self._do(self._whereabouts.remake_failed(id, str(error)))

    def unwanted(self, contact: Contact, payload: bytes) -> None:
        """Let go of a kept result that came for a piece that is over."""
        id, _, _ = kept_in(payload)
        value = self._whereabouts.value(id)
        if value is None or contact.id not in value.holders:
            self._do([Release(contact.id, id)])

    def over(self, number: int, refs: Iterable[DataRef], is_done: bool) -> None:
        """Note that a piece is over."""
        ids = [ref.id for ref in refs]
        self._do(self._whereabouts.over(number, ids, is_done))

    def leased(self, refs: Iterable[DataRef]) -> tuple[DataRef, ...]:
        """Return references that hold their values, of values that are known."""
        ours = []
        for ref in refs:
            leased, is_new = self._leases.under(ref)
            if is_new:
                self._refer(ref)
            ours.append(leased)
        return tuple(ours)

    # --- workers and messages ------------------------------------------------

    def received(self, contact: Contact, fields: Sequence[Any], buffers: Parts) -> None:
        """Take in a message of one of the `VALUE_KINDS`."""
        kind = fields[0]
        if kind in KINDS:
            self._exchange.received(contact.peer, fields, buffers)
        elif kind == kinds.MISSING:
            self._whereabouts.missing(contact.id, [id_in(id) for id in fields[1]])
        else:
            self._orders.answered(contact, fields)

    def joined(self, contact: Contact) -> None:
        """Note that a worker is there."""
        if contact.is_worker:
            self._exchange.connected(contact.peer)
            host, room = contact.entry.host_id, room_of(contact)
            self._do(self._whereabouts.worker_joined(contact.id, host, room))

    def lost(self, contact: Contact, why: str, is_process_death: bool) -> None:
        """Note that a worker is gone."""
        self._exchange.lost(contact.peer)
        self._farewells.pop(contact.id, None)
        unsaved = self._whereabouts.unsaved(contact.id)
        if unsaved.values and self._whereabouts.is_leaving(contact.id):
            log.error(
                "%s ended with %s that only it held",
                contact.entry.name,
                _told(unsaved),
            )
        effects = self._whereabouts.worker_lost(contact.id, why, is_process_death)
        self._do(effects)
        self._giving.lost(contact.id)
        self._orders.lost(contact.id, why)

    def draining(self, contact: Contact) -> None:
        """Note that a worker will leave."""
        contact.is_leaving = True
        self._do(self._whereabouts.worker_draining(contact.id))
        if self._whereabouts.is_leaving(contact.id):
            self._farewells.setdefault(contact.id, Farewell())

    def close(self) -> None:
        """Let go of everything: the references that are left are of no use."""
        for contact in self._directory.contacts.values():
            if contact.is_joined and self._whereabouts.nbytes_at(contact.id):
                header = frames.pack(kinds.REFERENCES, [])
                self._transport.send(contact.peer, header)

    def flush(self) -> None:
        """Release what nobody refers to any more; to be called in every turn."""
        for id in self._leases.take_ended():
            self._do(self._whereabouts.unreferred(id))
        if not self._releases:
            return
        releases, self._releases = self._releases, {}
        for worker, ids in releases.items():
            self._tell(worker, frames.pack(kinds.RELEASE, ids))

    def tick(self) -> None:
        """Do what only the passing of time brings about."""
        self._exchange.tick()
        for worker, farewell in self._farewells.items():
            self._see_off(worker, farewell)

    # --- inside: fetching ----------------------------------------------------

    def _gather(self, gather: Gather) -> None:
        self._gathers[gather.number] = gather
        ids = [ref.id for ref in gather.refs]
        self._do(self._whereabouts.needed(gather.number, ids))

    def _fetch(self, gather: Gather) -> None:
        for ref in gather.missing:
            self._awaited.setdefault(ref.id, set()).add(gather.number)
            value = self._whereabouts.value(ref.id)
            nbytes = value.nbytes if value is not None else ref.nbytes
            self._exchange.want(ref.id, nbytes, self._holders(ref.id))
        self._look_at(gather)

    def _arrived(self, id: bytes, parts: Parts) -> None:
        for number in self._awaited.pop(id, ()):
            gather = self._gathers[number]
            gather.parts[id] = parts
            self._look_at(gather)

    def _failed(self, id: bytes, why: str, lost_at: list[str]) -> None:
        for number in self._awaited.pop(id, ()):
            gather = self._gathers[number]
            ids = [ref.id for ref in gather.missing]
            self._do(self._whereabouts.not_found(number, ids, id, lost_at, why))

    def _look_at(self, gather: Gather) -> None:
        if gather.is_over:
            self._end(gather)

    def _end(self, gather: Gather) -> None:
        if self._gathers.pop(gather.number, None) is None:
            return
        for ref in gather.refs:
            waiting = self._awaited.get(ref.id, set())
            waiting.discard(gather.number)
            if not waiting and self._awaited.pop(ref.id, None) is not None:
                self._exchange.forget(ref.id)
        ids = [ref.id for ref in gather.refs]
        is_done = gather.error is None and not gather.missing
        self._do(self._whereabouts.over(gather.number, ids, is_done))

    # --- inside: the rest ----------------------------------------------------

    def _refer(self, ref: DataRef) -> None:
        # unless there was one for a moment only
        if self._leases.is_live(ref.id):
            worker = ref.holder.worker
            self._do(self._whereabouts.refer(ref.id, worker, ref.nbytes))

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Release(worker, id):
                    self._releases.setdefault(worker, []).append(id)
                case Refer(worker, id):
                    self._tell(worker, frames.pack(kinds.REFER, [id]))
                case ReferToThese(worker, ids):
                    self._tell(worker, frames.pack(kinds.REFERENCES, list(ids)))
                case Copy(id, nbytes, holders, to):
                    self._move(id, nbytes, holders, to)
                case Remake(id):
                    self._remake(id, self._recipes[id])
                case ForgetPiece(id):
                    self._recipes.pop(id, None)
                case Resume(number):
                    self._go_on(number)
                case TryAgain(number, after_s):
                    self._reactor.after(after_s, partial(self._ask, number))
                case GiveUp(number, reasons):
                    self._have_lost(number, reasons)

    def _put_is_kept(self, put: Put, contact: Contact) -> DataRef:
        bare = DataRef(put.id, put.nbytes, holder_of(contact))
        ref, _ = self._leases.under(bare)
        contents = self._known(put.contents)
        self._do(self._whereabouts.kept(put.id, contact.id, put.nbytes, None, contents))
        return ref

    def _see_off(self, worker: str, farewell: Farewell) -> None:
        """Tell a worker that leaves when nobody can take its values, and when so."""
        unsaved = self._whereabouts.unsaved(worker)
        stuck = unsaved.values - unsaved.moving
        if unsaved.moving or not stuck:
            farewell.stuck_at = None
            stuck = 0
        elif farewell.stuck_at is None:
            farewell.stuck_at = time.monotonic()
        is_late = time.monotonic() - (farewell.stuck_at or 0.0) >= NOBODY_S
        if stuck == farewell.told or (stuck and not is_late):
            return
        farewell.told = stuck
        self._tell(worker, frames.pack(kinds.UNSAVED, stuck))
        if stuck:
            log.error(
                "no other worker is here that could take %s from %s, which ends: they "
                "are lost with it, unless one comes before",
                _told(unsaved),
                self._directory.contacts[worker].entry.name,
            )

    def _move(self, id: bytes, nbytes: int, holders: Sequence[str], to: str) -> None:
        def answered(is_kept: bool, why: str) -> None:
            if is_kept:
                self._do(self._whereabouts.copied(id, to))
                return
            log.info("a value of a worker that ends does not move to %s: %s", to, why)
            self._do(self._whereabouts.not_copied(id, to))

        self._orders.copy(to, id, nbytes, self._of(holders), answered)

    def _ask(self, number: int) -> None:
        """Ask once more whether the values of a piece are here, if it still waits."""
        gather = self._gathers.get(number)
        if gather is not None:
            ids = [ref.id for ref in gather.refs]
            self._do(self._whereabouts.needed(number, ids))
        else:
            self._ask_again(number)

    def _go_on(self, number: int) -> None:
        gather = self._gathers.get(number)
        if gather is not None:
            self._fetch(gather)
        else:
            self._resume(number)

    def _have_lost(self, number: int, reasons: Sequence[tuple[bytes, str]]) -> None:
        error = DataLost({id[-4:].hex(): why for id, why in reasons})
        gather = self._gathers.get(number)
        if gather is not None:
            gather.error = error
            self._end(gather)
        else:
            self._give_up(number, error)

    def _kept_in(self, payload: bytes, id: bytes) -> tuple[int, list[DataRef]]:
        kept, nbytes, contents = kept_in(payload)
        if kept != id:
            raise RemoteProtocolError("a worker keeps something else than it should")
        return nbytes, contents

    def _known(self, contents: Iterable[DataRef]) -> list[bytes]:
        """Return values that another one contains, having been made known."""
        ids = []
        for ref in self.leased(contents):
            ids.append(ref.id)
        return ids

    def _holders(self, id: bytes) -> list[Holder]:
        return self._of(self._whereabouts.holders(id))

    def _of(self, workers: Iterable[str]) -> list[Holder]:
        contacts = map(self._directory.contacts.get, workers)
        return [holder_of(contact) for contact in contacts if contact is not None]

    def _reach(self, holder: Holder) -> Peer:
        contact = self._directory.contacts.get(holder.worker)
        if contact is None or not contact.is_joined:
            raise OpenClusterError("it is not connected any more")
        return contact.peer

    def _tell(self, worker: str, header: bytes, buffers: Sequence[Any] = ()) -> None:
        contact = self._directory.contacts.get(worker)
        if contact is not None:
            self._transport.send(contact.peer, header, buffers)


def room_of(contact: Contact) -> int:
    """Return how much a worker says that it holds in memory, 0 if it does not say."""
    said = contact.entry.attributes.get("max_kept_bytes", 0)
    return said if type(said) is int and said > 0 else 0


def _told(unsaved: Unsaved) -> str:
    noun = "kept value" if unsaved.values == 1 else "kept values"
    return f"{unsaved.values} {noun} ({size_text(unsaved.nbytes)})"


def missing_in(payload: bytes) -> Failure:
    """Return what a worker says of values that it did not get: of the first of them.

    Raises
    ------
    RemoteProtocolError
        When it is malformed.
    """
    rows = codec.decode(payload)
    if type(rows) is not list or not rows or type(rows[0]) is not list:
        raise RemoteProtocolError("what a worker says that it misses is malformed")
    if len(rows[0]) != 3 or type(rows[0][2]) is not list:
        raise RemoteProtocolError("what a worker says that it misses is malformed")
    id, why, lost_at = rows[0]
    return id_in(id), str(why)[:MAX_REASON], list(map(str, lost_at))


def kept_in(payload: bytes) -> tuple[bytes, int, list[DataRef]]:
    """Return what a worker says of a result that it keeps.

    Returns
    -------
    id : bytes
        Its identity.
    nbytes : int
        Its size.
    contents : list of DataRef
        What it refers to.

    Raises
    ------
    RemoteProtocolError
        When it is malformed.
    """
    fields = codec.decode(payload)
    if type(fields) is not list or len(fields) != 3 or type(fields[2]) is not list:
        raise RemoteProtocolError("what a worker says that it keeps is malformed")
    id, nbytes, contents = fields
    if not all(isinstance(ref, DataRef) for ref in contents):
        raise RemoteProtocolError("what a kept value contains is malformed")
    return id_in(id), size_in(nbytes), contents
