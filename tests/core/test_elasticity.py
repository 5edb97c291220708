"""How many workers are launched and let go, and when nothing is."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opencluster.core.demand import Aim, Patience, Seen
from opencluster.core.elasticity import (
    ALLOCATIONS,
    Allocate,
    Elasticity,
    Free,
    Grow,
    Halt,
    Limits,
    Order,
    Shrink,
)
from opencluster.core.launching import MINUTE_S, Pace

PATIENCE = Patience(rise_s=5.0, cooldown_s=60.0, first_step=4)


def policy(
    minimum: int = 0,
    maximum: int = 100,
    target_s: float = 10.0,
    limits: Limits | None = None,
    each: dict[str, int] | None = None,
) -> Elasticity:
    return Elasticity(
        {"T": Aim(minimum, maximum, target_s)},
        limits or Limits(patience=PATIENCE, pace=Pace(60)),
        each,
    )


def counts(orders: list[Order]) -> list[int]:
    return [order.count for order in orders if not isinstance(order, Free | Halt)]


def standing(made: Elasticity) -> tuple[str, str]:
    (found,) = made.standings()
    return found.state, found.reason


# --- more -------------------------------------------------------------------


def test_work_for_which_nobody_is_there_starts_workers_at_once() -> None:
    made = policy()
    (order,) = made.look(0.0, {"T": Seen(3)})
    assert isinstance(order, Grow)
    assert (order.type, order.count) == ("T", 3)
    assert "3 pieces, and nobody knows yet how long one takes" in order.reason
    assert counts(policy().look(0.0, {"T": Seen(300)})) == [4]


def test_nothing_is_done_without_work() -> None:
    made = policy()
    assert made.look(0.0, {}) == []
    assert standing(made) == ("steady", "nothing waits")


def test_the_minimum_is_there_without_work() -> None:
    assert counts(policy(minimum=7).look(0.0, {})) == [7]


def test_more_are_launched_when_there_is_too_much_work_for_a_while() -> None:
    made = policy()
    much = {"T": Seen(300, 1.0, running=10)}
    assert made.look(0.0, much) == []
    assert "more come if that lasts for 5 s" in standing(made)[1]
    assert made.look(4.9, much) == []
    assert counts(made.look(5.0, much)) == [20]
    assert standing(made)[0] == "growing"


def test_a_moment_of_enough_begins_the_wait_anew() -> None:
    made = policy()
    much, enough = Seen(300, 1.0, running=10), Seen(90, 1.0, running=10)
    made.look(0.0, {"T": much})
    made.look(4.0, {"T": enough})
    made.look(4.5, {"T": much})
    assert made.look(9.0, {"T": much}) == []
    assert counts(made.look(9.5, {"T": much})) == [20]


def test_what_was_asked_for_counts_as_if_it_were_there() -> None:
    made = policy()
    made.look(0.0, {"T": Seen(4)})
    for now in (1.0, 50.0, 299.0):
        assert made.look(now, {"T": Seen(4)}) == []
    assert made.standings()[0].coming == 4


def test_no_more_workers_are_wanted_than_there_are_pieces() -> None:
    made = policy(target_s=0.001)
    made.look(0.0, {"T": Seen(6, 100.0, running=4)})
    assert counts(made.look(5.0, {"T": Seen(6, 100.0, running=4)})) == [6]


def test_a_launch_at_most_doubles_what_is_there() -> None:
    made = policy()
    much = {"T": Seen(10_000, 1.0, running=8)}
    made.look(0.0, much)
    assert counts(made.look(5.0, much)) == [16]


@pytest.mark.parametrize("mean_s", [0.0, 1e300, 1e-300])
def test_odd_durations_are_no_trouble(mean_s: float) -> None:
    made = policy(maximum=5)
    made.look(0.0, {"T": Seen(10**9, mean_s, running=1)})
    made.look(5.0, {"T": Seen(10**9, mean_s, running=1)})
    assert 1 <= made.standings()[0].wanted <= 5


def test_the_ceiling_is_one_for_all_types() -> None:
    aims = {"A": Aim(0, 50), "B": Aim(0, 50)}
    made = Elasticity(aims, Limits(ceiling=6, patience=PATIENCE))
    orders = made.look(0.0, {"A": Seen(50), "B": Seen(50)})
    assert counts(orders) == [4, 2]
    full = {"A": Seen(50, None, 4), "B": Seen(50, 50.0, 2)}
    made.look(1.0, full)
    assert made.look(60.0, full) == []
    states = {s.type: (s.state, s.reason) for s in made.standings()}
    assert states["B"][0] == "held"
    assert "there may be 6 workers in all" in states["B"][1]


# --- fewer ------------------------------------------------------------------


def test_idle_workers_go_after_a_while_half_of_them_at_a_time() -> None:
    made, running, went = policy(minimum=1), 8, []
    for now in range(0, 400):
        for order in made.look(float(now), {"T": Seen(0, 1.0, running, running)}):
            assert isinstance(order, Shrink)
            running -= order.count
            went.append((now, order.count))
    assert went == [(60, 4), (120, 2), (180, 1)]
    assert running == 1


def test_what_was_busy_stays_with_some_spare() -> None:
    made = policy()
    for now in range(0, 61):
        busy = 4 if now == 30 else 0
        orders = made.look(float(now), {"T": Seen(0, 1.0, 8, 8 - busy)})
    # 4 were busy, 5 are kept, 3 are too many: half of them go
    assert counts(orders) == [2]


def test_only_who_is_idle_is_let_go() -> None:
    made = policy()
    for now in range(0, 60):
        made.look(float(now), {"T": Seen(0, 1.0, 8, 8)})
    assert counts(made.look(60.0, {"T": Seen(1, 1.0, 8, 1)})) == []


def test_one_stays_as_long_as_values_are_kept_that_somebody_refers_to() -> None:
    made, running = policy(), 2
    for now in range(0, 400):
        seen = Seen(0, 1.0, running, running, is_holding=now < 300)
        for order in made.look(float(now), {"T": seen}):
            assert isinstance(order, Shrink)
            running -= order.count
        assert running >= (1 if now < 300 else 0)
        assert running == 2 or now >= 60
    assert running == 0


def test_what_is_in_the_way_of_a_launch_is_told() -> None:
    made = policy()
    why = "no computer can run it"
    assert made.look(0.0, {"T": Seen(5, obstacle=why)}) == []
    assert standing(made)[0] == "held"
    assert standing(made)[1].startswith(why)


def test_work_in_between_keeps_all() -> None:
    made = policy()
    for now in range(0, 600):
        load = 8 if now % 50 == 0 else 0
        assert made.look(float(now), {"T": Seen(load, 1.0, 8, 8 - load)}) == []


# --- failures ---------------------------------------------------------------


def failing() -> Elasticity:
    return policy(limits=Limits(pace=Pace(60, 3, 10.0, 60.0), patience=PATIENCE))


def test_failures_in_a_row_are_put_off_and_then_stop_it_loudly() -> None:
    made, launched, halts = failing(), [], []
    for now in range(0, 1000):
        for order in made.look(float(now), {"T": Seen(2)}):
            if isinstance(order, Halt):
                halts.append((now, order))
            else:
                launched.append(now)
                made.failed(now + 0.5, "T", "no such file")
    assert launched == [0, 11, 32]
    told = "launching failed 3 times in a row: no such file"
    assert halts == [(33, Halt("T", told))]
    assert made.is_stopped("T")
    state, reason = standing(made)
    assert state == "stopped"
    assert "until `opencluster elastic resume`" in reason


def test_after_a_resume_it_is_tried_again() -> None:
    made = failing()
    for now in range(0, 100):
        for _ in made.look(float(now), {"T": Seen(2)}):
            made.failed(float(now), "T", "no")
    assert made.launching.resume()
    assert counts(made.look(100.0, {"T": Seen(2)})) == [2]


def test_who_is_not_ready_in_time_has_failed() -> None:
    made = failing()
    made.look(0.0, {"T": Seen(2)})
    made.look(300.0, {"T": Seen(2, None, 1, 1)})
    held = made.launching.held(300.0, "T")
    assert "waits 10 s" in held
    made.look(320.0, {"T": Seen(2, None, 1, 1)})
    assert counts(made.look(325.0, {"T": Seen(2, None, 1, 1)})) == [2]
    made.look(326.0, {"T": Seen(2, None, 2, 2)})
    assert not made.launching.held(326.0, "T")


def test_a_stopped_type_still_lets_its_idle_workers_go() -> None:
    made = failing()
    for _ in range(3):
        made.failed(0.0, "T", "no")
    orders = [o for n in range(70) for o in made.look(n, {"T": Seen(0, 1.0, 2, 2)})]
    assert [type(order) for order in orders] == [Halt, Shrink]


def test_why_it_is_stopped_is_told_whatever_else_stands_in_the_way() -> None:
    made = failing()
    for _ in range(3):
        made.failed(0.0, "T", "no such file")
    made.look(100.0, {"T": Seen(2, obstacle="an order is being carried out")})
    state, reason = standing(made)
    assert state == "stopped"
    assert "no such file" in reason


# --- allocations ------------------------------------------------------------


def test_allocations_bring_workers_of_all_types() -> None:
    aims = {"A": Aim(0, 40, 10.0), "B": Aim(0, 8, 10.0)}
    made = Elasticity(aims, Limits(patience=PATIENCE), {"A": 8, "B": 2})
    (order,) = made.look(0.0, {"A": Seen(20)})
    assert isinstance(order, Allocate)
    assert order.count == 1
    assert order.reason.startswith("A: 20 pieces")
    # the one that is to come counts
    assert made.look(1.0, {"A": Seen(8, None, pending=8), "B": Seen(0)}, 1) == []


def test_a_maximum_holds_for_what_allocations_bring() -> None:
    made = policy(maximum=10, each={"T": 4})
    seen = {"T": Seen(1000, 10.0, running=8)}
    made.look(0.0, seen, 2)
    assert made.look(10.0, seen, 2) == []
    assert standing(made)[0] == "held"
    assert "beyond its maximum of 10" in standing(made)[1]


def test_only_so_many_allocations_stand_or_wait() -> None:
    limits = Limits(allocations=3, patience=PATIENCE)
    made = policy(limits=limits, each={"T": 1})
    for now in (0.0, 5.0):
        made.look(now, {"T": Seen(1000, 10.0, running=3)}, 3)
    assert "3 allocations may stand or wait" in standing(made)[1]
    # one that is being given back stands, too
    made = policy(limits=limits, each={"T": 1})
    for now in (0.0, 5.0):
        assert made.look(now, {"T": Seen(1000, 10.0, running=2)}, 2, leaving=1) == []
    assert "3 allocations may stand or wait" in standing(made)[1]


def test_a_type_that_no_node_brings_is_held() -> None:
    made = policy(each={"Other": 1})
    assert made.look(0.0, {"T": Seen(5)}) == []
    assert standing(made)[0] == "held"
    assert "no node brings a T" in standing(made)[1]


def test_an_allocation_is_given_back_when_as_many_were_idle_of_all_types() -> None:
    aims = {"A": Aim(0, 40, 10.0), "B": Aim(0, 40, 10.0)}
    made = Elasticity(aims, Limits(patience=PATIENCE), {"A": 4, "B": 4})
    idle = {"A": Seen(0, 1.0, 8, 8), "B": Seen(0, 1.0, 8, 4)}
    busy = {"A": Seen(0, 1.0, 8, 8), "B": Seen(0, 1.0, 8, 0)}
    found = [o for now in range(200) for o in made.look(float(now), busy, 2)]
    assert found == []
    found = [o for now in range(200, 330) for o in made.look(float(now), idle, 2)]
    # 4 of B are busy, so 5 are kept, and a whole allocation would be too many
    assert found == []
    idle["B"] = Seen(0, 1.0, 8, 8)
    found = [o for now in range(330, 450) for o in made.look(float(now), idle, 2)]
    assert [type(order) for order in found] == [Free]
    assert not any(made.look(now, idle, 0) for now in range(450, 600))


def test_allocations_that_fail_stop_all_types() -> None:
    made = policy(limits=Limits(pace=Pace(60, 1), patience=PATIENCE), each={"T": 1})
    made.failed(0.0, ALLOCATIONS, "sbatch: account is over its limit")
    (order,) = made.look(1.0, {"T": Seen(5)})
    assert isinstance(order, Halt)
    assert made.is_stopped("T")


# --- whatever happens -------------------------------------------------------


@st.composite
def looks(draw: st.DrawFn) -> list[tuple[float, int, float | None, int, int]]:
    """Return waits, pieces, durations, and what comes and goes by itself."""
    row = st.tuples(
        st.floats(0.1, 30.0),
        st.integers(0, 500),
        st.none() | st.floats(0.0, 100.0),
        st.integers(0, 5),
        st.integers(0, 2),
    )
    return draw(st.lists(row, max_size=40))


@settings(max_examples=60)
@given(looks(), st.integers(0, 3), st.integers(3, 20), st.booleans(), st.integers(1, 4))
def test_limits_hold_whatever_happens(
    history: list[tuple[float, int, float | None, int, int]],
    minimum: int,
    maximum: int,
    is_batch: bool,
    rate: int,
) -> None:
    limits = Limits(
        ceiling=15, allocations=3, pace=Pace(rate, 4, 3.0, 20.0), patience=PATIENCE
    )
    each = {"T": 2} if is_batch else None
    made = policy(minimum, maximum, limits=limits, each=each)
    now, running, asked, launches = 0.0, 0, 0, []
    for wait_s, pieces, mean_s, come, trouble in history:
        now += wait_s
        here = min(come, max(0, asked - running))
        running += here
        idle = max(0, running - pieces)
        pending = asked - running if is_batch else 0
        seen = Seen(pieces, mean_s, running, idle, pending)
        for order in made.look(now, {"T": seen}, (asked + 1) // 2 if is_batch else 0):
            match order:
                case Grow(count=count):
                    assert count > running
                    asked = count
                    launches.append(now)
                case Allocate(count=count):
                    asked += 2 * count
                    launches += [now] * count
                    assert asked <= 2 * limits.allocations + 1
                case Shrink(count=count):
                    assert 0 < count <= idle
                    running -= count
                    asked = running
                    assert running >= minimum
                case Free():
                    assert asked - 2 >= minimum
                    asked -= 2
                    running = min(running, asked)
            assert max(asked, running) <= min(maximum, limits.ceiling)
        if trouble == 2 and launches and launches[-1] == now:
            made.failed(now, ALLOCATIONS if is_batch else "T", "it failed")
            asked = running
        assert all(standing.reason for standing in made.standings())
    for first in launches:
        assert sum(first <= at < first + MINUTE_S for at in launches) <= rate


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 12.0), st.floats(1.0, 20.0), st.floats(0.0, 20.0))
def test_a_steady_load_does_not_make_workers_come_and_go(
    load: float, piece_s: float, start_s: float
) -> None:
    # pieces that come more rarely find nobody there, as they should
    assume(piece_s / load < PATIENCE.cooldown_s / 2)
    made = policy(maximum=40, limits=Limits(patience=PATIENCE, pace=Pace(60)))
    turns = _steady(made, load, piece_s, start_s)
    settled = [order for at, order in turns if at > 600.0]
    ups = sum(isinstance(order, Grow) for order in settled)
    downs = sum(isinstance(order, Shrink) for order in settled)
    # a last one may come or go, but there is no back and forth
    assert min(ups, downs) == 0 or ups + downs <= 2, settled


def _steady(
    made: Elasticity, load: float, piece_s: float, start_s: float
) -> list[tuple[float, Order]]:
    """Simulate pieces that come at a steady rate, as work for `load` workers."""
    waiting, arrived = 0, 0
    workers: list[float] = []
    coming: deque[float] = deque()
    turns: list[tuple[float, Order]] = []
    for now in range(1200):
        waiting += math.floor(now * load / piece_s) - arrived
        arrived = math.floor(now * load / piece_s)
        while coming and coming[0] <= now:
            coming.popleft()
            workers.append(0.0)
        for number, until in enumerate(workers):
            if until <= now and waiting:
                waiting -= 1
                workers[number] = now + piece_s
        busy = sum(until > now for until in workers)
        mean_s = piece_s if now > piece_s else None
        seen = Seen(waiting + busy, mean_s, len(workers), len(workers) - busy)
        for order in made.look(float(now), {"T": seen}):
            turns.append((now, order))
            if isinstance(order, Grow):
                new = order.count - len(workers) - len(coming)
                coming.extend([now + start_s] * new)
            elif isinstance(order, Shrink):
                idle = [until for until in workers if until <= now]
                for until in idle[: order.count]:
                    workers.remove(until)
    return turns
