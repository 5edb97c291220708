"""How a service performs calls: several at a time, each in a thread of a fixed set.

No signal reaches a thread: the exception of an interrupt is raised in it by the
interpreter. Must not know how calls come in, nor how answers leave.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Protocol

from opencluster.core.inbox import INTERRUPT, Key, RaiseException, RaiseFlag
from opencluster.core.piece_names import piece_name
from opencluster.errors import RemoteProtocolError
from opencluster.inputs import Escaped, Inputs, Missing, Stopped
from opencluster.serving.arrivals import Work
from opencluster.serving.life import live
from opencluster.serving.member import Member
from opencluster.serving.outbox import Answer
from opencluster.serving.outcomes import (
    ERRORS,
    PieceInterrupt,
    encoded,
    failure_of,
    last_error,
    status_of,
)
from opencluster.serving.signals import handle_signals
from opencluster.serving.station import Station
from opencluster.wire import codec


class Called(Protocol):
    """A service, as its user wrote it."""

    concurrency: int

    def startup(self) -> None:
        """Prepare the process."""

    def shutdown(self) -> None:
        """Tidy up."""


class CallRunner:
    """Performs the calls of one service.

    Parameters
    ----------
    service : Called
        Whose methods are called.
    name : str
        The name that it registers.
    methods : sequence of str
        Those that may be called.
    call : callable
        Given a method, arguments and keywords, calls it.
    """

    def __init__(
        self,
        service: Called,
        name: str,
        methods: Sequence[str],
        call: Callable[[str, Any, Any], Any],
    ) -> None:
        self._service = service
        self._call_method = call
        self.attributes: Mapping[str, Any] = {
            "concurrency": service.concurrency,
            "methods": list(methods),
        }
        self._member = member = Member("service", name)
        self._scoreboard = member.scoreboard
        self._max_bytes = member.config.network.max_message_bytes
        self._station = Station(
            member.config,
            member.kind,
            member.keys,
            member.registration,
            self._flagged,
            self._insisted,
        )
        self._lock = threading.Lock()
        self._callers: dict[Key, int] = {}
        self._reasons: dict[Key, str] = {}
        self._flags: dict[Key, str] = {}
        self._escaped = Escaped()

    def run(self, host: str, port: int) -> None:
        """Serve until stopped."""
        live(self._service, self, self._member, self._station, host, port)

    def piece_name(self) -> str:
        """Return nothing: several calls run at a time."""
        return ""

    def handle_signals(self) -> None:
        """Let a signal end the process when the calls that run are over."""
        handle_signals(_nothing, self._asked_to_end, _nothing)

    def serve(self) -> None:
        """Perform calls, until the station takes no more."""
        threads = [
            threading.Thread(target=self._serve_calls, name=f"call-{n}")
            for n in range(self._service.concurrency)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        self._station.drain()

    # --- in the threads of calls ---------------------------------------------

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
        payload, buffers, status = encoded(
            status, value, self._max_bytes, self._escaped
        )
        del value
        if inputs is not None:
            inputs.let_go()
        elapsed_s = time.monotonic() - started
        with self._lock:
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
        with self._lock:
            self._callers[key] = threading.get_ident()
        try:
            return self._outcome(work, call)
        finally:
            # under the lock, so that no exception is on its way to this thread after
            with self._lock:
                self._callers.pop(key, None)

    def _stopped(self, work: Work, stop: BaseException) -> tuple[str, Any]:
        self._callers.pop(work.waiting.key, None)
        reason = self._reasons.pop(work.waiting.key, INTERRUPT)
        return status_of(reason), failure_of(stop)

    def _outcome(self, work: Work, call: list[Any]) -> tuple[str, Any]:
        try:
            return "done", self._call_method(*call)
        except PieceInterrupt as stop:
            return self._stopped(work, stop)
        except BaseException as error:
            return "failed", failure_of(error)

    # --- in the I/O thread ---------------------------------------------------

    def _flagged(self, effect: RaiseFlag) -> None:
        """Note it for a call that waits; others get the exception after the grace."""
        with self._lock:
            if effect.key not in self._callers:
                self._flags[effect.key] = effect.reason

    def _insisted(self, effect: RaiseException) -> None:
        with self._lock:
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


def _nothing(*anything: Any) -> None:
    """Do nothing: there is no main thread in which a call could be interrupted."""
