"""How everyone who is no factory finds the leader, keeps to it, and leaves it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opencluster.core.epochs import MAX_CLAIM, NO_EPOCH, Epoch
from opencluster.core.seeking import (
    MAX_TOLD,
    Abandon,
    Adopt,
    Effect,
    Greet,
    Seeker,
)

OLD = Epoch(4, 1, 6)
KNOWN = Epoch(5, 0, 7)
NEXT = Epoch(6, 1, 8)


def seeking(*names: str, patience_s: float = 1.0) -> Seeker:
    """Return a seeker that has greeted its list."""
    seeker = Seeker(patience_s)
    seeker.listed(names)
    seeker.tick(0.0)
    return seeker


def settled() -> Seeker:
    """Return a seeker that knows that ``a`` leads, and heard from ``b``."""
    seeker = seeking("a", "b")
    seeker.answered("b", False, KNOWN, "a")
    assert seeker.answered("a", True, KNOWN) == [Adopt("a", KNOWN)]
    return seeker


def greeted(effects: Iterable[Effect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, Greet)]


# --- rule 1: greetings ------------------------------------------------------------


def test_every_factory_of_the_list_is_greeted() -> None:
    seeker = Seeker()
    assert seeker.tick(0.0) == []
    seeker.listed(["a", "b"])
    assert seeker.tick(0.1) == [Greet("a", NO_EPOCH), Greet("b", NO_EPOCH)]


def test_each_is_greeted_by_one_greeting_at_a_time() -> None:
    seeker = seeking("a", "b")
    assert seeker.tick(0.1) == []
    assert seeker.unanswered("a") == []
    assert greeted(seeker.tick(0.2)) == ["a"]
    seeker.answered("b", False, NO_EPOCH)
    assert greeted(seeker.tick(0.3)) == ["b"]
    assert seeker.lost("a") == []
    assert greeted(seeker.tick(0.4)) == ["a"]


def test_list_may_change() -> None:
    seeker = seeking("a", "b")
    seeker.listed(["b", "c"])
    assert greeted(seeker.tick(0.1)) == ["c"]
    assert seeker.names == ["b", "c"]


def test_nobody_is_greeted_while_the_leader_is_known() -> None:
    seeker = settled()
    assert seeker.tick(9.0) == []


# --- rule 2: who is believed ------------------------------------------------------


def test_factory_that_leads_with_an_older_epoch_is_not_believed() -> None:
    seeker = seeking("a", "b")
    seeker.answered("b", False, KNOWN)
    assert seeker.answered("a", True, OLD) == []
    assert seeker.leader == ""
    assert seeker.tick(0.2) == [Greet("a", KNOWN), Greet("b", KNOWN)]
    # told of it, it has gone beyond
    assert seeker.answered("a", True, NEXT) == [Adopt("a", NEXT)]


def test_leader_that_goes_back_to_an_older_epoch_is_left() -> None:
    seeker = settled()
    assert seeker.answered("a", True, OLD) == [Abandon("a", "its epoch is old")]
    assert (seeker.leader, seeker.epoch) == ("", KNOWN)


def test_factory_that_leads_without_an_epoch_does_not_lead() -> None:
    seeker = seeking("a")
    assert seeker.answered("a", True, NO_EPOCH) == []
    seeker.check_invariants()
    again = settled()
    assert again.answered("a", True, NO_EPOCH) == [Abandon("a", "it leads no more")]


def test_absurd_epoch_is_not_believed_for_good() -> None:
    seeker = seeking("a", "b")
    far = Epoch(KNOWN.number + MAX_CLAIM + 1)
    assert seeker.answered("b", True, far) == [Adopt("b", far)]
    assert seeker.answered("a", True, KNOWN) == [Adopt("a", KNOWN)]


def test_leader_that_says_the_same_again_is_adopted_once() -> None:
    seeker = settled()
    assert seeker.answered("a", True, KNOWN) == []


def test_two_that_claim_one_epoch_are_not_followed_in_turn() -> None:
    seeker = settled()
    assert seeker.answered("b", True, KNOWN) == []
    assert seeker.leader == "a"


def test_leader_with_a_new_epoch_is_adopted_anew() -> None:
    seeker = settled()
    assert seeker.answered("a", True, NEXT) == [Adopt("a", NEXT)]


# --- rule 3: a leader is kept as long as it answers -------------------------------


def test_overdue_answer_has_everyone_greeted() -> None:
    seeker = settled()
    assert seeker.tick(1.9, awaited_since=1.0) == []
    assert greeted(seeker.tick(2.0, awaited_since=1.0)) == ["a", "b"]
    assert seeker.leader == "a"


def test_newer_leader_takes_the_place_of_an_overdue_one() -> None:
    seeker = settled()
    seeker.tick(2.0, awaited_since=1.0)
    assert seeker.answered("b", True, NEXT) == [Adopt("b", NEXT)]
    assert (seeker.leader, seeker.epoch) == ("b", NEXT)


def test_leader_that_leads_no_more_is_left() -> None:
    seeker = settled()
    assert seeker.answered("a", False, KNOWN) == [Abandon("a", "it leads no more")]
    assert greeted(seeker.tick(0.2)) == ["a", "b"]


def test_leader_is_left_when_another_led_after_it() -> None:
    seeker = settled()
    effects = seeker.answered("b", False, NEXT)
    assert effects == [Abandon("a", "another one led after it")]
    assert (seeker.leader, seeker.epoch) == ("", NEXT)


def test_leader_that_knows_of_a_newer_one_is_left_once() -> None:
    seeker = settled()
    effects = seeker.answered("a", False, NEXT, "b")
    assert effects == [Abandon("a", "it leads no more"), Greet("b", NEXT)]


def test_lost_leader_is_left_and_everyone_greeted() -> None:
    seeker = settled()
    assert seeker.lost("b") == []
    assert seeker.lost("a") == [
        Abandon("a", "the connection broke"),
        Greet("a", KNOWN),
        Greet("b", KNOWN),
    ]


def test_greeting_that_nobody_answers_leaves_the_leader_alone() -> None:
    seeker = settled()
    assert seeker.unanswered("a") == []
    assert seeker.leader == "a"


# --- rule 4: who is told of -------------------------------------------------------


def test_follower_names_the_leader_and_that_one_is_greeted() -> None:
    seeker = seeking("b")
    assert seeker.answered("b", False, KNOWN, "a") == [Greet("a", KNOWN)]
    assert seeker.names == ["b", "a"]
    assert seeker.answered("a", True, KNOWN) == [Adopt("a", KNOWN)]


def test_leader_that_is_greeted_already_or_leads_here_is_not_greeted_again() -> None:
    seeker = seeking("a", "b")
    assert seeker.answered("b", False, KNOWN, "a") == []
    assert settled().answered("b", False, KNOWN, "a") == []


def test_factory_that_names_itself_names_nobody() -> None:
    seeker = seeking("a")
    assert seeker.answered("a", False, KNOWN, "a") == []
    assert seeker.declined("a", "a") == [Greet("a", KNOWN)]


def test_leader_that_declines_is_left_for_the_one_that_it_names() -> None:
    seeker = settled()
    effects = seeker.declined("a", "c")
    assert effects == [Abandon("a", "it leads no more"), Greet("c", KNOWN)]


def test_leader_that_declines_and_names_nobody_is_left() -> None:
    seeker = settled()
    assert seeker.declined("a") == [Abandon("a", "it leads no more")]
    assert greeted(seeker.tick(0.2)) == ["a", "b"]


def test_declined_by_a_follower_everyone_is_greeted() -> None:
    seeker = settled()
    assert seeker.declined("b") == [Greet("a", KNOWN), Greet("b", KNOWN)]
    assert seeker.leader == "a"


def test_only_so_many_that_stand_in_no_list_are_remembered() -> None:
    seeker = seeking("a")
    for number in range(MAX_TOLD + 3):
        seeker.declined("a", f"x{number}")
        seeker.check_invariants()
    assert len(seeker.names) == 1 + MAX_TOLD
    assert "x2" not in seeker.names
    # one that is named again is remembered longer
    seeker.declined("a", "x3")
    seeker.declined("a", "another")
    assert "x3" in seeker.names and "x4" not in seeker.names


# --- any answers in any order -----------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
someone = names | st.just("")
epochs = st.builds(Epoch, st.integers(0, 3), st.integers(0, 2), st.integers(0, 1))


class SeekerModel(RuleBasedStateMachine):
    """Nothing that factories say makes a seeker fail, or go back."""

    def __init__(self) -> None:
        super().__init__()
        self.seeker = seeking("a", "b")
        self.asked = {"a", "b"}
        self.leader = ""
        self.best = NO_EPOCH

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Greet(name, epoch):
                    assert name not in self.asked
                    assert epoch == self.seeker.epoch
                    self.asked.add(name)
                case Adopt(name, epoch):
                    assert not self.best.is_newer_than(epoch)
                    self.leader, self.best = name, epoch
                case Abandon(name, reason):
                    assert name == self.leader and reason
                    self.leader = ""

    @rule(name=names, is_leading=st.booleans(), epoch=epochs, leader=someone)
    def answer(self, name: str, is_leading: bool, epoch: Epoch, leader: str) -> None:
        self.asked.discard(name)
        self.do(self.seeker.answered(name, is_leading, epoch, leader))

    @rule(name=names, leader=someone)
    def decline(self, name: str, leader: str) -> None:
        self.do(self.seeker.declined(name, leader))

    @rule(name=names)
    def lose(self, name: str) -> None:
        self.asked.discard(name)
        self.do(self.seeker.lost(name))

    @rule(name=names)
    def keep_silent(self, name: str) -> None:
        self.asked.discard(name)
        self.do(self.seeker.unanswered(name))

    @rule(is_overdue=st.booleans())
    def tick(self, is_overdue: bool) -> None:
        self.do(self.seeker.tick(9.0, 0.0 if is_overdue else None))
        if is_overdue or not self.leader:
            assert self.asked >= set(self.seeker.names)

    @invariant()
    def rules_hold(self) -> None:
        self.seeker.check_invariants()
        assert self.seeker.leader == self.leader
        assert not self.best.is_newer_than(self.seeker.epoch)
        self.best = self.seeker.epoch


SeekerModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestSeekerModel = SeekerModel.TestCase


@pytest.mark.parametrize("patience_s", [0.0, 5.0])
def test_patience_is_a_setting(patience_s: float) -> None:
    seeker = seeking("a", patience_s=patience_s)
    seeker.answered("a", True, KNOWN)
    assert bool(seeker.tick(2.0, awaited_since=1.0)) == (patience_s < 1.0)
