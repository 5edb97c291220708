"""An epoch that no elections can have reached stops nobody for good."""

from __future__ import annotations

import random
from typing import Any

import pytest

from opencluster.core.election import Election, Role
from opencluster.core.entries import Entry
from opencluster.core.epochs import MAX_CLAIM, MAX_JUMP, MAX_NUMBER, NO_EPOCH, Epoch
from opencluster.core.factory_messages import (
    Ask,
    Beat,
    Grant,
    Snapshot,
    Stand,
    Subscribe,
    from_fields,
    to_fields,
)
from opencluster.core.registry import Registry
from opencluster.core.replica import Replica
from opencluster.core.replication import ReplicatedRegistry
from opencluster.core.seeking import Adopt, Seeker
from opencluster.errors import RegistryError

TRUE = Epoch(5, 0, 7)
ABSURD = Epoch(5 + MAX_CLAIM + 1, 1, 8)
NEXT = Epoch(6, 1, 8)
JUMPED = Epoch(MAX_JUMP + 100)


def test_the_next_epochs_are_not_absurd() -> None:
    assert not NEXT.is_absurd_after(TRUE)
    assert not TRUE.is_absurd_after(NEXT)
    assert not Epoch(5 + MAX_CLAIM).is_absurd_after(TRUE)
    assert ABSURD.is_absurd_after(TRUE)
    assert not TRUE.is_absurd_after(ABSURD)


def leader_after(claim: Epoch, is_leading: bool) -> str:
    """Return who leads for a client to whom somebody made a claim."""
    seeker = Seeker()
    seeker.listed(["a", "b"])
    seeker.tick(0.0)
    seeker.answered("b", is_leading, claim)
    seeker.lost("b")
    effects = seeker.answered("a", True, TRUE)
    seeker.check_invariants()
    assert (seeker.leader == "a") == (Adopt("a", TRUE) in effects)
    return seeker.leader


@pytest.mark.parametrize("is_leading", [True, False])
def test_client_that_was_told_an_absurd_epoch_finds_the_leader(
    is_leading: bool,
) -> None:
    assert leader_after(ABSURD, is_leading) == "a"
    assert leader_after(NEXT, is_leading) == ""


def test_copy_of_an_absurd_epoch_is_replaced() -> None:
    registry = Registry()
    registry.register(0.0, Entry("w1", "worker"))
    replica = Replica()
    replica.load(ABSURD, Registry().snapshot())
    replica.load(TRUE, registry.snapshot())
    assert (replica.epoch, list(replica.entries)) == (TRUE, ["w1"])
    replica.load(NEXT, Registry().snapshot())
    assert replica.load(TRUE, registry.snapshot()) == []
    assert replica.epoch == NEXT


# --- between factories ------------------------------------------------------------


def follower(*, revision: int = 0) -> ReplicatedRegistry:
    """Return a factory that follows ``a``, with its registry at a revision."""
    election = Election(["a", "b"], "b", random.Random(1))
    made = ReplicatedRegistry(election, Registry())
    made.start(0.0)
    made.receive(0.1, "a", Beat(5, TRUE, 1, revision))
    content = Registry().snapshot() | {"revision": revision}
    made.receive(0.1, "a", Snapshot(TRUE, content))
    assert election.role is Role.FOLLOWING and made.is_in_step
    return made


@pytest.mark.parametrize(
    "message",
    [
        Ask(JUMPED.number + 5, TRUE, 1),
        Ask(5, JUMPED, 1),
        Beat(5, JUMPED, 2, 0),
        Stand(5, TRUE, JUMPED),
        Grant(5, TRUE, JUMPED),
        Subscribe(JUMPED, {}),
    ],
)
def test_no_message_uses_up_the_numbers(message: Any) -> None:
    core = follower()
    with pytest.raises(RegistryError, match="no elections can have reached"):
        core.receive(0.2, "c", message)
    core.check_invariants()
    assert core.election.seen == 5


def test_factory_that_lost_its_disk_learns_where_the_others_are() -> None:
    core = follower()
    far = Epoch(core.election.seen + MAX_JUMP)
    core.receive(0.2, "c", Ask(far.number, far, 1))
    assert core.election.seen == far.number < MAX_NUMBER / 2


def test_follower_that_is_ahead_of_its_leader_is_out_of_step() -> None:
    core = follower(revision=9)
    core.receive(0.3, "a", Beat(5, TRUE, 2, 3))
    assert not core.is_in_step
    core.receive(0.3, "a", Snapshot(TRUE, Registry().snapshot()))
    assert core.is_in_step and core.registry.revision == 0


@pytest.mark.parametrize(
    "about",
    [
        {"pid": "7"},
        {"started_at": None},
        {"started_at": [1.0]},
        {7: 7},
        {"x" * 100: 1},
        dict.fromkeys(map(str, range(100)), 1),
        [],
    ],
)
def test_factory_says_a_few_numbers_about_itself(about: Any) -> None:
    good = Subscribe(NO_EPOCH, {"pid": 7, "started_at": 1.5})
    assert from_fields(to_fields(good)) == good
    with pytest.raises(RegistryError):
        from_fields(["subscribe", list(NO_EPOCH), about])
