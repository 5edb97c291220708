"""Virtual time, virtual clocks and a virtual network."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from opencluster.testing.virtual import (
    Faults,
    VirtualClock,
    VirtualLoop,
    VirtualNetwork,
)


def network_with(
    faults: Faults, seed: int = 1
) -> tuple[VirtualLoop, VirtualNetwork, list[int]]:
    """Return a network with a node b, and what arrives there."""
    loop = VirtualLoop()
    network = VirtualNetwork(loop, random.Random(seed))
    network.faults = faults
    arrived: list[int] = []
    network.attach("b", lambda sender, message: arrived.append(message))
    return loop, network, arrived


# --- time ---------------------------------------------------------------------


def test_events_happen_in_the_order_of_their_time() -> None:
    loop, seen = VirtualLoop(), []
    for name, at in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        loop.at(at, lambda name: seen.append((name, loop.now)), name)
    loop.run(until=2.5)
    assert seen == [("a", 1.0), ("b1", 2.0), ("b2", 2.0)]
    assert loop.now == 2.5
    assert len(loop) == 1
    assert loop.step()
    assert seen[-1] == ("c", 3.0)
    assert not loop.step()


def test_what_is_planned_for_the_past_happens_now() -> None:
    loop, seen = VirtualLoop(), []
    loop.run(until=5.0)
    loop.at(1.0, lambda: seen.append(loop.now))
    loop.after(-1.0, lambda: seen.append(loop.now))
    loop.run(until=5.0)
    assert seen == [5.0, 5.0]


def test_a_circle_of_events_is_an_error() -> None:
    loop = VirtualLoop(max_events=100)

    def again() -> None:
        loop.after(0.0, again)

    again()
    with pytest.raises(RuntimeError, match="100 events"):
        loop.run(until=1.0)


def test_a_clock_is_off_and_runs_at_its_own_rate() -> None:
    loop = VirtualLoop()
    clock = VirtualClock(loop, rate=1.1, reading_s=100.0)
    loop.run(until=10.0)
    assert clock.now() == pytest.approx(111.0)
    clock.jump(-5.0)
    assert clock.now() == pytest.approx(106.0)
    clock.run_at(0.5)
    assert clock.now() == pytest.approx(106.0)
    loop.run(until=20.0)
    assert clock.now() == pytest.approx(111.0)


# --- the network ----------------------------------------------------------------


def test_without_faults_all_arrives_once_and_some_overtake() -> None:
    loop, network, arrived = network_with(Faults(delay_s=0.1))
    for number in range(100):
        network.send("a", "b", number)
    loop.run(until=0.049)
    assert not arrived
    loop.run(until=0.151)
    assert sorted(arrived) == list(range(100))
    assert arrived != sorted(arrived)


def test_messages_are_lost_doubled_and_late() -> None:
    faults = Faults(loss=0.2, duplication=0.3, delay_s=0.01, lateness=0.1, late_s=5.0)
    loop, network, arrived = network_with(faults)
    for number in range(2000):
        network.send("a", "b", number)
    loop.run(until=0.02)
    in_time = len(arrived)
    loop.run(until=10.0)
    times = Counter(Counter(arrived).values())
    assert network.lost == 2000 - len(set(arrived))
    assert 300 < network.lost < 500
    assert 400 < times[2] < 560
    assert max(times) == 2
    assert 0.05 < 1.0 - in_time / len(arrived) < 0.15


def test_the_same_seed_treats_messages_the_same() -> None:
    faults = Faults(loss=0.3, duplication=0.3, lateness=0.3, late_s=1.0)
    runs = []
    for seed in (7, 7, 8):
        loop, network, arrived = network_with(faults, seed)
        for number in range(100):
            network.send("a", "b", number)
        loop.run(until=10.0)
        runs.append(arrived)
    assert runs[0] == runs[1] != runs[2]


def test_a_cut_has_a_direction_and_spares_what_is_under_way() -> None:
    loop, network, arrived = network_with(Faults())
    back: list[int] = []
    network.attach("a", lambda sender, message: back.append(message))
    network.send("a", "b", 1)
    network.cut(["a"], ["b"])
    assert network.is_cut("a", "b")
    assert not network.is_cut("b", "a")
    network.send("a", "b", 2)
    network.send("b", "a", 3)
    loop.run(until=1.0)
    assert (arrived, back, network.lost) == ([1], [3], 1)


def test_a_cut_lasts_until_each_has_been_mended() -> None:
    _, network, _ = network_with(Faults())
    network.part(["a"], ["b", "c"])
    network.cut(["a"], ["b"])
    network.mend(["a"], ["b"])
    assert network.is_cut("a", "b")
    network.mend(["a"], ["b", "c"])
    assert not network.is_cut("a", "b")
    assert not network.is_cut("a", "c")
    assert network.is_cut("c", "a")
    network.mend(["a"], ["b"])
    network.heal()
    assert not network.is_cut("c", "a")


def test_healing_takes_back_all_but_the_delay() -> None:
    _, network, _ = network_with(Faults(loss=1.0, delay_s=0.5, lateness=1.0))
    network.heal()
    assert network.faults == Faults(delay_s=0.5)


def test_what_is_sent_to_nobody_is_lost() -> None:
    loop, network, arrived = network_with(Faults())
    network.send("a", "b", 1)
    network.detach("b")
    network.send("a", "c", 2)
    loop.run(until=1.0)
    assert (arrived, network.lost) == ([], 2)
