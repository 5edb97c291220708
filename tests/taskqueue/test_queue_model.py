"""Anything in any order: the queue is what a plain list of tasks would be.

Dispatchers behave as badly as they like: they fall silent, and speak of leases that are
long over. Clients cancel and ask again whenever they want.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from queue_tools import DELAY_S, LEASE_S, MANAGER, Opener

from opencluster import WorkPiece
from opencluster.taskqueue import Lease, Leases
from opencluster.wire import stored

HOLDERS = ("a", "b", "c")
indices = st.integers(0, 1000)


@dataclass
class Task:
    """A task as the model has it."""

    number: int
    priority: int
    deadline: float
    needs: frozenset[int]
    retries: int
    error_retries: int
    state: str = ""
    attempt: int = 0
    holder: str = ""
    until: float = 0.0
    losses: int = 0
    failures: int = 0


@dataclass
class Model:
    """What the queue should be."""

    now: float = 0.0
    tasks: dict[int, Task] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)

    def unmet(self, task: Task) -> int:
        return len(task.needs - self.results.keys())

    def settle(self) -> None:
        """Let those go on that have waited for what is done."""
        for task in self.tasks.values():
            if task.state == "waiting" and not self.unmet(task):
                task.state = "queued"

    def sweep(self) -> None:
        for task in self.tasks.values():
            if task.state in ("waiting", "queued", "running"):
                if task.deadline <= self.now:
                    if task.state != "running":
                        task.until = 0.0
                    task.state, task.holder = "failed", ""
                elif task.state == "running" and task.until <= self.now:
                    self.lose(task)

    def lose(self, task: Task) -> None:
        task.losses += 1
        task.state = "queued" if task.losses <= task.retries else "failed"
        task.holder, task.until = "", 0.0

    def take(self, holder: str, count: int) -> list[Lease]:
        self.sweep()
        free = [
            task
            for task in self.tasks.values()
            if task.state == "queued" and task.until <= self.now
        ]
        free.sort(key=lambda task: (-task.priority, task.deadline, task.number))
        for task in free[:count]:
            task.state, task.holder = "running", holder
            task.attempt += 1
            task.until = self.now + LEASE_S
        return [Lease(task.number, task.attempt) for task in free[:count]]

    def held(self, holder: str, lease: Lease) -> Task | None:
        task = self.tasks[lease.task]
        is_held = task.state == "running" and task.holder == holder
        return task if is_held and task.attempt == lease.attempt else None


class QueueMachine(RuleBasedStateMachine):
    """Does the same to the queue and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.opener = Opener(f"sqlite:///{folder}/tasks.db", self.stack)
        self.queue = self.opener.queue()
        self.begin = self.opener.clock.now
        self.leases = {
            name: Leases(self.queue.database, name, LEASE_S, DELAY_S)
            for name in HOLDERS
        }
        self.model = Model()
        self.given: list[tuple[str, Lease]] = []

    def teardown(self) -> None:
        self.stack.close()

    @rule(
        priority=st.integers(-1, 1),
        ahead_s=st.sampled_from([math.inf, math.inf, 0.5 * LEASE_S, 5 * LEASE_S]),
        needs=st.sets(indices, max_size=2),
        retries=st.integers(0, 2),
        error_retries=st.integers(0, 2),
    )
    def submit(
        self,
        priority: int,
        ahead_s: float,
        needs: set[int],
        retries: int,
        error_retries: int,
    ) -> None:
        known = list(self.model.tasks)
        needed = frozenset(known[n % len(known)] for n in needs) if known else set()
        number = self.queue.submit(
            MANAGER,
            WorkPiece(),
            priority=priority,
            deadline=self.begin.wall_s + self.model.now + ahead_s,
            depends_on=needed,
            retries=retries,
            error_retries=error_retries,
        )
        task = Task(
            number,
            priority,
            self.model.now + ahead_s,
            frozenset(needed),
            retries,
            error_retries,
        )
        task.state = "waiting" if self.model.unmet(task) else "queued"
        self.model.tasks[number] = task

    @rule(holder=st.sampled_from(HOLDERS), count=st.integers(1, 3))
    def take(self, holder: str, count: int) -> None:
        taken = [leased.lease for leased in self.leases[holder].take(count)]
        assert taken == self.model.take(holder, count)
        self.given += [(holder, lease) for lease in taken]

    @rule(seconds=st.sampled_from([1.0, DELAY_S, 0.6 * LEASE_S, 2 * LEASE_S]))
    def advance(self, seconds: float) -> None:
        self.opener.clock.advance(seconds)
        self.model.now += seconds

    @rule(holder=st.sampled_from(HOLDERS), forgetful=st.booleans())
    def renew(self, holder: str, forgetful: bool) -> None:
        known = {lease for who, lease in self.given if who == holder}
        known = set() if forgetful else known
        held = self.leases[holder].renew({}, known)
        assert held == {one for one in known if self.model.held(holder, one)}
        for task in self.model.tasks.values():
            if task.state == "running" and task.holder == holder:
                task.until = self.model.now + LEASE_S
                if forgetful:
                    task.state, task.holder, task.until = "queued", "", 0.0

    @precondition(lambda self: self.given)
    @rule(index=indices)
    def record(self, index: int) -> None:
        holder, lease = self.given[index % len(self.given)]
        result = stored.pack(WorkPiece(attempt=lease.attempt), "result", 1000)
        task = self.model.held(holder, lease)
        is_recorded = self.leases[holder].record(lease, result)
        if task is not None:
            task.state, task.holder = "done", ""
            assert lease.task not in self.model.results
            self.model.results[lease.task] = lease.attempt
            self.model.settle()
        assert is_recorded == (self.model.results.get(lease.task) == lease.attempt)

    @precondition(lambda self: self.given)
    @rule(index=indices)
    def fail(self, index: int) -> None:
        holder, lease = self.given[index % len(self.given)]
        task = self.model.held(holder, lease)
        assert self.leases[holder].fail(lease, "an error") == (task is not None)
        if task is not None:
            task.failures += 1
            is_last = task.failures > task.error_retries
            task.state, task.holder = "failed" if is_last else "queued", ""
            delay_s = DELAY_S * 2 ** (task.failures - 1)
            task.until = 0.0 if is_last else self.model.now + delay_s

    @precondition(lambda self: self.given)
    @rule(index=indices)
    def lose(self, index: int) -> None:
        holder, lease = self.given[index % len(self.given)]
        task = self.model.held(holder, lease)
        assert self.leases[holder].lose(lease, "a reason") == (task is not None)
        if task is not None:
            self.model.lose(task)

    @precondition(lambda self: self.given)
    @rule(index=indices)
    def give_back(self, index: int) -> None:
        holder, lease = self.given[index % len(self.given)]
        task = self.model.held(holder, lease)
        assert self.leases[holder].give_back(lease) == (task is not None)
        if task is not None:
            task.state, task.holder, task.until = "queued", "", 0.0

    @precondition(lambda self: self.model.tasks)
    @rule(index=indices)
    def cancel(self, index: int) -> None:
        task = self._pick(index)
        is_open = task.state in ("waiting", "queued", "running")
        assert self.queue.cancel(task.number) == [task.number] * is_open
        if is_open:
            if task.state != "running":
                task.until = 0.0
            task.state, task.holder = "cancelled", ""

    @precondition(lambda self: self.given)
    @rule(index=indices)
    def let_go(self, index: int) -> None:
        holder, lease = self.given[index % len(self.given)]
        self.leases[holder].let_go(lease)
        task = self.model.tasks[lease.task]
        if task.attempt == lease.attempt and task.state != "running":
            task.until = 0.0

    @precondition(lambda self: self.model.tasks)
    @rule(index=indices)
    def retry(self, index: int) -> None:
        task = self._pick(index)
        is_over = task.state in ("failed", "cancelled")
        assert self.queue.retry(task.number) == [task.number] * is_over
        if is_over:
            task.state = "waiting" if self.model.unmet(task) else "queued"
            task.losses = task.failures = 0
            if task.deadline <= self.model.now:
                task.deadline = math.inf

    @precondition(lambda self: self.model.tasks)
    @rule(index=indices, priority=st.integers(-2, 2))
    def prioritise(self, index: int, priority: int) -> None:
        task = self._pick(index)
        is_open = task.state in ("waiting", "queued", "running")
        changed = self.queue.prioritise(priority, task.number)
        assert changed == [task.number] * is_open
        if is_open:
            task.priority = priority

    def _pick(self, index: int) -> Task:
        tasks = list(self.model.tasks.values())
        return tasks[index % len(tasks)]

    @invariant()
    def the_queue_is_what_the_model_is(self) -> None:
        shown = self.queue.tasks(limit=10_000)
        assert {
            task.id: (
                *(task.state, task.attempt, task.holder, task.unmet),
                *(task.losses, task.failures, task.priority),
            )
            for task in shown
        } == {
            task.number: (
                *(task.state, task.attempt, task.holder, self.model.unmet(task)),
                *(task.losses, task.failures, task.priority),
            )
            for task in self.model.tasks.values()
        }
        for number, attempt in self.model.results.items():
            assert self.queue.result(number) == WorkPiece(attempt=attempt)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
