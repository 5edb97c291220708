"""The worker's side of dispatch: what waits, what runs, what must be interrupted.

Rules that this module keeps:

1. As many pieces run as there are runners (one in a worker, several in a service);
   the rest waits by priority, then by arrival.
2. Every piece that came in is answered exactly once: with its outcome, as returned,
   or (when its manager is gone) not at all. One that comes in again meanwhile is the
   same piece; unless it comes alone and was of a bundle, or the other way round: then
   its manager has given up the former, and wants an answer to the latter.
3. An interrupt, like a time limit that passed, first raises a flag that the running
   code can see, then an exception in it, and is then somebody else's to enforce.
4. A draining worker starts nothing more: what waits is returned at once.
5. The queue is bounded, in pieces and in bytes; what exceeds it is returned, never
   dropped. A single piece may wait whatever its size, or it would run nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from opencluster.core.backlog import Backlog

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
    """

    manager: bytes
    piece: int
    priority: int = 0
    timeout_s: float = 0.0
    nbytes: int = 0
    data: Any = None
    members: int = 1

    @property
    def key(self) -> Key:
        """What identifies the piece here."""
        return (self.manager, self.piece)


@dataclass
class _Running:
    waiting: Waiting
    started_at: float
    flagged_at: float | None = None
    reason: str = ""
    is_raised: bool = False
    is_silent: bool = False


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


Effect = ReturnPiece | RaiseFlag | RaiseException | CutBundle

TIME_LIMIT = "time limit"
INTERRUPT = "interrupt"
CANCELLED = "cancelled"
DRAINED = "drained"


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
    """

    def __init__(
        self,
        max_queued: int = 10_000,
        interrupt_grace_s: float = 2.0,
        kill_grace_s: float = 5.0,
        max_queued_bytes: int = 1 << 30,
    ) -> None:
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self.interrupt_grace_s = interrupt_grace_s
        self.kill_grace_s = kill_grace_s
        self.is_draining = False
        self._waiting: Backlog[Waiting] = Backlog()
        self._running: dict[Key, _Running] = {}
        self._arrivals = 0
        self._queued_bytes = 0

    # --- events --------------------------------------------------------------

    def receive(self, pieces: Iterable[Waiting]) -> list[Effect]:
        """Take in pieces from a manager."""
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
            self._waiting.push(key, piece, piece.priority, self._arrivals)
        return effects

    def start(self, now: float) -> Waiting | None:
        """Take out the next piece to run, or ``None``."""
        piece = self._waiting.pop()
        if piece is not None:
            self._queued_bytes -= piece.nbytes
            self._running[piece.key] = _Running(piece, now)
        return piece

    def finish(self, key: Key) -> bool:
        """Note that a running piece is over; ``True`` if its manager wants to know."""
        running = self._running.pop(key, None)
        return running is not None and not running.is_silent

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
        self._queued_bytes = 0
        return [ReturnPiece(waiting.key) for waiting in self._waiting.clear()]

    def interrupt_running(self, now: float) -> list[Effect]:
        """Interrupt whatever runs, as a worker does that must end now."""
        running = list(self._running.values())
        return [effect for one in running for effect in self._flag(now, one, DRAINED)]

    def tick(self, now: float) -> list[Effect]:
        """Do what only the passing of time brings about."""
        effects: list[Effect] = []
        for running in self._running.values():
            at = self._next_time(running)
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
        times = [self._next_time(running) for running in self._running.values()]
        return min((at for at in times if at is not None), default=None)

    @property
    def queued(self) -> int:
        """How many pieces wait."""
        return len(self._waiting)

    @property
    def running(self) -> list[Key]:
        """The pieces that run."""
        return list(self._running)

    def managers(self) -> set[bytes]:
        """Return the managers whose pieces are here."""
        running = (k[0] for k, r in self._running.items() if not r.is_silent)
        return {waiting.manager for waiting in self._waiting}.union(running)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert len(self._waiting) <= self.max_queued
        nbytes = sum(waiting.nbytes for waiting in self._waiting)
        assert nbytes == self._queued_bytes
        assert nbytes <= self.max_queued_bytes or len(self._waiting) == 1
        assert not (self.is_draining and self._waiting)
        self._waiting.check_invariants()
        assert not any(waiting.key in self._running for waiting in self._waiting)
        for key, running in self._running.items():
            assert running.waiting.key == key
            assert running.flagged_at is not None or not running.is_raised

    def _give_back(self, manager: bytes, pieces: Iterable[int]) -> list[Effect]:
        taken = [self._waiting.take((manager, piece)) for piece in pieces]
        back = [waiting for waiting in taken if waiting is not None]
        self._queued_bytes -= sum(waiting.nbytes for waiting in back)
        return [ReturnPiece(waiting.key) for waiting in back]

    def _is_full(self, piece: Waiting) -> bool:
        """Return whether there is no room for one more piece."""
        nbytes = self._queued_bytes + piece.nbytes
        is_too_much = bool(self._waiting) and nbytes > self.max_queued_bytes
        return len(self._waiting) >= self.max_queued or is_too_much

    def _next_time(self, running: _Running) -> float | None:
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
