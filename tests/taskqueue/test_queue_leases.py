"""The queue as dispatchers see it: who may run what, and whose word counts."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from queue_tools import (
    DELAY_S,
    LEASE_S,
    MANAGER,
    Opener,
    lease_of,
    numbers,
    wanted,
)

from opencluster import WorkPiece
from opencluster.errors import QueueError
from opencluster.taskqueue import Lease, Leases
from opencluster.wire import stored

RESULT = stored.pack(WorkPiece(x=1), "result", 1000)


def test_tasks_go_out_by_priority_then_deadline_then_age(opener: Opener) -> None:
    queue = opener.queue()
    soon = opener.clock.now.wall_s + 100
    plain = queue.submit(MANAGER, WorkPiece())
    later = queue.submit(MANAGER, WorkPiece(), deadline=soon + 100)
    sooner = queue.submit(MANAGER, WorkPiece(), deadline=soon)
    low = queue.submit(MANAGER, WorkPiece(), priority=-1, deadline=soon)
    high = queue.submit(MANAGER, WorkPiece(), priority=1)
    last = queue.submit(MANAGER, WorkPiece())
    leases = opener.leases()
    order = [numbers(leases.take(1)) for _ in range(7)]
    assert order == [[high], [sooner], [later], [plain], [last], [low], []]


def test_a_task_is_lent_with_all_that_is_needed(opener: Opener) -> None:
    number = opener.queue().submit(MANAGER, WorkPiece(n=5))
    (leased,) = opener.leases("here").take(9)
    assert leased.lease == Lease(number, 1)
    assert stored.unpack(leased.arguments) == WorkPiece(n=5)
    assert (leased.task.state, leased.task.holder) == ("running", "here")
    assert leased.task.manager == MANAGER
    assert leased.task.started_at == opener.clock.now.wall_s


def test_a_dispatcher_may_take_some_managers_tasks_only(opener: Opener) -> None:
    queue = opener.queue()
    made = [queue.submit(f"m:{name}", WorkPiece()) for name in ("A", "B", "C", "A")]
    leases = opener.leases()
    assert numbers(leases.take(9, ["A"])) == [made[0], made[3]]
    assert numbers(leases.take(9, ["C", "D"])) == [made[2]]
    assert numbers(leases.take(9)) == [made[1]]


def test_a_result_is_recorded_once(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece())
    lease = lease_of(leases)
    opener.clock.advance(5)
    assert leases.record(lease, RESULT)
    # again, as when the answer of the database was lost
    assert leases.record(lease, RESULT)
    shown = queue.show(number)
    assert (shown.state, shown.holder) == ("done", "")
    assert shown.ended_at == opener.clock.now.wall_s
    for say in (leases.give_back, lambda one: leases.fail(one, "no")):
        assert not say(lease)
    assert queue.result(number) == WorkPiece(x=1)
    assert queue.cancel(number) == queue.retry(number) == []


def test_a_lease_that_ran_out_is_given_to_another(opener: Opener) -> None:
    queue, slow, quick = opener.queue(), opener.leases("slow"), opener.leases("quick")
    number = queue.submit(MANAGER, WorkPiece())
    old = lease_of(slow)
    opener.clock.advance(LEASE_S - 0.1)
    assert quick.take(1) == []
    opener.clock.advance(0.1)
    new = lease_of(quick)
    assert new == Lease(number, 2)
    assert "slow was not heard of" in queue.show(number).error
    # whose word does not count any more
    assert slow.renew({}, {old}) == set()
    other = stored.pack(WorkPiece(x=2), "result", 1000)
    assert not slow.record(old, other)
    assert not slow.fail(old, "no")
    assert not slow.lose(old, "no")
    assert not slow.give_back(old)
    assert queue.show(number).holder == "quick"
    assert quick.record(new, RESULT)
    assert not slow.record(old, other)
    assert queue.result(number) == WorkPiece(x=1)


def test_a_lease_that_nobody_has_taken_over_still_counts(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece())
    lease = lease_of(leases)
    opener.clock.advance(10 * LEASE_S)
    assert leases.record(lease, RESULT)
    assert queue.show(number).state == "done"


def test_renewed_leases_last(opener: Opener) -> None:
    queue, leases, other = opener.queue(), opener.leases(), opener.leases("b")
    number = queue.submit(MANAGER, WorkPiece())
    lease = lease_of(leases)
    for step in range(5):
        opener.clock.advance(0.9 * LEASE_S)
        assert leases.renew({lease: (step, 10)}, {lease}) == {lease}
        assert other.take(1) == []
    assert queue.show(number).progress == 0.4
    assert leases.renew({}, {lease}) == {lease}
    assert queue.show(number).progress == 0.4


def test_leases_of_an_earlier_boot_are_over(opener: Opener) -> None:
    leases, other = opener.leases(), opener.leases("b")
    number = opener.queue().submit(MANAGER, WorkPiece())
    lease_of(leases)
    # the clock began anew, and is behind
    opener.clock.now = replace(opener.clock.now, lease_s=1.0, era="second boot")
    assert lease_of(other) == Lease(number, 2)


def test_the_time_of_day_may_jump(opener: Opener) -> None:
    leases, other = opener.leases(), opener.leases("b")
    opener.queue().submit(MANAGER, WorkPiece())
    lease = lease_of(leases)
    for wall_s in (1.0, 9e9):
        opener.clock.now = replace(opener.clock.now, wall_s=wall_s)
        assert other.take(1) == []
        assert leases.renew({}, {lease}) == {lease}


def test_losses_are_limited(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece(), retries=2)
    assert leases.lose(lease_of(leases), "killed by SIGSEGV", "last words")
    shown = queue.show(number)
    assert (shown.state, shown.losses, shown.error) == (
        "queued",
        1,
        "killed by SIGSEGV",
    )
    lease_of(leases)
    opener.clock.advance(LEASE_S)
    lease = lease_of(leases)
    assert queue.show(number).losses == 2
    assert leases.lose(lease, "killed by SIGKILL", "last words")
    shown = queue.show(number)
    assert shown.state == "failed"
    assert shown.error == "lost 3 times, the last time since killed by SIGKILL"
    assert shown.output == "last words"
    assert leases.take(1) == []


def test_what_is_given_back_has_lost_nothing(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece(), retries=0)
    for attempt in (1, 2, 3):
        lease = lease_of(leases)
        assert lease.attempt == attempt
        assert leases.give_back(lease)
    shown = queue.show(number)
    assert (shown.state, shown.losses, shown.holder) == ("queued", 0, "")


def test_errors_are_retried_as_asked_and_later_each_time(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece(), retries=0, error_retries=2)
    for delay_s in (DELAY_S, 2 * DELAY_S):
        assert leases.fail(lease_of(leases), "ValueError: no")
        shown = queue.show(number)
        assert (shown.state, shown.error) == ("queued", "ValueError: no")
        opener.clock.advance(delay_s - 0.1)
        assert leases.take(1) == []
        opener.clock.advance(0.1)
    assert leases.fail(lease_of(leases), "ValueError: still no")
    shown = queue.show(number)
    assert (shown.state, shown.failures) == ("failed", 3)
    assert queue.retry(number) == [number]
    shown = queue.show(number)
    assert (shown.state, shown.failures, shown.error) == ("queued", 0, "")
    assert shown.ended_at is None
    assert lease_of(leases) == Lease(number, 4)


def test_texts_that_no_database_takes_are_told_all_the_same(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece(), retries=1)
    assert leases.lose(lease_of(leases), "a\0b\ud800", "c\0")
    shown = queue.show(number)
    assert (shown.error, shown.output) == ("a\ufffdb?", "c\ufffd")
    assert leases.fail(lease_of(leases), "d\0", "e\0")
    shown = queue.show(number)
    assert (shown.error, shown.output) == ("d\ufffd", "e\ufffd")


def test_a_cancelled_task_is_taken_from_who_runs_it(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece())
    lease = lease_of(leases)
    assert queue.cancel(number) == [number]
    assert leases.renew({lease: (1, 2)}, {lease}) == set()
    assert not leases.record(lease, RESULT)
    assert queue.cancel(number) == []
    assert queue.show(number).state == "cancelled"
    assert queue.retry(number) == [number]
    # which may be at it for a moment
    assert opener.leases("b").take(1) == []
    leases.let_go(lease)
    # the next run is another one, which the old word does not concern
    new = lease_of(leases)
    leases.let_go(lease)
    assert opener.leases("b").take(1) == []
    assert not leases.record(lease, RESULT)
    assert leases.record(new, RESULT)


def test_a_task_that_was_taken_from_a_dead_dispatcher_is_begun_in_the_end(
    opener: Opener,
) -> None:
    queue, leases = opener.queue(), opener.leases()
    number = queue.submit(MANAGER, WorkPiece())
    lease_of(leases)
    queue.cancel(number)
    queue.retry(number)
    opener.clock.advance(LEASE_S - 0.1)
    assert leases.take(1) == []
    opener.clock.advance(0.1)
    assert lease_of(leases) == Lease(number, 2)


def test_a_task_begins_when_all_that_it_needs_is_done(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    first, second = queue.submit_all(wanted(2))
    third = queue.submit(MANAGER, WorkPiece(), priority=9, depends_on=[second, first])
    fourth = queue.submit(MANAGER, WorkPiece(), depends_on=[third])
    shown = queue.show(third)
    assert (shown.state, shown.unmet) == ("waiting", 2)
    assert shown.depends_on == (first, second)
    taken = leases.take(9)
    assert numbers(taken) == [first, second]
    assert leases.record(taken[0].lease, RESULT)
    assert leases.record(taken[0].lease, RESULT)
    assert (queue.show(third).state, queue.show(third).unmet) == ("waiting", 1)
    assert leases.fail(taken[1].lease, "no")
    assert leases.take(9) == []
    # who mends what failed goes on with all
    queue.retry(second)
    assert leases.record(lease_of(leases), RESULT)
    lease = lease_of(leases)
    assert lease.task == third
    assert leases.record(lease, RESULT)
    assert lease_of(leases).task == fourth


def test_what_depends_on_a_task_that_is_done_waits_for_nothing(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    first = queue.submit(MANAGER, WorkPiece())
    leases.record(lease_of(leases), RESULT)
    second = queue.submit(MANAGER, WorkPiece(), depends_on=[first])
    assert queue.show(second).state == "queued"


def test_a_cancelled_task_that_waited_waits_again(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    first = queue.submit(MANAGER, WorkPiece())
    second = queue.submit(MANAGER, WorkPiece(), depends_on=[first])
    queue.cancel(second)
    queue.retry(second)
    assert queue.show(second).state == "waiting"
    queue.cancel(second)
    leases.record(lease_of(leases), RESULT)
    assert queue.show(second).state == "cancelled"
    queue.retry(second)
    assert lease_of(leases).task == second


def test_a_task_fails_at_its_deadline_wherever_it_stands(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    deadline = opener.clock.now.wall_s + 30
    running = queue.submit(MANAGER, WorkPiece(), deadline=deadline)
    lease = lease_of(leases)
    queued = queue.submit(MANAGER, WorkPiece(), deadline=deadline)
    waiting = queue.submit(MANAGER, WorkPiece(), deadline=deadline, depends_on=[queued])
    opener.clock.advance(30)
    assert leases.take(9) == []
    assert {queue.show(n).state for n in (running, queued, waiting)} == {"failed"}
    assert queue.show(running).error == "its deadline passed, it was still running"
    assert queue.show(queued).error == "its deadline passed, it was not begun"
    assert leases.renew({}, {lease}) == set()
    assert not leases.record(lease, RESULT)
    # asked for again it has none, as it would fail at once
    queue.retry(queued)
    assert queue.show(queued).deadline is None
    assert lease_of(leases).task == queued


def test_what_was_lent_without_being_heard_of_goes_back(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    made = queue.submit_all(wanted(3, retries=0))
    taken = leases.take(2)
    # the answer of this one was lost on its way
    leases.take(1)
    known = {leased.lease for leased in taken}
    assert leases.renew({}, known) == known
    assert queue.show(made[2]).state == "queued"
    assert lease_of(opener.leases("b")) == Lease(made[2], 2)


def test_old_tasks_are_forgotten_unless_they_are_needed(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    done, _, needed = queue.submit_all(wanted(3))
    dependent = queue.submit(MANAGER, WorkPiece(), depends_on=[done, needed])
    taken = [leased.lease for leased in leases.take(3)]
    leases.record(taken[0], RESULT)
    leases.fail(taken[1], "no")
    leases.fail(taken[2], "no")
    opener.clock.advance(100)
    assert leases.forget(101) == 0
    # still needed for the other one
    assert leases.forget(99) == 1
    assert {task.id for task in queue.tasks()} == {done, needed, dependent}
    queue.retry(needed)
    for _ in range(2):
        assert leases.record(lease_of(leases), RESULT)
    kept = queue.submit(MANAGER, WorkPiece())
    opener.clock.advance(100)
    assert leases.forget(50) == 3
    assert [task.id for task in queue.tasks()] == [kept]
    assert queue.submit(MANAGER, WorkPiece()) > dependent


def test_many_dispatchers_share_the_tasks(opener: Opener) -> None:
    queue = opener.queue(real_clock=True)
    made = queue.submit_all(wanted(60))
    dispatchers = [
        Leases(opener.queue(real_clock=True).database, f"d{n}", LEASE_S, DELAY_S)
        for n in range(4)
    ]
    taken: list[Lease] = []

    def drain(leases: Leases) -> None:
        while found := leases.take(3):
            for leased in found:
                taken.append(leased.lease)
                assert leases.record(leased.lease, RESULT)

    threads = [threading.Thread(target=drain, args=[one]) for one in dispatchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.task for lease in taken) == made
    assert {lease.attempt for lease in taken} == {1}
    assert queue.counts()["done"] == 60


def test_dependents_are_released_once_by_who_ends_at_the_same_time(
    opener: Opener,
) -> None:
    queue = opener.queue(real_clock=True)
    needed = queue.submit_all(wanted(16))
    dependents = queue.submit_all(wanted(5, depends_on=needed))
    dispatchers = [
        Leases(opener.queue(real_clock=True).database, f"d{n}", LEASE_S, DELAY_S)
        for n in range(4)
    ]
    shares = [(leases, leases.take(4)) for leases in dispatchers]
    assert sorted(n for _, share in shares for n in numbers(share)) == needed
    gate = threading.Barrier(4)

    def finish(leases: Leases, share: list[Lease]) -> None:
        gate.wait()
        for lease in share:
            assert leases.record(lease, RESULT)

    threads = [
        threading.Thread(target=finish, args=[leases, [one.lease for one in share]])
        for leases, share in shares
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {queue.show(n).unmet for n in dependents} == {0}
    assert numbers(dispatchers[0].take(9)) == dependents


def test_ten_thousand_tasks(opener: Opener) -> None:
    queue, leases = opener.queue(), opener.leases()
    made = queue.submit_all(wanted(9_000) + wanted(1_000, priority=5))
    assert len(set(made)) == 10_000
    assert queue.counts()["queued"] == 10_000
    assert [task.id for task in queue.tasks(limit=3)] == made[:-4:-1]
    first = leases.take(100)
    assert numbers(first) == made[9_000:9_100]
    held = {leased.lease for leased in first}
    assert leases.renew({}, held) == held
    # which rests on an index in both databases
    plan = queue.database.transact(lambda c: opener.plan(c))
    assert "opencluster_tasks_order" in plan


def test_refusals_of_the_database_are_not_retried(opener: Opener) -> None:
    with pytest.raises(QueueError, match="cannot be used"):
        opener.queue().database.transact(
            lambda connection: connection.exec_driver_sql("SELECT nothing FROM nowhere")
        )
