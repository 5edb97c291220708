"""The worker's side of dispatch: what waits, what runs, what must be interrupted.

Rules that this module keeps:

1. As many pieces run as there are runners (one in a worker, several in a service);
   the rest waits by priority, then by arrival; real-time pieces before batch pieces,
   whoever sent them.
2. Every piece that came in is answered exactly once: with its outcome, as returned,
   or (when its manager is gone) not at all. One that comes in again meanwhile is the
   same piece; unless it comes alone and was of a bundle, or the other way round: then
   its manager has given up the former, and wants an answer to the latter.
3. An interrupt, like a time limit that passed, first raises a flag that the running
   code can see, then an exception in it, and is then somebody else's to enforce.
4. A draining worker starts nothing more: what waits is returned at once.
5. The queue is bounded, in pieces and in bytes; what exceeds it is returned, never
   dropped. A single piece may wait whatever its size, or it would run nowhere. Batch
   pieces take up no room of real-time pieces.
6. A batch piece that runs is asked to make way when a real-time piece waits for it and
   would begin too late: at once if it will go on for longer, by what such pieces took,
   or if that is not known; else when it is too late. A bundle makes way at once, as it
   can between two of its pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from opencluster.core.backlog import REALTIME, Backlog

Key = tuple[bytes, int]
"""A piece as the worker knows it: who sent it, and the number it has there."""


class Waiting(NamedTuple):
    """A piece that came in.

    Attributes
    ----------
    manager : bytes
        The peer that sent it and that gets the answer.
    piece : int
        Its number at that manager.
    priority : int
        Higher goes first.
    timeout_s : float
        Time limit, 0 for none.
    nbytes : int
        Size of its data.
    data : object
        What it consists of, kept with it and not looked at here.
    members : int
        How many pieces it stands for: more than one are a bundle, which is answered
        as one, or as far as it was performed.
    due_at : float or None
        When a real-time piece should have begun, in seconds; ``None`` for a batch
        piece.
    may_be_cut : bool
        A batch piece makes way for real-time pieces.
    """

    manager: bytes
    piece: int
    priority: int = 0
    timeout_s: float = 0.0
    nbytes: int = 0
    data: Any = None
    members: int = 1
    due_at: float | None = None
    may_be_cut: bool = True

    @property
    def key(self) -> Key:
        """What identifies the piece here."""
        return (self.manager, self.piece)


@dataclass(eq=False)
class _Running:
    waiting: Waiting
    started_at: float
    flagged_at: float | None = None
    reason: str = ""
    is_raised: bool = False
    is_silent: bool = False
    is_cut: bool = False


# --- effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReturnPiece:
    """Tell the manager that its piece was not started here."""

    key: Key


@dataclass(frozen=True, slots=True)
class RaiseFlag:
    """Let the running code see that it should stop, and why."""

    key: Key
    reason: str
    enforce_at: float


@dataclass(frozen=True, slots=True)
class RaiseException:
    """Raise an exception in the running code."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class CutBundle:
    """Answer what is done of the bundle that runs, and give back what is not begun."""

    key: Key


@dataclass(frozen=True, slots=True)
class MakeWay:
    """Let a running batch piece stop as soon as it can, and give it back.

    Of a bundle the piece that runs is performed, and what is not begun given back.
    """

    key: Key


Effect = ReturnPiece | RaiseFlag | RaiseException | CutBundle | MakeWay

TIME_LIMIT = "time limit"
INTERRUPT = "interrupt"
CANCELLED = "cancelled"
DRAINED = "drained"
CUT_SHORT = "cut short"

SMOOTHING = 0.2
"""Weight of the newest piece in the running mean of how long batch pieces take."""


class Inbox:
    """What a worker has to do.

    Parameters
    ----------
    max_queued, max_queued_bytes : int
        Pieces that wait here at most, and the size of their data.
    interrupt_grace_s : float
        Time between the flag and the exception.
    kill_grace_s : float
        Time between the exception and the enforcement from outside.
    makes_way : bool
        What runs makes way for real-time pieces; of no use where several run.
    """

    def __init__(
        self,
        max_queued: int = 10_000,
        interrupt_grace_s: float = 2.0,
        kill_grace_s: float = 5.0,
        max_queued_bytes: int = 1 << 30,
        makes_way: bool = True,
    ) -> None:
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.interrupt_grace_s = interrupt_grace_s
        self.kill_grace_s = kill_grace_s
        self.makes_way = makes_way
        self.is_draining = False
        self._waiting: Backlog[Waiting] = Backlog()
        self._running: dict[Key, _Running] = {}
        self._arrivals = 0
        self._queued_bytes = 0
        self._urgent: dict[Key, Waiting] = {}
        self._urgent_bytes = 0
        self._piece_s: float | None = None

    # --- events --------------------------------------------------------------

    def receive(self, pieces: Iterable[Waiting]) -> list[Effect]:
        """Take in pieces from a manager.

        If there are real-time pieces among them, a `tick` may be due at once.
        """
        effects: list[Effect] = []
        for piece in pieces:
            key = piece.key
            running = self._running.get(key) if self._running else None
            before = self._waiting.get(key)
            if before is not None and before.members != piece.members:
                self._give_back(key[0], [key[1]])
            elif before is not None or (running and not _is_stale(running, piece)):
                continue
            if running or self.is_draining or self._is_full(piece):
                effects.append(ReturnPiece(key))
                continue
            self._arrivals += 1
            self._queued_bytes += piece.nbytes
            rank = piece.priority
            if piece.due_at is not None:
                rank += REALTIME
                self._urgent[key] = piece
                self._urgent_bytes += piece.nbytes
            self._waiting.push(key, piece, rank, self._arrivals)
        return effects

    def start(self, now: float) -> Waiting | None:
        """Take out the next piece to run, or ``None``."""
        piece = self._waiting.pop()
        if piece is not None:
            self._queued_bytes -= piece.nbytes
            if piece.due_at is not None:
                self._leaves(piece)
            self._running[piece.key] = _Running(piece, now)
        return piece

    def finish(self, key: Key, each_s: float | None = None) -> bool:
        """Note that a running piece is over; ``True`` if its manager wants to know.

        Parameters
        ----------
        key : Key
            Which one.
        each_s : float, optional
            How long it took, each piece of a bundle, if it took as long as such pieces
            do.
        """
        running = self._running.pop(key, None)
        if running is None:
            return False
        if each_s is not None and running.waiting.due_at is None:
            mean_s = each_s if self._piece_s is None else self._piece_s
            self._piece_s = mean_s + SMOOTHING * (each_s - mean_s)
        return not running.is_silent

    def leave_alone(self, key: Key, place: int, data: Any) -> Waiting | None:
        """Let the piece of a bundle that runs be a piece of its own from now on.

        Parameters
        ----------
        key : Key
            The bundle.
        place : int
            The piece's place in it.
        data : object
            What the piece consists of.

        Returns
        -------
        Waiting or None
            The piece; ``None`` if nobody waits for it, and all stays as it is.
        """
        running = self._running[key]
        if running.is_silent:
            return None
        del self._running[key]
        manager, first = key
        waiting = running.waiting._replace(piece=first + place, data=data, members=1)
        running.waiting = waiting
        # it was asked to make way between two pieces, if it was
        running.is_cut = False
        self._running[waiting.key] = running
        # one that came again, as its manager gave up the bundle, is the same piece
        self._give_back(manager, [waiting.piece])
        return waiting

    def withdraw(self, manager: bytes, pieces: Iterable[int]) -> list[Effect]:
        """Give back those of these pieces, also in bundles, that were not started."""
        wanted = list(pieces)
        effects = self._give_back(manager, wanted)
        for piece in wanted:
            running = self._running.get((manager, piece))
            if running is not None and running.waiting.members > 1:
                effects.append(CutBundle((manager, piece)))
        return effects

    def cancel(self, now: float, manager: bytes, pieces: Iterable[int]) -> list[Effect]:
        """Return these pieces if they wait, and interrupt them if they run."""
        return self.interrupt(now, manager, pieces, CANCELLED)

    def interrupt(
        self,
        now: float,
        manager: bytes,
        pieces: Iterable[int],
        reason: str = INTERRUPT,
    ) -> list[Effect]:
        """Interrupt these pieces if they run, and return them if they wait."""
        wanted = list(pieces)
        effects = self._give_back(manager, wanted)
        for piece in wanted:
            running = self._running.get((manager, piece))
            if running is not None:
                effects += self._flag(now, running, reason)
        return effects

    def manager_lost(self, now: float, manager: bytes) -> list[Effect]:
        """Drop what a manager sent: nobody waits for it any more."""
        waiting = [w.piece for w in self._waiting if w.manager == manager]
        self._give_back(manager, waiting)
        effects: list[Effect] = []
        for running in self._running.values():
            if running.waiting.manager == manager:
                running.is_silent = True
                effects += self._flag(now, running, CANCELLED)
        return effects

    def drain(self) -> list[Effect]:
        """Start nothing more, and return what waits."""
        self.is_draining = True
        self._queued_bytes = self._urgent_bytes = 0
        self._urgent.clear()
        return [ReturnPiece(waiting.key) for waiting in self._waiting.clear()]

    def interrupt_running(self, now: float) -> list[Effect]:
        """Interrupt whatever runs, as a worker does that must end now."""
        running = list(self._running.values())
        return [effect for one in running for effect in self._flag(now, one, DRAINED)]

    def tick(self, now: float) -> list[Effect]:
        """Do what only the passing of time brings about."""
        effects: list[Effect] = []
        for running in self._running.values():
            if (at := self._cut_at(running)) is not None and now >= at:
                running.is_cut = True
                effects.append(MakeWay(running.waiting.key))
            at = self._limit_at(running)
            if at is None or now < at:
                continue
            if running.flagged_at is None:
                effects += self._flag(now, running, TIME_LIMIT)
            else:
                running.is_raised = True
                key = running.waiting.key
                effects.append(RaiseException(key, running.reason))
        return effects

    # --- questions -----------------------------------------------------------

    def next_time(self) -> float | None:
        """Return when `tick` has something to do next, or ``None``."""
        running = self._running.values()
        times = [*map(self._limit_at, running), *map(self._cut_at, running)]
        return min((at for at in times if at is not None), default=None)

    @property
    def queued(self) -> int:
        """How many pieces wait."""
        return len(self._waiting)

    @property
    def running(self) -> list[Key]:
        """The pieces that run."""
        return list(self._running)

    def waiting(self) -> list[Waiting]:
        """Return the pieces that wait, in no particular order."""
        return list(self._waiting)

    def managers(self) -> set[bytes]:
        """Return the managers whose pieces are here."""
        running = (k[0] for k, r in self._running.items() if not r.is_silent)
        return {waiting.manager for waiting in self._waiting}.union(running)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert len(self._urgent) <= self.max_queued
        assert len(self._waiting) - len(self._urgent) <= self.max_queued
        nbytes = sum(waiting.nbytes for waiting in self._waiting)
        assert nbytes == self._queued_bytes
        urgent = {w.key: w for w in self._waiting if w.due_at is not None}
        assert urgent == self._urgent
        urgent_bytes = sum(waiting.nbytes for waiting in urgent.values())
        assert urgent_bytes == self._urgent_bytes
        assert urgent_bytes <= self.max_queued_bytes or len(urgent) == 1
        assert not (self.is_draining and self._waiting)
        self._waiting.check_invariants()
        assert not any(waiting.key in self._running for waiting in self._waiting)
        for key, running in self._running.items():
            assert running.waiting.key == key
            assert running.flagged_at is not None or not running.is_raised

    def _give_back(self, manager: bytes, pieces: Iterable[int]) -> list[Effect]:
        taken = [self._waiting.take((manager, piece)) for piece in pieces]
        back = [waiting for waiting in taken if waiting is not None]
        for waiting in back:
            self._queued_bytes -= waiting.nbytes
            if waiting.due_at is not None:
                self._leaves(waiting)
        return [ReturnPiece(waiting.key) for waiting in back]

    def _is_full(self, piece: Waiting) -> bool:
        """Return whether there is no room for one more piece."""
        is_urgent = piece.due_at is not None
        count = len(self._urgent) if is_urgent else len(self._waiting)
        nbytes = self._urgent_bytes if is_urgent else self._queued_bytes
        is_too_much = count > 0 and nbytes + piece.nbytes > self.max_queued_bytes
        return count >= self.max_queued or is_too_much

    def _leaves(self, urgent: Waiting) -> None:
        """Note that a real-time piece waits no longer."""
        del self._urgent[urgent.key]
        self._urgent_bytes -= urgent.nbytes

    def _cut_at(self, running: _Running) -> float | None:
        """Return when a running piece should make way, if one waits for that."""
        waiting = running.waiting
        if not (self._urgent and self.makes_way) or running.is_cut:
            return None
        if waiting.due_at is not None or running.flagged_at is not None:
            return None
        if waiting.members > 1:
            return running.started_at
        if not waiting.may_be_cut:
            return None
        due_at = min(w.due_at for w in self._urgent.values() if w.due_at is not None)
        if math.isinf(due_at):
            return None
        is_soon_over = (
            self._piece_s is not None and running.started_at + self._piece_s <= due_at
        )
        return due_at if is_soon_over else running.started_at

    def _limit_at(self, running: _Running) -> float | None:
        if running.is_raised:
            return None
        if running.flagged_at is not None:
            return running.flagged_at + self.interrupt_grace_s
        limit_s = running.waiting.timeout_s
        return running.started_at + limit_s if limit_s else None

    def _flag(self, now: float, running: _Running, reason: str) -> list[Effect]:
        if running.flagged_at is not None:
            return []
        running.flagged_at = now
        running.reason = reason
        enforce_at = now + self.interrupt_grace_s + self.kill_grace_s
        return [RaiseFlag(running.waiting.key, reason, enforce_at)]


def _is_stale(running: _Running, piece: Waiting) -> bool:
    """Return whether a run is no answer to a piece with its number.

    It is silent when its manager was lost, and came back.
    """
    return running.is_silent or running.waiting.members != piece.members
