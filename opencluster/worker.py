"""The worker: a process that performs one type of task.

Users subclass `Worker` and write ``perform()``, which runs in the main thread. What
runs it is in `opencluster.serving`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from opencluster.engines.choice import find_engine
from opencluster.proxy import ServiceProxy
from opencluster.workpiece import WorkPiece

if TYPE_CHECKING:
    from opencluster.engines.base import Engine


class Run(Protocol):
    """What performs a worker's pieces, as far as ``perform()`` may talk to it."""

    def progress(self, done: float, total: float) -> None:
        """Note and report progress, and stop here when the piece should stop."""

    def is_interrupted(self) -> bool:
        """Return whether the piece should stop."""


class Worker:
    """Performs one type of task; subclass it and write `perform`.

    Attributes
    ----------
    worker_type : str
        The type that it registers; by default the class's name without ``Worker``.
    log : logging.Logger
        Goes to the worker's log file.
    """

    worker_type: str = ""
    log: logging.Logger = logging.getLogger("opencluster.worker")
    _runner: Run | None = None
    _services_from: Engine | None = None
    _progress_to: Callable[[float, float], None] | None = None

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Do one piece of work.

        Parameters
        ----------
        work : WorkPiece
            What the manager sent; its arrays are read-only views.

        Returns
        -------
        WorkPiece
            The result, sent back to the manager.
        """
        raise NotImplementedError(f"{type(self).__name__} must define perform(work)")

    def startup(self) -> None:
        """Prepare the process, before the first piece: open a file, warm up a GPU."""

    def shutdown(self) -> None:
        """Tidy up, after the last piece."""

    def ready(self, type: str = "", host: str = "*", port: int = 0) -> None:
        """Register and serve until the process is asked to stop.

        Parameters
        ----------
        type : str, optional
            The type of work; `worker_type` by default.
        host : str, optional
            Address to listen at; ``*`` means the setting ``[network] bind``.
        port : int, optional
            TCP port to listen at. With 0 a local socket is used, and a free port when
            the factories are reached over the network.
        """
        # here, as whoever only hands work to such workers is ready sooner without it
        from opencluster.serving.runner import Runner

        runner = Runner(self, type or type_of(self.__class__))
        self._runner = runner
        try:
            runner.run(host, port)
        finally:
            self._runner = None

    def service(self, name: str) -> ServiceProxy:
        """Return a proxy through which the methods of a service are called.

        Parameters
        ----------
        name : str
            The service's name.
        """
        return ServiceProxy(self._services_from or find_engine(), name)

    def progress(self, done: float, total: float = 1.0) -> None:
        """Say how far the piece is; ends it here when it was interrupted.

        It also ends here when a real-time piece waits that cannot wait for it. Then it
        is no failure, and it is performed again from the start.

        Parameters
        ----------
        done, total : float
            How much of how much, in any unit.
        """
        if self._runner is not None:
            self._runner.progress(done, total)
        elif self._progress_to is not None:
            self._progress_to(done, total)

    @property
    def interrupted(self) -> bool:
        """Whether the running piece should stop: look at it in long loops.

        If that is to make way for a real-time piece, whatever ``perform()`` returns
        after it was looked at is dropped, and the piece is performed again.
        """
        return self._runner is not None and self._runner.is_interrupted()


def type_of(cls: type) -> str:
    """Return the type that a Worker or Service class registers."""
    named = str(getattr(cls, "worker_type", ""))
    return named or cls.__name__.removesuffix("Worker") or cls.__name__
