"""What a factory does: it leads and changes the registry, or follows and copies it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from registry_tools import first_expiry

from opencluster.core.election import (
    Election as PureElection,
)
from opencluster.core.election import (
    Follow,
    Lead,
    Quorum,
    Role,
    SaveEpochs,
    SendMessage,
    StepDown,
)
from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import MAX_CLAIM, NO_EPOCH, Epoch
from opencluster.core.factory_messages import (
    Ask,
    Beat,
    Change,
    Grant,
    Heard,
    JobNote,
    Message,
    Resign,
    Snapshot,
    Stand,
    Subscribe,
    Tell,
)
from opencluster.core.registry import Registry
from opencluster.core.replication import (
    MAX_FOLLOWERS,
    Effect,
    FollowerState,
    Publish,
    ReplicatedRegistry,
)
from opencluster.errors import NotLeader, RegistryError

NAMES = ["a", "b", "c"]
OF_A = Epoch(5, 0, 70)
OF_C = Epoch(6, 2, 72)
LEASE_S = 10.0
ABOUT = {"pid": 7, "started_at": 1.5}
W1, W2, W3 = (Entry(i, "worker", type="T", name=i) for i in ("w1", "w2", "w3"))


class Bench:
    """A factory, the time, and a disk that is written at once.

    Parameters
    ----------
    me : str
        Which factory.
    names : sequence of str
        All of them.
    quorum : Quorum
        Whom a leader needs.
    """

    def __init__(
        self,
        me: str = "b",
        names: Iterable[str] = NAMES,
        quorum: Quorum = Quorum.COURTESY,
    ) -> None:
        self.now = 100.0
        self.election = PureElection(
            list(names), me, random.Random(1), 1.0, 0.2, quorum
        )
        self.registry = Registry(LEASE_S)
        self.core = ReplicatedRegistry(self.election, self.registry, ABOUT)
        self.do(self.core.start(self.now))

    def do(self, effects: list[Effect]) -> list[Effect]:
        """Write what is to be on disk, and return what happened in all."""
        done = list(effects)
        for effect in effects:
            if isinstance(effect, SaveEpochs) and effect.wanted:
                done += self.do(self.core.saved(self.now, effect.wanted))
        self.core.check_invariants()
        return done

    def hear(self, sender: str, message: Message) -> list[Effect]:
        """Let a message come."""
        return self.do(self.core.receive(self.now, sender, message))

    def tick(self, seconds: float = 0.2) -> list[Effect]:
        """Let time pass, then tick."""
        self.now += seconds
        return self.do(self.core.tick(self.now))

    def register(self, *entries: Entry) -> list[Effect]:
        """Register somebody."""
        return self.do(self.core.register(self.now, entries))

    @property
    def led(self) -> Epoch:
        return self.election.led

    @property
    def ids(self) -> list[str]:
        return sorted(self.registry.ids)

    @property
    def age_s(self) -> float | None:
        return self.core.age_s(self.now)


def leading(*subscribers: str, quorum: Quorum = Quorum.COURTESY) -> Bench:
    """Return a leader, with followers that have its registry."""
    bench = Bench("a", quorum=quorum)
    for _ in range(12):
        happened = bench.tick()
        for effect in happened:
            happened += answer(bench, effect)
    assert bench.election.role is Role.LEADING
    for name in subscribers:
        bench.hear(name, Subscribe(bench.led, ABOUT))
    return bench


def answer(bench: Bench, effect: Effect) -> list[Effect]:
    """Say for another factory that nobody leads, and promise what it asks for."""
    match effect:
        case SendMessage(to, Ask(round=number)):
            nobody = (number, "looking", True, "", NO_EPOCH)
            return bench.hear(to, Tell(0, NO_EPOCH, *nobody))
        case SendMessage(to, Stand(epoch=epoch)):
            return bench.hear(to, Grant(epoch.number, NO_EPOCH, epoch))
        case SendMessage(to, Beat(led=led, sequence=number)) if needs_promises(bench):
            return bench.hear(to, Heard(led.number, led, number, 0, True))
        case _:
            return []


def needs_promises(bench: Bench) -> bool:
    return bench.election.quorum is Quorum.MAJORITY


def following(*entries: Entry, led: Epoch = OF_A) -> Bench:
    """Return a follower of ``a`` that has its registry."""
    bench = Bench("b")
    content = snapshot(*entries)
    bench.hear("a", Beat(led.number, led, 1, content["revision"]))
    bench.hear("a", Snapshot(led, content))
    assert bench.core.is_in_step
    return bench


def snapshot(*entries: Entry) -> dict[str, Any]:
    """Return what a leader sends with whom these registered."""
    registry = Registry()
    for entry in entries:
        registry.register(0.0, entry)
    return registry.snapshot()


def messages(effects: Iterable[Effect], to: str = "") -> list[Message]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, SendMessage) and to in ("", effect.to)
    ]


def of(kind: type, effects: Iterable[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


# --- rule 1: only a leader changes the registry -----------------------------------


def test_change_is_published_and_copied() -> None:
    bench = leading("b", "c")
    effects = bench.register(W1, W2)
    deltas = [Delta(1, "w1", W1), Delta(2, "w2", W2)]
    assert of(Publish, effects) == [Publish(bench.led, delta) for delta in deltas]
    for name in ("b", "c"):
        assert messages(effects, name) == [Change(bench.led, d) for d in deltas]
    assert bench.election.revision == 2


def test_what_changes_nothing_is_told_nobody() -> None:
    bench = leading("b")
    bench.register(W1)
    assert bench.register(W1) == []
    assert bench.core.renew(bench.now, ["w1", "w9"]) == ["w9"]
    assert bench.do(bench.core.remove(bench.now, "w9", None, 1.0)) == []


def test_removal_tells_why() -> None:
    bench = leading("b")
    bench.register(W1)
    cause = {"reason": "killed"}
    effects = bench.do(bench.core.remove(bench.now, "w1", cause, 9.0))
    gone = Delta(2, "w1", None, {"reason": "killed", "at": 9.0})
    assert effects == [
        Publish(bench.led, gone),
        SendMessage("b", Change(bench.led, gone)),
    ]


def test_leader_takes_out_whose_lease_is_over() -> None:
    bench = leading("b")
    bench.register(W1)
    for _ in range(49):
        bench.tick(LEASE_S / 50)
        assert bench.do(bench.core.expire(bench.now, 9.0)) == []
    bench.tick(LEASE_S / 50 + 0.01)
    effects = bench.do(bench.core.expire(bench.now, 9.0))
    assert [effect.delta.id for effect in of(Publish, effects)] == ["w1"]
    assert bench.ids == []


def writes(bench: Bench) -> list[Any]:
    """Return all that only a leader does."""
    core, now = bench.core, bench.now
    return [
        lambda: core.check_leading(now),
        lambda: core.register(now, [W2]),
        lambda: core.renew(now, ["w1"]),
        lambda: core.remove(now, "w1", None, 1.0),
        lambda: core.report_job(now, {"id": "j1"}),
        lambda: core.order_job(now, "j1", "cancel", None, "ann", 1.0),
    ]


def test_follower_changes_nothing_and_says_who_leads() -> None:
    bench = following(W1)
    for write in writes(bench):
        with pytest.raises(NotLeader, match="the leader is a") as caught:
            write()
        assert caught.value.leader == "a"
    bench.now += 2 * LEASE_S
    assert of(Publish, bench.do(bench.core.expire(bench.now, 9.0))) == []
    assert (bench.ids, bench.registry.revision) == (["w1"], 1)


def test_looking_one_changes_nothing() -> None:
    bench = Bench("b")
    for write in writes(bench):
        with pytest.raises(NotLeader, match="no leader is known") as caught:
            write()
        assert caught.value.leader == ""


def test_looking_one_names_the_leader_of_others() -> None:
    bench = Bench("b")
    bench.do(bench.core.peer_lost(bench.now, "a"))
    bench.hear("c", Tell(5, OF_A, 1, "following", True, "a", OF_A))
    with pytest.raises(NotLeader) as caught:
        bench.core.check_leading(bench.now)
    assert caught.value.leader == "a"


def test_leader_whose_promises_are_over_changes_nothing() -> None:
    bench = leading(quorum=Quorum.MAJORITY)
    bench.now += 5.0
    for write in writes(bench):
        with pytest.raises(NotLeader, match="no leader is known"):
            write()
    assert bench.do(bench.core.expire(bench.now, 9.0))[0] == StepDown(
        "this process stood still for 5.0 s"
    )


# --- rule 2: copies ---------------------------------------------------------------


def test_follower_asks_for_the_registry_and_takes_it() -> None:
    bench = Bench("b")
    effects = bench.hear("a", Beat(5, OF_A, 1, 2))
    assert Subscribe(OF_A, ABOUT) in messages(effects, "a")
    assert not bench.core.is_in_step
    assert bench.hear("a", Snapshot(OF_A, snapshot(W1, W2))) == []
    assert bench.core.is_in_step
    assert (bench.ids, bench.election.revision) == (["w1", "w2"], 2)
    assert bench.election.copy == OF_A


def test_leader_answers_with_its_registry() -> None:
    bench = leading()
    bench.register(W1)
    [said] = messages(bench.hear("b", Subscribe(bench.led, ABOUT)))
    assert said == Snapshot(bench.led, bench.registry.snapshot())


@pytest.mark.parametrize("led", [NO_EPOCH, OF_A])
def test_nobody_gets_the_registry_of_another_epoch(led: Epoch) -> None:
    assert leading().hear("b", Subscribe(led, ABOUT)) == []


def test_nobody_gets_the_registry_of_a_follower() -> None:
    bench = following(W1)
    assert bench.hear("c", Subscribe(OF_A, ABOUT)) == []


def test_changes_are_applied_in_order() -> None:
    bench = following(W1)
    assert bench.hear("a", Change(OF_A, Delta(2, "w2", W2))) == []
    assert bench.hear("a", Change(OF_A, Delta(3, "w1"))) == []
    # doubled, it changes nothing
    assert bench.hear("a", Change(OF_A, Delta(2, "w2", W2))) == []
    assert (bench.ids, bench.registry.revision) == (["w2"], 3)
    assert bench.election.revision == 3


def test_gap_makes_the_follower_ask_again_and_take_nothing_until_then() -> None:
    bench = following(W1)
    asked = messages(bench.hear("a", Change(OF_A, Delta(3, "w3", W3))))
    assert asked == [Subscribe(OF_A, ABOUT)]
    assert not bench.core.is_in_step
    assert bench.hear("a", Change(OF_A, Delta(2, "w2", W2))) == []
    assert (bench.ids, bench.registry.revision) == (["w1"], 1)
    bench.hear("a", Snapshot(OF_A, snapshot(W1, W2, W3)))
    assert bench.core.is_in_step and bench.ids == ["w1", "w2", "w3"]


@pytest.mark.parametrize("revision", [0, 2])
def test_beat_of_another_revision_makes_the_follower_ask_again(revision: int) -> None:
    bench = following(W1)
    effects = bench.hear("a", Beat(5, OF_A, 2, revision))
    assert Subscribe(OF_A, ABOUT) in messages(effects)
    assert not bench.core.is_in_step


def test_beat_of_the_same_revision_changes_nothing() -> None:
    bench = following(W1)
    [said] = messages(bench.hear("a", Beat(5, OF_A, 2, 1)))
    assert said == Heard(5, OF_A, 2, 1, said.is_promise)
    assert bench.core.is_in_step


def test_snapshot_that_does_not_come_is_asked_for_again() -> None:
    bench = Bench("b")
    bench.hear("a", Beat(5, OF_A, 1, 0))
    asked = 0
    for sequence in range(2, 14):
        asked += Subscribe(OF_A, ABOUT) in messages(bench.tick())
        bench.hear("a", Beat(5, OF_A, sequence, 0))
    assert asked == 2
    bench.hear("a", Snapshot(OF_A, snapshot()))
    for sequence in range(14, 24):
        assert Subscribe(OF_A, ABOUT) not in messages(bench.tick())
        bench.hear("a", Beat(5, OF_A, sequence, 0))


def test_late_snapshot_changes_nothing() -> None:
    bench = following(W1)
    bench.hear("a", Change(OF_A, Delta(2, "w2", W2)))
    bench.hear("a", Snapshot(OF_A, snapshot(W1)))
    assert (bench.ids, bench.registry.revision) == (["w1", "w2"], 2)
    assert bench.core.is_in_step


@pytest.mark.parametrize(("sender", "led"), [("c", OF_A), ("a", OF_C), ("c", OF_C)])
def test_only_what_its_leader_says_of_its_epoch_is_taken(
    sender: str, led: Epoch
) -> None:
    bench = following(W1)
    for message in (
        Snapshot(led, snapshot(W2, W3)),
        Change(led, Delta(2, "w2", W2)),
        JobNote(led, {"id": "j1"}),
    ):
        assert bench.hear(sender, message) == []
    assert bench.ids == ["w1"]
    assert bench.registry.snapshot()["jobs"] == []


def test_beat_of_an_older_leader_does_not_put_out_of_step() -> None:
    bench = following(W1)
    bench.hear("c", Beat(4, Epoch(4, 2, 9), 1, 9))
    assert bench.core.is_in_step


@pytest.mark.parametrize(
    "content", [{}, {"revision": 9}, {"revision": True, "entries": []}]
)
def test_snapshot_that_is_none_is_refused(content: dict[str, Any]) -> None:
    bench = following(W1)
    with pytest.raises(RegistryError):
        bench.core.receive(bench.now, "a", Snapshot(OF_A, content))
    bench.core.check_invariants()
    assert bench.ids == ["w1"]


def test_jobs_are_told_to_followers() -> None:
    leader = leading("b", "c")
    job = {"id": "j1", "state": "running"}
    effects = leader.do(leader.core.report_job(leader.now, job))
    note = JobNote(leader.led, job)
    assert effects == [SendMessage("b", note), SendMessage("c", note)]
    follower = following(W1)
    follower.hear("a", JobNote(OF_A, job))
    assert [j["id"] for j in follower.registry.snapshot()["jobs"]] == ["j1"]
    assert leader.hear("b", note) == []


def test_an_order_survives_the_leader_that_was_given_it() -> None:
    leader, job = leading("b"), {"id": "j1", "state": "running"}
    leader.do(leader.core.report_job(leader.now, job))
    asked = ("j1", "cancel", None, "ann", 7.0)
    (sent,) = of(SendMessage, leader.do(leader.core.order_job(leader.now, *asked)))
    assert isinstance(sent.message, JobNote)
    follower = following(W1)
    follower.hear("a", JobNote(OF_A, sent.message.job))
    # and a report that comes later does not take it away
    follower.hear("a", JobNote(OF_A, job | {"pieces_done": 5}))
    for bench in (leader, follower):
        cancel = {"by": "ann", "at": 7.0}
        assert bench.registry.orders_for("j1") == {"cancel": cancel}


def test_a_manager_says_nothing_about_what_is_ordered() -> None:
    leader = leading("b")
    job = {"id": "j1", "state": "running", "orders": {"cancel": {"by": "mallory"}}}
    leader.do(leader.core.report_job(leader.now, job))
    leader.do(leader.core.order_job(leader.now, "j1", "priority", 3, "ann", 1.0))
    leader.do(leader.core.report_job(leader.now, job | {"orders": {}}))
    assert set(leader.registry.orders_for("j1")) == {"priority"}


def test_new_leader_gets_no_changes_of_a_connection_that_broke() -> None:
    bench = leading("b", "c")
    bench.do(bench.core.peer_lost(bench.now, "b"))
    assert {effect.to for effect in of(SendMessage, bench.register(W1))} == {"c"}
    bench.do(bench.core.peer_connected(bench.now, "b"))
    bench.hear("b", Subscribe(bench.led, ABOUT))
    assert {effect.to for effect in of(SendMessage, bench.register(W2))} == {"b", "c"}


# --- rule 3: how old it is --------------------------------------------------------


def test_one_that_never_had_anything_cannot_be_asked() -> None:
    bench = Bench("b")
    assert bench.age_s is None
    with pytest.raises(NotLeader):
        bench.core.check_readable(bench.now)
    bench.hear("a", Beat(5, OF_A, 1, 0))
    assert bench.age_s is None


def test_what_a_leader_knows_is_of_now() -> None:
    bench = leading()
    assert bench.age_s == 0.0
    bench.core.check_readable(bench.now)


def test_age_of_a_copy_counts_from_the_last_beat_in_step() -> None:
    bench = following(W1)
    assert bench.age_s == 0.0
    bench.now += 0.3
    bench.core.check_readable(bench.now)
    assert bench.age_s == pytest.approx(0.3)
    bench.hear("a", Beat(5, OF_A, 2, 1))
    assert bench.age_s == 0.0
    bench.now += 0.3
    # by this one it learns that it has missed something
    bench.hear("a", Beat(5, OF_A, 3, 2))
    assert bench.age_s == pytest.approx(0.3)
    bench.now -= 50.0
    assert bench.age_s == 0.0


def test_copy_grows_older_when_nobody_leads() -> None:
    bench = following(W1)
    bench.hear("a", Resign(5, OF_A))
    bench.now += 3.0
    assert bench.age_s == pytest.approx(3.0)
    bench.core.check_readable(bench.now)


def test_what_a_former_leader_knows_is_as_old_as_its_rule() -> None:
    bench = leading()
    bench.register(W1)
    bench.hear("c", Tell(6, OF_C, 0, "leading", True, "c", OF_C))
    assert bench.election.role is not Role.LEADING
    bench.now += 0.4
    assert bench.age_s == pytest.approx(0.4)
    paused = leading(quorum=Quorum.MAJORITY)
    paused.now += 5.0
    assert paused.age_s == pytest.approx(5.0)


# --- rule 4: a new leader ---------------------------------------------------------


def test_new_leader_gives_whole_leases_and_starts_without_followers() -> None:
    bench = following(W1)
    bench.now += 9.0
    bench.do(bench.core.peer_lost(bench.now, "c"))
    bench.do(bench.core.peer_lost(bench.now, "a"))
    assert bench.election.role is Role.LEADING
    assert first_expiry(bench.registry) == bench.now + LEASE_S
    assert bench.core.followers == {}
    assert bench.election.copy == bench.led != OF_A
    assert not bench.core.is_in_step


def test_leader_that_follows_takes_the_registry_of_the_other() -> None:
    bench = leading("b")
    bench.register(W1)
    effects = bench.hear("c", Beat(6, OF_C, 1, 1))
    assert of(Follow, effects) == [Follow("c", OF_C)]
    assert Subscribe(OF_C, ABOUT) in messages(effects, "c")
    assert bench.core.followers == {}
    # until it comes, what is here is of its own epoch
    assert bench.election.copy != OF_C
    bench.hear("c", Snapshot(OF_C, snapshot(W2)))
    assert bench.ids == ["w2"] and bench.election.copy == OF_C


def test_leader_that_leaves_or_cannot_save_leads_no_more() -> None:
    bench = leading("b")
    effects = bench.do(bench.core.resign(bench.now))
    assert Resign(bench.led.number, bench.led) in messages(effects, "b")
    assert bench.election.role is not Role.LEADING
    other = Bench("a", names=["a"])
    other.do(other.core.not_saved(other.now))
    assert not other.election.is_able(other.now)


def test_one_without_a_copy_lets_who_has_one_go_before() -> None:
    bench = Bench("a")
    bench.hear("b", Tell(5, OF_A, 1, "looking", True, "", OF_A))
    effects = bench.hear("c", Tell(5, OF_A, 1, "looking", True, "", NO_EPOCH))
    assert of(Lead, effects) == []
    assert bench.election.role is Role.LOOKING


# --- followers --------------------------------------------------------------------


def test_leader_knows_what_its_followers_have() -> None:
    bench = leading("b")
    assert bench.core.followers == {"b": FollowerState(bench.now, 0, ABOUT)}
    bench.now += 0.1
    bench.hear("b", Heard(bench.led.number, bench.led, 1, 7, True))
    bench.hear("c", Heard(bench.led.number, bench.led, 1, 3, True))
    assert bench.core.followers == {
        "b": FollowerState(bench.now, 7, ABOUT),
        "c": FollowerState(bench.now, 3, {}),
    }


def test_what_follows_another_epoch_is_no_follower() -> None:
    bench = leading()
    bench.hear("b", Heard(1, Epoch(1, 0, 9), 1, 7, True))
    assert bench.core.followers == {}
    follower = following()
    follower.hear("c", Heard(5, OF_A, 1, 7, True))
    assert follower.core.followers == {}


def test_only_so_many_followers_are_kept_that_are_in_no_list() -> None:
    bench = leading("b", "c")
    for number in range(MAX_FOLLOWERS):
        bench.hear(f"x{number}", Subscribe(bench.led, ABOUT))
    # one that is heard of again is kept longer
    bench.hear("x0", Heard(bench.led.number, bench.led, 1, 0, True))
    for name in ("y0", "y1"):
        bench.hear(name, Subscribe(bench.led, ABOUT))
    bench.hear("z", Heard(bench.led.number, bench.led, 1, 0, True))
    known = set(bench.core.followers)
    assert len(known) == MAX_FOLLOWERS + 2
    assert {"b", "c", "x0", "y0", "y1", "z"} <= known
    assert not {"x1", "x2", "x3"} & known
    told = {effect.to for effect in of(SendMessage, bench.register(W1))}
    assert told == known - {"z"}


# --- claims -----------------------------------------------------------------------


def test_claim_of_a_client_makes_the_leader_go_beyond() -> None:
    bench = leading()
    effects = bench.do(bench.core.claimed(bench.now, Epoch(9, 2, 1)))
    assert isinstance(effects[1], StepDown)
    assert bench.election.seen >= 9
    assert not bench.election.may_write(bench.now)


def test_absurd_claim_is_ignored() -> None:
    bench = leading()
    absurd = Epoch(bench.election.seen + MAX_CLAIM + 1)
    assert bench.do(bench.core.claimed(bench.now, absurd)) == []
    assert bench.election.may_write(bench.now)
