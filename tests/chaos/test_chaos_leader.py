"""The factory that leads is killed, or stands still, under a map."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chaos_report import Tell
from chaos_scene import IS_FULL, SECONDS, TIMEOUT_S, WIDE, scene
from chaos_watch import watched

from opencluster.core.entries import Entry
from opencluster.errors import OpenClusterError

pytestmark = [pytest.mark.processes, pytest.mark.timeout(TIMEOUT_S)]

KILLS = max(5, round(SECONDS / 3))
PIECES = 10_000 if IS_FULL else 2_000
STOPS = max(1, round(SECONDS / 12))


def write() -> tuple[str, Mapping[str, Any]]:
    """Return the identity and the arguments of a registration."""
    identity = f"intruder-{uuid.uuid4().hex}"
    return identity, {"entries": [Entry(identity, "failure").to_fields()]}


def test_the_leader_is_killed_again_and_again_under_a_map(tell: Tell) -> None:
    with scene(settings=WIDE) as here:
        here.start_map(PIECES, seconds=0.01)
        interruptions_s = []
        with watched(here.cluster) as watch:
            for _ in range(KILLS):
                leader = here.cluster.leader()
                killed_at = time.monotonic()
                here.cluster.kill(leader)
                interruptions_s.append(here.interruption_s(killed_at))
                here.cluster.restart(leader)
            here.check_whole()
        outcome = here.finish_map(
            f"kill -9 of the leader, {KILLS} times, each started again",
            interruptions_s,
            f"{len(watch.claims)} epochs",
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.asked >= PIECES
    # the factories have nothing to do with work that is under way
    assert outcome.account.runs == outcome.account.asked


def test_a_leader_that_stood_still_leads_no_more_when_it_wakes(tell: Tell) -> None:
    with scene() as here, ThreadPoolExecutor() as pool:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            for _ in range(STOPS):
                sleeper = cluster.leader()
                others = [name for name in cluster.factories if name != sleeper]
                stopped_at = time.monotonic()
                cluster.stop(sleeper)
                # a write that lies in its socket when it wakes
                identity, entries = write()
                late = pool.submit(cluster.ask, sleeper, "register", entries, 30)
                leader = cluster.leader(others)
                interruptions_s.append(here.interruption_s(stopped_at))
                here.await_results(50)
                cluster.go_on(sleeper)
                error = late.exception(30)
                assert isinstance(error, OpenClusterError), "it took a write"
                assert cluster.leader() == leader
                assert identity not in {e["id"] for e in cluster.registered()}
                assert "no leader is known" in cluster.programs[sleeper].said()
            here.check_whole()
        outcome = here.finish_map(
            f"SIGSTOP of the leader past its lease, then SIGCONT, {_times(STOPS)}",
            interruptions_s,
            "it stepped down when it woke",
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
