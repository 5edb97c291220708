"""Which piece goes to which worker: credits, priorities, retries, quarantine.

Rules that this module keeps:

1. A piece that was submitted ends in exactly one verdict, however often its result
   arrives; after the verdict nothing about it is delivered again.
2. A worker never holds more pieces than its credit: one when pieces are long, more
   when they are so short that the way to the worker would dominate.
3. When a worker is lost, only the piece that it was running counts a loss; the
   pieces queued behind it go elsewhere as if they had never been sent.
4. A piece that ended ``max_kills`` worker processes is quarantined and never runs
   again; one that was lost more than ``retries`` times fails.
5. A piece waits behind another on a busy worker only as long as no other worker of
   the type is idle: what has not started is recalled.
6. Within a type a higher priority goes first, and equal priorities in the order of
   submission.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from opencluster.errors import DeathEvidence

LOOK_AHEAD_S = 0.02
"""Work that a worker may hold ahead: hides the way to it, delays nobody visibly."""
RECALL_AFTER_S = 0.1
"""How long a piece may wait on a busy worker while another is idle."""
SMOOTHING = 0.2
"""Weight of the newest piece in the running mean of piece durations."""


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


@dataclass
class _Worker:
    id: str
    type: str
    concurrency: int
    pieces: dict[int, Piece] = field(default_factory=dict)
    credit: int = 1
    mean_s: float | None = None
    is_open: bool = True


@dataclass
class _Type:
    """The pieces that wait for a type, and its workers by how much they hold."""

    queue: list[tuple[int, int, Piece]] = field(default_factory=list)
    workers: dict[str, _Worker] = field(default_factory=dict)
    by_load: list[dict[str, _Worker]] = field(default_factory=lambda: [{}])
    without_worker_since: float | None = None
    is_warned: bool = False
    failing: dict[str, str] = field(default_factory=dict)


class Dispatch:
    """Assigns pieces to workers.

    Parameters
    ----------
    max_kills : int
        Worker processes that a piece may end before it is quarantined.
    max_credit : int
        Most pieces that one worker holds, running and ahead.
    worker_wait_s : float
        How long pieces wait for a worker of their type to appear.
    interrupt_wait_s : float
        How long an interrupt may be ignored before the workshop enforces it.
    """

    def __init__(
        self,
        max_kills: int = 3,
        max_credit: int = 64,
        worker_wait_s: float = 30.0,
        interrupt_wait_s: float = 10.0,
    ) -> None:
        self.max_kills = max_kills
        self.max_credit = max_credit
        self.worker_wait_s = worker_wait_s
        self.interrupt_wait_s = interrupt_wait_s
        self._types: dict[str, _Type] = {}
        self._workers: dict[str, _Worker] = {}
        self._pieces: dict[int, Piece] = {}
        self._pinned: dict[str, deque[Piece]] = {}
        self._interrupting: dict[int, Piece] = {}

    # --- pieces --------------------------------------------------------------

    def submit(self, now: float, pieces: Iterable[Piece]) -> list[Effect]:
        """Take in new pieces and send what can be sent."""
        types = set()
        for piece in pieces:
            self._pieces[piece.id] = piece
            self._queue(now, piece)
            types.add(piece.type)
        return [effect for name in types for effect in self._assign(now, name)]

    def finished(
        self,
        now: float,
        worker_id: str,
        piece_id: int,
        verdict: Verdict,
        elapsed_s: float = 0.0,
    ) -> list[Effect]:
        """Take in what a worker says about one piece, without assigning new ones.

        A result of a piece that is over, or that another worker has by now, changes
        nothing. The caller follows a batch of these with `assign`.
        """
        piece = self._taken_from(worker_id, piece_id)
        if piece is None:
            return []
        worker = self._workers[worker_id]
        if verdict is Verdict.DONE:
            self._measured(worker, elapsed_s)
        if piece.is_over:
            return []
        if verdict is Verdict.FAILED and piece.errors < piece.error_retries:
            piece.errors += 1
            self._queue(now, piece)
            return []
        return [self._end(piece, verdict)]

    def returned(self, now: float, worker_id: str, piece_id: int) -> list[Effect]:
        """Take back a piece that the worker never started."""
        piece = self._taken_from(worker_id, piece_id)
        if piece is None or piece.is_over:
            return []
        if piece.interrupted_at is not None:
            return [self._end(piece, Verdict.CANCELLED)]
        self._queue(now, piece)
        return []

    def assign(self, now: float) -> list[Effect]:
        """Send out what can be sent now."""
        return [effect for name in self._types for effect in self._assign(now, name)]

    def cancel(self, now: float, piece_ids: Iterable[int]) -> list[Effect]:
        """Give up pieces: what waits is dropped, what runs is interrupted."""
        effects: list[Effect] = []
        at_workers: dict[str, list[int]] = {}
        for piece_id in piece_ids:
            piece = self._pieces.get(piece_id)
            if piece is None or piece.is_over:
                continue
            if piece.worker:
                at_workers.setdefault(piece.worker, []).append(piece_id)
            effects.append(self._end(piece, Verdict.CANCELLED))
        effects += [CancelPieces(worker, ids) for worker, ids in at_workers.items()]
        return effects

    def interrupt(self, now: float, piece_ids: Iterable[int]) -> list[Effect]:
        """Interrupt pieces that run; those that do not run yet are cancelled."""
        effects: list[Effect] = []
        for piece_id in piece_ids:
            piece = self._pieces.get(piece_id)
            if piece is None or piece.is_over:
                continue
            if not piece.worker:
                effects.append(self._end(piece, Verdict.CANCELLED))
            elif piece.interrupted_at is None:
                piece.interrupted_at = now
                self._interrupting[piece_id] = piece
                effects.append(InterruptPiece(piece.worker, piece_id))
        return effects

    # --- workers -------------------------------------------------------------

    def worker_joined(
        self, now: float, worker_id: str, type: str, concurrency: int = 0
    ) -> list[Effect]:
        """Take in a worker.

        Parameters
        ----------
        now : float
            The time, in seconds.
        worker_id, type : str
            Who, and what it performs.
        concurrency : int
            Pieces that it runs at a time; 0 for one, with the credit adapted.
        """
        if worker_id in self._workers:
            return []
        kind = self._types.setdefault(type, _Type())
        worker = _Worker(worker_id, type, concurrency, credit=max(1, concurrency))
        self._workers[worker_id] = kind.workers[worker_id] = worker
        kind.by_load[0][worker_id] = worker
        kind.without_worker_since = None
        kind.is_warned = False
        kind.failing.clear()
        return self._assign(now, type)

    def worker_draining(self, now: float, worker_id: str) -> list[Effect]:
        """Send nothing more to a worker; what it holds it finishes or returns."""
        worker = self._workers.get(worker_id)
        if worker is None or not worker.is_open:
            return []
        worker.is_open = False
        kind = self._types[worker.type]
        kind.by_load[len(worker.pieces)].pop(worker_id, None)
        del kind.workers[worker_id]
        self._unpin(now, worker_id)
        self._note_absence(now, worker.type)
        return self._assign(now, worker.type)

    def worker_lost(
        self,
        now: float,
        worker_id: str,
        evidence: DeathEvidence,
        is_process_death: bool = True,
        running: int | None = None,
    ) -> list[Effect]:
        """Take away a worker and send its pieces elsewhere.

        Parameters
        ----------
        now : float
            The time, in seconds.
        worker_id : str
            Who is gone.
        evidence : DeathEvidence
            What is known of its end.
        is_process_death : bool
            The process ended; otherwise only the contact with it was lost.
        running : int, optional
            The piece that it was running; by default the first that it was sent.
        """
        worker = self._workers.get(worker_id)
        if worker is None:
            return []
        effects = self.worker_draining(now, worker_id)
        del self._workers[worker_id]
        held = list(worker.pieces.values())
        if running is None and held:
            running = held[0].id
        for piece in held:
            piece.worker = ""
            if piece.is_over:
                self._forget(piece)
            elif piece.id == running:
                effects += self._lost(now, piece, evidence, is_process_death)
            else:
                self._queue(now, piece)
        return effects + self._assign(now, worker.type)

    def type_failing(
        self, now: float, type: str, source: str, reason: str
    ) -> list[Effect]:
        """Note that workers of a type do not start somewhere."""
        kind = self._types.setdefault(type, _Type())
        kind.failing[source] = reason
        self._note_absence(now, type)
        return []

    def type_recovered(self, type: str, source: str) -> None:
        """Note that the type starts there again."""
        if type in self._types:
            self._types[type].failing.pop(source, None)

    # --- time ----------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do what only the passing of time brings about."""
        effects: list[Effect] = []
        for name, kind in self._types.items():
            effects += self._starved(now, name, kind)
            effects += self._recall(now, kind)
        for piece in self._interrupting.values():
            since = piece.interrupted_at or now
            if not piece.is_enforced and now - since > self.interrupt_wait_s:
                piece.is_enforced = True
                effects.append(EnforceInterrupt(piece.worker, piece.id))
        return effects

    # --- questions -----------------------------------------------------------

    def workers_of(self, type: str) -> list[str]:
        """Return the workers of a type that take pieces, the least loaded first."""
        kind = self._types.get(type)
        if kind is None:
            return []
        return sorted(kind.workers, key=lambda i: len(kind.workers[i].pieces))

    def load_of(self, worker_id: str) -> int:
        """Return how many pieces a worker holds."""
        worker = self._workers.get(worker_id)
        return len(worker.pieces) if worker else 0

    def pieces_at(self, worker_id: str) -> list[int]:
        """Return the pieces that a worker holds, in the order they were sent."""
        worker = self._workers.get(worker_id)
        return list(worker.pieces) if worker else []

    @property
    def unfinished(self) -> int:
        """How many pieces have no verdict yet, or still stand at a worker."""
        return len(self._pieces)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        for worker in self._workers.values():
            assert len(worker.pieces) <= max(self.max_credit, worker.concurrency)
            for piece_id, piece in worker.pieces.items():
                assert piece.id == piece_id and piece.worker == worker.id
                assert self._pieces[piece_id] is piece
        for name, kind in self._types.items():
            waiting = {entry[2].id for entry in kind.queue}
            assert len(waiting) == len(kind.queue)
            for _, _, piece in kind.queue:
                assert piece.type == name
                assert piece.is_over or not piece.worker
            for load, workers in enumerate(kind.by_load):
                for worker in workers.values():
                    assert len(worker.pieces) == load and worker.is_open
            assert sum(map(len, kind.by_load)) == len(kind.workers)
        for piece in self._pieces.values():
            assert not (piece.is_over and not piece.worker)

    # --- inside --------------------------------------------------------------

    def _queue(self, now: float, piece: Piece) -> None:
        piece.is_recalled = False
        piece.interrupted_at = None
        self._interrupting.pop(piece.id, None)
        wanted = self._workers.get(piece.wanted_worker)
        if wanted is not None and wanted.is_open:
            self._pinned.setdefault(wanted.id, deque()).append(piece)
            return
        kind = self._types.setdefault(piece.type, _Type())
        # a piece that comes back keeps its place by its number, not by its return
        heapq.heappush(kind.queue, (-piece.priority, piece.id, piece))
        self._note_absence(now, piece.type)

    def _assign(self, now: float, type: str) -> list[Effect]:
        kind = self._types[type]
        batches: dict[str, list[Piece]] = {}
        if self._pinned:
            self._assign_pinned(now, kind, batches)
        queue = kind.queue
        while queue:
            if queue[0][2].is_over:
                heapq.heappop(queue)
                continue
            worker = self._freest(kind)
            if worker is None:
                break
            piece = heapq.heappop(queue)[2]
            self._give(now, kind, worker, piece)
            batches.setdefault(worker.id, []).append(piece)
        return [SendPieces(worker, pieces) for worker, pieces in batches.items()]

    def _assign_pinned(
        self, now: float, kind: _Type, batches: dict[str, list[Piece]]
    ) -> None:
        for worker in kind.workers.values():
            waiting = self._pinned.get(worker.id)
            while waiting and len(worker.pieces) < worker.credit:
                piece = waiting.popleft()
                if not piece.is_over:
                    self._give(now, kind, worker, piece)
                    batches.setdefault(worker.id, []).append(piece)
            if waiting is not None and not waiting:
                del self._pinned[worker.id]

    def _freest(self, kind: _Type) -> _Worker | None:
        for load, workers in enumerate(kind.by_load):
            for worker in workers.values():
                if load < worker.credit:
                    return worker
        return None

    def _give(self, now: float, kind: _Type, worker: _Worker, piece: Piece) -> None:
        piece.worker = worker.id
        piece.last_worker = worker.id
        piece.sent_at = now
        self._shift(kind, worker, piece, take=False)

    def _shift(self, kind: _Type, worker: _Worker, piece: Piece, take: bool) -> None:
        """Move a piece to or from a worker, and the worker to its new load."""
        if worker.is_open:
            kind.by_load[len(worker.pieces)].pop(worker.id)
        if take:
            del worker.pieces[piece.id]
        else:
            worker.pieces[piece.id] = piece
        if worker.is_open:
            load = len(worker.pieces)
            if load == len(kind.by_load):
                kind.by_load.append({})
            kind.by_load[load][worker.id] = worker

    def _taken_from(self, worker_id: str, piece_id: int) -> Piece | None:
        worker = self._workers.get(worker_id)
        piece = worker.pieces.get(piece_id) if worker else None
        if worker is None or piece is None:
            return None
        self._shift(self._types[worker.type], worker, piece, take=True)
        piece.worker = ""
        if piece.is_over:
            self._forget(piece)
        return piece

    def _end(self, piece: Piece, verdict: Verdict, detail: str = "") -> EndPiece:
        piece.is_over = True
        if not piece.worker:
            self._forget(piece)
        return EndPiece(piece, verdict, detail)

    def _forget(self, piece: Piece) -> None:
        self._pieces.pop(piece.id, None)
        self._interrupting.pop(piece.id, None)

    def _lost(
        self, now: float, piece: Piece, evidence: DeathEvidence, is_process_death: bool
    ) -> list[Effect]:
        piece.losses += 1
        if is_process_death:
            piece.deaths.append(evidence)
        if piece.interrupted_at is not None:
            return [self._end(piece, Verdict.INTERRUPTED, evidence.reason)]
        if evidence.exceeded == "time":
            return [self._end(piece, Verdict.TIMED_OUT, evidence.reason)]
        if len(piece.deaths) >= self.max_kills:
            return [self._end(piece, Verdict.POISONED, evidence.reason)]
        if piece.losses > piece.retries:
            if not piece.deaths:
                piece.deaths.append(evidence)
            return [self._end(piece, Verdict.DIED, evidence.reason)]
        self._queue(now, piece)
        return []

    def _measured(self, worker: _Worker, elapsed_s: float) -> None:
        if worker.concurrency:
            return
        old = worker.mean_s
        mean = elapsed_s if old is None else old + SMOOTHING * (elapsed_s - old)
        worker.mean_s = mean
        shortest_s = LOOK_AHEAD_S / self.max_credit
        worker.credit = min(self.max_credit, 1 + int(LOOK_AHEAD_S / max(mean, shortest_s)))

    def _unpin(self, now: float, worker_id: str) -> None:
        for piece in self._pinned.pop(worker_id, ()):
            if not piece.is_over:
                self._queue(now, piece)

    def _note_absence(self, now: float, type: str) -> None:
        kind = self._types[type]
        if not kind.workers and kind.without_worker_since is None:
            kind.without_worker_since = now

    def _starved(self, now: float, name: str, kind: _Type) -> list[Effect]:
        waiting = [entry[2] for entry in kind.queue if not entry[2].is_over]
        if kind.workers or not waiting or kind.without_worker_since is None:
            return []
        absent_s = now - kind.without_worker_since
        if kind.failing or absent_s >= self.worker_wait_s:
            kind.queue.clear()
            kind.without_worker_since = None
            detail = "\n".join(kind.failing.values())
            return [self._end(piece, Verdict.NO_WORKER, detail) for piece in waiting]
        if not kind.is_warned and absent_s >= 1.0:
            kind.is_warned = True
            return [WarnNoWorker(name, len(waiting))]
        return []

    def _recall(self, now: float, kind: _Type) -> list[Effect]:
        idle = len(kind.by_load[0])
        if not idle or kind.queue:
            return []
        effects: list[Effect] = []
        for workers in kind.by_load[:1:-1]:
            for worker in workers.values():
                late = [
                    piece.id
                    for piece in list(worker.pieces.values())[1:]
                    if now - piece.sent_at > RECALL_AFTER_S
                    and not (piece.is_recalled or piece.is_over or piece.wanted_worker)
                ][-idle:]
                for piece_id in late:
                    worker.pieces[piece_id].is_recalled = True
                if late and not worker.concurrency:
                    idle -= len(late)
                    effects.append(WithdrawPieces(worker.id, late))
                if idle <= 0:
                    return effects
        return effects
