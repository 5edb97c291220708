"""The dispatcher: a daemon that drains the task queue into a bounded pool of managers.

Each task runs in a process of its own, which ends with the dispatcher, however that
ends. One thread looks after these processes, another one keeps the books.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection

from opencluster.config import Config, load
from opencluster.core.metrics import Metric, one
from opencluster.dispatcher.clerk import (
    Begin,
    Broken,
    Clerk,
    Gone,
    News,
    NothingLeft,
    Renewed,
)
from opencluster.dispatcher.running import Ending, Running, Verdict
from opencluster.errors import StartFailed
from opencluster.node.host import host_name
from opencluster.node.notify import Notifier
from opencluster.place import Place
from opencluster.store.mounts import shared_file_system
from opencluster.taskqueue import Lease, Leased, Leases, TaskQueue

log = logging.getLogger(__name__)

FLUSH_S = 10.0
"""How long a dispatcher that stops waits for the database."""
HURRIED_FLUSH_S = 1.0
"""The same when it was told twice."""
MARGIN = 0.1
"""Part of a lease before its end in which a manager that cannot keep it is stopped."""


class TaskDispatcher:
    """Runs the tasks of the queue, several at a time, until it is stopped.

    Any number of dispatchers, on any number of computers, may drain one queue.

    Parameters
    ----------
    config : Config, optional
        The settings.
    place : Place, optional
        The cluster's directory.
    managers : int, optional
        How many tasks run at a time; by default ``[taskqueue] managers``.
    only : collection of str, optional
        Run only tasks of Manager classes of these names; by default what the class
        attribute says.
    until_empty : bool
        End when nothing is queued any more.

    Attributes
    ----------
    only : tuple of str
        Names of Manager classes; empty for all. A subclass that is made for some kind
        of task sets it.
    name : str
        What the queue calls this dispatcher.
    """

    only: tuple[str, ...] = ()

    def __init__(
        self,
        config: Config | None = None,
        place: Place | None = None,
        *,
        managers: int = 0,
        only: Collection[str] | None = None,
        until_empty: bool = False,
    ) -> None:
        self.config = config or load()
        self.place = place or Place.find()
        self.place.make()
        settings = self.config.taskqueue
        self.name = f"{host_name()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        if only is not None:
            self.only = tuple(only)
        self.managers = managers or settings.managers
        self.queue = TaskQueue(config=self.config, place=self.place, patience_s=0.0)
        leases = Leases(
            self.queue.database, self.name, settings.lease_s, settings.retry_delay_s
        )
        self._clerk = Clerk(leases, settings, self.managers, self.only, self._heard)
        self._lease_s = settings.lease_s
        self._grace_s = settings.stop_grace_s
        self._ends_when_empty = until_empty
        self._news: deque[News] = deque()
        self._runs: dict[Lease, Running] = {}
        self._stops = 0
        self._is_empty = False
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._watched_fd = -1
        self._notifier = Notifier({})
        self._posted: deque[Callable[[], None]] = deque()
        self._ended: Counter[str] = Counter()

    def run(self) -> None:
        """Run tasks until `stop` is called.

        Managers are bound to the thread that calls this: they end with it.
        """
        log.info(
            "dispatcher %s takes tasks from %s, %d at a time",
            self.name,
            self.queue.database.name,
            self.managers,
        )
        self._warn_of_shared_disk()
        self._clerk.start()
        try:
            while not self._is_over():
                self._turn()
        finally:
            self._end()

    def stop(self) -> None:
        """Give back what is unfinished, and end; a second call does it without grace.

        May be called from a signal handler, and from any thread.
        """
        self._stops += 1
        self._wake()

    def end_with(self, fd: int) -> None:
        """Stop when a descriptor becomes readable, such as that of a process."""
        self._watched_fd = fd
        self._selector.register(fd, selectors.EVENT_READ)

    def report_to(self, notifier: Notifier) -> None:
        """Tell the service manager that it is ready, and in each turn that it lives."""
        self._notifier = notifier
        notifier.ready()

    def metrics(self) -> list[Metric]:
        """Return numbers by which it is watched; call it from its loop, see `post`."""
        return [
            one("tasks_running", "Tasks that this dispatcher runs.", len(self._runs)),
            one("tasks_running_max", "Tasks that it may run.", self.managers),
            Metric(
                "tasks_ended_total",
                "Tasks that ended here.",
                [((("outcome", how),), n) for how, n in self._ended.items()],
            ),
        ]

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in its loop."""
        self._posted.append(callback)
        self._wake()

    # --- inside --------------------------------------------------------------

    def _warn_of_shared_disk(self) -> None:
        path = self.queue.database.path
        kind = "" if path is None else shared_file_system(path)
        if kind:
            log.warning(
                "%s is on %s, where SQLite holds no locks against other computers: "
                "use this queue on one computer alone, or set [taskqueue] url to a "
                "PostgreSQL",
                path,
                kind,
            )

    def _heard(self, news: News) -> None:
        """Take in news, in the clerk's thread."""
        self._news.append(news)
        self._wake()

    def _wake(self) -> None:
        # when it is full, the other end is awake
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_out.send(b"x")

    def _is_over(self) -> bool:
        if self._runs or self._news:
            return False
        return bool(self._stops) or (self._ends_when_empty and self._is_empty)

    def _turn(self) -> None:
        if self._notifier.interval_s:
            self._notifier.alive()
        for key, _ in self._selector.select(self._wait_s()):
            if key.fileobj is self._wake_in:
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)
            elif key.fd == self._watched_fd:
                self._selector.unregister(key.fd)
                self._stops = max(1, self._stops)
        while self._news:
            self._take_in(self._news.popleft())
        while self._posted:
            self._posted.popleft()()
        if self._stops:
            self._stop_all()
        for run in list(self._runs.values()):
            self._look_after(run)

    def _wait_s(self) -> float | None:
        looks = [run.next_look() for run in self._runs.values()]
        soonest = min(looks, default=math.inf) - time.monotonic()
        soonest = min(soonest, self._notifier.interval_s or math.inf)
        return None if math.isinf(soonest) else max(0.0, soonest)

    def _take_in(self, news: News) -> None:
        match news:
            case Begin(leased, valid_until):
                self._is_empty = False
                self._begin(leased, valid_until)
            case Renewed(leases, valid_until):
                for lease in leases:
                    if lease in self._runs:
                        self._keep(self._runs[lease], valid_until)
            case Gone(leases):
                for lease in leases:
                    if lease in self._runs:
                        why = "it was cancelled, or is not ours any more"
                        self._ask_to_end(self._runs[lease], why, self._grace_s)
            case NothingLeft():
                self._is_empty = True
            case Broken(error):
                # the managers end with it, and their tasks are begun elsewhere
                raise error

    def _begin(self, leased: Leased, valid_until: float) -> None:
        if self._stops:
            self._clerk.ended(leased.lease, Ending(Verdict.GIVEN_BACK))
            return
        taken = {run.slot for run in self._runs.values()}
        slot = min(set(range(1, self.managers + 2)) - taken)
        try:
            run = Running(leased, self.config, self.place, slot)
        except (StartFailed, OSError) as error:
            log.error("%s cannot be run: %s", leased.lease, error)
            self._clerk.ended(leased.lease, Ending(Verdict.GIVEN_BACK))
            return
        self._runs[leased.lease] = run
        self._keep(run, valid_until)
        for fd in run.descriptors:
            self._selector.register(fd, selectors.EVENT_READ)

    def _keep(self, run: Running, valid_until: float) -> None:
        # stopped before another one may begin
        run.valid_until = valid_until - MARGIN * self._lease_s

    def _look_after(self, run: Running) -> None:
        now = time.monotonic()
        before = run.descriptors
        ending = run.poll(now)
        for fd in {*before} - {*run.descriptors}:
            self._selector.unregister(fd)
        if run.progress is not None:
            self._clerk.progressed(run.lease, *run.progress)
            run.progress = None
        if ending is not None:
            del self._runs[run.lease]
            self._ended[ending.verdict.value.replace(" ", "_")] += 1
            self._clerk.ended(run.lease, ending)
        elif now >= run.valid_until:
            grace_s = min(self._grace_s, MARGIN * self._lease_s)
            self._ask_to_end(run, "its lease cannot be renewed", grace_s)

    def _ask_to_end(self, run: Running, why: str, grace_s: float) -> None:
        run.valid_until = math.inf
        run.ask_to_end(why, time.monotonic(), grace_s)

    def _stop_all(self) -> None:
        grace_s = self._grace_s if self._stops == 1 else 0.0
        now = time.monotonic()
        self._clerk.stop_taking()
        for run in self._runs.values():
            run.ask_to_end("the dispatcher stops", now, grace_s)

    def _end(self) -> None:
        self._clerk.stop_taking()
        for run in self._runs.values():
            # only after an error in here
            run.end(time.monotonic())
            self._clerk.ended(run.lease, Ending(Verdict.GIVEN_BACK))
        for news in self._news:
            if isinstance(news, Begin):
                self._clerk.ended(news.leased.lease, Ending(Verdict.GIVEN_BACK))
        left = self._clerk.close(FLUSH_S if self._stops < 2 else HURRIED_FLUSH_S)
        for lease in left:
            log.error(
                "what came of %s could not be recorded: it will be run again", lease
            )
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()
        log.info("dispatcher %s has ended", self.name)
