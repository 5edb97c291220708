"""The service: a process that everyone may call by name, several at a time.

Users subclass `Service` and mark methods with `remote`. A service is served like a
worker, but each call runs in a thread of its own and names the method that it wants.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from opencluster.core.inbox import INTERRUPT, Key, RaiseException, RaiseFlag
from opencluster.core.piece_names import piece_name
from opencluster.errors import RemoteProtocolError
from opencluster.inputs import Inputs, Missing, Stopped
from opencluster.serving import Answer, Work
from opencluster.wire import codec
from opencluster.worker import (
    ERRORS,
    PieceInterrupt,
    Runner,
    encoded,
    failure_of,
    last_error,
    status_of,
)

Method = TypeVar("Method", bound=Callable[..., Any])

SERVICE_PREFIX = "service:"
"""Tells a service's name from a worker type where both are looked up."""


def remote(method: Method) -> Method:
    """Mark a method of a `Service` as callable from everywhere.

    Parameters
    ----------
    method : callable
        Its arguments and its result must be sendable.

    Returns
    -------
    callable
        The same method.
    """
    method.is_remote = True  # type: ignore[attr-defined]
    return method


class Service:
    """Answers calls of everyone; subclass it and mark methods with `remote`.

    Attributes
    ----------
    service_name : str
        The name that it registers; by default the class's name without ``Service``,
        in lower case.
    concurrency : int
        How many calls run at a time, each in a thread.
    log : logging.Logger
        Goes to the service's log file.
    """

    service_name: str = ""
    concurrency: int = 8
    log: logging.Logger = logging.getLogger("opencluster.service")

    def startup(self) -> None:
        """Prepare the process, before the first call."""

    def shutdown(self) -> None:
        """Tidy up, after the last call."""

    def ready(self, name: str = "", host: str = "*", port: int = 0) -> None:
        """Register and serve until the process is asked to stop.

        Parameters
        ----------
        name : str, optional
            The name; `service_name` by default.
        host, port
            As for `Worker.ready`.
        """
        _ServiceRunner(self, name or name_of(type(self))).run(host, port)


def name_of(cls: type) -> str:
    """Return the name that a Service class registers."""
    named = str(getattr(cls, "service_name", ""))
    return named or cls.__name__.removesuffix("Service").lower() or cls.__name__


def call_method(service: Service, method: str, args: Any, kwargs: Any) -> Any:
    """Call a remote method of a service by name.

    Raises
    ------
    AttributeError
        When the service has no such method, or it is not marked with `remote`.
    """
    function = getattr(service, method, None)
    if not getattr(function, "is_remote", False) or function is None:
        known = [n for n in dir(service) if is_remote_method(service, n)]
        raise AttributeError(
            f"service {type(service).__name__} has no remote method {method!r}; "
            f"it has: {', '.join(known) or 'none'}"
        )
    return function(*args, **kwargs)


def is_remote_method(service: Service, name: str) -> bool:
    """Return whether an attribute of a service is a method marked with `remote`."""
    return bool(getattr(getattr(type(service), name, None), "is_remote", False))


class _ServiceRunner(Runner):
    """Runs the calls of one service, each in a thread of a fixed set."""

    kind = "service"
    worker: Service

    def __init__(self, service: Service, name: str) -> None:
        super().__init__(service, name)
        self._count_lock = threading.Lock()
        self._callers: dict[Key, int] = {}
        self._reasons: dict[Key, str] = {}
        self._flags: dict[Key, str] = {}

    def _attributes(self) -> dict[str, Any]:
        methods = [n for n in dir(self.worker) if is_remote_method(self.worker, n)]
        return super()._attributes() | {
            "concurrency": self.worker.concurrency,
            "methods": methods,
        }

    def _serve(self) -> None:
        threads = [
            threading.Thread(target=self._serve_calls, name=f"call-{n}")
            for n in range(self.worker.concurrency)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve_calls(self) -> None:
        while (work := self._station.take()) is not None:
            self._call(work)

    def _call(self, work: Work) -> None:
        started = time.monotonic()
        self._station.started(work)
        inputs = None
        if work.wanted:
            keeper, key = self._station.keeper, work.waiting.key
            inputs = Inputs(keeper, work.wanted, lambda: key in self._flags)
        try:
            status, value = self._interruptible(work, inputs)
        except PieceInterrupt as stop:
            # raised on the way out of the call: it counts as if raised in it
            status, value = self._stopped(work, stop)
        payload, buffers, status = encoded(status, value, self.max_bytes, self._escaped)
        del value
        if inputs is not None:
            inputs.let_go()
        elapsed_s = time.monotonic() - started
        with self._count_lock:
            self.pieces_done += 1
            if status in ERRORS:
                waiting = work.waiting
                name = piece_name(waiting.manager, waiting.piece)
                self._scoreboard.erred(last_error(name, payload))
            self._scoreboard.finished(failed=status != "done")
        self._station.answer(work, Answer(status, payload, buffers, elapsed_s))
        self._flags.pop(work.waiting.key, None)

    def _interruptible(self, work: Work, inputs: Inputs | None) -> tuple[str, Any]:
        key = work.waiting.key
        try:
            # no exception is raised in here, as it may serve the sockets
            call = decoded_call(work, inputs)
        except Stopped as stop:
            return status_of(self._flags.get(key, INTERRUPT)), failure_of(stop)
        except Missing as missing:
            return "missing", missing.rows
        except Exception as error:
            return "failed", failure_of(error)
        with self._count_lock:
            self._callers[key] = threading.get_ident()
        try:
            return self._outcome(work, call)
        finally:
            # under the lock, so that no exception is on its way to this thread after
            with self._count_lock:
                self._callers.pop(key, None)

    def _stopped(self, work: Work, stop: BaseException) -> tuple[str, Any]:
        self._callers.pop(work.waiting.key, None)
        reason = self._reasons.pop(work.waiting.key, INTERRUPT)
        return status_of(reason), failure_of(stop)

    def _outcome(self, work: Work, call: list[Any]) -> tuple[str, Any]:
        try:
            return "done", call_method(self.worker, *call)
        except PieceInterrupt as stop:
            return self._stopped(work, stop)
        except BaseException as error:
            return "failed", failure_of(error)

    def _asked_to_end(self, number: int, frame: Any) -> None:
        self._station.drain()

    def _flagged(self, effect: RaiseFlag) -> None:
        """Note it for a call that waits; others get the exception after the grace."""
        with self._count_lock:
            if effect.key not in self._callers:
                self._flags[effect.key] = effect.reason

    def _insisted(self, effect: RaiseException) -> None:
        with self._count_lock:
            thread = self._callers.get(effect.key)
            if thread is not None:
                self._reasons[effect.key] = effect.reason
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(PieceInterrupt)
                )


def decoded_call(work: Work, inputs: Inputs | None) -> list[Any]:
    """Return a call, with values in the place of its references.

    Raises
    ------
    RemoteProtocolError
        When it is none.
    """
    if inputs is None:
        call = codec.decode(work.payload, work.buffers)
    else:
        call = inputs.decode(work.payload, work.buffers)
    if not isinstance(call, list) or len(call) != 3:
        raise RemoteProtocolError("a call is [method, arguments, keywords]")
    return call
