"""Any events in any order: no verdict twice, none missing, no credit exceeded.

The model knows what each worker was sent and what it has answered. Workers behave as
badly as they like: they answer late, twice, for pieces they never had, and vanish;
once they behave, every piece has its verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dispatch_tools import left_in, takers
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opencluster.core.crew import LOOK_AHEAD_S, RECALL_AFTER_S, REST_S, SMOOTHING
from opencluster.core.dispatch import (
    CancelPieces,
    Dispatch,
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

MAX_KILLS = 2
MAX_CREDIT = 4
WORKER_WAIT_S = 30.0
INTERRUPT_WAIT_S = 10.0

types = st.sampled_from(["T", "T", "U"])
workers = st.sampled_from([f"w{number}" for number in range(5)])
indices = st.integers(0, 1000)
numbers = st.lists(st.integers(0, 30), max_size=4)
outcomes = st.sampled_from(
    [
        Verdict.DONE,
        Verdict.DONE,
        Verdict.FAILED,
        Verdict.TIMED_OUT,
        Verdict.INTERRUPTED,
    ]
)
durations_s = st.sampled_from([0.0, LOOK_AHEAD_S / 2.5, 60.0, float("nan"), -1.0])


@dataclass
class SimWorker:
    """A worker as the messages to and from it show it."""

    type: str
    concurrency: int
    is_open: bool = True
    holds: list[int] = field(default_factory=list)
    mean_s: float | None = None
    rests_until: float | None = None

    @property
    def credit(self) -> int:
        if self.concurrency or self.mean_s is None:
            return max(1, self.concurrency)
        return min(MAX_CREDIT, 1 + int(LOOK_AHEAD_S / max(self.mean_s, 1e-9)))

    def took(self, elapsed_s: float) -> None:
        """Take note of how long a piece took."""
        if elapsed_s >= 0.0:
            old = elapsed_s if self.mean_s is None else self.mean_s
            self.mean_s = old + SMOOTHING * (elapsed_s - old)


class DispatchModel(RuleBasedStateMachine):
    """Keeps the books about a dispatch, from its effects alone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.dispatch = Dispatch(MAX_KILLS, MAX_CREDIT, WORKER_WAIT_S, INTERRUPT_WAIT_S)
        self.workers: dict[str, SimWorker] = {}
        self.pieces: dict[int, Piece] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.interrupted: set[int] = set()
        self.enforced: set[int] = set()
        self.recalled: set[tuple[str, int]] = set()
        self.kills: dict[int, int] = {}
        self.losses: dict[int, int] = {}
        self.errors: dict[int, int] = {}
        self.sent: list[tuple[str, int]] = [("w9", 999)]

    # --- effects --------------------------------------------------------------------

    def do(self, effects: Iterable[Effect]) -> list[Effect]:
        effects = list(effects)
        for effect in effects:
            match effect:
                case SendPieces(worker, pieces):
                    self.send(worker, pieces)
                case EndPiece(piece, verdict):
                    self.end(piece, verdict)
                case WithdrawPieces(worker, ids):
                    for number in ids:
                        self.withdraw(worker, number)
                case CancelPieces(worker, ids):
                    assert ids and set(ids) <= set(self.workers[worker].holds)
                    assert {self.verdicts[number] for number in ids} == {
                        Verdict.CANCELLED
                    }
                    self.interrupted |= set(ids)
                case InterruptPiece(worker, number):
                    assert number in self.workers[worker].holds
                    assert number not in self.interrupted
                    self.interrupted.add(number)
                case EnforceInterrupt(worker, number):
                    assert number in self.workers[worker].holds
                    assert number in self.interrupted - self.enforced
                    self.enforced.add(number)
                case WarnNoWorker(type, count):
                    assert count == len(self.waiting(type))
                    assert not self.open_workers(type)
        self.dispatch.check_invariants()
        return effects

    def send(self, name: str, pieces: list[Piece]) -> None:
        worker = self.workers[name]
        assert worker.is_open and worker.rests_until is None
        for piece in pieces:
            assert piece.type == worker.type
            assert piece.id not in self.verdicts
            assert piece.id not in self.interrupted
            assert self.holder(piece.id) is None
            worker.holds.append(piece.id)
            self.sent.append((name, piece.id))
            self.recalled.discard((name, piece.id))
            if piece.wait_s is None:
                assert len(worker.holds) <= worker.credit
                continue
            first, *others = worker.holds
            others.sort(key=self.is_batch)
            worker.holds = [first, *others]
            assert self.urgent_at(worker) <= worker.credit

    def end(self, piece: Piece, verdict: Verdict) -> None:
        assert piece is self.pieces[piece.id]
        assert piece.id not in self.verdicts
        self.verdicts[piece.id] = verdict
        if verdict is Verdict.POISONED:
            assert self.kills[piece.id] == MAX_KILLS
        if verdict is Verdict.DIED:
            assert self.losses[piece.id] == piece.retries + 1
        if verdict in (Verdict.POISONED, Verdict.DIED):
            assert piece.deaths

    def withdraw(self, name: str, number: int) -> None:
        worker = self.workers[name]
        # real-time pieces may be sent beyond what a worker runs at a time
        assert number in worker.holds[max(1, worker.concurrency) :]
        assert number not in self.verdicts
        assert self.pieces[number].wanted_worker != name
        assert (name, number) not in self.recalled
        assert any(not w.holds for w in self.open_workers(worker.type))
        self.recalled.add((name, number))

    # --- questions ------------------------------------------------------------------

    def holder(self, number: int) -> str | None:
        for name, worker in self.workers.items():
            if number in worker.holds:
                return name
        return None

    def is_batch(self, number: int) -> bool:
        return self.pieces[number].wait_s is None

    def urgent_at(self, worker: SimWorker) -> int:
        """Return how many real-time pieces a worker holds."""
        return sum(not self.is_batch(number) for number in worker.holds)

    def open_workers(self, type: str) -> list[SimWorker]:
        return [w for w in self.workers.values() if w.is_open and w.type == type]

    def is_wished(self, piece: Piece) -> bool:
        """Whether the worker that a piece wants can have it."""
        worker = self.workers.get(piece.wanted_worker)
        return worker is not None and worker.is_open and worker.type == piece.type

    def waiting(self, type: str) -> list[Piece]:
        """Return the pieces that wait for any worker of a type, the first one first."""
        waiting = [
            piece
            for piece in self.pieces.values()
            if piece.type == type
            and piece.id not in self.verdicts
            and self.holder(piece.id) is None
            and not self.is_wished(piece)
        ]
        return sorted(waiting, key=lambda piece: (-piece.rank, piece.id))

    def assigned(self, effects: list[Effect]) -> None:
        """Check that nothing waits that could have been sent, nor was overtaken."""
        for type in ("T", "U"):
            waiting = self.waiting(type)
            awake = [w for w in self.open_workers(type) if w.rests_until is None]
            rooms = [w.credit - len(w.holds) for w in awake]
            assert not waiting or max(rooms, default=0) <= 0
            if waiting and waiting[0].wait_s is not None:
                # of those who hold batch pieces, none holds few real-time pieces
                assert not any(
                    self.urgent_at(w) < min(w.credit, len(w.holds)) for w in awake
                )
            for effect in effects:
                for piece in effect.pieces if isinstance(effect, SendPieces) else []:
                    if waiting and piece.type == type and not self.is_wished(piece):
                        order = [(-p.rank, p.id) for p in (piece, waiting[0])]
                        assert order == sorted(order)

    # --- events: pieces -------------------------------------------------------------

    @rule(
        count=st.integers(1, 6),
        type=types,
        priority=st.integers(0, 1),
        retries=st.integers(0, 3),
        error_retries=st.integers(0, 1),
        wanted=st.sampled_from(["", "", "", "w0", "w1", "w8"]),
        wait_s=st.sampled_from([None, None, None, 0.0, 1.0]),
    )
    def submit(
        self,
        count: int,
        type: str,
        priority: int,
        retries: int,
        error_retries: int,
        wanted: str,
        wait_s: float | None,
    ) -> None:
        first = len(self.pieces)
        new = [
            Piece(
                number,
                type,
                priority,
                retries=retries,
                error_retries=error_retries,
                wanted_worker=wanted,
                wait_s=wait_s,
            )
            for number in range(first, first + count)
        ]
        self.pieces |= {piece.id: piece for piece in new}
        self.do(self.dispatch.submit(self.now, new))

    @rule(number=st.integers(0, 30))
    def submit_again(self, number: int) -> None:
        if number in self.pieces and number not in self.verdicts:
            effects = self.dispatch.submit(self.now, [Piece(number, "T")])
            assert effects == []

    def result(
        self, name: str, number: int, verdict: Verdict, elapsed_s: float
    ) -> None:
        worker = self.workers.get(name)
        is_held = worker is not None and number in worker.holds
        is_owed = is_held and number not in self.verdicts
        if worker is not None and is_held:
            worker.holds.remove(number)
            if verdict is Verdict.DONE and not worker.concurrency:
                worker.took(elapsed_s)
        effects = self.do(
            self.dispatch.finished(self.now, name, number, verdict, elapsed_s)
        )
        if not is_owed:
            assert effects == []
            return
        piece = self.pieces[number]
        errors = self.errors.setdefault(number, 0)
        is_interrupted = number in self.interrupted
        can_retry = errors < piece.error_retries and not is_interrupted
        if verdict is Verdict.FAILED and can_retry:
            self.errors[number] += 1
            assert effects == []
        else:
            assert effects == [EndPiece(piece, verdict)]

    @rule(index=indices, verdict=outcomes, elapsed_s=durations_s)
    def any_result(self, index: int, verdict: Verdict, elapsed_s: float) -> None:
        name, number = self.sent[index % len(self.sent)]
        self.result(name, number, verdict, elapsed_s)

    @rule(name=workers, verdict=outcomes, elapsed_s=durations_s, then=st.booleans())
    def next_result(
        self, name: str, verdict: Verdict, elapsed_s: float, then: bool
    ) -> None:
        holds = self.workers[name].holds if name in self.workers else []
        if holds:
            self.result(name, holds[0], verdict, elapsed_s)
        if then:
            self.assign()

    @rule(index=indices)
    def returned(self, index: int) -> None:
        name, number = self.sent[index % len(self.sent)]
        worker = self.workers.get(name)
        is_held = worker is not None and number in worker.holds
        if worker is not None and is_held:
            worker.holds.remove(number)
        was_over = number in self.verdicts
        is_unasked = number not in self.interrupted
        is_unasked &= (name, number) not in self.recalled
        if worker is not None and is_held and is_unasked and worker.is_open:
            worker.rests_until = self.now + REST_S
        effects = self.do(self.dispatch.returned(self.now, name, number))
        if is_held and not was_over and number in self.interrupted:
            expected = [EndPiece(self.pieces[number], Verdict.CANCELLED)]
            assert effects == expected
        else:
            assert effects == []

    @rule(index=indices)
    def cut_short(self, index: int) -> None:
        name, number = self.sent[index % len(self.sent)]
        worker = self.workers.get(name)
        is_held = worker is not None and number in worker.holds
        is_owed = is_held and number not in self.verdicts
        if worker is not None and is_held:
            worker.holds.remove(number)
        cuts = self.pieces[number].cuts if is_owed else 0
        effects = self.do(self.dispatch.cut_short(self.now, name, number))
        if is_owed and number in self.interrupted:
            assert effects == [EndPiece(self.pieces[number], Verdict.INTERRUPTED)]
            return
        assert effects == []
        if is_owed:
            assert self.pieces[number].cuts == cuts + 1

    @rule()
    def assign(self) -> None:
        self.assigned(self.do(self.dispatch.assign(self.now)))

    @rule(ids=numbers)
    def cancel(self, ids: list[int]) -> None:
        wanted = (self.pieces.keys() - self.verdicts.keys()) & set(ids)
        self.do(self.dispatch.cancel(self.now, ids))
        assert all(self.verdicts[number] is Verdict.CANCELLED for number in wanted)

    @rule(ids=numbers)
    def interrupt(self, ids: list[int]) -> None:
        wanted = (self.pieces.keys() - self.verdicts.keys()) & set(ids)
        self.do(self.dispatch.interrupt(self.now, ids))
        assert wanted <= self.interrupted | self.verdicts.keys()

    @rule(ids=numbers, priority=st.integers(-2, 2))
    def prioritise(self, ids: list[int], priority: int) -> None:
        self.dispatch.prioritise(ids, priority)
        for number in ids:
            if number in self.pieces and number not in self.verdicts:
                assert self.pieces[number].priority == priority
        self.dispatch.check_invariants()

    # --- events: workers ------------------------------------------------------------

    @rule(name=workers, type=types, concurrency=st.sampled_from([0, 0, 0, 1, 6]))
    def join(self, name: str, type: str, concurrency: int) -> None:
        is_new = name not in self.workers
        self.workers.setdefault(name, SimWorker(type, concurrency))
        effects = self.dispatch.worker_joined(self.now, name, type, concurrency)
        assert is_new or effects == []
        self.do(effects)

    @rule(name=workers)
    def drain(self, name: str) -> None:
        if name in self.workers:
            self.workers[name].is_open = False
        self.do(self.dispatch.worker_draining(self.now, name))

    @rule(
        name=workers,
        is_process_death=st.booleans(),
        exceeded=st.sampled_from(["", "", "", "time", "memory"]),
        running=st.one_of(st.none(), indices),
    )
    def lose(
        self, name: str, is_process_death: bool, exceeded: str, running: int | None
    ) -> None:
        worker = self.workers.pop(name, None)
        holds = worker.holds if worker is not None else []
        if running is not None:
            running = ([*holds, 999])[running % (len(holds) + 1)]
        suspects = [] if running is None else [running]
        if worker is not None and running is None:
            suspects = holds[: max(1, worker.concurrency)]
        before = set(self.verdicts)
        for number in set(suspects) & set(holds) - before:
            self.losses[number] = self.losses.get(number, 0) + 1
            if is_process_death:
                self.kills[number] = self.kills.get(number, 0) + 1
        evidence = DeathEvidence("gone", exceeded=exceeded)
        self.do(
            self.dispatch.worker_lost(
                self.now, name, evidence, is_process_death, running
            )
        )
        for number in set(holds) - before:
            self.check_loss(number, number in suspects, exceeded)

    def check_loss(self, number: int, was_running: bool, exceeded: str) -> None:
        verdict = self.verdicts.get(number)
        piece = self.pieces[number]
        if number in self.interrupted:
            expected = Verdict.INTERRUPTED if was_running else Verdict.CANCELLED
            assert verdict is expected
        elif was_running and exceeded == "time":
            assert verdict is Verdict.TIMED_OUT
        elif self.kills.get(number, 0) >= MAX_KILLS:
            assert verdict is Verdict.POISONED
        elif self.losses.get(number, 0) > piece.retries:
            assert verdict is Verdict.DIED
        else:
            assert verdict is None

    @rule(type=types, source=st.sampled_from(["here", "there"]))
    def fail_to_start(self, type: str, source: str) -> None:
        self.do(self.dispatch.type_failing(self.now, type, source, "no such file"))

    @rule(type=types, source=st.sampled_from(["here", "there"]))
    def recover(self, type: str, source: str) -> None:
        self.dispatch.type_recovered(type, source)
        self.dispatch.check_invariants()

    @rule(seconds=st.sampled_from([0.0, RECALL_AFTER_S * 1.5, 1.0, 11.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for worker in self.workers.values():
            if worker.rests_until is not None and worker.rests_until <= self.now:
                worker.rests_until = None
        alone = {type for type in ("T", "U") if not self.open_workers(type)}
        for effect in self.do(self.dispatch.tick(self.now)):
            if isinstance(effect, EndPiece):
                assert effect.verdict is Verdict.NO_WORKER
                assert effect.piece.type in alone

    # --- what always holds ----------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        for name, worker in self.workers.items():
            assert self.dispatch.pieces_at(name) == worker.holds
            assert self.dispatch.load_of(name) == len(worker.holds)
        held = {number for w in self.workers.values() for number in w.holds}
        unfinished = held | (self.pieces.keys() - self.verdicts.keys())
        assert left_in(self.dispatch) == len(unfinished)
        for type in ("T", "U"):
            opened = {n for n, w in self.workers.items() if w.is_open}
            of_type = {n for n in opened if self.workers[n].type == type}
            assert takers(self.dispatch, type) == of_type

    def teardown(self) -> None:
        """Let the workers behave: then every piece gets its verdict."""
        for type in ("T", "U"):
            name = f"last of {type}"
            self.workers[name] = SimWorker(type, 0)
            self.do(self.dispatch.worker_joined(self.now, name, type))
        self.wait(2 * REST_S)
        for _ in range(len(self.pieces) + 1):
            self.assign()
            for name, worker in self.workers.items():
                for number in list(worker.holds):
                    self.result(name, number, Verdict.DONE, 0.0)
        assert self.verdicts.keys() == self.pieces.keys()
        assert left_in(self.dispatch) == 0
        assert self.dispatch.tick(self.now + 1e6) == []


DispatchModel.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
TestDispatchModel = DispatchModel.TestCase
