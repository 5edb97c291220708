"""The workers of one type, and the pieces that wait for them.

It owns who holds what, who takes the next piece, and what is called back. What becomes
of a piece whose run ended is decided in `core.dispatch`.

Rules that this module keeps:

1. A worker is never sent a piece beyond its credit: one when pieces are long, more
   when they are so short that the way to the worker would dominate.
2. A higher priority goes first, and equal priorities in the order of submission; a
   worker takes the pieces that want it, in this order, before others.
3. The least loaded worker gets the next piece, of those that have room; and with it
   those that follow, as long as they are hardly any work. A worker that was given as
   much as it may hold, and may hold many, has no room until it has done half.
4. A piece waits behind another on a busy worker only as long as no other worker is
   idle: what has not started is recalled.
5. A worker that returns a piece unasked has no room, whoever filled it: it rests for a
   moment before it is sent anything, or the piece would go back and forth.
6. A piece that refers to values is left to the worker where it could begin soonest
   (see `core.locality`), until it would have begun elsewhere; then it is like others.
7. A real-time piece goes before all batch pieces. Where these have used up the credit
   of every worker it is sent beyond that, to who has the least in its way: at most one
   piece that runs. A worker holds no more real-time pieces than its credit, or as many
   as it was sent when that was larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from opencluster.core.backlog import Backlog
from opencluster.core.locality import Candidate, choose
from opencluster.core.pieces import MAX_CUTS, Piece, SendPieces, WithdrawPieces

LOOK_AHEAD_S = 0.02
"""Work that a worker may hold ahead: hides the way to it, delays nobody visibly."""
CHUNK_S = 0.001
"""Work that one worker gets although another is less loaded: so little takes longer to
send to several than to do."""
SHORT_S = 100e-6
"""Pieces that take less are sent and answered in bundles: to see to each by itself
would take about half as long as they do."""
SLICE_S = 0.01
"""A piece or bundle that took less may have waited for the core most of that time."""
MOST_GROWTH = 4.0
"""How many times as much as usual it counts for then at most: else bundles would come
apart each time that somebody else has the core."""
MAX_BUNDLE = 64
"""Most pieces of a bundle."""
MIN_BUNDLE = 16
"""Pieces of a bundle, however many workers there are."""
SHARED = 512
"""Pieces that are shared out among all workers before one gets a second bundle."""
RECALL_AFTER_S = 0.1
"""How long a piece may wait on a busy worker while another is idle."""
REFILL_FROM = 8
"""A worker with so much credit, or more, is sent pieces when it has done half of them,
many to a message: one that got a few after every few results would send back few, and
both sides would be busy with messages."""
REST_S = 0.1
"""How long a worker that had no room is sent nothing."""
MAX_CANDIDATES = 64
"""Workers that are compared for a piece that refers to values, besides those that have
them."""
SMOOTHING = 0.2
"""Weight of the newest piece in the running mean of piece durations."""


@dataclass
class Member:
    """A worker, as its crew sees it.

    Attributes
    ----------
    id, type : str
        Who, and what it performs.
    concurrency : int
        Pieces that it runs at a time; 0 for one, with the credit adapted.
    credit : int
        Pieces that it may hold.
    pieces : dict of int to Piece
        Those that it holds, in the order they were sent; real-time pieces behind the
        first, which runs.
    urgent : int
        How many of them are real-time pieces.
    wanted_by : Backlog of Piece
        Those that wait for this worker and no other, or for a while.
    chunk : int
        Pieces that it is given at once while others have room too.
    mean_s : float or None
        Running mean of how long its pieces take, in seconds.
    is_open : bool
        It takes pieces.
    is_full : bool
        It was given all it may hold, and has not done enough of it since.
    rests_until : float or None
        When it is sent pieces again, or ``None`` when it is not resting.
    rank : int or None
        How many pieces it holds, or ``None`` when it is to get no more for now.
    host : str
        The computer that it is on.
    """

    id: str
    type: str
    concurrency: int
    credit: int
    pieces: dict[int, Piece] = field(default_factory=dict)
    urgent: int = 0
    wanted_by: Backlog[Piece] = field(default_factory=Backlog)
    chunk: int = 1
    mean_s: float | None = None
    is_open: bool = True
    is_full: bool = False
    rests_until: float | None = None
    rank: int | None = None
    host: str = ""


class Crew:
    """The open workers of one type, and what waits for them.

    Parameters
    ----------
    max_credit : int
        Most pieces that a worker holds whose credit is adapted.

    Attributes
    ----------
    starved_since : float or None
        Since when pieces wait without any worker, in seconds.
    is_warned : bool
        Somebody was told of that.
    failing : dict of str to str
        Where workers of this type do not start, and why.
    has_had_workers : bool
        One has been here: that others do not start is no reason to give up at once.
    """

    def __init__(self, max_credit: int) -> None:
        self.max_credit = max_credit
        self.queue: Backlog[Piece] = Backlog()
        self.urgent: Backlog[Piece] = Backlog()
        self.workers: dict[str, Member] = {}
        self.starved_since: float | None = None
        self.is_warned = False
        self.failing: dict[str, str] = {}
        self.has_had_workers = False
        self._piece_s: float | None = None
        self._by_rank: list[dict[str, Member]] = [{}]
        self._ready = 0
        self._wanted: dict[str, Member] = {}
        self._resting: dict[str, Member] = {}

    # --- workers -------------------------------------------------------------

    def join(self, now: float, worker: Member) -> None:
        """Take in a worker; that the type starts somewhere is known by this."""
        self.workers[worker.id] = worker
        self.has_had_workers = True
        self.failing.clear()
        self._rank(worker)
        self._note_starvation(now)

    def close(self, now: float, worker: Member) -> None:
        """Give a worker nothing more; the pieces that want it may go elsewhere."""
        worker.is_open = False
        self._rank(worker)
        self.workers.pop(worker.id, None)
        self._wanted.pop(worker.id, None)
        self._resting.pop(worker.id, None)
        for piece in worker.wanted_by.clear():
            self.add(now, piece)
        self._note_starvation(now)

    def rest(self, now: float, worker: Member) -> None:
        """Give a worker nothing for a moment, as it has no room."""
        if worker.is_open:
            worker.rests_until = now + REST_S
            self._resting[worker.id] = worker
            self._rank(worker)

    def wake(self, now: float) -> list[SendPieces]:
        """Give pieces again to those that have rested."""
        rested = [w for w in self._resting.values() if (w.rests_until or 0.0) <= now]
        for worker in rested:
            worker.rests_until = None
            del self._resting[worker.id]
            self._rank(worker)
        has_more = self._end_favours(now) if self._wanted else False
        return self.assign(now) if rested or has_more else []

    # --- pieces --------------------------------------------------------------

    def add(self, now: float, piece: Piece) -> None:
        """Let a piece wait; one that came back has the place of its number again."""
        wanted = self.workers.get(piece.wanted_worker) if piece.wanted_worker else None
        if piece.needs and wanted is None:
            wanted = self._favour(now, piece)
        if wanted is not None:
            wanted.wanted_by.push(piece.id, piece, piece.rank, piece.id)
            self._wanted[wanted.id] = wanted
            return
        queue = self.queue if piece.wait_s is None else self.urgent
        queue.push(piece.id, piece, piece.priority, piece.id)
        if not self.workers:
            self._note_starvation(now)

    def remove(self, now: float, piece: Piece) -> None:
        """Let a piece wait no longer."""
        queue = self.queue if piece.wait_s is None else self.urgent
        if queue.take(piece.id) is None:
            self.workers[piece.favoured or piece.wanted_worker].wanted_by.take(piece.id)
        self._note_starvation(now)

    def move(self, piece: Piece) -> None:
        """Let a piece that waits have the place of its new priority."""
        queue = self.queue if piece.wait_s is None else self.urgent
        if piece.id in queue:
            queue.move(piece.id, piece.priority)
        else:
            wanted = self.workers[piece.favoured or piece.wanted_worker].wanted_by
            wanted.move(piece.id, piece.rank)

    def give_up(self, now: float) -> list[Piece]:
        """Take out all that waits for any worker."""
        pieces = [*self.urgent.clear(), *self.queue.clear()]
        self._note_starvation(now)
        return pieces

    def take_from(
        self,
        worker: Member,
        piece_id: int,
        elapsed_s: float | None = None,
        count: int = 1,
    ) -> Piece | None:
        """Take a piece from a worker that ran it for some time, or returned it.

        Parameters
        ----------
        worker : Member
            Who had it.
        piece_id : int
            Its number.
        elapsed_s : float, optional
            How long it ran.
        count : int
            How many pieces took so long, of a bundle.
        """
        piece = worker.pieces.pop(piece_id, None)
        if piece is None:
            return None
        piece.worker = ""
        if piece.wait_s is not None:
            worker.urgent -= 1
        if elapsed_s is not None:
            self._measure(worker, elapsed_s, count)
        self._rank(worker)
        return piece

    def hold(self, worker: Member, piece: Piece, sent_at: float) -> None:
        """Let a worker have a piece that it runs."""
        piece.worker = piece.last_worker = worker.id
        piece.sent_at = sent_at
        worker.pieces = {piece.id: piece, **worker.pieces}
        self._rank(worker)

    def assign(self, now: float) -> list[SendPieces]:
        """Give out pieces while there are some, and workers with room for them."""
        if not (self._wanted or self.queue or self.urgent):
            return []
        batches: dict[str, list[Piece]] = {}
        if self.urgent:
            self._assign_urgent(now, batches)
        if self._wanted:
            self._assign_wanted(now, batches)
        by_rank = self._by_rank
        rank = 0
        while self.queue and self._ready:
            while not by_rank[rank]:
                # giving only raises ranks, so nobody turns up here any more
                rank += 1
            worker = next(iter(by_rank[rank].values()))
            room = worker.credit - rank
            many = min(room, worker.chunk) if self._ready > 1 else room
            self._give(now, worker, self.queue.pop_many(many), batches)
        return [SendPieces(worker, pieces) for worker, pieces in batches.items()]

    def recall(self, now: float) -> list[WithdrawPieces]:
        """Call back what waits behind a long piece while somebody else is idle."""
        idle = len(self._by_rank[0])
        if not idle or self.queue or self.urgent:
            return []
        busy = [worker for worker in self.workers.values() if len(worker.pieces) > 1]
        effects = []
        for worker in sorted(busy, key=lambda worker: -len(worker.pieces)):
            late = _late(now, worker)[-idle:]
            for piece in late:
                piece.is_recalled = True
            if late:
                effects.append(WithdrawPieces(worker.id, [piece.id for piece in late]))
            idle -= len(late)
            if not idle:
                break
        return effects

    # --- questions -----------------------------------------------------------

    @property
    def bundle_size(self) -> int:
        """How many pieces that come together are best sent as one.

        One, unless they are hardly any work; and no more than leave some for everybody.
        """
        if self._piece_s is None or self._piece_s > SHORT_S or not self.workers:
            return 1
        most = int(CHUNK_S / max(self._piece_s, CHUNK_S / MAX_BUNDLE))
        return min(most, max(MIN_BUNDLE, SHARED // len(self.workers)))

    def piece_s(self, now: float) -> float | None:
        """Return how long a piece takes, in seconds; ``None`` if nobody knows.

        Before the first one is done, that is as long as one has run; and later at least
        as long as all have that run, as they may take longer than those before.
        """
        firsts = (next(iter(w.pieces.values()), None) for w in self.workers.values())
        ages_s = [now - piece.sent_at for piece in firsts if piece is not None]
        if self._piece_s is None:
            return max(ages_s, default=None)
        return max(self._piece_s, min(ages_s, default=0.0))

    def unclaimed(self) -> Iterator[Piece]:
        """Iterate over the pieces that wait for any worker."""
        yield from self.urgent
        yield from self.queue

    def waiting(self) -> Iterator[Piece]:
        """Iterate over the pieces that wait."""
        yield from self.unclaimed()
        for worker in self.workers.values():
            yield from worker.wanted_by

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        self.queue.check_invariants()
        self.urgent.check_invariants()
        assert all(piece.wait_s is None for piece in self.queue)
        assert all(piece.wait_s is not None for piece in self.urgent)
        is_starved = any(self.unclaimed()) and not self.workers
        assert (self.starved_since is not None) == is_starved
        assert all(self.workers.get(i) is w for i, w in self._wanted.items())
        ranked = [worker for workers in self._by_rank for worker in workers.values()]
        assert all(self.workers[worker.id] is worker for worker in ranked)
        for worker in self.workers.values():
            worker.wanted_by.check_invariants()
            load = len(worker.pieces)
            most = max(self.max_credit, worker.concurrency)
            assert worker.is_open and 1 <= worker.credit <= most
            assert load - worker.urgent <= most and worker.urgent <= most
            held = worker.pieces.values()
            assert worker.urgent == sum(piece.wait_s is not None for piece in held)
            is_resting = worker.rests_until is not None
            assert is_resting == (self._resting.get(worker.id) is worker)
            has_room = not worker.is_full and not is_resting
            assert worker.is_full or load < worker.credit
            assert worker.rank == (load if has_room else None)
            assert (worker.rank is not None) == (ranked.count(worker) == 1)
            assert worker.rank is None or worker.id in self._by_rank[worker.rank]
            assert not worker.wanted_by or worker.id in self._wanted
            for piece in worker.wanted_by:
                assert worker.id in (piece.wanted_worker, piece.favoured)
        assert self._ready == len(ranked)

    # --- inside --------------------------------------------------------------

    def _assign_urgent(self, now: float, batches: dict[str, list[Piece]]) -> None:
        """Give real-time pieces to who has room, and beyond that to who lets them pass.

        All workers are looked at only for those; they are few.
        """
        while self._ready and (piece := self.urgent.pop()):
            worker = next(self._least_loaded(1))
            self._give_urgent(now, worker, piece, batches)
        while self.urgent:
            passable = [
                worker for worker in self.workers.values() if _lets_pass(worker)
            ]
            if not passable:
                return
            passable.sort(key=lambda worker: _in_the_way(now, worker))
            for worker in passable[: len(self.urgent)]:
                if (piece := self.urgent.pop()) is not None:
                    self._give_urgent(now, worker, piece, batches)

    def _give_urgent(
        self,
        now: float,
        worker: Member,
        piece: Piece,
        batches: dict[str, list[Piece]],
    ) -> None:
        """Give a worker a real-time piece, which it performs before batch pieces."""
        worker.urgent += 1
        self._give(now, worker, [piece], batches)
        first, *others = worker.pieces.values()
        others.sort(key=lambda piece: piece.wait_s is None)
        worker.pieces = {piece.id: piece for piece in (first, *others)}

    def _assign_wanted(self, now: float, batches: dict[str, list[Piece]]) -> None:
        for worker in list(self._wanted.values()):
            while worker.wanted_by:
                first = worker.wanted_by.first()
                is_urgent = first is not None and first.wait_s is not None
                if worker.rank is None and not (is_urgent and _lets_pass(worker)):
                    break
                piece = worker.wanted_by.pop()
                assert piece is not None
                if is_urgent:
                    self._give_urgent(now, worker, piece, batches)
                else:
                    self._give(now, worker, [piece], batches)
            if not worker.wanted_by:
                del self._wanted[worker.id]

    def _favour(self, now: float, piece: Piece) -> Member | None:
        """Return the worker where a piece with values could begin soonest."""
        piece.favoured = ""
        if piece.favoured_until and now >= piece.favoured_until:
            # it was left to a worker for long enough
            piece.needs = ()
            return None
        near = (self.workers.get(w) for need in piece.needs for w in need.workers)
        members = {worker.id: worker for worker in near if worker is not None}
        for worker in self._least_loaded(MAX_CANDIDATES):
            members.setdefault(worker.id, worker)
        choice = choose(piece.needs, (_candidate(now, m) for m in members.values()))
        if choice is None:
            return None
        piece.favoured = choice.worker
        piece.favoured_until = now + choice.wait_s
        return members[choice.worker]

    def _least_loaded(self, most: int) -> Iterator[Member]:
        """Iterate over some workers with room, those with little first."""
        ranked = (w for workers in self._by_rank for w in workers.values())
        return islice(ranked, most)

    def _end_favours(self, now: float) -> bool:
        """Let pieces go elsewhere whose worker has kept them waiting for too long."""
        is_any = False
        for worker in list(self._wanted.values()):
            late = [
                piece
                for piece in worker.wanted_by
                if piece.favoured and now >= piece.favoured_until
            ]
            for piece in late:
                worker.wanted_by.take(piece.id)
                piece.favoured, piece.needs = "", ()
                self.add(now, piece)
                is_any = True
            if not worker.wanted_by:
                self._wanted.pop(worker.id, None)
        return is_any

    def _give(
        self,
        now: float,
        worker: Member,
        pieces: list[Piece],
        batches: dict[str, list[Piece]],
    ) -> None:
        for piece in pieces:
            piece.worker = piece.last_worker = worker.id
            piece.sent_at = now
            piece.is_recalled = False
            worker.pieces[piece.id] = piece
        self._rank(worker)
        batch = batches.get(worker.id)
        if batch is None:
            batches[worker.id] = pieces
        else:
            batch += pieces

    def _rank(self, worker: Member) -> None:
        """Keep the workers with room apart by how much they hold.

        So the least loaded one is found without looking at all of them.
        """
        load = len(worker.pieces)
        if load >= worker.credit:
            worker.is_full = True
        elif worker.is_full:
            worker.is_full = worker.credit >= REFILL_FROM and load > worker.credit // 2
        is_ready = worker.is_open and worker.rests_until is None
        rank = load if is_ready and not worker.is_full else None
        if rank == worker.rank:
            return
        if worker.rank is not None:
            del self._by_rank[worker.rank][worker.id]
            self._ready -= 1
        if rank is not None:
            self._ready += 1
            while rank >= len(self._by_rank):
                self._by_rank.append({})
            self._by_rank[rank][worker.id] = worker
        worker.rank = rank

    def _measure(self, worker: Member, elapsed_s: float, count: int) -> None:
        """Adapt a worker's credit to how long its pieces take."""
        if worker.concurrency or not 0.0 <= elapsed_s < math.inf:
            return
        mean = worker.mean_s = _smoothed(worker.mean_s, elapsed_s)
        piece_s = elapsed_s / count
        if self._piece_s is not None and elapsed_s < SLICE_S:
            piece_s = min(piece_s, max(SHORT_S, MOST_GROWTH * self._piece_s))
        self._piece_s = _smoothed(self._piece_s, piece_s)
        mean = max(mean, LOOK_AHEAD_S / self.max_credit)
        worker.credit = min(self.max_credit, 1 + int(LOOK_AHEAD_S / mean))
        worker.chunk = max(1, min(worker.credit, int(CHUNK_S / mean)))

    def _note_starvation(self, now: float) -> None:
        if self.workers or not (self.queue or self.urgent):
            self.starved_since = None
            self.is_warned = False
        elif self.starved_since is None:
            self.starved_since = now


def _smoothed(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + SMOOTHING * (newest - mean)


def _candidate(now: float, worker: Member) -> Candidate:
    """Return a worker as one that could run a piece."""
    waiting = len(worker.pieces) + len(worker.wanted_by)
    mean_s = worker.mean_s
    if mean_s is None:
        first = next(iter(worker.pieces.values()), None)
        mean_s = 0.0 if first is None else now - first.sent_at
    wait_s = waiting * mean_s / max(1, worker.concurrency)
    return Candidate(worker.id, worker.host, wait_s, worker.rank is not None)


def _lets_pass(worker: Member) -> bool:
    """Return whether a worker takes a real-time piece although its credit is used up.

    It does where batch pieces used it up.
    """
    is_passed_by = worker.urgent < min(worker.credit, len(worker.pieces))
    return is_passed_by and worker.rests_until is None


def _in_the_way(now: float, worker: Member) -> tuple[int, bool, float]:
    """Return how long a real-time piece would wait at a worker, to be compared.

    By the real-time pieces before it, then whether what runs is left to end, then how
    long that takes, if that is known.
    """
    first = next(iter(worker.pieces.values()))
    is_left = first.cuts >= MAX_CUTS
    mean_s = math.inf if worker.mean_s is None else worker.mean_s
    return worker.urgent, is_left, mean_s - (now - first.sent_at)


def _late(now: float, worker: Member) -> list[Piece]:
    """Return what a worker may be asked to give back, in the order it was sent."""
    behind = list(worker.pieces.values())[max(1, worker.concurrency) :]
    return [
        piece
        for piece in behind
        if (piece.wait_s is not None or now - piece.sent_at > RECALL_AFTER_S)
        and piece.wanted_worker != worker.id
        and (not piece.favoured or now >= piece.favoured_until)
        and not (piece.is_recalled or piece.is_over)
    ]
