"""The manager: user code that splits a task into pieces and joins the results.

Users subclass `Manager` and write ``schedule()``. What a manager does with pieces is
the same on every engine; the engine is found by its name and known by the protocol in
``engines/base.py`` alone.
"""

from __future__ import annotations

import logging
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

from opencluster import collective
from opencluster.config import Config, load
from opencluster.engines.base import Engine, Job, Options, Outcome, Where, perform
from opencluster.engines.choice import EngineChoice
from opencluster.futures import PieceFuture
from opencluster.handle import WorkerHandle
from opencluster.mapping import WINDOW, Completed, Flow, checked_piece
from opencluster.priorities import BATCH, Priority, urgency
from opencluster.proxy import ServiceProxy
from opencluster.references import DataRef
from opencluster.stream import Stream
from opencluster.tracing import tracing_of
from opencluster.workpiece import WorkPiece

_current_job: ContextVar[Job | None] = ContextVar("job", default=None)


class Manager:
    """Splits tasks into pieces; subclass it and write `schedule`.

    Parameters
    ----------
    engine : str, optional
        ``local`` (this process), ``process`` (processes of this computer),
        ``cluster`` or ``dask`` (a Dask cluster, also as ``dask@ADDRESS``); by default
        what the environment says, else ``cluster``.

    Attributes
    ----------
    priority : str or int
        Class of all pieces of this manager of which none is said: ``"batch"`` or
        ``"realtime"``; or their number among batch pieces, the higher goes first.
    deadline_s : float or None
        How long its real-time pieces may wait of which that is not said, in seconds;
        by default ``[manager] deadline_s``.
    max_kills : int or None
        How many workers each of its pieces may end before it is quarantined; by default
        ``[manager] max_kills``.
    log : logging.Logger
        For messages of the task.
    """

    priority: Priority = BATCH
    deadline_s: float | None = None
    max_kills: int | None = None
    log: logging.Logger = logging.getLogger("opencluster.manager")
    _engine_name: str = ""
    _choice: EngineChoice | None = None
    _last_options: tuple[tuple[Any, ...], Options] | None = None
    _config: Config | None = None
    _own_job: Job | None = None
    _progress_to: Callable[[float, float], None] | None = None

    def __init__(self, engine: str = "") -> None:
        self._engine_name = engine

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Do a task: split it, have the pieces performed, join the results.

        Parameters
        ----------
        task : WorkPiece
            What the user asks for.

        Returns
        -------
        WorkPiece
            What the user gets.
        """
        raise NotImplementedError(f"{type(self).__name__} must define schedule(task)")

    def run(self, task: WorkPiece) -> WorkPiece:
        """Do a task as a job of its own, whose statistics the cluster keeps.

        Parameters
        ----------
        task : WorkPiece
            What `schedule` gets.

        Returns
        -------
        WorkPiece
            What `schedule` returns.
        """
        job = self._open_job()
        outer = _current_job.set(job)
        tracing = tracing_of(self.config.tracing, "opencluster-manager")
        try:
            with nullcontext() if tracing is None else tracing.job(job):
                result = self.schedule(task)
            job.end("done")
        except BaseException:
            job.end("failed")
            raise
        finally:
            _current_job.reset(outer)
            self.engine.report(job)
        return result

    def progress(self, done: float, total: float = 1.0) -> None:
        """Say how far the task is, to whoever looks at it in the queue.

        Parameters
        ----------
        done, total : float
            How much of how much, in any unit.
        """
        if self._progress_to is not None:
            self._progress_to(done, total)

    # --- pieces --------------------------------------------------------------

    def map(
        self,
        type: str,
        pieces: Iterable[WorkPiece],
        *,
        ordered: bool = True,
        retries: int | None = None,
        error_retries: int = 0,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        deadline_s: float | None = None,
        keep: bool = False,
        recompute: bool = False,
        return_errors: bool = False,
        progress: bool | None = None,
    ) -> Iterator[Any]:
        """Have pieces performed by whoever is free, and yield the results.

        The iterable is read as results are taken, so it may be endless; only so many
        pieces and bytes are under way at a time (``[manager] window`` and
        ``buffer_bytes``). Leaving the loop cancels what is unfinished.

        Parameters
        ----------
        type : str
            Worker type.
        pieces : iterable of WorkPiece
            What to perform. A piece must not be changed until its result is there.
        ordered : bool
            Yield in the order of the pieces; otherwise as they are done.
        retries : int, optional
            How often a piece runs again after the loss of its worker.
        error_retries : int
            How often a piece runs again after ``perform()`` raised.
        timeout_s : float, optional
            Time limit of each piece in seconds.
        priority : str or int, optional
            ``"realtime"``: a worker takes the piece before batch pieces of whatever
            manager, and cuts one short that runs for too long, at its next call of
            `Worker.progress`; that one is performed again later. ``"batch"``: when
            there is time. Or a number: the higher goes first, among all pieces of its
            class, and of this type, from this process. By default `Manager.priority`.
        deadline_s : float, optional
            How long a real-time piece may wait, in seconds; by default as the manager
            and ``[manager] deadline_s`` say. A piece that has one is a real-time piece.
        keep : bool
            Leave each result in the memory of the worker that made it, and yield a
            `DataRef`, which may stand in any later piece.
        recompute : bool
            Make kept results again that are lost with their worker, when they are
            needed. The pieces are remembered, and their arrays must not be changed, as
            long as there are references to the results.
        return_errors : bool
            Yield the `WorkError` of a piece that failed instead of raising it.
        progress : bool, optional
            Show a progress bar; by default when standard error is a terminal.

        Yields
        ------
        WorkPiece or DataRef
            The results, or what stands for them.

        Raises
        ------
        WorkError
            The first failure, at the place of its piece.
        """
        options = self._options(
            *(retries, error_retries, timeout_s, priority, deadline_s),
            keep=keep,
            recompute=recompute,
        )
        flow = self._flow(type, pieces, options, progress, return_errors, False)
        for done in flow.run(ordered):
            yield done.result

    def as_completed(
        self,
        type: str,
        pieces: Iterable[WorkPiece],
        *,
        retries: int | None = None,
        error_retries: int = 0,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        deadline_s: float | None = None,
        keep: bool = False,
        recompute: bool = False,
        return_errors: bool = False,
        progress: bool | None = None,
    ) -> Iterator[Completed]:
        """Like `map`, but yield each result when it is there, with its piece.

        Yields
        ------
        Completed
            A named tuple ``(number, piece, result)``.
        """
        options = self._options(
            *(retries, error_retries, timeout_s, priority, deadline_s),
            keep=keep,
            recompute=recompute,
        )
        flow = self._flow(type, pieces, options, progress, return_errors, True)
        yield from flow.run(ordered=False)

    def to_next(
        self, source: Iterable[WorkPiece], *, bound: int | None = None
    ) -> Iterator[WorkPiece]:
        """Let pieces flow to the next stage while they come.

        The source, mostly another `map`, is read by a thread of its own into a bounded
        queue: so its stage goes on while the next one is busy, and is slowed down when
        that one falls behind; and results of the next stage are there at once, however
        long the source takes for its next piece. It may be endless.

        Parameters
        ----------
        source : iterable of WorkPiece
            What the next stage gets.
        bound : int, optional
            Pieces that wait at most; by default as many as a map has under way.

        Returns
        -------
        iterator of WorkPiece
            The same pieces in the same order; what the source raises comes after
            those before it.

        Examples
        --------
        >>> spectra = manager.map("Channelize", frames)            # doctest: +SKIP
        >>> for image in manager.map("Image", manager.to_next(spectra)):
        ...     show(image)
        """
        settings = self.config.manager
        if bound is None:
            bound = settings.window or WINDOW
        return Stream(source, max(1, bound))

    def submit(
        self,
        type: str,
        work: WorkPiece,
        *,
        retries: int | None = None,
        error_retries: int = 0,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        deadline_s: float | None = None,
        keep: bool = False,
        recompute: bool = False,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Future[Any]:
        """Have one piece performed by whoever is free.

        Parameters
        ----------
        type : str
            Worker type.
        work : WorkPiece
            What to perform.
        on_progress : callable, optional
            Called with (done, total) when the worker reports progress.
        retries, error_retries, timeout_s, priority, deadline_s, keep, recompute
            As for `map`.

        Returns
        -------
        Future
            The result; cancelling it withdraws the piece.
        """
        options = self._options(
            retries,
            error_retries,
            timeout_s,
            priority,
            deadline_s,
            "",
            on_progress,
            keep=keep,
            recompute=recompute,
        )
        return self._submit(type, work, options)

    # --- data that stays in the workers --------------------------------------

    def scatter(self, value: Any, to: Any = None) -> DataRef:
        """Give a value to a worker to hold, and return what stands for it.

        Parameters
        ----------
        value : object
            Any value that can stand in a `WorkPiece`; it may contain references.
        to : str, worker or iterable of workers, optional
            A worker type, or workers as `get_available_workers` returns them; by
            default any worker. The one that holds least gets it.

        Returns
        -------
        DataRef
            May stand anywhere in a piece, where ``perform()`` finds the value.
        """
        return self._scatter([value], collective.where(to))[0]

    def scatter_each(self, values: Iterable[Any], to: Any = None) -> list[DataRef]:
        """Give values to workers to hold, spread evenly.

        Parameters
        ----------
        values : iterable
            Values of any kind.
        to
            As for `scatter`.

        Returns
        -------
        list of DataRef
            One for each value.
        """
        return self._scatter(list(values), collective.where(to))

    def broadcast(self, value: Any, to: Any = None) -> DataRef:
        """Give a value to one worker of each computer, whose neighbours read it there.

        It leaves this process once; the computers pass it on to each other.

        Parameters
        ----------
        value, to
            As for `scatter`.

        Returns
        -------
        DataRef
            As for `scatter`.
        """
        return self._scatter([value], collective.where(to, everywhere=True))[0]

    def gather(self, refs: Any) -> Any:
        """Fetch values from the workers that hold them.

        Parameters
        ----------
        refs : DataRef, Future of one, or iterable of these
            What to fetch.

        Returns
        -------
        object or list
            The value, or a list of the values.

        Raises
        ------
        DataLost
            When one is gone, and cannot be made again.
        """
        return collective.gather(self.engine, refs)

    def release(self, refs: Any) -> None:
        """Let go of values now, although there are references to them.

        Values are let go by themselves when the last reference to them is gone.

        Parameters
        ----------
        refs : DataRef or iterable of DataRef
            What is not needed any more.
        """
        self.engine.release(collective.listed(refs))

    def reduce(
        self,
        type: str,
        refs: Iterable[Any],
        *,
        arity: int = 2,
        keep: bool = False,
        recompute: bool = False,
        retries: int | None = None,
        error_retries: int = 0,
        timeout_s: float | None = None,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Any:
        """Join many values into one, in a tree over the workers that hold them.

        Each node of the tree is a piece ``WorkPiece(inputs=[...])``, whose inputs are
        neighbours in the order of `refs`, and begins when they are there. The shape of
        the tree depends on the number of values alone, so that results repeat exactly.
        A single value is its own reduction.

        Parameters
        ----------
        type : str
            Type of the workers that join.
        refs : iterable of DataRef or Future
            What is joined, such as ``map(..., keep=True)``; read while joining goes on.
        arity : int
            How many values are joined at a time.
        keep : bool
            Leave the result with its worker, and return a `DataRef`.
        recompute, retries, error_retries, timeout_s, priority, deadline_s
            As for `map`.

        Returns
        -------
        WorkPiece or DataRef
            What came of all.
        """
        options = self._options(
            *(retries, error_retries, timeout_s, priority, deadline_s),
            keep=True,
            recompute=recompute,
        )
        job = self._job()
        tree = collective.Tree(
            self.engine, lambda work: self._submit(type, work, options, job), arity
        )
        ref = tree.run(refs)
        return ref if keep else self.gather(ref)

    # --- workers and services ------------------------------------------------

    def get_available_workers(self, type: str) -> list[WorkerHandle]:
        """Return the workers of a type, the least loaded first.

        Waits for one up to ``[manager] worker_wait_s``.

        Raises
        ------
        NoSuitableWorker
            When there is none; the message says which types are here.
        """
        # a job tells the cluster that somebody waits
        self._job()
        found = self.engine.workers(type, self.config.manager.worker_wait_s)
        return [WorkerHandle(self, info, _current_job.get()) for info in found]

    def worker_types(self) -> dict[str, int]:
        """Return how many workers of each type are here; waits for none."""
        return dict(self.engine.types())

    def service(self, name: str) -> ServiceProxy:
        """Return a proxy through which the methods of a service are called.

        Parameters
        ----------
        name : str
            The service's name.
        """
        return ServiceProxy(self.engine, name)

    # --- the engine ----------------------------------------------------------

    @property
    def config(self) -> Config:
        """The settings."""
        if self._config is None:
            self._config = load()
        return self._config

    @property
    def engine(self) -> Engine:
        """What the pieces run on; made at first use and shared in the process."""
        if self._choice is None:
            self._choice = EngineChoice(self._engine_name)
        return self._choice.engine(lambda: self.config)

    getAvailableWorkers = get_available_workers  # noqa: N815 - the paper's spelling

    # --- inside --------------------------------------------------------------

    def _options(
        self,
        retries: int | None,
        error_retries: int,
        timeout_s: float | None,
        priority: Priority | None,
        deadline_s: float | None = None,
        worker: str = "",
        on_progress: Callable[[float, float], None] | None = None,
        keep: bool = False,
        recompute: bool = False,
    ) -> Options:
        asked = (
            *(retries, error_retries, timeout_s, priority, deadline_s),
            *(worker, on_progress, keep, recompute, self.priority, self.deadline_s),
            self.max_kills,
        )
        last = self._last_options
        if last is not None and last[0] == asked:
            # who asks piece by piece mostly asks for the same
            return last[1]
        settings = self.config.manager
        own_s = self.deadline_s
        default_s = settings.deadline_s if own_s is None else own_s
        number, wait_s = urgency(priority, deadline_s, self.priority, default_s)
        options = Options(
            number,
            settings.timeout_s if timeout_s is None else timeout_s,
            settings.retries if retries is None else retries,
            error_retries,
            worker,
            on_progress,
            keep,
            recompute,
            wait_s,
            self.max_kills,
        )
        self._last_options = asked, options
        return options

    def _flow(
        self,
        type: str,
        pieces: Iterable[WorkPiece],
        options: Options,
        progress: bool | None,
        return_errors: bool,
        keeps_pieces: bool,
    ) -> Flow:
        settings = self.config.manager
        return Flow(
            self.engine,
            type,
            pieces,
            options,
            self._job(),
            settings.window,
            settings.buffer_bytes,
            settings.progress if progress is None else ("never", "always")[progress],
            return_errors,
            keeps_pieces,
        )

    def _scatter(self, values: list[Any], where: Where) -> list[DataRef]:
        # a job tells the cluster that somebody waits for who may hold them
        self._job()
        return self.engine.scatter(values, where)

    def _submit(
        self, type: str, work: WorkPiece, options: Options, job: Job | None = None
    ) -> Future[WorkPiece]:
        future = PieceFuture(self.engine, self)

        def done(number: int, outcome: Outcome) -> None:
            try:
                future.set_result(outcome.value())
            except Exception as error:
                future.set_exception(error)

        rows = [(checked_piece(work), options)]
        job = job or self._job()
        future.numbers = future.engine.submit(type, rows, done, job)
        return future

    def _perform(
        self, type: str, work: WorkPiece, options: Options, job: Job | None
    ) -> WorkPiece:
        """Submit a piece and wait for it: what a future costs is as much again."""
        result: WorkPiece = perform(
            self.engine, type, checked_piece(work), options, job or self._job()
        )
        return result

    def _job(self) -> Job:
        """Return the job that `run` opened, else one for the life of this manager."""
        current = _current_job.get()
        if current is not None:
            return current
        if self._own_job is None:
            self._own_job = self._open_job()
            end = weakref.finalize(self, _end, self.engine, self._own_job)
            # a program that ends closes its engines, which report their jobs
            end.atexit = False
        return self._own_job

    def _open_job(self) -> Job:
        name = type(self).__name__
        job = Job(uuid.uuid4().hex[:12], name, started_at=time.time())
        self.engine.report(job)
        return job


def _end(engine: Engine, job: Job) -> None:
    """Report that nobody can add to a job any more."""
    job.end("done")
    engine.report(job)
