"""Jobs of a batch system: what they bring, which have failed, which is given back."""

from __future__ import annotations

from opencluster.core.allotment import LISTED_AFTER_S, Allotment, Listed

NOON = 1_000_000.0
PENDING, RUNNING = "pending", "running"


def allotment(**own: float) -> Allotment:
    """Return one that has asked for jobs at these times."""
    made = Allotment({"A": 4, "B": 1}, start_timeout_s=100.0, ending_s=300.0)
    for id, at in own.items():
        made.asked(at, [id])
    return made


def test_a_job_counts_from_when_it_is_asked_for() -> None:
    made = allotment()
    made.asking = 2
    assert made.look(0.0, NOON, [], {}).pending == {"A": 8, "B": 2}
    made.asking = 0
    made.asked(0.0, ["1", "2"])
    assert made.look(1.0, NOON, [], {}).pending == {"A": 8, "B": 2}
    listed = [Listed("1", PENDING), Listed("2", PENDING)]
    # however long it waits
    assert made.look(1e6, NOON, listed, {}).pending == {"A": 8, "B": 2}


def test_jobs_of_others_count_as_well_and_are_not_given_back() -> None:
    made = allotment()
    queue = [Listed("7", PENDING, nodes=3)]
    assert made.look(0.0, NOON, queue, {}).pending == {"A": 12, "B": 3}
    assert made.to_give_back(queue, ["7"]) == ""


def test_a_job_that_runs_brings_what_is_not_there_yet() -> None:
    made = allotment(j=0.0)
    queue = [Listed("j", RUNNING)]
    assert made.look(5.0, NOON, queue, {}).pending == {"A": 4, "B": 1}
    count = made.look(6.0, NOON, queue, {"j": {"A": 3}})
    assert (count.pending, count.arrived) == ({"A": 1, "B": 1}, False)
    count = made.look(7.0, NOON, queue, {"j": {"A": 4, "B": 2}})
    assert (count.pending, count.arrived) == ({"A": 0, "B": 0}, False)
    # its launch has succeeded when it stays
    assert not made.look(65.9, NOON, queue, {"j": {"A": 4}}).arrived
    assert made.look(66.0, NOON, queue, {"j": {"A": 4}}).arrived
    assert not made.look(67.0, NOON, queue, {"j": {"A": 4}}).arrived


def test_what_has_not_come_in_time_will_not_come() -> None:
    made = allotment(j=0.0)
    queue = [Listed("j", RUNNING)]
    made.look(5.0, NOON, queue, {"j": {"A": 3}})
    assert made.look(104.9, NOON, queue, {"j": {"A": 3}}).pending["A"] == 1
    count = made.look(105.0, NOON, queue, {"j": {"A": 3}})
    assert (count.pending["A"], count.failed, count.overdue) == (0, (), ())


def test_a_job_of_which_nobody_comes_has_failed_and_is_given_back() -> None:
    made = allotment(j=0.0)
    queue = [Listed("j", RUNNING), Listed("other", RUNNING)]
    made.look(5.0, NOON, queue, {})
    count = made.look(105.0, NOON, queue, {})
    assert count.failed == ("nobody came to work of job j in 100 s",)
    assert count.overdue == ("j",)
    made.given_back(105.0, "j")
    assert made.look(106.0, NOON, queue, {}).failed == ()


def test_a_job_that_is_given_back_counts_as_none_from_then_on() -> None:
    made = allotment(j=0.0)
    queue, here = [Listed("j", RUNNING)], {"j": {"A": 1}}
    made.given_back(5.0, "j")
    for now in (6.0, 1000.0):
        count = made.look(now, NOON, queue, here)
        assert (count.pending["A"], count.ending) == (0, {"j"})
        assert count.leaving == {"j"}
    count = made.look(1001.0, NOON, [], {})
    assert (count.ending, count.leaving) == (frozenset(), frozenset())


def test_a_job_that_ends_before_anybody_came_has_failed() -> None:
    made = allotment(k=0.0)
    # the queue may be behind: it is believed after a while
    late = LISTED_AFTER_S
    assert made.look(late - 1.0, NOON, [], {}).failed == ()
    assert made.own == ["k"]
    count = made.look(late, NOON, [], {})
    assert count.failed == ("job k has ended before anybody came to work of it",)
    assert made.own == []


def test_jobs_that_are_ended_by_others_have_failed_all_at_once() -> None:
    made = allotment(i=0.0, j=0.0, k=0.0)
    queue = [Listed(id, RUNNING) for id in "ij"]
    queue.append(Listed("k", RUNNING, ends_at=NOON + 1000.0))
    here = {id: {"A": 4, "B": 1} for id in "ijk"}
    made.look(5.0, NOON, queue, here)
    # the end of one is near
    made.look(800.0, NOON + 800.0, queue, here)
    count = made.look(801.0, NOON + 801.0, [], {})
    assert count.failed == ("ended, but was not given back: job i, j",)
    assert made.own == []


def test_a_job_that_could_not_be_given_back_is_one_to_give_back_again() -> None:
    made = allotment(j=0.0)
    queue = [Listed("j", RUNNING)]
    made.given_back(5.0, "j")
    assert made.look(6.0, NOON, queue, {"j": {}}).ending == {"j"}
    made.kept(7.0, "j")
    assert made.look(8.0, NOON, queue, {"j": {}}).ending == frozenset()
    assert made.to_give_back(queue, ["j"]) == "j"
    # it may have ended meanwhile
    made.kept(9.0, "j")
    assert (made.look(10.0, NOON, [], {}).failed, made.own) == ((), [])


def test_nothing_has_ended_while_the_queue_does_not_answer() -> None:
    made = allotment(j=0.0)
    count = made.look(1e6, NOON, None, {})
    assert (count.pending["A"], count.failed, made.own) == (4, (), ["j"])


def test_a_workshop_tells_that_a_job_runs_whatever_the_queue_says() -> None:
    made = allotment(j=0.0)
    assert made.look(1e6, NOON, [], {"j": {"A": 4, "B": 1}}).pending["A"] == 0
    assert made.own == ["j"]


def test_a_job_that_ends_soon_counts_as_none() -> None:
    made = allotment(j=0.0)
    queue = [Listed("j", RUNNING, ends_at=NOON + 700.0)]
    here = {"j": {"A": 4, "B": 1}}
    assert made.look(5.0, NOON, queue, here).ending == frozenset()
    count = made.look(405.0, NOON + 400.0, queue, here)
    assert count.ending == {"j"}
    assert count.pending == {"A": 0, "B": 0}


def test_of_a_short_job_only_the_second_half_counts_as_none() -> None:
    made = allotment(j=0.0)
    queue = [Listed("j", RUNNING, ends_at=NOON + 200.0)]
    assert made.look(5.0, NOON, queue, {"j": {}}).ending == frozenset()
    assert made.look(104.0, NOON + 99.0, queue, {"j": {}}).ending == frozenset()
    assert made.look(105.0, NOON + 100.0, queue, {"j": {}}).ending == {"j"}


def test_what_waits_is_given_back_before_what_is_idle_and_the_newest_first() -> None:
    made = allotment(a=0.0, b=1.0, c=2.0, d=3.0)
    queue = [
        Listed("a", PENDING),
        Listed("b", PENDING),
        Listed("c", RUNNING),
        Listed("d", RUNNING),
    ]
    assert made.to_give_back(queue, ["c", "d"]) == "b"
    queue = [Listed(each.id, RUNNING) for each in queue]
    assert made.to_give_back(queue, ["a", "c"]) == "c"
    assert made.to_give_back(queue, []) == ""


def test_own_jobs_are_known_after_a_restart() -> None:
    made = allotment(j=0.0, k=0.0)
    made.given_back(1.0, "k")
    again = Allotment(made.each, 100.0, 300.0)
    # who was killed may have drained it, and nothing more
    assert again.remember(500.0, made.to_fields()) == ["k"]
    assert again.own == ["j", "k"]
    again = Allotment(made.each, 100.0, 300.0)
    for fields in ({"own": ["j"]}, {"own": [7], "given_back": None}, ["k"], None):
        assert again.remember(500.0, fields) == []
    assert again.own == ["j"]
    # with the cluster of then they may have ended, which is no failure
    assert again.look(599.0, NOON, None, {}).failed == ()
    assert again.look(600.0, NOON, [], {}).failed == ()
    assert again.own == []
