"""One sender: its bytes go through the framing into the spool, its answers back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from opencluster.core.admission import Allowance, Pace
from opencluster.ingest.framing import (
    Broken,
    Event,
    Framing,
    ItemBegun,
    ItemData,
    ItemEnded,
    ItemGivenUp,
    Rejected,
    Verdict,
)
from opencluster.store.spool import Draft, SpoolFull, Stored

if TYPE_CHECKING:
    from opencluster.ingest.server import IngestServer

log = logging.getLogger(__name__)

MOST_UNSYNCED = 16
"""Items of one sender that are written down at a time; further ones wait in its
socket."""
QUIET_S = 1.0
"""When nothing came for so long, the framing is told."""
LINGER_S = 2.0
"""What a sender still sends who is cut off is read for so long, or closing the socket
would take back what it was told."""


class Connection(asyncio.BufferedProtocol):
    """Serves one sender; everything happens in the thread of the loop.

    Parameters
    ----------
    server : IngestServer
        Whose spool, limits and counts they are.
    framing : Framing
        What the bytes mean.
    peer, address : str
        The sender, for people, and its address without the port.
    """

    def __init__(
        self, server: IngestServer, framing: Framing, peer: str, address: str
    ) -> None:
        settings = server.settings
        now = time.monotonic()
        self.peer = peer
        self.address = address
        self._server = server
        self._status = server.status
        self._framing = framing
        self._transport: asyncio.Transport | None = None
        self._allowance = Allowance(settings.rate_bytes)
        self._pace = Pace(settings.idle_s, settings.slow_s, settings.slow_bytes, now)
        self._events: deque[Event] = deque()
        self._draft: Draft | None = None
        self._id = ""
        self._told_to_wait = False
        self._paused: set[str] = set()
        self._unsynced = 0
        self._has_ended = False
        self._is_broken = False
        self._is_closed_up = False
        self._is_lost = False
        self._lingers = False
        self._heard_at = now
        self._was_quiet = False

    # --- what asyncio calls --------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.came(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where bytes are put: a buffer of all connections."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in bytes."""
        if self._has_ended:
            return
        now = time.monotonic()
        self._heard_at = now
        self._was_quiet = False
        self._pace.received(nbytes, now)
        self._status.received_bytes += nbytes
        data = self._server.buffer[:nbytes]
        self._take(lambda now: self._framing.receive(data, now))
        wait_s = self._allowance.take(nbytes, now)
        if wait_s:
            self._pause("rate")
            self._server.later(wait_s, self._resume, "rate")

    def eof_received(self) -> bool:
        """Go on writing answers, if there are any to come."""
        self.finish()
        if self._lingers:
            self._leave()
        # under TLS there is no closing of one direction alone
        return self._extra("ssl_object") is None

    def connection_lost(self, exception: Exception | None) -> None:
        """Make of it what there is."""
        self._is_lost = True
        self.finish()
        self._leave_if_done()

    def pause_writing(self) -> None:
        """Read nothing from who does not read the answers."""
        self._pause("answers")

    def resume_writing(self) -> None:
        """Go on."""
        self._resume("answers")

    # --- what the server calls -----------------------------------------------

    def look(self, now: float) -> None:
        """See whether the sender is still worth its connection; once a second."""
        # who does not read the answers is as good as silent
        if self._paused - {"answers"} or self._has_ended:
            self._pace.excuse(now)
            return
        if now - self._heard_at >= QUIET_S and not self._was_quiet:
            self._was_quiet = True
            self._take(self._framing.quiet)
        verdict = self._pace.verdict(self._framing.is_unfinished(), now)
        if verdict:
            log.info("%s is cut off: %s", self.peer, verdict)
            self._status.rejected[verdict] += 1
            self.finish()

    def go_on(self) -> None:
        """Try again, as there may be room now."""
        if self._work():
            self._told_to_wait = False
            self._resume("room")
        else:
            self._server.wants_room(self)

    def kept(self, draft: Draft, item: Stored | None, problem: str) -> None:
        """Answer for an item that was to be written down."""
        self._unsynced -= 1
        if problem:
            self._status.rejected["disk"] += 1
            self._answer(draft.id, Verdict.LATER, problem)
        elif item is None:
            self._status.known += 1
            self._answer(draft.id, Verdict.KNOWN)
        else:
            self._answer(draft.id, Verdict.ACCEPTED)
        if self._unsynced < MOST_UNSYNCED:
            self._resume("disk")
        self._leave_if_done()

    def finish(self) -> None:
        """Take nothing more; what is whole is kept and answered for."""
        if self._has_ended:
            return
        self._has_ended = True
        self._pause("end")
        self._take(self._framing.end)

    def abort(self) -> None:
        """End at once; what was not answered for is sent again or lost."""
        if self._transport is not None:
            self._transport.abort()
        self._server.went(self)

    # --- events --------------------------------------------------------------

    def _take(self, ask: Callable[[float], Sequence[Event]]) -> None:
        """Handle what the framing says."""
        try:
            self._events.extend(ask(time.time()))
        except Exception:
            log.exception("the framing of %s has an error", self.peer)
            self._events.append(Broken("error", "the server has an error"))
        if not self._work():
            self._pause("room")
            # the buffer is used again
            self._events = deque(map(_frozen, self._events))
            self._server.wants_room(self)

    def _work(self) -> bool:
        """Handle what has happened; return whether there was room for all of it."""
        while self._events:
            if not self._handle(self._events[0]):
                return False
            self._events.popleft()
            if self._is_broken:
                self._events.clear()
        if self._has_ended:
            self._close_up()
        return True

    def _handle(self, event: Event) -> bool:
        match event:
            case ItemData(data):
                return self._write(data)
            case ItemBegun(id, size):
                return self._begin(id, size)
            case ItemEnded():
                self._end(event)
            case ItemGivenUp(reason, detail):
                self._refuse(self._id, reason, detail)
            case Rejected(reason, count, _):
                self._status.rejected[reason] += count
            case Broken(reason, detail, id):
                self._break(id, reason, detail)
        return True

    def _begin(self, id: str, size: int) -> bool:
        self._id = id
        most = self._server.settings.max_item_bytes
        if size > min(most, self._server.spool.max_bytes):
            self._status.received += 1
            self._break(id, "too large", f"{size:,} bytes, the most is {most:,}")
            return True
        try:
            is_known = self._server.spool.knows(id)
            if not is_known:
                self._draft = self._server.admit(id, size)
        except SpoolFull as full:
            if not self._told_to_wait:
                self._told_to_wait = True
                self._answer(id, Verdict.WAIT, full.strerror or "")
            return False
        self._status.received += 1
        if is_known:
            self._status.known += 1
            self._answer(id, Verdict.KNOWN)
        elif self._draft is None:
            self._status.dropped += 1
            self._answer(id, Verdict.REFUSED, "dropped: more comes than is processed")
        return True

    def _write(self, data: memoryview | bytes) -> bool:
        draft = self._draft
        if draft is None:
            return True
        if draft.size + len(data) > self._server.settings.max_item_bytes:
            self._refuse(draft.id, "too large", "the item is larger than is taken")
            return True
        try:
            draft.write(data)
        except SpoolFull as full:
            if not self._framing.can_repeat:
                return False
            self._do_later(draft, "spool full", full.strerror or "")
        except OSError as error:
            self._do_later(draft, "disk", error.strerror or str(error))
        return True

    def _end(self, event: ItemEnded) -> None:
        draft, self._draft = self._draft, None
        if draft is None:
            return
        if event.checksum is not None and event.checksum != draft.checksum:
            self._do_later(draft, "checksum", "the data are not those of the checksum")
            return
        draft.about = {**event.about, "peer": self.peer}
        self._unsynced += 1
        if self._unsynced >= MOST_UNSYNCED:
            self._pause("disk")
        self._server.keep(self, draft)

    def _do_later(self, draft: Draft, reason: str, detail: str) -> None:
        """Let go of an item, which the sender may send again."""
        self._draft = None
        draft.discard()
        self._status.rejected[reason] += 1
        self._answer(draft.id, Verdict.LATER, detail)

    def _refuse(self, id: str, reason: str, detail: str) -> None:
        """Let go of an item for good, if it is not let go of already."""
        if self._draft is None:
            return
        self._draft.discard()
        self._draft = None
        self._status.rejected[reason] += 1
        self._answer(id, Verdict.REFUSED, detail or reason)

    def _break(self, id: str, reason: str, detail: str) -> None:
        log.info("%s is cut off: %s: %s", self.peer, reason, detail)
        self._status.rejected[reason] += 1
        self._answer(id, Verdict.REFUSED, detail or reason)
        # what it has sent behind it cannot be understood
        self._is_broken = self._has_ended = True
        self._pause("end")

    def _close_up(self) -> None:
        """Let go of what is not whole, when all else is handled."""
        if not self._is_closed_up:
            self._is_closed_up = True
            has_rest = self._draft is not None or self._framing.is_unfinished()
            if self._draft is not None:
                self._draft.discard()
                self._draft = None
            if has_rest and not self._is_broken and not self._server.is_stopping:
                self._status.rejected["cut off"] += 1
        self._leave_if_done()

    # --- the transport -------------------------------------------------------

    def _extra(self, name: str) -> object:
        return self._transport and self._transport.get_extra_info(name)

    def _answer(self, id: str, verdict: Verdict, reason: str = "") -> None:
        said = self._framing.answer(id, verdict, reason)
        if said and self._transport is not None and not self._is_lost:
            self._transport.write(said)

    def _pause(self, why: str) -> None:
        if not self._paused and self._transport is not None and not self._is_lost:
            self._transport.pause_reading()
        self._paused.add(why)

    def _resume(self, why: str) -> None:
        if why not in self._paused:
            return
        self._paused.discard(why)
        if not self._paused and self._transport is not None and not self._is_lost:
            self._transport.resume_reading()

    def _leave_if_done(self) -> None:
        if not self._is_closed_up or self._unsynced:
            return
        transport = self._transport
        if transport is None or self._is_lost or not self._is_broken:
            self._leave()
        elif not self._lingers and transport.can_write_eof():
            self._lingers = True
            # it may have gone meanwhile, which is told when its socket is read
            with contextlib.suppress(OSError):
                transport.write_eof()
            self._resume("end")
            self._server.later(LINGER_S, self._leave)
        elif not self._lingers:
            self._leave()

    def _leave(self) -> None:
        if self._transport is not None and not self._is_lost:
            # sends the answers that wait, then closes; they may never be read
            self._transport.close()
            self._server.later(LINGER_S, self._transport.abort)
        self._server.went(self)


def _frozen(event: Event) -> Event:
    if isinstance(event, ItemData):
        return replace(event, data=bytes(event.data))
    return event
