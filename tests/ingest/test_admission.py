"""Who comes in, how fast, and what is let go of."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.admission import Allowance, Gate, Pace, Sampler


def test_so_many_come_in_and_so_many_of_one_address() -> None:
    gate = Gate(3, 2)
    assert [gate.enter("a"), gate.enter("a")] == ["", ""]
    assert gate.enter("a") == "too many connections of one address"
    assert gate.enter("b") == ""
    assert gate.enter("c") == "too many connections"
    gate.leave("a")
    assert len(gate) == 2
    assert gate.enter("c") == ""


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_the_gate_never_lets_in_more(moves: list[tuple[str, bool]]) -> None:
    gate, inside = Gate(5, 2), Counter[str]()
    for who, comes in moves:
        if comes and not gate.enter(who):
            inside[who] += 1
        elif not comes and inside[who]:
            gate.leave(who)
            inside[who] -= 1
        assert len(gate) == inside.total() <= 5
        assert all(count <= 2 for count in inside.values())


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 2)), min_size=1, max_size=40)
)
def test_who_waits_as_told_keeps_the_rate(takes: list[tuple[int, float]]) -> None:
    allowance, now, taken = Allowance(1000.0), 0.0, 0
    for count, pause in takes:
        now += pause
        taken += count
        now += allowance.take(count, now)
        # what comes in a second may be ahead
        assert taken <= 1000.0 * (now + 1.0) + 1e-6


def test_without_a_rate_nobody_waits() -> None:
    assert Allowance(0.0).take(10**12, 0.0) == 0.0


def test_silence_and_slowness_end_a_connection() -> None:
    pace = Pace(idle_s=60.0, window_s=10.0, least=1000.0, now=0.0)
    assert pace.verdict(True, 9.9) == ""
    pace.received(9_999, 9.9)
    assert pace.verdict(True, 10.0) == "slow"
    pace.received(10_000, 19.0)
    assert pace.verdict(True, 20.0) == ""
    # nothing is owed: only silence counts
    assert pace.verdict(False, 31.0) == ""
    assert pace.verdict(False, 79.0) == "idle"
    pace.excuse(80.0)
    assert pace.verdict(False, 139.0) == ""
    assert pace.verdict(False, 140.0) == "idle"


def test_the_more_there_waits_the_fewer_are_kept() -> None:
    def kept(filled: float) -> int:
        sampler = Sampler()
        return sum(sampler.keeps(filled) for _ in range(80))

    assert [kept(f) for f in (0.0, 0.49, 0.5, 0.75, 0.9, 1.0)] == [
        80,
        80,
        40,
        20,
        10,
        10,
    ]
