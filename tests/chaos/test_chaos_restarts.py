"""Factories are restarted, replaced, and lose their disks, while work runs."""

from __future__ import annotations

import shutil
import time

import pytest
from chaos_cluster import ChaosCluster, wait_until
from chaos_report import Tell
from chaos_scene import TIMEOUT_S, scene
from chaos_watch import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(TIMEOUT_S)]

NEWCOMER = "n1"


def test_a_rolling_restart_is_hardly_noticed(tell: Tell) -> None:
    with scene() as here:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            for name in cluster.factories:
                ended_at = time.monotonic()
                assert cluster.end(name) == 0
                interruptions_s.append(here.interruption_s(ended_at))
                cluster.restart(name)
                cluster.leader()
                here.await_results(20)
            here.check_whole()
        outcome = here.finish_map(
            "rolling restart of 3 factories by SIGTERM", interruptions_s
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked


def strays(cluster: ChaosCluster) -> int:
    """Return how many factories go by another list than the one that leads."""
    rows = cluster.client.factory("status")["factories"]
    return sum(row.get("has_other_list", False) for row in rows)


@pytest.mark.parametrize("quorum", ["courtesy", "majority"])
def test_a_factory_is_replaced_by_one_at_another_address(
    quorum: str, tell: Tell
) -> None:
    """In the order that docs/factories.md gives, with the leader as the one to go."""
    with scene(settings={"factory.quorum": quorum}, spare=[NEWCOMER]) as here:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            before = cluster.hello(cluster.leader())
            former = cluster.leader()
            others = [name for name in cluster.factories if name != former]
            ended_at = time.monotonic()
            assert cluster.end(former) == 0
            interruptions_s.append(here.interruption_s(ended_at))
            cluster.list_factories(
                [NEWCOMER if name == former else name for name in cluster.factories]
            )
            cluster.start_factory(NEWCOMER)
            cluster.leader()
            wait_until(lambda: strays(cluster) == 1, "only the new one knows itself")
            for name in others:
                ended_at = time.monotonic()
                assert cluster.end(name) == 0
                interruptions_s.append(here.interruption_s(ended_at))
                cluster.start_factory(name)
                cluster.leader()
                here.await_results(20)
            wait_until(lambda: not strays(cluster), "all have the new list")
            # everyone else still has the old list, and finds who leads by the others
            here.check_whole()
            after = cluster.hello(NEWCOMER)
            assert before and after and after["epoch"][0] > before["epoch"][0]
            # the new one counts in full
            ended_at = time.monotonic()
            cluster.kill(others[0])
            interruptions_s.append(here.interruption_s(ended_at))
            assert cluster.leader() in (NEWCOMER, others[1])
            cluster.restart(others[0])
            here.check_whole()
        outcome = here.finish_map(
            "the leader replaced by a factory at another address, the others restarted "
            f"with the new list, then one of them killed; quorum {quorum}",
            interruptions_s,
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked


def test_factories_without_their_disks_take_part_again(tell: Tell) -> None:
    with scene() as here:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            leader = cluster.leader()
            follower = next(name for name in cluster.factories if name != leader)
            for name in (follower, leader):
                killed_at = time.monotonic()
                cluster.kill(name)
                shutil.rmtree(cluster.directory(name))
                cluster.restart(name)
                cluster.leader()
                here.await_results(20)
                interruptions_s.append(here.interruption_s(killed_at))
            here.check_whole()
        outcome = here.finish_map(
            "a follower, then the leader, killed and started again without its disk",
            interruptions_s,
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked


def test_all_factories_die_and_everyone_registers_again(tell: Tell) -> None:
    with scene() as here:
        cluster = here.cluster
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
        outcome = here.finish_map(
            "all 3 factories killed, and started again later",
            [interruption_s],
            f"none was there for {down_s:.1f} s",
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked
