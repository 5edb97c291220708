"""The bundle that a worker performs, and somebody who looks after it meanwhile.

As many of its pieces as are over are answered as one. When one of them takes long, or
something is to happen to it, it goes on alone: what is done is answered without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from opencluster.core.inbox import Key, Waiting
from opencluster.keeping import owned
from opencluster.net.reactor import Reactor
from opencluster.serving.arrivals import Work
from opencluster.serving.bundle import ALONE_AFTER_S, Bundle, Then
from opencluster.serving.outbox import Answer, Outbox


class BundleWatch:
    """Looks after one bundle at a time.

    Parameters
    ----------
    reactor : Reactor
        Whose thread looks after it.
    leave_alone : callable
        Given a bundle and how many of its pieces are over, has the inbox know the next
        one by itself, and returns it; ``None`` if nobody waits for it any more.
    on_alone : callable
        Called in the I/O thread with that piece.
    outbox : Outbox
        Takes what is done then.
    answer : callable
        Sends what came of a bundle that is over.
    after_cut : callable
        Called in the I/O thread when one of its pieces goes on alone.
    """

    def __init__(
        self,
        reactor: Reactor,
        leave_alone: Callable[[Key, int], Waiting | None],
        on_alone: Callable[[Work], None],
        outbox: Outbox,
        answer: Callable[[Work, Answer], None],
        after_cut: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._leave_alone = leave_alone
        self._on_alone = on_alone
        self._outbox = outbox
        self._answer = answer
        self._after_cut = after_cut
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._is_watching = False

    # --- from the thread that performs it ------------------------------------

    def begin(self, waiting: Waiting, now: float) -> Bundle:
        """Return a bundle that was taken, as it is going to be performed."""
        with self._lock:
            bundle = self._bundle = Bundle(waiting, now)
            is_watched, self._is_watching = self._is_watching, True
        if not is_watched:
            self._reactor.post(self._look)
        return bundle

    def note(
        self,
        bundle: Bundle,
        status: str,
        payload: bytes,
        buffers: Sequence[Any],
        now: float,
        is_last: bool,
    ) -> Then:
        """Note what came of the piece of a bundle that ran, and say what is next.

        Parameters
        ----------
        bundle : Bundle
            The bundle.
        status, payload, buffers
            As in an `Answer`.
        now : float
            The time, in seconds.
        is_last : bool
            No more of it is to be performed.
        """
        if buffers:
            # the next piece may write to the same memory
            _, *buffers = owned(payload, buffers)
        with self._lock:
            if bundle.is_cut:
                return Then.ALONE
            is_enough = bundle.add(status, payload, buffers, now)
            if not (is_enough or is_last):
                return Then.NEXT
            self._bundle = None
        work = Work(bundle.waiting, (), ())
        elapsed_s = now - bundle.started_at
        self._answer(work, Answer("bundle", bundle.outcomes, bundle.buffers, elapsed_s))
        return Then.OVER

    # --- in the I/O thread ---------------------------------------------------

    def cut(self) -> None:
        """Let the piece of a bundle that runs be alone, and answer what is done."""
        with self._lock:
            bundle = self._bundle
            if bundle is None or bundle.is_cut:
                return
            bundle.is_cut = True
            peer, first = key = bundle.waiting.key
            # what it consists of was taken out by whoever performs it
            alone = self._leave_alone(key, len(bundle.outcomes))
            if alone is None:
                return
            self._on_alone(Work(alone, b"", ()))
            elapsed_s = bundle.ended_at - bundle.started_at
            answer = Answer("cut", bundle.outcomes, bundle.buffers, elapsed_s)
            self._outbox.put(peer, first, answer)
        self._after_cut()

    def _look(self) -> None:
        """Look after the bundle that runs: one of its pieces may take long."""
        with self._lock:
            bundle = self._bundle
            left_s = 0.0
            if bundle is not None and not bundle.is_cut:
                left_s = bundle.started_at + ALONE_AFTER_S - time.monotonic()
            self._is_watching = left_s > 0.0
        if left_s > 0.0:
            self._reactor.after(left_s, self._look)
        elif bundle is not None:
            self.cut()
