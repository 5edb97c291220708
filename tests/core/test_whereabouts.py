"""What a manager knows of values: needed, lost, made again, moved, let go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opencluster.core.whereabouts import (
    MAX_DEPTH,
    MAX_MOVES,
    MAX_REMAKES,
    MAX_TRIES,
    RELEASED,
    RETRY_S,
    UNKNOWN,
    Copy,
    Effect,
    ForgetPiece,
    GiveUp,
    Refer,
    ReferToThese,
    Release,
    Remake,
    Resume,
    TryAgain,
    Unsaved,
    Whereabouts,
)

A, B, C, D = b"a", b"b", b"c", b"d"
W, X, Y = "w", "x", "y"
DEAD = "killed by signal SIGKILL"


def whereabouts(*workers: str) -> Whereabouts:
    """Return the whereabouts of nothing, with workers on one computer."""
    made = Whereabouts()
    for worker in workers or (W, X):
        assert made.worker_joined(worker, "here") == []
    return made


# --- needed or not ---------------------------------------------------------------


def test_a_value_is_released_with_its_last_reference() -> None:
    known = whereabouts()
    assert known.kept(A, W, 10) == []
    assert known.holders(A) == [W]
    assert known.nbytes_at(W) == 10
    assert known.unreferred(A) == [Release(W, A)]
    assert A not in known
    assert known.nbytes_at(W) == 0
    assert known.unreferred(A) == []


def test_those_who_may_have_copies_are_told_too() -> None:
    known = whereabouts(W, X, Y)
    known.kept(A, W, 10)
    known.sent(X, [A, B])
    known.sent(W, [A])
    assert known.holders(A) == [W, X]
    assert known.unreferred(A) == [Release(W, A), Release(X, A)]


def test_what_a_value_contains_is_held_as_long_as_it() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.kept(B, X, 10, contents=[A, C])
    assert known.unreferred(A) == []
    assert known.unreferred(B) == [Release(X, B), Release(W, A)]
    assert len(known) == 0


def test_what_values_contain_is_found_at_every_depth() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.kept(B, W, 10, contents=[A])
    known.kept(C, W, 10, contents=[B, A])
    assert known.closure([D, C, C]) == [D, C, B, A]
    value = known.value(C)
    assert value is not None
    assert value.contents == (B, A)
    assert known.value(D) is None


def test_a_reference_of_another_manager_is_taken_over() -> None:
    known = whereabouts()
    assert known.refer(A, W, 10) == [Refer(W, A)]
    assert known.refer(A, W, 10) == []
    assert known.unreferred(A) == [Release(W, A)]


def test_a_value_that_comes_for_nobody_is_released() -> None:
    known = whereabouts()
    assert known.made(A, W, 10) == [Release(W, A)]
    assert known.copied(A, X) == [Release(X, A)]


# --- pieces and lost values ------------------------------------------------------


def test_a_piece_whose_values_are_here_goes_on() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    assert known.needed(1, [A, A]) == [Resume(1)]
    assert known.needed(2, []) == [Resume(2)]


def test_a_piece_with_an_unknown_value_ends() -> None:
    assert whereabouts().needed(1, [A]) == [GiveUp(1, ((A, UNKNOWN),))]
    assert whereabouts().why_lost(A) == UNKNOWN


def test_a_lost_value_ends_the_piece_that_needs_it() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.kept(B, X, 10)
    known.worker_lost(W, DEAD)
    assert known.needed(1, [A, B]) == [GiveUp(1, ((A, DEAD),))]
    assert known.why_lost(A) == DEAD
    assert known.why_lost(B) is None


def test_a_value_that_another_holds_too_is_not_lost() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    assert known.copied(A, X) == []
    known.worker_lost(W, DEAD)
    assert known.needed(1, [A]) == [Resume(1)]
    assert known.holders(A) == [X]


def test_a_lost_value_is_made_again_when_it_is_needed() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.worker_lost(W, DEAD)
    assert known.needed(1, [A]) == [Remake(A)]
    assert known.needed(2, [A]) == []
    assert known.made(A, X, 20) == [Resume(1), Resume(2)]
    assert known.nbytes_at(X) == 20
    known.check_invariants()


def test_a_piece_waits_for_all_of_its_values() -> None:
    known = whereabouts()
    for id in (A, B):
        known.kept(id, W, 10, inputs=[])
    known.worker_lost(W, DEAD)
    assert known.needed(1, [A, B]) == [Remake(A), Remake(B)]
    assert known.made(B, X, 10) == []
    assert known.made(A, X, 10) == [Resume(1)]


def test_what_a_value_is_made_from_is_made_again_first() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.kept(B, W, 10, inputs=[A])
    assert known.unreferred(A) == [Release(W, A)]
    assert A in known
    known.worker_lost(W, DEAD)
    assert known.needed(1, [B]) == [Remake(B)]
    # the piece that makes B refers to what it is made from, as every piece does
    assert known.refer(A, "", 10) == []
    assert known.needed(2, [A], makes=B) == [Remake(A)]
    known.check_invariants()
    assert known.made(A, X, 10) == [Resume(2)]
    assert known.made(B, X, 10) == [Resume(1)]
    assert known.unreferred(A) == [Release(X, A)]
    assert known.unreferred(B) == [Release(X, B), ForgetPiece(B), ForgetPiece(A)]
    assert len(known) == 0


def test_what_cannot_be_made_again_is_held_for_what_is_made_from_it() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.kept(B, X, 10, inputs=[A, D])
    assert known.unreferred(A) == []
    assert known.unreferred(B) == [Release(X, B), ForgetPiece(B), Release(W, A)]


def test_a_failure_to_make_it_again_is_final() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.worker_lost(W, DEAD)
    known.needed(1, [A])
    why = "making it again failed: ValueError"
    assert known.remake_failed(A, "ValueError") == [GiveUp(1, ((A, why),))]
    assert known.remake_failed(A, "again") == []
    assert known.needed(2, [A]) == [GiveUp(2, ((A, why),))]


def test_a_value_is_not_made_again_for_ever() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    for _ in range(MAX_REMAKES):
        known.worker_lost(W, DEAD)
        assert known.needed(1, [A]) == [Remake(A)]
        assert known.made(A, W, 10) == [Resume(1)]
    known.worker_lost(W, DEAD)
    assert known.needed(1, [A]) == [GiveUp(1, ((A, DEAD),))]


def test_a_value_that_was_of_use_may_be_made_again_as_often() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    for _ in range(3 * MAX_REMAKES):
        known.worker_lost(W, DEAD)
        assert known.needed(1, [A]) == [Remake(A)]
        assert known.made(A, W, 10) == [Resume(1)]
        assert known.over(1, [A, B], is_done=True) == []


def test_a_long_chain_is_not_made_again() -> None:
    known = whereabouts()
    ids = [bytes([0, n]) for n in range(MAX_DEPTH + 2)]
    known.kept(ids[0], W, 1, inputs=[])
    for before, id in zip(ids, ids[1:], strict=False):
        known.kept(id, W, 1, inputs=[before])
    known.worker_lost(W, DEAD)
    piece = 0
    assert known.needed(piece, [ids[-1]]) == [Remake(ids[-1])]
    for before, id in zip(ids[-2:0:-1], ids[:1:-1], strict=False):
        piece += 1
        effects = known.needed(piece, [before], makes=id)
        if piece == MAX_DEPTH:
            break
        assert effects == [Remake(before)]
    assert effects == [GiveUp(piece, ((before, DEAD),))]


def test_a_piece_that_is_over_waits_no_more() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.worker_lost(W, DEAD)
    known.needed(1, [A])
    assert known.over(1) == []
    assert known.made(A, X, 10) == []
    assert known.over(7) == []


def test_what_only_a_waiting_piece_wanted_goes_with_it() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.worker_lost(W, DEAD)
    known.needed(1, [A])
    assert known.unreferred(A) == []
    assert known.over(1) == [ForgetPiece(A)]
    assert known.made(A, X, 10) == [Release(X, A)]


# --- values that cannot be fetched -----------------------------------------------


def test_a_value_that_its_holder_lost_is_made_again() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    assert known.not_found(1, [A], A, [W], "w: it is gone") == [Remake(A)]


def test_a_value_that_its_holder_lost_ends_the_piece() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.kept(B, W, 10)
    gone = known.not_found(1, [A, B], A, [W], "w: it is gone")
    assert gone == [GiveUp(1, ((A, "w: it is gone"),))]
    assert known.not_found(2, [D], D, [], "") == [GiveUp(2, ((D, UNKNOWN),))]


def test_a_value_that_cannot_be_reached_is_tried_again() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    why = "w: it was not reached"
    for tries in range(1, MAX_TRIES):
        again = known.not_found(1, [A], A, [], why)
        assert again == [TryAgain(1, tries * RETRY_S)]
        assert known.needed(1, [A]) == [Resume(1)]
    given_up = GiveUp(1, ((A, f"it cannot be fetched: {why}"),))
    assert known.not_found(1, [A], A, [], why) == [given_up]
    assert known.not_found(1, [A], A, [], why) == [TryAgain(1, RETRY_S)]
    known.worker_lost(W, DEAD)
    assert known.needed(1, [A]) == [GiveUp(1, ((A, DEAD),))]


def test_a_value_that_was_found_elsewhere_meanwhile_is_there() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.copied(A, X)
    again = TryAgain(1, RETRY_S)
    assert known.not_found(1, [A], A, [W], "w: it is gone") == [again]
    assert known.holders(A) == [X]


# --- release by hand -------------------------------------------------------------


def test_a_released_value_is_gone_for_those_who_still_refer_to_it() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    assert known.released(A) == [Release(W, A)]
    assert known.released(A) == []
    assert known.released(B) == []
    assert known.needed(1, [A]) == [GiveUp(1, ((A, RELEASED),))]
    assert known.unreferred(A) == []
    assert A not in known


def test_a_released_value_is_made_again_when_it_can_be() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.released(A)
    assert known.needed(1, [A]) == [Remake(A)]


# --- workers come and go ---------------------------------------------------------


def test_a_worker_that_comes_back_still_holds_its_values() -> None:
    known = whereabouts()
    for id in (A, B, C):
        known.kept(id, W, 10)
    known.worker_lost(W, "the connection to it broke", is_process_death=False)
    assert known.why_lost(A) == "the connection to it broke"
    assert known.unreferred(B) == []
    assert known.worker_joined(W, "here") == [ReferToThese(W, (A, C))]
    assert known.needed(1, [A]) == [Resume(1)]
    known.missing(W, [C, D])
    assert known.why_lost(C) == "its worker does not have it any more"
    known.check_invariants()


def test_a_value_that_was_made_again_meanwhile_is_not_referred_to_there() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=[])
    known.worker_lost(W, "gone", is_process_death=False)
    assert known.needed(1, [A]) == [Remake(A)]
    assert known.worker_joined(W, "here") == [ReferToThese(W, ())]
    assert known.made(A, X, 10) == [Resume(1)]


def test_a_worker_that_never_held_anything_is_told_nothing() -> None:
    known = whereabouts()
    known.worker_lost(W, "gone", is_process_death=False)
    assert known.worker_joined(W, "here") == []
    # it may hold a result of which we never heard
    known.sent(W, [])
    known.worker_lost(W, "gone", is_process_death=False)
    assert known.worker_joined(W, "here") == [ReferToThese(W, ())]


def test_a_worker_that_died_after_contact_was_lost_does_not_come_back() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.worker_lost(W, "gone", is_process_death=False)
    known.worker_lost(W, DEAD)
    assert known.worker_joined(W, "here") == []
    assert known.why_lost(A) == "gone"


def test_what_only_a_leaving_worker_holds_is_copied() -> None:
    known = whereabouts(W, X, Y)
    known.worker_joined("far", "elsewhere")
    for id in (A, B):
        known.kept(id, W, 10)
    known.kept(C, W, 10)
    known.copied(C, X)
    effects = known.worker_draining(W)
    assert effects == [Copy(A, 10, (W,), Y), Copy(B, 10, (W,), X), Release(W, C)]
    assert known.worker_draining(W) == []
    assert known.copied(A, Y) == [Release(W, A)]
    known.worker_lost(W, "it left")
    assert known.why_lost(A) is None
    assert known.why_lost(B) == "it left"


def test_what_a_leaving_worker_keeps_later_is_copied_too() -> None:
    known = whereabouts()
    known.worker_draining(W)
    assert known.kept(A, W, 10) == [Copy(A, 10, (W,), X)]


def test_a_copy_that_comes_too_late_is_released() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    assert known.worker_draining(W) == [Copy(A, 10, (W,), X)]
    assert known.unreferred(A) == [Release(W, A)]
    assert known.copied(A, X) == [Release(X, A)]


def test_what_nobody_could_take_is_copied_to_who_comes() -> None:
    known = whereabouts(W)
    known.kept(A, W, 10)
    assert known.worker_draining(W) == []
    assert known.worker_joined(X, "here") == [Copy(A, 10, (W,), X)]
    assert known.worker_joined(Y, "here") == []


def test_who_is_lost_on_the_way_is_replaced_by_another() -> None:
    known = whereabouts(W, X)
    known.kept(A, W, 10)
    assert known.worker_draining(W) == [Copy(A, 10, (W,), X)]
    assert known.worker_lost(X, DEAD) == []
    assert known.unsaved(W) == Unsaved(1, 10, 0)
    assert known.worker_joined(Y, "here") == [Copy(A, 10, (W,), Y)]
    assert known.unsaved(W) == Unsaved(1, 10, 1)
    assert known.worker_joined(X, "here") == []
    assert known.worker_lost(Y, DEAD) == [Copy(A, 10, (W,), X)]
    assert known.copied(A, X) == [Release(W, A)]
    assert known.unsaved(W) == Unsaved(0, 0, 0)


def test_who_leaves_too_takes_nothing() -> None:
    known = whereabouts(W, X, Y)
    known.kept(A, W, 10)
    known.kept(B, X, 10)
    known.kept(C, Y, 10)
    assert known.worker_draining(W) == [Copy(A, 10, (W,), X)]
    assert known.is_leaving(W) and not known.is_leaving(X)
    effects = known.worker_draining(X)
    assert effects == [Copy(A, 10, (W,), Y), Copy(B, 10, (X,), Y)]
    # it had fetched that before it was told to leave
    assert known.copied(A, X) == []
    assert known.copied(A, Y) == [Release(W, A), Release(X, A)]
    assert known.not_copied(A, X) == []


def test_who_does_not_take_a_value_is_not_asked_for_it_again() -> None:
    workers = [f"w{n}" for n in range(MAX_MOVES + 3)]
    known = whereabouts(W, *workers)
    known.kept(A, W, 10)
    (copy,) = known.worker_draining(W)
    asked = []
    while True:
        assert isinstance(copy, Copy)
        asked.append(copy.to)
        effects = known.not_copied(A, copy.to)
        known.check_invariants()
        if not effects:
            break
        (copy,) = effects
    assert len(set(asked)) == len(asked) == MAX_MOVES
    assert known.unsaved(W) == Unsaved(1, 10, 0)
    assert known.not_copied(A, asked[0]) == known.not_copied(B, X) == []
    # somebody who comes is a new chance
    assert known.worker_joined(X, "here")


def test_what_cannot_be_made_again_is_saved_first() -> None:
    known = whereabouts()
    known.kept(A, W, 10, inputs=())
    known.kept(B, W, 10)
    copies = known.worker_draining(W)
    assert [copy.id for copy in copies if isinstance(copy, Copy)] == [B, A]


def test_values_are_spread_by_who_has_room_in_memory_and_is_near() -> None:
    known = Whereabouts()
    known.worker_joined(W, "here")
    known.worker_joined(X, "here", room=25)
    known.worker_joined(Y, "elsewhere", room=100)
    known.kept(D, Y, 50)
    for id in (A, B, C):
        known.kept(id, W, 10)
    copies = [Copy(A, 10, (W,), X), Copy(B, 10, (W,), X), Copy(C, 10, (W,), Y)]
    assert known.worker_draining(W) == copies
    # with no room anywhere it goes to disk, near by
    assert known.kept(b"e", W, 60) == [Copy(b"e", 60, (W,), X)]


def test_what_is_with_others_too_is_let_go_by_who_leaves() -> None:
    known = whereabouts()
    known.kept(A, W, 10)
    known.copied(A, X)
    assert known.worker_draining(W) == [Release(W, A)]
    assert known.worker_draining(X) == []
    assert known.unsaved(X) == Unsaved(1, 10, 0)


def test_a_reference_to_what_a_leaving_worker_holds_saves_it() -> None:
    known = whereabouts()
    known.worker_draining(W)
    assert known.refer(A, W, 10) == [Refer(W, A), Copy(A, 10, (W,), X)]


@pytest.mark.parametrize("others", [(), (X,)])
def test_nobody_takes_it_when_all_leave(others: tuple[str, ...]) -> None:
    known = whereabouts(W, *others)
    for worker in others:
        known.worker_draining(worker)
    known.kept(A, W, 10)
    assert known.worker_draining(W) == []
    assert known.worker_draining("nobody") == []
    assert known.holders(A) == [W]


# --- any events in any order -------------------------------------------------------

IDS = [A, B, C, D, b"e"]
WORKERS = [W, X, Y]


class WhereaboutsModel(RuleBasedStateMachine):
    """Workers that hold what they are asked to, and a manager's idea of it."""

    def __init__(self) -> None:
        super().__init__()
        self.known = Whereabouts()
        self.here: dict[str, set[bytes]] = {}
        self.apart: dict[str, set[bytes]] = {}
        self.copies: list[Copy] = []
        self.making: dict[bytes, int] = {}
        self.pieces: dict[int, tuple[list[bytes], bytes | None]] = {}
        self.ended: Counter[int] = Counter()
        self.number = 0
        self.now: list[Effect] = []
        for worker in WORKERS:
            self.join(worker)

    def do(self, effects: list[Effect]) -> None:
        queue = list(effects)
        while queue:
            match queue.pop(0):
                case Release(worker, id):
                    if worker in self.here:
                        self.here[worker].discard(id)
                case Refer():
                    pass
                case ReferToThese(worker, ids):
                    # what it should hold it does hold, in this world
                    assert set(ids) <= self.here[worker]
                    self.here[worker] = set(ids)
                case Copy() as copy:
                    assert copy.to not in copy.holders
                    self.copies.append(copy)
                case Remake(id):
                    # one at a time, unless the one before was of no interest any more
                    assert id not in self.making
                    inputs = list(self.known._values[id].inputs or ())
                    queue += self.start(inputs, makes=id)
                case ForgetPiece(id):
                    piece = self.making.pop(id, None)
                    if piece is not None and piece in self.pieces:
                        del self.pieces[piece]
                        queue += self.known.over(piece)
                case TryAgain(piece):
                    ids, makes = self.pieces[piece]
                    queue += self.known.needed(piece, ids, makes)
                case Resume(piece):
                    self.end(piece)
                case GiveUp(piece, reasons):
                    assert reasons
                    _, makes = self.pieces[piece]
                    self.end(piece)
                    if makes is not None:
                        del self.making[makes]
                        queue += self.known.remake_failed(makes, "its inputs are gone")

    def start(self, ids: list[bytes], makes: bytes | None = None) -> list[Effect]:
        self.number += 1
        self.pieces[self.number] = (ids, makes)
        if makes is not None:
            self.making[makes] = self.number
        return self.known.needed(self.number, ids, makes)

    def end(self, piece: int) -> None:
        del self.pieces[piece]
        self.ended[piece] += 1
        assert self.ended[piece] == 1

    def join(self, worker: str) -> None:
        self.here[worker] = self.apart.pop(worker, set())
        self.do(self.known.worker_joined(worker, "here"))

    @rule(
        id=st.sampled_from(IDS),
        data=st.data(),
        inputs=st.none() | st.lists(st.sampled_from(IDS), max_size=2),
        contents=st.lists(st.sampled_from(IDS), max_size=1),
    )
    def keep(
        self,
        id: bytes,
        data: st.DataObject,
        inputs: list[bytes] | None,
        contents: list[bytes],
    ) -> None:
        # nothing is made from itself, nor from what is made from it
        older = [other for other in inputs or [] if other < id]
        inner = [other for other in contents if other < id]
        if not self.here or id in self.known:
            return
        worker = data.draw(st.sampled_from(sorted(self.here)))
        self.here[worker].add(id)
        wanted = None if inputs is None else older
        self.do(self.known.kept(id, worker, 10, wanted, inner))

    @rule(id=st.sampled_from(IDS))
    def unrefer(self, id: bytes) -> None:
        self.do(self.known.unreferred(id))

    @rule(id=st.sampled_from(IDS))
    def release(self, id: bytes) -> None:
        self.do(self.known.released(id))

    @rule(ids=st.lists(st.sampled_from(IDS), max_size=3))
    def need(self, ids: list[bytes]) -> None:
        self.do(self.start(ids))

    @precondition(lambda self: self.pieces)
    @rule(data=st.data())
    def give_up_piece(self, data: st.DataObject) -> None:
        users = [p for p, (_, makes) in self.pieces.items() if makes is None]
        if users:
            piece = data.draw(st.sampled_from(users))
            del self.pieces[piece]
            self.do(self.known.over(piece))

    @precondition(lambda self: self.making and self.here)
    @rule(data=st.data(), succeeds=st.booleans())
    def make(self, data: st.DataObject, succeeds: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.making)))
        if self.making[id] in self.pieces:
            return
        del self.making[id]
        if not succeeds:
            self.do(self.known.remake_failed(id, "it raised"))
            return
        worker = data.draw(st.sampled_from(sorted(self.here)))
        self.here[worker].add(id)
        self.do(self.known.made(id, worker, 20))

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        copy = self.copies.pop(data.draw(st.integers(0, len(self.copies) - 1)))
        holds = any(copy.id in self.here.get(worker, ()) for worker in copy.holders)
        if holds and copy.to in self.here:
            self.here[copy.to].add(copy.id)
            self.do(self.known.copied(copy.id, copy.to))
        else:
            self.do(self.known.not_copied(copy.id, copy.to))

    @rule(worker=st.sampled_from(WORKERS), id=st.sampled_from(IDS))
    def send(self, worker: str, id: bytes) -> None:
        self.known.sent(worker, [id])

    @rule(id=st.sampled_from(IDS), data=st.data())
    def lose_value(self, id: bytes, data: st.DataObject) -> None:
        """Let a worker lose a value; a piece that is sent there tells of it."""
        holders = [worker for worker, ids in self.here.items() if id in ids]
        if not holders:
            return
        for worker in holders:
            self.here[worker].discard(id)
        self.number += 1
        self.pieces[self.number] = ([id], None)
        self.do(self.known.not_found(self.number, [id], id, holders, "gone"))

    @rule(worker=st.sampled_from(WORKERS))
    def drain(self, worker: str) -> None:
        self.do(self.known.worker_draining(worker))

    @rule(worker=st.sampled_from(WORKERS), dies=st.booleans())
    def lose(self, worker: str, dies: bool) -> None:
        held = self.here.pop(worker, None)
        if held is not None and not dies:
            self.apart[worker] = held
        elif dies:
            self.apart.pop(worker, None)
        self.do(self.known.worker_lost(worker, "gone", is_process_death=dies))

    @rule(worker=st.sampled_from(WORKERS))
    def come(self, worker: str) -> None:
        if worker not in self.here:
            self.join(worker)

    @invariant()
    def all_is_well(self) -> None:
        self.known.check_invariants()
        for id in IDS:
            for worker in self.known._values[id].holders if id in self.known else ():
                assert id in self.here[worker]
        # what waits, waits for something that is under way
        for piece in self.known._parked:
            assert piece in self.pieces
        for id in self.known._awaiting:
            assert id in self.making
        assert self.pieces.keys() == self.known._parked.keys()


TestWhereaboutsModel = WhereaboutsModel.TestCase
TestWhereaboutsModel.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None
)
