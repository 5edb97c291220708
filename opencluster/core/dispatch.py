"""What becomes of each piece: its worker, its retries, its one verdict.

The queues and credits of each type are kept by its `core.crew.Crew`; this module
decides what a result, a loss, an interrupt or the passing of time means.

Rules that this module keeps:

1. A piece that was submitted ends in exactly one verdict, however often its result
   arrives; after the verdict nothing about it is delivered again.
2. When a worker is lost, only what it was running counts a loss; the pieces queued
   behind that go elsewhere as if they had never been sent.
3. A piece that ended ``max_kills`` worker processes, of its own if it has such a
   number, is quarantined and never runs again; one that was lost more than ``retries``
   times fails.
4. A piece whose interrupt was asked for does not run again.
5. A bundle is pieces that are sent and answered as one, as long as nothing happens to
   one of them. When it does, each is a piece of its own again, and the rules above
   hold for it.
6. The same events lead to the same effects, in the same order.
7. A batch piece that was cut short for a real-time piece waits again: that is no
   failure and no loss. After `MAX_CUTS` times it is left to end.
8. A piece whose priority is changed while it waits goes where it would stand had it
   been submitted with that priority; nothing that is sent is called back for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from opencluster.core.crew import MAX_BUNDLE, Crew, Member
from opencluster.core.pieces import (
    CancelPieces,
    Effect,
    EndPiece,
    EnforceInterrupt,
    InterruptPiece,
    Piece,
    SendPieces,
    Verdict,
    WarnNoWorker,
    WithdrawPieces,
)
from opencluster.errors import DeathEvidence

__all__ = [
    "CancelPieces",
    "Dispatch",
    "Effect",
    "EndPiece",
    "EnforceInterrupt",
    "InterruptPiece",
    "Piece",
    "SendPieces",
    "Verdict",
    "WarnNoWorker",
    "WithdrawPieces",
]

WARN_AFTER_S = 1.0
"""How long pieces wait without any worker of their type before somebody is told."""


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
        self._crews: dict[str, Crew] = {}
        self._workers: dict[str, Member] = {}
        self._pieces: dict[int, Piece] = {}
        self._interrupting: dict[int, Piece] = {}
        self._expected: frozenset[str] = frozenset()

    # --- pieces --------------------------------------------------------------

    def submit(self, now: float, pieces: Iterable[Piece]) -> list[Effect]:
        """Take in new pieces and send what can be sent.

        A piece whose number belongs to an unfinished one is not taken.
        """
        crews: dict[str, Crew] = {}
        for piece in pieces:
            if piece.id not in self._pieces:
                self._pieces[piece.id] = piece
                if piece.wait_s is not None:
                    piece.due_at = now + piece.wait_s
                crew = crews[piece.type] = self._crew(piece.type)
                crew.add(now, piece)
        return [effect for crew in crews.values() for effect in crew.assign(now)]

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
        is_measured = verdict is Verdict.DONE
        piece = self._take_from(worker_id, piece_id, elapsed_s if is_measured else None)
        if piece is None:
            return []
        if piece.count > 1:
            # that is no answer to a bundle
            verdict = Verdict.FAILED
        can_retry = verdict is Verdict.FAILED and piece.errors < piece.error_retries
        if can_retry and piece.interrupted_at is None:
            piece.errors += 1
            self._crews[piece.type].add(now, piece)
            return []
        return [self._end(piece, verdict)]

    def bundle_at(self, worker_id: str, piece_id: int) -> Piece | None:
        """Return the bundle of this number if a worker holds it."""
        worker = self._workers.get(worker_id)
        piece = worker.pieces.get(piece_id) if worker is not None else None
        return piece if piece is not None and piece.count > 1 else None

    def bundle_done(
        self,
        now: float,
        worker_id: str,
        piece_id: int,
        done: int,
        elapsed_s: float,
        is_running: bool,
    ) -> list[Effect]:
        """Take in that the first pieces of a bundle are over, and what of the others.

        The caller delivers what came of those, and follows with `assign`.

        Parameters
        ----------
        now : float
            The time, in seconds.
        worker_id : str
            Who says so.
        piece_id : int
            The number of the bundle.
        done : int
            How many of its pieces are over.
        elapsed_s : float
            How long they took together.
        is_running : bool
            The piece that follows runs; it will be answered by itself.
        """
        worker = self._workers.get(worker_id)
        bundle = self.bundle_at(worker_id, piece_id)
        if worker is None or bundle is None:
            return []
        crew = self._crews[worker.type]
        crew.take_from(worker, piece_id, elapsed_s if done else None, done)
        if done >= bundle.count:
            self._end(bundle, Verdict.DONE)
            return []
        rest = self._split(bundle, done)
        effects: list[Effect] = []
        if is_running:
            running = rest.pop(0)
            crew.hold(worker, running, bundle.sent_at)
            if running.is_over:
                self._note_interrupt(now, running)
                effects.append(CancelPieces(worker_id, [running.id]))
            elif bundle.stops_running or running.interrupted_at is not None:
                running.interrupted_at = None
                self._note_interrupt(now, running)
                effects.append(InterruptPiece(worker_id, running.id))
        return effects + [e for piece in rest for e in self._put_back(now, piece)]

    def returned(self, now: float, worker_id: str, piece_id: int) -> list[Effect]:
        """Take back a piece that the worker never started, without assigning it.

        The caller follows a batch of these with `assign`.
        """
        piece = self._take_from(worker_id, piece_id)
        if piece is None:
            return []
        if not piece.is_recalled and piece.interrupted_at is None:
            self._crews[piece.type].rest(now, self._workers[worker_id])
        return self._put_back(now, piece)

    def cut_short(self, now: float, worker_id: str, piece_id: int) -> list[Effect]:
        """Take back a piece that its worker left for a real-time piece.

        The caller follows a batch of these with `assign`.
        """
        piece = self._take_from(worker_id, piece_id)
        if piece is None:
            return []
        if piece.count == 1 and piece.interrupted_at is not None:
            return [self._end(piece, Verdict.INTERRUPTED)]
        piece.cuts += 1
        return self._put_back(now, piece)

    def assign(self, now: float) -> list[Effect]:
        """Send out what can be sent now."""
        return [e for crew in self._crews.values() for e in crew.assign(now)]

    def cancel(self, now: float, piece_ids: Iterable[int]) -> list[Effect]:
        """Give up pieces: what waits is dropped, what runs is interrupted."""
        effects: list[Effect] = []
        at_workers: dict[str, list[int]] = {}
        for piece in self._meant(now, piece_ids, effects, is_cancelled=True):
            if piece.worker:
                at_workers.setdefault(piece.worker, []).append(piece.id)
                self._note_interrupt(now, piece)
            else:
                self._crews[piece.type].remove(now, piece)
            effects.append(self._end(piece, Verdict.CANCELLED))
        effects += [CancelPieces(worker, ids) for worker, ids in at_workers.items()]
        return effects

    def interrupt(self, now: float, piece_ids: Iterable[int]) -> list[Effect]:
        """Interrupt pieces that run; those that do not run yet are cancelled."""
        effects: list[Effect] = []
        for piece in self._meant(now, piece_ids, effects, is_cancelled=False):
            if not piece.worker:
                self._crews[piece.type].remove(now, piece)
                effects.append(self._end(piece, Verdict.CANCELLED))
            elif self._note_interrupt(now, piece):
                effects.append(InterruptPiece(piece.worker, piece.id))
        return effects

    def interrupt_at(self, now: float, worker_id: str) -> list[Effect]:
        """Interrupt the piece that a worker runs."""
        worker = self._workers.get(worker_id)
        first = next(iter(worker.pieces.values()), None) if worker is not None else None
        if first is None or first.is_over:
            return []
        if first.count == 1:
            return self.interrupt(now, [first.id])
        first.stops_running = True
        return self._open(now, first)

    def prioritise(self, piece_ids: Iterable[int], priority: int) -> None:
        """Give pieces another priority within their type and class.

        What waits here has the place of it at once; what a worker holds goes on, and
        has it should it wait again. A bundle goes as one if one of its pieces is meant.
        """
        meant = (self._pieces.get(n) or self._bundle_with(n) for n in piece_ids)
        for piece in meant:
            if piece is None or piece.is_over or piece.priority == priority:
                continue
            piece.priority = priority
            if not piece.worker:
                self._crews[piece.type].move(piece)

    # --- workers -------------------------------------------------------------

    def worker_joined(
        self,
        now: float,
        worker_id: str,
        type: str,
        concurrency: int = 0,
        host: str = "",
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
        host : str
            The computer that it is on.
        """
        if worker_id in self._workers:
            return []
        credit = max(1, concurrency)
        worker = Member(worker_id, type, concurrency, credit, host=host)
        self._workers[worker_id] = worker
        crew = self._crew(type)
        crew.join(now, worker)
        return [*crew.assign(now)]

    def worker_draining(self, now: float, worker_id: str) -> list[Effect]:
        """Send nothing more to a worker; what it holds it finishes or returns."""
        worker = self._workers.get(worker_id)
        if worker is None or not worker.is_open:
            return []
        crew = self._crews[worker.type]
        crew.close(now, worker)
        return [*crew.assign(now)]

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
            The piece that it was running; by default the first that it was sent, or
            as many of the first as it runs at a time.
        """
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return []
        crew = self._crews[worker.type]
        crew.close(now, worker)
        held = list(worker.pieces.values())
        suspects = {piece.id for piece in held[: max(1, worker.concurrency)]}
        if running is not None:
            suspects = {running}
        effects: list[Effect] = []
        for piece in held:
            piece.worker = ""
            for single in self._split(piece) if piece.count > 1 else [piece]:
                if single.is_over:
                    self._forget(single)
                elif single.id in suspects:
                    if piece.stops_running:
                        single.interrupted_at = piece.interrupted_at
                    effects += self._lost(now, single, evidence, is_process_death)
                else:
                    effects += self._put_back(now, single)
        return [*effects, *crew.assign(now)]

    def type_failing(
        self, now: float, type: str, source: str, reason: str
    ) -> list[Effect]:
        """Note that workers of a type do not start somewhere."""
        self._crew(type).failing[source] = reason
        return []

    def type_recovered(self, type: str, source: str) -> None:
        """Note that the type starts there again."""
        if type in self._crews:
            self._crews[type].failing.pop(source, None)

    def expect(self, now: float, types: Collection[str]) -> None:
        """Let pieces of some types wait for a worker however long it takes.

        Those of other types wait as long as any from now on.
        """
        for name in self._expected.difference(types) & self._crews.keys():
            if self._crews[name].starved_since is not None:
                self._crews[name].starved_since = now
        self._expected = frozenset(types)

    # --- time ----------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do what only the passing of time brings about."""
        effects: list[Effect] = []
        for name, crew in self._crews.items():
            effects += crew.wake(now)
            effects += self._starve(now, name, crew)
            effects += crew.recall(now)
        for piece in self._interrupting.values():
            asked_at = piece.interrupted_at
            is_ignored = asked_at is not None and now - asked_at > self.interrupt_wait_s
            if is_ignored and not piece.is_enforced:
                piece.is_enforced = True
                worker = piece.worker
                effects += [EnforceInterrupt(worker, number) for number in piece.to_end]
        return effects

    # --- questions -----------------------------------------------------------

    def bundle_size(self, type: str) -> int:
        """Return how many pieces of a type that come together are best sent as one."""
        crew = self._crews.get(type)
        return crew.bundle_size if crew is not None else 1

    def work(
        self, now: float, types: Collection[str]
    ) -> dict[str, tuple[int, float | None]]:
        """Return how much there is to do of some types.

        Returns
        -------
        dict
            By type: pieces that are not done, and how long one takes in seconds, if
            that is known.
        """
        counts = dict.fromkeys(types, 0)
        for piece in self._pieces.values():
            if piece.type in counts:
                counts[piece.type] += piece.count
        means = {n: self._crews[n].piece_s(now) for n in counts if n in self._crews}
        return {name: (count, means.get(name)) for name, count in counts.items()}

    def load_of(self, worker_id: str) -> int:
        """Return how many pieces a worker holds."""
        worker = self._workers.get(worker_id)
        return len(worker.pieces) if worker else 0

    def pieces_at(self, worker_id: str) -> list[int]:
        """Return the pieces that a worker holds, in the order they were sent."""
        worker = self._workers.get(worker_id)
        return list(worker.pieces) if worker else []

    def runs_at(self, worker_id: str, running: int | None) -> list[tuple[int, float]]:
        """Return what `worker_lost` takes a worker to run, and since when at most."""
        worker = self._workers.get(worker_id)
        held = list(worker.pieces.values()) if worker else []
        if running is not None and worker:
            return [(running, p.sent_at) for p in held if running in p.numbers]
        most = max(1, worker.concurrency) if worker else 0
        return [(piece.id, piece.sent_at) for piece in held[:most]]

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do, whatever the time."""
        return not self._pieces

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        waiting: list[int] = []
        for name, crew in self._crews.items():
            crew.check_invariants()
            for piece in crew.waiting():
                assert piece.type == name and not piece.is_over and not piece.worker
                waiting.append(piece.id)
        held: list[int] = []
        for worker in self._workers.values():
            is_in_crew = worker.id in self._crews[worker.type].workers
            assert worker.is_open == is_in_crew
            for piece_id, piece in worker.pieces.items():
                assert piece.id == piece_id and piece.worker == worker.id
                held.append(piece_id)
        assert sorted(self._pieces) == sorted(waiting + held)
        for piece in self._interrupting.values():
            assert piece.worker and piece.interrupted_at is not None

    # --- inside --------------------------------------------------------------

    def _crew(self, type: str) -> Crew:
        crew = self._crews.get(type)
        if crew is None:
            crew = self._crews[type] = Crew(self.max_credit)
        return crew

    def _meant(
        self,
        now: float,
        piece_ids: Iterable[int],
        effects: list[Effect],
        is_cancelled: bool,
    ) -> Iterable[Piece]:
        """Iterate over the pieces with these numbers that have no verdict yet.

        A bundle comes as one only if all of it is to be cancelled. Else it is opened:
        at once where it waits, and by its worker where that has it; what happens to
        its pieces then is noted, and `effects` has what is to be done for it.
        """
        bundles: dict[int, set[int]] = {}
        for number in piece_ids:
            piece = self._pieces.get(number)
            if piece is None:
                piece = self._bundle_with(number)
            if piece is None or piece.is_over:
                continue
            if piece.count == 1:
                yield piece
            elif number not in piece.gone:
                bundles.setdefault(piece.id, set()).add(number)
        for bundle_id, numbers in bundles.items():
            bundle = self._pieces[bundle_id]
            if is_cancelled and len(numbers) == bundle.count - len(bundle.gone):
                yield bundle
            elif not bundle.worker:
                self._crews[bundle.type].remove(now, bundle)
                for piece in self._split(bundle):
                    effects += self._put_back(now, piece)
                yield from (self._pieces[number] for number in sorted(numbers))
            elif is_cancelled:
                bundle.gone |= numbers
                for number in sorted(numbers):
                    single = bundle.alone(number)
                    single.is_over = True
                    effects.append(EndPiece(single, Verdict.CANCELLED))
                effects += self._open(now, bundle)
            else:
                bundle.stopping |= numbers
                effects += self._open(now, bundle)

    def _bundle_with(self, number: int) -> Piece | None:
        """Return the bundle that a piece belongs to, if it does."""
        for first in range(number - 1, number - MAX_BUNDLE, -1):
            piece = self._pieces.get(first)
            if piece is not None:
                return piece if number in piece.numbers else None
        return None

    def _open(self, now: float, bundle: Piece) -> list[Effect]:
        """Have a worker tell what it has done of a bundle, and what it runs."""
        if not self._note_interrupt(now, bundle):
            return []
        bundle.is_recalled = True
        return [WithdrawPieces(bundle.worker, [bundle.id])]

    def _split(self, bundle: Piece, done: int = 0) -> list[Piece]:
        """Put pieces in the place of a bundle, without those that are done."""
        self._forget(bundle)
        pieces = [bundle.alone(number) for number in bundle.numbers[done:]]
        for piece in pieces:
            self._pieces[piece.id] = piece
            piece.is_over = bundle.is_over or piece.id in bundle.gone
            if piece.id in bundle.stopping:
                piece.interrupted_at = bundle.interrupted_at
        return pieces

    def _note_interrupt(self, now: float, piece: Piece) -> bool:
        """Have a piece watched until its worker gives it up; ``False`` if it is."""
        if piece.interrupted_at is not None:
            return False
        piece.interrupted_at = now
        self._interrupting[piece.id] = piece
        return True

    def _take_from(
        self, worker_id: str, piece_id: int, elapsed_s: float | None = None
    ) -> Piece | None:
        """Take a piece from its worker; ``None`` when nobody waits for it any more."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return None
        piece = self._crews[worker.type].take_from(worker, piece_id, elapsed_s)
        if piece is not None and piece.is_over:
            self._forget(piece)
            return None
        return piece

    def _put_back(self, now: float, piece: Piece) -> list[Effect]:
        """Let a piece wait again that was sent in vain, unless nobody wants it."""
        if piece.is_over:
            self._forget(piece)
            return []
        if piece.count > 1 and (piece.gone or piece.stopping):
            singles = self._split(piece)
            return [e for single in singles for e in self._put_back(now, single)]
        if piece.count > 1:
            # it was only to be told what of it runs
            piece.interrupted_at = None
            piece.stops_running = piece.is_enforced = False
            self._interrupting.pop(piece.id, None)
        if piece.interrupted_at is not None:
            return [self._end(piece, Verdict.CANCELLED)]
        self._crews[piece.type].add(now, piece)
        return []

    def _end(self, piece: Piece, verdict: Verdict, detail: str = "") -> EndPiece:
        piece.is_over = True
        if not piece.worker:
            self._forget(piece)
        return EndPiece(piece, verdict, detail)

    def _forget(self, piece: Piece) -> None:
        del self._pieces[piece.id]
        self._interrupting.pop(piece.id, None)

    def _lost(
        self, now: float, piece: Piece, evidence: DeathEvidence, is_process_death: bool
    ) -> list[Effect]:
        """Count the loss of a piece's worker, and run it again or end it."""
        piece.losses += 1
        if is_process_death:
            piece.deaths.append(evidence)
        if piece.interrupted_at is not None:
            verdict = Verdict.INTERRUPTED
        elif evidence.exceeded == "time":
            verdict = Verdict.TIMED_OUT
        elif len(piece.deaths) >= (piece.max_kills or self.max_kills):
            verdict = Verdict.POISONED
        elif piece.losses > piece.retries:
            verdict = Verdict.DIED
            # whoever raises it tells why, even if no process is known to have ended
            piece.deaths = piece.deaths or [evidence]
        else:
            self._crews[piece.type].add(now, piece)
            return []
        return [self._end(piece, verdict, evidence.reason)]

    def _starve(self, now: float, name: str, crew: Crew) -> list[Effect]:
        """Give up, or warn about, pieces that wait without any worker."""
        if crew.starved_since is None:
            return []
        absent_s = now - crew.starved_since
        is_hopeless = crew.failing and not crew.has_had_workers
        is_over = is_hopeless or absent_s >= self.worker_wait_s
        if is_over and name not in self._expected:
            detail = "\n".join(crew.failing.values())
            pieces = crew.give_up(now)
            return [self._end(piece, Verdict.NO_WORKER, detail) for piece in pieces]
        if not crew.is_warned and absent_s >= WARN_AFTER_S:
            crew.is_warned = True
            count = sum(piece.count for piece in crew.unclaimed())
            return [WarnNoWorker(name, count)]
        return []
