"""The engine for debugging: every piece runs at once, in the thread that submits it.

Values take the same way through the codec as on a cluster, so that what works here
works there. Time limits and interrupts have no effect: a debugger may stop anywhere.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opencluster.config import Config
from opencluster.core.chunks import Moved
from opencluster.engines.base import Done, Job, Options, Outcome, Where, WorkerInfo
from opencluster.engines.classes import service_class, worker_class
from opencluster.engines.larder import Larder
from opencluster.engines.verdicts import failed
from opencluster.errors import DataLost, NoSuitableWorker, PieceFailed
from opencluster.place import Place
from opencluster.references import DataRef
from opencluster.service import Service, call_method
from opencluster.serving.outcomes import checked, failure_of
from opencluster.wire import codec
from opencluster.worker import Worker


def connect(config: Config, place: Place) -> LocalEngine:
    """Return an engine in this process."""
    return LocalEngine(config)


class LocalEngine:
    """Performs pieces in this process.

    Parameters
    ----------
    config : Config
        Where classes that are not imported are found.
    """

    is_immediate = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self._workers: dict[str, Worker] = {}
        self._services: dict[str, Service] = {}
        self._numbers = itertools.count(1)
        self._larder = Larder("this process")
        self._lock = threading.RLock()

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        """Perform pieces, one after the other."""
        numbers = []
        for value, options in pieces:
            number = next(self._numbers)
            try:
                # as in a worker process: one piece at a time, whoever submits it
                with self._lock:
                    outcome = self._perform(self._worker(type), type, value, options)
            except NoSuitableWorker as error:
                outcome = Outcome(error=error)
            if job is not None:
                job.statistics.pieces_submitted += 1
                job.statistics.pieces_done += outcome.error is None
                job.statistics.pieces_failed += outcome.error is not None
            numbers.append(number)
            done(number, outcome)
        return numbers

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Return whether something holds: nothing is under way that could change it."""
        return is_over()

    def nudge(self) -> None:
        """Nobody waits."""

    def cancel(self, pieces: Iterable[int]) -> None:
        """Nothing is under way when this can be called."""

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Nothing is under way when this can be called."""

    def interrupt_worker(self, worker: str) -> None:
        """Nothing is under way when this can be called."""

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the one worker that this process is."""
        self._worker(type)
        return [WorkerInfo(f"local:{type}", type, type, socket.gethostname())]

    def types(self) -> Mapping[str, int]:
        """Return the types that were used so far."""
        return dict.fromkeys(self._workers, 1)

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service that is made in this process."""
        if service not in self._services:
            made = service_class(service, self._config)()
            made.startup()
            self._services[service] = made
        payload, buffers = codec.encode([list(args), dict(kwargs)])
        call = codec.decode(payload, buffers, self._larder.resolve)
        try:
            result = call_method(self._services[service], method, *call)
            encoded = codec.encode(result, "result")
        except (Exception, SystemExit) as error:
            raise _failure(error, service) from error
        return codec.decode(*encoded, self._larder.adopt)

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Hold values in this process."""
        return list(map(self._larder.keep, values))

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return the values that references stand for."""
        return list(map(self._larder.fetch, refs))

    def release(self, refs: Sequence[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        self._larder.release(refs)

    def moved(self) -> Moved:
        """Return zeros: nothing is under way anywhere."""
        return Moved()

    def report(self, job: Job) -> None:
        """Nobody is there to be told."""

    def close(self) -> None:
        """Let workers and services tidy up."""
        for worker in self._workers.values():
            worker.shutdown()
        for service in self._services.values():
            service.shutdown()
        self._workers.clear()
        self._services.clear()

    def _worker(self, type: str) -> Worker:
        cls = worker_class(type, self._config)
        known = self._workers.get(type)
        if known.__class__ is cls:
            return known
        if known is not None:
            # the class was defined anew, as happens in a notebook
            known.shutdown()
        worker = cls()
        worker._services_from = self
        worker.startup()
        self._workers[type] = worker
        return worker

    def _perform(
        self, worker: Worker, type: str, value: Any, options: Options
    ) -> Outcome:
        payload, buffers = codec.encode(value, "piece")
        started = time.monotonic()
        worker._progress_to = options.on_progress
        for attempt in itertools.count():
            try:
                work = codec.decode(payload, buffers, self._larder.resolve)
                result = checked(worker.perform(work))
                ref = self._larder.keep(result, "result") if options.keep else None
                encoded = (b"", []) if ref else codec.encode(result, "result")
            except DataLost as error:
                return Outcome(error=error, worker=type)
            except (Exception, SystemExit) as error:
                if attempt < options.error_retries:
                    continue
                return Outcome(error=_failure(error, type), worker=type)
            elapsed_s = time.monotonic() - started
            return Outcome(*encoded, None, elapsed_s, type, ref, self._larder.adopt)
        raise AssertionError("the loop above returns")


def _failure(error: BaseException, where: str) -> PieceFailed:
    failure = failed(failure_of(error), where)
    failure.__cause__ = error
    return failure
