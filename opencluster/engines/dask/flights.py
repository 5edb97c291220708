"""The pieces that a Dask engine has under way, from their submission to their end.

Tasks are followed in the thread of Dask's loop; what comes of them is seen to in a
thread of this, which alone tells those who submitted pieces.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from opencluster.config import Config
from opencluster.core.inbox import CANCELLED, CUT_SHORT, INTERRUPT
from opencluster.core.pieces import Verdict
from opencluster.engines.base import Outcome
from opencluster.engines.dask import runs
from opencluster.engines.dask.census import Census
from opencluster.engines.dask.classes import not_there
from opencluster.engines.dask.hurry import Hurry
from opencluster.engines.dask.messages import (
    BROKEN,
    NOT_BEGUN,
    UNKNOWN_CLASS,
    Answer,
    Parts,
    Row,
)
from opencluster.engines.dask.sending import Sending
from opencluster.engines.dask.services import aside
from opencluster.engines.dask.tasks import Flight, Task
from opencluster.engines.dask.values import LOST, DaskValues, name_of
from opencluster.engines.tickets import closed, failure_in
from opencluster.engines.verdicts import error_for
from opencluster.errors import (
    DataLost,
    DeathEvidence,
    NoSuitableWorker,
    PieceCancelled,
    PieceFailed,
    WorkError,
)
from opencluster.wire import codec

log = logging.getLogger(__name__)

TICK_S = 0.1
"""How often a look is taken at what takes too long."""
WAIT_S = 0.5
"""Who waits looks up this often, for exceptions that came meanwhile."""
MAX_TRIES = 100
"""How often a piece is sent that was never begun: more is a mistake of somebody's."""

_VERDICTS = {
    "failed": Verdict.FAILED,
    "timeout": Verdict.TIMED_OUT,
    "interrupted": Verdict.INTERRUPTED,
    "cancelled": Verdict.CANCELLED,
}


class Flights:
    """Pieces under way.

    Parameters
    ----------
    config : Config
        The settings.
    client : distributed.Client
        The way to the Dask cluster.
    census, values
        Who is there, and what references stand for.
    """

    def __init__(
        self, config: Config, client: Any, census: Census, values: DaskValues
    ) -> None:
        self._config = config
        self._client = client
        self._session = str(client.id)
        self._census = census
        self._values = values
        self._sending = Sending(
            config,
            client,
            census,
            values,
            lambda tasks: self._soon(partial(self._follow_all, tasks)),
            lambda task, why: self._put(partial(self._lost_scheduler, task, why)),
            lambda flight, outcome: self._put(partial(self._end, flight, outcome)),
            lambda flights: self._put(partial(self._again, flights)),
        )
        self._hurry = Hurry(client, census, self._is_waiting)
        self._flights: dict[int, Flight] = {}
        self._counts: dict[str, int] = {}
        self._alone_since: dict[str, float] = {}
        self._told: dict[bytes, list[Any]] = {}
        self._following: set[asyncio.Future[None]] = set()
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._landed: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._put = self._landed.put
        self._is_closed = False
        self._looked_at = 0.0
        self._thread = threading.Thread(
            target=self._collect, name="opencluster-dask", daemon=True
        )
        self._thread.start()

    def __len__(self) -> int:
        return len(self._flights)

    # --- from any thread -----------------------------------------------------

    @property
    def types(self) -> list[str]:
        """The worker types of which there were pieces."""
        return list(self._counts)

    @property
    def is_current(self) -> bool:
        """Whether this is the thread that has results."""
        return threading.current_thread() is self._thread

    def submit(self, type: str, flights: Sequence[Flight]) -> None:
        """Send pieces of a type."""
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._flights.update((flight.piece.id, flight) for flight in flights)
                self._counts[type] = self._counts.get(type, 0) + len(flights)
        if not is_closed:
            self._sending.send(type, flights, self._counts[type])
            urgent = [flight for flight in flights if flight.piece.wait_s is not None]
            if urgent:
                self._soon(partial(self._hurry.see_to, urgent))
            return
        for flight in flights:
            flight.ticket.done(flight.piece.id, closed(None))

    def loads(self) -> dict[str, int]:
        """Return how many pieces there are for each worker that was named."""
        loads: dict[str, int] = {}
        with self._lock:
            for flight in self._flights.values():
                named = flight.ticket.options.worker
                loads[named] = loads.get(named, 0) + 1
        return loads

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something holds that a `Done` brings about; tell whether it does.

        Raises
        ------
        RuntimeError
            When a `Done` calls it: what it waits for could never come.
        """
        if self.is_current:
            raise RuntimeError("a callback must not wait: results come by its thread")
        until = None if timeout_s is None else time.monotonic() + timeout_s
        if is_over():
            return True
        with aside(), self._changed:
            while not is_over():
                left_s = WAIT_S if until is None else until - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(min(left_s, WAIT_S))
        return True

    def nudge(self) -> None:
        """Have whoever waits look again at what it waits for."""
        with self._changed:
            self._changed.notify_all()

    def cancel(self, pieces: Iterable[int]) -> None:
        """Give up pieces: drop what waits, interrupt what runs."""
        by_type: dict[str, list[int]] = {}
        for number in pieces:
            flight = self._flights.get(number)
            if flight is not None:
                by_type.setdefault(flight.piece.type, []).append(number)
                outcome = self._verdict(flight, "cancelled")
                self._put(partial(self._end_and_drop, flight, outcome))
        for type, numbers in by_type.items():
            self._soon(partial(self._stop, type, numbers, CANCELLED))

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Interrupt pieces that run; those that do not run yet are cancelled."""
        for number in pieces:
            flight = self._flights.get(number)
            if flight is not None:
                self._soon(partial(self._interrupt, flight))

    def close(self) -> None:
        """Give up what is unfinished."""
        with self._lock:
            self._is_closed = True
            flights = list(self._flights.values())
        for flight in flights:
            self._put(partial(self._end, flight, closed(None)))
        self._put(None)
        if not self.is_current:
            self._thread.join()

    # --- in the thread of Dask's loop ----------------------------------------

    def _soon(self, function: Callable[[], Any]) -> None:
        with suppress(RuntimeError):
            self._client.loop.add_callback(function)

    def event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take in what a Dask worker tells, which is here before its task's end."""
        for what, told in event[1].items():
            if what == "kept":
                if bytes(told[0]) in self._told:
                    self._told[bytes(told[0])] = told
            elif what == "over":
                self._put(partial(self._given_up, *told))
            elif what == "progress":
                self._put(partial(self._progressed, *told))

    async def _follow_all(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.options.keep:
                self._told[task.id] = []
            follower = asyncio.ensure_future(self._follow(task))
            self._following.add(follower)
            follower.add_done_callback(self._following.discard)

    async def _follow(self, task: Task) -> None:
        """Wait for a task, and have what came of it seen to."""
        try:
            error = await task.future.exception()
            told = self._told.pop(task.id, None)
            if error is not None:
                self._put(partial(self._erred, task, error))
            elif task.future.status in ("cancelled", "lost"):
                self._put(partial(self._gone, task))
            elif told:
                self._put(partial(self._kept, task, *told[1:]))
            else:
                self._put(partial(self._answered, task, await task.future))
        except (CancelledError, asyncio.CancelledError):
            self._put(partial(self._gone, task))
        except Exception as error:
            self._put(partial(self._erred, task, error))

    async def _stop(self, type: str, numbers: Sequence[int], reason: str) -> list[int]:
        """Have pieces stop wherever they are, and return those that ran."""
        addresses = self._census.addresses(type)
        if not addresses:
            return []
        try:
            found = await self._client.run(
                runs.stop,
                self._session,
                numbers,
                reason,
                workers=addresses,
                on_error="ignore",
            )
        except (OSError, TimeoutError) as error:
            log.warning("pieces could not be stopped: %s", error)
            return []
        return [number for ran in found.values() for number in ran]

    def _is_waiting(self, flight: Flight) -> bool:
        return flight.piece.id in self._flights and flight.task is not None

    async def _interrupt(self, flight: Flight) -> None:
        number = flight.piece.id
        if number not in await self._stop(flight.piece.type, [number], INTERRUPT):
            outcome = self._verdict(flight, "cancelled")
            self._put(partial(self._end_and_drop, flight, outcome))

    # --- in the thread that has results --------------------------------------

    def _collect(self) -> None:
        """See to whatever came, until the engine is closed."""
        is_open = True
        while is_open:
            with suppress(Empty):
                is_open = self._see_to(self._landed.get(timeout=TICK_S))
                while is_open and not self._landed.empty():
                    is_open = self._see_to(self._landed.get())
            self.nudge()
            now = time.monotonic()
            if now - self._looked_at >= TICK_S:
                self._looked_at = now
                self._look(now)

    def _see_to(self, what: Callable[[], None] | None) -> bool:
        if what is None:
            return False
        try:
            what()
        except Exception as error:
            log.exception("what came from the Dask cluster could not be seen to")
            about = what.args[0] if isinstance(what, partial) else None
            if isinstance(about, Task):
                # or its pieces would be awaited for ever
                self._fail(about, PieceFailed(f"{type(error).__name__}: {error}"))
        return True

    def _answered(self, task: Task, answer: Answer | Parts) -> None:
        if not isinstance(answer, Answer):
            # it is kept, and what was told of that went astray
            self._kept(task, answer.nbytes, 0.0, task.type, codec.encode([])[0])
            return
        worker, rows = answer.rows()
        if rows[0].status == UNKNOWN_CLASS:
            _, why = self._sending.recipes.worker(task.type)
            if why:
                self._fail(task, NoSuitableWorker(why))
            else:
                self._again(self._still(task), is_lost=False)
            return
        if rows[0].status == BROKEN:
            reasons = bytes(rows[0].payload).decode(errors="replace")
            self._fail(task, not_there(task.type, worker, reasons))
            return
        for flight, row in zip(task.flights, rows, strict=True):
            if flight.task is task and flight.piece.id in self._flights:
                self._ended(flight, row, worker.rpartition(".")[0])

    def _ended(self, flight: Flight, row: Row, worker: str) -> None:
        if row.status in (NOT_BEGUN, CUT_SHORT):
            if row.status == CUT_SHORT and flight.ticket.job is not None:
                flight.ticket.job.statistics.pieces_cut += 1
            flight.tries = 0
            self._again([flight], is_lost=False)
            return
        if row.status == "done":
            self._sending.pace.note(flight.piece.type, row.elapsed_s)
            self._end(
                flight,
                Outcome(
                    row.payload,
                    row.buffers,
                    None,
                    row.elapsed_s,
                    worker,
                    on_ref=self._values.adopt,
                ),
            )
            return
        if row.status == "failed" and flight.piece.error_retries > 0:
            flight.piece.error_retries -= 1
            self._again([flight])
            return
        self._end(flight, self._verdict(flight, row.status, worker, row))

    def _kept(
        self, task: Task, nbytes: int, elapsed_s: float, worker: str, inner: bytes
    ) -> None:
        for flight in self._still(task):
            wanted = flight.ticket.options.worker
            if wanted.rpartition(".")[0] == worker.rpartition(".")[0]:
                # whichever of the instances there had it
                worker = wanted
            refs = codec.decode(inner)
            ref = self._values.hold(task.id, task.future, nbytes, worker, refs)
            name = worker.rpartition(".")[0]
            self._end(flight, Outcome(b"", (), None, elapsed_s, name, ref))

    def _erred(self, task: Task, error: BaseException) -> None:
        """See to a task that Dask calls failed; what a piece raises is an answer."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            last: Any = error.last_worker
            self._died(task, str(last.address))
        elif isinstance(error, ModuleNotFoundError):
            where = (
                "the Dask workers" if self._config.dask.resources else "a Dask worker"
            )
            self._fail(
                task,
                NoSuitableWorker(
                    f"{where} that should perform {task.type!r} cannot import what is "
                    f"needed: {error}; install OpenCluster there, of the version here"
                ),
            )
        elif isinstance(error, WorkError):
            self._fail(task, error)
        else:
            name = type(error).__name__
            failure = PieceFailed(
                f"the Dask cluster could not perform it: {error}", exception_type=name
            )
            self._fail(task, failure)

    def _died(self, task: Task, address: str) -> None:
        """Decide for each piece of a task whose Dask worker was lost with it."""
        flights = self._still(task)
        self._census.forget(address)
        if len(task.flights) > 1:
            # nobody knows which it was; each by itself will show
            self._again(flights)
            return
        for flight in flights:
            piece = flight.piece
            name = f"{piece.type}@{address.rpartition('//')[2]}"
            piece.losses += 1
            piece.deaths.append(
                DeathEvidence(
                    f"the Dask worker at {address} was lost; its log, or that of its "
                    "nanny, may say why",
                    worker=name,
                )
            )
            verdict = None
            if len(piece.deaths) >= self._config.manager.max_kills:
                verdict = Verdict.POISONED
            elif piece.losses > piece.retries:
                verdict = Verdict.DIED
            if verdict is None:
                self._again([flight])
            else:
                error = error_for(piece, verdict, "", None, name, {})
                self._end(flight, Outcome(error=error, worker=name))

    def _gone(self, task: Task) -> None:
        """See to a task of which Dask knows no more."""
        if self._client.status != "running":
            self._lost_scheduler(task, None)
            return
        for flight in self._still(task):
            lost = {}
            for ref in flight.ticket.refs:
                try:
                    futures = self._values.futures([ref]).values()
                except DataLost as error:
                    lost.update(error.reasons)
                    continue
                if any(future.status in ("lost", "cancelled") for future in futures):
                    lost[name_of(ref)] = LOST
            if lost:
                self._end(flight, Outcome(error=DataLost(lost)))
            elif flight.tries > MAX_TRIES:
                self._fail(
                    task, PieceCancelled("Dask dropped the piece again and again")
                )
            else:
                # its data went with a Dask worker before it was begun, or somebody
                # restarted the cluster
                self._again([flight])

    def _lost_scheduler(self, task: Task, cause: BaseException | None) -> None:
        error = PieceCancelled(
            f"the Dask scheduler at {self._census.address} was lost, and "
            "with it all that it knew of the piece: see whether it runs, and run the "
            "task again"
        )
        error.__cause__ = cause
        self._fail(task, error)

    def _given_up(self, number: int, status: str) -> None:
        """End a piece that goes on in spite of everything, in a thread of its own."""
        flight = self._flights.get(number)
        if flight is not None:
            log.warning(
                "piece %s goes on although it should stop; its thread cannot be ended",
                number,
            )
            self._end_and_drop(flight, self._verdict(flight, status))

    def _progressed(self, number: int, done: float, total: float) -> None:
        flight = self._flights.get(number)
        if flight is not None and flight.ticket.options.on_progress is not None:
            flight.ticket.options.on_progress(done, total)

    def _look(self, now: float) -> None:
        """See to what takes too long, as nobody would tell of it."""
        self._values.let_go()
        if not self._flights:
            return
        if self._census.is_stale:
            self._soon(self._census.ask)
        wait_s = self._config.manager.worker_wait_s
        for type, count in list(self._counts.items()):
            if not count or self._census.seats(type):
                self._alone_since.pop(type, None)
                continue
            since = self._alone_since.setdefault(type, now)
            with self._lock:
                flights = [f for f in self._flights.values() if f.piece.type == type]
            for flight in flights:
                if now - max(since, flight.since) >= wait_s:
                    outcome = Outcome(error=self._census.nobody(type))
                    self._end_and_drop(flight, outcome)
        self._unpin()

    def _unpin(self) -> None:
        """Send pieces anew whose Dask worker, that was wanted, is gone."""
        with self._lock:
            tasks = {
                f.task for f in self._flights.values() if f.task and f.task.address
            }
        for task in tasks:
            if task.address not in self._census.seats(task.type):
                self._again(self._still(task))
                self._drop(task)

    # --- the end of pieces ---------------------------------------------------

    def _still(self, task: Task) -> list[Flight]:
        """Return the pieces of a task that are not over, nor in another one."""
        return [
            f for f in task.flights if f.task is task and f.piece.id in self._flights
        ]

    def _again(self, flights: Sequence[Flight], is_lost: bool = True) -> None:
        """Send pieces once more."""
        flights = [f for f in flights if f.piece.id in self._flights]
        for flight in flights:
            if is_lost and flight.ticket.job is not None:
                flight.ticket.job.statistics.pieces_retried += 1
        for type in {flight.piece.type for flight in flights}:
            those = [f for f in flights if f.piece.type == type]
            self._sending.send(type, those, self._counts[type])

    def _end_and_drop(self, flight: Flight, outcome: Outcome) -> None:
        """End a piece whose task was not seen to its end."""
        task = flight.task
        self._end(flight, outcome)
        if task is not None:
            self._drop(task)

    def _drop(self, task: Task) -> None:
        """Have Dask forget a task if no piece of it is awaited any more."""
        if task.future is not None and not self._still(task):
            self._soon(partial(self._client.cancel, [task.future]))

    def _fail(self, task: Task, error: WorkError) -> None:
        for flight in self._still(task):
            self._end(flight, Outcome(error=error))

    def _verdict(
        self, flight: Flight, status: str, worker: str = "", row: Row | None = None
    ) -> Outcome:
        if not worker:
            worker = (
                flight.ticket.options.worker.rpartition(".")[0] or flight.piece.type
            )
        failure = failure_in(Outcome(row.payload, row.buffers)) if row else {}
        verdict = _VERDICTS.get(status, Verdict.FAILED)
        error = error_for(flight.piece, verdict, "", failure, worker, {})
        elapsed_s = row.elapsed_s if row else 0.0
        return Outcome(error=error, elapsed_s=elapsed_s, worker=worker)

    def _end(self, flight: Flight, outcome: Outcome) -> None:
        """Tell who submitted a piece, once, and let Dask forget it."""
        with self._lock:
            if self._flights.pop(flight.piece.id, None) is None:
                return
            self._counts[flight.piece.type] -= 1
        job = flight.ticket.job
        if job is not None:
            job.statistics.pieces_done += outcome.error is None
            job.statistics.pieces_failed += outcome.error is not None
            job.statistics.bytes_received += outcome.nbytes
        flight.task = None
        try:
            flight.ticket.done(flight.piece.id, outcome)
        except Exception:
            log.exception("a callback failed")
