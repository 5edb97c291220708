"""What runs on Dask workers: pieces, on instances of Worker classes.

A task of ours names `perform`, which Dask's worker calls in a thread of its own. It
takes an instance of the class that is free, or makes one, and has it perform one piece
after the other. Dask sees that no more tasks of a type run at a time than the worker
offers of that resource.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from opencluster.core.inbox import CANCELLED, CUT_SHORT
from opencluster.engines.choice import ENGINE_VARIABLE
from opencluster.engines.dask import runs
from opencluster.engines.dask.classes import NotThere, load_worker
from opencluster.engines.dask.messages import (
    BROKEN,
    NOT_BEGUN,
    UNKNOWN_CLASS,
    Answer,
    Order,
    Parts,
    Row,
    topic_of,
)
from opencluster.engines.dask.services import Caller, end_services
from opencluster.inputs import Escaped
from opencluster.keeping import owned
from opencluster.references import DataRef
from opencluster.serving.outcomes import (
    PieceInterrupt,
    checked,
    encoded,
    failure_of,
    status_of,
)
from opencluster.wire import codec
from opencluster.worker import Worker

ENOUGH_S = 0.05
"""How long the pieces of a bundle take together at most, but for the last."""


def perform(packed: bytes, pieces: Sequence[Parts], values: Sequence[Parts]) -> Parts:
    """Perform the pieces of an order, and return what came of them.

    Parameters
    ----------
    packed : bytes
        The order.
    pieces : sequence of Parts
        Those that are large.
    values : sequence of Parts
        What the pieces refer to.
    """
    from distributed import get_worker

    order = Order.unpack(packed)
    with _lock:
        shop = _shops.get((get_worker().address, order.session))
        if shop is None:
            shop = _Shop(get_worker(), order.session)
            _shops[get_worker().address, order.session] = shop
    return shop.perform(order, pieces, values)


def end_session(session: str) -> None:
    """End what was made for a client that is gone; a thread does, as it takes long."""
    with _lock:
        ended = [_shops.pop(key) for key in list(_shops) if key[1] == session]
    runs.stop_session(session, CANCELLED)
    threading.Thread(
        target=_close, args=(ended, session), name="opencluster-end", daemon=True
    ).start()


def _close(shops: Sequence[_Shop], session: str) -> None:
    for shop in shops:
        shop.close()
    end_services(session)


@dataclass(slots=True)
class _Seat:
    """An instance of a Worker class, which performs one piece at a time."""

    number: int
    worker: Worker


@dataclass(slots=True)
class _Crew:
    """The instances of a class that one client has on one Dask worker."""

    cls: type[Worker]
    services: Mapping[str, bytes]
    free: list[_Seat] = field(default_factory=list)
    count: int = 0


class _Shop:
    """What one client has on one Dask worker.

    Parameters
    ----------
    host : distributed.Worker
        The Dask worker.
    session : str
        Who the client is.
    """

    def __init__(self, host: Any, session: str) -> None:
        self._host = host
        self._session = session
        self._crews: dict[bytes, _Crew] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._escaped = Escaped()
        if "opencluster.engines.dask.engine" not in sys.modules:
            # whoever submits pieces in here means this Dask cluster, unless this is the
            # process of a manager that has Dask workers in it
            os.environ.setdefault(ENGINE_VARIABLE, "dask")
        _end_with(host)

    def perform(
        self, order: Order, pieces: Sequence[Parts], values: Sequence[Parts]
    ) -> Parts:
        """Perform the pieces of an order."""
        where = self._name(order.type, max(0, order.seat))
        try:
            crew = self._crew(order)
            if crew is None:
                return Answer.of(where, [Row(UNKNOWN_CLASS)])
            seat = self._take(crew, order)
        except NotThere as error:
            return Answer.of(where, [Row(BROKEN, str(error).encode())])
        except BaseException:
            return Answer.of(where, [Row(BROKEN, traceback.format_exc().encode())])
        try:
            return self._performed(order, seat, pieces, values)
        finally:
            with self._lock:
                crew.free.append(seat)
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """Let the instances tidy up that perform nothing, and those that do later."""
        self._is_closed = True
        with self._lock:
            seats = [seat for crew in self._crews.values() for seat in crew.free]
            for crew in self._crews.values():
                crew.free.clear()
        for seat in seats:
            try:
                seat.worker.shutdown()
            except Exception:
                seat.worker.log.exception("shutdown() failed")

    # --- instances -----------------------------------------------------------

    def _crew(self, order: Order) -> _Crew | None:
        with self._lock:
            crew = self._crews.get(order.digest)
            if crew is None and order.recipe:
                cls, services = load_worker(order.recipe)
                crew = self._crews[order.digest] = _Crew(cls, services)
        return crew

    def _take(self, crew: _Crew, order: Order) -> _Seat:
        """Return an instance that is free, the wanted one if it is, or make one."""
        with self._lock:
            for seat in crew.free:
                if seat.number == order.seat:
                    crew.free.remove(seat)
                    return seat
            if crew.free:
                return crew.free.pop()
            number = crew.count
            crew.count += 1
        try:
            worker = crew.cls()
            worker._services_from = cast(Any, Caller(self._session, crew.services))
            worker.startup()
        except BaseException:
            with self._lock:
                crew.count -= 1
            raise
        return _Seat(number, worker)

    def _name(self, type: str, number: int) -> str:
        return seat_id(type, self._host.address, number)

    # --- pieces --------------------------------------------------------------

    def _performed(
        self,
        order: Order,
        seat: _Seat,
        pieces: Sequence[Parts],
        values: Sequence[Parts],
    ) -> Parts:
        who = self._name(order.type, seat.number)
        held = dict(zip(order.values, values, strict=True))
        large = iter(pieces)
        started = time.monotonic()
        rows: list[Row] = []
        for number, own in zip(order.numbers, order.rows, strict=True):
            begun = time.monotonic()
            if begun - started > ENOUGH_S:
                rows.append(Row(NOT_BEGUN))
                continue
            piece = next(large) if own is None else Parts(*own)
            run = runs.Run(
                (self._session, number),
                who,
                order.timeout_s,
                order.interrupt_grace_s,
                order.kill_grace_s,
                order.is_watched,
                order.is_urgent,
                self._tell,
            )
            status, value = self._run(run, seat.worker, piece, held)
            if run.has_seen_way and not run.reason:
                status, value = CUT_SHORT, None
            if order.is_kept and status == "done":
                box = [value]
                del value
                kept = self._kept(order, who, box, time.monotonic() - begun)
                if isinstance(kept, Parts):
                    return kept
                status, value = "failed", kept
            payload, buffers, status = encoded(
                status, value, order.max_bytes, self._escaped
            )
            del value
            payload, *buffers = owned(payload, buffers)
            rows.append(Row(status, payload, buffers, time.monotonic() - begun))
        return Answer.of(who, rows)

    def _run(
        self, run: runs.Run, worker: Worker, piece: Parts, held: Mapping[bytes, Parts]
    ) -> tuple[str, Any]:
        runs.begin(run)
        # it is asked what is asked of the runner of a process of its own
        worker._runner = run

        def value_of(ref: DataRef) -> Any:
            parts = held[ref.id]
            return codec.decode(parts.payload, parts.buffers, value_of)

        try:
            try:
                work = codec.decode(piece.payload, piece.buffers, value_of)
                return "done", checked(run.perform(worker.perform, work))
            except PieceInterrupt as stop:
                return status_of(run.reason or str(stop)), failure_of(stop)
            except BaseException as error:
                return "failed", failure_of(error)
        except PieceInterrupt as stop:
            # raised on the way out: it counts as if raised in the piece
            return status_of(run.reason), failure_of(stop)
        finally:
            worker._runner = None
            runs.end(run)

    def _kept(
        self, order: Order, who: str, box: list[Any], elapsed_s: float
    ) -> Parts | dict[str, str]:
        """Return a result that stays, having told of it; or why it cannot be kept."""
        refs: list[DataRef] = []
        try:
            payload, buffers = codec.encode(box[0], "result", refs)
        except Exception as error:
            return failure_of(error)
        # so that nobody but who is to keep its memory refers to it
        box.clear()
        payload, *buffers = owned(payload, buffers)
        parts = Parts(payload, buffers)
        self._escaped.note(refs)
        inner, _ = codec.encode(refs)
        self._tell({"kept": [order.task, parts.nbytes, elapsed_s, who, inner]})
        return parts

    def _tell(self, event: dict[str, Any]) -> None:
        self._host.log_event(topic_of(self._session), event)


def seat_id(type: str, address: str, number: int) -> str:
    """Return the identity of an instance, its name for people before the last dot."""
    return f"{type}@{address.rpartition('//')[2]}.{number}"


_shops: dict[tuple[str, str], _Shop] = {}
"""By the address of the Dask worker, as a process may have several, and client."""
_lock = threading.Lock()


def _end_with(host: Any) -> None:
    """Have all that was made on a Dask worker end with it."""
    from distributed import WorkerPlugin

    class EndWithWorker(WorkerPlugin):
        """Ends what OpenCluster made here."""

        name = "opencluster"

        def teardown(self, worker: Any) -> None:
            for shop in _taken(lambda key: key[0] == worker.address):
                shop.close()

    if EndWithWorker.name not in host.plugins:
        with suppress(RuntimeError):
            host.loop.add_callback(
                host.plugin_add, plugin=EndWithWorker(), name=EndWithWorker.name
            )


def _taken(is_meant: Callable[[tuple[str, str]], bool]) -> list[_Shop]:
    with _lock:
        return [_shops.pop(key) for key in list(_shops) if is_meant(key)]
