"""One factory's part in the election: each rule, each event, each role."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from opencluster.core.election import (
    GUEST_PARTS,
    MAX_GUESTS,
    PATIENCE_PART,
    UNABLE_PARTS,
    Effect,
    Election,
    Follow,
    Lead,
    Quorum,
    Role,
    SaveEpochs,
    SendMessage,
    StepDown,
)
from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.core.factory_messages import (
    Ask,
    Beat,
    Grant,
    Heard,
    Message,
    Resign,
    Stand,
    Tell,
)
from opencluster.core.promises import LEASE_PART, MAX_BEATS

NAMES = ["a", "b", "c", "d", "e", "f", "g"]
TIMEOUT_S = 1.0
BEAT_S = 0.2
OF_A = Epoch(5, 0, 70)
OF_C = Epoch(6, 2, 72)
OLD = Epoch(4, 3, 74)
COURTESY, MAJORITY = Quorum.COURTESY, Quorum.MAJORITY
LEADING, FOLLOWING = Role.LEADING.value, Role.FOLLOWING.value
LOOKING, STANDING = Role.LOOKING.value, Role.STANDING.value


class Bench:
    """An election, the time, and what it decided last.

    Parameters
    ----------
    me : str
        Which factory.
    count : int
        Of how many.
    quorum : Quorum
        Whom a leader needs.
    seen, led : int and Epoch
        What is on its disk.
    """

    def __init__(
        self,
        me: str = "b",
        count: int = 3,
        quorum: Quorum = COURTESY,
        seen: int = 0,
        led: Epoch = NO_EPOCH,
    ) -> None:
        self.names = NAMES[:count]
        self.now = 100.0
        chance = random.Random(1)
        self.election = Election(
            self.names, me, chance, TIMEOUT_S, BEAT_S, quorum, seen, led
        )
        self.last: list[Effect] = []
        self.round = 0
        self.wanted = NO_EPOCH
        self.do(self.election.start)

    def do(self, event: Callable[..., list[Effect]], *given: Any) -> list[Effect]:
        """Let an event happen now."""
        self.last = event(self.now, *given)
        self.election.check_invariants()
        for effect in self.last:
            match effect:
                case SaveEpochs(wanted=Epoch() as wanted):
                    self.wanted = wanted
                case SendMessage(message=Ask(round=number)):
                    self.round = number
        return self.last

    def hear(self, sender: str, message: Any) -> list[Effect]:
        """Let a message come."""
        return self.do(self.election.receive, sender, message)

    def tick(self, seconds: float = BEAT_S) -> list[Effect]:
        """Let time pass, then tick."""
        self.now += seconds
        return self.do(self.election.tick)

    def pass_time(self, seconds: float) -> list[Effect]:
        """Let time pass as it does, with a tick at each beat."""
        effects: list[Effect] = []
        for _ in range(round(seconds / BEAT_S)):
            effects += self.tick()
        return effects

    def tell(
        self,
        sender: str,
        role: str = LOOKING,
        led: Epoch = NO_EPOCH,
        is_able: bool = True,
        copy: Epoch = NO_EPOCH,
        leader: str = "",
        age: int = 0,
    ) -> list[Effect]:
        """Let the answer come to what was asked last, or some rounds before."""
        number = self.round - age
        said = Tell(led.number, led, number, role, is_able, leader, copy)
        return self.hear(sender, said)

    def answer_all(self, **given: Any) -> list[Effect]:
        """Let everyone else answer that nobody leads."""
        effects: list[Effect] = []
        for name in self.names:
            if name != self.election.me and self.role is Role.LOOKING:
                effects += self.tell(name, **given)
        return effects

    def save(self) -> list[Effect]:
        """Let what waits for the disk be on it."""
        return self.do(self.election.saved, self.wanted)

    @property
    def role(self) -> Role:
        return self.election.role

    @property
    def told(self) -> Tell:
        """What it says to a question now."""
        effects = self.election.receive(self.now, "c", Ask(0, NO_EPOCH, 9))
        [said] = [m for m in messages(effects, "c") if isinstance(m, Tell)]
        return said


def messages(effects: Iterable[Effect], to: str = "") -> list[Message]:
    """Return what is sent, to one or to all."""
    return [
        effect.message
        for effect in effects
        if isinstance(effect, SendMessage) and to in ("", effect.to)
    ]


def of(kind: type, effects: Iterable[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def looking(me: str = "b", **given: Any) -> Bench:
    """Return one that has just asked anew, bound by no promise of an earlier run."""
    bench = Bench(me, **given)
    for _ in range(7):
        # as long as they hear a leader, it does not stand
        bench.answer_all(role=FOLLOWING)
        if bench.role is Role.LOOKING:
            bench.tick()
    return bench


def standing(me: str = "a", **given: Any) -> Bench:
    bench = looking(me, **given)
    bench.answer_all(is_able=False)
    assert bench.role is Role.STANDING
    return bench


def leading(me: str = "a", count: int = 3, quorum: Quorum = COURTESY) -> Bench:
    bench = standing(me, count=count, quorum=quorum)
    bench.save()
    for name in bench.names:
        if bench.role is Role.STANDING and name != me:
            bench.hear(name, Grant(1, NO_EPOCH, bench.wanted))
    assert bench.role is Role.LEADING
    return bench


def following(leader: str = "a", led: Epoch = OF_A, **given: Any) -> Bench:
    bench = looking(**given)
    bench.hear(leader, Beat(led.number, led, 1, 0))
    assert bench.role is Role.FOLLOWING
    return bench


# --- rule 1: it asks, and stands when nobody goes before --------------------------


@pytest.mark.parametrize(
    ("me", "count"), [(me, n) for n in range(1, 8) for me in NAMES[:n]]
)
def test_start_asks_everyone_else(me: str, count: int) -> None:
    bench = Bench(me, count)
    asked = {effect.to: effect.message for effect in of(SendMessage, bench.last)}
    others = [name for name in bench.names if name != me]
    assert asked == dict.fromkeys(others, Ask(0, NO_EPOCH, 1))


@pytest.mark.parametrize("quorum", Quorum)
@pytest.mark.parametrize("count", range(1, 8))
def test_first_of_the_list_leads_when_all_answer(count: int, quorum: Quorum) -> None:
    bench = looking("a", count=count, quorum=quorum)
    if count > 1:
        bench.answer_all()
    assert bench.role is Role.STANDING
    bench.save()
    granted = 0
    for name in bench.names[1:]:
        if bench.role is Role.STANDING:
            assert quorum is MAJORITY
            bench.hear(name, Grant(1, NO_EPOCH, bench.wanted))
            granted += 1
    assert bench.role is Role.LEADING
    assert granted == (count // 2 if quorum is MAJORITY else 0)
    assert bench.election.led.place == 0


@pytest.mark.parametrize("count", range(2, 8))
def test_later_ones_wait_for_an_earlier_one_that_answers(count: int) -> None:
    bench = looking(NAMES[count - 1], count=count)
    bench.answer_all()
    assert bench.role is Role.LOOKING
    assert bench.election.said_to_lead == ""


def test_nobody_is_waited_for_that_does_not_answer() -> None:
    bench = looking("c")
    bench.tick(PATIENCE_PART * TIMEOUT_S - 0.1)
    assert bench.role is Role.LOOKING
    bench.tick(0.1)
    assert bench.role is Role.STANDING


def test_nobody_is_waited_for_whose_connection_broke() -> None:
    bench = looking("c")
    bench.do(bench.election.peer_lost, "a")
    assert bench.role is Role.LOOKING
    bench.do(bench.election.peer_lost, "b")
    assert bench.role is Role.STANDING


def test_nobody_is_waited_for_that_is_not_able() -> None:
    bench = looking("b")
    bench.tell("c")
    bench.tell("a", is_able=False)
    assert bench.role is Role.STANDING


def test_one_whose_connection_stands_again_is_asked_and_waited_for() -> None:
    bench = looking("b")
    bench.do(bench.election.peer_lost, "a")
    asked = messages(bench.do(bench.election.peer_connected, "a"))
    assert asked == [Ask(0, NO_EPOCH, bench.round)]
    bench.tell("c")
    assert bench.role is Role.LOOKING
    # it has answered: there is nothing to ask
    assert bench.do(bench.election.peer_connected, "c") == []


def test_one_that_speaks_is_waited_for_though_its_connection_broke() -> None:
    bench = looking("b")
    bench.do(bench.election.peer_lost, "a")
    bench.hear("a", Ask(0, NO_EPOCH, 1))
    bench.tell("c")
    assert bench.role is Role.LOOKING


@pytest.mark.parametrize("role", [LEADING, FOLLOWING])
def test_nobody_stands_while_somebody_hears_a_leader(role: str) -> None:
    bench = looking("a")
    bench.tell("b")
    bench.tell("c", role, leader="x")
    assert bench.role is not Role.STANDING


def test_one_that_leads_is_followed() -> None:
    bench = looking("b")
    effects = bench.tell("c", LEADING, led=OF_C)
    assert of(Follow, effects) == [Follow("c", OF_C)]
    assert of(SaveEpochs, effects) == [SaveEpochs(6, OF_C)]


def test_answer_to_an_old_question_is_not_followed_but_believed() -> None:
    bench = looking("b")
    effects = bench.tell("c", LEADING, led=OF_C, age=1)
    assert bench.role is Role.LOOKING
    assert effects == [SaveEpochs(6, OF_C)]
    assert bench.election.led == OF_C


def test_round_that_ends_without_a_leader_is_followed_by_another() -> None:
    bench = looking("b")
    asked = bench.round
    bench.tell("a")
    bench.tell("c")
    assert [m.round for m in messages(bench.tick()) if isinstance(m, Ask)] == (
        [asked + 1] * 2
    )


# --- who knows more goes before ---------------------------------------------------


def test_one_with_a_newer_copy_goes_before_the_first_of_the_list() -> None:
    bench = looking("a")
    bench.tell("b")
    bench.tell("c", copy=OF_A)
    assert bench.role is Role.LOOKING
    bench.tick()
    bench.do(bench.election.peer_lost, "c")
    bench.tell("b")
    assert bench.role is Role.STANDING


def test_one_with_a_newer_copy_does_not_wait_for_earlier_ones() -> None:
    bench = looking("c")
    bench.election.copy = OF_A
    bench.tell("a", copy=OLD)
    bench.tell("b")
    assert bench.role is Role.STANDING


def test_among_equal_copies_the_order_of_the_list_counts() -> None:
    for me, role in (("a", Role.STANDING), ("b", Role.LOOKING)):
        bench = looking(me)
        bench.election.copy = OF_A
        bench.answer_all(copy=OF_A)
        assert bench.role is role


def test_one_with_a_newer_copy_that_is_not_able_is_not_waited_for() -> None:
    bench = looking("a")
    bench.tell("b", copy=OF_A, is_able=False)
    bench.tell("c")
    assert bench.role is Role.STANDING


def test_answers_tell_which_copy_is_here() -> None:
    bench = looking()
    bench.election.copy = OF_A
    assert bench.told.copy == OF_A


# --- a looking one names the leader of others -------------------------------------


def test_looking_one_names_the_leader_of_the_newest_epoch() -> None:
    bench = looking("b", count=4)
    bench.tell("a", FOLLOWING, led=OLD, leader="d")
    bench.tell("d", FOLLOWING, led=OF_C, leader="c")
    assert bench.election.said_to_lead == ""
    bench.do(bench.election.peer_lost, "c")
    assert bench.election.said_to_lead == "c"
    assert bench.role is Role.LOOKING
    assert bench.told.leader == ""


def test_rumour_ends_with_the_round_that_does_not_renew_it() -> None:
    bench = looking("b")
    bench.do(bench.election.peer_lost, "a")
    bench.tell("c", FOLLOWING, led=OF_A, leader="a")
    assert bench.election.said_to_lead == "a"
    bench.tick()
    assert bench.election.said_to_lead == "a"
    bench.tell("c")
    assert bench.election.said_to_lead == ""


def test_one_is_not_named_by_itself() -> None:
    bench = looking("b")
    bench.tell("a", FOLLOWING, led=OF_A, leader="b")
    bench.tell("c", FOLLOWING, led=OF_A, leader="b")
    assert bench.election.said_to_lead == ""


def test_followers_and_leaders_name_the_leader() -> None:
    assert following().election.said_to_lead == following().told.leader == "a"
    assert leading().election.said_to_lead == leading().told.leader == "a"


# --- rule 2: the epoch ------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Ask(9, NO_EPOCH, 1),
        Ask(0, Epoch(9, 2, 1), 1),
        Tell(9, NO_EPOCH, 0, LOOKING, True, "", NO_EPOCH),
        Heard(9, NO_EPOCH, 1, 0, True),
        Stand(9, NO_EPOCH, Epoch(9, 2, 1)),
        Grant(9, NO_EPOCH, Epoch(9, 2, 1)),
        Resign(9, NO_EPOCH),
    ],
)
def test_number_is_higher_than_any_of_which_anyone_spoke(message: Any) -> None:
    bench = looking("a")
    bench.hear("c", message)
    bench.answer_all()
    [saving] = [s for s in of(SaveEpochs, bench.last) if s.wanted]
    assert saving.wanted == Epoch(10, 0, bench.election.run)
    assert saving.seen == 10


def test_number_is_higher_than_that_on_disk_or_of_a_client() -> None:
    for seen, led, claim in ((9, OLD, 1), (1, Epoch(9, 1, 1), 1), (1, OLD, 9)):
        bench = Bench("a", 1, seen=seen, led=led)
        bench.do(bench.election.claimed, Epoch(claim))
        bench.tick(TIMEOUT_S)
        bench.tick(TIMEOUT_S)
        assert bench.wanted.number >= 10


@pytest.mark.parametrize("quorum", Quorum)
def test_nobody_leads_before_the_epoch_is_on_disk(quorum: Quorum) -> None:
    bench = standing(quorum=quorum)
    wanted = bench.wanted
    for name in ("b", "c"):
        assert bench.hear(name, Grant(1, NO_EPOCH, wanted)) == []
    assert bench.role is Role.STANDING
    assert not bench.election.may_write(bench.now)
    bench.do(bench.election.saved, wanted)
    bench.hear("b", Grant(1, NO_EPOCH, wanted))
    assert bench.role is Role.LEADING


def test_epoch_that_is_saved_too_late_is_not_used() -> None:
    bench = standing()
    late = bench.wanted
    bench.tick(PATIENCE_PART * TIMEOUT_S)
    assert bench.role is Role.LOOKING
    assert of(Lead, bench.do(bench.election.saved, late)) == []
    assert bench.role is Role.LOOKING


def test_new_leader_saves_and_beats_at_once() -> None:
    bench = standing()
    effects = bench.save()
    led = bench.election.led
    assert effects[:2] == [Lead(led), SaveEpochs(1, led)]
    assert messages(effects) == [Beat(1, led, 1, 0)] * 2


def test_two_runs_of_one_factory_have_different_epochs() -> None:
    one, other = (
        Election(["a"], "a", random.Random(seed)).start(0.0)[-1] for seed in (1, 2)
    )
    assert isinstance(one, SaveEpochs) and isinstance(other, SaveEpochs)
    assert one.wanted != other.wanted


def test_one_that_cannot_save_lets_others_lead_for_a_while() -> None:
    bench = standing("a")
    bench.do(bench.election.not_saved)
    assert bench.role is Role.LOOKING
    assert not bench.told.is_able
    bench.answer_all()
    assert bench.role is Role.LOOKING
    bench.now += UNABLE_PARTS * TIMEOUT_S
    assert bench.told.is_able
    bench.tick(0.0)
    bench.answer_all()
    assert bench.role is Role.STANDING


def test_one_that_cannot_save_goes_on_following() -> None:
    bench = following()
    assert bench.do(bench.election.not_saved) == []
    assert bench.role is Role.FOLLOWING


# --- rule 3: of two leaders the newer one stays -----------------------------------


def test_leader_that_hears_of_a_newer_one_follows_it() -> None:
    bench = leading("a")
    effects = bench.hear("c", Beat(6, OF_C, 1, 0))
    assert of(StepDown, effects) and of(Follow, effects) == [Follow("c", OF_C)]
    assert SaveEpochs(6, OF_C) in effects
    [heard] = messages(effects, "c")
    assert isinstance(heard, Heard) and heard.led == OF_C


def test_leader_that_hears_an_older_one_tells_it_and_stays() -> None:
    bench = leading("a")
    bench.do(bench.election.claimed, OF_C)
    bench.answer_all()
    bench.save()
    assert bench.election.led == Epoch(7, 0, bench.election.run)
    [told] = messages(bench.hear("c", Beat(6, OF_C, 8, 0)))
    assert isinstance(told, Tell)
    assert (told.round, told.role, told.led) == (0, LEADING, bench.election.led)
    assert bench.role is Role.LEADING


def test_older_leader_that_is_told_of_a_newer_one_steps_down() -> None:
    bench = leading("a")
    effects = bench.hear("c", Tell(6, OF_C, 0, LEADING, True, "c", OF_C))
    assert of(StepDown, effects) and bench.role is Role.LOOKING
    assert not bench.election.may_write(bench.now)


@pytest.mark.parametrize("event", ["ask", "claim", "late answer"])
def test_follower_leaves_its_leader_for_a_newer_epoch(event: str) -> None:
    bench = following("a")
    match event:
        case "ask":
            bench.hear("c", Ask(6, OF_C, 1))
        case "claim":
            bench.do(bench.election.claimed, OF_C)
        case _:
            bench.tell("c", LOOKING, led=OF_C)
    assert bench.role is Role.LOOKING
    assert bench.election.led == OF_C
    # the old one is followed no more
    bench.hear("a", Beat(5, OF_A, 2, 0))
    assert bench.role is Role.LOOKING


def test_older_leader_is_not_followed_when_it_answers() -> None:
    bench = looking("b", led=OF_C)
    bench.tell("a", LEADING, led=OF_A)
    assert bench.role is Role.LOOKING
    bench.tell("c")
    # nor does anyone stand against it, as it learns of the newer epoch by the question
    assert bench.role is Role.LOOKING


def test_one_that_stands_gives_up_when_its_epoch_is_not_newest() -> None:
    bench = standing("a")
    bench.do(bench.election.claimed, Epoch(1, 0, (1 << 48) + 1))
    assert bench.role is Role.LOOKING
    bench.answer_all()
    assert bench.wanted.number == 2


def test_one_that_stands_goes_on_when_an_older_epoch_is_heard_of() -> None:
    bench = standing("a", seen=7)
    assert bench.do(bench.election.claimed, OF_A) == [SaveEpochs(8, OF_A)]
    assert bench.role is Role.STANDING


def test_one_that_stands_follows_a_leader() -> None:
    bench = standing("b", seen=7, count=2)
    wanted = bench.wanted
    bench.hear("a", Beat(5, OF_A, 1, 0))
    assert bench.role is Role.FOLLOWING
    assert bench.do(bench.election.saved, wanted) == []


def test_older_leader_gives_way_to_one_that_stands_and_knows_a_newer_one() -> None:
    bench = leading("c", quorum=MAJORITY)
    said = messages(bench.hear("a", Stand(7, OF_C, Epoch(7, 0, 9))), "a")
    assert bench.role is Role.LOOKING
    assert said[-1] == Grant(7, OF_C, Epoch(7, 0, 9))


def test_known_epoch_is_no_news() -> None:
    bench = following("a")
    assert bench.do(bench.election.claimed, OF_A) == []
    assert bench.do(bench.election.claimed, OLD) == []


# --- following and losing the leader ----------------------------------------------


def test_leader_is_kept_while_it_beats_and_lost_after_the_timeout() -> None:
    bench = following("a")
    for sequence in range(2, 8):
        bench.pass_time(0.8)
        bench.hear("a", Beat(5, OF_A, sequence, 0))
    bench.tick(TIMEOUT_S)
    assert bench.role is Role.FOLLOWING
    assert bench.election.silence_s(bench.now) == pytest.approx(TIMEOUT_S)
    assert bench.tick(0.1)[0] == StepDown("a is silent")
    # its answer is not waited for
    bench.tell("c")
    assert bench.role is Role.STANDING


def test_leader_whose_connection_broke_is_lost_at_once() -> None:
    bench = following("a")
    assert bench.do(bench.election.peer_lost, "c") == []
    effects = bench.do(bench.election.peer_lost, "a")
    assert effects[0] == StepDown("the connection to a broke")
    # and as the other one is not there either, nobody is waited for
    assert bench.role is Role.STANDING


def test_lost_connection_is_nothing_to_a_leader() -> None:
    bench = leading("a")
    assert bench.do(bench.election.peer_lost, "b") == []
    assert bench.do(bench.election.peer_connected, "b") == []


def test_leader_that_asks_with_its_own_epoch_leads_no_more() -> None:
    bench = following("a")
    effects = bench.hear("a", Ask(5, OF_A, 1))
    assert of(StepDown, effects) == [StepDown("a looks for a leader")]
    told = messages(effects, "a")[-1]
    assert isinstance(told, Tell) and told.role == LOOKING


def test_question_of_before_it_led_leaves_the_leader_in_place() -> None:
    bench = following("a")
    [told] = messages(bench.hear("a", Ask(4, OLD, 1)))
    assert bench.role is Role.FOLLOWING
    assert isinstance(told, Tell) and told.leader == "a"
    bench.hear("c", Ask(5, OF_A, 1))
    assert bench.role is Role.FOLLOWING


def test_silence_of_a_leader_is_none() -> None:
    assert leading().election.silence_s(1e9) == 0.0


# --- rule 4: a majority and its promises ------------------------------------------


@pytest.mark.parametrize("count", range(2, 8))
def test_leader_needs_more_than_half_with_itself(count: int) -> None:
    bench = standing("a", count=count, quorum=MAJORITY)
    stands = bench.save()
    wanted = bench.wanted
    assert messages(stands) == [Stand(1, NO_EPOCH, wanted)] * (count - 1)
    for number, name in enumerate(bench.names[1:], start=1):
        bench.hear(name, Grant(1, NO_EPOCH, wanted))
        # doubled, or of one who is not in the list, it counts no more
        bench.hear(name, Grant(1, NO_EPOCH, wanted))
        bench.hear("x", Grant(1, NO_EPOCH, wanted))
        assert (bench.role is Role.LEADING) == (2 * (number + 1) > count)


def test_grant_of_another_epoch_is_none() -> None:
    bench = standing("a", quorum=MAJORITY)
    bench.save()
    bench.hear("b", Grant(1, NO_EPOCH, Epoch(1, 0, 9)))
    assert bench.role is Role.STANDING
    follower = following()
    assert follower.hear("c", Grant(5, OF_A, OF_A)) == []


def test_one_that_is_not_elected_asks_anew_and_pauses() -> None:
    bench = standing("a", quorum=MAJORITY)
    bench.save()
    bench.tick(PATIENCE_PART * TIMEOUT_S - 0.01)
    assert bench.role is Role.STANDING
    bench.tick(0.01)
    assert bench.role is Role.LOOKING
    bench.answer_all()
    assert bench.role is Role.LOOKING
    bench.tick(TIMEOUT_S)
    bench.answer_all()
    assert bench.role is Role.STANDING


def test_too_few_answers_are_no_reason_to_stand() -> None:
    bench = looking("a", count=5, quorum=MAJORITY)
    bench.tell("b")
    bench.tick(PATIENCE_PART * TIMEOUT_S)
    assert bench.role is Role.LOOKING
    assert not bench.told.is_able
    bench.answer_all()
    assert bench.role is Role.STANDING
    cut_off = looking("b", count=5, quorum=MAJORITY)
    cut_off.tick(PATIENCE_PART * TIMEOUT_S)
    assert not cut_off.told.is_able
    cut_off.hear("a", Beat(5, OF_A, 1, 0))
    assert cut_off.told.is_able


def heard(bench: Bench, sequence: int, is_promise: bool = True) -> Heard:
    led = bench.election.led
    return Heard(led.number, led, sequence, 0, is_promise)


def test_leader_writes_as_long_as_it_is_promised() -> None:
    bench = leading("a", quorum=MAJORITY)
    began = bench.now
    lease_s = LEASE_PART * TIMEOUT_S
    assert bench.election.may_write(began + lease_s - 0.01)
    assert not bench.election.may_write(began + lease_s)
    bench.tick()
    bench.now += 0.1
    bench.hear("b", heard(bench, 2))
    # it counts from when the beat left, not from when the promise came
    until = began + BEAT_S + lease_s
    assert bench.election.may_write(until - 0.01)
    assert not bench.election.may_write(until)
    # a late one of an earlier beat changes nothing
    bench.hear("b", heard(bench, 1))
    assert bench.election.may_write(until - 0.01)


@pytest.mark.parametrize(
    ("sender", "sequence", "is_promise"),
    [("b", 2, False), ("b", 99, True), ("x", 2, True)],
)
def test_what_is_no_promise_lengthens_no_lease(
    sender: str, sequence: int, is_promise: bool
) -> None:
    bench = leading("a", quorum=MAJORITY)
    until = bench.now + LEASE_PART * TIMEOUT_S
    bench.tick()
    bench.hear(sender, heard(bench, sequence, is_promise))
    assert not bench.election.may_write(until)


def test_promise_of_another_epoch_lengthens_no_lease() -> None:
    bench = leading("a", quorum=MAJORITY)
    until = bench.now + LEASE_PART * TIMEOUT_S
    bench.tick()
    bench.hear("b", Heard(5, Epoch(1, 0, 9), 2, 0, True))
    assert not bench.election.may_write(until)


def test_leader_that_too_few_hear_steps_down() -> None:
    bench = leading("a", quorum=MAJORITY)
    for _ in range(3):
        assert not of(StepDown, bench.tick())
    effects = bench.tick()
    assert of(StepDown, effects) == [StepDown("too few of the others answer")]


def test_leader_with_courtesy_needs_nobody() -> None:
    bench = leading("a")
    assert not of(StepDown, bench.pass_time(60.0))
    assert bench.election.may_write(bench.now)


def test_promise_is_given_to_one_at_a_time() -> None:
    bench = looking("b", quorum=MAJORITY)
    *_, granted = messages(bench.hear("c", Stand(6, OLD, OF_C)))
    assert granted == Grant(6, OLD, OF_C)
    assert bench.election.led == OLD
    [told] = messages(bench.hear("a", Stand(7, OLD, Epoch(7, 0, 9))))
    assert isinstance(told, Tell)
    # the same one may have it again, and another one when it is over
    assert isinstance(messages(bench.hear("c", Stand(6, OLD, OF_C)))[0], Grant)
    bench.pass_time(TIMEOUT_S + 2 * BEAT_S)
    later = messages(bench.hear("a", Stand(8, OLD, Epoch(8, 0, 9))), "a")
    assert isinstance(later[-1], Grant)


def test_promise_binds_the_one_that_gave_it() -> None:
    bench = looking("b", quorum=MAJORITY, count=3)
    bench.hear("c", Stand(6, OLD, OF_C))
    bench.do(bench.election.peer_lost, "a")
    bench.tell("c")
    assert bench.role is Role.LOOKING
    bench.pass_time(TIMEOUT_S + 2 * BEAT_S)
    bench.tell("c")
    assert bench.role is Role.STANDING


def test_one_that_promised_while_it_waited_for_the_disk_does_not_stand() -> None:
    bench = standing("b", quorum=MAJORITY, count=2)
    wanted = bench.wanted
    bench.election._promise.give("a")
    bench.do(bench.election.saved, wanted)
    assert bench.role is Role.LOOKING


def test_follower_promises_to_its_leader_with_each_beat() -> None:
    bench = following("a", quorum=MAJORITY)
    [said] = messages(bench.hear("a", Beat(5, OF_A, 2, 0)))
    assert said == Heard(5, OF_A, 2, 0, True)
    assert isinstance(messages(bench.hear("c", Stand(6, OF_A, OF_C)))[0], Tell)


def test_one_that_promised_to_another_hears_a_leader_without_a_promise() -> None:
    bench = looking("b", quorum=MAJORITY)
    bench.hear("c", Stand(6, OLD, OF_C))
    [said] = messages(bench.hear("a", Beat(5, OF_A, 1, 0)))
    assert isinstance(said, Heard) and not said.is_promise
    assert bench.role is Role.FOLLOWING


def test_one_that_has_just_started_promises_nothing() -> None:
    bench = Bench("b", quorum=MAJORITY)
    assert isinstance(messages(bench.hear("c", Stand(6, OLD, OF_C)))[0], Tell)
    [said] = messages(bench.hear("a", Beat(5, OF_A, 1, 0)))
    assert isinstance(said, Heard) and not said.is_promise
    bench.answer_all()
    bench.pass_time(TIMEOUT_S + 2 * BEAT_S)
    assert isinstance(messages(bench.hear("c", Stand(6, OF_A, OF_C)))[-1], Grant)


def test_clock_that_jumps_ends_no_promise() -> None:
    bench = looking("b", quorum=MAJORITY)
    bench.hear("c", Stand(6, OLD, OF_C))
    bench.now += 1000.0
    said = messages(bench.hear("a", Stand(7, OLD, Epoch(7, 0, 9))), "a")
    assert not any(isinstance(message, Grant) for message in said)


@pytest.mark.parametrize("epoch", [OLD, NO_EPOCH, OF_A])
def test_nothing_is_promised_for_an_epoch_that_is_not_newest(epoch: Epoch) -> None:
    bench = looking("b", quorum=MAJORITY, led=OF_A)
    assert isinstance(messages(bench.hear("c", Stand(6, OLD, epoch)))[0], Tell)


def test_leader_promises_nothing() -> None:
    bench = leading("c", quorum=MAJORITY)
    stand = Stand(9, NO_EPOCH, Epoch(9, 0, 9))
    assert isinstance(messages(bench.hear("a", stand))[0], Tell)
    assert bench.role is Role.LEADING


def test_of_two_that_stand_the_later_one_gives_way() -> None:
    bench = looking("b", quorum=MAJORITY)
    bench.do(bench.election.peer_lost, "a")
    bench.tell("c")
    bench.save()
    assert bench.role is Role.STANDING
    said = messages(bench.hear("c", Stand(1, NO_EPOCH, Epoch(1, 2, 9))))
    assert isinstance(said[0], Tell) and bench.role is Role.STANDING
    said = messages(bench.hear("a", Stand(1, NO_EPOCH, Epoch(1, 0, 9))), "a")
    assert isinstance(said[-1], Grant) and bench.role is Role.LOOKING


# --- a promise that ends early ----------------------------------------------------


@pytest.mark.parametrize("word", [Resign(5, OF_A), Ask(5, OF_A, 1)])
def test_promise_ends_when_its_leader_says_that_it_leads_no_more(word: Any) -> None:
    bench = following("a", quorum=MAJORITY)
    bench.hear("a", Beat(5, OF_A, 2, 0))
    bench.hear("a", word)
    assert bench.role is Role.LOOKING
    assert isinstance(messages(bench.hear("c", Stand(6, OF_A, OF_C)))[-1], Grant)


def test_promise_ends_even_if_the_connection_broke_before() -> None:
    bench = following("a", quorum=MAJORITY)
    bench.do(bench.election.peer_lost, "a")
    assert isinstance(messages(bench.hear("c", Stand(6, OF_A, OF_C)))[-1], Tell)
    bench.hear("a", Ask(5, OF_A, 1))
    assert isinstance(messages(bench.hear("c", Stand(6, OF_A, OF_C)))[-1], Grant)


@pytest.mark.parametrize("word", [Resign(5, OF_A), Ask(5, OF_A, 1)])
def test_late_word_ends_no_promise_for_a_later_epoch(word: Any) -> None:
    bench = following("a", quorum=MAJORITY)
    bench.pass_time(0.8)
    # a was restarted and stands again, which comes before what it said when it left
    again = Stand(7, OF_A, Epoch(7, 0, 99))
    assert isinstance(messages(bench.hear("a", again))[-1], Grant)
    bench.hear("a", word)
    said = messages(bench.hear("c", Stand(8, OF_A, Epoch(8, 2, 9))), "c")
    assert isinstance(said[-1], Tell)


@pytest.mark.parametrize(("sender", "led"), [("c", OF_A), ("a", OLD)])
def test_resignation_of_somebody_else_is_nothing(sender: str, led: Epoch) -> None:
    bench = following("a", quorum=MAJORITY)
    assert bench.hear(sender, Resign(5, led)) == []
    assert bench.role is Role.FOLLOWING


# --- rule 5: a leader that was away -----------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        lambda b: b.do(b.election.observe),
        lambda b: b.do(b.election.tick),
        lambda b: b.hear("b", Ask(0, NO_EPOCH, 1)),
        lambda b: b.do(b.election.claimed, NO_EPOCH),
        lambda b: b.do(b.election.peer_lost, "b"),
        lambda b: b.do(b.election.peer_connected, "b"),
        lambda b: b.do(b.election.saved, NO_EPOCH),
        lambda b: b.do(b.election.not_saved),
        lambda b: b.do(b.election.resign),
    ],
)
def test_leader_that_stood_still_steps_down_whatever_happens_next(event: Any) -> None:
    bench = leading("a")
    bench.now += TIMEOUT_S + 0.01
    first = event(bench)[0]
    assert isinstance(first, StepDown) and "stood still for 1.0 s" in first.reason
    assert bench.role is not Role.LEADING


def test_leader_that_stood_still_gives_others_time_to_say_that_they_lead() -> None:
    bench = leading("a")
    bench.now += TIMEOUT_S + 0.01
    bench.do(bench.election.observe)
    bench.answer_all()
    assert bench.role is Role.LOOKING
    bench.tick(PATIENCE_PART * TIMEOUT_S)
    bench.answer_all()
    assert bench.role is Role.STANDING


def test_short_pause_and_being_alone_are_no_reasons() -> None:
    bench = leading("a")
    bench.now += TIMEOUT_S
    assert bench.do(bench.election.observe) == []
    alone = leading("a", count=1)
    alone.now += 1000.0
    assert not of(StepDown, alone.tick())
    assert alone.election.may_write(alone.now)


@pytest.mark.parametrize("quorum", Quorum)
def test_leader_whose_clock_goes_back_steps_down(quorum: Quorum) -> None:
    bench = leading("a", quorum=quorum)
    bench.now -= 50.0
    assert not bench.election.may_write(bench.now)
    effects = bench.do(bench.election.observe)
    assert effects[0] == StepDown("the clock went back")


def test_follower_whose_clock_goes_back_waits_from_then_on() -> None:
    bench = following("a")
    bench.now -= 50.0
    bench.tick(TIMEOUT_S)
    bench.tick(0.0)
    assert bench.role is Role.FOLLOWING
    assert of(StepDown, bench.tick(TIMEOUT_S + 0.1))


def test_one_that_stands_asks_anew_when_its_clock_goes_back() -> None:
    bench = standing("a", quorum=MAJORITY)
    bench.save()
    wanted = bench.wanted
    bench.now -= 50.0
    bench.hear("b", Grant(1, NO_EPOCH, wanted))
    assert bench.role is Role.LOOKING


def test_one_that_cannot_lead_waits_no_longer_for_a_clock_that_went_back() -> None:
    bench = standing("a")
    bench.do(bench.election.not_saved)
    bench.now -= 5000.0
    bench.do(bench.election.observe)
    assert bench.told.is_able


# --- rule 6: leaving --------------------------------------------------------------


def test_leader_that_leaves_says_so() -> None:
    bench = leading("a")
    led = bench.election.led
    effects = bench.do(bench.election.resign)
    assert messages(effects) == [Resign(1, led)] * 2
    assert effects[-1] == StepDown("this factory leaves")
    assert bench.role is Role.LOOKING and not bench.told.is_able


def test_one_that_stands_gives_up_when_it_leaves() -> None:
    bench = standing("a")
    wanted = bench.wanted
    bench.do(bench.election.resign)
    assert bench.role is Role.LOOKING
    assert bench.do(bench.election.saved, wanted) == []
    with_majority = standing("a", quorum=MAJORITY)
    with_majority.save()
    wanted = with_majority.wanted
    with_majority.do(with_majority.election.resign)
    assert with_majority.hear("b", Grant(1, NO_EPOCH, wanted)) == []


@pytest.mark.parametrize("make", [looking, following])
def test_others_leave_without_a_word(make: Callable[[], Bench]) -> None:
    bench = make()
    role = bench.role
    assert bench.do(bench.election.resign) == []
    assert bench.role is role and not bench.told.is_able


@pytest.mark.parametrize("make", [looking, following, standing, leading])
def test_one_that_leaves_never_leads(make: Callable[[], Bench]) -> None:
    bench = make()
    bench.do(bench.election.resign)
    for _ in range(100):
        bench.tick()
        bench.answer_all()
        assert bench.role is not Role.STANDING
    # not even when its clock goes back
    bench.now -= 50.0
    bench.tick()
    bench.answer_all()
    assert bench.role is not Role.STANDING


# --- guests -----------------------------------------------------------------------


def test_guest_is_told_of_a_leader_for_a_while() -> None:
    bench = leading("a")
    assert not messages(bench.tick(), "x")
    [told] = messages(bench.hear("x", Ask(0, NO_EPOCH, 1)), "x")
    assert isinstance(told, Tell) and told.role == LEADING
    assert isinstance(messages(bench.tick(), "x")[0], Beat)
    bench.pass_time(GUEST_PARTS * TIMEOUT_S)
    assert not messages(bench.tick(), "x")


def test_only_so_many_guests_are_remembered() -> None:
    bench = leading("a")
    for number in range(MAX_GUESTS + 2):
        bench.hear(f"x{number}", Ask(0, NO_EPOCH, 1))
    # one that was heard again is no old one
    bench.hear("x2", Ask(0, NO_EPOCH, 1))
    bench.hear("y", Ask(0, NO_EPOCH, 1))
    to = {effect.to for effect in of(SendMessage, bench.tick())}
    assert len(to) == MAX_GUESTS + 2
    assert {"b", "c", "y", "x2"} <= to and not {"x0", "x1", "x3"} & to


def test_guest_may_lead() -> None:
    bench = looking("b")
    bench.hear("x", Beat(6, OF_C, 1, 0))
    assert (bench.role, bench.election.leader) == (Role.FOLLOWING, "x")


# --- bounds and totality ----------------------------------------------------------


def test_only_so_many_beats_are_remembered() -> None:
    bench = leading("a")
    bench.pass_time(BEAT_S * (MAX_BEATS + 9))
    assert len(bench.election._lease._sent_at) == MAX_BEATS


EPOCHS = [NO_EPOCH, OLD, OF_A, OF_C]


def any_message() -> list[Any]:
    """Return every kind of message about every epoch."""
    return [
        message
        for led in EPOCHS
        for message in (
            Ask(led.number, led, 1),
            *(
                Tell(led.number, led, number, role, is_able, "c", led)
                for number in (0, 1, 2)
                for role in (LOOKING, STANDING, LEADING, FOLLOWING, "nonsense")
                for is_able in (True, False)
            ),
            Beat(led.number, led, 1, 3),
            *(Heard(led.number, led, n, 0, p) for n in (0, 1) for p in (True, False)),
            *(Stand(led.number, led, epoch) for epoch in EPOCHS),
            *(Grant(led.number, led, epoch) for epoch in EPOCHS),
            Resign(led.number, led),
        )
    ]


@pytest.mark.parametrize("quorum", Quorum)
@pytest.mark.parametrize("make", [looking, standing, following, leading])
@pytest.mark.parametrize("sender", ["a", "c", "x"])
def test_any_message_in_any_role_has_a_defined_effect(
    sender: str, make: Callable[..., Bench], quorum: Quorum
) -> None:
    me = "b"
    for message in any_message():
        bench = make(me=me, quorum=quorum) if make is not following else make()
        led = bench.election.led
        effects = bench.hear(sender, message)
        assert not led.is_newer_than(bench.election.led)
        # nobody leads because of one message that it did not ask for
        assert make is leading or not of(Lead, effects)
        # whoever asks or beats is answered
        is_question = isinstance(message, Ask | Beat | Stand)
        assert not is_question or messages(effects, sender)


@pytest.mark.parametrize("quorum", Quorum)
@pytest.mark.parametrize("make", [looking, standing, following, leading])
def test_any_other_event_in_any_role_has_a_defined_effect(
    make: Callable[..., Bench], quorum: Quorum
) -> None:
    events: list[Callable[[Bench], Any]] = [
        lambda b: b.election.tick,
        lambda b: b.election.observe,
        lambda b: b.election.not_saved,
        lambda b: b.election.resign,
        *(lambda b, n=n: (b.election.peer_lost, n) for n in ("a", "c", "x")),
        *(lambda b, n=n: (b.election.peer_connected, n) for n in ("a", "c", "x")),
        *(lambda b, e=e: (b.election.claimed, e) for e in EPOCHS),
        *(lambda b, e=e: (b.election.saved, e) for e in EPOCHS),
    ]
    for event in events:
        for step_s in (-50.0, 0.0, 0.1, 0.9, 50.0):
            bench = make(quorum=quorum)
            bench.now += step_s
            made = event(bench)
            bench.do(*made) if isinstance(made, tuple) else bench.do(made)
            assert bench.role in Role
            bench.election.is_able(bench.now)
            bench.election.silence_s(bench.now)
