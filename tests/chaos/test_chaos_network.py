"""A network that is cut in two, loses packets, or carries them one way only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos_cluster import ChaosCluster, wait_until
from chaos_report import Tell
from chaos_scene import IS_FULL, MANAGER, SECONDS, TIMEOUT_S, Scene, scene
from chaos_watch import watched
from test_chaos_leader import write

from opencluster.errors import FactoryUnreachable, OpenClusterError

pytestmark = [pytest.mark.processes, pytest.mark.timeout(TIMEOUT_S)]

SOON = {
    "network.zmtp_heartbeat_s": 0.5,
    "network.zmtp_timeout_s": 3,
    "cluster.lease_s": 4,
}
"""Settings under which silence is taken for a loss before the test grows long."""
VANISHINGS = max(2, round(SECONDS / 6))
LOSSY_S = SECONDS / 3
CUTS = [("courtesy", "most"), ("majority", "few")]
"""The quorum, and with how many factories the manager and the prober are."""
MORE_CUTS = [("courtesy", "few"), ("majority", "most")]


def takes_writes(cluster: ChaosCluster, factory: str) -> bool:
    """Return whether a factory accepts a registration."""
    identity, entries = write()
    try:
        cluster.ask(factory, "register", entries)
    except FactoryUnreachable:
        raise
    except OpenClusterError:
        return False
    with contextlib.suppress(OpenClusterError):
        cluster.ask(factory, "deregister", {"id": identity})
    return True


def accepted_writes(
    cluster: ChaosCluster, factories: Sequence[str], is_over: threading.Event
) -> list[tuple[float, float]]:
    """Write to factories in turn until it is over.

    Returns when each write that was accepted was begun, and when that was known.
    """
    accepted = []
    while not is_over.wait(0.03):
        for factory in factories:
            begun_at = time.monotonic()
            if takes_writes(cluster, factory):
                accepted.append((begun_at, time.monotonic()))
    return accepted


def await_writes(cluster: ChaosCluster, factory: str) -> None:
    wait_until(lambda: takes_writes(cluster, factory), f"{factory} takes writes")


def await_known(cluster: ChaosCluster, factory: str, shops: Sequence[str]) -> None:
    """Wait until a factory knows these workshops and no others."""

    def knows() -> bool:
        found = cluster.ask(factory, "find", {"kind": "workshop"})
        return sorted(entry["name"] for entry in found) == sorted(shops)

    wait_until(knows, f"{factory} knows {shops} alone")


@pytest.mark.parametrize(
    ("quorum", "manager_with"), [*CUTS, *(MORE_CUTS if IS_FULL else ())]
)
def test_the_network_is_cut_in_two_and_healed(
    quorum: str, manager_with: str, tell: Tell
) -> None:
    settings = SOON | {"factory.quorum": quorum}
    with scene(settings=settings) as here, ThreadPoolExecutor() as pool:
        net, cluster = here.net, here.cluster
        here.start_map(1000)
        with watched(cluster):
            # the leader is on the side of the few
            leader = cluster.leader()
            few, most = [leader], [n for n in cluster.factories if n != leader]
            few_side, most_side = [*few, "w1"], [*most, "w2"]
            (few_side if manager_with == "few" else most_side).append(MANAGER)
            is_over = threading.Event()
            writes = [
                pool.submit(accepted_writes, cluster, side, is_over)
                for side in (few, most)
            ]
            try:
                cut_at = time.monotonic()
                net.cut(few_side, most_side)
                other = cluster.leader(most)
                await_writes(cluster, other)
                # each side knows those of its own, when the leases are over
                await_known(cluster, other, ["w2"])
                if quorum == "courtesy":
                    assert cluster.roles()[leader] == "leader"
                    await_known(cluster, leader, ["w1"])
                here.await_results(100)
            finally:
                is_over.set()
            by_few, by_most = (side.result() for side in writes)
            most_lead_at = min(known_at for _, known_at in by_most)
            both = [begun_at for begun_at, _ in by_few if begun_at > most_lead_at]
            assert by_few, "the leader accepted no write before the cut"
            assert bool(both) == (quorum == "courtesy")
            cut_s = time.monotonic() - cut_at
            net.heal()
            healed_at = time.monotonic()
            cluster.leader()
            settled_s = time.monotonic() - healed_at
            here.check_whole()
            interruption_s = here.interruption_s(cut_at)
        outcome = here.finish_map(
            f"network cut in two and healed, quorum {quorum}, the manager on the side "
            f"of the {manager_with} factories",
            [interruption_s],
            f"{len(both)} writes accepted by the few while the most accepted "
            f"{len(by_most)}",
            f"cut for {cut_s:.1f} s",
            f"one leader {settled_s:.2f} s after that",
        )
    tell(outcome)
    outcome.account.check()


def test_the_computer_of_the_leader_vanishes(tell: Tell) -> None:
    with scene() as here:
        net, cluster = here.net, here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            for _ in range(VANISHINGS):
                leader = cluster.leader()
                others = [name for name in cluster.factories if name != leader]
                cut_at = time.monotonic()
                net.cut_off(leader)
                interruptions_s.append(here.interruption_s(cut_at))
                cluster.kill(leader)
                net.heal()
                cluster.leader(others)
                cluster.restart(leader)
            here.check_whole()
        outcome = here.finish_map(
            f"the leader's computer vanishes without a word, {VANISHINGS} times",
            interruptions_s,
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked


@pytest.mark.parametrize("deaf", ["the leader", "everyone else"])
def test_packets_go_one_way_only(deaf: str, tell: Tell) -> None:
    with scene(settings=SOON) as here:
        net, cluster = here.net, here.cluster
        here.start_map(500)
        with watched(cluster):
            leader = cluster.leader()
            others = [name for name in cluster.factories if name != leader]
            rest = [*others, *here.workshops, MANAGER]
            cut_at = time.monotonic()
            if deaf == "the leader":
                net.deafen([leader], rest)
                who = "anyone"
            else:
                net.deafen(rest, [leader])
                who = "the leader"
            cluster.leader(others)
            interruption_s = here.interruption_s(cut_at)
            here.await_results(100)
            net.heal()
            here.check_whole()
        outcome = here.finish_map(
            f"packets go one way only: {deaf} heard nothing of {who}",
            [interruption_s],
        )
    tell(outcome)
    outcome.account.check()


def test_a_fifth_of_all_packets_is_lost(tell: Tell) -> None:
    with scene() as here:
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
        outcome = here.finish_map(
            f"20 % of all packets lost for {LOSSY_S:.0f} s",
            [interruption_s],
            f"{len(watch.claims)} epochs",
        )
    tell(outcome)
    outcome.account.check()


def test_a_computer_with_workers_is_cut_off_and_comes_back(tell: Tell) -> None:
    with scene(settings=SOON) as here:
        net, cluster = here.net, here.cluster
        here.start_map(500)
        with watched(cluster):
            cut_at = time.monotonic()
            net.cut_off("w1")
            leader = cluster.leader()
            await_known(cluster, leader, ["w2"])
            here.await_results(100)
            net.heal()
            here.check_whole()
            ran = len(here.runs("w1").read_text().splitlines())
            wait_until(lambda: _has_run(here, "w1", ran + 20), "w1 is used again")
            interruption_s = here.interruption_s(cut_at)
        outcome = here.finish_map(
            "a computer with workers cut off past its lease, and back",
            [interruption_s],
        )
    tell(outcome)
    outcome.account.check()


def _has_run(here: Scene, shop: str, count: int) -> bool:
    return len(here.runs(shop).read_text().splitlines()) >= count
