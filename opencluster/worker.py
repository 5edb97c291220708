"""The worker: a process that performs one type of task.

Users subclass `Worker` and write ``perform()``, which runs in the main thread. This
shell takes pieces from a `serving.Station`, runs them, and turns whatever happens
(a result, an exception, an interrupt, an exit) into an answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from opencluster.bundle import Then
from opencluster.config import Config, load
from opencluster.core.entries import Entry
from opencluster.core.inbox import (
    CUT_SHORT,
    INTERRUPT,
    TIME_LIMIT,
    Key,
    MakeWay,
    RaiseException,
    RaiseFlag,
)
from opencluster.core.piece_names import piece_name
from opencluster.core.roles import WORKER
from opencluster.engines.choice import ENGINE_VARIABLE, find_engine
from opencluster.errors import OpenClusterError
from opencluster.inputs import Escaped, Inputs, Missing, Stopped
from opencluster.keeping import Wanted, owned
from opencluster.net.announce import announced
from opencluster.net.exchange import nbytes_of
from opencluster.net.interrupts import (
    MainThread,
    has_handlers_besides,
    has_room,
)
from opencluster.net.joined import local_endpoints
from opencluster.net.keys import Keyring
from opencluster.net.reactor import Reactor
from opencluster.node.handover import (
    NAME_VARIABLE,
    SCOREBOARD_VARIABLE,
    socket_name,
)
from opencluster.node.host import host_id, host_name
from opencluster.node.scoreboard import LastError, Scoreboard
from opencluster.place import Place, factories, keys_directory, listening_endpoint
from opencluster.proxy import ServiceProxy
from opencluster.references import DataRef
from opencluster.registration import (
    OwnRegistration,
    Registration,
    VouchedRegistration,
)
from opencluster.serving import Answer, Station, Work
from opencluster.tracing import tracing_of
from opencluster.wire import codec
from opencluster.wire.batches import check_size, members_in
from opencluster.workpiece import WorkPiece

if TYPE_CHECKING:
    from opencluster.engines.base import Engine

ERRORS = ("failed", "timeout")
"""How pieces end that the scoreboard keeps for people to look at."""
PROGRESS_INTERVAL_S = 0.2
"""Progress is reported to the manager at most this often."""
LOOK_S = 0.005
"""A piece that reports progress sees at most this often what came for the worker."""
_OWN_FOLDERS = {
    Path(__file__).parent / name for name in ("", "engines", "engines/dask", "wire")
}
"""Whose frames at the head of a traceback say nothing to users."""
INTERRUPT_SIGNAL = signal.SIGUSR2
"""Raises the exception of an interrupt in the main thread, out of a system call too."""


class PieceInterrupt(BaseException):
    """Raised inside ``perform()`` when its piece is interrupted or out of time.

    It is no `Exception`, so that ``except Exception`` does not swallow it.
    """


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
    _runner: Runner | None = None
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


class Runner:
    """Runs the pieces of one worker, in the main thread."""

    kind = "worker"

    def __init__(self, worker: Any, type: str) -> None:
        self.worker = worker
        self.type = type
        self.config: Config = load()
        self.place = Place.find()
        self.max_bytes = self.config.network.max_message_bytes
        self._max_pieces = self.config.worker.max_pieces
        self._max_memory = self.config.worker.max_memory
        self._may_recycle = bool(self._max_pieces or self._max_memory)
        self.flag: RaiseFlag | None = None
        self.pieces_done = 0
        self._pid = os.getpid()
        self._name = os.environ.pop(NAME_VARIABLE, "") or f"{type}-{self._pid}"
        self._id = f"{self._name}.{os.urandom(6).hex()}"
        self._board_path = _handed_over(SCOREBOARD_VARIABLE)
        self._scoreboard = (
            Scoreboard.open(self._board_path)
            if self._board_path is not None
            else Scoreboard.anonymous()
        )
        self._keys = Keyring.load(keys_directory(self.config, self.place), WORKER)
        self._station = Station(
            self.config,
            self.kind,
            self._keys,
            self._registration,
            self._flagged,
            self._insisted,
            self._left_alone,
            self._asked_to_make_way if self.kind == "worker" else None,
        )
        self._is_fork = False
        self._is_performing = False
        self._to_raise: RaiseException | None = None
        self._last_flag: RaiseFlag | None = None
        self._makes_way: Key | None = None
        self._has_seen_way = False
        self._look_at = 0.0
        self._handlers = (self._raise_here, self._asked_to_end)
        self._deadline = 0.0
        self._current: Work | None = None
        self._piece_name = ""
        self._inputs: Inputs | None = None
        self._tracing = tracing_of(self.config.tracing, f"opencluster-{type}")
        self._escaped = Escaped()
        self._reported_at = 0.0

    def _name_piece_in_logs(self) -> None:
        """Have each message that is logged say during which piece that was."""
        make = logging.getLogRecordFactory()

        def record(*arguments: Any, **options: Any) -> logging.LogRecord:
            made = make(*arguments, **options)
            made.piece = "" if self._current is None else self._piece_name
            return made

        logging.setLogRecordFactory(record)

    # --- the life of the process ---------------------------------------------

    def run(self, host: str, port: int) -> None:
        """Serve until stopped."""
        # whoever submits pieces in here means the cluster that this process is of
        os.environ[ENGINE_VARIABLE] = "cluster"
        self._name_piece_in_logs()
        try:
            entry = self._listen(host, port)
            self._handle_signals()
            self.worker.startup()
            self._station.open(entry)
            self._serve()
            self.worker.shutdown()
            self._station.hand_over()
        finally:
            self._station.close()
            self._scoreboard.close()
            if self._tracing is not None:
                self._tracing.close()

    def _serve(self) -> None:
        while (work := self._station.serve(self._scoreboard.idle)) is not None:
            self._run(work)
            # or it would count for a piece of that number that comes once more
            self._last_flag = None
            self._makes_way = None
            if self._should_recycle():
                self._station.drain()

    def _listen(self, host: str, port: int) -> Entry:
        name = (
            socket_name(self._board_path, self._pid)
            if self._board_path is not None
            else f"w-{self._id[-12:]}"
        )
        wanted = local_endpoints(self._station.transport, self.place.sockets, name)
        if port or self.config.cluster.factories:
            has_keys = self._keys is not None
            wanted.append(listening_endpoint(self.config, host, port, has_keys))
        self.place.make()
        to, known = self.config.network.announce, factories(self.config, self.place)
        endpoints = [
            announced(self._station.transport.listen(endpoint), to, known)
            for endpoint in wanted
        ]
        return Entry(
            id=self._id,
            kind=self.kind,
            type=self.type,
            name=self._name,
            host=host_name(),
            host_id=host_id(),
            pid=self._pid,
            endpoints=tuple(endpoints),
            attributes=self._attributes(),
            public_key=self._station.transport.public_key,
        )

    def _attributes(self) -> dict[str, Any]:
        return {
            "class": type_name(self.worker.__class__),
            "max_kept_bytes": self._station.keeper.budget,
        }

    def _registration(self, reactor: Reactor) -> Registration:
        if self._board_path is not None:
            return VouchedRegistration(self._scoreboard, self._board_path)
        return OwnRegistration(
            reactor,
            lambda: factories(self.config, self.place),
            self.config,
            self._scoreboard,
            self._keys,
        )

    def _handle_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OpenClusterError(
                "ready() must be called in the main thread, where perform() runs"
            )
        signal.signal(INTERRUPT_SIGNAL, self._raise_here)
        signal.signal(signal.SIGTERM, self._asked_to_end)
        signal.signal(signal.SIGINT, self._asked_to_end)
        _let_forks_end(self._forked)

    def _forked(self) -> None:
        self._is_fork = True

    def _asked_to_end(self, number: int, frame: FrameType | None) -> None:
        """Finish the running piece, or give it up when it is overdue already."""
        self._station.drain()
        if not self._is_performing:
            return
        if self.flag is not None:
            raise PieceInterrupt(self.flag.reason)
        if self._deadline and time.monotonic() >= self._deadline:
            # code that held the interpreter kept the flag from being raised
            raise PieceInterrupt(TIME_LIMIT)

    def _should_recycle(self) -> bool:
        if not self._may_recycle:
            return False
        if self._max_pieces and self.pieces_done >= self._max_pieces:
            return True
        return bool(self._max_memory) and resident_bytes() > self._max_memory

    # --- one piece -----------------------------------------------------------

    def _run(self, work: Work) -> None:
        started = time.monotonic()
        self._begin(work, started)
        if work.waiting.members > 1:
            self._run_bundle(work, started)
            return
        status, value = self._performed(work)
        if self._has_seen_way:
            status, value = self._cut_short(started)
        if work.keep is not None and status == "done":
            box = [value]
            del value
            payload, buffers, status = self._keep(work, box)
        else:
            payload, buffers, status = encoded(
                status, value, self.max_bytes, self._escaped
            )
            del value
        if self._inputs is not None:
            self._inputs.let_go()
            self._inputs = None
        elapsed_s = time.monotonic() - started
        if self._deadline and self._board_path is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._current = None
        self._station.answer(work, Answer(status, payload, buffers, elapsed_s))
        if status != CUT_SHORT:
            self._count(status)
        if status in ERRORS:
            self._scoreboard.erred(last_error(self._piece_name, payload))
        if self._deadline:
            # or the workshop would take it for overdue
            self._scoreboard.idle()

    def _run_bundle(self, work: Work, started: float) -> None:
        """Perform the pieces of a bundle, as long as nothing happens to one of them."""
        station, now = self._station, started
        bundle = station.begin_bundle(work, started)
        members = members_in(work.payload, work.buffers)
        for place, (payload, own) in enumerate(members):
            self._scoreboard.started_next(place)
            status, value = self._perform(payload, own, ())
            if self._has_seen_way:
                status, value = self._cut_short(now)
            payload, buffers, status = encoded(
                status, value, self.max_bytes, self._escaped
            )
            del value
            if status != CUT_SHORT:
                self._count(status)
            if status in ERRORS:
                name = f"{self._piece_name}{place}"
                self._scoreboard.erred(last_error(name, payload))
            begun, now = now, time.monotonic()
            is_last = self.flag is not None or self._makes_way is not None
            is_last = is_last or self._should_recycle()
            then = station.note(bundle, status, payload, buffers, now, is_last)
            if then is Then.NEXT:
                continue
            if then is Then.ALONE and self._current is not None:
                alone, self._current = self._current, None
                station.answer(alone, Answer(status, payload, buffers, now - begun))
            break
        self._current = None

    def _cut_short(self, started: float) -> tuple[str, Any]:
        """Return what came of a piece that stopped for a real-time piece."""
        self._has_seen_way = False
        self.worker.log.info(
            "piece %s was cut short after %.3f s for a real-time piece; it waits again",
            self._piece_name,
            time.monotonic() - started,
        )
        return CUT_SHORT, None

    def _count(self, status: str) -> None:
        self.pieces_done += 1
        self._scoreboard.ended(failed=status not in ("done", "kept"))

    def _begin(self, work: Work, now: float) -> None:
        waiting = work.waiting
        limit_s = waiting.timeout_s
        self.flag = None
        self._to_raise = None
        self._has_seen_way = False
        self._reported_at = 0.0
        self._look_at = now + LOOK_S
        self._deadline = now + limit_s if limit_s else 0.0
        self._current = work
        early = self._last_flag
        if early is not None and early.key == waiting.key:
            # it came between the taking of the piece and this line
            self.flag = early
        self._piece_name = piece_name(
            waiting.manager, waiting.piece, waiting.members > 1
        )
        self._scoreboard.started(self._piece_name, self._deadline, now)
        if limit_s:
            self._station.started(work)
            if self._board_path is None:
                self._set_last_resort(limit_s)

    def _set_last_resort(self, limit_s: float) -> None:
        """Have the kernel end this process if nothing gentler ended the piece.

        Without a workshop nobody else would; SIGALRM's default needs no Python.
        """
        graces = self.config.worker
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        at_s = limit_s + graces.interrupt_grace_s + graces.kill_grace_s
        signal.setitimer(signal.ITIMER_REAL, at_s)

    def _performed(self, work: Work) -> tuple[str, Any]:
        """Perform a piece that came alone, and trace it if that is wanted."""
        data = (work.payload, work.buffers, work.wanted)
        if work.trace is None or self._tracing is None:
            return self._perform(*data)
        number = work.waiting.piece
        return self._tracing.performed(
            work.trace, self.type, number, lambda: self._perform(*data)
        )

    def _perform(
        self, payload: bytes, buffers: Sequence[Any], wanted: Sequence[Wanted]
    ) -> tuple[str, Any]:
        try:
            try:
                piece = self._decoded(payload, buffers, wanted)
                self._is_performing = True
                result = self.worker.perform(piece)
            finally:
                self._is_performing = False
                if self._is_fork:
                    _end_fork()
            return "done", checked(result)
        except PieceInterrupt as stop:
            return status_of(str(stop)), failure_of(stop)
        except Missing as missing:
            return "missing", missing.rows
        except BaseException as error:
            return "failed", failure_of(error)
        finally:
            self._is_performing = False

    def _decoded(
        self, payload: bytes, buffers: Sequence[Any], wanted: Sequence[Wanted]
    ) -> Any:
        """Return the piece, with values in the place of its references."""
        if not wanted:
            return codec.decode(payload, buffers)
        keeper = self._station.keeper
        self._inputs = Inputs(keeper, wanted, self.is_asked_to_stop)
        try:
            return self._inputs.decode(payload, buffers)
        except Stopped:
            raise PieceInterrupt(self.flag.reason if self.flag else INTERRUPT) from None

    def _is_flagged(self) -> bool:
        return self.flag is not None

    def _keep(self, work: Work, box: list[Any]) -> tuple[bytes, list[Any], str]:
        """Keep a result here, and return what is told of that instead of it."""
        refs: list[DataRef] = []
        try:
            payload, buffers = codec.encode(box[0], "result", refs)
        except Exception as error:
            return encoded("failed", failure_of(error), self.max_bytes)
        # so that nobody but who is to keep its memory refers to it
        box.clear()
        assert work.keep is not None
        parts = owned(payload, buffers)
        keeper, manager = self._station.keeper, work.waiting.manager
        keeper.keep(manager, work.keep, parts, self._is_flagged)
        told = [work.keep, nbytes_of(parts), refs]
        self._escaped.note(refs)
        return encoded("kept", told, self.max_bytes)

    def progress(self, done: float, total: float) -> None:
        """Note and report progress, and stop here when the piece should stop."""
        if self._is_performing:
            self._look()
            if self.flag is not None:
                raise PieceInterrupt(self.flag.reason)
            if self.is_asked_to_stop():
                raise PieceInterrupt(CUT_SHORT)
        self._scoreboard.progress(done, total)
        now = time.monotonic()
        if self._current is not None and now - self._reported_at > PROGRESS_INTERVAL_S:
            self._reported_at = now
            self._station.report_progress(self._current, done, total)

    # --- interrupts ----------------------------------------------------------

    def _flagged(self, effect: RaiseFlag) -> None:
        self._last_flag = effect
        current = self._current
        if current is not None and current.waiting.key == effect.key:
            self.flag = effect
            self._scoreboard.enforce(self._piece_name, effect.enforce_at)

    def is_interrupted(self) -> bool:
        """Return whether the piece should stop, for the code that performs it."""
        if self._is_performing:
            self._look()
        return self.is_asked_to_stop()

    def _look(self) -> None:
        """See what came, in the midst of a piece; it may be to stop.

        The background thread would see it too, but not in the first moments of a piece,
        and not while this one is at work.
        """
        now = time.monotonic()
        if now < self._look_at or threading.get_ident() != MainThread.ident:
            return
        self._look_at = now + LOOK_S
        # a message that is half read must not be broken off; and the sockets are not
        # those of a child that perform() forked
        may_raise = not has_room() or has_handlers_besides(self._handlers)
        if may_raise or self._is_fork:
            return
        self._is_performing = False
        try:
            self._station.look()
        finally:
            self._is_performing = True
        # what a signal was to raise meanwhile
        self._raise_here(0, None)

    def is_asked_to_stop(self) -> bool:
        """Return whether the running piece should stop, for whatever reason."""
        if self.flag is not None:
            return True
        current, wanted = self._current, self._makes_way
        if wanted is None or current is None or current.waiting.key != wanted:
            return False
        if current.waiting.members > 1:
            # what is left of the bundle is given back, between two of its pieces
            return False
        self._has_seen_way = True
        return True

    def _asked_to_make_way(self, effect: MakeWay) -> None:
        self._makes_way = effect.key

    def _left_alone(self, work: Work) -> None:
        """Note that the piece of a bundle that runs is one by itself now."""
        self._makes_way = None
        self._current = work

    def _insisted(self, effect: RaiseException) -> None:
        self._to_raise = effect
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, INTERRUPT_SIGNAL)

    def _raise_here(self, number: int, frame: FrameType | None) -> None:
        """Raise in the main thread, if it still runs the piece that is meant."""
        wanted, current = self._to_raise, self._current
        if wanted is None or current is None or not self._is_performing:
            return
        if current.waiting.key == wanted.key:
            self._to_raise = None
            raise PieceInterrupt(wanted.reason)


def _let_forks_end(forked: Callable[[], None]) -> None:
    """Let what perform() forks, such as the processes of a pool, end when asked.

    `forked` is called in each of them.
    """
    ours = (INTERRUPT_SIGNAL, signal.SIGTERM, signal.SIGINT)

    def restore() -> None:
        forked()
        for number in ours[:2]:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)

    os.register_at_fork(
        # or a signal that the child gets before its handlers are its own is lost
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, ours),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, ours),
        after_in_child=restore,
    )


def _end_fork() -> None:
    """End a process that perform() forked and that returned; it owns no sockets."""
    os.write(2, b"perform() returned in a forked child; the child ends here\n")
    os._exit(1)


def _handed_over(variable: str) -> Path | None:
    """Take a path out of the environment: it is not for processes of the user's."""
    path = os.environ.pop(variable, "")
    return Path(path) if path else None


def status_of(reason: str) -> str:
    """Return the status of a piece that was stopped for a reason."""
    return {TIME_LIMIT: "timeout", INTERRUPT: "interrupted"}.get(reason, reason)


def checked(result: Any) -> WorkPiece:
    """Return the result of ``perform()`` if it is one."""
    if not isinstance(result, WorkPiece):
        raise TypeError(
            f"perform() must return a WorkPiece, not {type(result).__name__}; "
            "write `return WorkPiece(name=value)`"
        )
    return result


def encoded(
    status: str, value: Any, max_bytes: int, escaped: Escaped | None = None
) -> tuple[bytes, list[Any], str]:
    """Encode an outcome; one that cannot be sent becomes the failure that says so."""
    refs: list[DataRef] = []
    try:
        payload, buffers = codec.encode(value, "result", refs)
        if buffers or len(payload) > codec.SMALL_BYTES:
            check_size(payload, buffers, max_bytes)
        if refs and escaped is not None:
            escaped.note(refs)
    except Exception as error:
        payload, buffers = codec.encode(failure_of(error))
        status = "failed"
    return payload, buffers, status


def failure_of(error: BaseException) -> dict[str, str]:
    """Describe an exception for the manager, with its traceback below our frames."""
    try:
        message = str(error)
    except Exception as worse:
        message = f"(its text cannot be had: {type(worse).__name__})"
    if isinstance(error, SystemExit):
        message = f"the code called exit: {message}"
    trace = error.__traceback__
    while (
        trace is not None
        and trace.tb_next is not None
        and Path(trace.tb_frame.f_code.co_filename).parent in _OWN_FOLDERS
    ):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace, limit=-50)
    return {
        "type": type(error).__name__,
        "message": message,
        "traceback": "".join(lines)[-20_000:].encode(errors="replace").decode(),
    }


def last_error(piece: str, payload: bytes) -> LastError:
    """Return what is shown of a piece that failed, from its encoded outcome."""
    failure = codec.decode(payload, ())
    told = (failure["type"], failure["message"], failure["traceback"])
    return LastError(time.time(), piece, *told)


def type_name(cls: type) -> str:
    """Return a class's full name."""
    return f"{cls.__module__}:{cls.__qualname__}"


def resident_bytes() -> int:
    """Return the memory that is resident for this process alone, 0 if it is unknown.

    What it shares counts for nobody: it may lie in arrays that others made.
    """
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
        pages = int(resident) - int(shared)
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
