"""One worker as a manager sees it: for those who hand out pieces themselves."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from opencluster.engines.base import Engine, Job, Options, WorkerInfo
from opencluster.priorities import Priority
from opencluster.workpiece import WorkPiece


class Sender(Protocol):
    """What a manager does for the handles of its workers."""

    @property
    def engine(self) -> Engine:
        """What the pieces run on."""

    def _options(self, *args: Any, **kwargs: Any) -> Options: ...

    def _perform(
        self, type: str, work: WorkPiece, options: Options, job: Job | None
    ) -> WorkPiece: ...

    def _submit(
        self, type: str, work: WorkPiece, options: Options, job: Job | None
    ) -> Future[WorkPiece]: ...


class WorkerHandle:
    """One worker, as a manager sees it.

    Attributes
    ----------
    id, name, type, host : str
        Who, what and where.
    """

    def __init__(self, manager: Sender, info: WorkerInfo, job: Job | None) -> None:
        self._manager = manager
        # the pieces are those of the job, from whichever thread they are submitted
        self._job = job
        self.id, self.name, self.type, self.host = (
            info.id,
            info.name,
            info.type,
            info.host,
        )

    def perform(
        self,
        work: WorkPiece,
        *,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> WorkPiece:
        """Have this worker perform a piece, and wait for the result.

        When the worker is lost meanwhile, another of its type takes the piece. The
        options are as for `Manager.map`.
        """
        options = self._manager._options(
            None, 0, timeout_s, priority, deadline_s, self.id
        )
        return self._manager._perform(self.type, work, options, self._job)

    def submit(
        self,
        work: WorkPiece,
        *,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        deadline_s: float | None = None,
        keep: bool = False,
    ) -> Future[Any]:
        """Have this worker perform a piece; the result comes as a `Future`.

        With `keep` the worker keeps it, and a `DataRef` comes instead. The options are
        as for `Manager.map`.
        """
        options = self._manager._options(
            None, 0, timeout_s, priority, deadline_s, self.id, keep=keep
        )
        return self._manager._submit(self.type, work, options, self._job)

    def interrupt(self) -> None:
        """Interrupt the piece of this process that the worker runs."""
        self._manager.engine.interrupt_worker(self.id)

    def __repr__(self) -> str:
        return f"<worker {self.name} ({self.type}) on {self.host}>"
