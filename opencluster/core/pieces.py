"""What a piece of work is, how it can end, and what a dispatcher has done about it.

These are the values that pass between `core.dispatch` and its shell. Nothing is
decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from opencluster.core.backlog import REALTIME
from opencluster.core.locality import Need
from opencluster.errors import DeathEvidence

NONE: frozenset[int] = frozenset()
MAX_CUTS = 3
"""How often a batch piece is cut short for real-time pieces; then it is left to end."""


@dataclass(slots=True)
class Piece:
    """One piece of work as the dispatcher sees it; its data stays with the shell.

    Attributes
    ----------
    id : int
        Unique within the dispatcher.
    type : str
        Worker type that performs it.
    priority : int
        Higher goes first.
    timeout_s : float
        Time limit of one run, 0 for none.
    retries : int
        How often it runs again after the loss of its worker.
    error_retries : int
        How often it runs again after ``perform()`` raised.
    wanted_worker : str
        The worker that should have it as long as that one lives, or empty.
    worker : str
        Who holds it now, or empty.
    last_worker : str
        The worker that had it last, kept after that one is gone.
    sent_at : float
        When it was last sent to a worker, in seconds.
    losses, errors : int
        How often its worker was lost while running it, and how often it raised.
    deaths : list of DeathEvidence
        One for each worker process that ended while running it.
    is_over : bool
        It has its verdict.
    interrupted_at : float or None
        When its interrupt was asked for, in seconds.
    is_recalled : bool
        Its worker was asked to give it back if it has not started it.
    is_enforced : bool
        The end of its worker was asked for, because it ignores the interrupt.
    needs : tuple of Need
        The values that it refers to, and who has them.
    favoured : str
        The worker that it is left to for the sake of these, or empty.
    favoured_until : float
        When it would have begun elsewhere, in seconds.
    count : int
        How many pieces it stands for: more than one are a bundle, which is sent and
        answered as one. Their numbers follow each other, from `id` on.
    gone : frozenset of int
        Pieces of a bundle that nobody waits for any more.
    stopping : frozenset of int
        Pieces of a bundle whose interrupt was asked for.
    stops_running : bool
        Whichever piece of a bundle runs is to be interrupted.
    wait_s : float or None
        How long a real-time piece may wait; ``None`` makes it a batch piece.
    due_at : float
        When a real-time piece should have begun, in seconds.
    cuts : int
        How often a batch piece was cut short for a real-time piece.
    max_kills : int or None
        How many worker processes it may end; ``None`` means as many as any piece.
    """

    id: int
    type: str
    priority: int = 0
    timeout_s: float = 0.0
    retries: int = 3
    error_retries: int = 0
    wanted_worker: str = ""
    worker: str = ""
    last_worker: str = ""
    sent_at: float = 0.0
    losses: int = 0
    errors: int = 0
    deaths: list[DeathEvidence] = field(default_factory=list)
    is_over: bool = False
    interrupted_at: float | None = None
    is_recalled: bool = False
    is_enforced: bool = False
    needs: tuple[Need, ...] = ()
    favoured: str = ""
    favoured_until: float = 0.0
    count: int = 1
    gone: frozenset[int] = NONE
    stopping: frozenset[int] = NONE
    stops_running: bool = False
    wait_s: float | None = None
    due_at: float = 0.0
    cuts: int = 0
    max_kills: int | None = None

    @property
    def rank(self) -> int:
        """What it is ordered by among pieces of both classes, the highest first."""
        return self.priority if self.wait_s is None else self.priority + REALTIME

    @property
    def urgency(self) -> int | list[Any]:
        """Its priority, as its worker is told it.

        Alone, that of a batch piece which may be cut short. Else with how long it may
        wait from when it is sent, in seconds, or ``None`` for a batch piece that was
        cut short often enough.
        """
        if self.wait_s is not None:
            return [self.priority, max(0.0, self.due_at - self.sent_at)]
        return self.priority if self.cuts < MAX_CUTS else [self.priority, None]

    @property
    def numbers(self) -> range:
        """The numbers of the pieces that it stands for."""
        return range(self.id, self.id + self.count)

    @property
    def to_end(self) -> Iterable[int]:
        """The numbers of the pieces that its worker is to end, should they run."""
        if self.count == 1 or self.is_over or self.stops_running:
            return self.numbers
        return sorted(self.gone | self.stopping)

    def alone(self, number: int) -> Piece:
        """Return one of the pieces of a bundle as a piece of its own."""
        piece = Piece(number, self.type, self.priority, retries=self.retries)
        piece.max_kills = self.max_kills
        piece.last_worker = self.last_worker
        return piece


class Verdict(Enum):
    """How a piece ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    DIED = "died"
    POISONED = "poisoned"
    NO_WORKER = "no worker"
    MISSING = "missing"
    """Its worker could not get a value: it is taken back until there is one."""


# --- effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendPieces:
    """Send these pieces to this worker."""

    worker: str
    pieces: list[Piece]


@dataclass(frozen=True, slots=True)
class WithdrawPieces:
    """Ask the worker to give back what it has not started."""

    worker: str
    pieces: list[int]


@dataclass(frozen=True, slots=True)
class CancelPieces:
    """Tell the worker to drop these pieces, running or not."""

    worker: str
    pieces: list[int]


@dataclass(frozen=True, slots=True)
class InterruptPiece:
    """Ask the worker to interrupt a running piece."""

    worker: str
    piece: int


@dataclass(frozen=True, slots=True)
class EnforceInterrupt:
    """Have the workshop end a worker that ignores its interrupt."""

    worker: str
    piece: int


@dataclass(frozen=True, slots=True)
class EndPiece:
    """Hand the verdict on a piece to whoever waits for it."""

    piece: Piece
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WarnNoWorker:
    """Say that pieces wait and that no worker of their type is here."""

    type: str
    pieces: int


Effect = (
    SendPieces
    | WithdrawPieces
    | CancelPieces
    | InterruptPiece
    | EnforceInterrupt
    | EndPiece
    | WarnNoWorker
)
