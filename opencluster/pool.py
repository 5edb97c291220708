"""Several managers at a time in one program, each in a thread."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread

from opencluster.manager import Manager
from opencluster.workpiece import WorkPiece

_Task = tuple[Future[WorkPiece], Manager, WorkPiece]


class ManagerPool:
    """Runs several tasks at a time, each in a thread.

    A program that ends does not wait for tasks: take their results, or close the pool.

    Parameters
    ----------
    size : int
        How many run at a time; further ones wait.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least one thread, not {size}")
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._is_closed = False
        # daemons, or Ctrl-C would have to wait until every running task is done
        self._threads = [
            Thread(target=self._run_tasks, name=f"manager-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, manager: Manager, task: WorkPiece) -> Future[WorkPiece]:
        """Run a manager on a task; the result comes as a `Future`."""
        if self._is_closed:
            raise RuntimeError("the pool is closed")
        future: Future[WorkPiece] = Future()
        self._tasks.put((future, manager, task))
        return future

    def close(self, wait: bool = True) -> None:
        """Take no more tasks, and wait for those that were taken.

        Parameters
        ----------
        wait : bool
            Otherwise those that do not run yet are cancelled, and nothing is waited
            for.
        """
        self._is_closed = True
        while not wait and not self._tasks.empty():
            with contextlib.suppress(Empty):
                waiting = self._tasks.get_nowait()
                if waiting is not None:
                    waiting[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _run_tasks(self) -> None:
        while (taken := self._tasks.get()) is not None:
            future, manager, task = taken
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(manager.run(task))
                except BaseException as error:
                    future.set_exception(error)
            # an idle thread must not keep a manager, whose job would go on with it
            del taken, future, manager, task

    def __enter__(self) -> ManagerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(wait=exception[0] is None)
