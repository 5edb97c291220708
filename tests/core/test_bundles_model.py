"""Bundles and single pieces, any events in any order: one verdict for each piece.

The model knows of each worker which pieces it was sent, together or alone, and plays
the shell of the dispatcher: what is over of a bundle has its verdict by that. Workers
behave as badly as they like: they answer some of a bundle, cut it, give it back, answer
late, twice, wrongly or for what they never had, and die with and without evidence; once
they behave, every piece has its verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dispatch_tools import left_in
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opencluster.core.crew import RECALL_AFTER_S, REST_S
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
NEVER_SENT = 999

names = st.sampled_from(["w0", "w1", "w2"])
indices = st.integers(0, 1000)
numbers = st.lists(st.integers(0, 40), max_size=6)
places = st.sets(st.integers(0, 5), min_size=1)
durations_s = st.sampled_from([0.0, 0.0, 1e-4, 60.0, float("nan"), -1.0])
outcomes = st.sampled_from([Verdict.DONE, Verdict.DONE, Verdict.FAILED])


@dataclass
class SimWorker:
    """A worker as the messages to and from it show it.

    ``holds`` has the first number of what it was sent, and how many pieces that is;
    ``stops`` those of which it is to interrupt whatever runs.
    """

    concurrency: int
    is_open: bool = True
    holds: dict[int, int] = field(default_factory=dict)
    stops: set[int] = field(default_factory=set)

    def has(self, number: int) -> bool:
        return any(number in range(f, f + count) for f, count in self.holds.items())


class BundleModel(RuleBasedStateMachine):
    """Keeps the books about a dispatch, from its effects alone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.dispatch = Dispatch(MAX_KILLS, MAX_CREDIT, WORKER_WAIT_S, INTERRUPT_WAIT_S)
        self.workers: dict[str, SimWorker] = {}
        self.retries: list[int] = []
        self.verdicts: dict[int, Verdict] = {}
        self.opened: set[int] = set()
        self.asked: set[int] = set()
        self.told: set[int] = set()
        self.enforced: set[tuple[str, int]] = set()
        self.kills: dict[int, int] = {}
        self.losses: dict[int, int] = {}
        self.sent: list[tuple[str, int]] = [("w9", NEVER_SENT)]
        self.join("w0", 0)

    # --- effects --------------------------------------------------------------------

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendPieces(worker, pieces):
                    self.send(worker, pieces)
                case EndPiece(piece, verdict):
                    self.end(piece, verdict)
                case WithdrawPieces(worker, firsts):
                    assert firsts and set(firsts) <= self.workers[worker].holds.keys()
                case CancelPieces(worker, firsts):
                    assert firsts
                    for first in firsts:
                        ends = {self.verdicts.get(n) for n in self.unit(worker, first)}
                        assert ends == {Verdict.CANCELLED}
                        self.told |= set(self.unit(worker, first))
                case InterruptPiece(worker, number):
                    assert self.workers[worker].holds[number] == 1
                    assert number not in self.told and number not in self.verdicts
                    self.told.add(number)
                    self.asked.add(number)
                case EnforceInterrupt(worker, number):
                    self.enforce(worker, number)
                case WarnNoWorker(_, count):
                    assert count == len(self.waiting())
                    assert not any(w.is_open for w in self.workers.values())
        self.dispatch.check_invariants()

    def send(self, name: str, pieces: list[Piece]) -> None:
        worker = self.workers[name]
        assert worker.is_open
        for piece in pieces:
            for number in piece.numbers:
                assert number not in self.verdicts and number not in self.asked
                assert not any(w.has(number) for w in self.workers.values())
                assert piece.count == 1 or number not in self.opened
                self.enforced.discard((name, number))
            worker.holds[piece.id] = piece.count
            self.sent.append((name, piece.id))
        assert len(worker.holds) <= max(MAX_CREDIT, worker.concurrency)

    def end(self, piece: Piece, verdict: Verdict) -> None:
        for number in piece.numbers:
            if number in piece.gone:
                assert self.verdicts[number] is Verdict.CANCELLED
            else:
                self.over(number, verdict)
        if verdict is Verdict.POISONED:
            assert self.kills[piece.id] == MAX_KILLS and piece.count == 1
        if verdict is Verdict.DIED:
            assert self.losses[piece.id] == self.retries[piece.id] + 1

    def over(self, number: int, verdict: Verdict) -> None:
        assert number not in self.verdicts
        self.verdicts[number] = verdict

    def enforce(self, name: str, number: int) -> None:
        worker = self.workers[name]
        (first,) = (f for f, c in worker.holds.items() if number in range(f, f + c))
        is_cancelled = self.verdicts.get(number) is Verdict.CANCELLED
        assert number in self.asked or is_cancelled or first in worker.stops
        assert (name, number) not in self.enforced
        self.enforced.add((name, number))

    # --- questions ------------------------------------------------------------------

    def unit(self, name: str, first: int) -> range:
        """Return the numbers of what a worker was sent."""
        return range(first, first + self.workers[name].holds[first])

    def waiting(self) -> set[int]:
        held = {n for w in self.workers.values() for n in self.all_held(w)}
        return set(range(len(self.retries))) - held - self.verdicts.keys()

    def all_held(self, worker: SimWorker) -> list[int]:
        return [n for f, count in worker.holds.items() for n in range(f, f + count)]

    def chosen(self, index: int) -> tuple[str, int, bool]:
        """Return a worker and what it was sent once, and whether it still has that."""
        name, first = self.sent[index % len(self.sent)]
        is_held = name in self.workers and first in self.workers[name].holds
        return name, first, is_held

    def one_held(self, index: int, least: int = 1) -> list[tuple[str, int]]:
        """Return one of what workers have that is so many pieces, if there is any."""
        held = [
            (name, first)
            for name, worker in self.workers.items()
            for first, count in worker.holds.items()
            if count >= least
        ]
        return [held[index % len(held)]] if held else []

    # --- events: pieces -------------------------------------------------------------

    @rule(
        counts=st.lists(st.sampled_from([1, 2, 3, 6]), min_size=1, max_size=3),
        priority=st.integers(0, 1),
        retries=st.integers(1, 3),
    )
    def submit(self, counts: list[int], priority: int, retries: int) -> None:
        new = []
        for count in counts:
            first = len(self.retries)
            new.append(Piece(first, "T", priority, retries=retries, count=count))
            self.retries += [retries] * count
        self.do(self.dispatch.submit(self.now, new))

    @rule(
        index=indices,
        done=st.integers(0, 8),
        is_running=st.booleans(),
        verdict=outcomes,
        elapsed_s=durations_s,
    )
    def any_bundle_answer(
        self,
        index: int,
        done: int,
        is_running: bool,
        verdict: Verdict,
        elapsed_s: float,
    ) -> None:
        name, first, is_held = self.chosen(index)
        self.bundle_answer(name, first, is_held, done, is_running, verdict, elapsed_s)

    @rule(index=indices, done=st.integers(0, 4), is_running=st.booleans())
    def next_bundle_answer(self, index: int, done: int, is_running: bool) -> None:
        for name, first in self.one_held(index, least=2):
            verdict = Verdict.DONE
            self.bundle_answer(name, first, True, done, is_running, verdict, 0.0)

    def bundle_answer(
        self,
        name: str,
        first: int,
        is_held: bool,
        done: int,
        is_running: bool,
        verdict: Verdict,
        elapsed_s: float,
    ) -> None:
        call = self.dispatch.bundle_done
        if not is_held or self.workers[name].holds[first] == 1:
            assert self.dispatch.bundle_at(name, first) is None
            assert call(self.now, name, first, done, elapsed_s, is_running) == []
            self.dispatch.check_invariants()
            return
        worker, unit = self.workers[name], self.unit(name, first)
        bundle = self.dispatch.bundle_at(name, first)
        assert bundle is not None and bundle.numbers == unit
        for number in unit[:done]:
            if number not in self.verdicts:
                self.over(number, verdict)
        was_over = set(self.verdicts)
        del worker.holds[first]
        self.opened |= set(unit)
        # the piece that runs on is asked anew, and may be ended for that
        self.enforced -= {(name, number) for number in unit}
        rest = list(unit[done:])
        running = rest.pop(0) if rest and is_running else None
        if running is not None:
            worker.holds = {running: 1, **worker.holds}
        self.do(call(self.now, name, first, done, elapsed_s, is_running))
        for number in set(rest) - was_over:
            # what was to be interrupted and did not run is cancelled
            verdict_now = Verdict.CANCELLED if number in self.asked else None
            assert self.verdicts.get(number) is verdict_now
        if running is not None:
            is_to_stop = first in worker.stops or running in self.asked
            assert (running in self.told) == (is_to_stop or running in was_over)
        worker.stops.discard(first)

    @rule(index=indices, verdict=outcomes, elapsed_s=durations_s)
    def any_answer(self, index: int, verdict: Verdict, elapsed_s: float) -> None:
        name, first, is_held = self.chosen(index)
        self.answer(name, first, is_held, verdict, elapsed_s)

    @rule(name=names, verdict=outcomes)
    def next_answer(self, name: str, verdict: Verdict) -> None:
        holds = self.workers[name].holds if name in self.workers else {}
        first = next((first for first, count in holds.items() if count == 1), None)
        if first is not None:
            self.answer(name, first, True, verdict, 0.0)

    def answer(
        self, name: str, first: int, is_held: bool, verdict: Verdict, elapsed_s: float
    ) -> None:
        unit = self.unit(name, first) if is_held else range(0)
        owed = set(unit) - self.verdicts.keys()
        if is_held:
            del self.workers[name].holds[first]
            self.workers[name].stops.discard(first)
        self.do(self.dispatch.finished(self.now, name, first, verdict, elapsed_s))
        # one answer for a bundle is none
        expected = verdict if len(unit) == 1 else Verdict.FAILED
        assert all(self.verdicts[number] is expected for number in owed)

    @rule(index=indices)
    def returned(self, index: int) -> None:
        name, first, is_held = self.chosen(index)
        unit = self.unit(name, first) if is_held else range(0)
        before = set(self.verdicts)
        if is_held:
            del self.workers[name].holds[first]
            self.workers[name].stops.discard(first)
        self.do(self.dispatch.returned(self.now, name, first))
        ended = self.verdicts.keys() - before
        assert ended == (set(unit) & self.asked) - before
        if self.verdicts.keys() & set(unit):
            self.opened |= set(unit)

    @rule()
    def assign(self) -> None:
        self.do(self.dispatch.assign(self.now))

    @rule(ids=numbers)
    def cancel(self, ids: list[int]) -> None:
        wanted = set(range(len(self.retries))) & set(ids) - self.verdicts.keys()
        self.open_waiting(wanted)
        self.do(self.dispatch.cancel(self.now, ids))
        assert all(self.verdicts[number] is Verdict.CANCELLED for number in wanted)

    @rule(ids=numbers)
    def interrupt(self, ids: list[int]) -> None:
        wanted = set(range(len(self.retries))) & set(ids) - self.verdicts.keys()
        waiting = self.waiting()
        self.open_waiting(wanted)
        held = {n for w in self.workers.values() for n in self.all_held(w)}
        self.do(self.dispatch.interrupt(self.now, ids))
        self.asked |= wanted & held
        for number in wanted & waiting:
            assert self.verdicts[number] is Verdict.CANCELLED
        for worker in self.workers.values():
            for number in wanted & set(self.all_held(worker)):
                assert number in self.told or worker.holds.get(number) != 1

    @rule(index=indices, places=places, is_cancelled=st.booleans())
    def stop_some(self, index: int, places: set[int], is_cancelled: bool) -> None:
        """Stop some of what a worker was sent as one."""
        for name, first in self.one_held(index):
            ids = [n for n in self.unit(name, first) if n - first in places]
            (self.cancel if is_cancelled else self.interrupt)(ids)

    @rule(
        index=indices,
        is_cancelled=st.booleans(),
        done=st.integers(0, 4),
        is_running=st.booleans(),
    )
    def stop_all(
        self, index: int, is_cancelled: bool, done: int, is_running: bool
    ) -> None:
        """Stop all of a bundle at a worker, of which an answer is on its way."""
        for name, first in self.one_held(index, least=2):
            stop = self.cancel if is_cancelled else self.interrupt
            stop(list(self.unit(name, first)))
            verdict = Verdict.DONE
            self.bundle_answer(name, first, True, done, is_running, verdict, 0.0)

    def open_waiting(self, wanted: set[int]) -> None:
        """Note that bundles that wait are bundles no more if a piece of them ends."""
        self.opened |= wanted & self.waiting()

    @rule(name=names)
    def interrupt_at(self, name: str) -> None:
        worker = self.workers.get(name)
        first = next(iter(worker.holds), None) if worker is not None else None
        effects = self.dispatch.interrupt_at(self.now, name)
        if worker is None or first is None:
            assert effects == []
        elif set(self.unit(name, first)) - self.verdicts.keys():
            if worker.holds[first] > 1:
                worker.stops.add(first)
            self.do(effects)
            assert worker.holds[first] > 1 or first in self.told
        else:
            assert effects == []

    # --- events: workers ------------------------------------------------------------

    @rule(name=names, concurrency=st.sampled_from([0, 0, 0, 3]))
    def join(self, name: str, concurrency: int) -> None:
        is_new = name not in self.workers
        self.workers.setdefault(name, SimWorker(concurrency))
        effects = self.dispatch.worker_joined(self.now, name, "T", concurrency)
        assert is_new or effects == []
        self.do(effects)

    @rule(name=names)
    def drain(self, name: str) -> None:
        if name in self.workers:
            self.workers[name].is_open = False
        self.do(self.dispatch.worker_draining(self.now, name))

    @rule(name=names, is_process_death=st.booleans(), running=st.none() | indices)
    def lose(self, name: str, is_process_death: bool, running: int | None) -> None:
        worker = self.workers.pop(name, SimWorker(0))
        held, before = self.all_held(worker), set(self.verdicts)
        suspects = set(list(worker.holds)[: max(1, worker.concurrency)])
        if running is not None:
            running = [*held, NEVER_SENT][running % (len(held) + 1)]
            suspects = {running} & set(held)
        for number in suspects - before:
            self.losses[number] = self.losses.get(number, 0) + 1
            if is_process_death:
                self.kills[number] = self.kills.get(number, 0) + 1
        stopped = set(self.asked)
        for first in worker.stops:
            stopped |= suspects & set(range(first, first + worker.holds[first]))
        self.opened |= set(held)
        evidence = DeathEvidence("gone")
        self.do(
            self.dispatch.worker_lost(
                self.now, name, evidence, is_process_death, running
            )
        )
        for number in set(held) - before:
            self.check_loss(number, number in suspects, number in stopped)

    def check_loss(self, number: int, was_running: bool, is_stopped: bool) -> None:
        verdict = self.verdicts.get(number)
        if is_stopped:
            expected = Verdict.INTERRUPTED if was_running else Verdict.CANCELLED
            assert verdict is expected
        elif self.kills.get(number, 0) >= MAX_KILLS:
            assert verdict is Verdict.POISONED
        elif self.losses.get(number, 0) > self.retries[number]:
            assert verdict is Verdict.DIED
        else:
            assert verdict is None

    @rule(seconds=st.sampled_from([0.0, RECALL_AFTER_S * 1.5, 1.0, 11.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        before = set(self.verdicts)
        is_anybody_here = any(worker.is_open for worker in self.workers.values())
        self.do(self.dispatch.tick(self.now))
        ended = self.verdicts.keys() - before
        assert all(self.verdicts[number] is Verdict.NO_WORKER for number in ended)
        assert not (ended and is_anybody_here)

    # --- what always holds ----------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        held = 0
        for name, worker in self.workers.items():
            assert self.dispatch.pieces_at(name) == list(worker.holds)
            held += len(self.all_held(worker))
        assert left_in(self.dispatch) == held + len(self.waiting())

    def teardown(self) -> None:
        """Let the workers behave: then every piece gets its verdict."""
        self.join("the last", 0)
        for _ in range(len(self.retries) + 1):
            self.wait(2 * REST_S)
            self.assign()
            for name, worker in self.workers.items():
                for first, count in list(worker.holds.items()):
                    if count == 1:
                        self.answer(name, first, True, Verdict.DONE, 0.0)
                    else:
                        done = Verdict.DONE
                        self.bundle_answer(name, first, True, count, False, done, 0.0)
        assert self.verdicts.keys() == set(range(len(self.retries)))
        assert left_in(self.dispatch) == 0
        assert self.dispatch.tick(self.now + 1e6) == []


BundleModel.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
TestBundleModel = BundleModel.TestCase
