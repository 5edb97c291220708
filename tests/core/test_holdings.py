"""What a worker holds: references, the budget, the disk, copies, the end."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opencluster.core.holdings import (
    RETRY_S,
    Drop,
    Effect,
    Holdings,
    LeaveMemory,
    Lies,
    WarnDiskFull,
    Write,
)

M, N = b"manager", b"other manager"
A, B, C, D = b"a", b"b", b"c", b"d"
ORPHAN_S = 10.0


def holdings(budget: int = 100, **values: int) -> Holdings:
    """Return holdings of these sizes, kept for one manager."""
    made = Holdings(budget, ORPHAN_S)
    for name, nbytes in values.items():
        made.keep(name.encode(), nbytes, M)
    made.check_invariants()
    return made


# --- references ------------------------------------------------------------------


def test_a_value_is_held_until_the_last_manager_releases_it() -> None:
    held = holdings(a=10)
    assert held.refer(N, [A, B]) == [B]
    assert held.release(M, [A, B]) == []
    assert A in held
    assert held.release(N, [A]) == [Drop(A)]
    assert A not in held
    assert held.is_empty
    assert held.in_memory == 0


def test_a_value_is_not_dropped_under_a_piece_that_uses_it() -> None:
    held = holdings(a=10)
    assert held.pin(A)
    assert held.pin(A)
    assert held.release(M, [A]) == []
    assert held.unpin(A) == []
    assert held.unpin(A) == [Drop(A)]
    assert held.unpin(A) == []
    assert not held.pin(A)


def test_a_value_that_comes_again_is_the_same() -> None:
    held = holdings(a=10)
    assert held.keep(A, 10, N) == []
    assert held.in_memory == 10
    assert held.managers() == {M, N}


def test_a_manager_says_all_that_it_refers_to() -> None:
    held = holdings(a=10, b=10)
    held.keep(C, 10, N)
    assert held.refer_to_these(M, [B, C, D]) == ([D], [Drop(A)])
    assert held.release(N, [C]) == []
    assert held.refer_to_these(M, []) == ([], [Drop(B), Drop(C)])


def test_a_lost_manager_is_given_time_to_come_back() -> None:
    held = holdings(a=10, b=10)
    held.refer(N, [B])
    held.manager_lost(5.0, M)
    held.manager_lost(9.0, M)
    assert held.tick(5.0 + ORPHAN_S - 0.1) == []
    assert held.tick(5.0 + ORPHAN_S) == [Drop(A)]
    assert held.managers() == {N}


def test_a_manager_that_is_heard_again_loses_nothing() -> None:
    held = holdings(a=10)
    held.manager_lost(5.0, M)
    held.manager_heard(M)
    assert held.tick(100.0) == []
    held.manager_lost(100.0, M)
    held.keep(B, 10, M)
    assert held.tick(200.0) == []
    held.manager_lost(200.0, N)
    assert held.tick(300.0) == []


# --- memory and disk -------------------------------------------------------------


def test_what_was_used_longest_ago_goes_to_disk() -> None:
    held = holdings(a=40, b=40)
    assert held.use(A)
    assert not held.use(C)
    assert held.keep(C, 40, M) == [Write(B)]
    assert held.lies(B) is Lies.WRITING
    assert held.in_memory == 120
    assert not held.is_settled
    assert held.written(B) == [LeaveMemory(B)]
    assert held.written(B) == []
    assert held.is_settled
    assert (held.in_memory, held.on_disk) == (80, 40)
    assert held.keep(D, 90, M) == [Write(A), Write(C)]


def test_what_a_piece_uses_stays_in_memory() -> None:
    held = holdings(a=60)
    held.pin(A)
    assert held.keep(B, 60, M) == [Write(B)]
    assert held.keep(C, 60, M) == [Write(C)]
    assert held.unpin(A) == []
    held.pin(A)
    held.written(B)
    held.written(C)
    assert held.keep(D, 40, M) == []
    assert held.keep(b"e", 1, M) == [Write(D)]
    assert held.lies(A) is Lies.MEMORY


def test_a_value_is_written_once() -> None:
    held = holdings(a=60, b=60)
    held.written(A)
    for _ in range(3):
        assert held.pin(A)
        assert held.unpin(A) == []
        assert held.use(A)
    assert held.lies(A) is Lies.FILE
    assert held.keep(C, 60, M) == [Write(B)]


def test_a_value_larger_than_the_budget_goes_to_disk_alone() -> None:
    held = holdings(a=50)
    assert held.keep(B, 1000, M) == [Write(A), Write(B)]


def test_a_value_that_is_released_while_it_is_written_leaves_no_file() -> None:
    held = holdings(a=60, b=60)
    assert held.release(M, [A]) == [Drop(A)]
    assert held.in_memory == 60
    assert held.written(A) == [Drop(A)]
    assert held.in_memory == 60


def test_a_value_that_comes_again_while_it_is_written_has_its_file() -> None:
    held = holdings(a=60, b=60)
    held.release(M, [A])
    held.keep(A, 60, N)
    held.check_invariants()
    assert LeaveMemory(A) in held.written(A)
    assert held.lies(A) is Lies.FILE
    held.check_invariants()


def test_a_full_disk_leaves_values_in_memory_and_is_told_once() -> None:
    held = holdings(a=60, b=60, c=60)
    assert held.lies(B) is Lies.WRITING
    assert held.write_failed(1.0, A) == [WarnDiskFull(80)]
    assert held.write_failed(2.0, B) == []
    assert held.lies(A) is Lies.MEMORY
    assert held.is_settled
    assert held.keep(D, 60, M) == []
    assert held.tick(2.0 + RETRY_S - 0.1) == []
    assert held.tick(2.0 + RETRY_S) == [Write(C), Write(A), Write(B)]
    assert held.write_failed(40.0, C) == [WarnDiskFull(140)]


def test_a_removed_file_makes_room_for_another() -> None:
    held = holdings(a=60, b=60)
    held.written(A)
    held.keep(C, 60, M)
    held.write_failed(1.0, B)
    assert held.release(M, [A]) == [Drop(A), Write(C)]


def test_a_value_whose_file_cannot_be_read_is_gone() -> None:
    held = holdings(a=60, b=60)
    assert held.vanished(A) == []
    held.written(A)
    held.pin(A)
    assert held.vanished(A) == [Drop(A)]
    assert A not in held
    assert held.vanished(A) == []
    assert held.unpin(A) == []
    held.check_invariants()


def test_without_a_disk_everything_stays_in_memory() -> None:
    held = Holdings(100, can_write=False)
    for id in (A, B):
        assert held.keep(id, 80, M) == []
    held.check_invariants()
    assert held.is_settled


# --- copies ----------------------------------------------------------------------


def test_copies_are_dropped_before_anything_is_written() -> None:
    held = holdings(a=40)
    assert held.copy(B, 30) == []
    assert held.copy(C, 30) == []
    held.use(B)
    assert held.keep(D, 40, M) == [Drop(C), Drop(B)]
    assert held.keep(b"e", 40, M) == [Write(A)]


def test_a_copy_is_not_dropped_under_a_piece_that_uses_it() -> None:
    held = holdings(a=90)
    assert held.copy(B, 30, pins=2) == [Write(A)]
    assert held.unpin(B) == []
    assert held.keep(C, 90, M) == [Write(C)]
    assert B in held
    assert held.unpin(B) == []
    held.written(C)
    assert held.keep(D, 71, M) == [Drop(B)]


def test_a_copy_that_a_manager_relies_on_is_a_value() -> None:
    held = holdings()
    held.copy(A, 60)
    assert held.refer(M, [A]) == []
    assert held.copy(A, 60) == []
    assert held.keep(B, 60, M) == [Write(A)]
    assert held.release(M, [A]) == [Drop(A)]


def test_a_released_copy_goes_at_once() -> None:
    held = holdings()
    held.copy(A, 60)
    assert held.release(M, [A]) == [Drop(A)]
    held.copy(A, 60, pins=1)
    assert held.release(M, [A]) == []
    assert A in held


# --- the end ---------------------------------------------------------------------


def test_managers_that_are_gone_or_without_hope_are_not_waited_for() -> None:
    held = holdings(a=10, b=10)
    held.refer(N, [B])
    held.copy(C, 10)
    assert held.is_awaited
    assert (held.awaited, held.kept_bytes) == ((2, 20), 20)
    held.manager_lost(1.0, M)
    assert (held.awaited, held.kept_bytes) == ((1, 10), 20)
    assert held.is_awaited
    held.unsaved(N, 1)
    assert not held.is_awaited
    held.manager_heard(M)
    assert held.is_awaited
    held.unsaved(M, 2)
    held.unsaved(N, 0)
    assert held.is_awaited
    held.release(N, [B])
    assert not held.is_awaited
    held.check_invariants()
    # nor is what somebody says who refers to nothing
    held.release(M, [A, B])
    held.unsaved(M, 1)
    held.keep(A, 10, M)
    assert held.is_awaited


def test_a_draining_worker_holds_values_until_they_are_released() -> None:
    held = holdings(a=10)
    held.copy(B, 10)
    held.copy(C, 10, pins=1)
    assert held.drain() == [Drop(B)]
    held.check_invariants()
    assert held.unpin(C) == [Drop(C)]
    assert held.copy(D, 10) == [Drop(D)]
    assert held.keep(D, 10, M) == []
    assert not held.is_empty
    assert held.release(M, [A, D]) == [Drop(A), Drop(D)]
    assert held.is_empty


# --- any events in any order -------------------------------------------------------

IDS = st.sampled_from([A, B, C, D, b"e"])
MANAGERS = st.sampled_from([M, N, b"third"])
SIZES = {A: 0, B: 10, C: 40, D: 60, b"e": 200}


class HoldingsModel(RuleBasedStateMachine):
    """Holdings against what a shell has of them, and against who refers to what."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Holdings(100, ORPHAN_S)
        self.now = 0.0
        self.memory: set[bytes] = set()
        self.files: set[bytes] = set()
        self.writing: Counter[bytes] = Counter()
        self.referred: set[tuple[bytes, bytes]] = set()
        self.pins: Counter[bytes] = Counter()
        self.copies: set[bytes] = set()
        self.is_draining = False

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Write(id):
                    assert id in self.memory and id not in self.files
                    assert not self.pins[id]
                    self.writing[id] += 1
                case LeaveMemory(id):
                    assert id in self.files
                    self.memory.discard(id)
                case Drop(id):
                    assert not self.pins[id]
                    assert not any(value == id for _, value in self.referred)
                    self.memory.discard(id)
                    self.files.discard(id)
                    self.copies.discard(id)
                case WarnDiskFull():
                    pass

    @rule(id=IDS, manager=MANAGERS)
    def keep(self, id: bytes, manager: bytes) -> None:
        if id not in self.held:
            self.memory.add(id)
        self.referred.add((manager, id))
        self.copies.discard(id)
        self.do(self.held.keep(id, SIZES[id], manager))

    @rule(id=IDS, pins=st.integers(0, 2))
    def copy(self, id: bytes, pins: int) -> None:
        if id not in self.held:
            self.memory.add(id)
            self.copies.add(id)
        self.pins[id] += pins
        self.do(self.held.copy(id, SIZES[id], pins))

    @rule(id=IDS)
    def pin(self, id: bytes) -> None:
        is_here = id in self.held
        assert self.held.pin(id) == is_here
        self.pins[id] += is_here

    @rule(id=IDS)
    def unpin(self, id: bytes) -> None:
        self.pins[id] = max(0, self.pins[id] - 1)
        self.do(self.held.unpin(id))

    @rule(id=IDS)
    def use(self, id: bytes) -> None:
        assert self.held.use(id) == (id in self.held)

    @precondition(lambda self: +self.writing)
    @rule(data=st.data(), succeeds=st.booleans())
    def write_ends(self, data: st.DataObject, succeeds: bool) -> None:
        id = data.draw(st.sampled_from(sorted(+self.writing)))
        self.writing[id] -= 1
        if succeeds:
            self.files.add(id)
            self.do(self.held.written(id))
        else:
            self.do(self.held.write_failed(self.now, id))

    @rule(manager=MANAGERS, ids=st.sets(IDS))
    def refer(self, manager: bytes, ids: set[bytes]) -> None:
        here = {id for id in ids if id in self.held}
        self.referred |= {(manager, id) for id in here}
        self.copies -= here
        assert set(self.held.refer(manager, ids)) == ids - here

    @rule(manager=MANAGERS, ids=st.sets(IDS))
    def refer_to_these(self, manager: bytes, ids: set[bytes]) -> None:
        here = {id for id in ids if id in self.held}
        self.referred = {(m, id) for m, id in self.referred if m != manager}
        self.referred |= {(manager, id) for id in here}
        self.copies -= here
        missing, effects = self.held.refer_to_these(manager, ids)
        assert set(missing) == ids - here
        self.do(effects)

    @rule(manager=MANAGERS, ids=st.sets(IDS))
    def release(self, manager: bytes, ids: set[bytes]) -> None:
        self.referred -= {(manager, id) for id in ids}
        self.do(self.held.release(manager, ids))

    @rule(manager=MANAGERS)
    def manager_lost(self, manager: bytes) -> None:
        self.held.manager_lost(self.now, manager)

    @rule(manager=MANAGERS)
    def manager_heard(self, manager: bytes) -> None:
        self.held.manager_heard(manager)

    @rule(manager=MANAGERS, count=st.integers(0, 1))
    def unsaved(self, manager: bytes, count: int) -> None:
        self.held.unsaved(manager, count)

    @rule(seconds=st.floats(0.1, 40))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        gone = {
            manager
            for manager, at in self.held._lost_at.items()
            if self.now - at >= ORPHAN_S
        }
        self.referred = {(m, id) for m, id in self.referred if m not in gone}
        self.do(self.held.tick(self.now))

    @rule()
    def drain(self) -> None:
        self.is_draining = True
        self.do(self.held.drain())

    @invariant()
    def all_is_well(self) -> None:
        self.held.check_invariants()
        referred = {id for _, id in self.referred}
        pinned = set(+self.pins)
        held = {id for id in SIZES if id in self.held}
        assert referred | pinned <= held
        assert held <= referred | pinned | self.copies
        assert self.held.managers() == {manager for manager, _ in self.referred}
        assert self.held.in_memory == sum(
            SIZES[id] for id in held if self.held.lies(id) is not Lies.FILE
        )
        # whatever is held is somewhere, and nothing else is
        assert held <= self.memory | self.files
        assert self.memory <= held
        for id in held:
            assert (id in self.memory) == (self.held.lies(id) is not Lies.FILE)


TestHoldingsModel = HoldingsModel.TestCase
TestHoldingsModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
