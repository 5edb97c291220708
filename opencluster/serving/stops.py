"""The piece that a worker runs, and all that may stop it in its midst.

First a flag is raised, which the running code sees when it looks; then an exception is
raised in it; and where no workshop would, the kernel ends the process at last. Besides,
a batch piece is asked to make way for a real-time piece. All but the main thread may
only leave word here; what they want happens in the main thread, which performs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import FrameType

from opencluster.core.inbox import (
    CUT_SHORT,
    TIME_LIMIT,
    Key,
    MakeWay,
    RaiseException,
    RaiseFlag,
)
from opencluster.core.piece_names import piece_name
from opencluster.net.interrupts import MainThread, has_handlers_besides, has_room
from opencluster.node.scoreboard import Scoreboard
from opencluster.serving.arrivals import Work
from opencluster.serving.outcomes import PieceInterrupt
from opencluster.serving.signals import interrupt_main_thread, set_alarm

LOOK_S = 0.005
"""A piece that asks whether it should stop sees at most this often what came in."""


class Stops:
    """What may stop the piece that runs.

    Parameters
    ----------
    scoreboard : Scoreboard
        Says when somebody outside is to enforce an interrupt.
    serve : callable
        Sees to what came in, in the midst of a piece.
    drain : callable
        Has no other piece begin; for use in the handler of a signal.
    last_resort_s : float or None
        How long after its time limit the kernel ends a piece, if it is to.

    Attributes
    ----------
    current : Work or None
        The piece that runs.
    name : str
        How people know it, or the one that ran last.
    deadline : float
        When its time is up, by the clock of the process in seconds; 0 for never.
    flag : RaiseFlag or None
        Why it is to end, if it is.
    makes_way : Key or None
        The piece that is to make way for a real-time piece, if one is.
    is_performing : bool
        The code of the user runs, so that something may be raised in it.
    has_seen_way : bool
        The piece that runs knows that it is to make way.
    is_fork : bool
        This is a process that the code of the user forked.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        serve: Callable[[], None],
        drain: Callable[[], None],
        last_resort_s: float | None,
    ) -> None:
        self._scoreboard = scoreboard
        self._serve = serve
        self._drain = drain
        self._last_resort_s = last_resort_s
        self.current: Work | None = None
        self.name = ""
        self.deadline = 0.0
        self.flag: RaiseFlag | None = None
        self.makes_way: Key | None = None
        self.is_performing = False
        self.has_seen_way = False
        self.is_fork = False
        self._last_flag: RaiseFlag | None = None
        self._to_raise: RaiseException | None = None
        self._look_at = 0.0
        self._handlers = (self.raise_here, self.asked_to_end)

    # --- the one who performs ------------------------------------------------

    def begin(self, work: Work, now: float) -> None:
        """Note that a piece begins, now by the clock of the process in seconds."""
        waiting = work.waiting
        limit_s = waiting.timeout_s
        self.flag = None
        self._to_raise = None
        self.has_seen_way = False
        self._look_at = now + LOOK_S
        self.deadline = now + limit_s if limit_s else 0.0
        self.name = piece_name(waiting.manager, waiting.piece, waiting.members > 1)
        self.current = work
        early = self._last_flag
        if early is not None and early.key == waiting.key:
            # it came between the taking of the piece and this line
            self.flag = early
        if limit_s and self._last_resort_s is not None:
            set_alarm(limit_s + self._last_resort_s)

    def over(self) -> Work | None:
        """Note that the piece is over, and return it as it is known by now."""
        if self.deadline and self._last_resort_s is not None:
            set_alarm(0.0)
        over, self.current = self.current, None
        return over

    def forget(self) -> None:
        """Have no order count for a piece of that number that comes once more."""
        self._last_flag = None
        self.makes_way = None

    # --- the code of the user ------------------------------------------------

    def check(self) -> None:
        """End the piece here if it is to end.

        Raises
        ------
        PieceInterrupt
            With the reason.
        """
        if not self.is_performing:
            return
        self._look()
        if self.flag is not None:
            raise PieceInterrupt(self.flag.reason)
        if self.is_asked():
            raise PieceInterrupt(CUT_SHORT)

    def is_asked_to_stop(self) -> bool:
        """Return whether the piece should stop, having seen what came in."""
        if self.is_performing:
            self._look()
        return self.is_asked()

    def is_asked(self) -> bool:
        """Return whether the piece should stop, for whatever reason."""
        if self.flag is not None:
            return True
        current, wanted = self.current, self.makes_way
        if wanted is None or current is None or current.waiting.key != wanted:
            return False
        if current.waiting.members > 1:
            # what is left of the bundle is given back, between two of its pieces
            return False
        self.has_seen_way = True
        return True

    def _look(self) -> None:
        """See what came, in the midst of a piece; it may be to stop.

        The background thread would see it too, but not in the first moments of a piece,
        and not while this one is at work.
        """
        now = time.monotonic()
        if now < self._look_at or threading.get_ident() != MainThread.ident:
            return
        self._look_at = now + LOOK_S
        # a message that is half read must not be broken off; and the sockets are not
        # those of a child that perform() forked
        may_raise = not has_room() or has_handlers_besides(self._handlers)
        if may_raise or self.is_fork:
            return
        self.is_performing = False
        try:
            self._serve()
        finally:
            self.is_performing = True
        # what a signal was to raise meanwhile
        self.raise_here(0, None)

    # --- the I/O thread ------------------------------------------------------

    def flagged(self, effect: RaiseFlag) -> None:
        """Let the piece see that it should stop."""
        self._last_flag = effect
        current = self.current
        if current is not None and current.waiting.key == effect.key:
            self.flag = effect
            self._scoreboard.enforce(self.name, effect.enforce_at)

    def insisted(self, effect: RaiseException) -> None:
        """Have an exception raised in the piece."""
        self._to_raise = effect
        interrupt_main_thread()

    def asked_to_make_way(self, effect: MakeWay) -> None:
        """Let the piece see that a real-time piece waits for it."""
        self.makes_way = effect.key

    def left_alone(self, work: Work) -> None:
        """Note that the piece of a bundle that runs is one by itself now."""
        self.makes_way = None
        self.current = work

    # --- signals, between any two steps of the main thread -------------------

    def raise_here(self, number: int, frame: FrameType | None) -> None:
        """Raise in the main thread, if it still runs the piece that is meant."""
        wanted, current = self._to_raise, self.current
        if wanted is None or current is None or not self.is_performing:
            return
        if current.waiting.key == wanted.key:
            self._to_raise = None
            raise PieceInterrupt(wanted.reason)

    def asked_to_end(self, number: int, frame: FrameType | None) -> None:
        """Finish the running piece, or give it up when it is overdue already."""
        self._drain()
        if not self.is_performing:
            return
        if self.flag is not None:
            raise PieceInterrupt(self.flag.reason)
        if self.deadline and time.monotonic() >= self.deadline:
            # code that held the interpreter kept the flag from being raised
            raise PieceInterrupt(TIME_LIMIT)

    def forked(self) -> None:
        """Note that this is another process now."""
        self.is_fork = True
