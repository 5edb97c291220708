"""The engine on a Dask cluster that is there already.

A worker type is a resource of Dask workers, a piece is a task that needs one of it, and
an instance of the Worker class stays in the process of the Dask worker. What a manager
sees is as on OpenCluster: same values, same errors, same options. Needs the package
`distributed` here and OpenCluster on the Dask workers, nothing on the scheduler.
"""

from __future__ import annotations

import asyncio
import itertools
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
from opencluster.core.chunks import Moved
from opencluster.core.inbox import CANCELLED, INTERRUPT
from opencluster.core.pieces import Verdict
from opencluster.engines import dask_runs, dask_scheduler, dask_tasks
from opencluster.engines.base import Done, Job, Options, Outcome, Where, WorkerInfo
from opencluster.engines.dask_census import Census
from opencluster.engines.dask_classes import Recipes, digest_of, not_there
from opencluster.engines.dask_client import open_client
from opencluster.engines.dask_messages import (
    BROKEN,
    NOT_BEGUN,
    UNKNOWN_CLASS,
    Answer,
    Order,
    Parts,
    Row,
    topic_of,
)
from opencluster.engines.dask_services import Caller, aside
from opencluster.engines.dask_tasks import Flight, Pace, Task
from opencluster.engines.dask_values import LOST, DaskValues, name_of
from opencluster.engines.dask_worker import end_session
from opencluster.engines.tickets import Ticket, closed, failure_in, piece_of
from opencluster.engines.verdicts import alike, error_for
from opencluster.errors import (
    DataLost,
    DeathEvidence,
    NoSuitableWorker,
    PieceCancelled,
    PieceFailed,
    WorkError,
)
from opencluster.place import Place
from opencluster.references import DataRef
from opencluster.wire import codec
from opencluster.wire.batches import check_size

log = logging.getLogger(__name__)

TICK_S = 0.1
"""How often a look is taken at what takes too long."""
WAIT_S = 0.5
"""Who waits looks up this often, for exceptions that came meanwhile."""
CLOSE_S = 5.0
"""How long the Dask workers may take to hear that this program ends."""
MAX_TRIES = 100
"""How often a piece is sent that was never begun: more is a mistake of somebody's."""

_VERDICTS = {
    "failed": Verdict.FAILED,
    "timeout": Verdict.TIMED_OUT,
    "interrupted": Verdict.INTERRUPTED,
    "cancelled": Verdict.CANCELLED,
}


def connect(config: Config, place: Place) -> DaskEngine:
    """Return an engine on the Dask cluster that the settings name."""
    client, is_ours = open_client(config.dask)
    return DaskEngine(config, client, is_ours)


class DaskEngine:
    """Sends pieces to Dask workers.

    Parameters
    ----------
    config : Config
        The settings.
    client : distributed.Client
        The way to the Dask cluster.
    is_ours : bool
        The client ends with the engine.
    """

    is_immediate = False

    def __init__(self, config: Config, client: Any, is_ours: bool) -> None:
        self.config = config
        self._client = client
        self._is_ours = is_ours
        self._session = str(client.id)
        self._has_resources = config.dask.resources
        self._census = Census(client, self._has_resources)
        self._recipes = Recipes(config)
        self._values = DaskValues(client)
        self._pace = Pace()
        self._caller = Caller(self._session, {}, lambda: client, self._values.resolve)
        self._numbers = itertools.count(1)
        self._flights: dict[int, Flight] = {}
        self._types: dict[str, int] = {}
        self._sent_recipes: set[str] = set()
        self._alone_since: dict[str, float] = {}
        self._told: dict[bytes, list[Any]] = {}
        self._following: set[asyncio.Future[None]] = set()
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._landed: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_closed = False
        self._looked_at = 0.0
        self._census.ask_now()
        client.subscribe_topic(topic_of(self._session), self._event)
        client.register_plugin(dask_scheduler.plugin())
        self._thread = threading.Thread(
            target=self._collect, name="opencluster-dask", daemon=True
        )
        self._thread.start()

    # --- pieces --------------------------------------------------------------

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        """Take pieces, and return their numbers; `done` may be called before.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; nothing of this call is submitted then.
        """
        flights = []
        now = time.monotonic()
        refs: list[DataRef] = []
        for value, options in pieces:
            payload, buffers = codec.encode(value, "piece", refs)
            nbytes = check_size(payload, buffers, self.config.network.max_message_bytes)
            ticket = Ticket(payload, buffers, nbytes, options, done, job, tuple(refs))
            refs = []
            piece = piece_of(next(self._numbers), type, options, job)
            flights.append(Flight(piece, ticket, now))
            if job is not None:
                job.statistics.pieces_submitted += 1
                job.statistics.bytes_sent += nbytes
        self._wait_for_room()
        numbers = [flight.piece.id for flight in flights]
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._flights.update(zip(numbers, flights, strict=True))
                self._types[type] = self._types.get(type, 0) + len(flights)
        if is_closed:
            for flight in flights:
                flight.ticket.done(flight.piece.id, closed(None))
        else:
            self._census.use(type)
            self._send(type, flights)
        return numbers

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something holds that a `Done` brings about; tell whether it does.

        Raises
        ------
        RuntimeError
            When a `Done` calls it: what it waits for could never come.
        """
        if threading.current_thread() is self._thread:
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
        numbers = list(pieces)
        with self._lock:
            flights = [f for n in numbers if (f := self._flights.get(n)) is not None]
            for flight in flights:
                self._landed.put(
                    partial(self._end, flight, self._verdict(flight, "cancelled"))
                )
        by_type: dict[str, list[int]] = {}
        for flight in flights:
            by_type.setdefault(flight.piece.type, []).append(flight.piece.id)
        for type, those in by_type.items():
            self._soon(partial(self._stop, type, those, CANCELLED))

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Interrupt pieces that run; those that do not run yet are cancelled."""
        for number in pieces:
            flight = self._flights.get(number)
            if flight is not None:
                self._soon(partial(self._interrupt, flight))

    def interrupt_worker(self, worker: str) -> None:
        """Interrupt what this manager's piece an instance runs."""
        type = worker.partition("@")[0]
        found = self._census.infos(type).get(worker)
        if found is None:
            return

        async def stop() -> None:
            await self._client.run(
                dask_runs.stop_worker,
                self._session,
                worker,
                workers=[found[1]],
                on_error="ignore",
            )

        self._soon(stop)

    # --- workers and services ------------------------------------------------

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the instances of a type, the least loaded first, at least one.

        Raises
        ------
        NoSuitableWorker
            When none came within the time allowed.
        """
        self._census.use(type)
        self._wait_for_seats(type, wait_s)
        loads: dict[str, int] = {}
        with self._lock:
            for flight in self._flights.values():
                named = flight.ticket.options.worker
                loads[named] = loads.get(named, 0) + 1
        infos = [info for info, _, _ in self._census.infos(type).values()]
        return sorted(infos, key=lambda info: loads.get(info.id, 0))

    def types(self) -> Mapping[str, int]:
        """Return the worker types that Dask workers offer, with how many of each."""
        if self._census.is_stale and not self._is_in_loop:
            with suppress(OSError, RuntimeError, TimeoutError):
                self._census.ask_now()
        return self._census.types()

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, which is made on some Dask worker."""
        return self._caller.call(service, method, args, kwargs)

    # --- values --------------------------------------------------------------

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Give values to Dask workers to hold, and wait until they do.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; none is given to anybody then.
        NoSuitableWorker
            When there is nobody to hold them.
        """
        encoded = []
        for value in values:
            refs: list[DataRef] = []
            payload, buffers = codec.encode(value, "value", refs)
            encoded.append((Parts(payload, buffers), refs))
        if not encoded:
            return []
        holders = self._holders(where)
        turns = itertools.cycle(holders)
        names = [next(turns) for _ in encoded]
        ids = [self._values.new_id() for _ in encoded]
        parts = {
            f"value-{id.hex()}": row[0] for id, row in zip(ids, encoded, strict=True)
        }
        by_address: dict[str, dict[str, Parts]] = {}
        for key, name in zip(parts, names, strict=True):
            by_address.setdefault(holders[name], {})[key] = parts[key]
        if where.everywhere:
            addresses = self._census.one_of_each_host(list(holders.values()))
            with aside():
                held = self._client.scatter(
                    parts, workers=addresses, broadcast=True, hash=False
                )
        else:
            with aside():
                held = self._client.sync(self._scatter_all, by_address)
        return [
            self._values.hold(id, held[key], parts[key].nbytes, name, refs)
            for id, key, name, (_, refs) in zip(ids, parts, names, encoded, strict=True)
        ]

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return the values that references stand for, and wait for them."""
        if not refs:
            return []
        with aside():
            return self._values.fetch(refs)

    def release(self, refs: Sequence[DataRef]) -> None:
        """Let go of values, although there are references to them."""
        self._values.release(refs)

    # --- the rest ------------------------------------------------------------

    def moved(self) -> Moved:
        """Return zeros: Dask does not tell how far it is."""
        return Moved()

    def report(self, job: Job) -> None:
        """Nobody is there to be told: a Dask cluster has no factories."""

    def close(self) -> None:
        """Give up what is unfinished, and end what was made on the Dask workers."""
        with self._lock:
            self._is_closed = True
            flights = list(self._flights.values())
        for flight in flights:
            self._landed.put(partial(self._end, flight, closed(None)))
        self._landed.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._client.status == "running":
            with suppress(Exception):
                self._client.unsubscribe_topic(topic_of(self._session))
                self._client.sync(self._say_goodbye, callback_timeout=CLOSE_S)
        if self._is_ours:
            with suppress(Exception):
                self._client.close(CLOSE_S)

    # --- sending -------------------------------------------------------------

    def _send(self, type: str, flights: Sequence[Flight]) -> None:
        """Send pieces of a type; those that cannot be sent end."""
        seats = sum(self._census.seats(type).values())
        infos = None
        groups: dict[tuple[int, str], list[Task]] = {}
        bundles = self._pace.bundles(type, flights, self._types.get(type, 1), seats)
        for bundle in bundles:
            task = Task(self._values.new_id(), type, bundle)
            named = task.options.worker
            if named:
                infos = infos or self._census.infos(type)
                if named in infos:
                    _, task.address, task.seat = infos[named]
            for flight in bundle:
                flight.task = task
                flight.tries += 1
            priority = dask_tasks.dask_priority(bundle[0].piece)
            groups.setdefault((priority, task.address), []).append(task)
        for (priority, address), tasks in groups.items():
            if any(task.flights[0].is_large for task in tasks):
                self._soon(partial(self._send_large, tasks, priority, address))
            else:
                self._launch(tasks, priority, address)

    async def _send_large(
        self, tasks: Sequence[Task], priority: int, address: str
    ) -> None:
        """Send the data of large pieces, and each of them when that is there."""
        turns = itertools.cycle(self._census.addresses(tasks[0].type) or [""])

        async def send(task: Task, place: str) -> None:
            try:
                await dask_tasks.scatter(self._client, task, address or place)
            except (OSError, TimeoutError, KeyError, ValueError) as error:
                log.warning("a piece did not reach %s: %s", place, error)
                # the worker is gone by now, or in a moment
                await asyncio.sleep(TICK_S)
                self._landed.put(partial(self._again, task.flights))
                return
            self._launch([task], priority, address)

        await asyncio.gather(
            *(send(task, next(turns)) for task in tasks if task.flights[0].is_large)
        )
        small = [task for task in tasks if not task.flights[0].is_large]
        if small:
            self._launch(small, priority, address)

    def _launch(self, tasks: Sequence[Task], priority: int, address: str) -> None:
        rows = []
        for task in tasks:
            refs = [ref for flight in task.flights for ref in flight.ticket.refs]
            try:
                values = self._values.futures(refs)
            except DataLost as error:
                for flight in task.flights:
                    self._landed.put(partial(self._end, flight, Outcome(error=error)))
                continue
            order = self._order(task, list(values))
            rows.append((task, order, list(values.values())))
        if not rows:
            return
        try:
            dask_tasks.submit(
                self._client, rows, priority, address, self._has_resources
            )
        except Exception as error:
            # such as a client that was closed
            for task, _, _ in rows:
                self._landed.put(partial(self._lost_scheduler, task, error))
            return
        self._soon(partial(self._follow_all, [task for task, _, _ in rows]))

    def _order(self, task: Task, values: Sequence[bytes]) -> bytes:
        recipe, _ = self._recipes.worker(task.type)
        is_first = task.type not in self._sent_recipes
        is_asked = any(flight.tries > 1 for flight in task.flights)
        self._sent_recipes.add(task.type)
        options, grace = task.options, self.config.worker
        tickets = [flight.ticket for flight in task.flights]
        order = Order(
            session=self._session,
            type=task.type,
            seat=task.seat,
            task=task.id,
            is_kept=options.keep,
            is_watched=options.on_progress is not None,
            numbers=[flight.piece.id for flight in task.flights],
            timeout_s=options.timeout_s,
            interrupt_grace_s=grace.interrupt_grace_s,
            kill_grace_s=grace.kill_grace_s,
            max_bytes=self.config.network.max_message_bytes,
            digest=digest_of(recipe),
            recipe=recipe if is_first or is_asked else b"",
            rows=[
                None if flight.is_large else [t.payload, list(t.buffers)]
                for flight, t in zip(task.flights, tickets, strict=True)
            ],
            values=values,
        )
        return order.pack()

    # --- in the thread of Dask's loop ----------------------------------------

    @property
    def _is_in_loop(self) -> bool:
        return bool(self._client.asynchronous)

    def _soon(self, function: Callable[[], Any]) -> None:
        with suppress(RuntimeError):
            self._client.loop.add_callback(function)

    def _event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take in what a Dask worker tells, which is here before its task's end."""
        for what, told in event[1].items():
            if what == "kept":
                self._told[bytes(told[0])] = told
            elif what == "over":
                self._landed.put(partial(self._given_up, *told))
            elif what == "progress":
                self._landed.put(partial(self._progressed, *told))

    async def _follow_all(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            follower = asyncio.ensure_future(self._follow(task))
            self._following.add(follower)
            follower.add_done_callback(self._following.discard)

    async def _follow(self, task: Task) -> None:
        """Wait for a task, and have what came of it seen to."""
        try:
            error = await task.future.exception()
            told = self._told.pop(task.id, None)
            if error is not None:
                self._landed.put(partial(self._erred, task, error))
            elif task.future.status in ("cancelled", "lost"):
                self._landed.put(partial(self._gone, task))
            elif told is not None:
                self._landed.put(partial(self._kept, task, *told[1:]))
            else:
                self._landed.put(partial(self._answered, task, await task.future))
        except (CancelledError, asyncio.CancelledError):
            self._landed.put(partial(self._gone, task))
        except Exception as error:
            self._landed.put(partial(self._erred, task, error))

    async def _stop(self, type: str, numbers: Sequence[int], reason: str) -> list[int]:
        """Have pieces stop wherever they are, and return those that ran."""
        addresses = self._census.addresses(type)
        if not addresses:
            return []
        found = await self._client.run(
            dask_runs.stop,
            self._session,
            numbers,
            reason,
            workers=addresses,
            on_error="ignore",
        )
        return [number for ran in found.values() for number in ran]

    async def _interrupt(self, flight: Flight) -> None:
        number = flight.piece.id
        if number not in await self._stop(flight.piece.type, [number], INTERRUPT):
            outcome = self._verdict(flight, "cancelled")
            self._landed.put(partial(self._end, flight, outcome))

    async def _scatter_all(
        self, by_address: Mapping[str, dict[str, Parts]]
    ) -> dict[str, Any]:
        held: dict[str, Any] = {}
        calls = (
            self._client.scatter(parts, workers=[address], hash=False)
            for address, parts in by_address.items()
        )
        for part in await asyncio.gather(*calls):
            held.update(part)
        return held

    async def _say_goodbye(self) -> None:
        addresses = {
            address for type in self._types for address in self._census.addresses(type)
        }
        if addresses:
            await self._client.run(
                end_session, self._session, workers=list(addresses), on_error="ignore"
            )

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
        except Exception:
            log.exception("what came from the Dask cluster could not be seen to")
        return True

    def _answered(self, task: Task, answer: Answer | Parts) -> None:
        if not isinstance(answer, Answer):
            # it is kept, and what was told of that went astray
            self._kept(task, answer.nbytes, 0.0, task.type, codec.encode([])[0])
            return
        worker, rows = answer.rows()
        if rows[0].status == UNKNOWN_CLASS:
            _, why = self._recipes.worker(task.type)
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
        if row.status == NOT_BEGUN:
            flight.tries = 0
            self._again([flight], is_lost=False)
            return
        if row.status == "done":
            self._pace.note(flight.piece.type, row.elapsed_s)
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
            where = "the Dask workers" if self._has_resources else "a Dask worker"
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
        if len(task.flights) > 1:
            # nobody knows which it was; each by itself will show
            self._again(flights)
            return
        self._census.forget(address)
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
            if len(piece.deaths) >= self.config.manager.max_kills:
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
            f"the Dask scheduler at {self._client.scheduler.address} was lost, and "
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
            self._end(flight, self._verdict(flight, status))

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
        wait_s = self.config.manager.worker_wait_s
        for type, count in list(self._types.items()):
            if not count or self._census.seats(type):
                self._alone_since.pop(type, None)
                continue
            since = self._alone_since.setdefault(type, now)
            with self._lock:
                flights = [f for f in self._flights.values() if f.piece.type == type]
            for flight in flights:
                if now - max(since, flight.since) >= wait_s:
                    self._end(flight, Outcome(error=self._no_seat(type)))
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
            self._send(type, [f for f in flights if f.piece.type == type])

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
            self._types[flight.piece.type] -= 1
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

    # --- who is there --------------------------------------------------------

    def _wait_for_room(self) -> None:
        bound = self.config.manager.max_pending
        if (
            len(self._flights) >= bound
            and threading.current_thread() is not self._thread
        ):
            self.wait(lambda: len(self._flights) < bound)

    def _wait_for_seats(self, type: str, wait_s: float) -> dict[str, int]:
        """Return who performs a type, waiting for the first one."""
        until = time.monotonic() + wait_s
        while True:
            seats = self._census.seats(type)
            if self._census.is_stale or not seats:
                self._census.ask_now()
                seats = self._census.seats(type)
            if seats:
                return seats
            if time.monotonic() >= until:
                raise self._no_seat(type)
            time.sleep(TICK_S)

    def _holders(self, where: Where) -> dict[str, str]:
        """Return who may hold values, with their addresses."""
        wait_s = self.config.manager.worker_wait_s
        if where.workers:
            found = {}
            for id in where.workers:
                info = self._census.infos(id.partition("@")[0]).get(id)
                if info is not None:
                    found[id] = info[1]
            if found:
                return found
            names = ", ".join(where.workers)
            raise NoSuitableWorker(f"none of these workers is there any more: {names}")
        if where.type:
            self._census.use(where.type)
            self._wait_for_seats(where.type, wait_s)
            infos = self._census.infos(where.type)
            return {id: address for id, (_, address, _) in infos.items()}
        if self._census.is_stale:
            self._census.ask_now()
        addresses = self._census.addresses("")
        if not addresses:
            raise NoSuitableWorker(
                f"no Dask worker is there to hold a value, at the scheduler "
                f"{self._client.scheduler.address}"
            )
        return {f"Dask@{a.rpartition('//')[2]}.0": a for a in addresses}

    def _no_seat(self, type: str) -> NoSuitableWorker:
        address = self._client.scheduler.address
        if not self._has_resources:
            return NoSuitableWorker(
                f"no worker of type {type!r} is here: no Dask worker is at all, at the "
                f"scheduler {address}"
            )
        return NoSuitableWorker(
            f"no worker of type {type!r} is here: no Dask worker offers a resource of "
            f"that name. There are: {alike(type, self._census.types())}. Start one "
            f'with `dask worker {address} --resources "{type}=1"`, wait longer with '
            "[manager] worker_wait_s, or have every Dask worker perform every type "
            "with [dask] resources = no"
        )
