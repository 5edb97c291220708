"""Peers that fail are told of and left out; the others are measured all the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench import contestant, plan, workloads
from bench.contest import Contest
from bench.outcome import Outcome
from bench.peers import catalogue
from bench.peers.catalogue import OURS, Listing

pytestmark = pytest.mark.processes

BUDGET_S = 0.01


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a peer that works stand in for OpenCluster."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setitem(catalogue._BY_NAME, OURS, listing("Honest", OURS))


def listing(cls: str, name: str = "") -> Listing:
    return Listing(name or cls.lower(), f"bench_peers:{cls}", "a peer of the tests")


def hold(peers: list[str], names: list[str], rounds: int = 1) -> Outcome:
    chosen = [workloads.find(name) for name in names]
    places = plan.every([listing(cls) for cls in peers], chosen, [1], [])
    contest = Contest(plan.bouts(places, rounds), BUDGET_S)
    contest.run()
    return contest.outcome


def test_both_sides_are_measured_in_every_round_and_their_ratios_taken() -> None:
    names = ["startup", "memory", "roundtrip", "pieces", "blocks-100k", "figure8"]
    outcome = hold(["Honest"], names, rounds=2)
    assert outcome.left_out == []
    for name in names:
        at = 10 if name == "figure8" else 0
        for peer in (OURS, "honest"):
            values = outcome.values(peer, name, 1, at)
            assert set(values) == {(1, "honest"), (2, "honest")}
            assert all(math.isfinite(v) and v > 0 for v in values.values())
        assert len(outcome.ratios("honest", name, 1, at)) == 2


def test_after_the_first_round_no_more_is_begun_than_there_is_time_for() -> None:
    places = plan.every([listing("Honest")], [workloads.find("pieces")], [1], [])
    contest = Contest(plan.bouts(places, rounds=1000), BUDGET_S)
    contest.run(limit_s=0)
    assert {s.round for s in contest.outcome.samples} == {1}


@pytest.mark.parametrize(
    ("cls", "workload", "why"),
    [
        ("Miscounts", "pieces", "1023 of 1024 pieces were answered"),
        ("Corrupts", "blocks-5m", "block 1 of 5242880 bytes"),
        ("Dies", "pieces", "about to die"),
    ],
)
def test_a_peer_that_fails_at_one_thing_is_left_out_of_that(
    cls: str, workload: str, why: str
) -> None:
    outcome = hold([cls], ["roundtrip", workload], rounds=2)
    (left_out,) = outcome.left_out
    assert left_out.peer == cls.lower()
    assert left_out.what == f"{workload} with 1 worker"
    assert why in left_out.why
    assert outcome.values(cls.lower(), workload, 1) == {}
    assert len(outcome.values(cls.lower(), "roundtrip", 1)) == 2
    assert len(outcome.values(OURS, workload, 1)) == 2


def test_a_peer_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestant, "SLICE_TIMEOUT_S", 1.0)
    outcome = hold(["Hangs", "Honest"], ["pieces"])
    (left_out,) = outcome.left_out
    assert (left_out.peer, left_out.what) == ("hangs", "pieces with 1 worker")
    assert "more than 1 s" in left_out.why
    assert len(outcome.values("honest", "pieces", 1)) == 1


def test_a_peer_that_does_not_start_does_not_keep_the_other_from_it() -> None:
    outcome = hold(["DoesNotStart"], ["pieces"], rounds=2)
    (left_out,) = outcome.left_out
    assert left_out.what == "the start with 1 worker"
    assert "no room" in left_out.why
    assert len(outcome.values(OURS, "pieces", 1)) == 2


def test_what_a_peer_leaves_behind_is_ended_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contestant.processes, "GRACE_S", 0.1)
    outcome = hold(["Leaves"], ["roundtrip"])
    (left_out,) = outcome.left_out
    assert left_out.peer == "leaves"
    assert left_out.why == "left 1 of its processes behind, which had to be ended"
    assert len(outcome.values("leaves", "roundtrip", 1)) == 1
