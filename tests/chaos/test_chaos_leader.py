"""The factory that leads is killed, stands still, or is replaced, under a map."""

from __future__ import annotations

import shutil
import statistics
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chaos_scene import LENGTH, scene, tell
from chaos_watch import watched

from opencluster.core.registry import Entry
from opencluster.errors import OpenClusterError

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120 + 120 * LENGTH)]

KILLS = round(20 * LENGTH)
PIECES = 10_000


def write() -> tuple[str, Mapping[str, Any]]:
    """Return the identity and the arguments of a registration."""
    identity = f"intruder-{uuid.uuid4().hex}"
    return identity, {"entries": [Entry(identity, "failure").to_fields()]}


def test_the_leader_is_killed_again_and_again_under_a_map() -> None:
    with scene() as here:
        here.start_prober()
        here.start_map(PIECES, seconds=0.01)
        interruptions = []
        with watched(here.cluster) as watch:
            for _ in range(KILLS):
                leader = here.cluster.leader()
                killed_at = time.monotonic()
                here.cluster.kill(leader)
                interruptions.append(here.interruption_s(killed_at))
                here.cluster.restart(leader)
            here.check_whole()
        account = here.finish_map()
    tell(
        f"kill -9 of the leader, {KILLS} times, each started again",
        account,
        f"{len(watch.claims)} epochs",
        f"look-ups interrupted for {statistics.median(interruptions):.2f} s (median), "
        f"{max(interruptions):.2f} s (longest)",
    )
    account.check()
    assert account.asked >= PIECES
    # the factories have nothing to do with work that is under way
    assert account.runs == account.asked


def test_a_leader_that_stood_still_leads_no_more_when_it_wakes() -> None:
    with scene() as here, ThreadPoolExecutor() as pool:
        cluster = here.cluster
        here.start_prober()
        here.start_map(500)
        with watched(cluster):
            sleeper = cluster.leader()
            others = [name for name in cluster.factories if name != sleeper]
            stopped_at = time.monotonic()
            cluster.stop(sleeper)
            # a write that lies in its socket when it wakes
            identity, entries = write()
            late = pool.submit(cluster.ask, sleeper, "register", entries, 30)
            leader = cluster.leader(others)
            interruption_s = here.interruption_s(stopped_at)
            here.await_results(50)
            cluster.go_on(sleeper)
            assert isinstance(late.exception(30), OpenClusterError), "it took a write"
            assert cluster.leader() == leader
            assert identity not in {e["id"] for e in cluster.registered()}
        assert "no leader is known" in cluster.programs[sleeper].said()
        here.check_whole()
        account = here.finish_map()
    tell(
        "SIGSTOP of the leader past its lease, then SIGCONT",
        account,
        f"look-ups interrupted for {interruption_s:.2f} s",
    )
    account.check()
    assert account.runs == account.asked


def test_a_rolling_restart_is_hardly_noticed() -> None:
    with scene() as here:
        cluster = here.cluster
        here.start_prober()
        here.start_map(500)
        interruptions = []
        with watched(cluster):
            for name in cluster.factories:
                ended_at = time.monotonic()
                assert cluster.end(name) == 0
                interruptions.append(here.interruption_s(ended_at))
                cluster.restart(name)
                cluster.leader()
                here.await_results(20)
            here.check_whole()
        account = here.finish_map()
    tell(
        "rolling restart of 3 factories by SIGTERM",
        account,
        f"look-ups interrupted for {max(interruptions):.2f} s (longest of 3)",
    )
    account.check()
    assert account.runs == account.asked


def test_factories_without_their_disks_take_part_again() -> None:
    with scene() as here:
        cluster = here.cluster
        here.start_map(500)
        with watched(cluster):
            leader = cluster.leader()
            follower = next(name for name in cluster.factories if name != leader)
            for name in (follower, leader):
                cluster.kill(name)
                shutil.rmtree(cluster.directory(name))
                cluster.restart(name)
                cluster.leader()
                here.await_results(20)
            here.check_whole()
        account = here.finish_map()
    tell("a follower, then the leader, replaced by one without a disk", account)
    account.check()
    assert account.runs == account.asked


def test_all_factories_die_and_everyone_registers_again() -> None:
    with scene() as here:
        cluster = here.cluster
        here.start_prober()
        here.start_map(500)
        with watched(cluster):
            before = cluster.hello(cluster.leader())
            killed_at = time.monotonic()
            for name in cluster.factories:
                cluster.kill(name)
            # managers and workers know each other already
            here.await_results(400)
            down_s = time.monotonic() - killed_at
            for name in cluster.factories:
                cluster.restart(name)
            interruption_s = here.interruption_s(killed_at)
            after = cluster.hello(cluster.leader())
            here.check_whole()
        assert before and after and after["epoch"][0] > before["epoch"][0]
        account = here.finish_map()
    tell(
        f"all 3 factories killed, and started again after {down_s:.1f} s",
        account,
        f"look-ups interrupted for {interruption_s:.2f} s",
    )
    account.check()
    assert account.runs == account.asked
