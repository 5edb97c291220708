"""A program whose queue is on a disk that becomes full: see test_queue_faults.py."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from pathlib import Path
from queue import Queue

from opencluster import WorkPiece
from opencluster.config import Config
from opencluster.config.settings import TaskQueueSettings
from opencluster.dispatcher.clerk import Begin, Clerk
from opencluster.dispatcher.running import Ending, Verdict
from opencluster.errors import QueueUnavailable
from opencluster.taskqueue import Leases, TaskQueue
from opencluster.wire import stored


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


class Troubles(logging.Handler):
    """Collects what is logged as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: Queue[str] = Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.put(record.getMessage())


def main(folder: Path) -> None:
    url = f"sqlite:///{folder}/tasks.db"
    queue = TaskQueue(url, config=Config(), patience_s=0.0)
    accepted = [queue.submit("a.py:A", WorkPiece(n=-1))]

    begun = threading.Event()
    taken = []

    def tell(news: object) -> None:
        if isinstance(news, Begin):
            taken.append(news.leased.lease)
            begun.set()

    settings = TaskQueueSettings(poll_interval_s=0.05)
    leases = Leases(
        TaskQueue(url, config=Config(), patience_s=0.0).database, "me", 60.0, 1.0
    )
    clerk = Clerk(leases, settings, 1, (), tell)
    handler = Troubles()
    logging.getLogger().addHandler(handler)
    troubles = handler.messages
    clerk.start()
    assert begun.wait(30)

    filler = folder / "filler"
    fill(filler)
    refusals = 0
    for number in itertools.count():
        try:
            accepted.append(queue.submit("a.py:A", WorkPiece(n=number)))
        except QueueUnavailable as error:
            assert "make room on that disk" in str(error), error
            refusals += 1
            if refusals == 3:
                break

    result = stored.pack(WorkPiece(data=bytes(100_000)), "result", 1_000_000)
    clerk.ended(taken[0], Ending(Verdict.DONE, result))
    # it cannot be written down, and is not lost
    assert troubles.get(timeout=30).startswith("the task queue in sqlite:")
    assert queue.show(accepted[0]).state == "running"
    assert {task.id for task in queue.tasks(limit=10_000)} == set(accepted)

    filler.unlink()
    assert clerk.close(30) == []
    assert queue.show(accepted[0]).state == "done"
    assert queue.result(accepted[0])["data"] == bytes(100_000)
    accepted.append(queue.submit("a.py:A", WorkPiece(n=0)))
    assert {task.id for task in queue.tasks(limit=10_000)} == set(accepted)
    queue.close()
    print("ok")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
