"""A network that is cut in two, loses packets, or carries them one way only."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import pytest
from chaos_cluster import ChaosCluster, wait_until
from chaos_scene import LENGTH, MANAGER, Scene, scene, tell
from chaos_watch import watched
from test_chaos_leader import write

from opencluster.errors import FactoryUnreachable, OpenClusterError

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120 + 60 * LENGTH)]

SOON = {
    "network.zmtp_heartbeat_s": 0.5,
    "network.zmtp_timeout_s": 3,
    "cluster.lease_s": 4,
}
"""Settings under which silence is taken for a loss before the test grows long."""
VANISHINGS = round(5 * LENGTH)
LOSSY_S = 10 * LENGTH


def takes_writes(cluster: ChaosCluster, factory: str) -> bool:
    """Return whether a factory accepts a registration."""
    identity, entries = write()
    try:
        cluster.ask(factory, "register", entries)
    except FactoryUnreachable:
        raise
    except OpenClusterError:
        return False
    cluster.ask(factory, "deregister", {"id": identity})
    return True


def await_writes(cluster: ChaosCluster, factory: str) -> None:
    wait_until(lambda: takes_writes(cluster, factory), f"{factory} takes writes")


def await_known(cluster: ChaosCluster, factory: str, shops: Sequence[str]) -> None:
    """Wait until a factory knows these workshops and no others."""

    def knows() -> bool:
        found = cluster.ask(factory, "find", {"kind": "workshop"})
        return sorted(entry["name"] for entry in found) == sorted(shops)

    wait_until(knows, f"{factory} knows {shops} alone")


@pytest.mark.parametrize("quorum", ["courtesy", "majority"])
@pytest.mark.parametrize("manager_with", ["few", "most"])
def test_the_network_is_cut_in_two_and_healed(quorum: str, manager_with: str) -> None:
    with scene(settings=SOON | {"factory.quorum": quorum}) as here:
        net, cluster = here.net, here.cluster
        here.start_prober()
        here.start_map(1000)
        with watched(cluster):
            # the leader is on the side of the few
            leader = cluster.leader()
            few, most = [leader], [n for n in cluster.factories if n != leader]
            few_side, most_side = [*few, "w1"], [*most, "w2"]
            (few_side if manager_with == "few" else most_side).append(MANAGER)
            cut_at = time.monotonic()
            net.cut(few_side, most_side)
            other = cluster.leader(most)
            await_writes(cluster, other)
            if quorum == "courtesy":
                assert cluster.roles()[leader] == "leader"
                assert takes_writes(cluster, leader)
                # each side knows those of its own, when the leases are over
                await_known(cluster, leader, ["w1"])
            else:
                for _ in range(20):
                    assert not takes_writes(cluster, leader)
                    time.sleep(0.05)
            await_known(cluster, other, ["w2"])
            here.await_results(100)
            cut_s = time.monotonic() - cut_at
            net.heal()
            healed_at = time.monotonic()
            cluster.leader()
            settled_s = time.monotonic() - healed_at
            here.check_whole()
            interruption_s = here.interruption_s(cut_at)
        account = here.finish_map()
    tell(
        f"network cut in two for {cut_s:.1f} s, quorum {quorum}, the manager with the "
        f"{manager_with}",
        account,
        f"look-ups interrupted for {interruption_s:.2f} s",
        f"one leader {settled_s:.2f} s after it healed",
    )
    account.check()


def test_the_computer_of_the_leader_vanishes() -> None:
    with scene() as here:
        net, cluster = here.net, here.cluster
        here.start_prober()
        here.start_map(500)
        interruptions = []
        with watched(cluster):
            for _ in range(VANISHINGS):
                leader = cluster.leader()
                others = [name for name in cluster.factories if name != leader]
                cut_at = time.monotonic()
                net.cut_off(leader)
                interruptions.append(here.interruption_s(cut_at))
                cluster.kill(leader)
                net.heal()
                cluster.leader(others)
                cluster.restart(leader)
            here.check_whole()
        account = here.finish_map()
    tell(
        f"the leader's computer vanishes without a word, {VANISHINGS} times",
        account,
        f"look-ups interrupted for {statistics.median(interruptions):.2f} s (median), "
        f"{max(interruptions):.2f} s (longest)",
    )
    account.check()
    assert account.runs == account.asked


@pytest.mark.parametrize("deaf", ["the leader", "everyone else"])
def test_packets_go_one_way_only(deaf: str) -> None:
    with scene(settings=SOON) as here:
        net, cluster = here.net, here.cluster
        here.start_prober()
        here.start_map(500)
        with watched(cluster):
            leader = cluster.leader()
            others = [name for name in cluster.factories if name != leader]
            rest = [*others, *here.workshops, MANAGER]
            cut_at = time.monotonic()
            if deaf == "the leader":
                net.deafen([leader], rest)
            else:
                net.deafen(rest, [leader])
            cluster.leader(others)
            interruption_s = here.interruption_s(cut_at)
            here.await_results(100)
            net.heal()
            here.check_whole()
        account = here.finish_map()
    tell(
        f"one way only: {deaf} heard nothing",
        account,
        f"look-ups interrupted for {interruption_s:.2f} s",
    )
    account.check()


def test_a_fifth_of_all_packets_is_lost() -> None:
    with scene() as here:
        here.start_prober()
        here.start_map(500)
        with watched(here.cluster) as watch:
            here.net.lose(0.2)
            lossy_at = time.monotonic()
            while time.monotonic() < lossy_at + LOSSY_S:
                here.await_results(1)
                time.sleep(0.1)
            here.net.heal()
            here.check_whole()
            interruption_s = here.interruption_s(lossy_at)
        account = here.finish_map()
    tell(
        f"20 % of all packets lost for {LOSSY_S:.0f} s",
        account,
        f"{len(watch.claims)} epochs",
        f"look-ups interrupted for {interruption_s:.2f} s (longest)",
    )
    account.check()


def test_a_computer_with_workers_is_cut_off_and_comes_back() -> None:
    with scene(settings=SOON) as here:
        net, cluster = here.net, here.cluster
        here.start_map(500)
        with watched(cluster):
            net.cut_off("w1")
            leader = cluster.leader()
            await_known(cluster, leader, ["w2"])
            here.await_results(100)
            net.heal()
            here.check_whole()
            ran = len(here.runs("w1").read_text().splitlines())
            wait_until(lambda: _has_run(here, "w1", ran + 20), "w1 is used again")
        account = here.finish_map()
    tell("a computer with workers cut off past its lease, and back", account)
    account.check()


def _has_run(here: Scene, shop: str, count: int) -> bool:
    return len(here.runs(shop).read_text().splitlines()) >= count
