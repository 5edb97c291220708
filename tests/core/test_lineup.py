"""What factories tell people of each other."""

from __future__ import annotations

from random import Random
from typing import Any

from opencluster.core.election import Election
from opencluster.core.epochs import Epoch
from opencluster.core.factory_messages import Ask, Beat, Heard, Subscribe, Tell
from opencluster.core.lineup import lineup
from opencluster.core.registry import Registry
from opencluster.core.replication import ReplicatedRegistry

NAMES = ["a", "b", "c"]
OF_A = Epoch(3, 0, 7)
ABOUT = {"pid": 7, "started_at": 1000.0, "list": 42}


def factory(me: str) -> ReplicatedRegistry:
    core = ReplicatedRegistry(Election(NAMES, me, Random(1)), Registry(), ABOUT)
    core.start(0.0)
    return core


def leader() -> ReplicatedRegistry:
    core = factory("a")
    for name in ("b", "c"):
        core.peer_lost(0.0, name)
    wanted = core.election._wanted
    assert wanted is not None
    core.saved(0.0, wanted)
    return core


def rows(core: ReplicatedRegistry, now: float) -> dict[str, dict[str, Any]]:
    return {row["endpoint"]: row for row in lineup(core, now, 1060.0)}


def test_one_that_looks_knows_of_nobody() -> None:
    told = rows(factory("b"), 0.1)
    assert list(told) == NAMES
    assert told["b"]["role"] == "looking"
    assert (told["b"]["lag"], told["b"]["uptime_s"]) == (None, 60.0)
    assert told["a"] == {"endpoint": "a", "role": "unknown"}


def test_a_leader_misses_those_that_do_not_follow() -> None:
    told = rows(leader(), 0.0)
    assert (told["a"]["role"], told["a"]["lag"]) == ("leader", 0)
    assert told["a"]["silence_s"] == 0.0
    assert told["b"] == {"endpoint": "b", "role": "absent"}


def test_a_leader_tells_how_far_behind_who_follows_is() -> None:
    core = leader()
    epoch = core.election.led
    core.receive(0.1, "b", Subscribe(epoch, ABOUT | {"pid": 8, "started_at": 1050.0}))
    core.registry.revision = 5
    core.receive(0.1, "b", Heard(1, epoch, 1, 3, True))
    told = rows(core, 0.3)["b"]
    assert told["silence_s"] == 0.3 - 0.1
    assert (told["role"], told["revision"], told["lag"]) == ("follower", 3, 2)
    assert (told["pid"], told["epoch"], told["uptime_s"]) == (8, epoch, 10.0)
    assert not told["has_other_list"]
    assert rows(core, 9.0)["b"]["role"] == "absent"


def test_one_that_joined_stands_last_and_its_list_is_told_from_ours() -> None:
    core = leader()
    core.receive(0.1, "x", Subscribe(core.election.led, ABOUT | {"list": 43}))
    told = rows(core, 0.2)
    assert list(told) == [*NAMES, "x"]
    assert told["x"]["has_other_list"]


def test_a_follower_knows_who_leads() -> None:
    core = factory("b")
    core.receive(0.1, "a", Ask(3, OF_A, 1))
    core.receive(0.1, "a", Tell(3, OF_A, 1, "leading", True, "a", OF_A))
    core.receive(0.2, "a", Beat(3, OF_A, 1, 0))
    told = rows(core, 0.7)
    assert told["a"] == {"endpoint": "a", "role": "leader"}
    assert told["b"]["role"] == "follower"
    assert told["b"]["silence_s"] == 0.7 - 0.2
    assert told["c"] == {"endpoint": "c", "role": "unknown"}
