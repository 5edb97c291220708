"""A bounded number of manager runs, one for each item, the oldest item first."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue

from opencluster.errors import NoSuitableWorker, RegistryError
from opencluster.ingest.status import IngestStatus
from opencluster.manager import Manager
from opencluster.store.spool import DONE, DROPPED, FAILED, Ending, ItemDamaged, Spool
from opencluster.store.spool import Stored as Item
from opencluster.workpiece import WorkPiece

log = logging.getLogger(__name__)

NOT_ITS_FAULT = (NoSuitableWorker, RegistryError)
"""The cluster is not there: an item waits for it, however often it has to."""
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True)
class Patience:
    """How often an item is tried.

    Attributes
    ----------
    retries : int
        Times that it is tried again.
    delay_s : float
        Seconds before the first of them; then doubled.
    """

    retries: int
    delay_s: float


class Runs:
    """Runs managers on items of a spool, so many at a time.

    All methods are for one thread, that of `later` and `soon`.

    Parameters
    ----------
    size : int
        How many run at a time.
    make_manager : callable
        Makes a manager; each thread has one of its own.
    make_task : callable
        Given an item and its bytes, returns what ``schedule()`` gets.
    spool : Spool
        Where the bytes are.
    end : callable
        Takes what became of an item.
    soon, later : callable
        Have something called in the thread of these methods: at once, from any
        thread, and after so many seconds.
    """

    def __init__(
        self,
        size: int,
        make_manager: Callable[[], Manager],
        make_task: Callable[[Item, memoryview], WorkPiece],
        spool: Spool,
        patience: Patience,
        status: IngestStatus,
        *,
        end: Callable[[Ending], None],
        soon: Callable[..., object],
        later: Callable[..., object],
    ) -> None:
        self._make_manager = make_manager
        self._make_task = make_task
        self._spool = spool
        self._patience = patience
        self._status = status
        self._end = end
        self._soon = soon
        self._later = later
        self._waiting: deque[Item] = deque()
        self._put_off = 0
        self._size = self._free = size
        self._failures: Counter[int] = Counter()
        self._orders: SimpleQueue[Item] = SimpleQueue()
        self._is_stopped = False
        # daemons, or a manager that hangs would keep the program from ending
        for number in range(size):
            threading.Thread(
                target=self._work, name=f"ingest-{number}", daemon=True
            ).start()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        is_free = self._free == self._size
        return is_free and not self._waiting and not self._put_off

    def add(self, items: Iterable[Item]) -> None:
        """Have items processed when it is their turn."""
        self._waiting.extend(items)
        self._begin()

    def recorded(self, count: int) -> None:
        """Take note that so many runs are on disk as ended: others may begin.

        Not before, so that no more than run at a time run again after a crash.
        """
        self._free += count
        self._begin()

    def drop_oldest(self) -> bool:
        """Let go of the item that waits for longest, if there is one."""
        if not self._waiting:
            return False
        self._status.dropped += 1
        self._end(Ending(self._waiting.popleft(), DROPPED, "newer ones came"))
        return True

    def stop(self) -> None:
        """Begin nothing more; what waits stays in the spool."""
        self._is_stopped = True

    # --- inside --------------------------------------------------------------

    def _begin(self) -> None:
        while self._free and self._waiting and not self._is_stopped:
            self._free -= 1
            self._status.running += 1
            self._orders.put(self._waiting.popleft())

    def _work(self) -> None:
        """Process items, in a thread of its own."""
        manager = None
        while True:
            item = self._orders.get()
            problem: BaseException | None = None
            try:
                if manager is None:
                    manager = self._make_manager()
                manager.run(self._make_task(item, self._spool.read(item)))
            except BaseException as error:
                # an exit is no reason to lose this thread
                problem = error
            self._soon(self._ended, item, problem)
            # an idle thread must not keep what an error has in its frames
            del item, problem

    def _ended(self, item: Item, problem: BaseException | None) -> None:
        self._status.running -= 1
        if problem is None:
            self._status.processed += 1
            self._failures.pop(item.number, None)
            self._end(Ending(item, DONE))
        else:
            self._failed(item, problem)

    def _failed(self, item: Item, problem: BaseException) -> None:
        said = f"{type(problem).__name__}: {problem}"
        delay_s = self._patience.delay_s
        if not isinstance(problem, NOT_ITS_FAULT):
            before = self._failures[item.number]
            if isinstance(problem, ItemDamaged) or before >= self._patience.retries:
                self._status.failed += 1
                self._failures.pop(item.number, None)
                log.error("item %s is given up", item.id, exc_info=problem)
                self._end(Ending(item, FAILED, said))
                return
            self._failures[item.number] += 1
            delay_s = min(delay_s * 2 ** min(before, 30), LONGEST_DELAY_S)
        self._status.retried += 1
        self._free += 1
        log.warning("item %s is tried again in %.0f s: %s", item.id, delay_s, said)
        self._put_off += 1
        self._later(delay_s, self._again, item)
        self._begin()

    def _again(self, item: Item) -> None:
        self._put_off -= 1
        self._waiting.appendleft(item)
        self._begin()


def plain_task(item: Item, data: memoryview) -> WorkPiece:
    """Return a task with ``item``, the name, ``data``, and what is known about it."""
    about: Mapping[str, object] = item.about
    return WorkPiece(**about, item=item.id, data=data)
