"""What a workshop runs: counts, restarts with delay, failing types, stops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opencluster.core.supervision import (
    HEALTHY_AFTER_S,
    RETRY_S,
    Effect,
    KillProcess,
    ReportRecovery,
    ReportStartFailure,
    Slot,
    SlotState,
    StartProcess,
    Supervision,
    TerminateProcess,
)

GRACE_S = 10.0


def shop(count: int = 0, now: float = 0.0, **changes: Any) -> Supervision:
    """Return the supervision of a shop where so many ``T`` are registered."""
    made = Supervision(
        **({"restart_delay_s": 1.0, "stop_grace_s": GRACE_S, "failing_after": 3})
        | changes
    )
    made.want(now, "T", count)
    for slot in made.slots():
        made.started(slot.name)
        made.registered(now, slot.name)
    made.check_invariants()
    return made


def states(supervision: Supervision) -> dict[str, str]:
    supervision.check_invariants()
    return {slot.name: slot.state.value for slot in supervision.slots()}


def slot(supervision: Supervision, name: str = "T-1") -> Slot:
    (found,) = [one for one in supervision.slots() if one.name == name]
    return found


def crash(supervision: Supervision, now: float, name: str = "T-1") -> list[Effect]:
    effects = supervision.exited(now, name, is_recycled=False)
    supervision.check_invariants()
    return effects


def run(supervision: Supervision, now: float, name: str = "T-1") -> None:
    """Have the process of a slot start and register, when its time has come."""
    assert StartProcess(name) in supervision.tick(now)
    supervision.started(name)
    supervision.registered(now, name)
    supervision.check_invariants()


# --- counts ----------------------------------------------------------------------


def test_as_many_start_as_are_wanted() -> None:
    s = shop()
    assert s.want(0.0, "T", 2) == [StartProcess("T-1"), StartProcess("T-2")]
    assert s.want(0.0, "T", 2) == []
    assert s.want(0.0, "U", 1) == [StartProcess("U-1")]
    assert states(s) == {"T-1": "starting", "T-2": "starting", "U-1": "starting"}
    assert (s.count("T"), s.count("U"), s.count("V")) == (2, 1, 0)


def test_registered_process_runs() -> None:
    s = shop()
    s.want(0.0, "T", 1)
    s.started("T-1")
    assert states(s) == {"T-1": "starting"}
    assert s.registered(1.0, "T-1") == []
    assert states(s) == {"T-1": "running"}
    assert s.registered(2.0, "T-1") == []
    assert slot(s).registered_at == 1.0


def test_fewer_wanted_ends_the_newest() -> None:
    s = shop(3)
    assert s.want(5.0, "T", 1) == [TerminateProcess("T-2"), TerminateProcess("T-3")]
    assert s.count("T") == 1
    assert states(s) == {"T-1": "running", "T-2": "stopping", "T-3": "stopping"}
    assert crash(s, 6.0, "T-3") == []
    assert states(s) == {"T-1": "running", "T-2": "stopping"}


def test_of_too_many_those_go_first_that_do_not_run() -> None:
    s = shop(3)
    crash(s, 1.0, "T-1")
    assert s.want(1.0, "T", 2) == []
    assert states(s) == {"T-2": "running", "T-3": "running"}
    s.want(2.0, "T", 4)
    assert s.want(2.0, "T", 1) == [
        TerminateProcess("T-3"),
        TerminateProcess("T-4"),
        TerminateProcess("T-5"),
    ]


def test_slot_that_is_stopping_does_not_count() -> None:
    s = shop(2)
    s.want(0.0, "T", 1)
    assert s.want(0.0, "T", 2) == [StartProcess("T-3")]
    assert states(s) == {"T-1": "running", "T-2": "stopping", "T-3": "starting"}


@pytest.mark.parametrize("count", [0, -1, -7])
def test_none_wanted_ends_all(count: int) -> None:
    s = shop(2)
    assert s.want(0.0, "T", count) == [TerminateProcess("T-1"), TerminateProcess("T-2")]
    assert s.count("T") == 0


def test_names_are_not_used_again() -> None:
    s = shop(1)
    s.want(0.0, "T", 0)
    crash(s, 1.0)
    assert s.want(2.0, "T", 1) == [StartProcess("T-2")]


# --- restarts --------------------------------------------------------------------


def test_crashed_process_is_replaced_after_a_delay() -> None:
    s = shop(1)
    assert crash(s, 1.0) == []
    assert states(s) == {"T-1": "waiting"}
    assert s.next_time() == 2.0
    assert s.tick(1.9) == []
    assert s.tick(2.0) == [StartProcess("T-1")]
    assert s.tick(3.0) == []
    assert s.next_time() is None


def test_failed_start_is_not_repeated_at_once_whatever_the_delay() -> None:
    s = shop(restart_delay_s=0.0)
    s.want(1.0, "T", 1)
    s.started("T-1")
    assert crash(s, 1.0) == [ReportStartFailure("T-1", "T", 1, False)]
    assert s.next_time() == 1.0 + RETRY_S
    # one that had registered may be
    run(s, 2.0)
    assert crash(s, 3.0) == [StartProcess("T-1")]


def test_delay_doubles_with_each_failure_up_to_a_limit() -> None:
    s = shop(1, restart_delay_s=1.0, restart_delay_max_s=5.0)
    now = 0.0
    delays = []
    for _ in range(5):
        crash(s, now)
        due = s.next_time()
        assert due is not None
        delays.append(due - now)
        run(s, due)
        now = due
    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_delay_stays_at_its_limit_for_ever() -> None:
    s = shop(1, restart_delay_max_s=60.0)
    slot(s).failures = 5000
    crash(s, 0.0)
    assert s.next_time() == 60.0


@pytest.mark.parametrize(
    ("lived_s", "delay_s"), [(HEALTHY_AFTER_S, 0.0), (HEALTHY_AFTER_S - 0.1, 2.0)]
)
def test_process_that_ran_well_is_replaced_at_once(
    lived_s: float, delay_s: float
) -> None:
    s = shop(1)
    crash(s, 0.0)
    run(s, 1.0)
    effects = crash(s, 1.0 + lived_s)
    if delay_s:
        assert effects == []
        assert s.next_time() == 1.0 + lived_s + delay_s
    else:
        assert effects == [StartProcess("T-1")]
        assert slot(s).failures == 0


def test_process_that_registered_at_time_zero_can_have_run_well() -> None:
    s = shop(1, now=0.0)
    assert crash(s, HEALTHY_AFTER_S) == [StartProcess("T-1")]


def test_recycled_process_is_replaced_at_once() -> None:
    s = shop(1)
    crash(s, 0.0)
    run(s, 1.0)
    assert s.exited(1.1, "T-1", is_recycled=True) == [StartProcess("T-1")]
    assert slot(s).failures == 0


def test_time_before_a_restart_counts_for_no_later_process() -> None:
    s = shop(1)
    crash(s, 1.0)
    assert s.tick(2.0) == [StartProcess("T-1")]
    s.started("T-1")
    (report,) = crash(s, 20.0)
    assert isinstance(report, ReportStartFailure)
    assert slot(s).failures == 2


def test_restart_at_request_is_at_once_and_no_failure() -> None:
    s = shop(1)
    assert s.restart(1.0, "T-1") == [TerminateProcess("T-1")]
    assert s.restart(1.0, "T-1") == []
    assert crash(s, 2.0) == [StartProcess("T-1")]
    assert slot(s).failures == 0
    assert s.count("T") == 1
    s.started("T-1")
    s.registered(2.0, "T-1")
    assert crash(s, 3.0) == []
    assert slot(s).failures == 1


def test_restart_of_a_slot_that_waits_does_not_wait() -> None:
    s = shop(1)
    crash(s, 0.0)
    assert s.restart(0.1, "T-1") == [StartProcess("T-1")]
    s.started("T-1")
    s.registered(0.2, "T-1")
    # and what ends of itself afterwards is a failure as ever
    assert crash(s, 0.3) == []
    assert slot(s).failures == 2


@pytest.mark.parametrize("event", ["restart", "stop"])
def test_request_for_an_unknown_slot_changes_nothing(event: str) -> None:
    s = shop(1)
    assert getattr(s, event)(0.0, "T-9") == []
    assert states(s) == {"T-1": "running"}


# --- starts that fail ------------------------------------------------------------


def test_process_that_ends_before_it_registers_failed_to_start() -> None:
    s = shop(failing_after=2)
    now = 0.0
    s.want(now, "T", 1)
    for number in (1, 2, 3):
        s.started("T-1")
        expected = ReportStartFailure("T-1", "T", number, is_failing=number >= 2)
        assert crash(s, now) == [expected]
        due = s.next_time()
        assert due is not None
        now = due
        assert s.tick(now) == [StartProcess("T-1")]
    s.started("T-1")
    assert s.registered(now, "T-1") == [ReportRecovery("T")]


def test_failed_starts_count_over_all_slots_of_a_type() -> None:
    s = shop()
    s.want(0.0, "T", 2)
    s.want(0.0, "U", 1)
    reports = [*crash(s, 0.0, "T-1"), *crash(s, 0.0, "U-1"), *crash(s, 0.0, "T-2")]
    assert reports == [
        ReportStartFailure("T-1", "T", 1, False),
        ReportStartFailure("U-1", "U", 1, False),
        ReportStartFailure("T-2", "T", 2, False),
    ]


def test_one_that_registers_ends_the_row_of_failed_starts() -> None:
    s = shop()
    s.want(0.0, "T", 2)
    crash(s, 0.0, "T-1")
    assert s.registered(0.0, "T-2") == [ReportRecovery("T")]
    assert s.registered(0.0, "T-2") == []
    s.tick(1.0)
    assert crash(s, 1.0, "T-1") == [ReportStartFailure("T-1", "T", 1, False)]


def test_crash_after_registering_is_no_failed_start() -> None:
    s = shop(1)
    assert crash(s, 0.0) == []


@pytest.mark.parametrize("event", ["restart", "stop"])
def test_process_that_was_asked_to_end_did_not_fail_to_start(event: str) -> None:
    s = shop()
    s.want(0.0, "T", 1)
    getattr(s, event)(0.0, "T-1")
    assert not any(isinstance(e, ReportStartFailure) for e in crash(s, 1.0))


def test_process_that_ended_on_purpose_did_not_fail_to_start() -> None:
    # it may register, do its share and end before anybody looked
    s = shop()
    s.want(0.0, "T", 1)
    assert s.exited(0.1, "T-1", is_recycled=True) == [StartProcess("T-1")]


# --- stops -----------------------------------------------------------------------


def test_stop_asks_first_and_insists_after_the_grace() -> None:
    s = shop(1)
    assert s.stop(1.0, "T-1") == [TerminateProcess("T-1")]
    assert s.stop(2.0, "T-1") == []
    assert s.next_time() == 1.0 + GRACE_S
    assert s.tick(10.9) == []
    assert s.tick(11.0) == [KillProcess("T-1")]
    assert s.tick(99.0) == []
    assert s.next_time() is None
    assert states(s) == {"T-1": "stopping"}
    assert crash(s, 99.0) == []
    assert states(s) == {}


def test_a_process_that_hands_over_what_it_keeps_gets_more_time_once() -> None:
    s = shop(1, hand_over_s=30.0)
    s.handing_over("T-1")
    s.handing_over("nobody")
    s.restart(1.0, "T-1")
    for _ in range(3):
        s.handing_over("T-1")
        s.check_invariants()
    assert s.next_time() == 31.0 + GRACE_S
    assert s.tick(31.0 + GRACE_S) == [KillProcess("T-1")]
    s.handing_over("T-1")
    assert s.next_time() is None
    assert crash(s, 50.0) == [StartProcess("T-1")]
    # the next one has the same
    s.registered(50.0, "T-1")
    s.stop(60.0, "T-1")
    s.handing_over("T-1")
    assert s.next_time() == 90.0 + GRACE_S


def test_restart_that_is_ignored_is_insisted_on() -> None:
    s = shop(1)
    s.restart(0.0, "T-1")
    assert s.tick(GRACE_S) == [KillProcess("T-1")]
    assert crash(s, 11.0) == [StartProcess("T-1")]


def test_stop_ends_a_restart() -> None:
    s = shop(1)
    s.restart(0.0, "T-1")
    assert s.stop(1.0, "T-1") == []
    assert s.count("T") == 0
    assert crash(s, 2.0) == []
    assert states(s) == {}


def test_slot_that_waits_is_stopped_at_once() -> None:
    s = shop(1)
    crash(s, 0.0)
    assert s.stop(0.1, "T-1") == []
    assert states(s) == {}
    assert s.tick(99.0) == []


def test_process_that_is_starting_can_be_stopped() -> None:
    s = shop()
    s.want(0.0, "T", 1)
    assert s.stop(0.0, "T-1") == [TerminateProcess("T-1")]
    # the news that it started comes late, and does not undo the stop
    s.started("T-1")
    assert s.registered(0.1, "T-1") == []
    assert states(s) == {"T-1": "stopping"}
    assert s.tick(GRACE_S) == [KillProcess("T-1")]


def test_all_can_be_stopped() -> None:
    s = shop(2)
    s.want(0.0, "U", 1)
    crash(s, 0.0, "T-2")
    assert s.stop_all(1.0) == [TerminateProcess("T-1"), TerminateProcess("U-1")]
    assert states(s) == {"T-1": "stopping", "U-1": "stopping"}
    assert s.stop_all(1.0) == []


# --- news about what is not here -------------------------------------------------


def test_news_about_unknown_slots_change_nothing() -> None:
    s = shop(1)
    s.started("T-9")
    assert s.registered(0.0, "T-9") == []
    assert s.exited(0.0, "T-9", is_recycled=False) == []
    assert states(s) == {"T-1": "running"}


def test_end_of_a_process_that_was_over_already_changes_nothing() -> None:
    s = shop(1)
    crash(s, 0.0)
    assert crash(s, 0.9) == []
    assert s.next_time() == 1.0
    assert s.registered(0.9, "T-1") == []
    assert states(s) == {"T-1": "waiting"}


def test_process_that_nobody_asked_for_is_the_one_of_its_slot() -> None:
    s = shop(1)
    crash(s, 0.0)
    s.started("T-1")
    assert s.tick(5.0) == []
    assert states(s) == {"T-1": "starting"}


def test_broken_rule_is_found() -> None:
    s = shop(1)
    slot(s).state = SlotState.WAITING
    with pytest.raises(AssertionError):
        s.check_invariants()


# --- any events in any order -----------------------------------------------------

types = st.sampled_from(["T", "U"])
names = st.sampled_from([f"{type}-{n}" for type in "TU" for n in range(1, 7)])


# --- drained ---------------------------------------------------------------------


def test_a_drained_shop_ends_everything_and_starts_nothing() -> None:
    s = shop(2)
    assert s.drain(1.0) == [TerminateProcess("T-1"), TerminateProcess("T-2")]
    assert crash(s, 2.0, "T-1") == []
    assert s.want(3.0, "T", 3) == []
    assert s.restart(3.0, "T-1") == s.tick(4.0) == []
    assert states(s) == {"T-1": "waiting", "T-2": "stopping", "T-3": "waiting"}
    # and it insists, as ever
    assert KillProcess("T-2") in s.tick(99.0)
    assert s.next_time() is None


def test_after_a_drain_as_many_start_as_are_wanted() -> None:
    s = shop(2)
    s.drain(1.0)
    crash(s, 2.0, "T-1")
    s.stop(2.0, "T-1")
    assert s.resume(3.0) == []
    assert crash(s, 4.0, "T-2") == [StartProcess("T-2")]
    assert (s.count("T"), slot(s, "T-2").failures) == (1, 0)


def test_a_process_that_was_starting_has_not_failed() -> None:
    s = shop()
    s.want(0.0, "T", 1)
    s.started("T-1")
    s.drain(1.0)
    assert crash(s, 2.0) == []
    assert s.resume(3.0) == [StartProcess("T-1")]


class SupervisionModel(RuleBasedStateMachine):
    """No slot ever has two processes, and all that is wanted runs in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.shop = Supervision(
            1.0, 4.0, failing_after=2, stop_grace_s=3.0, hand_over_s=2
        )
        self.live: set[str] = set()
        self.asked: set[str] = set()
        self.wanted: dict[str, int] = {"T": 0, "U": 0}
        self.failing: dict[str, int] = {"T": 0, "U": 0}

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartProcess(name):
                    assert name not in self.live
                    self.live.add(name)
                    self.shop.started(name)
                case TerminateProcess(name):
                    assert name in self.live - self.asked
                    self.asked.add(name)
                case KillProcess(name):
                    assert name in self.live & self.asked
                case ReportStartFailure(_, type, failures, is_failing):
                    self.failing[type] += 1
                    assert failures == self.failing[type]
                    assert is_failing == (failures >= 2)
                case ReportRecovery(type):
                    assert self.failing[type]
                    self.failing[type] = 0

    @rule(type=types, count=st.integers(-1, 3))
    def want(self, type: str, count: int) -> None:
        self.do(self.shop.want(self.now, type, count))
        self.wanted[type] = max(0, count)

    @rule(name=names)
    def stop(self, name: str) -> None:
        is_wanted = any(s.name == name and s.is_wanted for s in self.shop.slots())
        self.do(self.shop.stop(self.now, name))
        self.wanted[name[0]] -= is_wanted

    @rule(name=names)
    def restart(self, name: str) -> None:
        self.do(self.shop.restart(self.now, name))

    @rule()
    def drain(self) -> None:
        self.do(self.shop.drain(self.now))

    @rule()
    def resume(self) -> None:
        self.do(self.shop.resume(self.now))

    @rule(name=names)
    def registered(self, name: str) -> None:
        self.do(self.shop.registered(self.now, name))

    @rule(name=names)
    def handing_over(self, name: str) -> None:
        self.shop.handing_over(name)

    @rule(name=names, is_recycled=st.booleans())
    def exited(self, name: str, is_recycled: bool) -> None:
        # the end of a process that never was is told as well
        self.live.discard(name)
        self.asked.discard(name)
        self.do(self.shop.exited(self.now, name, is_recycled))

    @rule(name=names)
    def started_late(self, name: str) -> None:
        if name in self.live:
            self.shop.started(name)

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.shop.tick(self.now))
        due = self.shop.next_time()
        assert due is None or due > self.now

    @invariant()
    def processes_and_slots_agree(self) -> None:
        self.shop.check_invariants()
        assert {type: self.shop.count(type) for type in "TU"} == self.wanted
        waiting = SlotState.WAITING
        here = {slot.name for slot in self.shop.slots() if slot.state is not waiting}
        assert here == self.live

    def teardown(self) -> None:
        for name in sorted(self.asked):
            self.exited(name, False)
        self.resume()
        self.wait(20.0)
        for name in sorted(self.live):
            self.registered(name)
        running = [slot.type for slot in self.shop.slots()]
        assert {type: running.count(type) for type in "TU"} == self.wanted
        assert all(slot.state is SlotState.RUNNING for slot in self.shop.slots())


SupervisionModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestSupervisionModel = SupervisionModel.TestCase
