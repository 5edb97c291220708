"""The side of a worker or service that has to do with values that workers hold.

A `Keeper` holds values for managers, and gets for a piece the values that it refers
to: from its own memory, from its disk, or from who holds them. This shell joins
`core.holdings` to the net and the disk. It runs no user code, and decodes nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from opencluster.config import Config
from opencluster.core.holdings import (
    Drop,
    Effect,
    Holdings,
    LeaveMemory,
    Lies,
    WarnDiskFull,
    Write,
)
from opencluster.errors import OpenClusterError
from opencluster.net.exchange import KINDS, Exchange, Parts, nbytes_of, parts_in
from opencluster.net.joined import Approach
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Peer
from opencluster.node.host import host_id, host_name
from opencluster.references import Holder, size_text
from opencluster.store.spill import Spill
from opencluster.store.writer import Writer
from opencluster.wire import frames, kinds
from opencluster.wire.refs import holder_in, id_in, size_in

log = logging.getLogger(__name__)

KEEPER_KINDS = KINDS | {
    *(kinds.PUT, kinds.COPY, kinds.REFER, kinds.REFERENCES, kinds.RELEASE),
    kinds.UNSAVED,
}
"""What managers, and other workers, say of values."""
TICK_S = 1.0
"""How often it is looked at the time."""
SHARED_BYTES = 32 << 10
"""Buffers from this size on are moved to shared memory when a neighbour fetches them,
so that it, and all others of this computer, read them there."""
SHARED_PART = 0.5
"""Part of the shared memory that kept values may take; the rest is for messages."""
FETCH_AHEAD = 0.25
"""Part of the budget that values of pieces which still wait may take."""

LEAVING = "it is about to end"
"""Why a worker takes no values."""

ShouldStop = Callable[[], bool]
"""Whether the piece that is waited for is to end."""


class Wanted(NamedTuple):
    """A value that a piece needs.

    Attributes
    ----------
    id : bytes
        Its identity.
    nbytes : int
        Its size.
    holders : tuple of Holder
        Who has it, as far as the manager knows.
    """

    id: bytes
    nbytes: int
    holders: tuple[Holder, ...]


@dataclass(slots=True, eq=False)
class Claim:
    """The values of one piece, which stay here until it is given up.

    Attributes
    ----------
    parts : dict
        Those that are here, by identity.
    failed : dict
        Those that cannot be had: why, and which holders said so themselves.
    missing : set of bytes
        Those that are awaited.
    """

    parts: dict[bytes, Parts] = field(default_factory=dict)
    failed: dict[bytes, tuple[str, list[str]]] = field(default_factory=dict)
    missing: set[bytes] = field(default_factory=set)
    is_made: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is awaited any more, or need not be."""
        return self.is_made and (not self.missing or bool(self.failed))


class Keeper:
    """Holds values for managers, and gets those that pieces need.

    Parameters
    ----------
    config : Config
        The settings.
    spill_root : Path
        Where values go for which there is no memory.
    reactor : Reactor
        Whose transport carries the messages.
    """

    def __init__(self, config: Config, spill_root: Path, reactor: Reactor) -> None:
        self._reactor = reactor
        self._transport = reactor.transport
        self._approach = Approach(reactor.transport)
        self._identity = ""
        budget = config.memory.kept_bytes or own_share(config.worker.max_memory)
        self._holdings = Holdings(budget, config.cluster.lease_s)
        self._values: dict[bytes, Parts] = {}
        self._shared: dict[bytes, int] = {}
        self._may_share = int(config.memory.arena_bytes * SHARED_PART)
        self._spill = Spill(spill_root, host_name())
        self._writer = Writer(self._spill, self._told)
        self._exchange = Exchange(
            reactor.transport,
            host_id(),
            self._parts_for_others,
            self._reach,
            self._leave,
            self._arrived,
            self._failed,
            config.network.max_message_bytes,
        )
        self._claims: dict[bytes, list[Claim]] = {}
        self._orders: dict[bytes, list[tuple[Peer, int]]] = {}
        self._ahead: dict[bytes, int] = {}

    # --- from the threads that run pieces ------------------------------------

    def open(self, identity: str) -> None:
        """Begin to hold values, as the worker of an identity."""
        self._identity = identity
        self._spill.clear_leftovers()
        self._reactor.post(self._start)

    def claim(
        self, claim: Claim, wanted: Iterable[Wanted], should_stop: ShouldStop
    ) -> None:
        """Get values, more of them if it is called again, to stay until `give_up`.

        Returns when all are here, one cannot be had, or the piece is to stop.
        """
        orders = list(wanted)
        claim.is_made = False
        self._reactor.post(lambda: self._claim(claim, orders))
        self._reactor.wait_until(lambda: claim.is_over or should_stop())

    def give_up(self, claim: Claim) -> None:
        """Let go of the values of a piece."""
        self._reactor.post(lambda: self._give_up(claim))

    def keep(
        self, manager: Peer, id: bytes, parts: Parts, should_stop: ShouldStop
    ) -> None:
        """Hold a value for a manager; returns when there is room for the next one."""
        done: list[None] = []

        def keep() -> None:
            self._hold(id, parts)
            self._do(self._holdings.keep(id, nbytes_of(parts), manager))
            done.append(None)

        self._reactor.post(keep)
        self._reactor.wait_until(
            lambda: bool(done) and (self._holdings.is_settled or should_stop())
        )

    @property
    def is_awaited(self) -> bool:
        """Whether somebody may yet take what is held here."""
        return self._holdings.is_awaited

    def hand_over(self, timeout_s: float) -> None:
        """Wait until others hold what is held here, in vain as it may be.

        Parameters
        ----------
        timeout_s : float
            How long at most, in seconds.
        """
        holdings, began = self._holdings, time.monotonic()
        before, nbytes = holdings.awaited
        is_over = self._reactor.wait_until(lambda: not holdings.is_awaited, timeout_s)
        left, left_bytes = holdings.awaited
        if before > left:
            log.info(
                "%d of %d kept values (%s) are with other workers, or not needed any "
                "more, after %.1f s",
                *(before - left, before, size_text(nbytes - left_bytes)),
                time.monotonic() - began,
            )
        if left:
            why = "nobody is here who could take them"
            if not is_over:
                why = f"nobody took them within [worker] hand_over_s, {timeout_s:g} s"
            log.error(
                "%d kept values (%s) end with this worker: %s",
                *(left, size_text(left_bytes), why),
            )

    def close(self) -> None:
        """Remove what is on disk."""
        self._writer.close()
        self._spill.close()

    # --- while holding the reactor -------------------------------------------

    def _start(self) -> None:
        self._reactor.every(TICK_S, self._tick)

    def received(self, peer: Peer, fields: Sequence[Any], buffers: Parts) -> None:
        """Take in a message of one of the `KEEPER_KINDS`.

        Raises
        ------
        RemoteProtocolError, ValueError
            When it is malformed.
        """
        kind = fields[0]
        self._holdings.manager_heard(peer)
        if kind in KINDS:
            self._exchange.received(peer, fields, buffers)
        elif kind == kinds.PUT:
            self._put(peer, fields, buffers)
        elif kind == kinds.UNSAVED:
            self._holdings.unsaved(peer, size_in(fields[1]))
        elif kind == kinds.COPY:
            _, number, id, nbytes, holders = fields
            if self._refuses(peer, size_in(number)):
                return
            found = [holder_in(holder) for holder in holders]
            size = size_in(nbytes)
            self._order(peer, size_in(number), id_in(id))
            if not self._look_at(id):
                self._exchange.want(id, size, self._others(found))
        else:
            ids = [id_in(id) for id in fields[1]]
            if ids and self._holdings.is_draining and kind != kinds.RELEASE:
                # whoever refers to it now must have it elsewhere soon
                self._transport.send(peer, frames.pack(kinds.DRAINING))
            if kind == kinds.RELEASE:
                self._do(self._holdings.release(peer, ids))
                return
            if kind == kinds.REFER:
                missing = self._holdings.refer(peer, ids)
            else:
                missing, effects = self._holdings.refer_to_these(peer, ids)
                self._do(effects)
            if missing:
                self._transport.send(peer, frames.pack(kinds.MISSING, missing))

    def fetch_ahead(self, wanted: Iterable[Wanted]) -> None:
        """Begin to get the values of a piece that still waits."""
        for want in wanted:
            room = FETCH_AHEAD * self._holdings.budget - sum(self._ahead.values())
            is_under_way = want.id in self._ahead or want.id in self._claims
            if want.id in self._holdings or is_under_way or want.nbytes > room:
                continue
            self._ahead[want.id] = want.nbytes
            self._exchange.want(want.id, want.nbytes, self._others(want.holders))

    @property
    def budget(self) -> int:
        """Bytes of values that may lie in memory."""
        return self._holdings.budget

    @property
    def kept_bytes(self) -> int:
        """Bytes of the values that managers refer to."""
        return self._holdings.kept_bytes

    def managers(self) -> set[Peer]:
        """Return who refers to values here."""
        return self._holdings.managers()

    def heard(self, peer: Peer) -> None:
        """Note that a manager is there."""
        self._holdings.manager_heard(peer)

    def connected(self, peer: Peer) -> None:
        """Note that a connection stands that this side opened."""
        self._exchange.connected(peer)

    def lost(self, peer: Peer) -> None:
        """Note that a connection is gone, or that nobody answers on it."""
        self._exchange.lost(peer)
        self._holdings.manager_lost(time.monotonic(), peer)

    def drain(self) -> None:
        """Hold nothing for oneself any more."""
        self._do(self._holdings.drain())

    # --- inside: claims ------------------------------------------------------

    def _claim(self, claim: Claim, wanted: Iterable[Wanted]) -> None:
        for want in wanted:
            if want.id in claim.parts or want.id in claim.missing:
                continue
            parts = self._own(want.id)
            if parts is not None:
                self._holdings.pin(want.id)
                claim.parts[want.id] = parts
                continue
            claim.missing.add(want.id)
            self._claims.setdefault(want.id, []).append(claim)
            self._exchange.want(want.id, want.nbytes, self._others(want.holders))
        claim.is_made = True

    def _give_up(self, claim: Claim) -> None:
        for id in claim.missing:
            waiting = self._claims.get(id, [])
            # by identity: claims of different pieces may be equal
            rest = [other for other in waiting if other is not claim]
            if rest:
                self._claims[id] = rest
            elif self._claims.pop(id, None) is not None:
                self._forget(id)
        claim.missing.clear()
        for id in claim.parts:
            self._do(self._holdings.unpin(id))
        claim.parts.clear()

    def _forget(self, id: bytes) -> None:
        """Fetch a value no longer, unless somebody else waits for it."""
        if id not in self._claims and id not in self._orders and id not in self._ahead:
            self._exchange.forget(id)

    def _arrived(self, id: bytes, parts: Parts) -> None:
        self._ahead.pop(id, None)
        claims = self._claims.pop(id, [])
        nbytes = nbytes_of(parts)
        self._hold(id, parts)
        effects: list[Effect] = []
        for peer, number in self._orders.pop(id, []):
            effects += self._holdings.keep(id, nbytes, peer)
            self._transport.send(peer, frames.pack(kinds.KEPT, number, nbytes))
        effects += self._holdings.copy(id, nbytes, len(claims))
        for claim in claims:
            claim.missing.discard(id)
            claim.parts[id] = parts
        self._do(effects)

    def _failed(self, id: bytes, why: str, lost_at: list[str]) -> None:
        self._ahead.pop(id, None)
        for peer, number in self._orders.pop(id, []):
            self._transport.send(peer, frames.pack(kinds.UNKEPT, number, why))
        for claim in self._claims.pop(id, []):
            claim.missing.discard(id)
            claim.failed[id] = (why, lost_at)

    def _others(self, holders: Iterable[Holder]) -> list[Holder]:
        """Return those holders that are not this process."""
        return [holder for holder in holders if holder.worker != self._identity]

    # --- inside: orders ------------------------------------------------------

    def _put(self, peer: Peer, fields: Sequence[Any], buffers: Parts) -> None:
        _, number, id, data, sizes = fields
        if self._refuses(peer, size_in(number)):
            return
        parts = parts_in(data, sizes, buffers)
        self._order(peer, size_in(number), id_in(id))
        if parts is not None:
            # the shared memory that it came by is its sender's, and for messages
            self._arrived(id, self._moved_here(id, parts))
        elif not self._look_at(id):
            self._exchange.want_from(peer, id, sum(sizes))

    def _refuses(self, peer: Peer, number: int) -> bool:
        """Take nothing that must leave with this process, and say so."""
        if not self._holdings.is_draining:
            return False
        self._transport.send(peer, frames.pack(kinds.DRAINING))
        self._transport.send(peer, frames.pack(kinds.UNKEPT, number, LEAVING))
        return True

    def _order(self, peer: Peer, number: int, id: bytes) -> None:
        self._orders.setdefault(id, []).append((peer, number))

    def _look_at(self, id: bytes) -> bool:
        """Do what was ordered with a value that is here already."""
        parts = self._own(id)
        if parts is not None:
            self._exchange.forget(id)
            self._arrived(id, parts)
        return parts is not None

    # --- inside: where values lie --------------------------------------------

    def _own(self, id: bytes) -> Parts | None:
        """Return a value that lies here, from wherever."""
        if id not in self._holdings:
            return None
        parts = self._values.get(id)
        if parts is not None:
            return parts
        try:
            return self._spill.read(id)
        except OSError as error:
            log.warning("a kept value is lost: %s", error)
            self._do(self._holdings.vanished(id))
            return None

    def _parts_for_others(self, id: bytes) -> Parts | None:
        parts = self._own(id)
        if parts is None:
            return None
        self._holdings.use(id)
        if self._holdings.lies(id) is Lies.MEMORY and id not in self._shared:
            parts = self._values[id] = self._share(id, parts)
        return parts

    def _share(self, id: bytes, parts: Parts) -> Parts:
        """Move large buffers to shared memory, where there is some.

        Sent from there they are not copied, so that all who need the value on this
        computer, and this worker, have it in the same memory.
        """
        nbytes = nbytes_of(parts)
        lane = getattr(self._transport, "lane", None)
        arena = None if lane is None else lane.arena
        is_too_much = nbytes + sum(self._shared.values()) > self._may_share
        if arena is None or is_too_much:
            return parts
        self._shared[id] = nbytes
        return [_moved(part, arena.allocate) for part in parts]

    def _moved_here(self, id: bytes, parts: Parts) -> Parts:
        """Return a value that came as one in memory of this process."""
        if id in self._holdings or not any(map(_is_in_segment, parts)):
            return parts
        here = self._share(id, parts)
        return [
            bytes(part) if part is before and _is_in_segment(part) else part
            for before, part in zip(parts, here, strict=True)
        ]

    def _hold(self, id: bytes, parts: Parts) -> None:
        if id not in self._holdings:
            self._values[id] = parts

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Write(id):
                    self._writer.write(id, self._values[id])
                case LeaveMemory(id):
                    self._leave_memory(id)
                case Drop(id):
                    self._leave_memory(id)
                    self._spill.remove(id)
                case WarnDiskFull(excess_bytes):
                    log.warning(
                        "%s of kept values stay in memory beyond [memory] kept_bytes, "
                        "as they cannot be written to disk",
                        size_text(excess_bytes),
                    )

    def _leave_memory(self, id: bytes) -> None:
        self._values.pop(id, None)
        self._shared.pop(id, None)

    def _told(self, id: bytes, error: OSError | None) -> None:
        """Have noted how writing a value ended; in the thread of the writer."""

        def note() -> None:
            if error is None:
                self._do(self._holdings.written(id))
            else:
                log.warning("a kept value cannot be written: %s", error)
                self._do(self._holdings.write_failed(time.monotonic(), id))

        self._reactor.post(note)

    def _tick(self) -> None:
        self._do(self._holdings.tick(time.monotonic()))
        self._exchange.tick()

    # --- inside: connections -------------------------------------------------

    def _reach(self, holder: Holder) -> Peer:
        is_here = holder.host_id == host_id()
        ways = self._approach.ways(holder.endpoints, is_here)
        if not ways:
            raise OpenClusterError("it cannot be reached from here")
        return self._approach.connect(ways, holder.public_key)[1]

    def _leave(self, holder: Holder, peer: Peer) -> None:
        self._transport.disconnect(peer)


def wanted_in(rows: Any) -> list[Wanted]:
    """Return the values that a message names.

    Raises
    ------
    RemoteProtocolError
        When it is malformed.
    """
    wanted = []
    for id, nbytes, holders in rows:
        found = tuple(holder_in(holder) for holder in holders)
        wanted.append(Wanted(id_in(id), size_in(nbytes), found))
    return wanted


def owned(payload: bytes, buffers: Sequence[Any]) -> list[Any]:
    """Return an encoded value whose memory nobody else writes to.

    Memory that nobody else refers to, or can write to, is taken over; of other memory,
    such as an array that ``perform()`` will use again, there is a copy.
    """
    return [payload, *map(_owned, buffers)]


def _owned(buffer: Any) -> Any:
    view = memoryview(buffer)
    owner: Any = view.obj
    # each array in the chain may be in somebody's hands: it is referred to by what was
    # to be sent, by this name, and by the call
    is_ours = sys.getrefcount(owner) <= 3
    while _is_part_of_an_array(owner):
        owner = owner.base
        is_ours = is_ours and sys.getrefcount(owner) <= 3
    if _is_immutable(owner) or (is_ours and _is_plain_memory(owner)):
        return buffer
    return bytes(view)


def _is_part_of_an_array(owner: Any) -> bool:
    return _is_array(owner) and owner.base is not None


def _is_array(owner: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(owner, numpy.ndarray)


def _is_immutable(owner: Any) -> bool:
    is_read_only = isinstance(owner, memoryview) and owner.readonly
    return is_read_only or isinstance(owner, bytes)


def _is_plain_memory(owner: Any) -> bool:
    """Return whether memory is reached by way of an object alone: no file, for one."""
    return _is_array(owner) or _is_shared(owner)


def _is_shared(owner: Any) -> bool:
    """Return whether memory of ours is shared: then it is sent without a copy."""
    is_memory = isinstance(owner, memoryview)
    return is_memory and _is_in_segment(owner) and not owner.readonly


def _is_in_segment(part: Any) -> bool:
    """Return whether a buffer lies in shared memory, of whichever process."""
    root = memoryview(part).obj
    return type(root).__module__ == "opencluster.net.segments"


def _moved(part: Any, allocate: Callable[[int], memoryview | None]) -> Any:
    view = memoryview(part).cast("B")
    owner: Any = view.obj
    while _is_part_of_an_array(owner):
        owner = owner.base
    if len(view) < SHARED_BYTES or _is_shared(owner):
        return part
    room = allocate(len(view))
    if room is None:
        return part
    room[:] = view
    return room.toreadonly()


def own_share(max_memory: int = 0) -> int:
    """Return how many bytes of values a worker holds in memory unless it is told.

    That is half of the computer's memory, or of what the process may use of it, divided
    by the cores, of which each has a worker as a rule.

    Parameters
    ----------
    max_memory : int
        Memory above which the worker is replaced, 0 for none; half of it is the most.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    share = total // len(os.sched_getaffinity(0))
    return min(share, max_memory or share) // 2
