"""The side of a worker or service that faces the net.

A `Station` listens for pieces, keeps them in a `core.inbox.Inbox`, hands them to
whoever runs them, and sends the outcomes back, many to a message when many are ready.
It runs no user code. The inbox is shared by the I/O thread and the threads that take
pieces, so that taking one costs no hand-over between threads; a lock guards it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencluster.config import Config
from opencluster.core.entries import Entry
from opencluster.core.inbox import (
    CutBundle,
    Effect,
    Inbox,
    Key,
    MakeWay,
    RaiseException,
    RaiseFlag,
    ReturnPiece,
    Waiting,
)
from opencluster.core.piece_names import is_meant, piece_name
from opencluster.core.roles import ASKER, check
from opencluster.errors import RemoteProtocolError
from opencluster.keeping import KEEPER_KINDS, Keeper, owned
from opencluster.net.joined import open_transport
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.transport import (
    Peer,
    PeerConnected,
    PeerLost,
    Received,
    TransportEvent,
)
from opencluster.place import Place
from opencluster.serving.arrivals import Work, arrivals_in
from opencluster.serving.bundle_watch import BundleWatch
from opencluster.serving.outbox import Answer, Outbox
from opencluster.serving.vouched import Registration
from opencluster.wire import frames, kinds
from opencluster.wire.batches import numbers_in

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring

log = logging.getLogger(__name__)

_ORDERS = (*(kinds.PIECES, kinds.WITHDRAW, kinds.CANCEL, kinds.INTERRUPT), kinds.END)

_WHOLE = ("done", "kept")
"""Of pieces that took as long as such pieces do."""

GRACE_S = 0.05
"""How long a piece may run before the background thread sees to the sockets: of many
workers on few cores each would else wake up hundreds of times a second."""
SLOW_S = 0.001
"""Results of pieces that took longer are sent before the next piece is begun."""
RESULTS_WAIT_S = 0.003
"""How long results may wait for others to travel with, while there is more to do."""
RESULTS_BYTES = 4 << 20
"""Arrays that came in or go out, after which results wait no longer: the other side
waits for the memory."""
SHORTEST_TICK_S = 0.001
"""A tick that came a hair too early is repeated after this long."""


class Station:
    """Receives pieces and sends back their outcomes.

    Parameters
    ----------
    config : Config
        The settings.
    kind : str
        ``worker`` or ``service``: by this it is decided who may hand in pieces.
    keys : Keyring or None
        Who this process is.
    make_registration : callable
        Given the reactor, returns the way into the registry.
    on_flag : callable
        Called in the I/O thread when the running piece should stop, with why and with
        the time at which somebody outside will insist.
    on_exception : callable
        Called in the I/O thread when an exception should be raised in the running
        piece.
    on_alone : callable
        Called in the I/O thread with the piece of a bundle that runs, when it is one
        by itself from then on.
    on_make_way : callable, optional
        Called in the I/O thread when the running piece should stop for a real-time
        piece as soon as it can, and be given back. Without it none is asked to.

    Attributes
    ----------
    transport : Transport
        The connections.
    reactor : Reactor
        Who serves them.
    registration : Registration
        The way into the registry.
    keeper : Keeper
        The values that are kept here.
    bundles : BundleWatch
        The bundle that is performed.
    is_ending : bool
        Nothing more is to be begun.
    """

    def __init__(
        self,
        config: Config,
        kind: str,
        keys: Keyring | None,
        make_registration: Callable[[Reactor], Registration],
        on_flag: Callable[[RaiseFlag], None],
        on_exception: Callable[[RaiseException], None],
        on_alone: Callable[[Work], None] | None = None,
        on_make_way: Callable[[MakeWay], None] | None = None,
    ) -> None:
        worker = config.worker
        self._kind = kind
        self.transport = open_transport(config, keys)
        self.reactor = Reactor(
            self.transport,
            self._event,
            # a large result of the last piece may take its time on a slow line
            linger_s=worker.drain_timeout_s,
            handlers_return=True,
            grace_s=GRACE_S,
            spin_s=config.network.spin_us * 1e-6,
        )
        self._rejections = Rejections(self.transport.counts, log)
        self.registration = make_registration(self.reactor)
        spill_dir = config.memory.spill_dir
        spill = Path(spill_dir) if spill_dir else Place.find().path / "spill"
        self.keeper = Keeper(config, spill, self.reactor)
        self._config = config
        self._on_flag = on_flag
        self._on_exception = on_exception
        self._on_make_way = on_make_way
        # the condition of the mutex; taking a bare one costs a third of the time
        self._mutex = threading.Lock()
        self._lock = threading.Condition(self._mutex)
        self._inbox = Inbox(
            worker.max_queued,
            worker.interrupt_grace_s,
            worker.kill_grace_s,
            worker.max_queued_bytes,
            on_make_way is not None,
        )
        self._outbox = Outbox(self.transport, self._manager_lost)
        self.bundles = BundleWatch(
            self.reactor,
            self._leave_alone,
            on_alone or _nothing_with,
            self._outbox,
            self.answer,
            self._look,
        )
        self.is_ending = False
        self._entry: Entry | None = None
        self._tick_at: float | None = None
        self._serve_at = 0.0
        self._carried_bytes = 0

    # --- from the threads that run pieces ------------------------------------

    def open(self, entry: Entry) -> None:
        """Start to serve, and register."""
        self._entry = entry
        self.keeper.open(entry.id)
        self.reactor.when_idle(self._outbox.flush)
        interval_s = self._config.cluster.heartbeat_interval_s
        self.reactor.post(lambda: self._start(interval_s))
        self.reactor.start()
        self.registration.announce(entry)

    def take(self) -> Work | None:
        """Wait for the next piece; ``None`` means that the station is draining.

        For one of several threads; another one serves the sockets.
        """
        with self._mutex:
            while not self._inbox.is_draining:
                work = self._start_next()
                if work is not None:
                    return work
                self._lock.wait()
        return None

    def serve(self, when_idle: Callable[[], None]) -> Work | None:
        """Like `take`, for the only thread: it serves the sockets while it waits.

        `when_idle` is called before it waits, and before the end.
        """
        now = time.monotonic()
        if now >= self._serve_at:
            self._serve_at = now + RESULTS_WAIT_S
            self._carried_bytes = 0
            self.reactor.serve_turn()
        while not self._inbox.is_draining:
            with self._mutex:
                work = self._start_next()
            if work is not None:
                return work
            when_idle()
            self.reactor.wait_until(self._is_wanted)
        when_idle()
        return None

    def _start_next(self) -> Work | None:
        # the inbox hears of the end from the I/O thread, a little later
        waiting = None if self.is_ending else self._inbox.start(time.monotonic())
        if waiting is None:
            return None
        return Work(waiting, *waiting.data)

    def _is_wanted(self) -> bool:
        # at the end the inbox is told that it is draining, by whoever serves next
        is_work_here = self._inbox.queued > 0 and not self.is_ending
        return is_work_here or self._inbox.is_draining

    def started(self, work: Work) -> None:
        """Have the piece's time limit watched, when it has one."""
        if work.waiting.timeout_s:
            self.reactor.post(self._plan_tick)

    def answer(self, work: Work, answer: Answer) -> None:
        """Send the outcome of the piece that was taken.

        Nobody but the caller's code may refer to the result any more: what that may
        write to while it leaves is copied.
        """
        peer, piece = key = work.waiting.key
        if answer.buffers and answer.status != "bundle":
            # it may wait for others to travel with, while the next piece runs
            _, *buffers = owned(answer.payload, answer.buffers)
            answer = answer._replace(buffers=buffers)
        each_s = None
        if answer.status in _WHOLE:
            each_s = answer.elapsed_s
        elif answer.status == "bundle" and answer.payload:
            each_s = answer.elapsed_s / len(answer.payload)
        with self._mutex:
            if not self._inbox.finish(key, each_s):
                return
        is_first = self._outbox.put(peer, piece, answer)
        if answer.elapsed_s >= SLOW_S:
            self._serve_at = 0.0
        self._carried_bytes += work.waiting.nbytes
        if answer.buffers:
            self._carried_bytes += sum(map(len, answer.buffers))
        if self._carried_bytes >= RESULTS_BYTES:
            self._serve_at = 0.0
        if is_first:
            # whoever serves the sockets next sends it, with those that come till then
            self.reactor.post(_nothing)

    def report_progress(self, work: Work, done: float, total: float) -> None:
        """Tell the manager how far the running piece is."""
        peer, piece = work.waiting.key
        header = frames.pack(kinds.PROGRESS, piece, float(done), float(total))
        self.reactor.post(lambda: self._outbox.send(peer, header))

    def look(self) -> None:
        """See what came, in the midst of a piece, if nobody else does.

        The caller sees to it that nothing is raised in here.
        """
        self.reactor.serve_turn()

    def drain(self) -> None:
        """Take no more pieces; may be called from a signal handler."""
        self.is_ending = True
        self.reactor.post(self._drain)

    def hand_over(self) -> None:
        """Wait until what is held here is held elsewhere, while there is time."""
        if self.keeper.is_awaited:
            self.registration.handing_over()
        self.keeper.hand_over(self._config.worker.hand_over_s)

    def close(self) -> None:
        """Deregister, let what was answered leave, and close the sockets."""
        self.registration.withdraw()
        if self._entry is None:
            self.transport.close()
            return
        self.reactor.post(self._outbox.flush)
        self.reactor.stop()
        self.reactor.join()
        self.keeper.close()

    # --- in the I/O thread ---------------------------------------------------

    def _start(self, interval_s: float) -> None:
        self.reactor.every(interval_s, self._beat)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self.registration.peer_lost(event.peer)
            self.keeper.lost(event.peer)
        elif isinstance(event, PeerConnected):
            self.keeper.connected(event.peer)
        if not isinstance(event, Received):
            return
        try:
            self._message(event)
        except MALFORMED as error:
            self._rejections.note(error)

    def _message(self, event: Received) -> None:
        fields = frames.unpack(event.header, self._config.limits.max_nesting)
        kind, peer = fields[0], event.peer
        now = time.monotonic()
        is_for_us = kind in _ORDERS or kind in KEEPER_KINDS
        check(self._kind if is_for_us else ASKER, kind, event.who)
        if kind == kinds.PIECES:
            if self._is_me(fields[2]):
                extras = fields[3] if len(fields) > 3 else {}
                self._take_in(peer, fields[1], event.buffers, extras)
            else:
                self._outbox.send(peer, frames.pack(kinds.GONE, fields[2]))
        elif kind == kinds.WITHDRAW:
            numbers = self._stopped(peer, fields[1])
            self._locked(lambda: self._inbox.withdraw(peer, numbers))
        elif kind == kinds.CANCEL:
            numbers = self._stopped(peer, fields[1])
            self._locked(lambda: self._inbox.cancel(now, peer, numbers))
        elif kind == kinds.INTERRUPT:
            numbers = self._stopped(peer, fields[1])
            self._locked(lambda: self._inbox.interrupt(now, peer, numbers))
        elif kind == kinds.END:
            self._end(now, str(fields[1]))
        elif kind in KEEPER_KINDS:
            self.keeper.received(peer, fields, event.buffers)
        elif not self.registration.received(peer, fields):
            raise RemoteProtocolError(f"a worker takes no {kind!r} message")

    def _is_me(self, worker: Any) -> bool:
        """Return whether pieces were meant for this process.

        Those for one that ended must not run in the next one at its address: they may
        be under way elsewhere by now, or quarantined.
        """
        assert self._entry is not None
        return bool(worker == self._entry.id)

    def _take_in(
        self, peer: Peer, rows: Any, buffers: Sequence[Any], extras: Any
    ) -> None:
        arrivals = arrivals_in(peer, rows, buffers, extras)
        if self._inbox.is_draining:
            self._outbox.send(peer, frames.pack(kinds.DRAINING))
        with self._mutex:
            effects = self._inbox.receive(arrivals.pieces)
            self._lock.notify(len(arrivals.pieces))
        self._do(effects)
        if arrivals.has_urgent:
            self._look()
        for wanted in arrivals.wanted:
            self.keeper.fetch_ahead(wanted)

    def _end(self, now: float, name: str) -> None:
        """Interrupt a piece that runs, whosever it is, by the name in the status."""
        with self._mutex:
            running = self._inbox.running
        for manager, number in running:
            if is_meant(name, piece_name(manager, number)):
                self._locked(partial(self._inbox.interrupt, now, manager, [number]))

    def _stopped(self, peer: Peer, numbers: Any) -> list[int]:
        """Return which pieces are to be stopped; send back those that still come.

        An order to stop a large piece gets here before it: then the rest of the piece
        need not come.
        """
        wanted = numbers_in(numbers)
        for transfer, header in self.transport.coming(peer):
            fields = frames.unpack(header, self._config.limits.max_nesting)
            own = [row[0] for row in fields[1]] if fields[0] == kinds.PIECES else []
            if own and set(own) <= set(wanted):
                self.transport.refuse(peer, transfer)
                self._outbox.give_back(peer, *own)
        return wanted

    def _locked(self, decide: Callable[[], list[Effect]]) -> None:
        with self._mutex:
            effects = decide()
        self._do(effects)

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case ReturnPiece((peer, piece)):
                    self._outbox.give_back(peer, piece)
                case RaiseFlag():
                    self._on_flag(effect)
                    self._plan_tick()
                case RaiseException():
                    self._on_exception(effect)
                case CutBundle():
                    self.bundles.cut()
                case MakeWay() if self._on_make_way is not None:
                    self._on_make_way(effect)

    def _plan_tick(self) -> None:
        """Have the inbox look at the time when it has to; one timer does for all."""
        with self._mutex:
            at = self._inbox.next_time()
        if at is not None and (self._tick_at is None or at < self._tick_at):
            self._tick_at = at
            delay_s = at - time.monotonic()
            self.reactor.after(max(SHORTEST_TICK_S, delay_s), self._tick)

    def _tick(self) -> None:
        self._tick_at = None
        self._look()

    def _look(self) -> None:
        """Have the inbox look at the time now, and when it has to again."""
        self._locked(lambda: self._inbox.tick(time.monotonic()))
        self._plan_tick()

    def _leave_alone(self, bundle: Key, done: int) -> Waiting | None:
        with self._mutex:
            return self._inbox.leave_alone(bundle, done, None)

    def _beat(self) -> None:
        """Find out which managers are gone, and say what came in."""
        holding = self.keeper.managers()
        with self._mutex:
            peers = self._inbox.managers() | holding
        alive = frames.pack(kinds.ALIVE)
        for peer in peers:
            if self._outbox.reaches(peer, alive):
                self.keeper.heard(peer)
        self.registration.counted(self.transport.counts)
        self.registration.keeps(self.keeper.kept_bytes)

    def _manager_lost(self, peer: Peer) -> None:
        with self._mutex:
            effects = self._inbox.manager_lost(time.monotonic(), peer)
        self._do(effects)
        self.keeper.lost(peer)

    def _drain(self) -> None:
        with self._mutex:
            if self._inbox.is_draining:
                return
        self.registration.draining()
        with self._mutex:
            managers = self._inbox.managers() | self.keeper.managers()
            effects = self._inbox.drain()
            self._lock.notify_all()
        # before the pieces, or they would be sent here again
        notice = frames.pack(kinds.DRAINING)
        for peer in managers:
            self._outbox.send(peer, notice)
        self._do(effects)
        self.keeper.drain()
        self._outbox.flush()
        limit_s = self._config.worker.drain_timeout_s
        self.reactor.after(limit_s, self._interrupt_for_drain)

    def _interrupt_for_drain(self) -> None:
        now = time.monotonic()
        self._locked(lambda: self._inbox.interrupt_running(now))


def _nothing() -> None:
    """Do nothing: the turn in which it is done is what was wanted."""


def _nothing_with(work: Work) -> None:
    """Do nothing: whoever runs several pieces at a time gets no bundles."""
