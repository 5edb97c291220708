"""Jobs of a batch system, and what their computers do, without one."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from opencluster.errors import LaunchFailed
from opencluster.launchers import embedded
from opencluster.launchers.base import ENDED, PENDING, RUNNING, Allocation, Outcome
from opencluster.launchers.batch.allocation import begin, order_for
from opencluster.launchers.batch.external import ask
from opencluster.launchers.batch.following import DRAIN, END, WORK, Follower, phase_at
from opencluster.launchers.batch.job_folder import (
    Job,
    factory_endpoints,
    own_name,
    port_of,
)
from opencluster.launchers.batch.launcher import BatchLauncher
from opencluster.launchers.batch.watching import Watch
from opencluster.launchers.description import Batch, ClusterFile
from opencluster.launchers.record import keep_record, recorded
from opencluster.launchers.slurm import SYSTEM as SLURM
from opencluster.place import Place

SECTIONS = {"worker:Count": {"target": "count.py:CountWorker", "count": "2"}}


class Queue:
    """A batch system in memory."""

    name = "slurm"

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.asked_to_end: list[str] = []
        self.is_silent = False
        self.end_s = 0.0
        self.ahead_s = 0.0

    def submission(self, script: str, after: str = "") -> list[str]:
        return ["submit", script]

    def submit(self, script: str, after: str = "") -> str:
        id = str(len(self.after) + 1)
        self.jobs[id] = PENDING
        self.after[id] = after
        return id

    def look(self, ids: Collection[str]) -> dict[str, Allocation]:
        if self.is_silent:
            raise LaunchFailed("the queue does not answer")
        return {i: Allocation(i, self.jobs[i], 0) for i in ids if i in self.jobs}

    def ends_at(self, id: str) -> float:
        if self.is_silent:
            raise LaunchFailed("the queue does not answer")
        return self.end_s

    def clock_s(self) -> float:
        if self.is_silent:
            raise LaunchFailed("the queue does not answer")
        return time.time() + self.ahead_s

    def address_of(self, node: str) -> str:
        return ""

    def end(self, id: str) -> None:
        self.asked_to_end.append(id)
        self.jobs[id] = ENDED

    def cancel(self, id: str) -> None:
        self.jobs[id] = ENDED


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def launcher(tmp_path: Path, queue: Queue) -> BatchLauncher:
    (tmp_path / "count.py").write_text("class CountWorker: ...\n")
    file = ClusterFile(
        tmp_path / "night.yaml",
        "night",
        launcher="slurm",
        batch=Batch(nodes=4),
        sections=SECTIONS,
        files={"count.py": tmp_path / "count.py"},
    )
    launcher = BatchLauncher(file, Place(tmp_path / "night"), queue)
    launcher.is_waiting = False
    return launcher


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of workshops that are registered."""
    found: list[str] = []
    monkeypatch.setattr(Watch, "workshops", lambda self: found)
    return found


def quiet(outcome: Outcome) -> None:
    """Hear nothing of what becomes of jobs."""


# --- the launcher -----------------------------------------------------------


def test_one_first_job_is_submitted_however_often_it_is_asked_for(
    launcher: BatchLauncher, queue: Queue
) -> None:
    assert launcher.launch(quiet) == [Outcome("job 1", True, "is submitted")]
    (outcome,) = launcher.launch(quiet)
    assert (outcome.host, outcome.is_done) == ("job 1", True)
    assert "is there already" in outcome.message
    assert launcher.allocations() == [Allocation("1", PENDING, 4)]
    queue.jobs["1"] = ENDED
    assert launcher.allocations() == []
    assert launcher.launch(quiet)[0].host == "job 2"


def test_a_file_that_was_changed_is_told_with_what_differs(
    launcher: BatchLauncher, queue: Queue, tmp_path: Path
) -> None:
    place, before = Place(tmp_path / "night"), launcher._file
    launcher.launch(quiet)
    (tmp_path / "count.py").write_text("class CountWorker: number = 2\n")
    elastic = {"elastic:Count": {"maximum": "8"}}
    sections = {
        "worker:Count": {"target": "count.py:CountWorker", "count": "3", "gpus": "1"},
        "worker:Sum": {"target": "sums:SumWorker"},
    }
    file = replace(before, sections=sections | elastic, batch=Batch(4, "2:00:00"))
    changed = BatchLauncher(file, place, queue)
    changed.is_waiting = False
    (outcome,) = changed.launch(quiet)
    # it is told again, as nobody has taken it over
    assert changed.launch(quiet) == [outcome]
    assert outcome.is_done
    assert outcome.message == (
        "is there already, and goes on with what the cluster file said before it was "
        "changed (3 of worker Count, not 2; worker Count has other gpus; worker Sum is "
        "new; file count.py is another; other time in batch): `opencluster down` and "
        "`opencluster up` take that over"
    )
    # what is elastic is in force at once, and nothing else
    assert recorded(place) == replace(before, sections=SECTIONS | elastic)


def test_further_jobs_begin_after_the_first_and_have_one_computer_each(
    launcher: BatchLauncher, queue: Queue
) -> None:
    with pytest.raises(LaunchFailed, match="the first job has ended"):
        launcher.add(1)
    launcher.launch(quiet)
    assert launcher.add(2) == ["2", "3"]
    assert queue.after == {"1": "", "2": "1", "3": "1"}
    assert [each.nodes for each in launcher.allocations()] == [4, 1, 1]


def test_jobs_that_join_run_what_the_first_one_runs(
    tmp_path: Path, launcher: BatchLauncher, queue: Queue
) -> None:
    program, order = tmp_path / "count.py", tmp_path / "night" / "launch" / "order.json"
    launcher.launch(quiet)
    before = order.read_text()
    program.unlink()
    launcher.add(1)
    assert order.read_text() == before
    queue.jobs = dict.fromkeys(queue.jobs, ENDED)
    program.write_text("class CountWorker: number = 2\n")
    launcher.launch(quiet)
    assert order.read_text() != before


def test_a_job_runs_while_its_workshops_do_whatever_the_queue_says(
    launcher: BatchLauncher, queue: Queue, here: list[str]
) -> None:
    launcher.launch(quiet)
    here.append("n1.site.org.1")
    for forget in (lambda: queue.jobs.update({"1": ENDED}), queue.jobs.clear):
        forget()
        assert [each.state for each in launcher.allocations()] == [RUNNING]


def test_a_job_that_the_queue_does_not_know_has_ended_unless_it_is_new(
    launcher: BatchLauncher,
    queue: Queue,
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher.launch(quiet)
    queue.jobs.clear()
    assert [each.state for each in launcher.allocations()] == [PENDING]
    later = time.time() + 61.0
    monkeypatch.setattr("opencluster.launchers.batch.launcher.time.time", lambda: later)
    assert launcher.allocations() == []


def test_no_job_counts_as_ended_because_the_queue_is_silent(
    launcher: BatchLauncher, queue: Queue
) -> None:
    launcher.launch(quiet)
    queue.is_silent = True
    for ask_for in (launcher.allocations, lambda: launcher.add(1)):
        with pytest.raises(LaunchFailed, match="does not answer"):
            ask_for()
    queue.is_silent = False
    assert [each.id for each in launcher.allocations()] == ["1"]


def test_a_job_is_removed_but_not_the_one_with_the_factories(
    launcher: BatchLauncher, queue: Queue, here: list[str]
) -> None:
    launcher.launch(quiet)
    (id,) = launcher.add(1)
    queue.jobs[id] = RUNNING
    here.append(f"n1.{id}")
    launcher.remove(id)
    assert queue.asked_to_end == [id]
    here.clear()
    assert [each.id for each in launcher.allocations()] == ["1"]
    with pytest.raises(LaunchFailed, match="has the factories"):
        launcher.remove("1")
    with pytest.raises(LaunchFailed, match=r"job 9 is none of this cluster's \(1\)"):
        launcher.remove("9")


def test_all_jobs_are_taken_down_the_first_one_last(
    launcher: BatchLauncher, queue: Queue
) -> None:
    launcher.launch(quiet)
    launcher.add(1)
    told: list[Outcome] = []
    launcher.take_down(told.append)
    assert [outcome.host for outcome in told] == ["job 2", "job 1"]
    assert all(outcome.is_done for outcome in told)
    assert set(queue.jobs.values()) == {ENDED}
    assert launcher.take_down(quiet) == []


def test_a_place_where_something_else_runs_is_refused(
    launcher: BatchLauncher, queue: Queue, tmp_path: Path
) -> None:
    place = Place(tmp_path / "night")
    place.make()
    keep_record(place, ClusterFile(tmp_path / "other.yaml", "other", launcher="ssh"))
    with pytest.raises(LaunchFailed, match="was launched by ssh"):
        launcher.launch(quiet)
    pid = os.getpid()
    place.write({"factories": [{"pid": pid, "start_time": embedded.start_time(pid)}]})
    with pytest.raises(LaunchFailed, match="another cluster runs in"):
        launcher.launch(quiet)
    assert queue.jobs == {}


def test_ctrl_c_cancels_the_job_that_is_waited_for(
    launcher: BatchLauncher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.is_waiting = True
    told: list[Outcome] = []

    def interrupt(id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "glimpse", lambda self, id, unknown: interrupt(id))
    with pytest.raises(KeyboardInterrupt):
        launcher.launch(told.append)
    assert told[-1] == Outcome("job 1", False, "is cancelled")
    assert queue.jobs == {"1": ENDED}


def test_ctrl_c_while_a_job_is_submitted_cancels_it_too(
    launcher: BatchLauncher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(script: str, after: str = "") -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return Queue.submit(queue, script, after)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(queue, "submit", submit)
    told: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt):
        launcher.launch(told.append)
    assert told == [Outcome("job 1", False, "is cancelled")]
    assert queue.jobs == {"1": ENDED}
    assert signal.getsignal(signal.SIGINT) is before


def test_a_job_that_ends_before_it_is_at_work_is_told_with_what_it_printed(
    launcher: BatchLauncher, queue: Queue, tmp_path: Path
) -> None:
    launcher.is_waiting = True

    def end(outcome: Outcome) -> None:
        queue.jobs["1"] = ENDED
        log = tmp_path / "night" / "launch" / "1.log"
        log.write_text("python3: No such file or directory\n")

    (outcome,) = launcher.launch(end)
    assert (outcome.host, outcome.is_done) == ("job 1", False)
    assert "has ended before it was at work: see" in outcome.message
    assert outcome.detail.strip() == "python3: No such file or directory"


def test_a_job_is_waited_for_while_the_queue_is_silent(
    launcher: BatchLauncher, queue: Queue
) -> None:
    launcher.is_waiting = True
    told: list[str] = []

    def hear(outcome: Outcome) -> None:
        told.append(outcome.message)
        queue.is_silent = outcome.message == "is submitted"
        if outcome.message.startswith("is waited for"):
            queue.jobs["1"] = ENDED

    (outcome,) = launcher.launch(hear)
    assert not outcome.is_done
    assert told[1] == "is waited for, though the batch system does not answer now"


def test_each_computer_of_a_job_is_told_what_became_of_it(
    launcher: BatchLauncher, here: list[str], tmp_path: Path
) -> None:
    launcher.is_waiting = True
    Place(tmp_path / "night").make()
    folder = tmp_path / "night" / "jobs-of-slurm" / "1"
    (folder / "answers").mkdir(parents=True)
    (folder / "nodes").write_text("n1\nn2\n")
    answer = {"is_done": False, "message": "port 20003 is taken"}

    def begin_work(outcome: Outcome) -> None:
        if outcome.message == "is submitted":
            launcher._place.write({"job": "1"})
            here.append("n1.1")
            told = json.dumps({"opencluster_node": answer})
            (folder / "answers" / "n2").write_text(told)

    outcomes = launcher.launch(begin_work)
    assert outcomes == [
        Outcome("n1", True, "is at work"),
        Outcome("n2", False, "port 20003 is taken"),
    ]


# --- one computer of a job --------------------------------------------------


@pytest.fixture
def job(
    launcher: BatchLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Job:
    """A job of four computers whose names resolve."""
    resolve = "opencluster.launchers.batch.allocation._resolves"
    monkeypatch.setattr(resolve, lambda name: True)
    launcher.launch(quiet)
    folder = tmp_path / "night" / "jobs-of-slurm" / "1"
    folder.mkdir(parents=True)
    names = ["n1", "n2", "n3", "n4.site.org"]
    (folder / "nodes").write_text("\n".join(names) + "\n")
    return Job(folder)


def test_the_first_three_computers_of_a_job_run_factories(
    job: Job, queue: Queue
) -> None:
    queue.end_s = 5000.0
    begin(job, queue, is_first=True)
    ports = [20003, 20004, 20005]
    factories = [f"tcp://n{n}:{p}" for n, p in enumerate(ports, start=1)]
    assert job.factories == factories
    assert job.ends_at == 5000.0
    rows = job.shared.read()["factories"]
    assert [row["endpoints"] for row in rows] == [[each] for each in factories]
    orders = [order_for(job, name) for name in job.nodes]
    assert [order.number for order in orders] == [1, 2, 3, 0]
    assert [order.roles for order in orders[2:]] == [
        ("factory", "workshop"),
        ("workshop",),
    ]
    assert orders[3].keys.keys() == {"workshop.key", "worker.key"}
    assert orders[3].sections["workshop"]["name"] == "n4.1"
    assert orders[3].sections["worker:Count"] == SECTIONS["worker:Count"]
    # of the two minutes before the end
    assert orders[3].sections["worker"]["drain_timeout_s"] == "70"


def test_a_job_that_nobody_knows_takes_no_place(
    job: Job, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(job, queue, is_first=True)
    # as one whose submitter was killed before it had noted it
    orphan = Job(job.folder.with_name("99"))
    monkeypatch.setattr("opencluster.launchers.batch.allocation.NOTED_S", 0.0)
    with pytest.raises(LaunchFailed, match="knows job 99: the command that submitted"):
        begin(orphan, queue, is_first=True)
    assert job.shared.read()["job"] == "1"


def test_a_job_that_joins_has_the_factories_of_the_first(
    launcher: BatchLauncher,
    job: Job,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert launcher.add(1) == ["2"]
    other = Job(job.folder.with_name("2"))
    other.folder.mkdir()
    (other.folder / "nodes").write_text("n9\n")
    with monkeypatch.context() as patch:
        patch.setattr("opencluster.launchers.batch.allocation.JOINED_S", 0.0)
        patch.setattr("opencluster.launchers.batch.allocation.NOTE_POLL_S", 0.0)
        with pytest.raises(LaunchFailed, match="there is no cluster to join"):
            begin(other, queue, is_first=False)
    # it may begin before the first one has
    joining = threading.Thread(target=begin, args=(other, queue, False))
    joining.start()
    begin(job, queue, is_first=True)
    joining.join()
    order = order_for(other, "n9")
    assert order.sections["cluster"]["factories"].split(", ") == job.factories
    assert (order.number, order.roles) == (0, ("workshop",))


@pytest.mark.parametrize(
    ("nodes", "endpoints"),
    [
        (["a"], ["tcp://a:20021"]),
        (["a", "b"], ["tcp://a:20021"]),
        (["a", "b", "c"], ["tcp://a:20021", "tcp://10.0.0.2:20022", "tcp://c:20023"]),
    ],
)
def test_factories_are_called_as_they_are_reached(
    nodes: Sequence[str], endpoints: list[str]
) -> None:
    assert factory_endpoints(nodes, "7", {"b": "10.0.0.2"}.get) == endpoints


def test_jobs_next_to_each_other_have_other_ports() -> None:
    ports = {port_of(str(id), index) for id in range(3000) for index in range(3)}
    assert len(ports) == 9000
    assert 20_000 <= min(ports) <= max(ports) < 30_000
    assert port_of("17.server", 0) == port_of("17", 0)


@pytest.mark.parametrize(
    ("host", "environ", "name"),
    [
        ("whatever", {"SLURMD_NODENAME": "n2"}, "n2"),
        ("n2.site.org", {}, "n2"),
        ("n3", {}, "n3.site.org"),
        ("n3.site.org", {}, "n3.site.org"),
    ],
)
def test_a_computer_finds_itself_among_those_of_its_job(
    host: str, environ: dict[str, str], name: str
) -> None:
    nodes = ["n1", "n2", "n3.site.org"]
    assert own_name(nodes, environ, host) == name
    with pytest.raises(LaunchFailed, match="n4 is none of the job's computers"):
        own_name(nodes, {}, "n4")


@pytest.mark.parametrize(
    ("left_s", "drain_before_s", "phase"),
    [
        (121.0, 120.0, WORK),
        (120.0, 120.0, DRAIN),
        (16.0, 120.0, DRAIN),
        (15.0, 120.0, END),
        (-5.0, 120.0, END),
        (6.0, 10.0, DRAIN),
        (5.0, 10.0, END),
    ],
)
def test_a_computer_drains_and_ends_before_its_job_does(
    left_s: float, drain_before_s: float, phase: str
) -> None:
    assert phase_at(1000.0, 1000.0 + left_s, drain_before_s) == phase


def test_a_job_without_an_end_is_never_drained() -> None:
    assert phase_at(1e12, 0.0, 120.0) == WORK


class Clock:
    """The time of a follower."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.step_s = 0.0

    def time(self) -> float:
        return self.now_s + self.step_s

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("opencluster.launchers.batch.following.time.time", clock.time)
    monkeypatch.setattr(
        "opencluster.launchers.batch.following.time.monotonic", clock.monotonic
    )
    return clock


class Shop:
    """A workshop that is drained at once, and empty when it is told."""

    def __init__(self) -> None:
        self.is_there = True
        self.is_empty = False
        self.heard: list[str] = []

    def tell(self, operation: str) -> bool:
        self.heard.append(operation)
        return True


def follower_of(
    job: Job, name: str, queue: Queue, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> Follower:
    begin(job, queue, is_first=True)
    follower = Follower(job, order_for(job, name), queue, 120.0, 60.0)
    monkeypatch.setattr(follower, "_shop", lambda: {} if shop.is_there else None)
    monkeypatch.setattr(follower, "_tell", shop.tell)
    monkeypatch.setattr(follower, "_is_empty", lambda: shop.is_empty)
    return follower


def test_a_computer_without_a_factory_ends_as_soon_as_it_is_drained(
    job: Job, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.end_s, shop = 1000.0, Shop()
    follower = follower_of(job, "n4.site.org", queue, shop, monkeypatch)
    for clock.now_s in (1.0, 500.0, 879.0):
        assert not follower.look()
    assert shop.heard == []
    clock.now_s = 880.0
    assert not follower.look()
    assert shop.heard == ["drain"]
    shop.is_empty = True
    clock.now_s = 885.0
    assert follower.look()


def test_a_computer_with_a_factory_stays_until_shortly_before_the_end(
    job: Job, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.end_s, shop = 1000.0, Shop()
    follower = follower_of(job, "n2", queue, shop, monkeypatch)
    shop.is_empty = True
    for clock.now_s in (890.0, 984.0):
        assert not follower.look()
    assert shop.heard == ["drain"]
    clock.now_s = 985.0
    assert follower.look()


def test_a_job_that_was_given_more_time_works_again(
    job: Job, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.end_s, shop = 1000.0, Shop()
    # the first computer asks the queue, for all others
    follower = follower_of(job, "n1", queue, shop, monkeypatch)
    clock.now_s = 900.0
    follower.look()
    queue.end_s, clock.now_s = 5000.0, 961.0
    follower.look()
    assert job.ends_at == 5000.0
    clock.now_s = 962.0
    assert not follower.look()
    assert shop.heard == ["drain", "undrain"]


def test_a_job_whose_limit_is_lifted_works_again(
    job: Job, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.end_s, shop = 1000.0, Shop()
    follower = follower_of(job, "n1", queue, shop, monkeypatch)
    clock.now_s = 900.0
    follower.look()
    queue.end_s = 0.0
    for clock.now_s in (961.0, 2000.0):
        assert not follower.look()
    assert shop.heard == ["drain", "undrain"]


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_job_ends_by_the_clock_of_the_batch_system(
    name: str,
    job: Job,
    queue: Queue,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue.end_s, queue.ahead_s, shop = 1000.0, 240.0, Shop()
    follower = follower_of(job, name, queue, shop, monkeypatch)
    for clock.now_s in (0.0, 100.0, 639.0):
        assert not follower.look()
    assert shop.heard == []
    # what was heard of its time holds, also when our own clock is put right
    queue.is_silent = True
    clock.step_s = 240.0
    clock.now_s = 641.0
    assert not follower.look()
    assert shop.heard == ["drain"]
    clock.now_s = 745.0
    assert follower.look()
    assert "240 s behind that of the batch system" in caplog.text


def test_the_end_of_a_job_is_told_as_our_own_clock_has_it(
    launcher: BatchLauncher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.launch(quiet)
    queue.ahead_s = -200.0
    ends_at = time.time() + 1000.0
    found = {"1": Allocation("1", RUNNING, 4, ends_at)}
    monkeypatch.setattr(queue, "look", lambda ids: found)
    (job,) = launcher.allocations()
    assert job.ends_at == pytest.approx(ends_at + 200.0, abs=5.0)


def test_what_was_heard_of_the_end_holds_while_the_queue_is_silent(
    job: Job, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.end_s, shop = 1000.0, Shop()
    follower = follower_of(job, "n1", queue, shop, monkeypatch)
    queue.is_silent, clock.now_s = True, 100.0
    follower.look()
    assert job.ends_at == 1000.0
    clock.now_s = 900.0
    follower.look()
    assert shop.heard == ["drain"]


def test_a_look_that_fails_is_not_the_last_one(
    job: Job, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follower_of(job, "n1", queue, Shop(), monkeypatch)
    answers = iter([ValueError("a strange answer"), True])

    def look() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    monkeypatch.setattr(follower, "look", look)
    monkeypatch.setattr("opencluster.launchers.batch.following.LOOK_S", 0.0)
    follower._run()
    assert follower.is_over(job.shared)


def test_a_job_whose_cluster_is_gone_ends(
    job: Job, queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop()
    follower = follower_of(job, "n4.site.org", queue, shop, monkeypatch)
    assert not follower.look()
    shop.is_there = False
    for clock.now_s in (60.0, 120.0, 299.0):
        assert not follower.look()
    clock.now_s = 360.0
    assert follower.look()


# --- commands ---------------------------------------------------------------


def test_a_command_that_is_not_there_fails_or_hangs_says_so() -> None:
    with pytest.raises(LaunchFailed, match="cannot run no-such-sbatch: No such file"):
        ask(["no-such-sbatch"])
    with pytest.raises(LaunchFailed, match="ended with status 1: Invalid account"):
        ask(["sh", "-c", "echo one; echo Invalid account >&2; exit 1"])
    with pytest.raises(LaunchFailed, match=r"did not end within 0\.05 s"):
        ask(["sleep", "30"], timeout_s=0.05)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which programs are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_an_answer_of_squeue_is_found_among_what_a_site_prints(programs: Path) -> None:
    lines = "echo 'Mind the maintenance'; echo '7|RUNNING|2|10:00|1000|None'"
    program(programs / "squeue", lines)
    assert SLURM.ends_at("7") == 1000.0
    assert SLURM.look(["7"]) == {"7": Allocation("7", RUNNING, 2, 1000.0)}
    program(programs / "squeue", "echo 'Mind the maintenance'")
    with pytest.raises(LaunchFailed, match="does not say when job 7 ends"):
        SLURM.ends_at("7")


@pytest.mark.parametrize(
    ("limit", "end", "ends_at"),
    [
        ("UNLIMITED", "NONE", 0.0),
        # some versions tell of a year
        ("UNLIMITED", "32536000", 0.0),
        ("1-00:00:00", "86400", 86400.0),
        ("INVALID", "86400", 86400.0),
        ("NOT_SET", "N/A", None),
        ("10:00", "N/A", None),
    ],
)
def test_a_limit_of_slurm_may_be_none(
    programs: Path, limit: str, end: str, ends_at: float | None
) -> None:
    program(programs / "squeue", f"echo '7|RUNNING|2|{limit}|{end}|None'")
    assert SLURM.look(["7"])["7"].ends_at == (ends_at or 0.0)
    if ends_at is None:
        with pytest.raises(LaunchFailed, match="does not say when job 7 ends"):
            SLURM.ends_at("7")
    else:
        assert SLURM.ends_at("7") == ends_at


def test_slurm_says_what_time_it_has(programs: Path) -> None:
    lines = "echo; echo 'Configuration data as of 1796043358'; echo 'Key = 1'"
    program(programs / "scontrol", lines)
    assert SLURM.clock_s() == 1796043358.0
    program(programs / "scontrol", "echo 'Key = 1'")
    with pytest.raises(LaunchFailed, match="does not say what time it is"):
        SLURM.clock_s()


def test_an_answer_of_sbatch_may_have_more_lines_and_a_cluster(programs: Path) -> None:
    program(programs / "sbatch", "echo Welcome to site; echo '42;main'")
    assert SLURM.submit("/scratch/job.sh") == "42"
    program(programs / "sbatch", "echo Welcome to site")
    with pytest.raises(LaunchFailed, match="sbatch names no job"):
        SLURM.submit("/scratch/job.sh")
