"""What a dispatcher has to do with the queue, in a thread of its own.

The database may be slow, or gone for a while; meanwhile somebody must look after the
managers. So one thread keeps the books and waits for the database, with a delay that
grows while it is gone, and what is to be written down is kept until it is.

Owns the leases of one dispatcher. Must not touch processes: what it finds out it tells
by the callable that it is given, which must not block.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from opencluster.config.settings import TaskQueueSettings
from opencluster.dispatcher.running import Ending, Verdict
from opencluster.errors import QueueError, QueueUnavailable
from opencluster.taskqueue import Lease, Leased, Leases

log = logging.getLogger(__name__)

RENEWALS = 4
"""How often a lease is renewed in its time."""
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
"""Between two tries while the database is gone, doubled each time."""
TOLD_S = 60.0
"""How often the log says that it is still gone."""
FORGET_S = 3600.0
"""How often old tasks are removed."""


@dataclass(frozen=True)
class Begin:
    """A task was lent: run it."""

    leased: Leased
    valid_until: float


@dataclass(frozen=True)
class Renewed:
    """These leases hold, until this time of the monotonic clock at least."""

    leases: Collection[Lease]
    valid_until: float


@dataclass(frozen=True)
class Gone:
    """These tasks were cancelled, failed of their deadline, or run elsewhere now."""

    leases: Collection[Lease]


@dataclass(frozen=True)
class NothingLeft:
    """Nothing is queued any more that this dispatcher could run."""


@dataclass(frozen=True)
class Broken:
    """The clerk cannot go on, for a reason that is no trouble of the database."""

    error: BaseException


News = Begin | Renewed | Gone | NothingLeft | Broken


class Clerk:
    """Keeps the books of one dispatcher.

    Parameters
    ----------
    leases : Leases
        The queue.
    settings : TaskQueueSettings
        How often to look, and how long to keep what is old.
    capacity : int
        How many tasks run at a time.
    only : collection of str
        Names of the manager classes whose tasks are wanted; empty for all.
    tell : callable
        Given the news, in the clerk's thread.
    """

    def __init__(
        self,
        leases: Leases,
        settings: TaskQueueSettings,
        capacity: int,
        only: Collection[str],
        tell: Callable[[News], None],
    ) -> None:
        self._leases = leases
        self._settings = settings
        self._capacity = capacity
        self._only = tuple(only)
        self._tell = tell
        self._changed = threading.Condition()
        self._is_awake = False
        self._is_taking = True
        self._is_closing = self._is_given_up = False
        self._endings: dict[Lease, Ending] = {}
        self._progress: dict[Lease, tuple[float, float]] = {}
        # of the thread alone
        self._known: set[Lease] = set()
        self._take_at = 0.0
        self._renew_at = 0.0
        self._forget_at = 0.0
        self._delay_s = 0.0
        self._told_at = -TOLD_S
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)

    # --- from the dispatcher's thread ----------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop_taking(self) -> None:
        """Take no more tasks: what is not told of when this returns, never is."""
        with self._changed:
            self._is_taking = False

    def progressed(self, lease: Lease, done: float, total: float) -> None:
        """Note how far a task is."""
        with self._changed:
            self._progress[lease] = done, total

    def ended(self, lease: Lease, ending: Ending) -> None:
        """Have it written down how a task ended, as soon as that is possible."""
        with self._changed:
            self._endings[lease] = ending
            self._wake()

    def close(self, timeout_s: float) -> list[Lease]:
        """Write down what is left, let go of the database, and end.

        Parameters
        ----------
        timeout_s : float
            How long that may take.

        Returns
        -------
        list of Lease
            Tasks of which the end could not be written down: their leases run out.
        """
        with self._changed:
            self._is_taking = False
            self._is_closing = True
            self._wake()
        self._thread.join(timeout_s)
        with self._changed:
            self._is_given_up = True
            return list(self._endings)

    def _wake(self) -> None:
        self._is_awake = True
        self._changed.notify()

    # --- in the clerk's thread -----------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._work()
        except BaseException as error:
            self._tell(Broken(error))
        finally:
            # not before: it may have waited for an answer all the time
            self._leases.close()

    def _is_over(self) -> bool:
        with self._changed:
            is_done = self._is_closing and not self._endings
            return is_done or self._is_given_up

    def _work(self) -> None:
        """Do what is to be done now, and wait until there is more."""
        try:
            self._turn()
        except QueueError as error:
            self._in_trouble(error)
        else:
            self._out_of_trouble()
        if self._is_over():
            return
        with self._changed:
            wait_s = self._delay_s or self._settings.poll_interval_s
            self._changed.wait_for(self._should_look, wait_s)
            self._is_awake = False

    def _should_look(self) -> bool:
        # what wakes the thread cannot be done while the database is gone
        return self._is_awake and not self._delay_s

    def _turn(self) -> None:
        with self._changed:
            has_last_words = bool(self._progress.keys() & self._endings.keys())
        if has_last_words:
            # how far a task came, before how it ended
            self._renew()
        self._write_endings()
        self._renew()
        self._take()
        if self._settings.kept_s and time.monotonic() >= self._forget_at:
            self._forget()

    def _write_endings(self) -> None:
        with self._changed:
            endings = list(self._endings.items())
        for lease, ending in endings:
            if lease in self._known:
                is_held = self._write(lease, ending)
            else:
                is_held = False
                self._leases.let_go(lease)
            self._known.discard(lease)
            with self._changed:
                del self._endings[lease]
            if ending.verdict is Verdict.GIVEN_BACK:
                # others come first
                self._take_at = time.monotonic() + self._settings.poll_interval_s
            what = ending.verdict.value + _first_line(ending.error)
            if is_held:
                log.info("%s is %s", lease, what)
            else:
                log.info("%s is not ours any more: not recorded: %s", lease, what)

    def _write(self, lease: Lease, ending: Ending) -> bool:
        """Write down how a task ended; False when the lease does not hold any more."""
        try:
            return self._write_as_it_is(lease, ending)
        except QueueUnavailable:
            raise
        except QueueError as error:
            # what is refused now will be refused again
            log.error("%s cannot be recorded: %s", lease, error)
            return self._leases.fail(lease, f"it cannot be recorded: {error}")

    def _write_as_it_is(self, lease: Lease, ending: Ending) -> bool:
        match ending.verdict:
            case Verdict.DONE:
                return self._leases.record(lease, ending.result)
            case Verdict.FAILED:
                return self._leases.fail(lease, ending.error, ending.output)
            case Verdict.LOST:
                return self._leases.lose(lease, ending.error, ending.output)
            case Verdict.GIVEN_BACK:
                return self._leases.give_back(lease)

    def _renew(self) -> None:
        """Keep the leases, and find out which are not ours any more."""
        now = time.monotonic()
        with self._changed:
            progress, self._progress = self._progress, {}
        try:
            if progress or now >= self._renew_at:
                held = self._leases.renew(progress, self._known)
                self._renew_at = now + self._leases.lease_s / RENEWALS
                self._tell(Renewed(held, now + self._leases.lease_s))
            elif self._known:
                held = self._leases.held() & self._known
            else:
                return
        except QueueError:
            with self._changed:
                self._progress = progress | self._progress
            raise
        gone = self._known - held
        self._known = held
        if gone:
            self._tell(Gone(gone))

    def _take(self) -> None:
        free = self._capacity - len(self._known)
        if free <= 0 or not self._is_taking or time.monotonic() < self._take_at:
            # or deadlines would pass unseen while all managers are busy
            self._leases.sweep()
            return
        before = time.monotonic()
        taken = self._leases.take(free, self._only)
        self._known |= {leased.lease for leased in taken}
        with self._changed:
            for leased in taken:
                if self._is_taking:
                    log.info("%s begins: %s", leased.lease, leased.task.name)
                    self._tell(Begin(leased, before + self._leases.lease_s))
                else:
                    self._endings[leased.lease] = Ending(Verdict.GIVEN_BACK)
        if not taken and not self._known and not self._leases.is_more(self._only):
            self._tell(NothingLeft())

    def _forget(self) -> None:
        count = self._leases.forget(self._settings.kept_s)
        if count:
            log.info("removed %d tasks that ended long ago", count)
        else:
            self._forget_at = time.monotonic() + FORGET_S

    def _in_trouble(self, error: QueueError) -> None:
        self._delay_s = min(max(2 * self._delay_s, FIRST_DELAY_S), MAX_DELAY_S)
        now = time.monotonic()
        if now - self._told_at >= TOLD_S:
            self._told_at = now
            log.warning("%s; trying again", error)

    def _out_of_trouble(self) -> None:
        if self._delay_s:
            log.info("the task queue can be used again")
        self._delay_s = 0.0
        self._told_at = -TOLD_S


def _first_line(error: str) -> str:
    lines = error.splitlines()
    return f": {lines[0]}" if lines else ""
