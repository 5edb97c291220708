"""Clocks that jump or run at another speed, on some computers and not on others."""

from __future__ import annotations

import time

import pytest
from chaos_clock import RIGHT, Clocks
from chaos_cluster import FACTORY_PORT, ChaosCluster, wait_until
from chaos_report import Tell
from chaos_scene import TIMEOUT_S, scene
from chaos_watch import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(TIMEOUT_S)]

JUMPS = ("+3600", "-86400", "+315360000", RIGHT)
"""An hour ahead, a day back, ten years ahead, and right; in seconds."""
NAP = "+30"
FAST, SLOW = "+0 x1.2", "+0 x0.85"
"""Within what a lease allows for: a leader relies on 3/4 of it."""


def uptime_s(cluster: ChaosCluster, factory: str) -> float:
    """Return for how long a factory says that it is up, by the time of day."""
    name = f"tcp://{cluster.net.host(factory).address}:{FACTORY_PORT}"
    rows = cluster.ask(factory, "status")["factories"]
    return next(float(row["uptime_s"]) for row in rows if row["endpoint"] == name)


def test_the_clocks_of_all_computers_jump_and_nothing_happens(tell: Tell) -> None:
    clocks = Clocks()
    with scene(around=clocks.around) as here:
        cluster = here.cluster
        here.start_map(500)
        with watched(cluster) as watch:
            leader = cluster.leader()
            programs = [*cluster.factories, *here.workshops, "manager"]
            jumped_at = time.monotonic()
            # neighbours never agree
            for turn in range(len(JUMPS)):
                for place, program in enumerate(programs):
                    clocks.set(program, JUMPS[(place + turn) % len(JUMPS)])
                jump_s = float(JUMPS[turn])
                wait_until(
                    lambda: abs(uptime_s(cluster, "f1") - jump_s) < 1000,  # noqa: B023
                    "the clock of the first factory jumps",
                )
                here.await_results(100)
                assert cluster.leader() == leader
            here.check_whole()
            interruption_s = here.interruption_s(jumped_at)
        outcome = here.finish_map(
            "clocks of all computers jump by an hour, a day and ten years, apart",
            [interruption_s],
            f"{len(watch.claims)} epoch",
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked
    assert len(watch.claims) == 1, "a leader fell"


def test_computers_sleep_and_wake_one_after_another(tell: Tell) -> None:
    clocks = Clocks(is_monotonic_too=True)
    with scene(around=clocks.around) as here:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            former = cluster.leader()
            before = cluster.hello(former)
            for program in [former, *here.workshops, "manager"]:
                slept_at = time.monotonic()
                clocks.set(program, NAP)
                here.await_results(100)
                interruptions_s.append(here.interruption_s(slept_at))
                here.check_whole()
            after = cluster.hello(former)
        said = cluster.programs[former].said()
        outcome = here.finish_map(
            "the clock that never jumps does, by 30 s, as after a sleep: that of the "
            "leader, of each workshop and of the manager",
            interruptions_s,
        )
    tell(outcome)
    outcome.account.check()
    # it may lead again, but not go on as if nothing had been
    assert "stood still for" in said
    assert before and after and after["epoch"] > before["epoch"]


def test_clocks_that_run_at_other_speeds(tell: Tell) -> None:
    clocks = Clocks(is_monotonic_too=True)
    clocks.begin("f1", FAST)
    clocks.begin("f2", SLOW)
    settings = {"factory.quorum": "majority"}
    with scene(settings=settings, around=clocks.around) as here:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            for _ in cluster.factories:
                leader = cluster.leader()
                killed_at = time.monotonic()
                cluster.kill(leader)
                interruptions_s.append(here.interruption_s(killed_at))
                cluster.restart(leader)
                cluster.leader()
                here.await_results(20)
            here.check_whole()
        outcome = here.finish_map(
            "kill -9 of the leader, 3 times; the clock of one factory runs 20 % too "
            "fast, that of another 15 % too slow; quorum majority",
            interruptions_s,
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked
